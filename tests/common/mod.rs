//! What tests of the whole program share, on a real Kafka: the binaries `kafka` and `chaos` both include it.
//!
//! | file | role |
//! |---|---|
//! | `scene` | one test's topics, settings and folder on the broker |
//! | `service` | a process: its log, its HTTP interface, its end |
//! | `records` | what is in a topic, read by a client of the tests' own, and writing to one |
//! | `ledger` | payments, and the verdicts that `mangrove backtest` gives for them |
//! | `broker`, `proxy` | a Kafka of a test's own, and what stands between it and the program |
//! | `small_disk` | a file system that can be filled |
//! | `guard` | what must not outlive the tests |
//! | `feed` | payments sent at the pace at which verdicts come, so that a kill always hits a busy process |
#![allow(dead_code, reason = "each binary uses its share")]

pub mod broker;
pub mod feed;
mod frozen;
mod guard;
pub mod ledger;
pub mod proxy;
pub mod records;
pub mod scene;
pub mod service;
pub mod small_disk;

use std::io::Write as _;
use std::time::{Duration, Instant};

/// Longer than any session, transaction or start of a process takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until there is an answer; panics, naming what did not come, when patience is over.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(LOOK);
    }
}

/// Waits until a count has come so far: as long as it grows, however slow the machine.
pub fn until_count(what: &str, all: u64, mut count: impl FnMut() -> u64) {
    let (mut most, mut grew) = (count(), Instant::now());
    while most < all {
        std::thread::park_timeout(LOOK);
        let now = count();
        if now > most {
            (most, grew) = (now, Instant::now());
        }
        assert!(grew.elapsed() < PATIENCE, "{what}: {most} of {all}, and no more for {PATIENCE:?}");
    }
}

/// The broker's address; none, said loudly, where there is none to test with.
pub fn address(test: &str) -> Option<String> {
    let address = std::env::var("MANGROVE_TEST_KAFKA").ok();
    if address.is_none() {
        skip(test, "MANGROVE_TEST_KAFKA is not set");
    }
    address
}

/// Says that a test did not run. Straight to stderr: the test harness would swallow `eprintln!`.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED {}::{test}: {reason}\n", env!("CARGO_CRATE_NAME"));
    std::io::stderr().write_all(line.as_bytes()).expect("stderr");
    if let Ok(path) = std::env::var("MANGROVE_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file of skips");
    }
}

/// Waits for one of rdkafka's admin futures.
pub fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}
