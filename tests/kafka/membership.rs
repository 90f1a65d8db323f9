//! The group: who owns what, and when it changes hands.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use topology::broker::{Broker, Event, Member};
use topology::record::Fetched;

use crate::world::{INPUT, PARTITIONS, PATIENCE, World, at, event, own, step, until};

fn all() -> BTreeSet<topology::record::TopicPartition> {
    (0..PARTITIONS).map(|p| at(INPUT, p)).collect()
}

#[test]
fn partitions_change_hands_only_after_the_acknowledgement() {
    let Some(world) = World::new("handover") else { return };
    let mut first = world.owner("a");
    let mut second = world.join("b");
    let mut owned = BTreeSet::new();
    let mut fetched = Fetched::default();
    let revoked = until("a revocation", || {
        step(&mut second, &mut owned);
        first.poll(&mut fetched, 100, Duration::from_millis(10)).expect("polled")
    });
    let Event::Revoked(partitions) = &revoked else { panic!("{revoked:?}") };
    assert_eq!(partitions.len(), PARTITIONS as usize / 2);
    let before = first.token().expect("still a member");
    // Several heartbeats of both; nothing may change hands meanwhile, even though the first member seeks.
    let quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(4) {
        step(&mut second, &mut owned);
        assert_eq!(owned, BTreeSet::new(), "handed over before the acknowledgement");
        first.start(&[(partitions[0], 0)]).expect("started");
        assert_eq!(first.poll(&mut fetched, 100, Duration::from_millis(10)).expect("polled"), None);
    }
    // What was done until now can still be committed.
    first.begin().expect("begun");
    first.commit(&[(partitions[0], 3)], before).expect("committed before the acknowledgement");
    first.acknowledge(&revoked).expect("acknowledged");
    let mut kept = all();
    kept.retain(|p| !partitions.contains(p));
    until("the second member owns them", || {
        step(&mut second, &mut owned);
        step(&mut first, &mut kept);
        (owned.len() == partitions.len()).then_some(())
    });
    assert_eq!(owned, partitions.iter().copied().collect());
    assert_eq!(kept.len(), PARTITIONS as usize / 2);
}

#[test]
fn a_dynamic_member_that_leaves_is_replaced_at_once() {
    let Some(world) = World::with("dynamic", |config| config.session_timeout_ms = 120_000) else { return };
    let dynamic = |worker: &str| {
        let mut identity = world.identity(worker);
        identity.instance = String::new();
        world.broker.join(&identity).expect("joined")
    };
    let (mut first, mut second) = (dynamic("a"), dynamic("b"));
    let mut owned = [BTreeSet::new(), BTreeSet::new()];
    own(&mut [&mut first, &mut second], &mut owned, PARTITIONS as usize / 2);
    first.leave(true).expect("left for good");
    // The session would last longer than the wait.
    until("the other owns all", || {
        step(&mut second, &mut owned[1]);
        (owned[1] == all()).then_some(())
    });
}

#[test]
fn a_static_member_that_leaves_for_good_is_replaced_at_once() {
    let Some(world) = World::with("good", |config| config.session_timeout_ms = 120_000) else { return };
    let (mut first, mut second) = (world.join("a"), world.join("b"));
    let mut owned = [BTreeSet::new(), BTreeSet::new()];
    own(&mut [&mut first, &mut second], &mut owned, PARTITIONS as usize / 2);
    first.leave(true).expect("left for good");
    // The session would last longer than the wait.
    until("the other owns all", || {
        step(&mut second, &mut owned[1]);
        (owned[1] == all()).then_some(())
    });
}

