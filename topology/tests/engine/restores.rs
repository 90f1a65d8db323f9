//! Whatever a changelog, a disk or a group may look like, a restore comes to its end, and to the right one. (`TestDriver::run` gives up
//! on a worker that never comes to rest.) What needs a real disk or broker is in the product's tests: `tests/kafka/end_to_end/limits.rs`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use topology::broker::{Broker, Event, Member, MemberConfig, Publisher, Reaction, Reader};
use topology::driver::{DriverOptions, TestDriver};
use topology::record::{Fetched, Outgoing, TopicPartition};
use topology::simulated::{Fault, Op};
use topology::status::Phase;
use topology::worker::Step;

use crate::ledger::{self, Balance, accounts, check, pipe, topic};

const PARTITIONS: u32 = 2;

fn changelog(partition: u32) -> TopicPartition {
    TopicPartition { topic: topic("ledger-balances-changelog"), partition }
}

/// Everything so far is processed, several transactions of it, with an erased account among them.
fn worked(exactly_once: bool) -> TestDriver {
    let options = DriverOptions { partitions: PARTITIONS, exactly_once, max_poll_records: 3, ..DriverOptions::default() };
    let mut driver = ledger::driver(options);
    for round in 0..4 {
        for name in accounts(PARTITIONS, 3) {
            pipe(&mut driver, "events", &name, &format!("{round}"));
        }
        driver.run().expect("runs");
    }
    pipe(&mut driver, "orders", &accounts(PARTITIONS, 3)[0], "erase");
    driver.run().expect("runs");
    driver
}

/// Somebody else, in the driver's group or in another one.
fn another(driver: &TestDriver, group: &str) -> impl Member + use<> {
    let config = MemberConfig {
        group: group.into(),
        instance: "another".into(),
        transactional_id: Some("another".to_owned()),
        transaction_timeout_ms: 10_000,
        leads: vec![topic("events")],
    };
    driver.sim.named("another").join(&config).expect("joins")
}

fn send(member: &mut impl Member, key: &str) {
    let value = b"not committed, never to be seen";
    let record = Outgoing { to: changelog(0), key: Some(key.as_bytes()), value: Some(value), timestamp: 0, headers: &[] };
    member.send(&record).expect("is taken");
    member.flush().expect("is taken");
}

/// What may have happened to the changelog, the disk or the broker while the worker was away.
type Mischief = fn(&mut TestDriver);

const CASES: [(&str, Mischief); 8] = [
    ("control records at the end", |_| {}),
    ("compacted gaps, also at the end", |driver| driver.sim.compact(changelog(0).topic)),
    ("compaction that has taken the tombstones", |driver| {
        driver.sim.advance(86_400_001);
        driver.sim.compact(changelog(0).topic);
    }),
    ("a zombie's open transaction in front of the end", |driver| {
        let mut zombie = another(driver, "others");
        zombie.begin().expect("begins");
        send(&mut zombie, "a0");
        // It is silent from here on, its transaction ends by its timeout.
        std::mem::forget(zombie);
    }),
    ("an aborted transaction at the end", |driver| {
        let mut other = another(driver, "others");
        other.begin().expect("begins");
        send(&mut other, "a0");
        other.abort().expect("aborts");
        other.leave(true).expect("leaves");
    }),
    ("a reader that fails at each other call", |driver| {
        let mut calls = 0;
        driver.sim.set_faults(move |call| {
            calls += u32::from(call.op == Op::ReaderPoll);
            let fails = call.op == Op::ReaderPoll && calls % 2 == 1 && calls < 20;
            if fails { Fault::Error(Reaction::Retry) } else { Fault::None }
        });
    }),
    ("committed offsets that are slow to come", |driver| {
        let mut calls = 0;
        driver.sim.set_faults(move |call| {
            calls += u32::from(call.op == Op::Committed);
            if call.op == Op::Committed && calls < 5 { Fault::Error(Reaction::Retry) } else { Fault::None }
        });
    }),
    ("a disk that is full for a while", |driver| {
        driver.disk().limit(Some(64));
        let disk = driver.disk().clone();
        let mut calls = 0;
        driver.sim.set_faults(move |call| {
            calls += u32::from(call.op == Op::Join);
            if calls > 3 {
                disk.limit(None);
            }
            Fault::None
        });
    }),
];

