//! Eviction: whatever leaves this machine, comes back, is away for a while or lost with the disk, verdicts and profiles are those of a life
//! in which everything stayed.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use mangrove::eviction::{Bite, Sweep};
use mangrove::scoring::ScoringParams;
use proptest::prelude::*;
use state::backend::{Backend, StorePartition};
use state::tier::memory::MemoryTier;
use state::tier::{Applied, Batch, Change, Lookup, Progress, Tier, Unreachable};
use state::tiered::{Recall, Recalled, Stub, Tiered, bring_back};
use topology::driver::DriverOptions;
use topology::simulated::StoredRecord;
use topology::worker::Step;

use crate::scoring_world::{T, World, bytes, model, payment};

const HOUR_MS: i64 = 3_600_000;
const TTL_MS: i64 = 24 * HOUR_MS;
const PARTITIONS: u32 = 3;
const USERS: u32 = 24;

/// A tier that goes down, and how far the changelog has come into it.
#[derive(Debug, Default)]
struct Server {
    tier: Mutex<MemoryTier>,
    down: AtomicBool,
    /// By partition: how many of the changelog's records it has, and the offset behind them.
    has: Mutex<BTreeMap<u32, (usize, u64)>>,
}

impl Server {
    fn answers(&self) -> Result<(), Unreachable> {
        if self.down.load(Ordering::Relaxed) { Err(Unreachable("it is down".to_owned())) } else { Ok(()) }
    }

    /// It is restarted empty: what it had comes again from the changelog.
    fn forget(&self) {
        *self.tier.lock().unwrap() = MemoryTier::default();
        self.has.lock().unwrap().clear();
    }

    /// Takes up to so many more records of the changelog, of each partition.
    fn project(&self, changelog: &[StoredRecord], most: usize) {
        let mut has = self.has.lock().unwrap();
        for partition in 0..PARTITIONS {
            let (count, from) = has.entry(partition).or_default();
            let records = changelog.iter().filter(|record| record.partition.partition == partition).skip(*count);
            for record in records.take(most) {
                let user = std::str::from_utf8(record.key.as_deref().unwrap()).unwrap();
                let (offset, value) = (record.offset, record.value.as_deref());
                let change = Change { user, offset, at_ms: record.timestamp, value, json: "{}" };
                let (from, to) = (std::mem::replace(from, offset + 1), offset + 1);
                let (first, changes) = (from == 0, vec![change]);
                let batch = Batch { topic: "changelog", partition, generation: 1, from, to, first, changes };
                assert_eq!(now(self.tier.lock().unwrap().write(&[batch])), Ok(vec![Applied::Taken]));
                *count += 1;
            }
        }
    }

    fn look(&self, users: &[&str]) -> Result<Vec<Lookup>, Unreachable> {
        self.answers()?;
        now(self.tier.lock().unwrap().read(users))
    }
}

impl Tier for Server {
    async fn read(&self, users: &[&str]) -> Result<Vec<Lookup>, Unreachable> {
        self.look(users)
    }

    async fn write(&self, _: &[Batch<'_>]) -> Result<Vec<Applied>, Unreachable> {
        unreachable!("tests write by `project`")
    }

    async fn progress(&self, _: &[(&str, u32)]) -> Result<Vec<Option<Progress>>, Unreachable> {
        unreachable!("nobody asks here")
    }
}

/// Nothing in memory waits.
fn now<T>(asking: impl Future<Output = T>) -> T {
    match pin!(asking).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("a tier in memory waited"),
    }
}

#[derive(Debug, Default)]
struct Servers {
    warm: Server,
    cold: Server,
    /// Calls, and of them those of more than one user.
    trips: AtomicU64,
}

