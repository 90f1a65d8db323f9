//! What the server counts of itself: requests by route and status, and the time they took.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Upper bounds of the time buckets, in seconds.
pub(crate) const BUCKETS: [f64; 9] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// Requests of one route that were answered with one status.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// By the bucket of [`BUCKETS`] they fall in; the last one is above all bounds.
    pub(crate) buckets: [u64; BUCKETS.len() + 1],
    /// Microseconds taken.
    pub(crate) micros: u64,
}

/// Counts by route (its pattern, so that the labels are a closed set) and status.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<(&'static str, u16), Seen>>);

impl Tally {
    /// Counts a request.
    pub(crate) fn add(&self, route: &'static str, status: u16, micros: u64) {
        let bucket = BUCKETS.partition_point(|&bound| bound < micros as f64 / 1e6);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.entry((route, status)).or_default();
        seen.buckets[bucket] += 1;
        seen.micros += micros;
    }

    /// Everything counted so far.
    pub(crate) fn all(&self) -> BTreeMap<(&'static str, u16), Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
