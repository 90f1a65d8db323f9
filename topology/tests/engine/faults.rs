//! One fault at a time, at each of the first calls of each kind: nothing is lost, nothing doubled, and the worker goes on.

use topology::broker::Reaction;
use topology::driver::{DriverOptions, TestDriver};
use topology::simulated::{Fault, FaultKind, Op};

use crate::ledger::{self, accounts, check, pipe};

const FAULTS: [Fault; 11] = [
    Fault::Error(Reaction::Retry),
    Fault::Error(Reaction::Abort),
    Fault::Error(Reaction::Fenced),
    Fault::Error(Reaction::Unknown),
    Fault::LostRequest,
    Fault::LostAnswer,
    Fault::Late(2),
    Fault::Late(400),
    Fault::SlowMarkers(5),
    Fault::Crash { done: false },
    Fault::Crash { done: true },
];

fn is_workers(op: Op) -> bool {
    !matches!(op, Op::Publish | Op::PublisherFlush | Op::Describe | Op::Create | Op::Leave)
}

fn small(exactly_once: bool) -> TestDriver {
    ledger::driver(DriverOptions { partitions: 2, exactly_once, max_poll_records: 3, max_changed: 4, ..DriverOptions::default() })
}

fn some(driver: &mut TestDriver, round: u32) {
    let names = accounts(2, 2);
    for n in 0..8 {
        let name = &names[(n * 5 + round) as usize % names.len()];
        pipe(driver, "events", name, if n == 5 { "poison" } else { "3" });
        if n == 3 {
            pipe(driver, "orders", name, "reset");
        }
    }
}

/// Runs until all is done, living again after a crash.
fn run(driver: &mut TestDriver, wipe: bool) {
    if let Err(halt) = driver.run() {
        assert!(halt.0.contains("crashed this instance"), "the worker stopped: {halt}");
        driver.crash(wipe);
        driver.run().expect("runs again");
    }
}

/// Injects the fault at the nth call after the first records were committed. False where there was no such call.
fn live(op: Op, nth: u64, fault: Fault, exactly_once: bool) -> bool {
    let mut driver = small(exactly_once);
    let (mut calls, mut ends) = (0, 0);
    let hook = move |call: &topology::simulated::OpContext<'_>| {
        if op == Op::EndTxnAbort && call.op == Op::EndTxnCommit {
            // Something has to be aborted: every other commit, for a while.
            ends += 1;
            return if ends % 2 == 1 && ends < 12 { Fault::Error(Reaction::Abort) } else { Fault::None };
        }
        if call.op != op {
            return Fault::None;
        }
        calls += 1;
        if calls == nth + 1 { fault } else { Fault::None }
    };
    some(&mut driver, 0);
    driver.run().expect("runs");
    if matches!(
        op,
        Op::InitProducer | Op::Join | Op::Acknowledge | Op::Committed | Op::ReaderBounds | Op::ReaderPoll | Op::Bounds
    ) {
        // These are made at the start of a life only.
        driver.crash(true);
    }
    driver.sim.set_faults(hook);
    for round in 1..4 {
        some(&mut driver, round);
        run(&mut driver, nth.is_multiple_of(2));
        driver.sim.advance(300);
    }
    let hit = driver.sim.faults_injected().keys().any(|(hit, _)| *hit == op);
    driver.sim.clear_faults();
    driver.sim.advance(1_000);
    run(&mut driver, false);
    check(&driver, 2, exactly_once);
    driver.crash(true);
    run(&mut driver, false);
    check(&driver, 2, exactly_once);
    hit
}

#[test]
fn any_single_fault_leaves_no_trace() {
    let mut hits: std::collections::BTreeMap<Op, u32> = std::collections::BTreeMap::new();
    for exactly_once in [true, false] {
        for op in Op::ALL.into_iter().filter(|&op| is_workers(op)) {
            for (nth, fault) in (0..5).flat_map(|nth| FAULTS.map(|fault| (nth, fault))) {
                // Nothing fences what a dead producer still has under way without transactions.
                if !exactly_once && matches!((op, fault), (Op::Send, Fault::Late(_))) {
                    continue;
                }
                let lived = std::panic::catch_unwind(|| live(op, nth, fault, exactly_once));
                let hit = lived.unwrap_or_else(|_| panic!("{op:?} number {nth}: {fault:?}, exactly_once {exactly_once}"));
                *hits.entry(op).or_insert(0) += u32::from(hit);
            }
        }
    }
    let untried: Vec<_> = hits.iter().filter(|(_, hits)| **hits < 5).collect();
    assert!(untried.is_empty(), "calls that were hardly ever hit: {untried:?}");
}