impl Recall for Servers {
    fn recall(&self, wanted: &[(&[u8], Stub)]) -> Result<Vec<Recalled>, Unreachable> {
        self.trips.fetch_add(1, Ordering::Relaxed);
        let wanted: Vec<(&str, Stub)> = wanted.iter().map(|(key, stub)| (std::str::from_utf8(key).unwrap(), *stub)).collect();
        now(bring_back(Some(("redis", &self.warm)), Some(("postgres", &self.cold)), &wanted))
    }
}

/// A world that evicts, and beside it one of the same payments that does not.
struct Twins {
    world: World,
    plain: World,
    servers: Arc<Servers>,
    tiered: Arc<Mutex<Option<Arc<Tiered>>>>,
    sweep: Sweep,
    changelog: Vec<StoredRecord>,
    /// Of lives before a crash.
    evicted: u64,
}

impl Twins {
    fn new(partitions: u32) -> Self {
        // Nothing stays in memory for long: each batch reads the store.
        let options = DriverOptions { partitions, cache_bytes: 0, max_poll_records: 7, ..DriverOptions::default() };
        let params = ScoringParams::default();
        let (mut world, plain) = (World::new(&params, options.clone()), World::new(&params, options));
        for world in [&world, &plain] {
            world.slot.set(Some(model(1)));
        }
        let servers: Arc<Servers> = Arc::default();
        let tiered: Arc<Mutex<Option<Arc<Tiered>>>> = Arc::default();
        let (recall, shown) = (Arc::clone(&servers), Arc::clone(&tiered));
        world.driver = world.driver.seen_through(move |disk| {
            let made = Arc::new(Tiered::new(disk, Arc::clone(&recall) as Arc<dyn Recall>));
            *shown.lock().unwrap() = Some(Arc::clone(&made));
            made as Arc<dyn Backend>
        });
        Self { world, plain, servers, tiered, sweep: Sweep::new(TTL_MS), changelog: Vec::new(), evicted: 0 }
    }

    fn tiered(&self) -> Arc<Tiered> {
        Arc::clone(self.tiered.lock().unwrap().as_ref().unwrap())
    }

    fn evicted(&self) -> u64 {
        self.evicted + self.tiered().counts().evicted.load(Ordering::Relaxed)
    }

