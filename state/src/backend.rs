//! The Backend port: bytes by key in named partitions, with the positions they stand for.
//!
//! A store's partition holds keys, values and one [`Positions`]. A [`WriteSet`] over any number of partitions is applied
//! atomically together with their positions: after a crash either all of it is there or none (I2). Two implementations pass one suite
//! ([`crate::conformance`]): RocksDB ([`crate::rocks`]) and memory ([`crate::memory`]).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One partition of one store. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePartition {
    /// The store's name: part of the public interface (it names the changelog topic).
    pub store: Arc<str>,
    /// The partition, as that of the task.
    pub partition: u32,
}

impl fmt::Display for StorePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.store, self.partition)
    }
}

/// Up to where a store's partition has been brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// The next changelog offset to apply. Never above the end of what is committed; may be below what the values already include
    /// (applying a changelog record twice changes nothing).
    pub changelog: u64,
    /// By topic, the next input offset: what the values include, checked against the group's committed offset.
    pub inputs: Vec<(String, u64)>,
    /// When (milliseconds since the epoch) it was last known to be at the changelog's end; a store older than the changelog's
    /// tombstone retention is rebuilt.
    pub current_at_ms: u64,
}

/// What a backend's failure asks of its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendError {
    /// A durable write failed: stop, say so, never guess (I7).
    Write(String),
    /// A durable write failed for a cause that goes away: the disk is full, or compaction met a damaged partition, which the next
    /// opening drops. Nothing can be written until [`Backend::revive`] succeeds.
    Paused(String),
    /// The system keeps us from the store (another process holds it, permissions): nothing is known to be wrong with its content.
    Denied(String),
    /// The bytes of this partition are damaged: drop it and restore it from its changelog.
    Corrupt {
        /// The partition to drop.
        partition: StorePartition,
        /// What was found.
        what: String,
    },
    /// Values of this partition lie outside of this machine, and are not to be had at the moment. Nothing follows about what they are (I5).
    Away {
        /// Whose values.
        partition: StorePartition,
        /// Who gave no answer.
        what: String,
    },
    /// The store cannot be opened or read at all: its content is of no use.
    Unusable(String),
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(what) => write!(f, "a write to the state store failed: {what}"),
            Self::Paused(what) => write!(f, "the state store takes no writes for now: {what}"),
            Self::Denied(what) => write!(f, "the state store is out of reach: {what}"),
            Self::Corrupt { partition, what } => write!(f, "the state of {partition} is damaged: {what}"),
            Self::Away { partition, what } => write!(f, "evicted values of {partition} cannot be brought back: {what}"),
            Self::Unusable(what) => write!(f, "the state store cannot be used: {what}"),
        }
    }
}

impl std::error::Error for BackendError {}

/// `Result` of a backend's operation.
pub type Result<T> = std::result::Result<T, BackendError>;

/// Changes to be applied together. Keys and values lie in one arena that is kept and refilled.
#[derive(Clone, Debug, Default)]
pub struct WriteSet {
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    partition: StorePartition,
    positions: Option<Positions>,
    changes: Vec<Change>,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    key: (u32, u32),
    value: Option<(u32, u32)>,
}

impl WriteSet {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.parts.clear();
    }

    /// True where nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of keys and values held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Goes on with changes of this partition; each partition may be begun once.
    pub fn begin(&mut self, partition: StorePartition) {
        debug_assert!(self.parts.iter().all(|part| part.partition != partition));
        self.parts.push(Part { partition, positions: None, changes: Vec::new() });
    }

    /// Puts a value, or deletes the key where there is none, in the partition begun last. The last change of a key wins.
    pub fn change(&mut self, key: &[u8], value: Option<&[u8]>) {
        let key = self.keep(key);
        let value = value.map(|value| self.keep(value));
        let part = self.parts.last_mut().expect("invariant: begin() names the partition first");
        part.changes.push(Change { key, value });
    }

    /// Sets the positions of the partition begun last.
    pub fn positions(&mut self, positions: Positions) {
        let part = self.parts.last_mut().expect("invariant: begin() names the partition first");
        part.positions = Some(positions);
    }

    fn keep(&mut self, bytes: &[u8]) -> (u32, u32) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        (start, u32::try_from(self.bytes.len()).expect("invariant: a write set is bounded far below 4 GiB"))
    }

    fn slice(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.bytes[start as usize..end as usize]
    }

    /// Everything in it, by partition in the order begun: the changes in the order made, then the positions.
    pub fn parts(&self) -> impl Iterator<Item = PartView<'_>> {
        self.parts.iter().map(|part| PartView { set: self, part })
    }
}

