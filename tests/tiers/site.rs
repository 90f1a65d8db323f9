//! The HTTP interface of a stage's instance, and a client of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use mangrove::api::{Api, Doors};
use serde_json::Value;
use tokio::net::TcpListener;

/// The interface; ends with this.
pub struct Site {
    pub address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

pub struct Got {
    pub status: u16,
    /// Its headers in lower case.
    pub head: String,
    pub body: String,
}

impl Site {
    pub fn of(api: Api) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(mangrove::api::serve(Arc::new(api), listener, Doors::default(), std::future::pending()));
        Self { address, _runtime: runtime }
    }

    pub fn send(&self, method: &str, path: &str, header: &str, body: &str) -> Got {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // HTTP/1.0: a body that comes in pieces ends with the connection.
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n{header}\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Got { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub fn ask(&self, path: &str, header: &str) -> Got {
        self.send("GET", path, header, "")
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let got = self.send("POST", path, "Content-Type: application/json\r\n", body);
        (got.status, serde_json::from_str(&got.body).unwrap())
    }

    /// The answer of a question that has one.
    pub fn get(&self, path: &str) -> Value {
        let got = self.ask(path, "");
        assert_eq!(got.status, 200, "{path}: {}", got.body);
        serde_json::from_str(&got.body).unwrap()
    }

    /// Status and kind of a problem.
    pub fn problem(&self, path: &str) -> (u16, String) {
        let got = self.ask(path, "");
        let problem: Value = serde_json::from_str(&got.body).unwrap();
        (got.status, problem["type"].as_str().unwrap_or_default().to_owned())
    }
}
