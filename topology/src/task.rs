//! A task: one partition of one sub-topology, from its assignment to its close.
//!
//! ```text
//!  assigned -> restoring -> running -> closed
//!                  ^           |
//!                  +- suspended <- (abort, unknown commit, fenced producer)
//! ```
//!
//! The worker owns its tasks and makes every transition through [`Task::enter`]; what others see of it is written there too. A task
//! never touches the broker by itself.

use std::collections::VecDeque;
use std::sync::Arc;

use state::backend::{Backend, BackendError, Positions, StorePartition};
use state::store::{AnyStore, StoreOptions};

use crate::broker::{BrokerError, Reaction};
use crate::clock::Clock;
use crate::decision::Decision;
use crate::notes::Notes;
use crate::processor::{Context, Counts, DeadLetters, ProcessError, Processor, Punctuation, Result, Schedule, TaskCounters};
use crate::record::{Batch, TopicPartition};
use crate::restore::{Progress, pace};
use crate::sink::Sink;
use crate::status::{Phase, TaskStatus, Tasks};
use crate::topology::{TaskId, Topology};

/// One input of a task.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) from: TopicPartition,
    /// The next offset to process.
    pub(crate) next: u64,
    /// The next offset as committed in the group.
    pub(crate) committed: u64,
    /// Stopped at `next` until a decided order allows it to go on, or evicted values are to be had.
    pub(crate) held: bool,
    /// Set while evicted values that its next records need are not to be had.
    pub(crate) away: Option<Away>,
}

/// How an input waits for evicted values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Away {
    pub(crate) since_ms: i64,
    wait_ms: u64,
    pub(crate) try_at_us: u64,
}

/// How long an input waits between two attempts, at first and at most.
const AWAY_MIN_MS: u64 = 250;
const AWAY_MAX_MS: u64 = 8_000;

impl Input {
    /// Its next records' values are not to be had: it tries again later, and later each time.
    pub(crate) fn wait(&mut self, now_ms: i64, now_us: u64) {
        let wait_ms = self.away.map_or(AWAY_MIN_MS, |away| (away.wait_ms * 2).min(AWAY_MAX_MS));
        let since_ms = self.away.map_or(now_ms, |away| away.since_ms);
        self.away = Some(Away { since_ms, wait_ms, try_at_us: now_us + wait_ms * 1000 });
    }

    /// True where it may be tried.
    pub(crate) fn is_due(&self, now_us: u64) -> bool {
        self.away.is_none_or(|away| away.try_at_us <= now_us)
    }
}

/// A store's changelog as the task stands to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changelog {
    pub(crate) to: TopicPartition,
    /// A lower bound of the end of what is committed: control records and own writes counted, aborted ones left out.
    pub(crate) position: u64,
}

/// A decision of an earlier life whose effect is replayed where it was written, at-least-once only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) after: u64,
    pub(crate) input: u8,
    pub(crate) offset: u64,
}

struct Due {
    schedule: Schedule,
    last_ms: Option<i64>,
}

/// What every task of a worker shares.
pub(crate) struct Shared {
    pub(crate) topology: Arc<Topology>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) worker: usize,
    /// For measuring only. None in a replay: it measures nothing.
    pub(crate) clock: Option<Arc<dyn Clock>>,
}

pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) phase: Phase,
    pub(crate) inputs: Vec<Input>,
    pub(crate) stores: Vec<Box<dyn AnyStore>>,
    pub(crate) changelogs: Vec<Changelog>,
    pub(crate) restores: Vec<Progress>,
    /// True once the current restore's facts are read: `restores`, `decisions` and `committed` then tell what is to be done.
    pub(crate) planned: bool,
    /// When those facts were asked for, on the monotonic clock.
    pub(crate) planned_at_us: u64,
    /// The decisions topic's partition, the offset up to which it is to be read (0 once it was), and what was found.
    pub(crate) decisions: Option<(TopicPartition, u64, Vec<Decision>)>,
    /// When that was.
    pub(crate) restoring_since_ms: i64,
    /// By input: the group's committed offset when the restore was planned.
    pub(crate) committed: Vec<Option<u64>>,
    pub(crate) decided: VecDeque<Decided>,
    /// At-least-once: the lead's end when the task started. An earlier life may have written outputs for records below it, and what was
    /// not decided then must not come before them now.
    pub(crate) replay_until: u64,
    pub(crate) counters: TaskCounters,
    pub(crate) notes: Notes,
    processor: Box<dyn Processor>,
    due: Vec<Due>,
    stream_time_ms: Option<i64>,
    /// As of the last commit: the stream time, and by schedule the last call.
    settled: (Option<i64>, Vec<Option<i64>>),
}

