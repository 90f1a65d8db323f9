//! A worker: one thread, one group member, one producer, and the tasks the group gave it.
//!
//! [`Worker::step`] does one round: restore what is to be restored, poll, process, punctuate, follow the group, commit when due. It
//! never blocks longer than the caller allows, reads no clock of its own and starts no thread, so the simulation drives the very same
//! code. This is the frame; what a round does is beside it: `processing`, `assignment`, `restoring`, `commit`, `emptying`. Every failure is
//! answered in one place, `reaction`, by what it asks for ([`Reaction`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use state::backend::{Backend, StorePartition, WriteSet};
use tracing::warn;

use crate::broker::{Broker, BrokerError, Event, Member, MemberConfig, Reaction};
use crate::clock::Clock;
use crate::latency::Journal;
use crate::metrics::Metrics;
use crate::predecessors::{Ending, Predecessors};
use crate::processor::{Counts, DeadLetters, ProcessError};
use crate::record::Fetched;
use crate::restore::StartFrom;
use crate::status::{Phase, Tasks};
use crate::task::{Shared, Task};
use crate::topology::{TaskId, Topology};

/// Arena memory that stays between polls.
const KEEP_ARENA_BYTES: usize = 8 << 20;

/// How long a worker that restores waits for input: the changelog is what it is busy with.
const RESTORING_WAIT: Duration = Duration::from_millis(1);

/// How long the group may take to answer for committed offsets in one step while tasks run, at first. It doubles with each time in
/// vain, and running tasks have four times as long to themselves before the next: an answer that waits for a dead owner's transaction
/// keeps them from a fifth of their time at most.
pub(crate) const COMMITTED_WAIT_RUNNING: Duration = Duration::from_millis(50);

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Its number within the instance.
    pub index: usize,
    /// Its place in the group.
    pub member: MemberConfig,
    /// Exactly-once, or at-least-once.
    pub exactly_once: bool,
    /// The longest a transaction stays open, in milliseconds.
    pub commit_interval_ms: u64,
    /// A transaction with nothing more to do is committed once it is this old, in milliseconds.
    pub commit_idle_ms: u64,
    /// The most records of one poll.
    pub max_poll_records: usize,
    /// Decoded state to keep in memory, in bytes, for each store of each task.
    pub cache_bytes: usize,
    /// Changed and uncommitted values, in number, that make a commit due at once.
    pub max_changed: usize,
    /// Bytes of records in an open transaction that make a commit due at once: what they become waits in memory until then.
    pub max_open_bytes: usize,
    /// Where a task with state but without committed offsets begins.
    pub start_from: StartFrom,
    /// `delete.retention.ms` of the changelogs: an older store is rebuilt.
    pub tombstone_retention_ms: u64,
    /// The largest record the dead letters take, in bytes.
    pub dead_letter_max_bytes: usize,
    /// Seeds the index of keys in memory.
    pub hash_seed: u64,
}

/// What all workers of an instance share.
#[derive(Clone)]
pub struct Parts {
    /// What to run.
    pub topology: Arc<Topology>,
    /// How many partitions each topic has, in the order of the topology's table.
    pub partitions: Vec<u32>,
    /// Where state is kept.
    pub backend: Arc<dyn Backend>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What the tasks are doing.
    pub tasks: Arc<Tasks>,
}

/// Why a worker stopped for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Halt(pub String);

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something was done.
    Worked,
    /// Nothing was to be done.
    Idle,
    /// The broker is in trouble: wait a little before the next step.
    Backoff,
}