    fn pay(&mut self, user: &str, amount: f64, at: i64) {
        let json = payment(user, amount, if amount < 20.0 { "bakery" } else { "garage" }, at);
        for world in [&mut self.world, &mut self.plain] {
            world.driver.pipe("transactions", Some(user.as_bytes()), Some(json.as_bytes()), at);
        }
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            if self.world.driver.step().unwrap() != Step::Worked {
                self.world.driver.sim.advance(20);
            }
        }
    }

    /// Both to the end, with all servers up.
    fn rest(&mut self) {
        self.servers.warm.down.store(false, Ordering::Relaxed);
        self.servers.cold.down.store(false, Ordering::Relaxed);
        // A profile that left is in the cold tier; one that was restarted empty is filled anew.
        self.project(usize::MAX);
        self.world.driver.run().unwrap();
        self.plain.driver.run().unwrap();
    }

    fn project(&mut self, most: usize) {
        self.changelog.extend(self.world.driver.read("test-profiles-changelog"));
        self.servers.warm.project(&self.changelog, most);
        self.servers.cold.project(&self.changelog, most);
    }

    fn store(partition: u32) -> StorePartition {
        StorePartition { store: "profiles".into(), partition }
    }

    /// A bite of a partition, put down at once if the worker comes by.
    fn bite(&mut self, partition: u32, limit: usize) -> Option<Bite> {
        let (tiered, servers) = (self.tiered(), Arc::clone(&self.servers));
        let held = |users: Vec<String>| {
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            let stub = |lookup| if let Lookup::Found(held) = lookup { Some(Stub::of(&held.value)) } else { None };
            Ok(servers.cold.look(&users)?.into_iter().map(stub).collect())
        };
        // What is staged from before is replaced, and a partition that is not open (after a crash) has nothing to look at.
        self.sweep.bite(&tiered, &Self::store(partition), limit, &held).ok()
    }

    /// Everybody idle leaves.
    fn evict_all(&mut self) {
        self.project(usize::MAX);
        for partition in 0..self.world.partitions {
            // The first way finds the newest payment, the second one who is idle beside it.
            for _ in 0..2 {
                self.bite(partition, usize::MAX);
            }
            self.steps(3);
        }
    }

    fn is_stub(&self, user: &str) -> bool {
        let partition = Self::store(self.world.partition_of(user));
        let value = self.world.driver.disk().get(&partition, user.as_bytes()).unwrap();
        value.is_some_and(|value| Stub::decode(&value).is_some())
    }

    /// Verdicts and profiles of the two, compared byte for byte.
    fn compare(&mut self) {
        self.rest();
        let texts = |records: Vec<StoredRecord>| -> Vec<(u32, Vec<u8>)> {
            records.iter().map(|record| (record.partition.partition, bytes(record).to_vec())).collect()
        };
        for topic in ["verdicts", "anomalies"] {
            let (with, without) = (texts(self.world.driver.read(topic)), texts(self.plain.driver.read(topic)));
            assert_eq!(with.len(), without.len(), "{topic}");
            assert!(with == without, "{topic} differ");
        }
        assert!(self.world.driver.read("dead-letters").is_empty());
        self.project(usize::MAX);
        let last = |records: &[StoredRecord]| -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
            let pair =
                |record: &StoredRecord| (record.key.as_deref().unwrap().to_vec(), record.value.as_deref().map(<[u8]>::to_vec));
            records.iter().map(pair).collect()
        };
        let plain = self.plain.driver.sim.committed_records(self.changelog[0].partition.topic);
        assert!(last(&self.changelog) == last(&plain), "profiles differ");
        // What is on disk is the changelog's last value, or its digest.
        for (user, value) in last(&self.changelog) {
            let partition = Self::store(self.world.partition_of(std::str::from_utf8(&user).unwrap()));
            let kept = self.world.driver.disk().get(&partition, &user).unwrap();
            let stub = value.as_deref().map(|value| Stub::of(value).encode().to_vec());
            assert!(kept == value || kept == stub, "the store differs from its changelog");
        }
    }
}

#[test]
fn an_idle_user_leaves_a_stub_and_comes_back_with_the_next_payment() {
    let mut twins = Twins::new(1);
    for user in ["idle", "idle too", "busy"] {
        (0..5).for_each(|n| twins.pay(user, 5.0, T + n * HOUR_MS));
    }
    twins.rest();
    twins.pay("busy", 5.0, T + 2 * TTL_MS);
    twins.rest();
    // Not before the cold tier has them.
    twins.servers.cold.forget();
    twins.bite(0, usize::MAX);
    assert_eq!(twins.bite(0, usize::MAX), Some(Bite { staged: 0, behind: 2, ended: true }));
    twins.evict_all();
    assert!(twins.is_stub("idle") && twins.is_stub("idle too") && !twins.is_stub("busy"));
    assert_eq!(twins.evicted(), 2);
    // All that a batch needs comes in one trip.
    let before = twins.servers.trips.load(Ordering::Relaxed);
    for user in ["idle", "idle too", "busy"] {
        twins.pay(user, 900.0, T + 2 * TTL_MS + HOUR_MS);
    }
    twins.compare();
    assert_eq!(twins.servers.trips.load(Ordering::Relaxed) - before, 1);
    assert!(!twins.is_stub("idle") && !twins.is_stub("idle too"));
}

