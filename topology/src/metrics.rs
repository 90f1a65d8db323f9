//! What the engine counts, to be read from any thread while it runs.
//!
//! Plain atomics: each worker adds once a batch or commit, never per record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::latency::Latency;

/// Upper bounds of the commit-time buckets, in seconds.
pub const COMMIT_BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Upper bounds of the buckets of stages' times, in seconds.
pub const STAGE_BUCKETS: [f64; 10] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25];

/// How long something took, again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How often, by the bucket of [`STAGE_BUCKETS`] it falls in; the last one is above all bounds.
    pub buckets: [u64; STAGE_BUCKETS.len() + 1],
    /// Microseconds in all.
    pub micros: u64,
}

impl Times {
    pub(crate) fn add(&mut self, micros: u64) {
        let seconds = micros as f64 / 1e6;
        self.buckets[STAGE_BUCKETS.partition_point(|&bound| bound < seconds)] += 1;
        self.micros += micros;
    }

    fn merge(&mut self, other: &Self) {
        self.micros += other.micros;
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
    }
}

/// What processors count and time under names of their own.
#[derive(Debug, Default)]
pub(crate) struct Named {
    counts: BTreeMap<&'static str, BTreeMap<String, u64>>,
    times: BTreeMap<&'static str, Times>,
}

macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident),* $(,)?) => {
        /// Counters of all workers of an instance.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $doc] pub $name: AtomicU64,)*
            /// Commits by the bucket of [`COMMIT_BUCKETS`] they fall in; the last one is above all bounds.
            pub commit_buckets: [AtomicU64; COMMIT_BUCKETS.len() + 1],
            pub(crate) named: Mutex<Named>,
            pub(crate) latency: Mutex<Latency>,
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
    /// Times a partition paused, or stayed so, because no tier gave back what it had evicted.
    tier_pauses_total,
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

    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once a commit and task.
    pub(crate) fn note(&self, counts: &BTreeMap<&'static str, BTreeMap<String, u64>>, times: &BTreeMap<&'static str, Times>) {
        let mut named = self.named();
        for (family, names) in counts {
            let known = named.counts.entry(*family).or_default();
            for (name, by) in names {
                match known.get_mut(name) {
                    Some(count) => *count += by,
                    None => drop(known.insert(name.clone(), *by)),
                }
            }
        }
        for (stage, times) in times {
            named.times.entry(*stage).or_default().merge(times);
        }
    }

    /// What processors counted in this family ([`crate::processor::Context::count`]), by name; committed records only. The engine
    /// itself counts `dead_letters` by cause.
    #[must_use]
    pub fn counted(&self, family: &str) -> BTreeMap<String, u64> {
        self.named().counts.get(family).cloned().unwrap_or_default()
    }

    /// The time that each stage of a batch took ([`crate::processor::Context::lap`]).
    #[must_use]
    pub fn stages(&self) -> BTreeMap<&'static str, Times> {
        self.named().times.clone()
    }

    /// How long records took until what came of them was committed, and where the time of the slowest went.
    pub fn latency(&self) -> MutexGuard<'_, Latency> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner)
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
