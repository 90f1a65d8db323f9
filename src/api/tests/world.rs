//! An instance in small: one real worker on a simulated broker, a store in memory, and the interface above them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use models::{Model, TrainParams, Verdict};
use state::backend::{Backend, StorePartition, WriteSet};
use state::store::decode_kept;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use topology::broker::{Broker, Cleanup, MemberConfig, Publisher, TopicSpec};
use topology::clock::{Clock as _, MockClock};
use topology::driver::SimClock;
use topology::metrics::Metrics;
use topology::partitioner::partition_of;
use topology::record::{Outgoing, TopicPartition, Topics};
use topology::restore::StartFrom;
use topology::simulated::{SimBroker, SimPublisher};
use topology::status::{Phase, Tasks};
use topology::topology::Topology;
use topology::worker::{Parts, Worker, WorkerConfig};

use super::anywhere::Board;
use super::client::Client;
use super::moody::Moody;
use crate::api::{Api, Doors, Health, serve};
use crate::config::{ApiToken, ProcessingGuarantee};
use crate::ingest::{Config, Ingest};
use crate::labels::{LabelTopics, Labels};
use crate::live::{self, Live};
use crate::membership::Directory;
use crate::notify::Notifications;
use crate::notify::book::Book;
use crate::orders::Orders;
use crate::redrive::{Desk, Places};
use crate::registry::{Artifacts, Registry};
use crate::retraining::Retraining;
use crate::scoring::{ModelSlot, ScoringParams, TopicNames, UserProfile, scoring_topology};
use crate::snoozes::{Erasures, Snoozes};
use crate::tls::Tls;
use crate::training::Span;
use crate::training::jobs::{Jobs, Order, Promotion, Source};

/// Partitions of every topic.
const PARTITIONS: u32 = 4;
/// Requests a second of each caller: its clock stands still, so it is all that a test has.
pub(super) const RATE: u32 = 100_000;
/// After this long without a step its worker may have been replaced.
pub(super) const SESSION_MS: u64 = 15_000;
/// What the interface's clock shows.
pub(super) const NOW_MS: i64 = 1_700_000_000_000;

/// See the module's header.
pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) health: Arc<Health>,
    pub(super) model: ModelSlot,
    pub(super) registry: Registry,
    /// What did not arrive.
    pub(super) book: Book,
    /// Where artifacts are.
    pub(super) folder: tempfile::TempDir,
    pub(super) store: Arc<Moody>,
    pub(super) tasks: Arc<Tasks>,
    pub(super) clock: MockClock,
    snoozes: Snoozes,
    sim: SimBroker,
    publisher: SimPublisher,
    worker: Worker<SimBroker>,
    topology: Arc<Topology>,
    runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<std::io::Result<()>>>,
}

/// A broker with the topology's topics, which keep records for so long.
fn broker(topics: Topics, topology: &Topology, retention_ms: Option<u64>) -> SimBroker {
    let sim = SimBroker::new(topics);
    for (_, name) in topology.topics().iter() {
        let compacted = Cleanup::Compact { tombstone_retention_ms: 86_400_000 };
        let cleanup = if name.ends_with("-changelog") { compacted } else { Cleanup::Delete { retention_ms } };
        let spec = TopicSpec { name: name.to_owned(), partitions: PARTITIONS, cleanup, max_message_bytes: None };
        sim.create(&spec).expect("a topic");
    }
    sim
}

/// The models of the broker's topic, in a folder.
fn registry(sim: &SimBroker, topology: &Topology, folder: &Path, model: &ModelSlot, clock: &MockClock) -> Registry {
    let artifacts = Artifacts::open(folder.to_str().expect("a plain path")).expect("a folder");
    let topic = topology.topics().find("models").expect("the topology has it");
    Registry::new(&Arc::new(sim.clone()), topic, artifacts, model.clone(), Arc::new(clock.clone()), "one")
}

fn live(sim: &SimBroker, topology: &Topology, clock: &MockClock) -> Live {
    let find = |name| topology.topics().find(name).expect("the topology has it");
    let places = live::Places { verdicts: find("verdicts"), anomalies: find("anomalies") };
    Live::new(&Arc::new(sim.clone()), places, Arc::new(clock.clone()), Arc::default())
}

