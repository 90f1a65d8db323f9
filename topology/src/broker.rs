//! The Broker and Membership ports: everything the engine asks of a log.
//!
//! Three implementations pass one conformance suite ([`crate::conformance`]): Kafka, the embedded broker and the simulated one. A
//! [`Member`] is one worker's place in the group together with its producer; only the member makes a commit [`Member::Token`] and
//! only its commits take one, so a commit that no group generation fences cannot be written. A [`Reader`] reads partitions by
//! offset, outside of any group: restore and audits use it.
//!
//! Every failure says what the caller must do ([`Reaction`]), not what went wrong inside.

use std::fmt;
use std::time::Duration;

use crate::record::{Fetched, Outgoing, TopicId, TopicPartition, Topics};

/// What the caller of a failed operation must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing happened: try again, after a while.
    Retry,
    /// The open transaction cannot commit: abort it, go back to the committed offsets and redo it.
    Abort,
    /// Another producer took this identity, or the group dropped this member: drop all tasks, keep the disk, join again.
    Fenced,
    /// No answer to a commit or abort: it may have happened. Reopen the producer, read committed offsets afresh (I8).
    Unknown,
    /// This record is larger than its topic takes: nothing was sent, the transaction is unharmed. Truncate it or leave it out.
    TooLarge,
    /// Nothing the program can do will help: stop and say so.
    Stop,
}

/// A failure of the broker, with the reaction it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerError {
    /// What the caller must do.
    pub reaction: Reaction,
    /// What happened, for a person; names addresses and topics, never a record's content.
    pub what: String,
}

impl BrokerError {
    /// A failure with its reaction.
    pub fn new(reaction: Reaction, what: impl Into<String>) -> Self {
        Self { reaction, what: what.into() }
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for BrokerError {}

/// `Result` of a broker's operation.
pub type Result<T> = std::result::Result<T, BrokerError>;

/// How long a topic keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// The last value of each key; tombstones stay for at least this many milliseconds.
    Compact {
        /// `delete.retention.ms`.
        tombstone_retention_ms: u64,
    },
    /// Everything younger than this; none keeps all.
    Delete {
        /// `retention.ms`; none is -1.
        retention_ms: Option<u64>,
    },
}

/// A topic as it should be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// What it keeps.
    pub cleanup: Cleanup,
    /// The largest record it takes (`max.message.bytes`); none is the broker's default.
    pub max_message_bytes: Option<u32>,
}

/// What a topic keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Older values of a key go with time.
    pub compacted: bool,
    /// Records go once they are this old, in milliseconds; none keeps them.
    pub retention_ms: Option<u64>,
    /// How much longer a record may stay than that, since it goes only with those that were written around it.
    pub roll_ms: u64,
}

impl Kept {
    /// What follows from how a topic was created, where nothing is kept any longer than asked for.
    #[must_use]
    pub fn of(cleanup: Cleanup) -> Self {
        match cleanup {
            Cleanup::Compact { .. } => Self { compacted: true, retention_ms: None, roll_ms: 0 },
            Cleanup::Delete { retention_ms } => Self { compacted: false, retention_ms, roll_ms: 0 },
        }
    }
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// How many partitions.
    pub partitions: u32,
    /// `max.message.bytes`, where the broker tells.
    pub max_message_bytes: Option<u32>,
    /// What it keeps, where the broker tells.
    pub kept: Option<Kept>,
}

/// The offsets a partition has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset still retained (log start).
    pub start: u64,
    /// One past the last record written, decided or not (high watermark).
    pub end: u64,
}

/// How a worker joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberConfig {
    /// The consumer group.
    pub group: String,
    /// Static identity within the group (`group.instance.id`); a restart under the same one gets its tasks back.
    pub instance: String,
    /// The producer's identity under exactly-once; none under at-least-once (the producer is idempotent only).
    pub transactional_id: Option<String>,
    /// Milliseconds after which the broker aborts a transaction left open.
    pub transaction_timeout_ms: u64,
    /// The lead topic of each sub-topology: their partitions are what the group hands out.
    pub leads: Vec<TopicId>,
}

