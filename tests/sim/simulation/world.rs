//! One simulated world: a broker, machines with disks and clocks, instances with workers on them, and who may interfere with what.
//!
//! Everything runs on one thread. At each call of a worker to the broker or the disk the simulation is asked ([`World::decide`]). It may
//! let the call fail, or freeze the caller right there and let the others go on meanwhile: for a few rounds (a rebalance in the
//! middle of a commit), or for longer than the session timeout (a zombie, which wakes up in the middle of what it was doing).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError, Weak};
use std::time::Duration;

use mangrove::scoring::{ModelSlot, ScoringParams, TopicNames, scoring_topology};
use state::backend::{Backend, StorePartition, WriteSet};
use topology::broker::{Broker, Cleanup, MemberConfig, Reaction, TopicSpec};
use topology::clock::Clock;
use topology::metrics::Metrics;
use topology::restore::StartFrom;
use topology::simulated::{Fault, OpContext, SimBroker};
use topology::status::Tasks;
use topology::topology::{SubTopology, Topology};
use topology::worker::{Parts, Worker, WorkerConfig};

use super::disk::{CRASHED, Disk, FULL, Mishap, Probe, REFUSED};
use super::random::Random;
use super::steps::{Step, Tally, Trouble, impossible};
use super::trace::{At, Trace, What};
use super::watch::Watch;

pub const PARTITIONS: u32 = 8;
pub const INSTANCES: usize = 4;
pub const APPLICATION: &str = "sim";
/// When the simulated clocks begin.
pub const BEGIN_MS: i64 = 1_700_000_000_000;
const TOMBSTONE_RETENTION_MS: u64 = 86_400_000;

/// What a seed chooses once.
#[derive(Clone, Debug)]
pub struct Choices {
    pub exactly_once: bool,
    /// Without transactions nothing fences a zombie or a dead producer's late record: only some at-least-once seeds have them, and these
    /// are held to less.
    pub wild: bool,
    pub session_ms: u64,
    transaction_timeout_ms: u64,
    commit_interval_ms: u64,
    commit_idle_ms: u64,
    max_poll_records: usize,
    max_changed: usize,
    max_open_bytes: usize,
    cache_bytes: usize,
    workers: [usize; INSTANCES],
}

impl Choices {
    pub fn of(seed: u64, random: &mut Random) -> Self {
        let exactly_once = !seed.is_multiple_of(3);
        Self {
            exactly_once,
            wild: exactly_once || seed % 9 == 6,
            session_ms: 1_500,
            transaction_timeout_ms: random.pick(&[1_000, 4_000, 8_000]),
            commit_interval_ms: random.pick(&[0, 20, 100]),
            commit_idle_ms: random.pick(&[0, 0, 10]),
            max_poll_records: random.pick(&[1, 4, 25, 200]),
            max_changed: random.pick(&[1, 4, 1_000]),
            max_open_bytes: random.pick(&[500, 64 << 20]),
            cache_bytes: random.pick(&[0, 3_000, 1 << 20]),
            workers: [0; INSTANCES].map(|_| 1 + usize::from(random.one_in(3))),
        }
    }
}

/// A trouble that is to happen: at the next but `skip` call of this step from this tick on.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    pub step: Step,
    pub trouble: Trouble,
    pub skip: u64,
    pub from_tick: u64,
}

/// A machine's clock: the broker's time, plus what the wall clock has jumped.
#[derive(Clone)]
struct MachineClock {
    sim: SimBroker,
    jumped_ms: Arc<AtomicI64>,
}

impl Clock for MachineClock {
    fn now_ms(&self) -> i64 {
        let now = i64::try_from(self.sim.now()).expect("simulated time is short");
        BEGIN_MS + now + self.jumped_ms.load(Ordering::Relaxed)
    }

    fn monotonic_us(&self) -> u64 {
        self.sim.now() * 1000
    }
}

type Cell = Mutex<Option<Worker<SimBroker>>>;

