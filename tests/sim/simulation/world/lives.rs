//! Who lives: instances that start, leave, die and lose their disks.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, TryLockError, Weak};

use state::backend::Backend;
use topology::broker::MemberConfig;
use topology::metrics::Metrics;
use topology::restore::StartFrom;
use topology::simulated::SimBroker;
use topology::status::Tasks;
use topology::topology::{SubTopology, Topology};
use topology::worker::{Parts, Worker, WorkerConfig};

use super::super::disk::{CRASHED, FULL, REFUSED};
use super::super::trace::At;
use super::{APPLICATION, Choices, DiskProbe, INSTANCES, Instance, MachineClock, PARTITIONS, TOMBSTONE_RETENTION_MS, World};

impl World {
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

    pub(super) fn cell(&self, at: At) -> Option<MutexGuard<'_, Option<Worker<SimBroker>>>> {
        match self.instances[at.instance].cells[at.worker?].try_lock() {
            Ok(cell) => Some(cell),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn workers_of(&self, instance: usize) -> impl Iterator<Item = At> + use<> {
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
    pub(super) fn halted(&self, at: At, why: &str) {
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
}