#[test]
fn without_any_tier_the_partition_waits_and_others_go_on() {
    let mut twins = Twins::new(PARTITIONS);
    let user_in = |partition: u32, twins: &Twins| {
        (0..).map(|n| format!("user-{n}")).find(|user| twins.world.partition_of(user) == partition).unwrap()
    };
    let (away, here) = (user_in(0, &twins), user_in(1, &twins));
    let mate = (0..).map(|n| format!("mate-{n}")).find(|user| twins.world.partition_of(user) == 0).unwrap();
    for user in [&away, &here] {
        twins.pay(user, 5.0, T);
    }
    twins.pay(&mate, 5.0, T + 2 * TTL_MS);
    twins.rest();
    twins.evict_all();
    assert!(twins.is_stub(&away) && !twins.is_stub(&here));
    twins.world.driver.read("verdicts");
    twins.plain.driver.run().unwrap();
    twins.plain.driver.read("verdicts");
    twins.servers.warm.down.store(true, Ordering::Relaxed);
    twins.servers.cold.down.store(true, Ordering::Relaxed);
    for user in [&away, &here] {
        twins.pay(user, 6.0, T + 2 * TTL_MS);
    }
    twins.steps(2_000);
    let waiting = |twins: &Twins| -> Vec<u32> {
        let all = twins.world.driver.tasks.all();
        all.iter().filter(|(_, task)| task.waits_for_tiers_since_ms.is_some()).map(|(id, _)| id.partition).collect()
    };
    let verdicts = |records: Vec<StoredRecord>| -> Vec<u32> { records.iter().map(|record| record.partition.partition).collect() };
    assert_eq!(waiting(&twins), [0]);
    assert_eq!(verdicts(twins.world.driver.read("verdicts")), [1], "the other partition goes on");
    let pauses = twins.world.driver.metrics.tier_pauses_total.load(Ordering::Relaxed);
    assert!((2..20).contains(&pauses), "it asks again, and ever less often: {pauses}");
    assert_eq!(twins.world.driver.metrics.aborts_total.load(Ordering::Relaxed), 0);
    // Nor is the user taken for a new one by a worker that starts meanwhile.
    twins.world.driver.crash(false);
    twins.steps(500);
    assert_eq!(waiting(&twins), [0]);
    assert!(twins.world.driver.read("verdicts").is_empty());
    // One of the two is enough.
    twins.servers.cold.down.store(false, Ordering::Relaxed);
    twins.world.driver.run().unwrap();
    assert_eq!(waiting(&twins), [0_u32; 0]);
    assert_eq!(verdicts(twins.world.driver.read("verdicts")), [0]);
    twins.plain.driver.run().unwrap();
    twins.plain.driver.read("verdicts");
    twins.compare();
}

