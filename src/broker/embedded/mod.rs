//! The broker in this process: topics, partitions, groups and transactions in one RocksDB.
//!
//! For one machine, a demo, tests and small shops; past that the broker is Kafka or Redpanda, and nothing else changes. It gives what
//! the [`Broker`] port promises, by simpler means than a cluster needs:
//! - A transaction is ONE write to RocksDB: its records and its offsets, all or nothing. Records wait in memory until then
//!   ([`EmbeddedOptions::transaction_bytes`]), so nothing uncommitted is ever on disk and a commit adds no control records.
//! - Members live in this process. One whose thread is gone is known to be gone at once: its drop says so, and its place is kept for
//!   [`EmbeddedOptions::away_ms`].
//! - Commits that come together share one sync of the log; `EMBEDDED_SYNC=os` leaves syncing to the system (a crash of the process then
//!   still loses nothing, one of the machine the last commits).
//!
//! Invariants: offsets never change and never come twice, retention and compaction or not; a reader sees a partition's records in the order of
//! offsets, without waiting for more than what is committed; what was acknowledged is there after a crash.
//! Limits: one process (RocksDB's lock says who), topics are those of the application's table, a record has 100 MiB at most.
//! Rooms: `batch` bytes, `store` keys, `core` what is shared, `group` who owns what, `outbox` sending, `fetch` reading, `maintain`
//! retention and compaction.

mod batch;
mod core;
mod fetch;
mod group;
mod groups;
mod maintain;
mod member;
mod outbox;
mod publisher;
mod reader;
mod store;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rocksdb::{BoundColumnFamily, WriteBatch};
use topology::broker::{Bounds, Broker, BrokerError, Kept, MemberConfig, Reaction, Result, TopicInfo, TopicSpec};
use topology::record::{TopicId, TopicPartition, Topics};

pub use maintain::Maintained;
pub use member::{EmbeddedMember, EmbeddedToken};
pub use publisher::EmbeddedPublisher;
pub use reader::EmbeddedReader;
pub use store::HELD;

use self::core::{Core, Log, Offsets, Topic};
use group::Patience;
use outbox::Outbox;
use store::{LogMeta, Store, TopicMeta, key};

/// When a commit counts as durable (`EMBEDDED_SYNC`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once the disk has it.
    #[default]
    Commit,
    /// Once the operating system has it: enough for crashes of the process.
    Os,
}

/// What a user may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// When a commit counts as durable.
    pub durability: Durability,
    /// Memory for RocksDB's blocks and memtables together.
    pub memory_bytes: usize,
    /// The most that one transaction, or one unflushed publisher, may hold.
    pub transaction_bytes: usize,
    /// The largest record, where its topic doesn't say.
    pub max_message_bytes: u32,
    /// A poll stops adding records above this.
    pub fetch_bytes: usize,
    /// A member that makes no call for this long is dropped from its group.
    pub silent_ms: u64,
    /// A member that left to come back is waited for this long.
    pub away_ms: u64,
    /// Compaction begins once this many records came since the last one, and as many as it left.
    pub compact_from_records: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Commit,
            memory_bytes: 256 << 20,
            transaction_bytes: 512 << 20,
            max_message_bytes: 100 << 20,
            fetch_bytes: 32 << 20,
            silent_ms: 300_000,
            away_ms: 45_000,
            compact_from_records: 10_000,
        }
    }
}

/// Tells milliseconds since the epoch.
pub type NowMs = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The broker. Clones are handles on the same one.
#[derive(Clone)]
pub struct EmbeddedBroker {
    shared: Arc<Shared>,
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker").field("path", &self.shared.store.db.path()).finish_non_exhaustive()
    }
}

/// What all handles have in common.
struct Shared {
    store: Store,
    topics: Topics,
    options: EmbeddedOptions,
    now_ms: NowMs,
    core: Mutex<Core>,
    /// Something in [`Core`] changed that somebody may be waiting for.
    changed: Condvar,
    /// Retention and compaction, one at a time.
    maintaining: Mutex<()>,
}

