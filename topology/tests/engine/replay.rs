//! At-least-once: what an earlier life decided is replayed where it was written, and what it had not decided comes after.

use topology::driver::{DriverOptions, TestDriver};
use topology::record::TopicPartition;
use topology::simulated::{Fault, Op};

use crate::ledger::{self, Balance, check, pipe};

fn driver() -> TestDriver {
    ledger::driver(DriverOptions { partitions: 1, exactly_once: false, max_poll_records: 2, ..DriverOptions::default() })
}

/// The worker dies at the nth call of this kind from here on.
fn die_at(driver: &mut TestDriver, op: Op, nth: u32, done: bool) {
    let mut left = nth;
    driver.sim.set_faults(move |call| {
        if call.op != op {
            return Fault::None;
        }
        left = left.wrapping_sub(1);
        if left == u32::MAX { Fault::Crash { done } } else { Fault::None }
    });
    assert!(driver.run().is_err(), "it must die");
    driver.sim.clear_faults();
}

fn afters(driver: &TestDriver) -> Vec<u64> {
    let records = driver.sim.committed_records(ledger::topic("ledger-decisions"));
    let decode = |bytes: &[u8]| topology::decision::Decision::decode(bytes).expect("a decision");
    records.iter().map(|record| decode(record.value.as_deref().expect("a value")).after).collect()
}

#[test]
fn a_decided_order_keeps_its_place_whatever_came_meanwhile() {
    for wipe in [false, true] {
        for op in [Op::CommitOffsets, Op::Token] {
            let mut driver = driver();
            for _ in 0..3 {
                pipe(&mut driver, "events", "a", "7");
            }
            driver.run().expect("runs");
            pipe(&mut driver, "orders", "a", "reset");
            // The reset and its decision are in the log, the offsets are not.
            die_at(&mut driver, op, 0, false);
            for _ in 0..5 {
                pipe(&mut driver, "events", "a", "7");
            }
            pipe(&mut driver, "orders", "a", "reset");
            driver.crash(wipe);
            driver.run().expect("runs again");
            check(&driver, 1, false);
            assert_eq!(afters(&driver)[0], 3, "{op:?}, wipe {wipe}");
            assert_eq!(*afters(&driver).last().expect("two orders"), 8, "the undecided one waits for the replay's end");
        }
    }
}

#[test]
fn an_undecided_order_does_not_overtake_what_was_already_said() {
    let mut driver = driver();
    pipe(&mut driver, "events", "a", "7");
    driver.run().expect("runs");
    for _ in 0..4 {
        pipe(&mut driver, "events", "a", "7");
    }
    // The balances are in the log, the state that includes them is not.
    die_at(&mut driver, Op::Flush, 1, false);
    let said = driver.read("balances").len();
    assert!(said > 1, "{said}");
    pipe(&mut driver, "orders", "a", "reset");
    driver.crash(true);
    driver.run().expect("runs again");
    check(&driver, 1, false);
    assert_eq!(afters(&driver), [5]);
}

#[test]
fn a_first_life_that_ends_before_its_first_offsets_is_no_riddle() {
    let mut driver = driver();
    pipe(&mut driver, "events", "a", "7");
    // Two commits of offsets: where the task began, and where it got to. It dies before the second one.
    die_at(&mut driver, Op::CommitOffsets, 1, false);
    driver.crash(false);
    driver.run().expect("its state explains itself");
    check(&driver, 1, false);
}

#[test]
fn what_was_said_before_a_replayed_erasure_is_not_said_otherwise() {
    for wipe in [false, true] {
        let mut driver = driver();
        for _ in 0..3 {
            pipe(&mut driver, "events", "a", "7");
        }
        driver.run().expect("runs");
        pipe(&mut driver, "events", "a", "7");
        pipe(&mut driver, "events", "b", "7");
        pipe(&mut driver, "orders", "a", "erase");
        // The tombstone is in the log, the offsets are not: the account that the event met is nowhere any more.
        die_at(&mut driver, Op::CommitOffsets, 0, false);
        driver.crash(wipe);
        pipe(&mut driver, "events", "a", "7");
        driver.run().expect("runs again");
        check(&driver, 1, false);
    }
}

#[test]
fn late_offsets_behind_an_erasure_do_not_make_its_key_new() {
    for wipe in [false, true] {
        let mut driver = driver();
        let mut late = true;
        driver.run().expect("runs");
        driver.sim.set_faults(move |call| {
            let this = call.op == Op::CommitOffsets && std::mem::take(&mut late);
            if this { Fault::Late(5_000) } else { Fault::None }
        });
        for _ in 0..2 {
            for _ in 0..3 {
                pipe(&mut driver, "events", "a", "7");
            }
            driver.run().expect("goes on, also without an answer");
        }
        pipe(&mut driver, "orders", "a", "erase");
        driver.run().expect("runs");
        let events = TopicPartition { topic: ledger::topic("events"), partition: 0 };
        let committed = |driver: &TestDriver| driver.sim.group_offsets("ledger")[&events];
        assert_eq!(committed(&driver), 6);
        driver.sim.advance(5_000);
        assert_eq!(committed(&driver), 3, "the late commit sets the events back, and not the order that came since");
        driver.crash(wipe);
        driver.run().expect("runs again");
        check(&driver, 1, false);
    }
}

#[test]
fn a_decision_in_the_log_comes_behind_what_was_said_before_it() {
    let mut driver = driver();
    driver.run().expect("runs");
    pipe(&mut driver, "events", "a", "7");
    pipe(&mut driver, "orders", "a", "erase");
    let (mut sent, mut decided) = (false, false);
    let decisions = ledger::topic("ledger-decisions");
    driver.sim.set_faults(move |call| match call.op {
        // What is said of the event waits in the producer; the decision goes to the log at once; then the producer dies.
        Op::Send if !std::mem::replace(&mut sent, true) => Fault::LostRequest,
        Op::Send => {
            decided |= call.to.is_some_and(|to| to.topic == decisions);
            Fault::None
        }
        Op::Flush if decided => Fault::Crash { done: false },
        _ => Fault::None,
    });
    assert!(driver.run().is_err(), "it must die");
    driver.sim.clear_faults();
    driver.crash(false);
    driver.run().expect("runs again");
    check(&driver, 1, false);
}

#[test]
fn a_replayed_erasure_leaves_nothing() {
    let mut driver = driver();
    for _ in 0..3 {
        pipe(&mut driver, "events", "a", "7");
    }
    driver.run().expect("runs");
    pipe(&mut driver, "events", "a", "7");
    pipe(&mut driver, "orders", "a", "erase");
    die_at(&mut driver, Op::CommitOffsets, 0, false);
    driver.crash(true);
    driver.run().expect("runs again");
    assert_eq!(driver.value::<Balance>("balances", b"a"), None);
    let changelog = driver.sim.committed_records(ledger::topic("ledger-balances-changelog"));
    assert_eq!(changelog.last().expect("records").value, None, "the last word is the tombstone");
}