/// What people say, on the broker's topics.
fn notes(sim: &SimBroker, topology: &Topology, params: &ScoringParams, clock: &MockClock) -> (Labels, Snoozes) {
    let broker = Arc::new(sim.clone());
    let topic = |name: &str| topology.topics().find(name).expect("the topology has it");
    let topics = LabelTopics { transactions: topic("transactions"), verdicts: topic("verdicts"), labels: topic("labels") };
    let labels = Labels::new(&broker, topics, params.limits());
    (labels, Snoozes::new(&broker, topic("test-snoozes"), Arc::new(clock.clone())))
}

/// The way into the broker's transactions.
fn ingest(
    sim: &SimBroker,
    topology: &Topology,
    directory: &Arc<dyn Directory>,
    alone: bool,
    params: &ScoringParams,
    clock: &MockClock,
) -> Ingest {
    let find = |name| topology.topics().find(name).expect("the topology has it");
    let config = Config {
        transactions: find("transactions"),
        partitions: PARTITIONS,
        trail: find("test-audit"),
        verdicts: find("verdicts"),
        user_partitions: PARTITIONS,
        params: params.clone(),
        dedup_ms: 3_600_000,
        dedup_entries: 10_000,
        alone,
    };
    Ingest::start(&Arc::new(sim.clone()), config, Arc::clone(directory), Arc::new(clock.clone()))
}

/// A retrain at three at night, on an instance that has no partition to do it for.
fn retraining(registry: &Registry, jobs: &Jobs, clock: &MockClock) -> Retraining {
    let order = Order {
        source: Source::Verdicts,
        span: Span::LastDays(7),
        trees: 10,
        samples: 64,
        seed: 1,
        contamination: 0.01,
        promotion: Promotion::IfPassed,
        why: "retrained",
    };
    let cron = crate::schedule::parse("0 3 * * *").expect("a schedule");
    Retraining::new(registry.clone(), jobs.clone(), Arc::new(clock.clone()), Some(cron), order, || false)
}

/// One target, and a topic with nothing in it.
fn notifications(sim: &SimBroker, topology: &Topology, clock: &MockClock) -> Notifications {
    let topic = topology.topics().find("test-notifications").expect("the topology has it");
    let book = Book::new(&Arc::new(sim.clone()), topic, Arc::new(clock.clone()));
    Notifications { book, status: Arc::default(), targets: Arc::new([("ops".to_owned(), "webhook", models::Severity::High)]) }
}

/// The interface on a port of its own.
fn served(api: Api, doors: Doors) -> (Runtime, SocketAddr, oneshot::Sender<()>, JoinHandle<std::io::Result<()>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let server = runtime.spawn(serve(Arc::new(api), listener, doors, async { drop(stopped.await) }));
    (runtime, address, stop, server)
}

fn parts(sim: &SimBroker, topology: &Arc<Topology>, store: &Arc<Moody>) -> Parts {
    Parts {
        topology: Arc::clone(topology),
        partitions: vec![PARTITIONS; topology.topics().iter().count()],
        backend: Arc::clone(store) as Arc<dyn Backend>,
        clock: Arc::new(SimClock(sim.clone())),
        metrics: Arc::new(Metrics::default()),
        tasks: Arc::default(),
    }
}

/// What a world is made of.
struct Setup {
    directory: Arc<dyn Directory>,
    /// Whether no other instance takes payments.
    alone: bool,
    params: ScoringParams,
    tokens: Vec<ApiToken>,
    requests_per_second: u32,
    tls: Option<Tls>,
    retention_ms: Option<u64>,
}

impl Setup {
    fn among(directory: Arc<dyn Directory>) -> Self {
        let params = ScoringParams::default();
        Self { directory, alone: false, params, tokens: Vec::new(), requests_per_second: RATE, tls: None, retention_ms: None }
    }

    fn alone() -> Self {
        Self { alone: true, ..Self::among(Board::default().seat("one")) }
    }
}

