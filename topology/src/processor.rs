//! What a user of the engine writes: a [`Processor`], and what it may do: its [`Context`].
//!
//! A processor gets whole batches, so that work on many records at once (a model, a prefetch) is natural. It must be deterministic: what
//! it does may depend on records, its stores and its decisions, never on a clock, on randomness, or on how records were batched. It
//! reads its keys with one [`state::store::Store::prefetch`] at the start of a batch, before it changes or emits anything; after that
//! nothing waits. Where evicted values cannot be had ([`BackendError::Away`]) it passes that on, and gets the same batch again later.

use std::fmt;

use state::backend::BackendError;
use state::store::{AnyStore, Mark, Store, Value};

use crate::broker::BrokerError;
use crate::clock::Clock;
use crate::decision::Decision;
use crate::ids::{StoreId, TaskId};
use crate::notes::Notes;
use crate::partitioner::partition_of;
use crate::record::{Batch, Header, Outgoing, Record, TopicId, TopicPartition};
use crate::sink::Sink;

/// Why a batch could not be processed. A processor passes on what its context gave it, or stops the worker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// The broker's failure, with its reaction.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store's failure.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The processor cannot go on, for a reason that a retry won't mend.
    #[error("the processor stopped: {0}")]
    Stop(String),
}

/// `Result` of processing.
pub type Result<T = ()> = std::result::Result<T, ProcessError>;

/// Which clock a punctuation follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punctuation {
    /// The largest record timestamp seen by the task: deterministic.
    StreamTime,
    /// The wall clock: for housekeeping whose effect is not to be replayed.
    WallClock,
}

/// Calls [`Processor::punctuate`] every so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Which clock.
    pub kind: Punctuation,
    /// Milliseconds between calls.
    pub every_ms: i64,
}

/// Processes the records of one task. See the module's header for what it must not do.
pub trait Processor: Send {
    /// Processes a batch of one input's records, in offset order.
    ///
    /// # Errors
    /// What the context's operations gave, or [`ProcessError::Stop`].
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result;

    /// When to be called besides.
    fn schedules(&self) -> Vec<Schedule> {
        Vec::new()
    }

    /// Called as scheduled, with the time of the schedule's clock in milliseconds.
    ///
    /// # Errors
    /// As [`Self::process`].
    fn punctuate(&mut self, _kind: Punctuation, _now_ms: i64, _context: &mut Context<'_>) -> Result {
        Ok(())
    }
}

/// The topics of a task with their partition counts, as the broker has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub(crate) Vec<u32>);

impl Counts {
    pub(crate) fn of(&self, topic: TopicId) -> u32 {
        self.0[usize::from(topic.0)]
    }
}

/// What a processor may do while it processes: read and change its stores, emit, decide, put aside what it cannot process.
pub struct Context<'a> {
    pub(crate) task: TaskId,
    pub(crate) input: u8,
    pub(crate) topic_names: &'a crate::record::Topics,
    pub(crate) outputs: &'a [TopicId],
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) decisions: Option<TopicId>,
    pub(crate) counts: &'a Counts,
    pub(crate) stores: &'a mut [Box<dyn AnyStore>],
    pub(crate) sink: &'a mut dyn Sink,
    pub(crate) lead: TopicId,
    /// The lead input's next offset: what has been processed is below it.
    pub(crate) lead_next: u64,
    pub(crate) counters: &'a mut TaskCounters,
    pub(crate) notes: &'a mut Notes,
    pub(crate) clock: Option<&'a dyn Clock>,
}

/// Where dead letters go, and how large one may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetters {
    pub(crate) topic: TopicId,
    pub(crate) max_bytes: usize,
}

/// What a task has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounters {
    /// Records handed to the processor.
    pub records: u64,
    /// Records emitted to outputs.
    pub emitted: u64,
    /// Records put aside.
    pub dead_letters: u64,
    /// Decisions written down.
    pub decisions: u64,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("task", &self.task).field("input", &self.input).finish_non_exhaustive()
    }
}

