//! The broker, the proxy in front of it, three instances, and what is done to them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Plan;
use crate::common::broker::{Broker, free_address};
use crate::common::ledger::model;
use crate::common::proxy::{Fate, Proxy, Trouble};
use crate::common::scene::{PARTITIONS, Scene};
use crate::common::service::Service;
use crate::common::{PATIENCE, until};
use crate::load::{Load, Sent};
use crate::queries::Queries;
use crate::schedule::{Fault, INSTANCES, Kind};
use crate::watch::Watch;

/// After so long without a heartbeat the group drops an instance.
pub const SESSION: Duration = Duration::from_secs(6);
/// After its session an instance's partitions are the others'.
const TAKEN_OVER: Duration = Duration::from_millis(8_500);
/// For so long one that wakes is asked.
const WAKING: Duration = Duration::from_secs(1);
/// Between two looks at the instances.
const TICK: Duration = Duration::from_millis(50);
const CUTS: u32 = 3;
/// Each worker of an instance has a partition, where they share evenly.
const WORKERS: usize = 2;

/// Where an instance serves HTTP; none while that is not known.
pub type Addresses = Arc<Mutex<[Option<String>; INSTANCES]>>;

pub struct Arena {
    pub sent: Sent,
    pub watch: Watch,
    pub queries: Queries,
    addresses: Addresses,
    instances: [Option<Service>; INSTANCES],
    /// Each instance's state folder: a deleted one gets a new name, for a new identity.
    states: [String; INSTANCES],
    broker: Broker,
    proxy: Proxy,
    rate: u32,
    exactly_once: bool,
    seed: u64,
    /// Last: its folder goes when the processes are gone.
    pub scene: Scene,
}

/// `target/chaos`, where reports are kept.
pub fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("chaos");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn name(instance: usize) -> String {
    format!("instance-{instance}")
}

impl Arena {
    /// Starts everything; the instances share the partitions when this returns.
    pub fn build(plan: &Plan) -> Self {
        let mut proxy = Proxy::new();
        let scene = Scene::at(free_address(), "chaos")
            .kept_on_failure()
            .with("KAFKA_BOOTSTRAP_SERVERS", &proxy.address())
            .with("KAFKA_SESSION_TIMEOUT_MS", &SESSION.as_millis().to_string())
            .with("PROCESSING_GUARANTEE", plan.name())
            .with("WORKERS", &WORKERS.to_string())
            .with("MODEL_PATH", model().to_str().expect("a plain path"));
        let scene = if plan.standbys > 0 { scene.with("STANDBY_REPLICAS", &plan.standbys.to_string()) } else { scene };
        let broker = Broker::start_behind(&scene, Some(proxy.port));
        proxy.serve(broker.proxied_port());
        scene.create("transactions", PARTITIONS, &[]);
        scene.create("commands", PARTITIONS, &[]);
        let addresses = Addresses::default();
        let mut arena = Self {
            sent: Sent::default(),
            watch: Watch::new(),
            queries: Queries::new(addresses.clone(), plan.seed),
            addresses,
            broker,
            proxy,
            instances: [const { None }; INSTANCES],
            states: std::array::from_fn(name),
            rate: plan.rate,
            exactly_once: plan.exactly_once,
            seed: plan.seed,
            scene,
        };
        // One after the other: topics that are missing are created once.
        for instance in 0..INSTANCES {
            arena.start(instance);
            arena.instances[instance].as_mut().expect("started above").restored(1);
        }
        arena
    }

