//! Worker threads: one group member each, stepped until told to stop, and a watchdog over them.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use topology::broker::{Broker, MemberConfig};
use topology::predecessors::Predecessors;
use topology::record::TopicId;
use topology::restore::StartFrom;
use topology::worker::{Parts, WorkerConfig};
use tracing::info;

use super::InstanceError;
use super::slot::Slot;
use super::steps::monotonic_ms;
use super::topics::TOMBSTONE_RETENTION_MS;
use crate::api::Health;
use crate::clock::{monotonic, since};
use crate::stop::Stop;
use crate::threads::{ended_by, spawn};

/// How often it is looked whether a worker is stuck.
const WATCH: Duration = Duration::from_millis(100);
/// One that could not be given up is tried again after this.
const WATCH_AGAIN: Duration = Duration::from_secs(10);
/// Records of one poll: enough for the forest's batches, few enough for a short latency.
const MAX_POLL_RECORDS: usize = 2_000;
/// A transaction with nothing more to do is committed once it is this old: see docs/performance.md.
const COMMIT_IDLE_MS: u64 = 10;
/// Changed values that make a commit due, so that one transaction's memory is bounded: so many at most, and fewer where the memory is
/// small, at this many bytes each (decoded, encoded and in the client's queue).
const MAX_CHANGED: usize = 50_000;
const CHANGED_BYTES: usize = 1 << 10;

/// How many workers, and how they work.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) application: String,
    pub(super) instance: String,
    pub(super) count: usize,
    pub(super) exactly_once: bool,
    pub(super) commit_interval_ms: u64,
    pub(super) transaction_timeout_ms: u64,
    pub(super) cache_bytes: usize,
    pub(super) poll_bytes: usize,
    pub(super) start_from: StartFrom,
    pub(super) dead_letter_max_bytes: usize,
    pub(super) leave_for_good: bool,
    pub(super) leads: Vec<TopicId>,
}

impl Plan {
    fn identity(&self, index: usize) -> String {
        format!("{}-{}-{index}", self.application, self.instance)
    }

    pub(super) fn transactional_id(&self, index: usize) -> Option<String> {
        self.exactly_once.then(|| self.identity(index))
    }

    /// A worker's place in the group.
    pub(super) fn member(&self, index: usize) -> MemberConfig {
        MemberConfig {
            group: self.application.clone(),
            instance: self.identity(index),
            transactional_id: self.transactional_id(index),
            transaction_timeout_ms: self.transaction_timeout_ms,
            leads: self.leads.clone(),
        }
    }

    fn worker(&self, index: usize) -> WorkerConfig {
        WorkerConfig {
            index,
            member: self.member(index),
            exactly_once: self.exactly_once,
            commit_interval_ms: self.commit_interval_ms,
            // At-least-once a verdict is there before its commit: to commit early gains nothing, and the worker waits meanwhile.
            commit_idle_ms: if self.exactly_once { COMMIT_IDLE_MS.min(self.commit_interval_ms) } else { self.commit_interval_ms },
            max_poll_records: MAX_POLL_RECORDS,
            cache_bytes: self.cache_bytes,
            max_changed: (self.poll_bytes / CHANGED_BYTES).clamp(1, MAX_CHANGED),
            max_open_bytes: self.poll_bytes,
            start_from: self.start_from,
            tombstone_retention_ms: TOMBSTONE_RETENTION_MS,
            dead_letter_max_bytes: self.dead_letter_max_bytes,
            // Private to this process: nobody can choose keys that collide.
            hash_seed: crate::random::number(),
        }
    }
}

/// Running worker threads.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    failure: Arc<Mutex<Option<String>>>,
    stop: Stop,
}

impl Workers {
    pub(super) fn start<B: Broker>(
        broker: &Arc<B>,
        parts: &Parts,
        plan: &Plan,
        predecessors: &Arc<dyn Predecessors>,
        health: &Arc<Health>,
    ) -> Self {
        // Its own flag: the instance first says that it is not ready, then stops its workers.
        let stop = Stop::default();
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        let ends = (&stop, plan.leave_for_good);
        let slots: Vec<_> = (0..plan.count)
            .map(|index| Arc::new(Slot::new(broker, parts, plan.worker(index), predecessors, health, ends)))
            .collect();
        let threads = slots.iter().enumerate().map(|(index, slot)| {
            let (slot, failure) = (Arc::clone(slot), Arc::clone(&failure));
            let work = move || {
                if let Err(why) = slot.work() {
                    slot.health.stopped(index, &why);
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                }
            };
            spawn(format!("worker-{index}"), work)
        });
        let threads = threads.collect();
        let (health, until) = (Arc::clone(health), stop.clone());
        spawn("watchdog", move || watch(&slots, &health, &until));
        Self { threads, failure, stop }
    }

    /// True where there are none: the instance does not stream.
    pub(super) fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn stop(self, within: Duration) -> Result<(), InstanceError> {
        self.stop.raise();
        let began = monotonic();
        for thread in self.threads {
            if !ended_by(&thread, began + within) {
                return Err(InstanceError(format!(
                    "a worker did not end within {} s; what it had not committed will be processed again",
                    within.as_secs()
                )));
            }
            if thread.join().is_err() {
                return Err(InstanceError("a worker panicked while it ended".into()));
            }
        }
        info!(seconds = since(began).as_secs_f64(), "workers ended");
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), |why| Err(InstanceError(why)))
    }
}

/// Gives up workers that are stuck in a step, until the end.
fn watch<B: Broker>(slots: &[Arc<Slot<B>>], health: &Health, stop: &Stop) {
    let mut tried: Vec<Option<Duration>> = vec![None; slots.len()];
    while !stop.raised() {
        std::thread::park_timeout(WATCH);
        for index in health.stuck(monotonic_ms()) {
            if !stop.raised() && tried[index].is_none_or(|tried| since(tried) > WATCH_AGAIN) {
                slots[index].give_up();
                tried[index] = Some(monotonic());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transactions_end_sooner_where_there_is_nothing_more_to_do() {
        let plan = |exactly_once| Plan {
            application: "app".into(),
            instance: "one".into(),
            count: 1,
            exactly_once,
            commit_interval_ms: 100,
            transaction_timeout_ms: 10_000,
            cache_bytes: 1 << 20,
            poll_bytes: 1 << 20,
            start_from: StartFrom::Refuse,
            dead_letter_max_bytes: 1 << 20,
            leave_for_good: false,
            leads: Vec::new(),
        };
        assert_eq!([true, false].map(|exactly_once| plan(exactly_once).worker(0).commit_idle_ms), [COMMIT_IDLE_MS, 100]);
    }
}
