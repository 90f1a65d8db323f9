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
use crate::config::Scope;
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
