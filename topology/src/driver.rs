//! The TestDriver: runs the real task, worker and commit code on a simulated broker, a store in memory and a clock that is moved by hand.
//!
//! Nothing waits and nothing is random, so a test says what goes in, runs, and looks at what came out. The same driver scores files
//! (backtests): a file is only a topic that somebody wrote long ago.
//!
//! ```
//! use topology::driver::{DriverOptions, TestDriver};
//! use topology::processor::{Context, Processor, Result};
//! use topology::record::Batch;
//! use topology::topology::{StoreId, Topology};
//!
//! /// Counts words: one record in is a line, one record out is a word with its new count.
//! struct CountWords;
//!
//! impl Processor for CountWords {
//!     fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
//!         for record in batch.iter() {
//!             let word = record.value.unwrap_or_default();
//!             let mark = context.mark(&record);
//!             let store = context.store::<u64>(StoreId(0));
//!             store.prefetch(std::iter::once(word))?;
//!             let Some(count) = store.update(word, mark) else { continue };
//!             *count += 1;
//!             let count = count.to_string();
//!             context.emit(0, word, count.as_bytes(), record.timestamp)?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let topology = Topology::builder("wordcount")
//!     .sub("count", |_| CountWords, |wiring| wiring.input("words").store::<u64>("counts").output("counts"))
//!     .build()?;
//! let mut driver = TestDriver::new(topology, DriverOptions { partitions: 1, ..DriverOptions::default() });
//! for word in ["tea", "milk", "tea"] {
//!     driver.pipe("words", Some(word.as_bytes()), Some(word.as_bytes()), 0);
//! }
//! driver.run()?;
//! let text = |bytes: Option<std::sync::Arc<[u8]>>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
//! let counts: Vec<_> = driver.read("counts").into_iter().map(|out| (text(out.key), text(out.value))).collect();
//! assert_eq!(counts, [("tea", "1"), ("milk", "1"), ("tea", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::de::DeserializeOwned;
use state::backend::{Backend, StorePartition};
use state::memory::MemoryBackend;
use state::store::{Marks, decode_kept};

use crate::broker::{Bounds, Broker, Cleanup, MemberConfig, Publisher, TopicSpec};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::partitioner::partition_of;
use crate::record::{Outgoing, TopicId, TopicPartition};
use crate::restore::StartFrom;
use crate::simulated::{SimBroker, SimPublisher, StoredRecord};
use crate::status::Tasks;
use crate::topology::Topology;
use crate::worker::{Halt, Parts, Step, Worker, WorkerConfig};

/// How a driver runs.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// Partitions of every topic.
    pub partitions: u32,
    /// Exactly-once, or at-least-once.
    pub exactly_once: bool,
    /// Bytes of decoded state to keep.
    pub cache_bytes: usize,
    /// Records of one poll.
    pub max_poll_records: usize,
    /// Changed values that make a commit due.
    pub max_changed: usize,
    /// Bytes of records in a transaction that make a commit due.
    pub max_open_bytes: usize,
    /// The largest record that input topics take, in bytes; none is the broker's default.
    pub input_max_bytes: Option<u32>,
    /// The largest dead letter, in bytes.
    pub dead_letter_max_bytes: usize,
    /// Where a task with state but without committed offsets begins.
    pub start_from: StartFrom,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self {
            partitions: 8,
            exactly_once: true,
            cache_bytes: 64 << 20,
            max_poll_records: 5_000,
            max_changed: 50_000,
            max_open_bytes: 64 << 20,
            input_max_bytes: None,
            dead_letter_max_bytes: 1 << 20,
            start_from: StartFrom::Refuse,
        }
    }
}

/// The simulated broker's time as the engine's clock.
#[derive(Clone, Debug)]
pub struct SimClock(pub SimBroker);

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        i64::try_from(self.0.now()).expect("invariant: simulated time is short")
    }

    fn monotonic_us(&self) -> u64 {
        self.0.now() * 1000
    }
}

/// Makes what the tasks see of the store.
type Above = Box<dyn Fn(Arc<dyn Backend>) -> Arc<dyn Backend>>;