impl Task {
    /// A task as assigned: nothing read yet.
    pub(crate) fn new(id: TaskId, shared: &Shared, options: &StoreOptions) -> Self {
        let sub = &shared.topology.subs()[usize::from(id.sub)];
        let processor = (sub.make)(id);
        let at = |topic| TopicPartition { topic, partition: id.partition };
        let stores = sub.stores.iter().map(|spec| {
            let partition = StorePartition { store: Arc::clone(&spec.name), partition: id.partition };
            (spec.make)(partition, Arc::clone(&shared.backend), options.clone())
        });
        let due: Vec<Due> = processor.schedules().into_iter().map(|schedule| Due { schedule, last_ms: None }).collect();
        let input = |&topic| Input { from: at(topic), next: 0, committed: 0, held: false, away: None };
        Self {
            id,
            phase: Phase::Restoring,
            inputs: sub.inputs.iter().map(input).collect(),
            stores: stores.collect(),
            changelogs: sub.stores.iter().map(|spec| Changelog { to: at(spec.changelog), position: 0 }).collect(),
            restores: Vec::new(),
            planned: false,
            restoring_since_ms: 0,
            planned_at_us: 0,
            decisions: None,
            committed: Vec::new(),
            decided: VecDeque::new(),
            replay_until: 0,
            counters: TaskCounters::default(),
            notes: Notes::default(),
            settled: (None, vec![None; due.len()]),
            due,
            processor,
            stream_time_ms: None,
        }
    }

    /// Every transition of every task happens here.
    pub(crate) fn enter(&mut self, phase: Phase, shared: &Shared, now_ms: i64) {
        let legal = match (self.phase, phase) {
            (Phase::Restoring, Phase::Running) => self.restored(),
            (_, Phase::Suspended | Phase::Restoring) => true,
            (Phase::Running, Phase::Running) => true,
            (Phase::Suspended, Phase::Running) => false,
        };
        assert!(legal, "task {}: {:?} -> {phase:?} is no transition", self.id, self.phase);
        if phase == Phase::Suspended {
            self.stores.iter_mut().for_each(|store| store.rollback());
            self.counters = TaskCounters::default();
            self.notes.forget();
            // What the processor remembers of the void transaction is void too (a decision that it believes written, say).
            self.processor = (shared.topology.subs()[usize::from(self.id.sub)].make)(self.id);
            self.stream_time_ms = self.settled.0;
            for (due, &last_ms) in self.due.iter_mut().zip(&self.settled.1) {
                due.last_ms = last_ms;
            }
            self.restores.clear();
            self.decisions = None;
            self.decided.clear();
            self.planned = false;
        }
        self.phase = phase;
        self.publish(shared, now_ms);
    }

    /// Everything processed so far is committed.
    pub(crate) fn settle(&mut self) {
        for input in &mut self.inputs {
            input.committed = input.next;
        }
        self.stores.iter_mut().for_each(|store| store.settle());
        self.settled.0 = self.stream_time_ms;
        for (settled, due) in self.settled.1.iter_mut().zip(&self.due) {
            *settled = due.last_ms;
        }
    }

    /// Where its inputs come from.
    pub(crate) fn froms(&self) -> impl Iterator<Item = TopicPartition> {
        self.inputs.iter().map(|input| input.from)
    }

