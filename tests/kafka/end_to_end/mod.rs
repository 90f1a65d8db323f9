//! The whole program, end to end: real `mangrove run` processes on a real Kafka.
//!
//! | file | role |
//! |---|---|
//! | `scene` | one test's topics, settings and folder on the broker |
//! | `service` | a process: its log, its HTTP interface, its end |
//! | `records` | what is in a topic, read by a client of the tests' own, and writing to one |
//! | `ledger` | payments, and the verdicts that `mangrove backtest` gives for them |
//! | `feed` | payments sent at the pace at which verdicts come, so that a kill always hits a busy process |
//! | all others | the tests |
//!
//! What is expected comes from `mangrove backtest` over the same payments under the same names of topics: verdicts are compared byte
//! for byte. The tests' own consumers and producers are plain librdkafka, not the adapter under test.

mod feed;
mod ledger;
mod records;
mod scene;
mod service;

mod at_least_once;
mod bad_input;
mod commands;
mod crashes;
mod instances;
mod members;
mod migrate;
mod no_broker;
mod offsets;
mod partitioning;
mod redrive;
mod sparkov;
mod stopping;
mod topics;

use std::io::Write as _;
use std::time::{Duration, Instant};

/// Longer than any session, transaction or start of a process takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until there is an answer; panics, naming what did not come, when patience is over.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(LOOK);
    }
}

/// Says that a test did not run. Straight to stderr: the test harness would swallow `eprintln!`.
fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED kafka::end_to_end::{test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("stderr");
    if let Ok(path) = std::env::var("MANGROVE_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file of skips");
    }
}