    /// Runs `story` under load, then waits until something came of every record, and stops all in good order.
    pub fn run(&mut self, story: impl FnOnce(&mut Hand<'_>, &Watch)) {
        let (load_ends, watch_ends) = (AtomicBool::new(false), AtomicBool::new(false));
        let Self { scene, sent, watch, queries, addresses, broker, proxy, instances, states, .. } = self;
        let (scene, sent, watch, queries): (&Scene, &Sent, &Watch, &Queries) = (scene, sent, watch, queries);
        std::thread::scope(|scope| {
            let _ends = EndOnDrop([&load_ends, &watch_ends]);
            scope.spawn(|| watch.run(scene, &watch_ends));
            let load = Load::new(scene, self.seed, sent);
            let resets = self.exactly_once;
            let loading = scope.spawn({
                let (rate, ends) = (self.rate, &load_ends);
                move || load.run(rate, resets, watch, ends)
            });
            scope.spawn(|| queries.run(&watch_ends));
            let mut hand = Hand { scene, broker, proxy, instances, states, addresses, queries };
            hand.settled();
            hand.recovered(watch);
            story(&mut hand, watch);
            load_ends.store(true, Ordering::Relaxed);
            loading.join().expect("all is sent");
            hand.drained(watch, sent.records.load(Ordering::Relaxed));
        });
        for instance in &mut self.instances {
            instance.take().expect("all instances run").stop();
        }
    }

    fn start(&mut self, instance: usize) {
        let Self { scene, broker, proxy, instances, states, addresses, queries, .. } = self;
        Hand { scene, broker, proxy, instances, states, addresses, queries }.start(instance);
    }
}

/// Has the other threads end, also where this one panics.
struct EndOnDrop<'a>([&'a AtomicBool; 2]);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|ends| ends.store(true, Ordering::Relaxed));
    }
}

/// What does things to the arena while the other threads watch.
pub struct Hand<'a> {
    scene: &'a Scene,
    broker: &'a Broker,
    proxy: &'a Proxy,
    instances: &'a mut [Option<Service>; INSTANCES],
    states: &'a mut [String; INSTANCES],
    addresses: &'a Addresses,
    queries: &'a Queries,
}

