//! Worker threads: one group member each, stepped until told to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use topology::broker::{Broker, MemberConfig};
use topology::restore::StartFrom;
use topology::topology::SubTopology;
use topology::worker::{Parts, Step, Worker, WorkerConfig};
use tracing::{error, info};

use super::InstanceError;
use super::topics::TOMBSTONE_RETENTION_MS;
use crate::api::Health;
use crate::clock::{monotonic, since};

/// The longest a worker waits for records before it looks at the stop flag.
const STEP_WAIT: Duration = Duration::from_millis(100);
/// How long a worker waits while the broker is in trouble.
const BACKOFF: Duration = Duration::from_millis(100);
/// A worker that the group has given nothing for this long counts as started.
const SPARE: Duration = Duration::from_secs(10);
/// Records of one poll: enough for the forest's batches, few enough for a short latency.
const MAX_POLL_RECORDS: usize = 2_000;
/// A transaction with nothing more to do is committed once it is this old: see docs/performance.md.
const COMMIT_IDLE_MS: u64 = 10;
/// Changed values that make a commit due, so that one transaction's memory is bounded: so many at most, and fewer where the memory is
/// small, at this many bytes each (decoded, encoded and in the client's queue).
const MAX_CHANGED: usize = 50_000;
const CHANGED_BYTES: usize = 1 << 10;

/// A flag that tells everything to end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Raises it.
    pub fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// True once it was raised.
    #[must_use]
    pub fn raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

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
}

impl Plan {
    fn identity(&self, index: usize) -> String {
        format!("{}-{}-{index}", self.application, self.instance)
    }

    pub(super) fn transactional_id(&self, index: usize) -> Option<String> {
        self.exactly_once.then(|| self.identity(index))
    }

    fn worker(&self, index: usize, leads: Vec<topology::record::TopicId>) -> WorkerConfig {
        WorkerConfig {
            index,
            member: MemberConfig {
                group: self.application.clone(),
                instance: self.identity(index),
                transactional_id: self.transactional_id(index),
                transaction_timeout_ms: self.transaction_timeout_ms,
                leads,
            },
            exactly_once: self.exactly_once,
            commit_interval_ms: self.commit_interval_ms,
            commit_idle_ms: COMMIT_IDLE_MS.min(self.commit_interval_ms),
            max_poll_records: MAX_POLL_RECORDS,
            cache_bytes: self.cache_bytes,
            max_changed: (self.poll_bytes / CHANGED_BYTES).clamp(1, MAX_CHANGED),
            max_open_bytes: self.poll_bytes,
            start_from: self.start_from,
            tombstone_retention_ms: TOMBSTONE_RETENTION_MS,
            dead_letter_max_bytes: self.dead_letter_max_bytes,
            // Private to this process: nobody can choose keys that collide.
            hash_seed: random_number(),
        }
    }
}

/// A number that nobody can foresee: identities and hash seeds are made of it.
#[expect(clippy::disallowed_methods, reason = "must be unknown to others, and decides nothing that is replayed")]
pub(super) fn random_number() -> u64 {
    rand::random()
}

/// A secret of this process.
pub(crate) fn secret() -> [u8; 32] {
    let mut secret = [0; 32];
    for chunk in secret.chunks_exact_mut(8) {
        chunk.copy_from_slice(&random_number().to_le_bytes());
    }
    secret
}

/// Running worker threads.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    failure: Arc<Mutex<Option<String>>>,
    stop: Stop,
}

impl Workers {
    pub(super) fn start<B: Broker>(broker: &Arc<B>, parts: &Parts, plan: &Plan, health: &Arc<Health>) -> Self {
        // Its own flag: the instance first says that it is not ready, then stops its workers.
        let stop = Stop::default();
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        let leads: Vec<_> = parts.topology.subs().iter().map(SubTopology::lead).collect();
        let threads = (0..plan.count).map(|index| {
            let config = plan.worker(index, leads.clone());
            let (broker, parts, health) = (Arc::clone(broker), parts.clone(), Arc::clone(health));
            let (failure, stop, for_good) = (Arc::clone(&failure), stop.clone(), plan.leave_for_good);
            let work = move || {
                // A panic is a bug in one worker: the thread's tasks start afresh, the others go on.
                loop {
                    let fresh = || Worker::new(Arc::clone(&broker), parts.clone(), config.clone());
                    let run = std::panic::AssertUnwindSafe(|| run(fresh(), index, &health, &stop, for_good));
                    match std::panic::catch_unwind(run) {
                        Ok(Ok(())) => return,
                        Ok(Err(why)) => {
                            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                            return;
                        }
                        Err(_) if stop.raised() => return,
                        Err(_) => {
                            error!(worker = index, "a worker panicked: it is replaced");
                            std::thread::park_timeout(BACKOFF);
                        }
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(work);
            thread.expect("invariant: the system has threads at start")
        });
        Self { threads: threads.collect(), failure, stop }
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn stop(self, within: Duration) -> Result<(), InstanceError> {
        self.stop.raise();
        let began = monotonic();
        for thread in self.threads {
            while !thread.is_finished() && since(began) < within {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            if !thread.is_finished() {
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

fn run<B: Broker>(mut worker: Worker<B>, index: usize, health: &Health, stop: &Stop, for_good: bool) -> Result<(), String> {
    let mut progress = 0;
    let mut troubled = false;
    let began = monotonic();
    while !stop.raised() {
        let step = worker.step(STEP_WAIT).map_err(|halt| halt.0).inspect_err(|why| health.stopped(index, why))?;
        let resting = step == Step::Idle && !worker.is_restoring();
        let progressed = resting || worker.progress() != progress;
        progress = worker.progress();
        health.stepped(index, monotonic_ms(), progressed);
        // With more workers than partitions some never get any.
        if worker.is_settled() && (worker.has_tasks() || since(began) > SPARE) {
            health.started();
        }
        if troubled || step == Step::Backoff {
            troubled = worker.trouble_text().is_some();
            health.trouble(index, worker.trouble_text());
        }
        health.paused(index, worker.is_paused());
        if step == Step::Backoff {
            std::thread::park_timeout(BACKOFF);
        }
    }
    worker.close(for_good).map_err(|halt| halt.0)
}

fn monotonic_ms() -> u64 {
    u64::try_from(monotonic().as_millis()).unwrap_or(u64::MAX)
}
