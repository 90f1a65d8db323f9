//! Workers that fail, on real threads and the embedded broker: the failing processor is the test's own, part of the topology it runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use state::memory::MemoryBackend;
use tempfile::TempDir;
use topology::broker::{Broker, Cleanup, Publisher, Reader, TopicSpec};
use topology::clock::Clock;
use topology::predecessors::{Predecessor, Predecessors};
use topology::processor::{Context, Processor, Result};
use topology::record::{Batch, Fetched, Outgoing, TopicPartition};
use topology::restore::StartFrom;
use topology::status::{Phase, Tasks};
use topology::topology::{StoreId, SubTopology, TaskId, Topology};
use topology::worker::Parts;

use super::workers::{Plan, Workers};
use crate::api::Health;
use crate::broker::embedded::{Durability, EmbeddedBroker, EmbeddedOptions};
use crate::clock::{RealClock, monotonic, since};

const PARTITIONS: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(30);
/// A step that lasts longer is a stall; far more than any step of these tests takes.
const STALL_MS: u64 = 2_000;

/// What the processors of one instance are told to do when they meet the record `now`.
#[derive(Default)]
struct Orders {
    panics: AtomicU32,
    blocks: AtomicU32,
    blocked: Mutex<bool>,
    released: Condvar,
}

impl Orders {
    fn obey(&self) {
        let take = |left: &AtomicU32| left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        assert!(!take(&self.panics), "as told");
        if take(&self.blocks) {
            let mut blocked = self.blocked.lock().expect("no panic holds it");
            *blocked = true;
            while *blocked {
                blocked = self.released.wait(blocked).expect("no panic holds it");
            }
        }
    }

    fn is_blocked(&self) -> bool {
        *self.blocked.lock().expect("no panic holds it")
    }

    fn release(&self) {
        *self.blocked.lock().expect("no panic holds it") = false;
        self.released.notify_all();
    }
}

/// Counts each key's records and emits the count.
struct Count(Arc<Orders>);

impl Processor for Count {
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        for record in batch.iter() {
            let key = record.key.expect("a key");
            let mark = context.mark(&record);
            let store = context.store::<u64>(StoreId(0));
            store.prefetch(std::iter::once(key))?;
            let Some(count) = store.update(key, mark) else { continue };
            *count += 1;
            let count = count.to_string();
            context.emit(0, key, count.as_bytes(), record.timestamp)?;
            if record.value == Some(b"now") {
                self.0.obey();
            }
        }
        Ok(())
    }
}

fn topology(orders: &Arc<Orders>) -> Arc<Topology> {
    let orders = Arc::clone(orders);
    let topology = Topology::builder("counting")
        .sub("count", move |_| Count(Arc::clone(&orders)), |w| w.input("in").store::<u64>("counts").output("out"))
        .build();
    Arc::new(topology.expect("a valid topology"))
}

struct Nobody;

impl Predecessors for Nobody {
    fn of(&self, _: TaskId, _: &str) -> Vec<Predecessor> {
        Vec::new()
    }

    fn ended(&self, _: &str) {}
}

struct House {
    broker: Arc<EmbeddedBroker>,
    _folder: TempDir,
}

struct Tenant {
    workers: Workers,
    orders: Arc<Orders>,
    health: Arc<Health>,
    parts: Parts,
}

