//! Positions that do not fit: stop with advice, or rebuild, but never guess.

use std::sync::atomic::Ordering;
use std::time::Duration;

use state::store::{Marks, encode_kept};
use topology::broker::{Broker, Event, Member, MemberConfig, Publisher};
use topology::driver::{DriverOptions, TestDriver};
use topology::record::{Fetched, Outgoing, TopicPartition};
use topology::restore::StartFrom;
use topology::simulated::{Fault, Op, SimBroker};

use crate::ledger::{self, Balance, check, pipe, topic};

const EVENTS: TopicPartition = TopicPartition { topic: topology::record::TopicId(1), partition: 0 };

fn driver(start_from: StartFrom, exactly_once: bool) -> TestDriver {
    assert_eq!(topic("events"), EVENTS.topic);
    ledger::driver(DriverOptions { partitions: 1, start_from, exactly_once, ..DriverOptions::default() })
}

fn some_events(driver: &mut TestDriver, count: u32) {
    for n in 0..count {
        pipe(driver, "events", ["a", "b"][n as usize % 2], "7");
    }
}

/// Events that nobody has processed yet.
fn publish(driver: &TestDriver, count: u32) {
    let mut publisher = driver.sim.publisher().expect("no fault is set");
    for _ in 0..count {
        let record = Outgoing { to: EVENTS, key: Some(b"a"), value: Some(b"7"), timestamp: 0, headers: &[] };
        publisher.send(&record).expect("is taken");
    }
    publisher.flush().expect("is taken");
}

/// Somebody sets the group's offset by hand while the application is down.
fn set_offset(driver: &mut TestDriver, next: u64) {
    driver.crash(false);
    driver.sim.advance(60_000);
    commit_as(&driver.sim, "somebody", next);
}

/// A member under that identity commits an offset of the input and leaves.
fn commit_as(sim: &SimBroker, instance: &str, next: u64) {
    let config = MemberConfig {
        group: "ledger".into(),
        instance: instance.into(),
        transactional_id: None,
        transaction_timeout_ms: 1_000,
        leads: vec![EVENTS.topic],
    };
    let mut member = sim.join(&config).expect("joins");
    let event = (0..100).find_map(|_| member.poll(&mut Fetched::default(), 1, Duration::ZERO).expect("polls"));
    let event = event.expect("the partitions are assigned");
    assert!(matches!(event, Event::Assigned(_)));
    member.acknowledge(&event).expect("is acknowledged");
    let token = member.token().expect("is a member");
    member.commit_offsets(&[(EVENTS, next)], token).expect("commits");
    member.leave(true).expect("leaves");
}

fn counted(driver: &TestDriver, counter: &std::sync::atomic::AtomicU64) -> u64 {
    let _ = driver;
    counter.load(Ordering::Relaxed)
}

fn halt(driver: &mut TestDriver, parts: &[&str]) {
    let halt = driver.run().expect_err("it must not go on").to_string();
    for part in parts {
        assert!(halt.contains(part), "`{part}` is missing in: {halt}");
    }
}

#[test]
fn an_offset_beyond_the_topics_end_stops_with_advice() {
    for exactly_once in [true, false] {
        let mut driver = driver(StartFrom::Refuse, exactly_once);
        some_events(&mut driver, 4);
        driver.run().expect("runs");
        set_offset(&mut driver, 900);
        halt(&mut driver, &["offset 900 of events:0", "ends at 4", "APPLICATION_ID"]);
    }
}

#[test]
fn offsets_set_back_below_what_the_state_includes_stop_exactly_once() {
    let mut driver = driver(StartFrom::Refuse, true);
    some_events(&mut driver, 4);
    driver.run().expect("runs");
    set_offset(&mut driver, 1);
    halt(&mut driver, &["events:0 up to offset 4", "committed only 1", "set back"]);
}