    /// True where everything planned has been read and applied.
    pub(crate) fn restored(&self) -> bool {
        self.planned
            && self.restores.iter().all(Progress::done)
            && self.decisions.as_ref().is_none_or(|(_, until, _)| *until == 0)
    }

    /// Lets others see it as it stands.
    pub(crate) fn publish(&self, shared: &Shared, now_ms: i64) {
        shared.tasks.set(self.id, self.status(shared, now_ms));
    }

    /// As others see it.
    pub(crate) fn status(&self, shared: &Shared, now_ms: i64) -> TaskStatus {
        let remaining = self.restores.iter().map(Progress::remaining).sum();
        let elapsed_ms = now_ms.saturating_sub(self.restoring_since_ms).max(0).unsigned_abs();
        let (rate_per_second, eta_seconds) = match self.phase {
            Phase::Restoring if self.planned => pace(self.restores.iter().map(Progress::passed).sum(), remaining, elapsed_ms),
            _ => (0, None),
        };
        TaskStatus {
            phase: self.phase,
            worker: shared.worker,
            inputs: self.inputs.iter().map(|input| (input.from, input.committed)).collect(),
            changelogs: self.changelogs.iter().map(|log| (log.to, log.position)).collect(),
            restored: self.restores.iter().map(|progress| progress.applied).sum(),
            remaining,
            rate_per_second,
            eta_seconds,
            as_of_ms: now_ms,
            stream_time_ms: self.stream_time_ms,
            waits_for_tiers_since_ms: self.waits_since_ms(),
        }
    }

    /// Since when one of its inputs waits for evicted values.
    pub(crate) fn waits_since_ms(&self) -> Option<i64> {
        self.inputs.iter().filter_map(|input| input.away).map(|away| away.since_ms).min()
    }

    /// What it has done that only a commit or an abort ends.
    fn effects(&self) -> (u64, usize) {
        let TaskCounters { emitted, dead_letters, decisions, .. } = self.counters;
        (emitted + dead_letters + decisions, self.stores.iter().map(|store| store.changed()).sum())
    }

    /// Processes a batch of one of its inputs. The caller has asked [`Self::admit`].
    pub(crate) fn process(&mut self, input: usize, batch: &Batch<'_>, shared: &Shared, sink: &mut dyn Sink) -> Result {
        debug_assert_eq!(self.phase, Phase::Running);
        let (first, last) = (batch.get(0), batch.get(batch.len() - 1));
        assert!(first.offset >= self.inputs[input].next, "task {}: an input went back", self.id);
        let newest = batch.iter().map(|record| record.timestamp).max();
        if let Some(clock) = &shared.clock {
            self.notes.begin(&**clock);
        }
        let before = self.effects();
        let (processor, mut context) = self.split(input as u8, shared, sink);
        match processor.process(batch, &mut context) {
            // Half a batch can't be processed again: this processor didn't look before it leapt.
            Err(ProcessError::Backend(why @ BackendError::Away { .. })) if self.effects() != before => {
                return Err(BrokerError::new(Reaction::Abort, why.to_string()).into());
            }
            processed => processed?,
        }
        self.inputs[input].away = None;
        self.counters.records += batch.len() as u64;
        self.inputs[input].next = last.offset + 1;
        if input > 0 {
            while self.decided.front().is_some_and(|d| usize::from(d.input) == input && d.offset <= last.offset) {
                self.decided.pop_front();
            }
        }
        self.stream_time_ms = self.stream_time_ms.max(newest);
        match self.stream_time_ms {
            Some(now_ms) => self.punctuate(Punctuation::StreamTime, now_ms, shared, sink),
            None => Ok(()),
        }
    }