impl House {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let topics = topology(&Arc::default()).topics().clone();
        let now = Arc::new(crate::clock::now_ms);
        // A disk that takes its time must not make a step a stall.
        let options = EmbeddedOptions { durability: Durability::Os, ..EmbeddedOptions::default() };
        let broker = EmbeddedBroker::open(&folder.path().join("broker"), topics.clone(), options, now);
        let broker = broker.expect("opened");
        for (_, name) in topics.iter() {
            let cleanup = Cleanup::Delete { retention_ms: None };
            let spec = TopicSpec { name: name.to_owned(), partitions: PARTITIONS, cleanup, max_message_bytes: None };
            broker.create(&spec).expect("created");
        }
        Self { broker: Arc::new(broker), _folder: folder }
    }

    fn tenant(&self, instance: &str) -> Tenant {
        let orders = Arc::<Orders>::default();
        let topology = topology(&orders);
        let clock: Arc<dyn Clock> = Arc::new(RealClock);
        let parts = Parts {
            partitions: vec![PARTITIONS; topology.topics().iter().count()],
            topology,
            backend: Arc::new(MemoryBackend::new()),
            metrics: Arc::default(),
            tasks: Arc::<Tasks>::default(),
            clock: Arc::clone(&clock),
        };
        let plan = Plan {
            application: "counting".into(),
            instance: instance.into(),
            count: 1,
            exactly_once: true,
            commit_interval_ms: 50,
            transaction_timeout_ms: 600_000,
            cache_bytes: 1 << 20,
            poll_bytes: 1 << 20,
            start_from: StartFrom::Refuse,
            dead_letter_max_bytes: 1 << 20,
            leave_for_good: true,
            leads: parts.topology.subs().iter().map(SubTopology::lead).collect(),
        };
        let health = Arc::new(Health::new(1, clock.monotonic_us() / 1000, STALL_MS));
        let nobody: Arc<dyn Predecessors> = Arc::new(Nobody);
        let workers = Workers::start(&self.broker, &parts, &plan, &nobody, &health);
        Tenant { workers, orders, health, parts }
    }

    fn at(&self, topic: &str, partition: u32) -> TopicPartition {
        TopicPartition { topic: self.broker.topics().find(topic).expect("known"), partition }
    }

    fn send(&self, partition: u32, values: &[&str]) {
        let mut publisher = self.broker.publisher().expect("a publisher");
        for value in values {
            let key = partition.to_string();
            let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
            publisher.send(&Outgoing { to: self.at("in", partition), key, value, timestamp: 0, headers: &[] }).expect("sent");
        }
        publisher.flush().expect("durable");
    }

    /// Everything emitted in a partition, once so many counts are there.
    fn counts(&self, partition: u32, until: usize) -> Vec<String> {
        let from = self.at("out", partition);
        let mut reader = self.broker.reader().expect("a reader");
        reader.assign(from, 0).expect("assigned");
        let mut fetched = Fetched::default();
        wait_for("the counts", || {
            reader.poll(&mut fetched, 100, Duration::from_millis(10)).expect("polled");
            fetched.len() >= until
        });
        fetched.iter().map(|record| String::from_utf8(record.value.expect("a count").to_vec()).expect("text")).collect()
    }
}

impl Tenant {
    fn runs(&self) -> usize {
        self.parts.tasks.all().values().filter(|task| task.phase == Phase::Running).count()
    }

    fn failures(&self) -> Vec<String> {
        self.health.failures(super::steps::monotonic_ms())
    }

    fn replaced(&self) -> u64 {
        self.parts.metrics.workers_replaced_total.load(Ordering::Relaxed)
    }
}

fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let began = monotonic();
    while !is() {
        assert!(since(began) < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_worker_that_panics_is_replaced_and_nothing_counts_twice() {
    let house = House::new();
    let tenant = house.tenant("a");
    house.send(0, &["x", "x"]);
    assert_eq!(house.counts(0, 2), ["1", "2"]);
    tenant.orders.panics.store(2, Ordering::SeqCst);
    house.send(0, &["x", "now", "x"]);
    assert_eq!(house.counts(0, 5), ["1", "2", "3", "4", "5"]);
    assert_eq!((tenant.replaced(), tenant.workers.failure(), tenant.failures()), (2, None, vec![]));
    tenant.workers.stop(PATIENCE).expect("ends");
}

#[test]
fn a_worker_that_panics_again_and_again_fails_the_instance() {
    let house = House::new();
    let tenant = house.tenant("a");
    tenant.orders.panics.store(u32::MAX, Ordering::SeqCst);
    house.send(1, &["now"]);
    wait_for("the instance gives up", || tenant.workers.failure().is_some());
    let why = tenant.workers.failure().expect("just seen");
    assert!(why.contains("worker 0") && why.contains("panicked"), "{why}");
    assert_eq!(tenant.failures(), ["worker 0 stopped"]);
    assert!(tenant.parts.tasks.all().is_empty(), "nobody has its tasks");
    assert!(tenant.workers.stop(PATIENCE).is_err());
}

#[test]
fn a_worker_that_is_stuck_loses_its_partitions_and_comes_back() {
    let house = House::new();
    let stuck = house.tenant("a");
    wait_for("a runs all", || stuck.runs() == PARTITIONS as usize);
    stuck.orders.blocks.store(1, Ordering::SeqCst);
    house.send(0, &["x", "now", "x"]);
    wait_for("a is stuck", || stuck.orders.is_blocked());
    let other = house.tenant("b");
    // Neither session nor transaction ends within minutes: only the watchdog can free the partitions.
    assert_eq!(house.counts(0, 3), ["1", "2", "3"]);
    wait_for("b runs all", || other.runs() == PARTITIONS as usize);
    assert_eq!(stuck.failures().len(), 1, "/livez is red: {:?}", stuck.failures());
    assert_eq!((stuck.runs(), stuck.workers.failure()), (0, None));
    stuck.orders.release();
    wait_for("a is replaced and has its share again", || stuck.replaced() == 1 && stuck.runs() == 1 && other.runs() == 1);
    assert_eq!(stuck.failures(), [""; 0], "/livez is green");
    house.send(0, &["x"]);
    assert_eq!(house.counts(0, 4), ["1", "2", "3", "4"], "what it had done before it was stuck is void");
    stuck.workers.stop(PATIENCE).expect("ends");
    other.workers.stop(PATIENCE).expect("ends");
}
