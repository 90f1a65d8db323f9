//! Two instances on one simulated broker: copies that follow, take-overs from them, and what a dead owner leaves open.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use state::backend::{Backend, StorePartition};
use state::memory::MemoryBackend;
use topology::broker::{Broker, Cleanup, MemberConfig, Publisher, TopicSpec};
use topology::driver::SimClock;
use topology::metrics::Metrics;
use topology::predecessors::{Predecessor, Predecessors};
use topology::processor::{Context, Processor, Result};
use topology::record::{Batch, Outgoing, TopicPartition};
use topology::restore::StartFrom;
use topology::simulated::{Fault, Op, SimBroker};
use topology::standby::{StandbyConfig, Standbys};
use topology::status::{Phase, Tasks};
use topology::topology::{StoreId, TaskId, Topology};
use topology::worker::{Parts, Worker, WorkerConfig};

const PARTITIONS: u32 = 2;
const SESSION_MS: u64 = 10_000;
/// Far longer than any test lasts: what ends a transaction here is never its timeout.
const TRANSACTION_MS: u64 = 600_000;
const CLEANUP_MS: u64 = 60_000;

/// Counts the records of each key.
struct Count;

impl Processor for Count {
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        for record in batch.iter() {
            let key = record.key.unwrap_or_default();
            let mark = context.mark(&record);
            let store = context.store::<u64>(StoreId(0));
            store.prefetch(std::iter::once(key))?;
            let Some(count) = store.update(key, mark) else { continue };
            *count += 1;
            let count = count.to_string();
            context.emit(0, key, count.as_bytes(), record.timestamp)?;
        }
        Ok(())
    }
}

struct Instance {
    worker: Worker<SimBroker>,
    standbys: Standbys<SimBroker>,
    backend: Arc<MemoryBackend>,
    metrics: Arc<Metrics>,
    tasks: Arc<Tasks>,
}

struct World {
    sim: SimBroker,
    topology: Arc<Topology>,
}

fn tasks() -> BTreeSet<TaskId> {
    (0..PARTITIONS).map(|partition| TaskId { sub: 0, partition }).collect()
}

impl World {
    fn new() -> Self {
        let topology = Topology::builder("app")
            .sub("count", |_| Count, |w| w.input("in").store::<u64>("counts").output("out"))
            .build()
            .expect("a valid topology");
        let sim = SimBroker::new(topology.topics().clone());
        sim.set_session_timeout(SESSION_MS);
        for (_, name) in topology.topics().iter() {
            let cleanup = Cleanup::Delete { retention_ms: None };
            let spec = TopicSpec { name: name.to_owned(), partitions: PARTITIONS, cleanup, max_message_bytes: None };
            sim.create(&spec).expect("created");
        }
        Self { sim, topology: Arc::new(topology) }
    }

    fn instance(&self, name: &str) -> Instance {
        let (backend, metrics, tasks) = (Arc::new(MemoryBackend::new()), Arc::<Metrics>::default(), Arc::<Tasks>::default());
        let parts = Parts {
            topology: Arc::clone(&self.topology),
            partitions: vec![PARTITIONS; self.topology.topics().iter().count()],
            backend: Arc::clone(&backend) as Arc<dyn Backend>,
            clock: Arc::new(SimClock(self.sim.clone())),
            metrics: Arc::clone(&metrics),
            tasks: Arc::clone(&tasks),
        };
        let config = WorkerConfig {
            index: 0,
            member: MemberConfig {
                group: "app".into(),
                instance: name.into(),
                transactional_id: Some(name.into()),
                transaction_timeout_ms: TRANSACTION_MS,
                leads: vec![self.topology.subs()[0].lead()],
            },
            exactly_once: true,
            commit_interval_ms: 100,
            commit_idle_ms: 0,
            max_poll_records: 100,
            cache_bytes: 1 << 20,
            max_changed: 1_000,
            max_open_bytes: 1 << 20,
            start_from: StartFrom::Refuse,
            tombstone_retention_ms: 86_400_000,
            dead_letter_max_bytes: 1 << 20,
            hash_seed: 0,
        };
        let standby = StandbyConfig { exactly_once: true, tombstone_retention_ms: 86_400_000, cleanup_delay_ms: CLEANUP_MS };
        let broker = Arc::new(self.sim.named(name));
        let standbys = Standbys::new(Arc::clone(&broker), parts.clone(), standby);
        Instance { worker: Worker::new(broker, parts, config), standbys, backend, metrics, tasks }
    }

