//! One test's place: servers, and an application that nothing else has.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mangrove::tiers::{Cold, ColdOptions, ServerUrl, Warm, WarmOptions};

static PLACES: AtomicU32 = AtomicU32::new(0);

/// A name that no other test, and no other run, has.
pub fn application() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("t{now:x}-{}", PLACES.fetch_add(1, Ordering::Relaxed))
}

/// The URL in that variable; none, said loudly, where it is not set.
fn url(test: &str, variable: &str) -> Option<ServerUrl> {
    let url = std::env::var(variable).ok();
    if url.is_none() {
        skip(test, &format!("{variable} is not set"));
    }
    url.map(ServerUrl::new)
}

pub fn redis(test: &str) -> Option<ServerUrl> {
    url(test, "MANGROVE_TEST_REDIS")
}

pub fn postgres(test: &str) -> Option<ServerUrl> {
    url(test, "MANGROVE_TEST_POSTGRES")
}

/// What is slow on a busy machine is not down.
const PATIENCE: Duration = Duration::from_secs(60);

/// As patient as the tests are.
pub fn cold_options() -> ColdOptions {
    ColdOptions { statement_timeout: PATIENCE, connect_timeout: PATIENCE, ..ColdOptions::default() }
}

/// A warm tier of a new application.
pub fn warm(url: &ServerUrl) -> Warm {
    Warm::open(url, &application(), WarmOptions { timeout: PATIENCE, ..WarmOptions::default() }).unwrap()
}

/// A cold tier of a new application.
pub fn cold(url: &ServerUrl) -> Cold {
    Cold::open(url, &application(), &cold_options()).unwrap()
}

/// Says that a test did not run. Straight to stderr: the test harness would swallow `eprintln!`.
fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED {}::{test}: {reason}\n", env!("CARGO_CRATE_NAME"));
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    if let Ok(path) = std::env::var("MANGROVE_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
    }
}