/// The group gave its task to another one, which went on with it just when this one was between asking for the committed offsets and
/// looking at the changelog's end.
#[test]
fn one_that_is_overtaken_while_it_restores_does_not_take_that_for_lost_offsets() {
    for before in [0, 4] {
        let mut driver = driver(StartFrom::Refuse, true);
        if before > 0 {
            some_events(&mut driver, before);
            driver.run().expect("runs");
            driver.crash(true);
        }
        publish(&driver, 2);
        let (sim, changelog, next) = (driver.sim.clone(), topic("ledger-balances-changelog"), u64::from(before) + 2);
        let mut overtaken = false;
        driver.sim.set_faults(move |call| {
            if call.op == Op::ReaderBounds && !std::mem::replace(&mut overtaken, true) {
                let mut value = Vec::new();
                encode_kept(&Marks([next, 0, 0, 0]), &Balance { count: next, sum: 1 }, &mut value);
                let to = TopicPartition { topic: changelog, partition: 0 };
                let mut publisher = sim.publisher().expect("opens");
                let record = Outgoing { to, key: Some(b"a"), value: Some(&value), timestamp: 0, headers: &[] };
                publisher.send(&record).expect("is taken");
                publisher.flush().expect("is taken");
                commit_as(&sim, "ledger-driver", next);
            }
            Fault::None
        });
        driver.run().expect("goes on");
        assert!(driver.sim.calls(Op::ReaderBounds) > 1, "it was overtaken while it restored");
        assert_eq!(driver.sim.group_offsets("ledger")[&EVENTS], next);
        let (_, balance) = driver.value::<Balance>("balances", b"a").expect("restored");
        assert_eq!(balance, Balance { count: next, sum: 1 }, "what the other one left");
    }
}

#[test]
fn offsets_set_back_are_a_replay_at_least_once() {
    let mut driver = driver(StartFrom::Refuse, false);
    some_events(&mut driver, 4);
    driver.run().expect("runs");
    set_offset(&mut driver, 1);
    some_events(&mut driver, 2);
    driver.run().expect("runs");
    check(&driver, 1, false);
    assert_eq!(counted(&driver, &driver.metrics.records_replayed_total), 3);
}

#[test]
fn records_lost_to_retention_stop_it_unless_asked_to_go_on() {
    for start_from in [StartFrom::Refuse, StartFrom::Changelog, StartFrom::Earliest] {
        let mut driver = driver(start_from, true);
        some_events(&mut driver, 4);
        driver.run().expect("runs");
        driver.crash(false);
        publish(&driver, 6);
        driver.sim.truncate_before(EVENTS, 7);
        if start_from != StartFrom::Earliest {
            halt(&mut driver, &["records 4 to 7 of events:0", "START_FROM=earliest"]);
            continue;
        }
        driver.run().expect("goes on as asked");
        let (_, balance) = driver.value::<Balance>("balances", b"a").expect("is there");
        assert_eq!(balance.count, 2 + 3);
    }
}

#[test]
fn state_without_offsets_is_refused_or_continued_as_asked() {
    for exactly_once in [true, false] {
        for start_from in [StartFrom::Refuse, StartFrom::Changelog] {
            for wipe in [false, true] {
                let mut driver = driver(start_from, exactly_once);
                some_events(&mut driver, 4);
                driver.run().expect("runs");
                driver.crash(wipe);
                driver.sim.forget_offsets("ledger");
                publish(&driver, 2);
                if start_from == StartFrom::Refuse {
                    halt(&mut driver, &["state for events:0 (up to offset 4)", "START_FROM=changelog", "START_FROM=earliest"]);
                    continue;
                }
                driver.run().expect("goes on behind what the state includes");
                check(&driver, 1, exactly_once);
                assert_eq!(driver.read("balances").len(), 6);
            }
        }
    }
}

#[test]
fn asked_for_the_earliest_it_empties_the_state_and_begins_anew() {
    for (exactly_once, wipe) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut driver = driver(StartFrom::Earliest, exactly_once);
        some_events(&mut driver, 4);
        pipe(&mut driver, "events", "gone", "7");
        driver.run().expect("runs");
        driver.sim.truncate_before(EVENTS, 5);
        driver.crash(wipe);
        driver.sim.forget_offsets("ledger");
        publish(&driver, 2);
        driver.run().expect("begins anew");
        let count = |driver: &TestDriver, key: &[u8]| driver.value::<Balance>("balances", key).map(|(_, balance)| balance.count);
        for wipe in [false, true] {
            assert_eq!((count(&driver, b"a"), count(&driver, b"gone")), (Some(2), None), "exactly_once {exactly_once}");
            driver.crash(wipe);
            driver.run().expect("goes on");
        }
    }
}

