//! One question over HTTP/1.1 to the instance on this machine, without a token: what is not public stays unanswered.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::config::Settings;
use crate::failure::Failure;
use crate::tls;

/// The largest answer that is kept.
const BYTES_MAX: u64 = 4 << 20;

/// Where an instance is asked, and how.
#[derive(Debug)]
pub struct Desk {
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Desk {
    /// That of the instance that has these settings, on this machine: by TLS where they name a certificate, which is believed, or where
    /// an authority is given, which alone is believed then.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn here(settings: &Settings, authority: Option<&Path>) -> std::result::Result<Self, Failure> {
        let address = reachable(settings.http_addr);
        let client = match (authority, &settings.http_tls_cert) {
            (Some(authority), _) => Some(tls::client_of(authority)),
            (None, Some(certificate)) => Some(tls::own_client(certificate, settings.http_tls_ca.as_deref())),
            (None, None) => None,
        };
        let client = client.transpose().map_err(|why| Failure::new("TLS cannot be used").caused_by(why))?;
        let named =
            settings.http_advertised_addr.as_deref().and_then(|advertised| Some(advertised.rsplit_once(':')?.0.to_owned()));
        let name = named.and_then(|host| ServerName::try_from(host).ok()).unwrap_or_else(|| address.ip().into());
        Ok(Self { address, tls: client.map(|client| (Arc::new(client), name)) })
    }

    /// A path's URL.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// The answer's status line and body, an empty line between.
    ///
    /// # Errors
    /// No answer in time, or none in HTTP; nobody who is believed.
    pub fn get(&self, path: &str, wait: Duration) -> Result<String> {
        let stream = TcpStream::connect_timeout(&self.address, wait)?;
        stream.set_read_timeout(Some(wait))?;
        stream.set_write_timeout(Some(wait))?;
        let Some((client, name)) = &self.tls else {
            let hint = "no answer in HTTP; where the instance serves TLS give HTTP_TLS_CERT as it has it, or --ca FILE";
            return exchange(stream, self.address, path).map_err(|why| match why.kind() {
                ErrorKind::InvalidData | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Error::other(hint),
                _ => why,
            });
        };
        let session = ClientConnection::new(Arc::clone(client), name.clone()).map_err(Error::other)?;
        exchange(StreamOwned::new(session, stream), self.address, path).map_err(explained)
    }
}

/// Sends the question and reads until the other side ends; [`ErrorKind::InvalidData`] where that is no HTTP.
fn exchange(mut stream: impl Read + Write, address: SocketAddr, path: &str) -> Result<String> {
    // In one piece: who speaks another language may be gone after the first.
    let question = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    match stream.take(BYTES_MAX).read_to_end(&mut answer) {
        // Some end a TLS connection without a word.
        Err(why) if why.kind() == ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        read => drop(read?),
    }
    let answer = String::from_utf8_lossy(&answer);
    let none = || Error::new(ErrorKind::InvalidData, "not an answer in HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").filter(|(head, _)| head.starts_with("HTTP/")).ok_or_else(none)?;
    Ok(format!("{}\n\n{body}", head.lines().next().unwrap_or_default()))
}

/// What TLS says, for people.
fn explained(why: Error) -> Error {
    let told = why.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match told {
        Some(rustls::Error::InvalidCertificate(reason)) => Error::other(format!(
            "its certificate is not believed ({reason}): give HTTP_TLS_CERT and HTTP_TLS_CA as the instance has them, or --ca FILE"
        )),
        Some(rustls::Error::InvalidMessage(_)) => Error::other("no answer in TLS: does it serve plain HTTP?"),
        _ => why,
    }
}

/// Where an instance that listens here is asked from the same machine.
fn reachable(listens: SocketAddr) -> SocketAddr {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_on_all_interfaces_is_asked_on_loopback() {
        let asked = |listens: &str| reachable(listens.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:8000"), "127.0.0.1:8000");
        assert_eq!(asked("[::]:8000"), "[::1]:8000");
        assert_eq!(asked("10.1.2.3:8000"), "10.1.2.3:8000");
    }
}