/// See the module's header.
pub struct TestDriver {
    /// The broker, for faults and inspection.
    pub sim: SimBroker,
    /// Counters of the worker.
    pub metrics: Arc<Metrics>,
    /// What the tasks are doing.
    pub tasks: Arc<Tasks>,
    topology: Arc<Topology>,
    backend: Arc<MemoryBackend>,
    above: Option<Above>,
    options: DriverOptions,
    worker: Option<Worker<SimBroker>>,
    publisher: SimPublisher,
    read: BTreeMap<TopicPartition, u64>,
}

impl TestDriver {
    /// A driver for this topology, with all of its topics created.
    ///
    /// # Panics
    /// Where the simulated broker refuses a topic: it never does for a valid topology.
    #[must_use]
    pub fn new(topology: Topology, options: DriverOptions) -> Self {
        let topology = Arc::new(topology);
        let sim = SimBroker::new(topology.topics().clone());
        let changelogs: Vec<TopicId> = topology.changelogs().collect();
        for (topic, name) in topology.topics().iter() {
            let cleanup = if changelogs.contains(&topic) || topology.globals().contains(&topic) {
                Cleanup::Compact { tombstone_retention_ms: 86_400_000 }
            } else {
                Cleanup::Delete { retention_ms: None }
            };
            let is_global = topology.globals().contains(&topic);
            let partitions = if is_global { 1 } else { options.partitions };
            let is_input = topology.subs().iter().any(|sub| sub.inputs.contains(&topic));
            let max_message_bytes = if is_input { options.input_max_bytes } else { None };
            let spec = TopicSpec { name: name.to_owned(), partitions, cleanup, max_message_bytes };
            sim.create(&spec).expect("invariant: the table has the topic");
        }
        let publisher = sim.publisher().expect("invariant: no faults are set yet");
        let mut driver = Self {
            sim,
            metrics: Arc::default(),
            tasks: Arc::default(),
            topology,
            backend: Arc::new(MemoryBackend::new()),
            above: None,
            options,
            worker: None,
            publisher,
            read: BTreeMap::new(),
        };
        driver.start();
        driver
    }

    fn start(&mut self) {
        let application = self.topology.application();
        let config = WorkerConfig {
            index: 0,
            member: MemberConfig {
                group: application.to_owned(),
                instance: format!("{application}-driver"),
                transactional_id: self.options.exactly_once.then(|| format!("{application}-driver")),
                transaction_timeout_ms: 10_000,
                leads: self.topology.subs().iter().map(crate::topology::SubTopology::lead).collect(),
            },
            exactly_once: self.options.exactly_once,
            commit_interval_ms: 100,
            commit_idle_ms: 0,
            max_poll_records: self.options.max_poll_records,
            cache_bytes: self.options.cache_bytes,
            max_changed: self.options.max_changed,
            max_open_bytes: self.options.max_open_bytes,
            start_from: self.options.start_from,
            tombstone_retention_ms: 86_400_000,
            dead_letter_max_bytes: self.options.dead_letter_max_bytes,
            hash_seed: 0,
        };
        let topics = self.topology.topics().iter().count();
        let parts = Parts {
            topology: Arc::clone(&self.topology),
            partitions: vec![self.options.partitions; topics],
            backend: match &self.above {
                Some(above) => above(Arc::clone(&self.backend) as Arc<dyn Backend>),
                None => Arc::clone(&self.backend) as Arc<dyn Backend>,
            },
            clock: Arc::new(SimClock(self.sim.clone())),
            metrics: Arc::clone(&self.metrics),
            tasks: Arc::clone(&self.tasks),
        };
        self.worker = Some(Worker::new(Arc::new(self.sim.clone()), parts, config));
    }

    /// From now on, after a crash too, the tasks see the store through this. The worker begins anew, as after a crash.
    #[must_use]
    pub fn seen_through(mut self, above: impl Fn(Arc<dyn Backend>) -> Arc<dyn Backend> + 'static) -> Self {
        self.above = Some(Box::new(above));
        self.start();
        self
    }

    fn topic(&self, name: &str) -> TopicId {
        let found = self.topology.topics().find(name);
        found.unwrap_or_else(|| panic!("the topology has no topic `{name}`"))
    }