    fn at(&self, topic: &str, partition: u32) -> TopicPartition {
        TopicPartition { topic: self.topology.topics().find(topic).expect("known"), partition }
    }

    fn pipe(&self, keys: &[&str]) {
        let mut publisher = self.sim.publisher().expect("a publisher");
        for key in keys {
            let to = self.at("in", u32::from(key.as_bytes()[0]) % PARTITIONS);
            publisher
                .send(&Outgoing { to, key: Some(key.as_bytes()), value: Some(b""), timestamp: 0, headers: &[] })
                .expect("sent");
        }
        publisher.flush().expect("durable");
    }
}

impl Instance {
    fn step(&mut self) {
        self.worker.step(Duration::ZERO).expect("goes on");
    }

    /// Steps for a while of simulated time.
    fn work(&mut self, world: &World, ms: u64) {
        for _ in 0..ms / 20 {
            self.step();
            world.sim.advance(20);
        }
    }

    fn follow(&mut self, wanted: &BTreeSet<TaskId>) {
        while self.standbys.step(wanted, Duration::ZERO).expect("goes on") {}
        self.standbys.step(wanted, Duration::ZERO).expect("goes on");
    }

    fn running(&self) -> usize {
        self.tasks.all().values().filter(|task| task.phase == Phase::Running).count()
    }

    fn kept(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut kept = Vec::new();
        for partition in 0..PARTITIONS {
            let store = StorePartition { store: "counts".into(), partition };
            if self.backend.partitions().expect("known").contains(&store) {
                let mut each = |key: &[u8], value: &[u8]| {
                    kept.push((key.to_vec(), value.to_vec()));
                    true
                };
                self.backend.scan(&store, None, 1_000, &mut each).expect("read");
            }
        }
        kept.sort();
        kept
    }

    fn restored(&self) -> u64 {
        self.metrics.restored_records_total.load(Ordering::Relaxed)
    }
}

const WORDS: [&str; 9] = ["a", "b", "c", "a", "b", "d", "e", "a", "f"];

#[test]
fn a_copy_follows_what_is_committed_and_a_take_over_restores_the_rest_only() {
    let world = World::new();
    let (mut a, mut b) = (world.instance("a"), world.instance("b"));
    world.pipe(&WORDS);
    a.work(&world, 1_000);
    b.follow(&tasks());
    assert_eq!(a.kept().len(), 6);
    assert_eq!(b.kept(), a.kept(), "the same bytes");
    let copies = b.tasks.copies();
    assert_eq!(copies.keys().copied().collect::<BTreeSet<_>>(), tasks());
    assert!(copies.values().all(|copy| copy.lag == 0 && copy.as_of_ms.is_some()), "{copies:?}");
    let committed: Vec<_> = a.tasks.all().values().map(|task| task.changelogs.clone()).collect();
    assert_eq!(copies.values().map(|copy| copy.changelogs.clone()).collect::<Vec<_>>(), committed);
    // What is open is not for copies: the next commit gets no answer, and its transaction stays open.
    let before = b.kept();
    world.sim.set_faults(|call| if call.op == Op::EndTxnCommit { Fault::Crash { done: false } } else { Fault::None });
    world.pipe(&["a", "g"]);
    for _ in 0..20 {
        let _ = a.worker.step(Duration::ZERO);
        world.sim.advance(20);
    }
    world.sim.clear_faults();
    assert_eq!(world.sim.open_transactions().len(), 1, "a died in a commit");
    b.follow(&tasks());
    assert_eq!(b.kept(), before);
    // b takes over: the group has dropped a, whose transaction b ends, as it is told of it.
    world.sim.advance(SESSION_MS);
    b.worker = b.worker.with_predecessors(Arc::new(Told::of("a", true)));
    b.work(&world, 2_000);
    assert_eq!(b.running(), PARTITIONS as usize);
    assert_eq!(b.restored(), 0, "the copies had everything committed");
    assert_eq!(b.kept().len(), 7, "what a had not committed is done again: {:?}", b.kept());
    assert_eq!(world.sim.committed_records(world.at("out", 0).topic).len(), WORDS.len() + 2, "each record has one count");
}

