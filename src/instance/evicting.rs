//! The thread that lets idle users' profiles leave this machine (`STATE_TTL`), for the partitions that it runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use state::backend::{Backend, StorePartition};
use state::tiered::{Recall, Tiered};
use topology::status::{Phase, Tasks};
use topology::topology::Topology;
use tracing::{info, warn};

use super::InstanceError;
use crate::clock::monotonic;
use crate::config::Settings;
use crate::eviction::Sweep;
use crate::stop::Stop;
use crate::threads::{ended_by, spawn};
use crate::tiers::{Ladder, Tiers};
use crate::trouble::Trouble;

/// Keys of one bite: one question to Postgres, and a write that its worker hardly notices.
const BITE: usize = 1_000;
/// Between two bites of one partition, so that looking takes a small part of one core.
const REST: Duration = Duration::from_millis(10);
/// Between two ways through a partition, at least and at most; else a tenth of the limit.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(600);
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);
/// A partition is compacted once one of so many of its keys was evicted.
const TIDY_SHARE: u64 = 10;
/// How soon the end is noticed.
const LOOK: Duration = Duration::from_millis(20);

/// The running thread.
pub(super) struct Evicting {
    thread: JoinHandle<()>,
    stop: Stop,
}

/// The store with what lies outside of this machine.
pub(super) struct Outside {
    pub(super) tiered: Arc<Tiered>,
    ladder: Arc<Ladder>,
    /// The sub-topology that keeps profiles, and their store's name.
    sub: u16,
    store: Arc<str>,
}

impl Outside {
    /// Above the store on disk.
    ///
    /// # Errors
    /// An address that a tier's client cannot use.
    pub(super) fn new(settings: &Settings, topology: &Topology, disk: &Arc<dyn Backend>) -> Result<Self, InstanceError> {
        // Its own connections: neither queries nor the projection make a worker wait for one.
        let ladder = Arc::new(Ladder::new(Tiers::open(settings, topology.application())?)?);
        let tiered = Arc::new(Tiered::new(Arc::clone(disk), Arc::clone(&ladder) as Arc<dyn Recall>));
        let subs = topology.subs().iter().enumerate();
        let mut stores = subs.flat_map(|(sub, spec)| spec.stores.iter().map(move |store| (sub as u16, Arc::clone(&store.name))));
        let (sub, store) = stores.next().expect("invariant: the scoring topology keeps profiles, and nothing else");
        Ok(Self { tiered, ladder, sub, store })
    }

    pub(super) fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.tiered) as Arc<dyn Backend>
    }
}

/// A store that evicted is of no use where nothing brings profiles back: it is dropped, and restored in full from the changelog.
pub(super) fn expect(folder: &Path, evicts: bool) -> Result<(), InstanceError> {
    let failed = |why: std::io::Error| InstanceError(format!("cannot write into {}: {why}. Check STATE_DIR", folder.display()));
    let (marker, store) = (folder.join("evicts"), folder.join("rocksdb"));
    if evicts {
        return std::fs::write(marker, "").map_err(failed);
    }
    if marker.exists() {
        if store.exists() {
            warn!(path = %store.display(), "STATE_TTL is off now: the store, from which profiles have left, is restored from the changelog");
            std::fs::remove_dir_all(&store).map_err(failed)?;
        }
        std::fs::remove_file(marker).map_err(failed)?;
    }
    Ok(())
}

/// One partition's turn.
#[derive(Default)]
struct Turn {
    /// Not before; none is at once.
    due: Option<Duration>,
    evicted: u64,
}

impl Evicting {
    pub(super) fn start(outside: Outside, tasks: &Arc<Tasks>, ttl_s: u64) -> Self {
        let stop = Stop::default();
        let (stopped, tasks) = (stop.clone(), Arc::clone(tasks));
        let work = move || run(&outside, &tasks, Duration::from_secs(ttl_s), &stopped);
        Self { thread: spawn("eviction", work), stop }
    }

    /// Ends it; gives up after `within`.
    pub(super) fn stop(self, within: Duration) {
        self.stop.raise();
        ended_by(&self.thread, monotonic() + within);
    }
}

fn run(outside: &Outside, tasks: &Tasks, ttl: Duration, stop: &Stop) {
    let Outside { tiered, ladder, sub, store } = outside;
    let mut sweep = Sweep::new(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
    let again = (ttl / 10).clamp(AGAIN_MIN, AGAIN_MAX);
    let mut turns: BTreeMap<u32, Turn> = BTreeMap::new();
    let mut trouble = Trouble::default();
    while !stop.raised() {
        let running = tasks.all();
        let here = running.iter().filter(|(task, status)| task.sub == *sub && status.phase == Phase::Running);
        let partitions: Vec<u32> = here.map(|(task, _)| task.partition).collect();
        turns.retain(|partition, _| partitions.contains(partition));
        sweep.keep(|of| partitions.contains(&of.partition));
        let mut worked = false;
        for partition in partitions {
            let of = StorePartition { store: Arc::clone(store), partition };
            let turn = turns.entry(partition).or_default();
            if stop.raised() || turn.due.is_some_and(|due| monotonic() < due) || tiered.is_staged(&of) {
                continue;
            }
            match sweep.bite(tiered, &of, BITE, &|users| ladder.held_cold(users)) {
                Ok(bite) => {
                    worked = true;
                    trouble.is_over();
                    turn.evicted += bite.staged as u64;
                    turn.due = Some(monotonic() + if bite.ended { again } else { REST });
                    if bite.ended && turn.evicted > 0 {
                        tidy(tiered, &of, &mut turn.evicted, bite.behind);
                    }
                }
                Err(why) => {
                    if trouble.is_news(&why) {
                        warn!(store = %of, %why, "idle profiles stay for now; trying again");
                    }
                    turn.due = Some(monotonic() + RETRY);
                }
            }
        }
        if !worked {
            std::thread::park_timeout(LOOK);
        }
    }
}

/// Stubs lie above the values that they stand for until RocksDB gets around to it. Where they are many the room is wanted now.
fn tidy(tiered: &Tiered, of: &StorePartition, evicted: &mut u64, behind: usize) {
    let keys = tiered.size(of).map_or(0, |size| size.keys);
    if *evicted < keys / TIDY_SHARE {
        return;
    }
    if let Err(why) = tiered.compact(of) {
        warn!(store = %of, %why, "a store could not be compacted");
    }
    info!(store = %of, evicted = std::mem::take(evicted), behind, "idle profiles left this machine");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_evicted_is_not_used_without_eviction() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("rocksdb");
        std::fs::create_dir(&store).expect("a store");
        for (evicts, kept) in [(false, true), (true, true), (true, true), (false, false)] {
            expect(folder.path(), evicts).expect("written");
            assert_eq!(store.exists(), kept, "{evicts}");
        }
        std::fs::create_dir(&store).expect("a store");
        expect(folder.path(), false).expect("written");
        assert!(store.exists(), "a full one stays");
    }
}