    /// Writes a record to the partition that its key belongs to (partition 0 without a key).
    pub fn pipe(&mut self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) {
        let partition = key.map_or(0, |key| partition_of(key, self.options.partitions));
        self.pipe_to(topic, partition, key, value, timestamp);
    }

    /// Writes a record to a partition of one's choice.
    ///
    /// # Panics
    /// Where the topology has no such topic, or a fault hook makes the broker refuse.
    pub fn pipe_to(&mut self, topic: &str, partition: u32, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) {
        let to = TopicPartition { topic: self.topic(topic), partition };
        let record = Outgoing { to, key, value, timestamp, headers: &[] };
        self.publisher.send(&record).expect("the simulated broker takes what a test pipes");
    }

    /// Runs until everything piped so far is processed and committed.
    ///
    /// # Errors
    /// [`Halt`] where the worker stopped for good.
    ///
    /// # Panics
    /// Where it does not come to rest within 1,000,000 steps.
    pub fn run(&mut self) -> Result<(), Halt> {
        self.publisher.flush().expect("the simulated broker takes what a test pipes");
        for _ in 0..1_000_000 {
            let worker = self.worker.as_mut().expect("invariant: started when it was made and after each crash");
            let commits = self.metrics.commits_total.load(Ordering::Relaxed);
            match worker.step(Duration::ZERO)? {
                // What a commit has just made visible may be another sub-topology's input.
                Step::Idle if self.metrics.commits_total.load(Ordering::Relaxed) != commits => {}
                Step::Idle if worker.is_settled() && worker.has_tasks() => return Ok(()),
                Step::Worked => {}
                Step::Idle | Step::Backoff => self.sim.advance(1),
            }
        }
        panic!("the topology does not come to rest");
    }

    /// Lets time pass, then runs what has become due.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn advance(&mut self, ms: u64) -> Result<(), Halt> {
        self.sim.advance(ms);
        self.run()
    }

    /// The committed records of a topic that were not read before, by partition and offset.
    pub fn read(&mut self, topic: &str) -> Vec<StoredRecord> {
        let topic = self.topic(topic);
        let mut records = self.sim.committed_records(topic);
        records.retain(|record| record.offset >= *self.read.get(&record.partition).unwrap_or(&0));
        for record in &records {
            self.read.insert(record.partition, record.offset + 1);
        }
        records
    }

    /// As [`Self::read`], and lets the broker forget what was read: for files larger than memory.
    pub fn take(&mut self, topic: &str) -> Vec<StoredRecord> {
        let records = self.read(topic);
        let topic = self.topic(topic);
        for partition in 0..self.options.partitions {
            let at = TopicPartition { topic, partition };
            if let Some(Bounds { end, .. }) = self.sim.bounds_of(at) {
                self.sim.truncate_before(at, end);
            }
        }
        records
    }

    /// A committed value with its marks.
    ///
    /// # Panics
    /// Where the value is not of this type.
    #[must_use]
    pub fn value<V: DeserializeOwned>(&self, store: &str, key: &[u8]) -> Option<(Marks, V)> {
        let partition = partition_of(key, self.options.partitions);
        let bytes = self.backend.get(&StorePartition { store: store.into(), partition }, key);
        let bytes = bytes.expect("the store's partition is open")?;
        Some(decode_kept(&bytes).expect("a kept value of this type"))
    }

    /// The disk under the stores: its size can be limited.
    #[must_use]
    pub fn disk(&self) -> &MemoryBackend {
        &self.backend
    }

    /// One step of the worker, for tests that look between steps; [`Self::run`] makes as many as it takes.
    ///
    /// # Errors
    /// [`Halt`] where the worker stopped for good.
    pub fn step(&mut self) -> Result<Step, Halt> {
        self.publisher.flush().expect("the simulated broker takes what a test pipes");
        self.worker.as_mut().expect("invariant: started when it was made and after each crash").step(Duration::ZERO)
    }

    /// The worker's process dies without a word and starts again; its disk stays, or is lost.
    pub fn crash(&mut self, wipe: bool) {
        self.worker = None;
        if wipe {
            self.backend = Arc::new(MemoryBackend::new());
        }
        self.start();
    }
}