impl EmbeddedBroker {
    /// Opens the broker in this folder, or makes it.
    ///
    /// # Errors
    /// [`Reaction::Stop`]: another process holds the folder, or what is there cannot be read.
    pub fn open(path: &Path, topics: Topics, options: EmbeddedOptions, now_ms: NowMs) -> Result<Self> {
        let store = Store::open(path, &options)?;
        let core = load(&store, &topics)?;
        let (core, changed, maintaining) = (Mutex::new(core), Condvar::new(), Mutex::new(()));
        Ok(Self { shared: Arc::new(Shared { store, topics, options, now_ms, core, changed, maintaining }) })
    }

    /// Applies retention and compaction. Housekeeping calls it now and then; nothing else removes a record.
    ///
    /// # Errors
    /// [`Reaction::Stop`] where the disk fails.
    pub fn maintain(&self, now_ms: i64) -> Result<Maintained> {
        self.shared.maintain(now_ms)
    }

    /// Copies everything committed to a new folder, which a broker can be opened on.
    ///
    /// # Errors
    /// [`Reaction::Stop`] where the folder exists or can't be written.
    pub fn backup(&self, to: &Path) -> Result<()> {
        self.shared.store.checkpoint(to)
    }
}

/// What the disk says at start.
fn load(store: &Store, table: &Topics) -> Result<Core> {
    let mut core = Core::default();
    store.all("topic", |parts, meta: TopicMeta| {
        if let [name] = parts
            && let Some(id) = table.find(name)
        {
            core.topics.insert(id, Arc::new(Topic::new(name, meta)));
        }
    })?;
    for (&id, topic) in &core.topics {
        for (partition, family) in (0..).zip(&topic.families) {
            let meta: LogMeta = store.get(&key::log(family))?.unwrap_or_default();
            let end = fetch::end_on_disk(store, family)?;
            core.logs.insert(TopicPartition { topic: id, partition }, Log::new(meta, end));
        }
    }
    store.all("offset", |parts, next: u64| {
        if let [group, topic, partition] = parts
            && let (Some(topic), Ok(partition)) = (table.find(topic), partition.parse())
        {
            let group = core.groups.entry((*group).to_owned()).or_default();
            group.offsets.insert(TopicPartition { topic, partition }, next);
        }
    })?;
    store.all("epoch", |parts, epoch: u64| {
        if let [id] = parts {
            core.producers.entry((*id).to_owned()).or_default().epoch = epoch;
        }
    })?;
    Ok(core)
}

impl Shared {
    // The lock is never held while something can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, core: MutexGuard<'a, Core>) -> MutexGuard<'a, Core> {
        self.changed.wait(core).unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> i64 {
        (self.now_ms)()
    }

    fn patience(&self) -> Patience {
        let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        Patience { silent_ms: ms(self.options.silent_ms), away_ms: ms(self.options.away_ms) }
    }

    fn family(&self, name: &str) -> Result<Arc<BoundColumnFamily<'_>>> {
        self.store.db.cf_handle(name).ok_or_else(|| stop(format!("the embedded broker lost its column family {name}")))
    }

    fn bounds(&self, partition: TopicPartition) -> Result<Bounds> {
        let core = self.lock();
        core.check()?;
        core.log(partition).map(|log| Bounds { start: log.start, end: log.end })
    }

    /// Writes an outbox and offsets in one piece, in the steps of [`core`]; the outbox is empty afterwards. Where `admit` refuses,
    /// nothing happened.
    fn append(
        &self,
        outbox: &mut Outbox,
        offsets: Option<Offsets<'_>>,
        producer: Option<&str>,
        admit: impl FnOnce(&Core) -> Result<()>,
        mut positions: Option<&mut Vec<(TopicPartition, u64)>>,
    ) -> Result<()> {
        // 1
        let ticket = {
            let mut core = self.lock();
            core.check()?;
            admit(&core)?;
            if outbox.is_empty() && offsets.is_none_or(|offsets| offsets.next.is_empty()) {
                return Ok(());
            }
            core.reserve(outbox.counts(), offsets, producer)
        };
        let unfinished = Unfinished(self);
        // 2
        let mut batch = WriteBatch::with_capacity_bytes(outbox.bytes() + 4096);
        outbox.write(self, &ticket, self.now_ms(), &mut batch)?;
        for (partition, next) in offsets.iter().flat_map(|offsets| offsets.next) {
            let group = offsets.map_or("", |offsets| offsets.group);
            batch.put(key::offset(group, self.topics.name(partition.topic), partition.partition), store::encode(next));
        }
        let written = self.store.write(batch);
        // 3
        std::mem::forget(unfinished);
        let mut core = self.lock();
        if let Err(error) = written {
            let refused = core.poison(&error);
            self.changed.notify_all();
            return Err(refused);
        }
        core.complete(&ticket, offsets, producer);
        self.changed.notify_all();
        while core.is_under_way(&ticket) && !core.is_poisoned() {
            core = self.wait(core);
        }
        core.check()?;
        drop(core);
        positions.iter_mut().for_each(|positions| outbox.positions(&ticket, positions));
        outbox.clear();
        Ok(())
    }
}

