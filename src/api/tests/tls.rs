//! The interface over TLS.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::access::token;
use super::anywhere::Board;
use super::world::World;
use crate::commands::{bundle, probe};
use crate::config::{Scope, Settings, Sources};
use crate::scoring::ScoringParams;
use crate::tls::{Tls, TlsFiles};

/// A self-signed certificate for this machine.
fn write_certificate(folder: &Path) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem"), authority: None };
    std::fs::write(&files.certificate, made.cert.pem()).expect("written");
    std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
    files
}

/// One request; the answer as text.
fn ask(tls: &Tls, to: SocketAddr, request: &str) -> std::io::Result<String> {
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::new(tls.client()), name).expect("a client");
    let mut stream = StreamOwned::new(session, TcpStream::connect(to)?);
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(why) if answer.is_empty() => Err(why),
        _ => Ok(String::from_utf8(answer).expect("text")),
    }
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn it_answers_by_tls_and_not_in_the_clear() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = Tls::load(&write_certificate(folder.path())).expect("a usable pair");
    let world = World::secure(Board::default().seat("one"), Vec::new(), &tls);
    let answer = ask(&tls, world.address, &request("GET", "/v1/health", "", "")).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age="), "{answer}");
    let mut clear = TcpStream::connect(world.address).expect("a connection");
    clear.write_all(request("GET", "/v1/health", "", "").as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let _ended = clear.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "no answer in the clear");
    // Who does not know the certificate does not talk to it.
    let other = tempfile::tempdir().expect("a folder");
    let stranger = Tls::load(&write_certificate(other.path())).expect("a usable pair");
    assert!(ask(&stranger, world.address, &request("GET", "/v1/health", "", "")).is_err());
}

#[test]
fn the_cookie_stays_within_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = Tls::load(&write_certificate(folder.path())).expect("a usable pair");
    let world = World::secure(Board::default().seat("one"), vec![token("page", "page-secret", &[Scope::Query])], &tls);
    let log_in = request("POST", "/v1/session", "Content-Type: application/json\r\n", r#"{"token":"page-secret"}"#);
    let answer = ask(&tls, world.address, &log_in).expect("an answer");
    let set = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(set.starts_with("__Host-mangrove_session=") && set.ends_with("; Secure"), "{set}");
    let cookie = format!("Cookie: {}\r\n", set.split(';').next().expect("a pair"));
    let answer = ask(&tls, world.address, &request("GET", "/v1/health", &cookie, "")).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn instances_call_each_other_by_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = Tls::load(&write_certificate(folder.path())).expect("a usable pair");
    let board = Board::default();
    let (mut one, two) = (World::secure(board.seat("one"), Vec::new(), &tls), World::secure(board.seat("two"), Vec::new(), &tls));
    one.run();
    one.health.started();
    board.put("one", one.address, &[0, 1, 2, 3], &[]);
    board.put("two", two.address, &[], &[]);
    let inference = r#"{"user_id":"u","transaction":{"amount":1,"merchant":"m"}}"#;
    let asked = request("POST", "/v1/inference", "Content-Type: application/json\r\n", inference);
    let answer = ask(&tls, two.address, &asked).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"source\":\"owner\""), "{answer}");
}

#[test]
fn a_new_certificate_is_taken_up_and_an_unusable_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = write_certificate(folder.path());
    let tls = Tls::load(&files).expect("a usable pair");
    let world = World::secure(Board::default().seat("one"), Vec::new(), &tls);
    let livez = request("GET", "/livez", "", "");
    assert!(ask(&tls, world.address, &livez).is_ok());
    std::fs::write(&files.key, "no key").expect("written");
    tls.refresh();
    assert!(ask(&tls, world.address, &livez).is_ok(), "the old pair goes on");
    let renewed = Tls::load(&write_certificate(folder.path())).expect("a usable pair");
    assert!(ask(&renewed, world.address, &livez).is_err(), "not looked at yet");
    tls.refresh();
    assert!(ask(&renewed, world.address, &livez).is_ok(), "the new pair is in force");
}

#[test]
fn what_is_wrong_with_the_files_is_said_without_the_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = write_certificate(folder.path());
    let other = tempfile::tempdir().expect("a folder");
    let others = write_certificate(other.path());
    let mixed = TlsFiles { key: others.key.clone(), ..files.clone() };
    let key = std::fs::read_to_string(&others.key).expect("a key");
    let why = Tls::load(&mixed).expect_err("the key is another's").to_string();
    assert!(why.contains("key.pem") && !key.lines().any(|line| line.len() > 20 && why.contains(line)), "{why}");
    std::fs::write(&files.certificate, "").expect("written");
    assert!(Tls::load(&files).expect_err("nothing in it").to_string().contains("cert.pem"));
    assert!(Tls::load(&TlsFiles { certificate: folder.path().join("none"), ..files }).is_err());
}