/// The number of reopened producers when the commit's end went wrong in this way.
fn reopened(fault: Fault) -> (TestDriver, u64) {
    let mut driver = small(true);
    some(&mut driver, 0);
    let mut left = Some(fault);
    driver.sim.set_faults(move |call| match call.op {
        Op::EndTxnCommit => left.take().unwrap_or(Fault::None),
        _ => Fault::None,
    });
    driver.run().expect("runs");
    let reopened = driver.metrics.reopens_total.load(std::sync::atomic::Ordering::Relaxed);
    (driver, reopened)
}

#[test]
fn an_unanswered_commit_is_looked_up_not_guessed() {
    for fault in [Fault::LostAnswer, Fault::LostRequest, Fault::Late(1), Fault::Late(50)] {
        let (mut driver, reopened) = reopened(fault);
        assert_eq!(reopened, 1, "{fault:?}: the producer is opened anew (I8)");
        assert!(driver.sim.producer_epoch("ledger-driver").expect("it has one") >= 2);
        check(&driver, 2, true);
        // The late request arrives within the next transactions, and ends none of them.
        for round in 1..5 {
            some(&mut driver, round);
            driver.sim.advance(20);
            driver.run().expect("runs");
        }
        check(&driver, 2, true);
        assert!(driver.sim.open_transactions().is_empty());
    }
}

#[test]
fn an_abort_that_the_broker_asks_for_costs_one_round_only() {
    let (driver, reopened) = reopened(Fault::Error(Reaction::Abort));
    assert_eq!(reopened, 0);
    assert_eq!(driver.metrics.aborts_total.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(driver.sim.faults_injected()[&(Op::EndTxnCommit, FaultKind::Error)], 1);
    check(&driver, 2, true);
    let count = |name: &str| driver.sim.committed_records(ledger::topic(name)).len() as u64;
    let counted = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counted(&driver.metrics.emitted_total), count("balances"), "what an abort voids is not counted");
    assert_eq!((counted(&driver.metrics.dead_letters_total), count("dead")), (1, 1));
    assert_eq!(driver.metrics.counted("dead_letters")["poison"], 1);
}

#[test]
fn an_abort_that_fails_while_the_group_drops_the_member_leaves_no_open_transaction() {
    for reaction in [Reaction::Retry, Reaction::Abort] {
        let mut driver = small(true);
        driver.run().expect("runs");
        some(&mut driver, 0);
        let (mut beats, mut ends) = (0, 0);
        let sim = driver.sim.clone();
        driver.sim.set_faults(move |call| match call.op {
            // Records are processed, then the member has been silent for too long: all it has is lost while a transaction is open.
            Op::Heartbeat => {
                beats += 1;
                if beats == 2 {
                    sim.advance(10_000);
                }
                Fault::None
            }
            Op::EndTxnAbort => {
                ends += 1;
                if ends == 1 { Fault::Error(reaction) } else { Fault::None }
            }
            _ => Fault::None,
        });
        driver.run().expect("goes on");
        assert_eq!(driver.sim.faults_injected().len(), 1, "{reaction:?}: the abort was to fail");
        check(&driver, 2, true);
    }
}

#[test]
fn what_asks_to_stop_stops_with_its_reason() {
    for op in [Op::Poll, Op::EndTxnCommit, Op::Committed] {
        let mut driver = small(true);
        some(&mut driver, 0);
        driver.sim.set_faults(move |call| if call.op == op { Fault::Error(Reaction::Stop) } else { Fault::None });
        let halt = driver.run().expect_err("it stops").to_string();
        assert!(halt.contains(&format!("{op:?}")), "{halt}");
        driver.sim.clear_faults();
        driver.crash(false);
        driver.run().expect("a restart goes on");
        check(&driver, 2, true);
    }
}
