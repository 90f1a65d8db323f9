//! Recent event times: how many payments fell into the last hour.
//!
//! Times are kept in the order of their arrival, not of their value: when more than [`RECENT_MAX`] are left, the one
//! that ARRIVED first leaves. After every update all of them lie in (last_t - 1 h, last_t].

use crate::features::HOUR_MS;
use alloc::vec::Vec;

/// Event times remembered per user: the count of the last hour saturates here.
pub const RECENT_MAX: usize = 256;

/// Event times (ms) of the last hour, in arrival order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Recent {
    times: Vec<i64>,
}

impl Recent {
    /// Builds from times in arrival order, all within the hour up to the user's last event.
    pub(super) fn from_times(times: Vec<i64>) -> Self {
        debug_assert!(times.len() <= RECENT_MAX, "the decoder bounds the length");
        Self { times }
    }

    /// The times in arrival order.
    pub(super) fn times(&self) -> &[i64] {
        &self.times
    }

    /// Times in (t - 1 h, t].
    pub(super) fn in_last_hour(&self, t: i64) -> u32 {
        // Summed without a branch: 256 entries compare in a few dozen cycles.
        self.times.iter().map(|&x| u32::from(x > t - HOUR_MS && x <= t)).sum()
    }

    /// Appends `t`, then forgets what is an hour or more older than `last_t` (`t` itself included).
    pub(super) fn add(&mut self, t: i64, last_t: i64) {
        let horizon = last_t - HOUR_MS;
        self.times.retain(|&x| x > horizon);
        if t > horizon {
            if self.times.len() == RECENT_MAX {
                self.times.remove(0);
            }
            self.times.push(t);
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.times.capacity() * size_of::<i64>()
    }
}
