//! How the projection is: written by its threads, read by metrics and people.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use topology::record::TopicPartition;

/// All tiers of an instance.
#[derive(Debug, Default)]
pub struct Status(Mutex<BTreeMap<&'static str, Arc<TierState>>>);

/// How far one partition is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// The next offset to write.
    pub next: u64,
    /// The topic's end, as last heard of.
    pub end: u64,
    /// Nothing came for a while although the end is further on: what is there are marks of transactions, or was compacted away.
    pub complete: bool,
    /// The largest record time written, in milliseconds since the epoch.
    pub at_ms: Option<i64>,
}

impl Lag {
    /// Offsets still to pass.
    #[must_use]
    pub fn records(&self) -> u64 {
        if self.complete { 0 } else { self.end.saturating_sub(self.next) }
    }

    /// Event time that is missing, in milliseconds: 0 where no record is; none where nothing was written yet.
    #[must_use]
    pub fn event_ms(&self, now_ms: i64) -> Option<u64> {
        if self.records() == 0 {
            return Some(0);
        }
        self.at_ms.map(|at| now_ms.saturating_sub(at).max(0).unsigned_abs())
    }
}

/// One tier.
#[derive(Debug)]
pub struct TierState {
    name: &'static str,
    up: AtomicBool,
    /// Records whose rows are in the tier.
    written: AtomicU64,
    /// Records that are none of their topic's shape.
    unreadable: AtomicU64,
    /// Verdicts older than the history that is kept.
    expired: AtomicU64,
    failures: AtomicU64,
    trouble: Mutex<Option<String>>,
    lags: Mutex<BTreeMap<TopicPartition, Lag>>,
}

/// One tier at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierView {
    /// `redis` or `postgres`.
    pub tier: &'static str,
    /// Whether its last answer was one.
    pub up: bool,
    /// What is wrong, fit for an operator.
    pub trouble: Option<String>,
    /// See [`TierState`].
    pub written: u64,
    /// Records that are none of their topic's shape.
    pub unreadable: u64,
    /// Verdicts older than the history that is kept.
    pub expired: u64,
    /// Batches and questions that failed.
    pub failures: u64,
    /// By partition that this instance projects.
    pub lags: BTreeMap<TopicPartition, Lag>,
}

impl TierView {
    /// Offsets still to pass, in all partitions.
    #[must_use]
    pub fn lag_records(&self) -> u64 {
        self.lags.values().map(Lag::records).sum()
    }
}

impl Status {
    /// The state of a tier, made when first asked for.
    #[must_use]
    pub fn tier(&self, name: &'static str) -> Arc<TierState> {
        let make = || Arc::new(TierState::new(name));
        Arc::clone(lock(&self.0).entry(name).or_insert_with(make))
    }

    /// All tiers that are written.
    #[must_use]
    pub fn all(&self) -> Vec<TierView> {
        lock(&self.0).values().map(|state| state.view()).collect()
    }
}

impl TierState {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            up: AtomicBool::new(false),
            written: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            trouble: Mutex::default(),
            lags: Mutex::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// As it is now.
    #[must_use]
    pub fn view(&self) -> TierView {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TierView {
            tier: self.name,
            up: self.up.load(Ordering::Relaxed),
            trouble: lock(&self.trouble).clone(),
            written: of(&self.written),
            unreadable: of(&self.unreadable),
            expired: of(&self.expired),
            failures: of(&self.failures),
            lags: lock(&self.lags).clone(),
        }
    }

    /// It answered. True where it had not before.
    pub(super) fn answers(&self) -> bool {
        *lock(&self.trouble) = None;
        !self.up.swap(true, Ordering::Relaxed)
    }

    /// It, or the broker, did not. True where that is news.
    pub(super) fn fails(&self, tier_is_down: bool, why: &str) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if tier_is_down {
            self.up.store(false, Ordering::Relaxed);
        }
        lock(&self.trouble).replace(why.to_owned()).as_deref() != Some(why)
    }

    pub(super) fn count(&self, written: u64, unreadable: u64, expired: u64) {
        for (count, by) in [(&self.written, written), (&self.unreadable, unreadable), (&self.expired, expired)] {
            count.fetch_add(by, Ordering::Relaxed);
        }
    }

    pub(super) fn lags(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, Lag>> {
        lock(&self.lags)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment or insert: a thread that panicked left whole values behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