/// An append that does not come to its end (an error, a panic) would make all later ones wait for it.
struct Unfinished<'a>(&'a Shared);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.lock().poison("an append was abandoned half-way");
        self.0.changed.notify_all();
    }
}

impl Broker for EmbeddedBroker {
    type Member = EmbeddedMember;
    type Reader = EmbeddedReader;
    type Publisher = EmbeddedPublisher;

    fn topics(&self) -> &Topics {
        &self.shared.topics
    }

    fn describe(&self, topics: &[TopicId]) -> Result<Vec<Option<TopicInfo>>> {
        let core = self.shared.lock();
        core.check()?;
        let describe = |topic: &Topic| TopicInfo {
            partitions: topic.meta.partitions,
            max_message_bytes: Some(topic.meta.max_message_bytes.unwrap_or(self.shared.options.max_message_bytes)),
            kept: Some(Kept::of(topic.meta.cleanup())),
        };
        Ok(topics.iter().map(|id| core.topics.get(id).map(|topic| describe(topic))).collect())
    }

    fn create(&self, spec: &TopicSpec) -> Result<()> {
        let name = &spec.name;
        let id = self.shared.topics.find(name).ok_or_else(|| stop(format!("topic {name} is not in the table of topics")))?;
        if spec.partitions == 0 || name.is_empty() || name.contains('\0') {
            return Err(stop(format!("topic {name:?} with {} partitions cannot be created", spec.partitions)));
        }
        // Created under the lock: it is rare, and two at once must not both think that they are first.
        let mut core = self.shared.lock();
        core.check()?;
        if core.topics.contains_key(&id) {
            return Ok(());
        }
        let topic = Topic::new(name, TopicMeta::new(spec.partitions, spec.max_message_bytes, spec.cleanup));
        topic.families.iter().try_for_each(|family| self.shared.store.create_family(family))?;
        self.shared.store.put_synced(&key::topic(name), &topic.meta)?;
        for partition in 0..spec.partitions {
            core.logs.insert(TopicPartition { topic: id, partition }, Log::default());
        }
        core.topics.insert(id, Arc::new(topic));
        core.rebalance_groups_of(id);
        self.shared.changed.notify_all();
        Ok(())
    }

    fn join(&self, config: &MemberConfig) -> Result<EmbeddedMember> {
        EmbeddedMember::join(Arc::clone(&self.shared), config)
    }

    fn end_transactions_of(&self, transactional_id: &str) -> Result<()> {
        // Nothing of an open transaction is on disk: the new epoch is what ends it.
        member::raise_epoch(&self.shared, transactional_id).map(drop)
    }

    fn reader(&self) -> Result<EmbeddedReader> {
        self.shared.lock().check()?;
        Ok(EmbeddedReader::new(Arc::clone(&self.shared)))
    }

    fn publisher(&self) -> Result<EmbeddedPublisher> {
        self.shared.lock().check()?;
        Ok(EmbeddedPublisher::new(Arc::clone(&self.shared)))
    }
}

fn stop(what: impl Into<String>) -> BrokerError {
    BrokerError::new(Reaction::Stop, what)
}

#[cfg(test)]
mod tests;
