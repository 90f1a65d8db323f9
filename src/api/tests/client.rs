//! A small HTTP/1.1 client that hides nothing: what it sends and what it gets are bytes. Whatever it gets is held against the document.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Got {
    /// A header; the name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {}", self.text()))
    }

    /// Checks that it is a whole problem of this kind, and gives its body.
    pub(super) fn problem(&self, status: u16, name: &str) -> Value {
        assert_eq!((self.status, self.header("content-type")), (status, Some("application/problem+json")), "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{name}"), "{problem}");
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        assert_eq!(problem["instance"].as_str(), self.header("x-request-id"));
        problem
    }
}

/// One connection.
pub(super) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(super) fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        // Head and body go in two writes: without this the second waits for the first to be acknowledged.
        stream.set_nodelay(true).expect("a socket that obeys");
        Self { stream, unread: Vec::new() }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        // The server may have answered and closed already: then the answer is what counts.
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a request with these header lines and reads its answer.
    pub(super) fn send(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Got {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|line| line.starts_with("Host")) {
            head.push_str("Host: localhost\r\n");
        }
        for line in headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.write(head.as_bytes());
        self.write(body);
        let got = self.read(method == "HEAD");
        super::contract::check(method, path, &got);
        got
    }

    pub(super) fn get(&mut self, path: &str) -> Got {
        self.send("GET", path, &[], b"")
    }

    pub(super) fn post(&mut self, path: &str, body: &[u8]) -> Got {
        let length = if body.is_empty() { "Content-Length: 0" } else { "Accept: */*" };
        self.send("POST", path, &["Content-Type: application/json", length], body)
    }

    /// Reads an answer's head.
    pub(super) fn head(&mut self) -> String {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            assert!(self.more(), "the connection ended before an answer: {:?}", String::from_utf8_lossy(&self.unread));
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        String::from_utf8(head).expect("a head in UTF-8")
    }

    /// Reads an answer.
    pub(super) fn read(&mut self, headless: bool) -> Got {
        let head = self.head();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().expect("a status line");
        let status = status.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect("a status line");
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").expect("a header"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut got = Got { status: status.parse().expect("a status"), headers, body: Vec::new() };
        let length: usize = got.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        if got.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                got.body.extend_from_slice(&chunk);
            }
        } else if !headless {
            while self.unread.len() < length {
                assert!(self.more(), "the connection ended within an answer");
            }
            got.body = self.unread.drain(..length).collect();
        }
        got
    }

    /// The next part of a body that is sent as it comes; none at its end.
    pub(super) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = |unread: &[u8]| unread.windows(2).position(|two| two == b"\r\n");
        while line(&self.unread).is_none() {
            assert!(self.more(), "the connection ended within an answer");
        }
        let end = line(&self.unread).expect("found just now");
        let length = std::str::from_utf8(&self.unread[..end]).expect("a length");
        let length = usize::from_str_radix(length, 16).expect("a length");
        while self.unread.len() < end + 2 + length + 2 {
            assert!(self.more(), "the connection ended within a part");
        }
        let chunk: Vec<u8> = self.unread.drain(..end + 2 + length + 2).skip(end + 2).take(length).collect();
        (length > 0).then_some(chunk)
    }

    fn more(&mut self) -> bool {
        let mut some = [0; 4096];
        let read = self.stream.read(&mut some).unwrap_or(0);
        self.unread.extend_from_slice(&some[..read]);
        read > 0
    }

    /// Everything up to the end of the connection.
    pub(super) fn rest(mut self) -> String {
        while self.more() {}
        String::from_utf8_lossy(&self.unread).into_owned()
    }
}