impl World {
    /// Writes to the first partition of a topic.
    pub(super) fn write(&mut self, topic: &str, key: &[u8], value: &[u8]) {
        let to = TopicPartition { topic: self.topology.topics().find(topic).expect("a topic"), partition: 0 };
        let record = Outgoing { to, key: Some(key), value: Some(value), timestamp: NOW_MS, headers: &[] };
        self.publisher.send(&record).expect("sent");
        self.publisher.flush().expect("durable");
    }

    /// Who follows erasures, as an instance begins it.
    pub(super) fn erasures(&self) -> Erasures<SimBroker> {
        let partitions = vec![PARTITIONS; self.topology.topics().iter().count()];
        Erasures::new(&Arc::new(self.sim.clone()), &self.topology, &partitions)
    }

    /// Follows what is there: what one look writes, the next one reads.
    pub(super) fn follow(&self, erasures: &mut Erasures<SimBroker>) {
        (0..2).for_each(|_| self.snoozes.follow(erasures, Duration::ZERO).expect("the broker answers"));
    }

    /// The committed records of a topic: key and value.
    pub(super) fn read(&self, topic: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let topic = self.topology.topics().find(topic).expect("a topic");
        let bytes = |bytes: Option<Arc<[u8]>>| bytes.map(|bytes| bytes.to_vec()).unwrap_or_default();
        self.sim.committed_records(topic).into_iter().map(|record| (bytes(record.key), bytes(record.value))).collect()
    }

    /// An instance that has not joined its group yet.
    pub(super) fn idle(params: ScoringParams, tokens: Vec<ApiToken>) -> Self {
        Self::made(Setup { params, tokens, ..Setup::alone() })
    }

    /// As [`Self::idle`], with so many requests a second for each caller.
    pub(super) fn limited(tokens: Vec<ApiToken>, requests_per_second: u32) -> Self {
        Self::made(Setup { tokens, requests_per_second, ..Setup::alone() })
    }

    /// An instance over TLS.
    pub(super) fn secure(directory: Arc<dyn Directory>, tokens: Vec<ApiToken>, tls: &Tls) -> Self {
        Self::made(Setup { alone: true, tokens, tls: Some(tls.clone()), ..Setup::among(directory) })
    }

    /// A running instance whose topics keep records for so long.
    pub(super) fn keeping(retention_ms: Option<u64>) -> Self {
        let mut world = Self::made(Setup { retention_ms, ..Setup::alone() });
        world.run();
        world.health.started();
        world
    }

    /// As [`Self::idle`], under the name that the directory has for it.
    pub(super) fn knowing(directory: Arc<dyn Directory>, params: ScoringParams, tokens: Vec<ApiToken>) -> Self {
        Self::made(Setup { params, tokens, ..Setup::among(directory) })
    }

    fn made(setup: Setup) -> Self {
        let Setup { directory, alone, params, tokens, requests_per_second, tls, retention_ms } = setup;
        let model = ModelSlot::default();
        let topology = scoring_topology("test", &TopicNames::default(), &params, &model).expect("a topology");
        let topology = Arc::new(topology);
        let letters = Places::of(&topology).expect("the topology has dead letters");
        let sim = broker(letters.topics(), &topology, retention_ms);
        let store = Arc::new(Moody::default());
        let parts = parts(&sim, &topology, &store);
        let clock = MockClock::at(NOW_MS);
        let health = Arc::new(Health::new(1, NOW_MS.unsigned_abs(), 60_000));
        let folder = tempfile::tempdir().expect("a folder");
        let registry = registry(&sim, &topology, folder.path(), &model, &clock);
        let jobs = Jobs::default();
        let retraining = retraining(&registry, &jobs, &clock);
        let (labels, snoozes) = notes(&sim, &topology, &params, &clock);
        let notifications = notifications(&sim, &topology, &clock);
        let ingest = ingest(&sim, &topology, &directory, alone, &params, &clock);
        let api = Api {
            instance: directory.me(),
            guarantee: ProcessingGuarantee::ExactlyOnce,
            topology: Arc::clone(&topology),
            partitions: parts.partitions.clone(),
            tasks: Arc::clone(&parts.tasks),
            metrics: Arc::clone(&parts.metrics),
            backend: Arc::clone(&parts.backend),
            model: model.clone(),
            registry: registry.clone(),
            orders: Orders::new(&Arc::new(sim.clone()), &topology),
            jobs: jobs.clone(),
            retraining,
            labels,
            snoozes: snoozes.clone(),
            notifications: Some(notifications.clone()),
            params,
            load: Arc::default(),
            ingest,
            directory,
            session_ms: SESSION_MS,
            health: Arc::clone(&health),
            dead_letters: Some(Desk::new(&Arc::new(sim.clone()), letters)),
            live: live(&sim, &topology, &clock),
            clock: Arc::new(clock.clone()),
            started_at_ms: NOW_MS - 5_000,
            tiers: crate::tiers::Tiers::default(),
            tiered: None,
            projection: Arc::default(),
            log_key: [7; 32],
        };
        let (runtime, address, stop, server) = served(api, Doors { tokens, requests_per_second, tls, peers_only: false });
        Self {
            address,
            health,
            model,
            registry,
            book: notifications.book.clone(),
            folder,
            store,
            tasks: Arc::clone(&parts.tasks),
            clock,
            snoozes,
            publisher: sim.publisher().expect("a publisher"),
            worker: Worker::new(Arc::new(sim.clone()), parts, config(&topology)),
            sim,
            topology,
            runtime,
            stop: Some(stop),
            server: Some(server),
        }
    }