/// What the group decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These partitions of lead topics are ours from the acknowledgement on. Nothing is fetched before [`Member::start`].
    Assigned(Vec<TopicPartition>),
    /// These are to be given up: commit what is done, then acknowledge. Until then they are ours.
    Revoked(Vec<TopicPartition>),
    /// These are gone already (the group dropped us): abandon them, commit nothing.
    Lost(Vec<TopicPartition>),
}

/// A step of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitStep {
    /// What was in flight is delivered.
    Flushed,
    /// The transaction has the offsets.
    OffsetsAdded,
}

/// A log with topics, groups and transactions.
pub trait Broker: Send + Sync + 'static {
    /// One worker's place in the group.
    type Member: Member;
    /// Reads by offset.
    type Reader: Reader;
    /// Writes outside of transactions.
    type Publisher: Publisher;

    /// The table of topics whose numbers all calls use.
    fn topics(&self) -> &Topics;

    /// What the broker knows of these topics, none where a topic does not exist. [`Reaction::Retry`] while the broker cannot be
    /// reached: the text then names the address and what to check.
    fn describe(&self, topics: &[TopicId]) -> Result<Vec<Option<TopicInfo>>>;

    /// Creates a topic; one that exists already is left as it is.
    fn create(&self, spec: &TopicSpec) -> Result<()>;

    /// Says that somebody is about to join under this configuration: what that takes and changes nothing for the group (connections, a
    /// producer that ends what its predecessor left open) may be begun beside the caller. A hint, and no promise.
    fn prepare(&self, config: &MemberConfig) {
        let _ = config;
    }

    /// Joins the group as one member.
    fn join(&self, config: &MemberConfig) -> Result<Self::Member>;

    /// Ends at once what a producer under this transactional id left open, by taking the id over: whoever still uses it is fenced. A
    /// transaction whose end was decided already ends as decided. For ids of owners that the group has dropped.
    fn end_transactions_of(&self, transactional_id: &str) -> Result<()>;

    /// A reader that sees committed records only.
    fn reader(&self) -> Result<Self::Reader>;

    /// An idempotent producer outside of transactions: commands, labels, ingestion, load.
    fn publisher(&self) -> Result<Self::Publisher>;
}

/// One worker's membership, consumer and producer. All calls come from one thread.
pub trait Member: Send {
    /// Proof of (group, member, generation); only this member makes one.
    type Token;

    /// Waits up to `wait` for records (appended to `into`, at most about `max_records`) or an event. Records come only from partitions
    /// that were started. Records already in `into` when an event comes are still to be handled under the old assignment.
    /// An event is given once: the caller keeps it until its acknowledgement went through.
    fn poll(&mut self, into: &mut Fetched, max_records: usize, wait: Duration) -> Result<Option<Event>>;

    /// Completes the event that [`Self::poll`] returned: assigned partitions are ours, revoked ones are given up (and stopped).
    fn acknowledge(&mut self, event: &Event) -> Result<()>;

    /// Fetches from a partition, from an offset on: a partition of a lead topic that is ours, or a co-partition of it. For one that was
    /// started before this is a seek; nothing fetched earlier is delivered any more.
    fn start(&mut self, at: &[(TopicPartition, u64)]) -> Result<()>;

    /// Fetches no more from these and forgets what was fetched and not delivered.
    fn stop(&mut self, partitions: &[TopicPartition]) -> Result<()>;

    /// Stops delivering from these for a while, and goes on.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<()>;

    /// Delivers again from paused ones.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<()>;

    /// The group's committed offsets; waits while a transaction that holds new ones is undecided ([`Reaction::Retry`] when `wait`
    /// is over), so the answer is never about to change under a dead owner's commit.
    fn committed(&mut self, partitions: &[TopicPartition], wait: Duration) -> Result<Vec<Option<u64>>>;