    fn split<'t>(&'t mut self, input: u8, shared: &'t Shared, sink: &'t mut dyn Sink) -> (&'t mut dyn Processor, Context<'t>) {
        let sub = &shared.topology.subs()[usize::from(self.id.sub)];
        let context = Context {
            task: self.id,
            input,
            topic_names: shared.topology.topics(),
            outputs: &sub.outputs,
            dead_letters: shared.dead_letters,
            decisions: sub.decisions,
            counts: &shared.counts,
            stores: &mut self.stores,
            sink,
            lead: sub.lead(),
            lead_next: self.inputs[0].next,
            counters: &mut self.counters,
            notes: &mut self.notes,
            clock: shared.clock.as_deref(),
        };
        (&mut *self.processor, context)
    }

    /// Calls what is due on one of the clocks.
    pub(crate) fn punctuate(&mut self, kind: Punctuation, now_ms: i64, shared: &Shared, sink: &mut dyn Sink) -> Result {
        for at in 0..self.due.len() {
            let Due { schedule, last_ms } = &mut self.due[at];
            if schedule.kind != kind {
                continue;
            }
            match *last_ms {
                None => *last_ms = Some(now_ms),
                Some(last) if now_ms - last >= schedule.every_ms => {
                    *last_ms = Some(now_ms);
                    let (processor, mut context) = self.split(0, shared, sink);
                    processor.punctuate(kind, now_ms, &mut context)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// True where [`Self::punctuate`] would call something.
    pub(crate) fn is_due(&self, kind: Punctuation, now_ms: i64) -> bool {
        self.due
            .iter()
            .any(|due| due.schedule.kind == kind && due.last_ms.is_none_or(|last| now_ms - last >= due.schedule.every_ms))
    }

    /// How many of an input's records, at these offsets, may be processed now. Fewer than all only while an earlier life (at-least-once)
    /// is being replayed: the lead waits for a decided record, that record for its place, and undecided ones for the replay's end.
    pub(crate) fn admit(&self, input: usize, mut offsets: impl ExactSizeIterator<Item = u64>) -> usize {
        let count = offsets.len();
        let Some(next) = self.decided.front() else {
            return if input > 0 && self.inputs[0].next < self.replay_until { 0 } else { count };
        };
        let stop = match input {
            0 => offsets.position(|offset| offset >= next.after),
            _ if self.inputs[0].next >= next.after => {
                // The decided record may go on; those behind it wait for the next decision's place.
                offsets.position(|offset| usize::from(next.input) != input || offset > next.offset)
            }
            _ => Some(0),
        };
        stop.unwrap_or(count)
    }

    /// Takes up decisions of an earlier life: those whose records are not committed yet, in the order of their effect.
    pub(crate) fn remember(&mut self, decisions: &[Decision], topology: &Topology) {
        let sub = &topology.subs()[usize::from(self.id.sub)];
        for decision in decisions {
            let (Some(topic), Some(offset)) = (&decision.topic, decision.offset) else { continue };
            let Some(input) = topology.topics().find(topic).and_then(|topic| sub.input_number(topic)) else { continue };
            // The lead can be replayed from below a decision whose own record is committed: a late commit of offsets sets back only
            // the inputs that it names.
            if let Some(key) = decision.clears.as_ref().filter(|_| decision.after > self.inputs[0].next) {
                self.stores.iter_mut().for_each(|store| store.cleared(key, decision.after));
            }
            let decided = Decided { after: decision.after, input, offset };
            if offset >= self.inputs[usize::from(input)].committed && !self.decided.contains(&decided) {
                self.decided.push_back(decided);
            }
        }
        self.decided.make_contiguous().sort_by_key(|decided| (decided.after, decided.offset));
    }

    /// The positions that stand beside a store's data once everything processed so far is committed.
    pub(crate) fn positions(&self, store: usize, shared: &Shared, now_ms: i64) -> Positions {
        let topics = shared.topology.topics();
        Positions {
            changelog: self.changelogs[store].position,
            inputs: self.inputs.iter().map(|input| (topics.name(input.from.topic).to_owned(), input.next)).collect(),
            current_at_ms: now_ms.max(0).unsigned_abs(),
        }
    }

    /// True where it has processed something that is not committed.
    pub(crate) fn is_ahead(&self) -> bool {
        self.inputs.iter().any(|input| input.next != input.committed) || self.stores.iter().any(|s| s.changed() > 0)
    }
}
