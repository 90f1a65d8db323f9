//! How the instance is, told by its workers and its start and stop, read by the probes.
//!
//! Plain atomics: a worker's thread writes a few words after each step. Times are the clock's monotonic milliseconds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use topology::record::TopicPartition;

/// How much longer than a step progress may take: a worker that steps but commits nothing is wedged only after a while.
const PROGRESS_FACTOR: u64 = 5;

/// See the module's header.
#[derive(Debug)]
pub struct Health {
    workers: Vec<Worker>,
    stall_ms: u64,
    started: AtomicBool,
    draining: AtomicBool,
    ends: Mutex<BTreeMap<TopicPartition, u64>>,
}

#[derive(Debug)]
struct Worker {
    stepped_ms: AtomicU64,
    progressed_ms: AtomicU64,
    stopped: AtomicBool,
    paused: AtomicBool,
    trouble: Mutex<Option<String>>,
}

/// A worker as the probes see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerView {
    pub(crate) since_step_ms: u64,
    pub(crate) since_progress_ms: u64,
    pub(crate) stopped: bool,
    /// It gave its partitions back because its store takes no writes.
    pub(crate) paused: bool,
    pub(crate) trouble: Option<String>,
}

impl Health {
    /// Health of an instance that is starting with that many workers. A worker that takes longer than `stall_ms` for a step fails
    /// the liveness probe: choose it above the broker's time-outs, 60 s say.
    #[must_use]
    pub fn new(workers: usize, now_ms: u64, stall_ms: u64) -> Self {
        let worker = |_| Worker {
            stepped_ms: AtomicU64::new(now_ms),
            progressed_ms: AtomicU64::new(now_ms),
            stopped: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            trouble: Mutex::new(None),
        };
        Self {
            workers: (0..workers).map(worker).collect(),
            stall_ms,
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            ends: Mutex::new(BTreeMap::new()),
        }
    }

    /// The worker came to the end of a step. `progressed` says that the step left nothing open, or that it committed or restored
    /// something.
    pub fn stepped(&self, worker: usize, now_ms: u64, progressed: bool) {
        let Some(worker) = self.workers.get(worker) else { return };
        worker.stepped_ms.store(now_ms, Ordering::Relaxed);
        if progressed {
            worker.progressed_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// What the worker's trouble with the broker is, in words for an operator; none once it is over. While there is trouble a
    /// lack of progress does not fail the liveness probe: a restart mends no broker.
    pub fn trouble(&self, worker: usize, what: Option<&str>) {
        if let Some(worker) = self.workers.get(worker) {
            *lock(&worker.trouble) = what.map(str::to_owned);
        }
    }

    /// Whether the worker waits for its store to take writes again (a full disk). It is alive, and answers for nothing meanwhile.
    pub fn paused(&self, worker: usize, paused: bool) {
        if let Some(worker) = self.workers.get(worker) {
            worker.paused.store(paused, Ordering::Relaxed);
        }
    }

    /// The worker stopped for good while the instance was not told to.
    pub fn stopped(&self, worker: usize, why: &str) {
        if let Some(worker) = self.workers.get(worker) {
            *lock(&worker.trouble) = Some(why.to_owned());
            worker.stopped.store(true, Ordering::Relaxed);
        }
    }

    /// The start is over: the group has handed out partitions and the first restore is done. Never taken back.
    pub fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// The instance was told to stop: it is not ready from now on, and alive until it is gone.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Where input partitions end (the next offset a producer would get), as last heard of the broker: the lag is made of it.
    pub fn input_ends(&self, ends: &[(TopicPartition, u64)]) {
        lock(&self.ends).extend(ends.iter().copied());
    }

    pub(crate) fn input_end(&self, of: TopicPartition) -> Option<u64> {
        lock(&self.ends).get(&of).copied()
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn workers(&self, now_ms: u64) -> Vec<WorkerView> {
        let view = |worker: &Worker| WorkerView {
            since_step_ms: now_ms.saturating_sub(worker.stepped_ms.load(Ordering::Relaxed)),
            since_progress_ms: now_ms.saturating_sub(worker.progressed_ms.load(Ordering::Relaxed)),
            stopped: worker.stopped.load(Ordering::Relaxed),
            paused: worker.paused.load(Ordering::Relaxed),
            trouble: lock(&worker.trouble).clone(),
        };
        self.workers.iter().map(view).collect()
    }

    /// Milliseconds since the worker's last step.
    pub(crate) fn since_step_ms(&self, worker: usize, now_ms: u64) -> u64 {
        let stepped = self.workers.get(worker).map_or(now_ms, |worker| worker.stepped_ms.load(Ordering::Relaxed));
        now_ms.saturating_sub(stepped)
    }

    /// The workers that are stuck in one step.
    pub fn stuck(&self, now_ms: u64) -> Vec<usize> {
        let workers = self.workers(now_ms).into_iter().enumerate();
        workers.filter(|(_, worker)| !worker.stopped && worker.since_step_ms > self.stall_ms).map(|(at, _)| at).collect()
    }

    /// Why the instance should be restarted; nothing where it should not. Fit for anyone: no text of a broker is in it.
    pub(crate) fn failures(&self, now_ms: u64) -> Vec<String> {
        let mut failures = Vec::new();
        let draining = self.is_draining();
        for (at, worker) in self.workers(now_ms).into_iter().enumerate() {
            if worker.stopped {
                failures.push(format!("worker {at} stopped"));
            } else if draining {
                // Workers leave one by one; who asked for the stop also set a limit to it.
            } else if worker.since_step_ms > self.stall_ms {
                failures.push(format!("worker {at} has been in one step for {} s", worker.since_step_ms / 1000));
            } else if worker.trouble.is_none() && worker.since_progress_ms > self.stall_ms.saturating_mul(PROGRESS_FACTOR) {
                failures.push(format!("worker {at} has committed nothing for {} s", worker.since_progress_ms / 1000));
            }
        }
        failures
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment: a thread that panicked left a whole value behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_step_or_commits_nothing_fails() {
        let health = Health::new(2, 1_000, 60_000);
        assert_eq!(health.failures(61_000), Vec::<String>::new());
        health.stepped(0, 60_000, true);
        assert_eq!(health.failures(62_000), ["worker 1 has been in one step for 61 s"]);
        health.stepped(0, 400_000, false);
        health.stepped(1, 400_000, true);
        assert_eq!(health.failures(400_000), ["worker 0 has committed nothing for 340 s"]);
        health.trouble(0, Some("no broker"));
        assert_eq!(health.failures(400_000), Vec::<String>::new());
        health.stopped(1, "fenced");
        assert_eq!(health.failures(400_000), ["worker 1 stopped"]);
    }

    #[test]
    fn workers_that_do_not_exist_are_ignored() {
        let health = Health::new(0, 0, 1);
        health.stepped(7, 1, true);
        health.trouble(7, Some("x"));
        health.stopped(7, "x");
        assert!(health.failures(99).is_empty());
    }
}