#[test]
fn a_store_has_one_writer() {
    let world = World::new();
    let (mut a, mut b) = (world.instance("a"), world.instance("b"));
    world.pipe(&WORDS);
    a.work(&world, 1_000);
    b.follow(&tasks());
    drop(a.worker);
    world.sim.advance(SESSION_MS + 1);
    // From the moment that b has a task it is no copy any more, whoever still asks for one.
    while b.tasks.all().is_empty() {
        b.step();
        world.sim.advance(20);
    }
    assert_eq!(b.tasks.copies().len(), 0);
    b.follow(&tasks());
    assert_eq!(b.tasks.copies().len(), 0);
    b.work(&world, 1_000);
    let applied = b.metrics.standby_records_total.load(Ordering::Relaxed);
    world.pipe(&WORDS);
    b.work(&world, 1_000);
    b.follow(&tasks());
    assert_eq!(b.metrics.standby_records_total.load(Ordering::Relaxed), applied, "the task alone wrote");
    // A task that closes may leave its store to a copy, which goes on where it stood.
    b.worker.close(true).expect("closed");
    let mut c = world.instance("c");
    c.work(&world, 1_000);
    world.pipe(&["a", "b"]);
    c.work(&world, 1_000);
    b.follow(&tasks());
    assert_eq!(b.metrics.standby_records_total.load(Ordering::Relaxed), applied + 2, "only what was new");
    assert_eq!(b.kept(), c.kept());
}

#[test]
fn state_that_nobody_wants_goes_after_a_while() {
    let world = World::new();
    let (mut a, mut b) = (world.instance("a"), world.instance("b"));
    world.pipe(&WORDS);
    a.work(&world, 1_000);
    b.follow(&tasks());
    let one: BTreeSet<TaskId> = tasks().into_iter().take(1).collect();
    let kept = |b: &Instance| b.backend.partitions().expect("known").len();
    for _ in 0..11 {
        b.follow(&one);
        assert_eq!(kept(&b), 2, "not yet");
        world.sim.advance(CLEANUP_MS / 12);
        a.step();
    }
    // Wanted again in between: the time begins anew.
    b.follow(&tasks());
    world.sim.advance(CLEANUP_MS / 2);
    b.follow(&tasks());
    for _ in 0..8 {
        b.follow(&one);
        assert_eq!(kept(&b), 2, "wanted in between");
        world.sim.advance(CLEANUP_MS / 10);
    }
    for _ in 0..8 {
        b.follow(&one);
        world.sim.advance(CLEANUP_MS / 10);
    }
    assert_eq!(kept(&b), 1);
    b.follow(&tasks());
    assert_eq!(b.kept(), a.kept(), "and is made again when it is wanted");
}

/// Tells of one owner before.
struct Told {
    id: String,
    silent: bool,
    ended: Mutex<u32>,
}

impl Told {
    fn of(id: &str, silent: bool) -> Self {
        Self { id: id.into(), silent, ended: Mutex::new(0) }
    }

