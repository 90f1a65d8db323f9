//! Partitions share a worker: one that is poisoned, or that has far more to do than the others, takes its share and no more.

use topology::broker::Reaction;
use topology::driver::{DriverOptions, TestDriver};
use topology::partitioner::partition_of;
use topology::simulated::{Fault, Op};
use topology::status::Phase;

use crate::ledger::{self, accounts, check, pipe};

const PARTITIONS: u32 = 4;

fn driver(max_open_bytes: usize) -> TestDriver {
    let options = DriverOptions { partitions: PARTITIONS, max_poll_records: 16, max_open_bytes, ..DriverOptions::default() };
    let mut driver = ledger::driver(options);
    driver.run().expect("runs");
    driver
}

/// One partition has a thousand records of this kind waiting, the others ten good ones each; the number of records of the first
/// partition that were done when all of the others' were.
fn done_meanwhile(value: &str) -> usize {
    // Each round commits, so that what is done shows.
    let mut driver = driver(1);
    let names = accounts(PARTITIONS, 1);
    for _ in 0..1_000 {
        pipe(&mut driver, "events", &names[0], value);
    }
    for _ in 0..10 {
        for name in &names[1..] {
            pipe(&mut driver, "events", name, "3");
        }
    }
    let busy = partition_of(names[0].as_bytes(), PARTITIONS);
    let (mut of_busy, mut of_others) = (0, 0);
    for _ in 0..10_000 {
        driver.step().expect("steps");
        driver.sim.advance(1);
        for record in driver.read("balances").into_iter().chain(driver.read("dead")) {
            *(if record.partition.partition == busy { &mut of_busy } else { &mut of_others }) += 1;
        }
        if of_others == 30 {
            break;
        }
    }
    assert_eq!(of_others, 30);
    driver.run().expect("the rest follows");
    check(&driver, PARTITIONS, true);
    of_busy
}

#[test]
fn a_partition_with_a_thousand_records_leaves_the_others_their_share() {
    // 16 records a poll among four partitions: while the others' ten are done, it gets what they leave.
    for value in ["3", "poison"] {
        let done = done_meanwhile(value);
        assert!(done <= 100, "{value}: {done} of the busy partition came before 30 of the others");
    }
}

#[test]
fn a_transaction_ends_when_its_records_fill_the_memory_they_may() {
    for (bytes, commits) in [(40, 1), (64 << 20, 0)] {
        let mut driver = driver(bytes);
        let committed = |driver: &TestDriver| driver.metrics.commits_total.load(std::sync::atomic::Ordering::Relaxed);
        let before = committed(&driver);
        for name in accounts(PARTITIONS, 4) {
            pipe(&mut driver, "events", &name, "3");
        }
        // The clock stands, and there is always more to do: nothing but the bytes makes a commit due.
        driver.step().expect("steps");
        assert_eq!(committed(&driver) - before, commits, "within {bytes} bytes");
        driver.run().expect("runs");
        check(&driver, PARTITIONS, true);
    }
}

#[test]
fn a_restore_that_waits_for_its_facts_keeps_no_running_task_from_its_work() {
    let mut driver = driver(64 << 20);
    let names = accounts(PARTITIONS, 1);
    for name in &names {
        pipe(&mut driver, "events", name, "3");
    }
    driver.run().expect("runs");
    driver.crash(true);
    // Asked about all of them together, and about all but the first, the group is slow to answer.
    let mut asked = 0;
    driver.sim.set_faults(move |call| {
        asked += u32::from(call.op == Op::Committed);
        if call.op == Op::Committed && asked != 2 { Fault::Error(Reaction::Retry) } else { Fault::None }
    });
    for name in &names {
        pipe(&mut driver, "events", name, "4");
    }
    driver.read("balances");
    let mut seen = 0;
    for _ in 0..500 {
        driver.step().expect("steps");
        driver.sim.advance(1);
        seen += driver.read("balances").len();
    }
    let running = driver.tasks.all().values().filter(|task| task.phase == Phase::Running).count();
    assert_eq!((running, seen), (1, 1), "the one that was restored works");
    driver.sim.clear_faults();
    driver.run().expect("runs");
    check(&driver, PARTITIONS, true);
}
