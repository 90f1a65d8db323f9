//! How long to wait for a broker: the one place of this adapter that reads the machine's clock.
//!
//! Nothing that is computed depends on it, only when the adapter gives up; so it is not the engine's Clock.

use std::time::{Duration, Instant};

/// A moment after which waiting is over.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Instant);

#[expect(clippy::disallowed_methods, reason = "waits for a real broker in real time; decides nothing that is replayed")]
impl Deadline {
    pub(super) fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    pub(super) fn is_over(self) -> bool {
        Instant::now() >= self.0
    }

    /// Lets a little time pass where there is nothing to wait on; false once the deadline is over.
    pub(super) fn pass(self, time: Duration) -> bool {
        if self.is_over() {
            return false;
        }
        std::thread::sleep(time);
        true
    }
}