/// See the module's header.
pub struct Worker<B: Broker> {
    pub(crate) broker: Arc<B>,
    pub(crate) config: WorkerConfig,
    pub(crate) shared: Shared,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) member: Option<B::Member>,
    pub(crate) reader: Option<B::Reader>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) open: Option<Open>,
    pub(crate) set: WriteSet,
    pub(crate) order: Vec<u32>,
    pub(crate) fetched: Fetched,
    /// Changelog records, while something is being restored.
    pub(crate) bite: Fetched,
    /// Set while effects are half done: a failure then voids all that is uncommitted.
    pub(crate) working: bool,
    /// What the group decided and was not acknowledged yet.
    pub(crate) pending: Option<Event>,
    /// The store dropped for damage since the last commit.
    pub(crate) damaged: Option<StorePartition>,
    /// Set while the store takes no writes, and until the next commit shows that it does again.
    pub(crate) paused: Option<Paused>,
    /// How long the next question for committed offsets may take beside running tasks, and not before when it is asked.
    pub(crate) plan_wait: Duration,
    pub(crate) plan_at_us: u64,
    pub(crate) ending: Ending,
    pub(crate) reopen: bool,
    pub(crate) quiet: bool,
    pub(crate) progress: u64,
    pub(crate) journal: Journal,
    pub(crate) last_trouble: Option<String>,
}

/// A store that took no writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paused {
    /// False once it was revived; kept until a commit shows that it stays so.
    pub(crate) waiting: bool,
    pub(crate) wait_ms: u64,
    pub(crate) try_at_us: u64,
}

/// What is processed and not committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) since_us: u64,
    pub(crate) records: u64,
    pub(crate) bytes: usize,
}

impl<B: Broker> Worker<B> {
    /// A worker that has not joined yet: its first step does.
    #[must_use]
    pub fn new(broker: Arc<B>, parts: Parts, config: WorkerConfig) -> Self {
        let dead_letters = parts.topology.dead_letters();
        let shared = Shared {
            topology: parts.topology,
            counts: Arc::new(Counts(parts.partitions)),
            backend: parts.backend,
            tasks: parts.tasks,
            dead_letters: dead_letters.map(|topic| DeadLetters { topic, max_bytes: config.dead_letter_max_bytes }),
            worker: config.index,
            clock: Some(Arc::clone(&parts.clock)),
        };
        Self {
            broker,
            config,
            shared,
            clock: parts.clock,
            metrics: parts.metrics,
            member: None,
            reader: None,
            tasks: BTreeMap::new(),
            open: None,
            set: WriteSet::default(),
            order: Vec::new(),
            fetched: Fetched::default(),
            bite: Fetched::default(),
            working: false,
            pending: None,
            damaged: None,
            paused: None,
            plan_wait: COMMITTED_WAIT_RUNNING,
            plan_at_us: 0,
            ending: Ending::default(),
            reopen: false,
            quiet: false,
            progress: 0,
            journal: Journal::default(),
            last_trouble: None,
        }
    }

    /// The same worker, told who knows from whom its tasks may come.
    #[must_use]
    pub fn with_predecessors(mut self, known: Arc<dyn Predecessors>) -> Self {
        self.ending = Ending::told_by(known);
        self
    }

    /// One round; waits for records at most `wait`.
    ///
    /// # Errors
    /// [`Halt`] where nothing the worker can do will help.
    pub fn step(&mut self, wait: Duration) -> Result<Step, Halt> {
        if let Some(step) = self.await_store()? {
            return Ok(step);
        }
        match self.round(wait) {
            Ok(step) => {
                if step != Step::Backoff {
                    self.last_trouble = None;
                }
                Ok(step)
            }
            Err(error) => self.react(error),
        }
    }

    fn round(&mut self, wait: Duration) -> Result<Step, ProcessError> {
        self.working = false;
        let joined = self.member.is_some();
        if !joined {
            self.member = Some(self.broker.join(&self.config.member)?);
        }
        if self.reopen {
            self.member()?.reopen()?;
            self.reopen = false;
        }
        if self.pending.is_some() {
            self.follow()?;
        }
        // What keeps a restore waiting keeps neither running tasks from their work nor the group from its answers. (Not where a store was
        // being emptied: that is a transaction half done.)
        let (restored, waiting) = match self.restore_some() {
            Err(ProcessError::Broker(why)) if why.reaction == Reaction::Retry && !self.working => {
                self.trouble(&why.what);
                (false, true)
            }
            done => (done?, false),
        };
        let mut fetched = std::mem::take(&mut self.fetched);
        fetched.clear(KEEP_ARENA_BYTES);
        let wait = self.poll_wait(wait);
        let max = self.config.max_poll_records;
        let asked_us = self.clock.monotonic_us();
        let event = self.member()?.poll(&mut fetched, max, wait);
        self.quiet = fetched.is_empty();
        self.journal.polled(asked_us, self.clock.monotonic_us(), self.clock.now_ms(), self.quiet);
        self.working = true;
        let processed = self.process(&fetched).and_then(|()| self.punctuate());
        self.fetched = fetched;
        processed?;
        self.working = false;
        // What came before the event is done under the old assignment.
        let event = event?;
        let worked = event.is_some() || restored || !self.quiet;
        if event.is_some() {
            self.pending = event;
            self.follow()?;
        }
        let (committed, mut resumed) = (self.commit_due(), false);
        if committed {
            self.working = true;
            self.commit()?;
            self.working = false;
        }
        if committed || self.quiet {
            resumed = self.try_away()?;
            self.evict_staged()?;
        }
        Ok(match (worked || resumed, waiting) {
            (true, _) => Step::Worked,
            (false, true) => Step::Backoff,
            (false, false) => Step::Idle,
        })
    }