    /// An instance that runs and has nothing to do.
    pub(super) fn running(params: ScoringParams) -> Self {
        let mut world = Self::idle(params, Vec::new());
        world.run();
        world.health.started();
        world
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub(super) fn get(&self, path: &str) -> super::client::Got {
        self.client().get(path)
    }

    /// Writes a payment into the stream.
    pub(super) fn pay(&mut self, user: &str, json: &str, at_ms: i64) {
        self.write_of("transactions", user, json, at_ms);
    }

    /// Writes a command, as anyone may who can write to the topic.
    pub(super) fn command(&mut self, command: &serde_json::Value) {
        let user = command["user_id"].as_str().expect("a text");
        self.write_of("commands", user, &command.to_string(), self.clock.now_ms());
    }

    /// Writes to the user's partition of a topic.
    fn write_of(&mut self, topic: &str, user: &str, json: &str, at_ms: i64) {
        let topic = self.topology.topics().find(topic).expect("a topic");
        let to = TopicPartition { topic, partition: partition_of(user.as_bytes(), PARTITIONS) };
        let record = Outgoing { to, key: Some(user.as_bytes()), value: Some(json.as_bytes()), timestamp: at_ms, headers: &[] };
        self.publisher.send(&record).expect("taken");
        self.publisher.flush().expect("taken");
    }

    /// Compacts a topic, as a broker does sooner or later.
    pub(super) fn compact(&self, topic: &str) {
        self.sim.compact(self.topology.topics().find(topic).expect("a topic"));
    }

    /// The values of all payments in the stream, with their ids.
    pub(super) fn payments(&self) -> Vec<(String, Vec<u8>)> {
        let topic = self.topology.topics().find("transactions").expect("the input");
        let id =
            |record: &topology::simulated::StoredRecord| format!("transactions:{}:{}", record.partition.partition, record.offset);
        let records = self.sim.committed_records(topic).into_iter();
        records.map(|record| (id(&record), record.value.expect("a value").to_vec())).collect()
    }

    /// The verdict under this id, as it is in the topic.
    pub(super) fn verdict_bytes(&self, id: &str) -> Option<Vec<u8>> {
        let topic = self.topology.topics().find("verdicts").expect("the output");
        let records = self.sim.committed_records(topic).into_iter().filter_map(|record| Some(record.value?.to_vec()));
        let is = |bytes: &[u8]| serde_json::from_slice::<Verdict>(bytes).expect("a verdict").id == id;
        records.into_iter().find(|bytes| is(bytes))
    }

    /// The audit trail so far.
    pub(super) fn trail(&self) -> Vec<serde_json::Value> {
        let topic = self.topology.topics().find("test-audit").expect("the trail");
        let records = self.sim.committed_records(topic).into_iter();
        records.map(|record| serde_json::from_slice(&record.value.expect("a value")).expect("JSON")).collect()
    }

    /// The broker, for its faults.
    pub(super) fn broker(&self) -> &SimBroker {
        &self.sim
    }

    /// Works until everything is committed.
    pub(super) fn run(&mut self) {
        for _ in 0..100_000 {
            self.step();
            if self.worker.has_tasks() && self.worker.is_settled() {
                return;
            }
        }
        panic!("the worker does not come to rest");
    }

    /// Takes over what another instance has committed of one partition, as a standby does.
    pub(super) fn copy(&self, other: &World, partition: u32) {
        let of = StorePartition { store: "profiles".into(), partition };
        let mut set = WriteSet::default();
        set.begin(of.clone());
        let each = &mut |key: &[u8], value: &[u8]| {
            set.change(key, Some(value));
            true
        };
        other.store.inner.scan(&of, None, usize::MAX, each).expect("a scan");
        set.positions(other.store.inner.positions(&of).expect("positions").expect("an open partition"));
        self.store.inner.open(&of).expect("opened");
        self.store.inner.write(&set).expect("written");
    }

    fn step(&mut self) {
        self.worker.step(Duration::ZERO).expect("the worker goes on");
        self.sim.advance(1);
    }

    /// Steps until a task is being restored.
    pub(super) fn step_into_restore(&mut self) {
        while !self.tasks.all().values().any(|task| task.phase == Phase::Restoring) {
            self.step();
        }
    }

    /// Every verdict so far, in the order of partition and offset.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        let topic = self.topology.topics().find("verdicts").expect("the output");
        let records = self.sim.committed_records(topic).into_iter();
        records.map(|record| serde_json::from_slice(&record.value.expect("a value")).expect("a verdict")).collect()
    }