/// One partition's share of a [`WriteSet`].
#[derive(Clone, Copy, Debug)]
pub struct PartView<'a> {
    set: &'a WriteSet,
    part: &'a Part,
}

impl<'a> PartView<'a> {
    /// Which partition.
    #[must_use]
    pub fn partition(&self) -> &'a StorePartition {
        &self.part.partition
    }

    /// Its new positions, where they change.
    #[must_use]
    pub fn positions(&self) -> Option<&'a Positions> {
        self.part.positions.as_ref()
    }

    /// Its changes: key and value, none deletes.
    pub fn changes(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let set = self.set;
        self.part.changes.iter().map(move |c| (set.slice(c.key), c.value.map(|value| set.slice(value))))
    }
}

/// What a partition takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Keys, as the backend estimates them.
    pub keys: u64,
    /// Bytes on disk (or in memory), as the backend estimates them.
    pub bytes: u64,
}

/// What a look that waits for nothing finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// The value; none where the key has none.
    Here(Option<Vec<u8>>),
    /// To tell takes a disk, a lock or another machine: ask [`Backend::get`], where waiting does no harm.
    NotAtHand,
}

/// Bytes by key, in partitions, with positions. Shared by all workers of an instance and by queries.
///
/// A backend around another one passes on what it does not change with [`pass_on`](crate::pass_on). For its sake no method has a body of its own
/// here but those that are made of others: one that is forgotten does not compile.
pub trait Backend: Send + Sync + fmt::Debug + 'static {
    /// Makes the partition usable (creating it if need be) and tells its positions, none where it is new.
    fn open(&self, partition: &StorePartition) -> Result<Option<Positions>>;

    /// The positions of a partition, none where there is no such partition.
    fn positions(&self, partition: &StorePartition) -> Result<Option<Positions>>;

    /// One value of an open partition.
    fn get(&self, partition: &StorePartition, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.get_from(partition, key)?.map(|(value, _)| value))
    }

    /// As [`Self::get`], with the tier that it was brought back from; none where it lies here.
    fn get_from(&self, partition: &StorePartition, key: &[u8]) -> Result<Option<(Vec<u8>, Option<&'static str>)>>;

    /// As [`Self::get`] where the answer is in memory: it never waits, so an event loop may ask.
    fn peek(&self, partition: &StorePartition, key: &[u8]) -> Result<Peeked>;

    /// Many values at once: calls `found` once for each key, with its place in `keys`, in any order.
    fn multi_get(&self, partition: &StorePartition, keys: &[&[u8]], found: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()>;

    /// Applies all of it, or nothing; survives a crash of the process from then on. After [`BackendError::Write`] nothing of it is visible.
    fn write(&self, set: &WriteSet) -> Result<()>;

    /// As [`Self::write`] for restore: many changes of one partition, each key at most once, in key order. May bypass the log; a crash
    /// afterwards may lose it, but never positions ahead of data.
    fn load(&self, set: &WriteSet) -> Result<()>;

    /// After [`BackendError::Paused`]: makes it usable again where the cause is gone. What was written before is still there. One that
    /// is not paused stays as it is.
    fn revive(&self) -> Result<()>;

    /// Forgets a partition's keys and positions.
    fn drop_partition(&self, partition: &StorePartition) -> Result<()>;

    /// Calls `each` with up to `limit` keys and values after `after`, in the backend's own stable order, until it returns false.
    fn scan(
        &self,
        partition: &StorePartition,
        after: Option<&[u8]>,
        limit: usize,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()>;

    /// The partitions it holds.
    fn partitions(&self) -> Result<Vec<StorePartition>>;

    /// What a partition takes, roughly.
    fn size(&self, partition: &StorePartition) -> Result<Size>;

    /// Gives room back that overwritten values still take. May take long; nobody waits for it.
    fn compact(&self, partition: &StorePartition) -> Result<()>;

    /// Lets values leave this machine that were staged for it ([`crate::tiered`]); for the partition's one writer, between its writes.
    /// How many left.
    fn evict_staged(&self, partition: &StorePartition) -> Result<u64>;
}