    pub(crate) fn member(&mut self) -> Result<&mut B::Member, ProcessError> {
        self.member.as_mut().ok_or_else(|| BrokerError::new(Reaction::Retry, "not joined yet").into())
    }

    fn poll_wait(&self, wait: Duration) -> Duration {
        if self.tasks.values().any(|task| task.phase == Phase::Restoring) {
            return wait.min(RESTORING_WAIT);
        }
        let Some(open) = self.open else { return wait };
        let age_us = self.clock.monotonic_us().saturating_sub(open.since_us);
        wait.min(Duration::from_micros((self.config.commit_idle_ms * 1000).saturating_sub(age_us)))
    }

    fn commit_due(&self) -> bool {
        let Some(open) = self.open else { return false };
        let age_us = self.clock.monotonic_us().saturating_sub(open.since_us);
        let changed = || self.tasks.values().flat_map(|task| &task.stores).map(|store| store.changed()).sum::<usize>();
        age_us >= self.config.commit_interval_ms * 1000
            || (self.quiet && age_us >= self.config.commit_idle_ms * 1000)
            || open.bytes >= self.config.max_open_bytes
            || changed() >= self.config.max_changed
    }

    /// Commits what is done and leaves the group.
    ///
    /// # Errors
    /// [`Halt`] where the last commit failed for good; the disk is kept in any case.
    pub fn close(&mut self, for_good: bool) -> Result<(), Halt> {
        let committed = if self.open.is_some() { self.commit() } else { Ok(()) };
        if let Err(why) = committed {
            warn!(worker = self.config.index, %why, "the last commit failed: its records will be processed again");
            let _ = self.react(why)?;
        }
        if let Some(member) = &mut self.member
            && let Err(why) = member.leave(for_good)
        {
            warn!(worker = self.config.index, %why, "leaving the group failed: it will notice by the session timeout");
        }
        self.leave_all();
        Ok(())
    }

    /// Grows with each commit and each changelog record restored: where it stands still and there is work, the worker is stuck.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.progress
    }

    /// True while its store takes no writes (a full disk): it has given its partitions back and waits.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.is_some_and(|paused| paused.waiting)
    }

    /// What is wrong with the broker or the store at the moment, for people.
    #[must_use]
    pub fn trouble_text(&self) -> Option<&str> {
        self.last_trouble.as_deref()
    }

    /// True where the group gave it something to do.
    #[must_use]
    pub fn has_tasks(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// True where a task is being restored.
    #[must_use]
    pub fn is_restoring(&self) -> bool {
        self.tasks.values().any(|task| task.phase == Phase::Restoring)
    }

    /// True where every task runs, nothing is open, and an input waits for evicted values.
    #[must_use]
    pub fn waits_for_tiers(&self) -> bool {
        let runs = self.tasks.values().all(|task| task.phase == Phase::Running);
        self.open.is_none() && runs && self.tasks.values().any(|task| task.waits_since_ms().is_some())
    }

    /// True where every task runs and nothing is left to do but wait for records.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let rests = |task: &Task| task.phase == Phase::Running && task.inputs.iter().all(|input| !input.held);
        self.open.is_none() && self.tasks.values().all(rests)
    }
}