impl Context<'_> {
    /// The task this runs in.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// Which of the sub-topology's inputs the batch is from; the lead is 0.
    #[must_use]
    pub fn input(&self) -> u8 {
        self.input
    }

    /// How many partitions the lead topic has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.counts.of(self.lead)
    }

    /// A topic's name.
    #[must_use]
    pub fn topic_name(&self, topic: TopicId) -> &str {
        self.topic_names.name(topic)
    }

    /// How a store remembers this record: what [`Store::update`] takes.
    #[must_use]
    pub fn mark(&self, record: &Record<'_>) -> Mark {
        Mark { input: self.input, offset: record.offset }
    }

    /// A store by its number, as the type it was declared with.
    ///
    /// # Panics
    /// Where there is no such store, or its values are of another type: a fault of the processor.
    pub fn store<V: Value>(&mut self, store: StoreId) -> &mut Store<V> {
        let store = self.stores[store.0].as_any_mut().downcast_mut();
        store.expect("the store was declared with another type of value")
    }

    /// Writes to an output, by its number: to the partition that the key belongs to.
    ///
    /// # Errors
    /// The broker's.
    pub fn emit(&mut self, output: usize, key: &[u8], value: &[u8], timestamp: i64) -> Result {
        self.emit_with(output, key, value, timestamp, &[])
    }

    /// As [`Self::emit`], with headers.
    ///
    /// # Errors
    /// The broker's.
    pub fn emit_with(&mut self, output: usize, key: &[u8], value: &[u8], timestamp: i64, headers: &[Header<'_>]) -> Result {
        let topic = self.outputs[output];
        let to = TopicPartition { topic, partition: partition_of(key, self.counts.of(topic)) };
        self.counters.emitted += 1;
        Ok(self.sink.send(&Outgoing { to, key: Some(key), value: Some(value), timestamp, headers })?)
    }

    /// Writes to an output's partition that the task itself is of: for records whose key lives there anyway, which saves hashing it.
    ///
    /// # Errors
    /// The broker's.
    pub fn emit_here(&mut self, output: usize, key: &[u8], value: &[u8], timestamp: i64) -> Result {
        self.emit_here_with(output, key, value, timestamp, &[])
    }

    /// As [`Self::emit_here`], with headers.
    ///
    /// # Errors
    /// The broker's.
    pub fn emit_here_with(&mut self, output: usize, key: &[u8], value: &[u8], timestamp: i64, headers: &[Header<'_>]) -> Result {
        let topic = self.outputs[output];
        let partitions = self.counts.of(topic);
        if partitions != self.counts.of(self.lead) {
            return self.emit_with(output, key, value, timestamp, headers);
        }
        let to = TopicPartition { topic, partition: self.task.partition };
        self.counters.emitted += 1;
        Ok(self.sink.send(&Outgoing { to, key: Some(key), value: Some(value), timestamp, headers })?)
    }

    /// Counts under a name, to be read from [`crate::metrics::Metrics::counted`] once the records at hand are committed. Count once a
    /// batch, and take names from a closed set: they become labels. No part of a result may depend on it.
    pub fn count(&mut self, family: &'static str, name: &str, by: u64) {
        if by > 0 {
            self.notes.count(family, name, by);
        }
    }

    /// A stage of the batch is done: the time since the last one, or since the batch began, is that stage's
    /// ([`crate::metrics::Metrics::stages`]).
    pub fn lap(&mut self, stage: &'static str) {
        if let Some(clock) = self.clock {
            self.notes.lap(stage, clock);
        }
    }

    /// Puts a record aside: its bytes and headers go to the dead letters with the cause (KIP-1034), and the stream goes on. `message` is
    /// for a person and must not contain the record's values.
    ///
    /// # Errors
    /// The broker's; [`ProcessError::Stop`] where the topology has no dead letters.
    pub fn dead_letter(&mut self, record: &Record<'_>, exception: &str, message: &str) -> Result {
        let Some(to) = self.dead_letters else {
            let Record { from, offset, .. } = record;
            let topic = self.topic_names.name(from.topic);
            let what = format!("record {topic}:{}:{offset} cannot be processed ({exception}: {message})", from.partition);
            return Err(ProcessError::Stop(what));
        };
        self.counters.dead_letters += 1;
        self.notes.count("dead_letters", exception, 1);
        let partition = record.from.partition % self.counts.of(to.topic);
        let to_partition = TopicPartition { topic: to.topic, partition };
        let origin = self.topic_names.name(record.from.topic);
        Ok(crate::dead_letter::send(self.sink, to_partition, to.max_bytes, record, origin, exception, message)?)
    }

    /// Writes down when something from outside the lead topic takes effect, before it does: see [`crate::decision`]. `clears` names
    /// the key whose values it takes away, in all of the task's stores, where it does: a replay (at-least-once) may find nothing there that
    /// tells what was processed before.
    ///
    /// # Errors
    /// The broker's; [`ProcessError::Stop`] where the sub-topology declared no decisions.
    pub fn decide(
        &mut self,
        kind: &str,
        subject: Option<&str>,
        by: Option<&Record<'_>>,
        clears: Option<&[u8]>,
        now_ms: i64,
    ) -> Result {
        let Some(topic) = self.decisions else {
            return Err(ProcessError::Stop("a decision in a sub-topology that declares none".into()));
        };
        let decision = Decision {
            after: self.lead_next,
            kind: kind.into(),
            topic: by.map(|record| self.topic_names.name(record.from.topic).into()),
            offset: by.map(|record| record.offset),
            subject: subject.map(Into::into),
            clears: None,
        };
        let to = TopicPartition { topic, partition: self.task.partition };
        let value = decision.encode();
        let record = Outgoing { to, key: clears, value: Some(&value), timestamp: now_ms, headers: &[] };
        self.counters.decisions += 1;
        // Where it is in the log, everything said before it is too.
        self.sink.settle_order()?;
        self.sink.send(&record)?;
        Ok(self.sink.settle_order()?)
    }
}