impl Hand<'_> {
    fn start(&mut self, instance: usize) {
        let service = self.scene.start_with(&self.states[instance], &[("KAFKA_CLIENT_ID", &name(instance))]);
        self.instances[instance] = Some(service);
    }

    /// Takes a process out: none is looked at any more, and nobody asks it.
    fn take(&mut self, instance: usize) -> Service {
        self.addresses.lock().unwrap()[instance] = None;
        self.instances[instance].take().expect("all instances run between faults")
    }

    fn running(&mut self, instance: usize) -> &mut Service {
        self.instances[instance].as_mut().expect("all instances run between faults")
    }

    /// Lets so much time pass, and sees to it that no instance ends by itself.
    fn pass(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.tick();
        }
    }

    fn tick(&mut self) {
        for (instance, service) in self.instances.iter_mut().enumerate() {
            let Some(service) = service else { continue };
            if let Some(status) = service.ended() {
                panic!("instance {instance} ended by itself ({status}): {}", service.log().display());
            }
            let mut addresses = self.addresses.lock().unwrap();
            if addresses[instance].is_none() {
                addresses[instance] = service.find_address();
            }
        }
        std::thread::park_timeout(TICK);
    }

    /// Waits until the instances share the partitions evenly and all of them run.
    fn settled(&mut self) {
        until("the instances share the partitions", || {
            let shares: Vec<usize> = self.instances.iter_mut().flatten().filter_map(share).collect();
            (shares.iter().sum::<usize>() == PARTITIONS as usize && shares.iter().all(|&share| share >= WORKERS)).then_some(())
        });
    }

    /// Waits until each partition has had verdicts since this was called.
    pub fn recovered(&mut self, watch: &Watch) {
        let begun = Instant::now();
        loop {
            self.tick();
            let last = watch.last();
            let without: Vec<usize> = (0..last.len()).filter(|&partition| last[partition] <= begun).collect();
            if without.is_empty() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "no verdicts of partitions {without:?} for {PATIENCE:?}; logs: {}", self.logs());
        }
    }

    /// Waits until something came of every record.
    fn drained(&mut self, watch: &Watch, sent: u64) {
        let (mut before, mut progressed) = (watch.outcomes(), Instant::now());
        while watch.outcomes() < sent {
            self.tick();
            let now = watch.outcomes();
            if now > before {
                (before, progressed) = (now, Instant::now());
            }
            let logs = self.logs();
            assert!(progressed.elapsed() < PATIENCE, "{} of {sent} records came to nothing; logs: {logs}", sent - now);
        }
    }

    fn logs(&self) -> String {
        self.scene.path("").display().to_string()
    }

    pub fn inject(&mut self, fault: &Fault) {
        let Fault { kind, victim, lasts, after, .. } = *fault;
        match kind {
            Kind::Kill => {
                self.take(victim).kill();
                self.start(victim);
            }
            Kind::Takeover => {
                self.take(victim).kill();
                self.pass(TAKEN_OVER);
                self.start(victim);
            }
            Kind::Zombie => {
                self.running(victim).signal("STOP");
                self.pass(TAKEN_OVER);
                self.queries.ask_only(Some(victim));
                self.running(victim).signal("CONT");
                self.pass(WAKING);
                self.queries.ask_only(None);
            }
            Kind::Stop => self.restart(victim),
            Kind::Rolling => {
                for instance in 0..INSTANCES {
                    self.restart(instance);
                    self.ready(instance);
                }
            }
            Kind::StateLost => {
                self.take(victim).kill();
                let state = &mut self.states[victim];
                self.scene.forget(state);
                state.push('x');
                self.start(victim);
            }
            Kind::Broker => {
                self.broker.kill();
                self.pass(lasts);
                self.broker.restart();
            }
            Kind::Slow => {
                self.proxy.trouble(&whose(fault), Trouble::Slow(lasts));
                self.pass(4 * Duration::from_secs(1));
                self.proxy.calm();
            }
            Kind::Cut => {
                for _ in 0..CUTS {
                    self.cut(&whose(fault));
                    self.pass(lasts);
                }
            }
            Kind::Silent => {
                self.proxy.trouble(&whose(fault), Trouble::Silent);
                self.pass(lasts);
                self.proxy.calm();
            }
            Kind::CommitLost => self.meet(Fate::RequestLost),
            Kind::AnswerLost => self.meet(Fate::AnswerLost),
            Kind::CommitLate => self.meet(Fate::Late),
            Kind::OffsetsLate => self.offsets_late(),
        }
        self.pass(after);
    }

    fn restart(&mut self, instance: usize) {
        self.take(instance).stop();
        self.start(instance);
    }

    /// Waits until an instance that was started has tasks that run.
    fn ready(&mut self, instance: usize) {
        self.running(instance).restored(1);
    }

    /// Has a commit meet its fate, whoever makes it.
    fn meet(&mut self, fate: Fate) {
        let before = self.proxy.done();
        self.proxy.arm(fate);
        let begun = Instant::now();
        while self.proxy.done() == before {
            self.tick();
            assert!(begun.elapsed() < PATIENCE, "no commit met this within {PATIENCE:?}: {fate:?}");
        }
    }

    /// Cuts connections, once there are some again.
    fn cut(&mut self, whose: &str) {
        let begun = Instant::now();
        while self.proxy.cut(whose) == 0 {
            self.tick();
            assert!(begun.elapsed() < PATIENCE, "no connection to cut for {PATIENCE:?}");
        }
    }

    fn offsets_late(&mut self) {
        self.meet(Fate::LateOffsets);
        let client = self.proxy.late_client().expect("its request is late");
        let victim = (0..INSTANCES).find(|&instance| name(instance) == client).expect("one of the instances");
        self.take(victim).kill();
        self.proxy.disarm();
        self.proxy.calm();
        self.start(victim);
    }
}

/// How many partitions an instance has; none where not all of them run.
fn share(service: &mut Service) -> Option<usize> {
    let health: Value = serde_json::from_str(&service.get("/v1/health").1).ok()?;
    let tasks = health["tasks"].as_array()?;
    tasks.iter().all(|task| task["phase"] == "running").then_some(tasks.len())
}

/// Whose connections the network's fault is about.
fn whose(fault: &Fault) -> String {
    if fault.all { String::new() } else { name(fault.victim) }
}
