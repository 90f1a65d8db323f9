//! `mangrove demo`: where it serves, and that what it shows is of now.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use mangrove::clock::{monotonic, now_ms, since};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

/// A demo that runs until it is dropped.
struct Demo {
    child: Child,
    address: String,
    /// Whoever prints needs somebody who reads.
    _said: BufReader<ChildStdout>,
    _folder: TempDir,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    /// A port is chosen by the system, and read from the demo's first line.
    fn start(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mangrove"));
        command.env_clear().current_dir(folder.path()).arg("demo").args(arguments);
        command.env("HTTP_ADDR", "127.0.0.1:0").env("MEMORY_LIMIT", "256MiB").env("WORKERS", "1").env("TOPIC_PARTITIONS", "4");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut first = String::new();
        let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
        said.read_line(&mut first).expect("a line");
        let (_, address) = first.trim().split_once("http://").unwrap_or_else(|| panic!("no address: {first}"));
        Self { child, address: address.to_owned(), _said: said, _folder: folder }
    }

    fn ask(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = monotonic();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(since(begun) < PATIENCE, "not within {PATIENCE:?}: {what}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

#[test]
fn it_says_where_it_serves_and_its_people_pay_now() {
    // 432,000 payments at most lie in the past: at this rate a quarter of an hour.
    let began_ms = now_ms();
    let demo = Demo::start(&["--rate", "500"]);
    assert!(!demo.address.ends_with(":0"), "{}", demo.address);
    let newest = || {
        let recent = demo.ask("/v1/recent/verdicts?limit=50")?;
        let times = recent["verdicts"].as_array()?.iter().filter_map(|one| one["verdict"]["event_time"].as_i64());
        times.max()
    };
    let first = demo.until("a verdict", newest);
    assert!(first >= began_ms - 900_000, "{} ms before the beginning", began_ms - first);
    let model = || demo.ask("/v1/models").filter(|models| models["scoring"].is_string()).map(drop);
    demo.until("a model", model);
    let newest = demo.until("a payment made after the beginning", || newest().filter(|&at| at > began_ms));
    assert!(newest <= now_ms(), "nothing lies in the future");
}