/// What the watchdog does for a worker that is stuck: nobody can call into its member, whose client beats on by itself.
#[test]
fn who_takes_an_identity_can_leave_with_it() {
    let Some(world) = World::with("taken", |config| config.session_timeout_ms = 120_000) else { return };
    let mut stuck = world.owner("a");
    stuck.begin().expect("begun");
    stuck.send(&crate::world::record(at(crate::world::OUTPUT, 0), b"left open")).expect("sent");
    let mut other = world.join("b");
    let mut thief = world.join("a");
    let given = event(&mut thief);
    assert!(matches!(given, Event::Assigned(_)), "{given:?}");
    thief.acknowledge(&given).expect("acknowledged");
    thief.leave(true).expect("left for good");
    let mut owned = BTreeSet::new();
    // The session would last longer than anybody's patience.
    until("the other owns all", || {
        step(&mut other, &mut owned);
        (owned == all()).then_some(())
    });
    let mut fetched = Fetched::default();
    // Fenced, where a heartbeat of its own fell into the other's stay; else the group does not know it any more.
    until("the stuck one is told", || match stuck.poll(&mut fetched, 10, Duration::from_millis(10)) {
        Ok(event) => event.map(|event| assert!(matches!(event, Event::Lost(_)), "{event:?}")),
        Err(told) => {
            assert_eq!(told.reaction, topology::broker::Reaction::Fenced, "{told}");
            Some(())
        }
    });
    assert_eq!(world.values(at(crate::world::OUTPUT, 0)), [""; 0], "and its transaction was ended");
}

#[test]
fn a_member_can_go_with_an_event_unanswered() {
    let Some(world) = World::new("unanswered") else { return };
    let mut first = world.owner("a");
    let mut second = world.join("b");
    let mut owned = BTreeSet::new();
    let mut fetched = Fetched::default();
    until("a revocation", || {
        step(&mut second, &mut owned);
        first.poll(&mut fetched, 100, Duration::from_millis(10)).expect("polled")
    });
    // In the middle of a rebalance librdkafka asks twice when it closes, and its second answer may never return.
    let begun = Instant::now();
    drop(first);
    drop(second);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_restart_in_the_middle_of_a_handover_leaves_no_partition_to_nobody() {
    let Some(world) = World::new("orphans") else { return };
    let mut first = world.owner("a");
    let mut second = world.join("b");
    let mut owned = [BTreeSet::new(), BTreeSet::new()];
    let mut fetched = Fetched::default();
    until("a revocation", || {
        step(&mut second, &mut owned[1]);
        first.poll(&mut fetched, 100, Duration::from_millis(10)).expect("polled")
    });
    // Some partitions are taken from the first member already, and it comes back before its session ends: no rebalance follows.
    drop(first);
    let mut first = world.join("a");
    until("every partition is owned", || {
        step(&mut first, &mut owned[0]);
        step(&mut second, &mut owned[1]);
        (owned[0].len() + owned[1].len() == PARTITIONS as usize).then_some(())
    });
    assert_eq!(&owned[0] | &owned[1], all());
}

#[test]
fn a_member_that_stops_polling_loses_its_partitions_and_comes_back() {
    let Some(world) = World::with("lost", |config| {
        config.session_timeout_ms = 6_000;
        config.properties.insert("max.poll.interval.ms".to_owned(), "6000".to_owned());
    }) else {
        return;
    };
    let mut member = world.owner("a");
    let mut fetched = Fetched::default();
    let lost = until("it is told", || {
        // Not synchronisation: the test is about time that passes without a poll. The client looks at it now and then only.
        std::thread::sleep(Duration::from_millis(7_000));
        (0..100).find_map(|_| member.poll(&mut fetched, 100, Duration::from_millis(20)).expect("polled"))
    });
    assert_eq!(lost, Event::Lost(all().into_iter().collect()));
    member.acknowledge(&lost).expect("acknowledged");
    assert_eq!(event(&mut member), Event::Assigned(all().into_iter().collect()));
}

#[test]
fn an_event_ends_a_poll_that_waits() {
    let Some(world) = World::new("wake") else { return };
    let mut member = world.join("a");
    let begun = Instant::now();
    let mut fetched = Fetched::default();
    let told = until("an assignment", || member.poll(&mut fetched, 10, 2 * PATIENCE).expect("polled"));
    assert!(matches!(told, Event::Assigned(_)), "{told:?}");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}
