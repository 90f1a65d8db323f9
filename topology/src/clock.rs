//! The Clock port: the engine takes time as an argument. Only the product constructs a real one; tests move theirs by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the epoch, as people's clocks have it; may jump.
    fn now_ms(&self) -> i64;

    /// Microseconds since some moment; never goes back.
    fn monotonic_us(&self) -> u64;
}

/// A clock that stands still until it is moved. Clones share the time.
#[derive(Clone, Debug)]
pub struct MockClock(Arc<AtomicI64>);

impl MockClock {
    /// A clock that shows this time in milliseconds since the epoch.
    #[must_use]
    pub fn at(now_ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(now_ms)))
    }

    /// Moves it on.
    pub fn advance(&self, by_ms: i64) {
        assert!(by_ms >= 0, "time does not go back");
        self.0.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for MockClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic_us(&self) -> u64 {
        self.now_ms().unsigned_abs() * 1000
    }
}