/// A machine, and the process on it while there is one.
pub struct Instance {
    cells: Vec<Cell>,
    pub disk: Disk,
    pub slot: ModelSlot,
    topology: Arc<Topology>,
    jumped_ms: Arc<AtomicI64>,
}

/// What changes while the world lives.
pub struct State {
    pub random: Random,
    pub aims: Vec<Aim>,
    pub tick: u64,
    pub tally: Tally,
    pub trace: Trace,
    pub watch: Watch,
    /// By instance: runs; when it starts again if not; what others see of it.
    pub up: [bool; INSTANCES],
    pub start_at_ms: [u64; INSTANCES],
    pub tasks: [Arc<Tasks>; INSTANCES],
    pub commits: u64,
    metrics: [Arc<Metrics>; INSTANCES],
    full_until_ms: [u64; INSTANCES],
    power_lost: [bool; INSTANCES],
    /// Partitions that were damaged on an instance's disk: each once.
    damaged: BTreeSet<(usize, u32)>,
    /// Its process is gone, but one of its workers is in the middle of a step further out.
    doomed: [bool; INSTANCES],
    /// Somebody is frozen in the middle of a step: no further trouble meanwhile.
    frozen: bool,
    /// Nothing goes wrong any more.
    pub peace: bool,
}

pub struct World {
    pub sim: SimBroker,
    pub choices: Choices,
    pub instances: Vec<Instance>,
    state: Mutex<State>,
    this: Weak<World>,
}

/// Stands between an instance and its disk.
struct DiskProbe {
    world: Weak<World>,
    instance: usize,
}

impl Probe for DiskProbe {
    fn before(&self, step: Step, partition: &StorePartition) -> Option<Mishap> {
        self.world.upgrade().and_then(|world| world.before_disk(self.instance, step, partition))
    }