    /// A model trained on the verdicts so far.
    pub(super) fn train(&self) -> Arc<Model> {
        let verdicts = self.verdicts();
        let rows: Vec<f32> = verdicts.iter().flat_map(|verdict| verdict.features).collect();
        let amounts: Vec<f64> = verdicts.iter().map(|verdict| verdict.amount).collect();
        let rows = ndarray::ArrayView2::from_shape((verdicts.len(), 10), &rows).expect("rows of ten");
        let params = TrainParams { trees: 20, max_samples: 64, seed: 1 };
        Arc::new(Model::train(rows, &amounts, params, 0.05, None, models::model::Window::default()).expect("a model"))
    }

    /// A user's committed profile, from the store itself.
    pub(super) fn profile(&self, user: &str) -> Option<UserProfile> {
        let partition = partition_of(user.as_bytes(), PARTITIONS);
        let bytes = self.store.inner.get(&StorePartition { store: "profiles".into(), partition }, user.as_bytes());
        bytes.expect("an open partition").map(|bytes| decode_kept(&bytes).expect("a profile").1)
    }

    /// Everything kept, as bytes.
    pub(super) fn everything(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        for partition in self.store.inner.partitions().expect("partitions") {
            let each = &mut |key: &[u8], value: &[u8]| {
                all.push((key.to_vec(), value.to_vec()));
                true
            };
            self.store.inner.scan(&partition, None, usize::MAX, each).expect("a scan");
        }
        all
    }

    /// Tells the server to stop.
    pub(super) fn tell_to_stop(&mut self) {
        self.stop.take().expect("it was not told yet").send(()).expect("it runs");
    }

    /// Waits until the server is gone.
    pub(super) fn wait_for_the_end(&mut self) {
        let server = self.server.take().expect("it was not waited for yet");
        let ended = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), server).await });
        ended.expect("in time").expect("no panic").expect("no error");
    }
}

fn config(topology: &Topology) -> WorkerConfig {
    WorkerConfig {
        index: 0,
        member: MemberConfig {
            group: "test".into(),
            instance: "test-one".into(),
            transactional_id: Some("test-one".into()),
            transaction_timeout_ms: 10_000,
            leads: topology.subs().iter().map(topology::topology::SubTopology::lead).collect(),
        },
        exactly_once: true,
        commit_interval_ms: 100,
        commit_idle_ms: 0,
        max_poll_records: 1_000,
        cache_bytes: 1 << 20,
        max_changed: 1_000,
        max_open_bytes: 64 << 20,
        start_from: StartFrom::Refuse,
        tombstone_retention_ms: 86_400_000,
        dead_letter_max_bytes: 1 << 20,
        hash_seed: 0,
    }
}