#[test]
fn every_restore_ends_and_ends_right() {
    for exactly_once in [true, false] {
        for (what, mischief) in CASES {
            for wipe in [false, true] {
                let mut driver = worked(exactly_once);
                driver.crash(wipe);
                mischief(&mut driver);
                println!("{what}, wiped {wipe}, exactly once {exactly_once}");
                for name in accounts(PARTITIONS, 3) {
                    pipe(&mut driver, "events", &name, "9");
                }
                driver.run().unwrap_or_else(|halt| panic!("{what}, wiped {wipe}, exactly once {exactly_once}: {halt}"));
                driver.sim.clear_faults();
                driver.disk().limit(None);
                let tasks = driver.tasks.all();
                assert!(tasks.values().all(|task| task.phase == Phase::Running && task.remaining == 0), "{what}: {tasks:?}");
                check(&driver, PARTITIONS, exactly_once);
                assert_eq!(driver.metrics.stores_rebuilt_total.load(Ordering::Relaxed), 0, "{what}");
            }
        }
    }
}

#[test]
fn a_log_start_above_where_the_store_stands_rebuilds_that_store_alone() {
    let mut driver = worked(true);
    driver.crash(false);
    // Another owner went on: the same last values again, and everything before them is gone.
    let records = driver.sim.committed_records(changelog(0).topic);
    let stands = driver.sim.bounds_of(changelog(0)).expect("it exists").end;
    let mut publisher = driver.sim.publisher().expect("no fault is set");
    let ours: Vec<_> = records.iter().filter(|record| record.partition == changelog(0)).collect();
    let padding = Outgoing { to: changelog(0), key: Some(b"nobody"), value: None, timestamp: 0, headers: &[] };
    publisher.send(&padding).expect("is taken");
    for record in &ours {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        publisher.send(&Outgoing { to: changelog(0), key, value, timestamp: 0, headers: &[] }).expect("is taken");
    }
    publisher.flush().expect("is taken");
    driver.sim.truncate_before(changelog(0), stands + 1);
    driver.run().expect("runs");
    assert_eq!(driver.metrics.stores_rebuilt_total.load(Ordering::Relaxed), 1);
    assert_eq!(driver.metrics.restored_records_total.load(Ordering::Relaxed), ours.len() as u64, "the other store is kept");
    check(&driver, PARTITIONS, true);
}

#[test]
fn a_damaged_value_on_disk_costs_its_partition_alone() {
    for exactly_once in [true, false] {
        let mut driver = worked(exactly_once);
        let name = &accounts(PARTITIONS, 3)[1];
        let partition = topology::partitioner::partition_of(name.as_bytes(), PARTITIONS);
        let mut set = state::backend::WriteSet::default();
        set.begin(state::backend::StorePartition { store: "balances".into(), partition });
        set.change(name.as_bytes(), Some(&[1, 200]));
        state::backend::Backend::write(driver.disk(), &set).expect("written");
        driver.crash(false);
        pipe(&mut driver, "events", name, "5");
        driver.run().expect("goes on");
        assert_eq!(driver.metrics.stores_rebuilt_total.load(Ordering::Relaxed), 1);
        let records = driver.sim.committed_records(changelog(0).topic);
        let theirs = records.iter().filter(|record| record.partition.partition == partition).count() as u64;
        let restored = driver.metrics.restored_records_total.load(Ordering::Relaxed);
        assert!(restored <= theirs, "{restored} records were read for one partition of {theirs}");
        check(&driver, PARTITIONS, exactly_once);
    }
}

#[test]
fn a_full_disk_under_way_loses_nothing_and_the_worker_comes_back_by_itself() {
    for exactly_once in [true, false] {
        for room in [0, 40] {
            let mut driver = worked(exactly_once);
            driver.disk().limit(Some(room));
            for name in accounts(PARTITIONS, 3) {
                pipe(&mut driver, "events", &name, "9");
            }
            let pauses = |driver: &TestDriver| driver.metrics.store_pauses_total.load(Ordering::Relaxed);
            for _ in 0..2_000 {
                if pauses(&driver) > 0 {
                    break;
                }
                driver.step().expect("it does not stop for good");
                driver.sim.advance(1);
            }
            assert_eq!(pauses(&driver), 1, "room for {room} bytes");
            assert!(driver.tasks.all().is_empty(), "it gave its partitions back");
            for _ in 0..2_000 {
                driver.sim.advance(10);
                assert_eq!(driver.step().expect("it waits"), Step::Backoff, "the disk is still full");
            }
            assert!(driver.sim.open_transactions().is_empty(), "nobody waits for what it left");
            driver.disk().limit(None);
            driver.run().expect("goes on");
            check(&driver, PARTITIONS, exactly_once);
            for wipe in [false, true] {
                driver.crash(wipe);
                driver.run().expect("goes on");
                check(&driver, PARTITIONS, exactly_once);
            }
        }
    }
}