#[test]
fn what_was_decided_before_a_new_beginning_is_void() {
    for (exactly_once, wipe) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut driver = driver(StartFrom::Earliest, exactly_once);
        some_events(&mut driver, 4);
        driver.run().expect("runs");
        pipe(&mut driver, "orders", "a", "erase");
        pipe(&mut driver, "events", "a", "7");
        driver.run().expect("runs");
        let said = driver.read("balances").len();
        driver.crash(wipe);
        driver.sim.forget_offsets("ledger");
        driver.run().expect("begins anew");
        assert_eq!(driver.read("balances").len(), said, "every event is answered once more, exactly_once {exactly_once}");
        driver.crash(wipe);
        driver.run().expect("goes on");
    }
}

#[test]
fn no_state_and_no_offsets_is_a_beginning() {
    let mut driver = driver(StartFrom::Refuse, true);
    publish(&driver, 3);
    driver.sim.truncate_before(EVENTS, 1);
    driver.run().expect("begins at the first record retained");
    assert_eq!(driver.read("balances").len(), 2);
}

#[test]
fn a_store_ahead_of_its_changelog_is_rebuilt_and_reported() {
    let mut driver = driver(StartFrom::Refuse, true);
    some_events(&mut driver, 4);
    driver.run().expect("runs");
    driver.crash(false);
    driver.sim.recreate_topic(topic("ledger-balances-changelog"), 1);
    driver.run().expect("goes on");
    assert_eq!(counted(&driver, &driver.metrics.stores_rebuilt_total), 1);
    assert_eq!(driver.value::<Balance>("balances", b"a"), None);
}

#[test]
fn a_store_older_than_the_changelogs_tombstones_is_rebuilt() {
    for (away_ms, rebuilt, restored) in [(60_000, 0, 1), (86_400_001, 1, 3)] {
        let mut driver = driver(StartFrom::Refuse, true);
        some_events(&mut driver, 4);
        driver.run().expect("runs");
        driver.crash(false);
        // Another instance went on meanwhile.
        let mut value = Vec::new();
        encode_kept(&Marks::default(), &Balance { count: 9, sum: 9 }, &mut value);
        let to = TopicPartition { topic: topic("ledger-balances-changelog"), partition: 0 };
        let mut publisher = driver.sim.publisher().expect("no fault is set");
        publisher.send(&Outgoing { to, key: Some(b"c"), value: Some(&value), timestamp: 0, headers: &[] }).expect("is taken");
        publisher.flush().expect("is taken");
        driver.sim.advance(away_ms);
        driver.run().expect("runs");
        assert_eq!(counted(&driver, &driver.metrics.stores_rebuilt_total), rebuilt);
        assert_eq!(counted(&driver, &driver.metrics.restored_records_total), restored);
        assert_eq!(driver.value::<Balance>("balances", b"c").map(|(_, balance)| balance.count), Some(9));
        assert_eq!(driver.value::<Balance>("balances", b"a").map(|(_, balance)| balance.count), Some(2));
    }
}

#[test]
fn a_value_damaged_in_the_changelog_itself_stops_instead_of_rebuilding_for_ever() {
    let mut driver = driver(StartFrom::Refuse, true);
    // The format's version, no marks, and no value behind them.
    driver.pipe_to("ledger-balances-changelog", 0, Some(b"a"), Some(&[1, 0]), 0);
    some_events(&mut driver, 1);
    halt(&mut driver, &["the changelog of balances-0", "cannot be read"]);
    assert_eq!(counted(&driver, &driver.metrics.stores_rebuilt_total), 1, "rebuilt once, in case only the disk was damaged");
}

#[test]
fn an_input_that_grows_stops_with_advice() {
    let mut driver = driver(StartFrom::Refuse, true);
    some_events(&mut driver, 2);
    driver.run().expect("runs");
    driver.sim.grow_topic(EVENTS.topic, 2);
    driver.crash(false);
    halt(&mut driver, &["`events` grew beyond the 1 partitions", "APPLICATION_ID"]);
}