#[test]
fn evicted_users_are_erased_and_reset_like_others_also_while_the_tiers_are_down() {
    for (kind, seen_after) in [("erase", 1), ("reset", 1)] {
        let mut twins = Twins::new(1);
        twins.pay("idle", 5.0, T);
        twins.pay("busy", 5.0, T + 2 * TTL_MS);
        twins.rest();
        twins.evict_all();
        assert!(twins.is_stub("idle"));
        twins.servers.warm.down.store(true, Ordering::Relaxed);
        twins.servers.cold.down.store(true, Ordering::Relaxed);
        let command = format!(r#"{{"kind":"{kind}","user_id":"idle"}}"#);
        for world in [&mut twins.world, &mut twins.plain] {
            world.command(&command, "idle", T + 2 * TTL_MS);
        }
        twins.steps(100);
        assert!(twins.is_stub("idle"), "nothing was decided yet");
        twins.rest();
        assert!(!twins.is_stub("idle"));
        twins.pay("idle", 7.0, T + 2 * TTL_MS + 1);
        twins.compare();
        assert_eq!(twins.world.seen("idle"), Some(seen_after), "{kind}");
        let decisions = [&mut twins.world, &mut twins.plain].map(|world| world.driver.read("test-decisions").len());
        assert_eq!(decisions[0], decisions[1], "each is decided once");
    }
}

#[test]
fn a_restore_brings_full_profiles_which_may_leave_again() {
    let mut twins = Twins::new(1);
    twins.pay("idle", 5.0, T);
    twins.pay("busy", 5.0, T + 2 * TTL_MS);
    twins.rest();
    twins.evict_all();
    assert!(twins.is_stub("idle"));
    twins.world.driver.crash(false);
    twins.world.driver.run().unwrap();
    assert!(twins.is_stub("idle"), "a store that is kept keeps its stubs");
    twins.world.driver.crash(true);
    twins.world.driver.run().unwrap();
    assert_eq!(twins.world.seen("idle"), Some(1), "restored in full");
    twins.evict_all();
    assert!(twins.is_stub("idle"));
    twins.pay("idle", 6.0, T + 2 * TTL_MS);
    twins.compare();
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Act {
    /// A user pays, so long after the payment before.
    Pay {
        user: u32,
        amount: f64,
        after_ms: i64,
    },
    Steps(usize),
    /// The projection writes so many records more.
    Project(usize),
    Bite {
        partition: u32,
        limit: usize,
    },
    /// Servers go up and down.
    Outage {
        warm: bool,
        cold: bool,
    },
    /// Redis loses what it has; Postgres too, or it does not.
    Loss {
        cold: bool,
    },
    Crash {
        wipe: bool,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let pay = (0..USERS, 1.0..500.0, 0..6 * HOUR_MS);
    prop_oneof![
        // Some pay often, others seldom.
        12 => pay.prop_map(|(user, amount, after_ms)| Act::Pay { user: user * user / USERS, amount, after_ms }),
        8 => (1_usize..12).prop_map(Act::Steps),
        5 => (1_usize..30).prop_map(Act::Project),
        6 => (0..PARTITIONS, 1_usize..20).prop_map(|(partition, limit)| Act::Bite { partition, limit }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(warm, cold)| Act::Outage { warm, cold }),
        1 => any::<bool>().prop_map(|cold| Act::Loss { cold }),
        1 => any::<bool>().prop_map(|wipe| Act::Crash { wipe }),
    ]
}

/// Evicted and brought back over all cases: a suite in which nothing leaves would prove nothing.
static LEFT: AtomicU64 = AtomicU64::new(0);
static CAME: AtomicU64 = AtomicU64::new(0);

fn live(acts: &[Act]) {
    let mut twins = Twins::new(PARTITIONS);
    let mut at = T;
    for act in acts {
        match *act {
            Act::Pay { user, amount, after_ms } => {
                at += after_ms;
                twins.pay(&format!("user-{user}"), amount, at);
            }
            Act::Steps(count) => twins.steps(count),
            Act::Project(most) => twins.project(most),
            Act::Bite { partition, limit } => {
                twins.bite(partition, limit);
            }
            Act::Outage { warm, cold } => {
                twins.servers.warm.down.store(warm, Ordering::Relaxed);
                twins.servers.cold.down.store(cold, Ordering::Relaxed);
            }
            Act::Loss { cold } => {
                twins.servers.warm.forget();
                if cold {
                    twins.servers.cold.forget();
                }
            }
            Act::Crash { wipe } => {
                twins.evicted = twins.evicted();
                CAME.fetch_add(twins.tiered().counts().brought_back.load(Ordering::Relaxed), Ordering::Relaxed);
                twins.world.driver.crash(wipe);
            }
        }
    }
    twins.compare();
    LEFT.fetch_add(twins.evicted(), Ordering::Relaxed);
    CAME.fetch_add(twins.tiered().counts().brought_back.load(Ordering::Relaxed), Ordering::Relaxed);
}

#[test]
fn over_outages_losses_and_crashes_nothing_but_the_place_of_profiles_changes() {
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    let acts = proptest::collection::vec(act(), 100..400);
    proptest!(config, |(acts in acts)| live(&acts));
    let (left, came) = (LEFT.load(Ordering::Relaxed), CAME.load(Ordering::Relaxed));
    assert!(left > 100 && came > 50, "{left} left, {came} came back");
}