    fn times(&self) -> u32 {
        *self.ended.lock().unwrap()
    }
}

impl Predecessors for Told {
    fn of(&self, _: TaskId, mine: &str) -> Vec<Predecessor> {
        let known = *self.ended.lock().unwrap() == 0 && mine != self.id;
        known.then(|| Predecessor { transactional_id: self.id.clone(), silent: self.silent }).into_iter().collect()
    }

    fn ended(&self, _: &str) {
        *self.ended.lock().unwrap() += 1;
    }
}

/// `a` dies in a commit and is dropped by the group; b is told of it or not. Gives b, and what it was told.
fn succeed(world: &World, told: Option<Told>) -> (Instance, Option<Arc<Told>>) {
    let (mut a, mut b) = (world.instance("a"), world.instance("b"));
    world.pipe(&WORDS);
    a.work(world, 1_000);
    world.sim.set_faults(|call| if call.op == Op::EndTxnCommit { Fault::Crash { done: false } } else { Fault::None });
    world.pipe(&["a", "b"]);
    for _ in 0..20 {
        let _ = a.worker.step(Duration::ZERO);
        world.sim.advance(20);
    }
    world.sim.clear_faults();
    assert_eq!(world.sim.open_transactions().len(), 1, "a died in a commit");
    world.sim.advance(SESSION_MS);
    let told = told.map(Arc::new);
    if let Some(told) = &told {
        b.worker = b.worker.with_predecessors(Arc::clone(told) as Arc<dyn Predecessors>);
    }
    b.work(world, 3_000);
    (b, told)
}

#[test]
fn a_dead_owners_transaction_is_ended_by_its_successor() {
    for silent in [true, false] {
        let world = World::new();
        let (b, told) = succeed(&world, Some(Told::of("a", silent)));
        assert_eq!(b.running(), PARTITIONS as usize, "silent {silent}");
        assert_eq!(told.expect("given").times(), 1, "silent {silent}");
        assert_eq!(world.sim.open_transactions().len(), 0);
        assert_eq!(world.sim.committed_records(world.at("out", 0).topic).len(), WORDS.len() + 2);
        assert_eq!(b.metrics.predecessors_ended_total.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn who_knows_of_nobody_waits_for_the_timeout() {
    let world = World::new();
    let (mut b, _) = succeed(&world, None);
    assert_eq!(b.running(), 0, "the transaction is still open");
    world.sim.advance(TRANSACTION_MS);
    b.work(&world, 3_000);
    assert_eq!(b.running(), PARTITIONS as usize);
}

#[test]
fn an_owner_that_handed_over_in_good_order_is_left_alone() {
    let world = World::new();
    let (mut a, mut b) = (world.instance("a"), world.instance("b"));
    let told = Arc::new(Told::of("a", false));
    b.worker = b.worker.with_predecessors(Arc::clone(&told) as Arc<dyn Predecessors>);
    world.pipe(&WORDS);
    a.work(&world, 1_000);
    for _ in 0..200 {
        a.step();
        b.step();
        world.sim.advance(20);
    }
    assert_eq!((a.running(), b.running()), (1, 1));
    assert_eq!(told.times(), 0, "nothing held the restore up");
    assert_eq!(a.metrics.fenced_total.load(Ordering::Relaxed), 0);
}

#[test]
fn a_failure_to_end_it_is_no_failure_of_the_restore() {
    let world = World::new();
    world.pipe(&WORDS);
    let mut b = world.instance("b");
    b.worker = b.worker.with_predecessors(Arc::new(Told::of("gone", true)));
    let mut joined = false;
    world.sim.set_faults(move |call| match call.op {
        // The first one is b's own.
        Op::InitProducer if std::mem::replace(&mut joined, true) => Fault::Error(topology::broker::Reaction::Stop),
        _ => Fault::None,
    });
    b.work(&world, 2_000);
    assert_eq!(b.running(), PARTITIONS as usize);
}
