//! TLS for the HTTP interface, by rustls: what the server shows, and whom instances believe when they call each other.
//!
//! The certificate's files are looked at now and then, and a new pair is taken up without a restart; one that cannot be used is
//! reported, and the old one goes on. TLS 1.2 and 1.3.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tracing::{info, warn};

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those between it and its root, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Whom other instances' certificates must come from, PEM; none is the certificate's own file.
    pub authority: Option<PathBuf>,
}

/// Why TLS cannot be had; for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// See the module's header.
#[derive(Clone, Debug)]
pub struct Tls {
    shown: Arc<Shown>,
    server: Arc<ServerConfig>,
    client: ClientConfig,
}

/// The certificate in force.
#[derive(Debug)]
struct Shown {
    files: TlsFiles,
    pair: RwLock<Arc<CertifiedKey>>,
    /// When the files were last changed, as of the last look.
    changed: Mutex<[Option<SystemTime>; 2]>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.pair.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file cannot be used, and why; no part of the key.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let changed = changed(files);
        let pair = pair(files)?;
        let shown = Arc::new(Shown { files: files.clone(), pair: RwLock::new(Arc::new(pair)), changed: Mutex::new(changed) });
        let failed = |why: rustls::Error| TlsError(why.to_string());
        let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(failed)?;
        let mut server = server.with_no_client_auth().with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let roots = roots(files.authority.as_deref().unwrap_or(&files.certificate))?;
        Ok(Self { shown, server: Arc::new(server), client: client(roots)? })
    }

    /// What the server answers handshakes with.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// How other instances are called.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        self.client.clone()
    }

    /// Takes up new files, if there are any that can be used.
    pub fn refresh(&self) {
        let now = changed(&self.shown.files);
        if std::mem::replace(&mut *self.shown.changed.lock().unwrap_or_else(PoisonError::into_inner), now) == now {
            return;
        }
        match pair(&self.shown.files) {
            Ok(pair) => {
                *self.shown.pair.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                info!(certificate = %self.shown.files.certificate.display(), "a new certificate is in force");
            }
            Err(why) => warn!(%why, "the certificate's files have changed and cannot be used: the old certificate goes on"),
        }
    }
}

/// A client that believes these.
///
/// # Errors
/// Where rustls has no protocol to offer, which does not happen with the provider that is built in.
pub fn client(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    Ok(builder.map_err(|why| TlsError(why.to_string()))?.with_root_certificates(roots).with_no_client_auth())
}

/// A client that believes whoever has a certificate from these (PEM).
///
/// # Errors
/// A file that holds none.
pub fn client_of(authority: &Path) -> Result<ClientConfig, TlsError> {
    client(roots(authority)?)
}

/// A client for the machine that the instance is on: whatever names its certificate has, the very one in its file is believed, and
/// what comes from its authority. That one is renewed in the file seconds before it is shown.
///
/// # Errors
/// Which file cannot be used, and why.
pub fn own_client(certificate: &Path, authority: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let own = certificates(certificate)?.remove(0);
    let known = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(authority.unwrap_or(certificate))?), provider());
    let known = known.build().map_err(|why| TlsError(why.to_string()))?;
    let mut client = client(RootCertStore::empty())?;
    client.dangerous().set_certificate_verifier(Arc::new(Own { own, known }));
    Ok(client)
}

/// Believes one certificate under any name, and what is known. That its owner has the key is checked as ever.
#[derive(Debug)]
struct Own {
    own: CertificateDer<'static>,
    known: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.own {
            return Ok(ServerCertVerified::assertion());
        }
        self.known.verify_server_cert(shown, between, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.known.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.known.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.known.supported_verify_schemes()
    }
}

fn changed(files: &TlsFiles) -> [Option<SystemTime>; 2] {
    [&files.certificate, &files.key].map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |why: &dyn std::fmt::Display| TlsError(format!("{}: {why}", path.display()));
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|why| failed(&why))?.collect();
    let read = read.map_err(|why| failed(&why))?;
    if read.is_empty() { Err(failed(&"it holds no certificate in PEM")) } else { Ok(read) }
}

fn pair(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate)?;
    let failed = |why: &dyn std::fmt::Display| TlsError(format!("{}: {why}", files.key.display()));
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|why| failed(&why))?;
    let pair = CertifiedKey::from_der(chain, key, &provider());
    pair.map_err(|why| failed(&format!("it cannot be used with {}: {why}", files.certificate.display())))
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|why| TlsError(format!("{}: {why}", path.display())))?;
    }
    Ok(roots)
}
