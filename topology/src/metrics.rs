//! What the engine counts, to be read from any thread while it runs.
//!
//! Plain atomics: each worker adds once a batch or commit, never per record.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the commit-time buckets, in seconds.
pub const COMMIT_BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident),* $(,)?) => {
        /// Counters of all workers of an instance.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $doc] pub $name: AtomicU64,)*
            /// Commits by the bucket of [`COMMIT_BUCKETS`] they fall in; the last one is above all bounds.
            pub commit_buckets: [AtomicU64; COMMIT_BUCKETS.len() + 1],
        }

        impl Metrics {
            /// Every plain counter: name, help, value.
            pub fn each(&self, mut each: impl FnMut(&'static str, &'static str, u64)) {
                $(each(stringify!($name), $doc.trim(), self.$name.load(Ordering::Relaxed));)*
            }
        }
    };
}

counters! {
    /// Records handed to processors.
    records_total,
    /// Bytes of those records.
    record_bytes_total,
    /// Records emitted to outputs.
    emitted_total,
    /// Records put aside in the dead letters.
    dead_letters_total,
    /// Records skipped because a value included them already (at-least-once).
    records_replayed_total,
    /// Records written to changelogs.
    changelog_records_total,
    /// Transactions (at-least-once: rounds) committed.
    commits_total,
    /// Microseconds spent in commits.
    commit_micros_total,
    /// Microseconds spent in processors.
    process_micros_total,
    /// Transactions aborted.
    aborts_total,
    /// Times a producer was opened anew because an answer was missing.
    reopens_total,
    /// Times a worker was fenced and joined again.
    fenced_total,
    /// Times that a dead owner's open transaction was ended by its successor.
    predecessors_ended_total,
    /// Workers that panicked or were stuck, and were replaced.
    workers_replaced_total,
    /// Changelog records applied while restoring.
    restored_records_total,
    /// Changelog records applied to copies of other instances' state.
    standby_records_total,
    /// Stores dropped and rebuilt from their changelog.
    stores_rebuilt_total,
    /// Times a worker gave its partitions back because its store took no writes: the disk was full, or the store had to be opened anew.
    store_pauses_total,
    /// Keys found in memory.
    cache_hits_total,
    /// Keys read from the store.
    cache_misses_total,
}

impl Metrics {
    /// Adds to a counter.
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    /// A worker was replaced by whoever drives it.
    pub fn worker_replaced(&self) {
        Self::add(&self.workers_replaced_total, 1);
    }

    pub(crate) fn commit(&self, micros: u64) {
        Self::add(&self.commits_total, 1);
        Self::add(&self.commit_micros_total, micros);
        let seconds = micros as f64 / 1e6;
        let bucket = COMMIT_BUCKETS.partition_point(|&bound| bound < seconds);
        Self::add(&self.commit_buckets[bucket], 1);
    }
}
