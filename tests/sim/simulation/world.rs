//! One simulated world: a broker, machines with disks and clocks, instances with workers on them, and who may interfere with what.
//!
//! Everything runs on one thread. At each call of a worker to the broker or the disk the simulation is asked ([`World::decide`]). It may
//! let the call fail, or freeze the caller right there and let the others go on meanwhile: for a few rounds (a rebalance in the
//! middle of a commit), or for longer than the session timeout (a zombie, which wakes up in the middle of what it was doing).

mod lives;
mod troubles;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use mangrove::scoring::{ModelSlot, ScoringParams, TopicNames, scoring_topology};
use state::backend::{StorePartition, WriteSet};
use topology::broker::{Broker as _, Cleanup, TopicSpec};
use topology::clock::Clock;
use topology::metrics::Metrics;
use topology::simulated::{Fault, SimBroker};
use topology::status::Tasks;
use topology::topology::Topology;
use topology::worker::Worker;

use super::disk::{Disk, Mishap, Probe};
use super::random::Random;
use super::steps::{Step, Tally, Trouble};
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
