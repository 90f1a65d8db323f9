//! A worker's slot: the thread that fills it, restarts after panics, and what a watchdog does when it is stuck.
//!
//! ```text
//! working --panic--> replaced after a while --too often--> failed (the instance ends)
//!    \--stuck in one step--> given up: its store is shut, its place in the group left --it comes back--> replaced
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use state::backend::Backend;
use topology::broker::{Broker, BrokerError, Event, Member};
use topology::predecessors::Predecessors;
use topology::record::Fetched;
use topology::worker::{Parts, Worker, WorkerConfig};
use tracing::{error, warn};

use super::gate::Gate;
use super::steps::{monotonic_ms, run};
use crate::api::Health;
use crate::clock::{monotonic, since};
use crate::stop::Stop;

/// The first wait before a replacement; each further one within the window doubles it.
const BACKOFF: Duration = Duration::from_millis(100);
/// So many replacements within the window, and no more.
const RESTARTS_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);
/// How soon the end of a wait is noticed.
const LOOK: Duration = Duration::from_millis(20);
/// For the group to answer one that only wants to leave.
const LEAVING: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Everything that one worker is made of, again and again.
pub(super) struct Slot<B: Broker> {
    pub(super) broker: Arc<B>,
    pub(super) parts: Parts,
    pub(super) config: WorkerConfig,
    pub(super) predecessors: Arc<dyn Predecessors>,
    pub(super) health: Arc<Health>,
    pub(super) stop: Stop,
    pub(super) for_good: bool,
    /// The way to the store of the worker that fills it now.
    gate: Mutex<Arc<Gate>>,
}

impl<B: Broker> Slot<B> {
    pub(super) fn new(
        broker: &Arc<B>,
        parts: &Parts,
        config: WorkerConfig,
        predecessors: &Arc<dyn Predecessors>,
        health: &Arc<Health>,
        (stop, for_good): (&Stop, bool),
    ) -> Self {
        let gate = Mutex::new(Arc::new(Gate::new(&parts.backend)));
        let (broker, parts, predecessors) = (Arc::clone(broker), parts.clone(), Arc::clone(predecessors));
        Self { broker, parts, config, predecessors, health: Arc::clone(health), stop: stop.clone(), for_good, gate }
    }

    fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Works until told to stop.
    ///
    /// # Errors
    /// Why no worker can go on here.
    pub(super) fn work(&self) -> Result<(), String> {
        let index = self.config.index;
        let mut restarts = Restarts::default();
        loop {
            let gate = Arc::new(Gate::new(&self.parts.backend));
            *self.gate.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&gate);
            let parts = Parts { backend: Arc::clone(&gate) as Arc<dyn Backend>, ..self.parts.clone() };
            let worker = Worker::new(Arc::clone(&self.broker), parts, self.config.clone());
            let worker = worker.with_predecessors(Arc::clone(&self.predecessors));
            // A panic is a bug in one worker: its tasks start afresh, the others go on.
            let given_up = || gate.is_shut();
            let ended = catch_unwind(AssertUnwindSafe(|| run(worker, index, &self.health, &self.stop, self.for_good, &given_up)));
            self.parts.tasks.remove_worker(index);
            let why = match ended {
                Ok(Ok(())) if !gate.is_shut() => return Ok(()),
                Ok(Err(why)) if !gate.is_shut() => return Err(why),
                _ if self.stop.raised() => return Ok(()),
                Ok(_) => "it was stuck and given up",
                Err(_) => "it panicked",
            };
            let Some(wait) = restarts.next(monotonic()) else {
                let minutes = WINDOW.as_secs() / 60;
                return Err(format!(
                    "worker {index} had to be replaced more than {RESTARTS_MAX} times within {minutes} minutes; the last time {why}"
                ));
            };
            error!(worker = index, why, "a worker is replaced");
            self.parts.metrics.worker_replaced();
            let until = monotonic() + wait;
            while !self.stop.raised() && monotonic() < until {
                std::thread::park_timeout(LOOK);
            }
            // The wait was no step of anybody's.
            self.health.stepped(index, monotonic_ms(), false);
        }
    }

    /// Gives the worker up that is stuck in a step: shuts its store and leaves its place in the group, so that others take over. Once
    /// is enough.
    pub(super) fn give_up(&self) {
        let (index, gate) = (self.config.index, self.gate());
        if gate.is_shut() {
            return;
        }
        if !gate.shut() {
            error!(
                worker = index,
                "stuck in a write to the store: its place in the group is kept, since nothing else may write there now"
            );
            return;
        }
        error!(worker = index, "stuck: it is given up, and its place in the group is left to others");
        self.parts.tasks.remove_worker(index);
        if let Err(why) = self.leave_group() {
            warn!(worker = index, %why, "its place in the group could not be left: others take over when its session ends");
        }
    }

    /// Takes the stuck worker's identity, which shuts it out and ends its transaction, and leaves with it.
    fn leave_group(&self) -> Result<(), BrokerError> {
        let mut member = self.broker.join(&self.config.member)?;
        let (began, mut fetched) = (monotonic(), Fetched::default());
        while since(began) < LEAVING && !self.stop.raised() {
            fetched.clear(0);
            if let Some(event) = member.poll(&mut fetched, 1, POLL)? {
                member.acknowledge(&event)?;
                if matches!(event, Event::Assigned(_)) {
                    break;
                }
            }
        }
        member.leave(true)
    }
}

/// Remembers replacements.
#[derive(Debug, Default)]
struct Restarts(Vec<Duration>);

impl Restarts {
    /// How long to wait before the next one at this moment; none where there were too many.
    fn next(&mut self, now: Duration) -> Option<Duration> {
        self.0.retain(|&at| now.saturating_sub(at) < WINDOW);
        let before = self.0.len();
        self.0.push(now);
        (before < RESTARTS_MAX).then(|| BACKOFF * (1 << before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_come_slower_and_slower_and_not_for_ever() {
        let mut restarts = Restarts::default();
        let at = Duration::from_secs;
        let waits: Vec<_> = (0..6).map(|n| restarts.next(at(n)).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(100), Some(200), Some(400), Some(800), Some(1600), None]);
        assert_eq!(restarts.next(at(3_000)), Some(BACKOFF), "what is long ago does not count");
    }
}