    fn writing(&self, set: &WriteSet) {
        if let Some(world) = self.world.upgrade() {
            world.state().watch.store_written(&world.sim, set);
        }
    }
}

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        let mut random = Random::new(seed);
        let choices = Choices::of(seed, &mut random);
        let topology = |slot: &ModelSlot| {
            let params = ScoringParams::default();
            scoring_topology(APPLICATION, &TopicNames::default(), &params, slot).expect("a valid topology")
        };
        let instances: Vec<Instance> = choices
            .workers
            .iter()
            .map(|&workers| {
                let slot = ModelSlot::default();
                Instance {
                    cells: (0..workers).map(|_| Mutex::default()).collect(),
                    disk: Disk::default(),
                    topology: Arc::new(topology(&slot)),
                    slot,
                    jumped_ms: Arc::default(),
                }
            })
            .collect();
        let table = &instances[0].topology;
        let sim = SimBroker::new(table.topics().clone());
        let changelogs: Vec<_> = table.changelogs().collect();
        for (topic, name) in table.topics().iter() {
            let cleanup = if changelogs.contains(&topic) {
                Cleanup::Compact { tombstone_retention_ms: TOMBSTONE_RETENTION_MS }
            } else {
                Cleanup::Delete { retention_ms: None }
            };
            let spec = TopicSpec { name: name.to_owned(), partitions: PARTITIONS, cleanup, max_message_bytes: None };
            sim.create(&spec).expect("no faults are set yet");
        }
        sim.set_session_timeout(choices.session_ms);
        let state = State {
            random,
            aims: Vec::new(),
            tick: 0,
            tally: Tally::default(),
            trace: Trace::default(),
            watch: Watch::new(table.topics(), changelogs[0]),
            up: [false; INSTANCES],
            start_at_ms: [0; INSTANCES],
            tasks: Default::default(),
            commits: 0,
            metrics: Default::default(),
            full_until_ms: [0; INSTANCES],
            power_lost: [false; INSTANCES],
            damaged: BTreeSet::new(),
            doomed: [false; INSTANCES],
            frozen: false,
            peace: false,
        };
        let world = Arc::new_cyclic(|this| Self { sim, choices, instances, state: Mutex::new(state), this: Weak::clone(this) });
        let this = Weak::clone(&world.this);
        world.sim.set_faults(move |call| this.upgrade().map_or(Fault::None, |world| world.before_call(call)));
        world
    }

    /// A check that fails must not hide behind the poison it leaves.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn topology(&self) -> &Topology {
        &self.instances[0].topology
    }

    pub fn note(&self, at: At, did: &'static str) {
        let now_ms = self.sim.now();
        self.state().trace.note(now_ms, at, What::Did(did));
    }

    // ---- what goes wrong

    /// Whether something goes wrong now, by the aims and by chance.
    fn decide(&self, at: At, step: Step) -> Option<Trouble> {
        let now_ms = self.sim.now();
        let mut state = self.state();
        let state = &mut *state;
        let trouble = if state.frozen || state.peace {
            None
        } else if let Some(found) = state.aims.iter().position(|aim| aim.step == step && aim.from_tick <= state.tick) {
            match &mut state.aims[found].skip {
                0 => Some(state.aims.remove(found).trouble),
                skip => {
                    *skip -= 1;
                    None
                }
            }
        } else if state.random.one_in(500) {
            let trouble = state.random.pick(&Trouble::ALL);
            self.allowed(step, trouble).then_some(trouble)
        } else {
            None
        };
        state.trace.note(now_ms, at, What::Call(step, trouble));
        if let Some(trouble) = trouble {
            state.tally.count(step, trouble);
        }
        trouble
    }

    /// Whether a trouble is to be had at a step in this world.
    pub fn allowed(&self, step: Step, trouble: Trouble) -> bool {
        let unfenced = trouble == Trouble::Zombie || (step.is_sending() && trouble == Trouble::Late);
        impossible(step, trouble).is_none() && step.happens(self.choices.exactly_once) && (self.choices.wild || !unfenced)
    }

    fn before_call(&self, call: &OpContext<'_>) -> Fault {
        let Some(at) = At::parse(call.instance) else { return Fault::None };
        let topics = self.sim.topics();
        let Some(step) = Step::of(call.op, call.to.map(|to| topics.name(to.topic))) else { return Fault::None };
        self.state().watch.called(&self.sim, at, step);
        let Some(trouble) = self.decide(at, step) else { return Fault::None };
        let mut state = self.state();
        let wait_ms = 1 + state.random.below(2_000);
        let coin = state.random.one_in(2);
        let reaction = state.random.pick(&[Reaction::Retry, Reaction::Abort, Reaction::Fenced]);
        if step.is_end() && matches!(trouble, Trouble::LostRequest | Trouble::LostAnswer | Trouble::Late) {
            state.watch.unanswered(&self.sim, at);
        }
        state.power_lost[at.instance] |= trouble == Trouble::PowerLoss;
        drop(state);
        match trouble {
            Trouble::CrashBefore => Fault::Crash { done: false },
            Trouble::CrashAfter => Fault::Crash { done: true },
            Trouble::PowerLoss => Fault::Crash { done: coin && impossible(step, Trouble::CrashAfter).is_none() },
            Trouble::Error => Fault::Error(reaction),
            Trouble::LostRequest => Fault::LostRequest,
            Trouble::LostAnswer => Fault::LostAnswer,
            Trouble::Late => Fault::Late(wait_ms),
            Trouble::SlowMarkers => Fault::SlowMarkers(wait_ms),
            Trouble::Rebalance | Trouble::Zombie | Trouble::ClockJump => {
                self.interfere(at, trouble);
                Fault::None
            }
            Trouble::DiskFull | Trouble::Damage | Trouble::Refused | Trouble::TierOutage => unreachable!("impossible at a call"),
        }
    }

    fn before_disk(&self, instance: usize, step: Step, partition: &StorePartition) -> Option<Mishap> {
        let at = At { instance, worker: None, partition: Some(partition.partition) };
        let mut trouble = self.decide(at, step);
        let now_ms = self.sim.now();
        let mut state = self.state();
        if now_ms < state.full_until_ms[instance] && impossible(step, Trouble::DiskFull).is_none() {
            trouble = Some(Trouble::DiskFull);
        }
        let coin = state.random.one_in(2);
        match trouble? {
            Trouble::CrashBefore => Some(Mishap::Crash { done: false }),
            Trouble::CrashAfter => Some(Mishap::Crash { done: true }),
            Trouble::PowerLoss => {
                state.power_lost[instance] = true;
                Some(Mishap::Crash { done: coin && impossible(step, Trouble::CrashAfter).is_none() })
            }
            Trouble::DiskFull => {
                let until = now_ms + 1 + state.random.below(3_000);
                state.full_until_ms[instance] = state.full_until_ms[instance].max(until);
                state.watch.write_failed(instance);
                Some(Mishap::Full)
            }
            // The engine takes a second damage before anything is committed for one of the changelog.
            Trouble::Damage => state.damaged.insert((instance, partition.partition)).then_some(Mishap::Damage),
            Trouble::Refused => Some(Mishap::Refused),
            trouble => {
                drop(state);
                self.interfere(at, trouble);
                None
            }
        }
    }

    /// What happens around an instance in the middle of its step, rather than to its call.
    fn interfere(&self, at: At, trouble: Trouble) {
        match trouble {
            Trouble::ClockJump => {
                let mut state = self.state();
                // An hour back or forth, or past the changelog's tombstone retention.
                let jump_ms = state.random.pick(&[-3_600_000, 3_600_000, 90_000_000]);
                self.instances[at.instance].jumped_ms.fetch_add(jump_ms, Ordering::Relaxed);
            }
            Trouble::Rebalance => {
                self.state().frozen = true;
                self.move_someone(at.instance);
                self.others_go_on(at, 6, 15);
                self.state().frozen = false;
            }
            _ => {
                self.state().frozen = true;
                self.others_go_on(at, 20, self.choices.session_ms / 12);
                self.state().frozen = false;
            }
        }
    }

    /// Starts an instance that is down, or lets one leave.
    fn move_someone(&self, but: usize) {
        let state = &mut *self.state();
        let up = state.up;
        let down: Vec<usize> = (0..INSTANCES).filter(|&other| other != but && !up[other]).collect();
        let others: Vec<usize> = (0..INSTANCES).filter(|&other| other != but && up[other]).collect();
        let pick = |random: &mut Random, from: &[usize]| (!from.is_empty()).then(|| random.pick(from));
        let (start, stop) = (pick(&mut state.random, &down), pick(&mut state.random, &others));
        let now_ms = self.sim.now();
        match (start, stop) {
            (Some(start), _) => state.start_at_ms[start] = now_ms,
            (None, Some(stop)) if others.len() > 1 => state.start_at_ms[stop] = u64::MAX,
            _ => {}
        }
        // Done by the rounds that follow: an instance that is up and is to start at the end of time leaves.
    }

    fn others_go_on(&self, at: At, rounds: u64, round_ms: u64) {
        for _ in 0..rounds {
            self.sim.advance(round_ms);
            self.supervise();
            // A whole process freezes, as by SIGSTOP or with its virtual machine.
            self.step_all(|other| other.instance != at.instance);
        }
    }

    // ---- who lives

    /// Starts what is to start, and lets leave what is to leave.
    pub fn supervise(&self) {
        let now_ms = self.sim.now();
        for instance in 0..INSTANCES {
            let (up, start_at_ms) = {
                let state = self.state();
                (state.up[instance], state.start_at_ms[instance])
            };
            if !up && start_at_ms <= now_ms {
                self.start(instance);
            } else if up && start_at_ms == u64::MAX {
                let wait_ms = 200 + self.state().random.below(2_000);
                self.stop(instance, now_ms + wait_ms);
            }
        }
    }

    fn cell(&self, at: At) -> Option<MutexGuard<'_, Option<Worker<SimBroker>>>> {
        match self.instances[at.instance].cells[at.worker?].try_lock() {
            Ok(cell) => Some(cell),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn workers_of(&self, instance: usize) -> impl Iterator<Item = At> + use<> {
        let count = self.instances[instance].cells.len();
        (0..count).map(move |worker| At { instance, worker: Some(worker), partition: None })
    }

    pub fn start(&self, instance: usize) {
        let (tasks, metrics): (Arc<Tasks>, Arc<Metrics>) = Default::default();
        let Instance { disk, topology, jumped_ms, .. } = &self.instances[instance];
        let probe = Arc::new(DiskProbe { world: Weak::clone(&self.this), instance });
        let parts = Parts {
            topology: Arc::clone(topology),
            partitions: vec![PARTITIONS; topology.topics().iter().count()],
            backend: Arc::new(disk.watched(probe)) as Arc<dyn Backend>,
            clock: Arc::new(MachineClock { sim: self.sim.clone(), jumped_ms: Arc::clone(jumped_ms) }),
            metrics: Arc::clone(&metrics),
            tasks: Arc::clone(&tasks),
        };
        for at in self.workers_of(instance) {
            let Some(mut cell) = self.cell(at) else { return };
            let config = self.worker_config(at, topology);
            *cell = Some(Worker::new(Arc::new(self.sim.named(&at.name())), parts.clone(), config));
        }
        let mut state = self.state();
        (state.tasks[instance], state.metrics[instance]) = (tasks, metrics);
        state.up[instance] = true;
        state.start_at_ms[instance] = 0;
        drop(state);
        self.note(At::instance(instance), "starts");
    }

    fn worker_config(&self, at: At, topology: &Topology) -> WorkerConfig {
        let Choices { exactly_once, transaction_timeout_ms, .. } = self.choices;
        WorkerConfig {
            index: at.worker.unwrap_or(0),
            member: MemberConfig {
                group: APPLICATION.to_owned(),
                instance: at.name(),
                transactional_id: exactly_once.then(|| at.name()),
                transaction_timeout_ms,
                leads: topology.subs().iter().map(SubTopology::lead).collect(),
            },
            exactly_once,
            commit_interval_ms: self.choices.commit_interval_ms,
            commit_idle_ms: self.choices.commit_idle_ms,
            max_poll_records: self.choices.max_poll_records,
            cache_bytes: self.choices.cache_bytes,
            max_changed: self.choices.max_changed,
            max_open_bytes: self.choices.max_open_bytes,
            start_from: StartFrom::Refuse,
            tombstone_retention_ms: TOMBSTONE_RETENTION_MS,
            dead_letter_max_bytes: 1 << 20,
            hash_seed: 0,
        }
    }

    /// An instance ends as on SIGTERM, and comes back later.
    pub fn stop(&self, instance: usize, start_at_ms: u64) {
        self.note(At::instance(instance), "stops");
        let for_good = self.state().random.one_in(2);
        for at in self.workers_of(instance) {
            let Some(mut cell) = self.cell(at) else { continue };
            let Some(mut worker) = cell.take() else { continue };
            let closed = worker.close(for_good);
            drop(worker);
            drop(cell);
            self.state().watch.write_reported(instance, closed.is_err());
            if let Err(halt) = closed {
                self.halted(at, &halt.0);
            }
        }
        self.gone(instance, start_at_ms);
    }

    /// The process dies without a word.
    pub fn kill(&self, instance: usize, start_at_ms: u64) {
        self.note(At::instance(instance), "dies");
        self.gone(instance, start_at_ms);
        let mut state = self.state();
        if std::mem::take(&mut state.power_lost[instance]) {
            let keep = state.random.index(self.instances[instance].disk.unsynced() + 1);
            drop(state);
            self.instances[instance].disk.lose_power(keep);
            self.note(At::instance(instance), "loses power");
        }
    }

    fn gone(&self, instance: usize, start_at_ms: u64) {
        for at in self.workers_of(instance) {
            match self.cell(at) {
                Some(mut cell) => *cell = None,
                None => self.state().doomed[instance] = true,
            }
        }
        let mut state = self.state();
        state.up[instance] = false;
        state.start_at_ms[instance] = start_at_ms;
        state.commits += state.metrics[instance].commits_total.swap(0, Ordering::Relaxed);
        state.watch.forget(instance);
        state.tasks[instance] = Arc::default();
    }

    pub fn commits(&self) -> u64 {
        let state = self.state();
        state.commits + state.metrics.iter().map(|metrics| metrics.commits_total.load(Ordering::Relaxed)).sum::<u64>()
    }

    /// A worker stopped for good: its process ends, and somebody does what it asks for.
    fn halted(&self, at: At, why: &str) {
        let now_ms = self.sim.now();
        let mut state = self.state();
        let soon = now_ms + state.random.below(2 * self.choices.session_ms);
        let space = now_ms.max(state.full_until_ms[at.instance]);
        let wipe = state.random.one_in(6);
        drop(state);
        if why.contains(CRASHED) {
            self.kill(at.instance, soon);
            if wipe {
                self.wipe(at.instance);
            }
        } else if why.contains(FULL) {
            self.kill(at.instance, space);
        } else if why.contains(REFUSED) {
            self.kill(at.instance, soon);
            self.wipe(at.instance);
        } else {
            panic!("{} stopped: {why}", at.name());
        }
    }

    /// The disk is lost, or is dropped by the product at its start because it cannot be opened.
    pub fn wipe(&self, instance: usize) {
        self.note(At::instance(instance), "has lost its disk");
        self.instances[instance].disk.wipe();
    }

    // ---- who goes on

    /// Each worker that `which` lets through goes one step; true where all of them had nothing to do.
    pub fn step_all(&self, which: impl Fn(At) -> bool) -> bool {
        let mut idle = true;
        for instance in 0..INSTANCES {
            for at in self.workers_of(instance).filter(|&at| which(at)) {
                idle &= self.step(at);
            }
        }
        idle
    }

    /// One step of one worker; true where it had nothing to do.
    pub fn step(&self, at: At) -> bool {
        let Some(mut cell) = self.cell(at) else { return true };
        let Some(worker) = cell.as_mut() else { return true };
        let metrics = Arc::clone(&self.state().metrics[at.instance]);
        let commits = metrics.commits_total.load(Ordering::Relaxed);
        self.state().watch.begins(at);
        let stepped = worker.step(Duration::ZERO);
        let settled = worker.is_settled();
        drop(cell);
        self.state().watch.write_reported(at.instance, stepped.is_err());
        let idle = match stepped {
            Ok(step) => step == topology::worker::Step::Idle && settled,
            Err(halt) => {
                self.halted(at, &halt.0);
                false
            }
        };
        if std::mem::take(&mut self.state().doomed[at.instance]) {
            let mut cell = self.cell(at);
            if let Some(cell) = &mut cell {
                **cell = None;
            }
            return false;
        }
        if metrics.commits_total.load(Ordering::Relaxed) > commits {
            self.published(at);
        }
        let mut state = self.state();
        let tasks = Arc::clone(&state.tasks[at.instance]);
        state.watch.views(at, &tasks, self.choices.exactly_once);
        idle
    }

    /// A commit has become the committed view: the last step of the protocol.
    fn published(&self, at: At) {
        let Some(trouble) = self.decide(at, Step::PublishView) else { return };
        let soon = self.sim.now() + self.state().random.below(2 * self.choices.session_ms);
        match trouble {
            Trouble::CrashBefore => self.kill(at.instance, soon),
            Trouble::PowerLoss => {
                self.state().power_lost[at.instance] = true;
                self.kill(at.instance, soon);
            }
            trouble => self.interfere(at, trouble),
        }
    }

    /// From here on nothing goes wrong, and everybody who can runs.
    pub fn make_peace(&self) {
        let mut state = self.state();
        state.peace = true;
        state.aims.clear();
        state.full_until_ms = [0; INSTANCES];
        state.start_at_ms = [0; INSTANCES];
        self.instances.iter().for_each(|instance| instance.disk.heal());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Workers hold the broker, which holds the hook: nothing may outlive a seed.
        self.sim.clear_faults();
    }
}