/// Settings of whoever asks the interface at this address from its machine.
fn settings(address: SocketAddr, more: &[(&str, &Path)]) -> Settings {
    let mut flags = vec![("HTTP_ADDR".to_owned(), address.to_string())];
    flags.extend(more.iter().map(|(name, path)| ((*name).to_owned(), path.display().to_string())));
    Settings::load(&Sources { flags, ..Sources::default() }).expect("they fit")
}

/// What a probe says: nothing where the answer is yes.
fn probed(settings: &Settings, ca: Option<&Path>) -> Result<(), String> {
    let args = probe::Args { probe: probe::Probe::Livez, ca: ca.map(Path::to_owned) };
    probe::run(&args, settings).map_err(|why| why.to_string())
}

/// One certificate for a name that nobody on this machine is asked by.
fn elsewhere(folder: &Path) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(["scorer-1.scorers".to_owned()]).expect("a certificate");
    let files = TlsFiles { certificate: folder.join("else.pem"), key: folder.join("else.key"), authority: None };
    std::fs::write(&files.certificate, made.cert.pem()).expect("written");
    std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
    files
}

#[test]
fn the_probe_asks_by_tls_with_the_instances_own_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = elsewhere(folder.path());
    let tls = Tls::load(&files).expect("a usable pair");
    let world = World::secure(Board::default().seat("one"), Vec::new(), &tls);
    let own = [("HTTP_TLS_CERT", files.certificate.as_path()), ("HTTP_TLS_KEY", files.key.as_path())];
    let own = settings(world.address, &own);
    assert_eq!(probed(&own, None), Ok(()), "whatever name its certificate has");
    let named = tempfile::tempdir().expect("a folder");
    let files = write_certificate(named.path());
    let tls = Tls::load(&files).expect("a usable pair");
    let world = World::secure(Board::default().seat("two"), Vec::new(), &tls);
    let plain = settings(world.address, &[]);
    assert_eq!(probed(&plain, Some(&files.certificate)), Ok(()), "an authority is enough");
    let strange = probed(&plain, Some(&folder.path().join("else.pem"))).expect_err("another's");
    assert!(strange.contains("not believed") && strange.contains("--ca"), "{strange}");
    let clear = probed(&plain, None).expect_err("TLS alone is served");
    assert!(clear.contains("http://") && clear.contains("HTTP_TLS_CERT") && clear.contains("--ca"), "{clear}");
    let none = probed(&plain, Some(&folder.path().join("none.pem"))).expect_err("no file");
    assert!(none.contains("none.pem"), "{none}");
}

#[test]
fn one_that_has_another_certificate_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, other) = (write_certificate(folder.path()), elsewhere(folder.path()));
    let tls = Tls::load(&files).expect("a usable pair");
    let world = World::secure(Board::default().seat("one"), Vec::new(), &tls);
    let settings = settings(world.address, &[("HTTP_TLS_CERT", &other.certificate), ("HTTP_TLS_KEY", &other.key)]);
    let why = probed(&settings, None).expect_err("not ours");
    assert!(why.contains("not believed"), "{why}");
}

#[test]
fn tls_where_there_is_none_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = write_certificate(folder.path());
    let world = World::idle(ScoringParams::default(), Vec::new());
    let why = probed(&settings(world.address, &[]), Some(&files.certificate)).expect_err("plain");
    assert!(why.contains("plain HTTP"), "{why}");
}

#[test]
fn a_bundle_has_what_an_instance_answers_by_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = elsewhere(folder.path());
    let tls = Tls::load(&files).expect("a usable pair");
    let world = World::secure(Board::default().seat("one"), Vec::new(), &tls);
    let state = folder.path().join("state");
    let settings = |own: &[(&str, &Path)]| settings(world.address, &[own, &[("STATE_DIR", state.as_path())]].concat());
    let health = |settings: Settings| {
        let file = folder.path().join("support.tar.gz");
        bundle::run(bundle::Args { file: file.clone(), log_file: None, connect: false, ca: None }, settings).expect("written");
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(file).expect("an archive")));
        let mut entries = archive.entries().expect("entries").map(|entry| entry.expect("an entry"));
        let wanted = |entry: &tar::Entry<'_, _>| entry.path().expect("a path").ends_with("http-v1-health.txt");
        let mut text = String::new();
        entries.find(wanted).expect("it is in").read_to_string(&mut text).expect("text");
        text
    };
    let own = health(settings(&[("HTTP_TLS_CERT", files.certificate.as_path()), ("HTTP_TLS_KEY", files.key.as_path())]));
    assert!(own.starts_with("HTTP/1.1 200"), "{own}");
    let clear = health(settings(&[]));
    assert!(clear.contains("no answer from http://") && clear.contains("HTTP_TLS_CERT"), "{clear}");
}