#[test]
fn a_rebalance_in_the_middle_of_a_restore_is_followed_and_the_rest_restored() {
    let mut driver = worked(true);
    driver.crash(true);
    // The changelogs show nothing for a while: the restore stays under way.
    driver.sim.set_faults(|call| if call.op == Op::ReaderPoll { Fault::Error(Reaction::Retry) } else { Fault::None });
    for _ in 0..50 {
        driver.step().expect("steps");
        driver.sim.advance(1);
    }
    assert!(driver.tasks.all().values().all(|task| task.phase == Phase::Restoring));
    assert_eq!(driver.tasks.all().len(), PARTITIONS as usize);
    let mut other = another(&driver, "ledger");
    let mut theirs = Vec::new();
    for _ in 0..500 {
        driver.step().expect("steps");
        driver.sim.advance(1);
        if let Some(event) = other.poll(&mut Fetched::default(), 1, Duration::ZERO).expect("polls") {
            if let Event::Assigned(partitions) = &event {
                theirs.extend(partitions.iter().copied());
            }
            other.acknowledge(&event).expect("is acknowledged");
        }
    }
    assert_eq!((theirs.len(), driver.tasks.all().len()), (1, 1), "one partition moved, out of a restore that was under way");
    driver.sim.clear_faults();
    for _ in 0..500 {
        driver.step().expect("steps");
        driver.sim.advance(1);
        if let Some(event) = other.poll(&mut Fetched::default(), 1, Duration::ZERO).expect("polls") {
            other.acknowledge(&event).expect("is acknowledged");
        }
    }
    assert!(driver.tasks.all().values().all(|task| task.phase == Phase::Running), "the one that stayed is restored");
    other.leave(true).expect("leaves");
    driver.run().expect("runs");
    assert_eq!(driver.tasks.all().len(), PARTITIONS as usize);
    check(&driver, PARTITIONS, true);
}

#[test]
fn running_tasks_go_on_while_others_restore_and_the_pace_is_told() {
    let mut driver = worked(true);
    let names = accounts(PARTITIONS, 3);
    let partition_of = |name: &str| topology::partitioner::partition_of(name.as_bytes(), PARTITIONS);
    let (ours, theirs) =
        (names.iter().find(|n| partition_of(n) == 0).expect("one"), names.iter().find(|n| partition_of(n) == 1).expect("one"));
    // Partition 1's changelog has a record that nobody has decided yet: its restore waits, partition 0's is done.
    driver.crash(true);
    let mut zombie = another(&driver, "others");
    zombie.begin().expect("begins");
    let record = Outgoing { to: changelog(1), key: Some(b"x"), value: Some(b"y"), timestamp: 0, headers: &[] };
    zombie.send(&record).expect("is taken");
    zombie.flush().expect("is taken");
    pipe(&mut driver, "events", ours, "5");
    pipe(&mut driver, "events", theirs, "5");
    let before = driver.read("balances").len();
    let mut seen = 0;
    for _ in 0..300 {
        driver.step().expect("steps");
        driver.sim.advance(1);
        seen += driver.read("balances").len();
    }
    let tasks = driver.tasks.all();
    let restoring: Vec<_> = tasks.values().filter(|task| task.phase == Phase::Restoring).collect();
    assert_eq!((before, seen, restoring.len()), (24, 1, 1), "the running task's record has its verdict, the other one's waits");
    let waiting = restoring[0];
    assert!(waiting.restored > 0 && waiting.remaining > 0 && waiting.rate_per_second > 0, "{waiting:?}");
    assert!(waiting.eta_seconds.is_some(), "{waiting:?}");
    zombie.abort().expect("aborts");
    zombie.leave(true).expect("leaves");
    driver.run().expect("runs");
    check(&driver, PARTITIONS, true);
    let done = driver.tasks.all();
    assert!(done.values().all(|task| task.eta_seconds.is_none() && task.rate_per_second == 0), "{done:?}");
}

#[test]
fn an_emptied_changelog_is_an_empty_store() {
    let mut driver = worked(true);
    for partition in 0..PARTITIONS {
        let end = driver.sim.bounds_of(changelog(partition)).expect("it exists").end;
        driver.sim.truncate_before(changelog(partition), end);
        let mut reader = driver.sim.reader().expect("no fault is set");
        assert_eq!(reader.bounds(changelog(partition)).expect("told").start, end);
    }
    driver.crash(true);
    driver.run().expect("there is nothing to read, and that is the end");
    assert_eq!(driver.metrics.restored_records_total.load(Ordering::Relaxed), 0);
    assert_eq!(driver.value::<Balance>("balances", b"a0"), None);
}
