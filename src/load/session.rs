//! A load under way: what whoever watches it sees, and how it is told to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::ledger::Ledger;
use super::report::{Found, Latency, Report};
use crate::clock::{monotonic, since};
use crate::failure::Failure;

/// What the threads of a load share.
#[derive(Debug)]
pub struct Shared {
    stop: AtomicBool,
    /// Nothing more will be sent.
    over: AtomicBool,
    /// One of the threads failed: the others have nothing to do any more.
    failed: AtomicBool,
    began: Duration,
    ledger: Mutex<Ledger>,
}

impl Shared {
    pub(super) fn new(prefix: String) -> Self {
        Self {
            stop: AtomicBool::new(false),
            over: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            began: monotonic(),
            ledger: Mutex::new(Ledger::new(prefix)),
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more is sent from now on; what is under way is waited for.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let ledger = self.ledger();
        let tally = ledger.tally;
        Progress {
            seconds: since(self.began).as_secs_f64(),
            sent: tally.sent,
            verdicts: tally.verdicts,
            dead_letters: tally.dead_letters,
            refused: tally.refused,
            duplicates: tally.duplicates,
            pending: ledger.pending(),
            latency_ms: ledger.latency(),
            anomalies: ledger.found(),
        }
    }
}

/// How far a load is.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Progress {
    /// Since it began.
    pub seconds: f64,
    /// Records sent.
    pub sent: u64,
    /// Came back as verdicts.
    pub verdicts: u64,
    /// Came back as dead letters.
    pub dead_letters: u64,
    /// Were not accepted.
    pub refused: u64,
    /// Came back again.
    pub duplicates: u64,
    /// Are under way.
    pub pending: u64,
    /// Milliseconds from when each was due to its verdict.
    pub latency_ms: Option<Latency>,
    /// What was put in, and found.
    pub anomalies: Vec<Found>,
}

/// A load in a thread of its own.
#[derive(Debug)]
pub struct Session {
    /// What it shares with whoever watches.
    pub shared: Arc<Shared>,
    thread: JoinHandle<Result<Report, Failure>>,
}

impl Session {
    /// Starts it.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn start(
        prefix: String,
        work: impl FnOnce(&Arc<Shared>) -> Result<Report, Failure> + Send + 'static,
    ) -> Result<Self, Failure> {
        let shared = Arc::new(Shared::new(prefix));
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || work(&theirs));
        let thread = thread.map_err(|why| Failure::new("cannot start a thread").caused_by(why))?;
        Ok(Self { shared, thread })
    }

    /// True once there is a report, or a failure.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Why it failed.
    pub fn join(self) -> Result<Report, Failure> {
        self.thread.join().unwrap_or_else(|_| Err(Failure::new("the thread of the load panicked")))
    }
}
