//! A `mangrove` process that runs until it is told to stop: watched through its log and its HTTP interface, killed when dropped.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::frozen::Frozen;
use super::guard::Guard;
use super::{PATIENCE, until, until_count};

/// Lines of the log that a failed test shows.
const TAIL_LINES: usize = 40;

pub struct Service {
    child: Child,
    _guard: Guard,
    log: PathBuf,
}

impl Service {
    /// Starts the process; its log goes to the file.
    pub fn spawn(command: &mut Command, log: PathBuf) -> Self {
        let file = File::create(&log).expect("a file for the log");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().expect("the process starts");
        let guard = Guard::killing(child.id());
        Self { child, _guard: guard, log }
    }

    /// All that it wrote to standard error.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).expect("the log")).into_owned()
    }

    /// The whole lines of its log so far.
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the first log line that `find` takes something from; the process must live meanwhile.
    pub fn says<T>(&mut self, what: &str, mut find: impl FnMut(&Value) -> Option<T>) -> T {
        until(&format!("a log line: {what}"), || {
            let found = self.lines().iter().find_map(&mut find);
            assert!(found.is_some() || self.lives(), "it ended instead of saying: {what}");
            found
        })
    }

    /// Waits until tasks for that many partitions run, and tells how many changelog records they were restored from.
    pub fn restored(&mut self, tasks: usize) -> u64 {
        until(&format!("{tasks} tasks run"), || {
            assert!(self.lives(), "it ended before its tasks ran");
            let lines = self.lines();
            let running = lines.iter().filter(|line| line["message"] == "task restored and running");
            // One that goes from worker to worker says so again.
            let (mut names, mut records) = (BTreeSet::new(), 0);
            for line in running {
                names.insert(line["task"].as_str().expect("a task"));
                records += line["records"].as_u64().expect("a number of records");
            }
            (names.len() >= tasks).then_some(records)
        })
    }

    pub fn lives(&mut self) -> bool {
        self.ended().is_none()
    }

    /// How it ended, if it did; a signal's number is part of it.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its status")
    }

    /// Where it serves HTTP.
    pub fn address(&mut self) -> String {
        self.says("where HTTP is served", address_in)
    }

    /// Where it serves HTTP, once it has said so.
    pub fn find_address(&self) -> Option<String> {
        self.lines().iter().find_map(address_in)
    }

    /// The file of its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The status and body of an answer.
    pub fn get(&mut self, path: &str) -> (u16, String) {
        self.ask("GET", path, "")
    }

    /// As [`Self::get`], with a body of JSON; an empty one is none.
    pub fn post(&mut self, path: &str, body: &str) -> (u16, String) {
        self.ask("POST", path, body)
    }

    /// The answer to DELETE.
    pub fn delete(&mut self, path: &str) -> (u16, String) {
        self.ask("DELETE", path, "")
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let address = self.address();
        let mut stream = TcpStream::connect(&address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{kind}");
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    /// Waits until a counter has come so far.
    pub fn counts(&mut self, name: &str, to: u64) {
        until_count(name, to, || self.metric(name));
    }

    /// A counter or gauge without labels.
    pub fn metric(&mut self, name: &str) -> u64 {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200, "{body}");
        let value = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no metric {name} in\n{body}")).parse().expect("a whole number")
    }

    /// The most memory that it has had resident so far, in MiB.
    pub fn peak_rss_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a live process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("a number").div_ceil(1024)
    }

    /// Stops one of its threads, and that alone, until the answer is dropped.
    pub fn freeze(&self, thread: &str) -> Frozen {
        Frozen::of(self.child.id(), thread)
    }

    /// Sends a signal by its number.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "signal {signal} is sent");
    }

    /// kill -9.
    pub fn kill(mut self) {
        assert!(self.lives(), "it ended before it was killed");
        self.child.kill().expect("killed");
        self.child.wait().expect("it ends");
    }

    /// Waits for its end: with what status, and how long that took.
    pub fn end(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let status = until("the end of the process", || self.child.try_wait().expect("its status"));
        (status, begun.elapsed())
    }

    /// SIGTERM, which must end it in good order.
    pub fn stop(mut self) {
        self.signal("TERM");
        let (status, _) = self.end();
        assert!(status.success(), "after SIGTERM it ended with {status}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself; the tests' failures are told by their own assertions.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            print_tail(&self.log);
        }
    }
}

fn address_in(line: &Value) -> Option<String> {
    let http = line["message"].as_str().is_some_and(|message| message.contains("HTTP"));
    line["address"].as_str().filter(|_| http).map(str::to_owned)
}

fn print_tail(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("--- the end of {}", log.display());
    for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
        eprintln!("{line}");
    }
}