    /// Log start and high watermark of a partition.
    fn bounds(&mut self, partition: TopicPartition) -> Result<Bounds>;

    /// The same of many, in order.
    fn bounds_of(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Bounds>> {
        partitions.iter().map(|&partition| self.bounds(partition)).collect()
    }

    /// The proof that the next commit needs, fetched at that moment.
    fn token(&mut self) -> Result<Self::Token>;

    /// Opens a transaction (exactly-once).
    fn begin(&mut self) -> Result<()>;

    /// Hands a record to the producer, which copies it. Blocks while the producer's buffer is full.
    fn send(&mut self, record: &Outgoing<'_>) -> Result<()>;

    /// Waits until everything sent is acknowledged (at-least-once).
    fn flush(&mut self) -> Result<()>;

    /// Delivers what is in flight, adds the offsets (the next to read) and commits the transaction. After [`Reaction::Abort`] the
    /// transaction is still open for [`Self::abort`]; after [`Reaction::Unknown`] only [`Self::reopen`] helps.
    fn commit(&mut self, offsets: &[(TopicPartition, u64)], token: Self::Token) -> Result<()> {
        self.commit_in_steps(offsets, token, &mut |_| {})
    }

    /// [`Self::commit`], telling when each step but the last is done, as far as there are steps: for whoever measures them.
    fn commit_in_steps(
        &mut self,
        offsets: &[(TopicPartition, u64)],
        token: Self::Token,
        done: &mut dyn FnMut(CommitStep),
    ) -> Result<()>;

    /// Aborts the open transaction.
    fn abort(&mut self) -> Result<()>;

    /// Drops the producer and initialises a new one under the same identity: a new epoch, which ends what the old one left open and
    /// refuses what still is under way from it (I8).
    fn reopen(&mut self) -> Result<()>;

    /// Commits offsets outside of a transaction (at-least-once).
    fn commit_offsets(&mut self, offsets: &[(TopicPartition, u64)], token: Self::Token) -> Result<()>;

    /// How many control records a commit adds to each partition it wrote to (Kafka: 1).
    fn markers_per_commit(&self) -> u64;

    /// Leaves the group: for good, or keeping the static identity so that a restart gets its tasks back.
    fn leave(&mut self, for_good: bool) -> Result<()>;
}

/// Reads partitions by offset, committed records only.
pub trait Reader: Send {
    /// Reads this partition from `from` on. An offset below the log start is [`Reaction::Stop`] with both offsets named.
    fn assign(&mut self, partition: TopicPartition, from: u64) -> Result<()>;

    /// Reads it no more.
    fn unassign(&mut self, partition: TopicPartition) -> Result<()>;

    /// Log start and high watermark.
    fn bounds(&mut self, partition: TopicPartition) -> Result<Bounds>;

    /// The same of many, in order.
    fn bounds_of(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Bounds>> {
        partitions.iter().map(|&partition| self.bounds(partition)).collect()
    }

    /// Waits up to `wait` for records and appends them, at most about `max_records`.
    fn poll(&mut self, into: &mut Fetched, max_records: usize, wait: Duration) -> Result<()>;

    /// The offset up to which everything committed has been delivered, control records and compacted gaps passed; none before the first
    /// answer.
    fn position(&self, partition: TopicPartition) -> Option<u64>;
}

/// Writes records outside of transactions.
pub trait Publisher: Send {
    /// Hands a record to the producer, which copies it.
    fn send(&mut self, record: &Outgoing<'_>) -> Result<()>;

    /// Waits until everything sent is durable in the broker.
    fn flush(&mut self) -> Result<()>;

    /// As [`Self::flush`], and tells where each record sent since the last one went, in order.
    fn flush_positions(&mut self, positions: &mut Vec<(TopicPartition, u64)>) -> Result<()>;
}
