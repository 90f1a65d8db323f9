//! How records were batched, cached, interleaved or interrupted changes no byte of a verdict or profile.

use std::collections::BTreeMap;
use std::sync::Arc;

use mangrove::scoring::ScoringParams;
use proptest::prelude::*;
use topology::driver::DriverOptions;
use topology::simulated::{Fault, Op, StoredRecord};

use crate::scoring_world::{T, World, bytes, json, model, payment};

const PARTITIONS: u32 = 3;

#[derive(Clone, Debug)]
struct Event {
    user: u8,
    cents: u32,
    merchant: u8,
    /// After (or before) the one before it, in seconds.
    step_s: i32,
    broken: bool,
}

fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let cents = prop_oneof![Just(0), 1..10_000u32, Just(100_000_000)];
    let step_s = prop_oneof![4 => 0..7_200, 1 => -100_000..0];
    let event = (0..7u8, cents, 0..80u8, step_s, prop::bool::weighted(0.05));
    let event = event.prop_map(|(user, cents, merchant, step_s, broken)| Event { user, cents, merchant, step_s, broken });
    prop::collection::vec(event, 1..most)
}

/// What a run leaves: every partition's verdicts and dead letters in order, and every profile's bytes.
#[derive(Debug, Default, PartialEq)]
struct Left {
    verdicts: Vec<(u32, Vec<u8>)>,
    dead: Vec<(u32, Vec<u8>)>,
    profiles: BTreeMap<String, Vec<u8>>,
}

fn world(options: DriverOptions) -> World {
    let params = ScoringParams { reasons_for_all: true, ..ScoringParams::default() };
    let world = World::new(&params, DriverOptions { partitions: PARTITIONS, ..options });
    world.slot.set(Some(shared_model()));
    world
}

fn shared_model() -> Arc<models::Model> {
    static MODEL: std::sync::OnceLock<Arc<models::Model>> = std::sync::OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| model(1)))
}

fn pipe(world: &mut World, events: &[Event], at: &mut i64) {
    for event in events {
        *at += i64::from(event.step_s) * 1000;
        let user = format!("user-{}", event.user);
        let json = if event.broken {
            "{".to_owned()
        } else {
            payment(&user, f64::from(event.cents) / 100.0, &format!("m{}", event.merchant), *at)
        };
        world.driver.pipe("transactions", Some(user.as_bytes()), Some(json.as_bytes()), T + 100_000_000_000);
    }
}

fn left(world: &mut World, dedup: bool) -> Left {
    let keep = |record: &StoredRecord| (record.partition.partition, bytes(record).to_vec());
    let mut verdicts: Vec<_> = world.driver.read("verdicts").iter().map(keep).collect();
    let mut dead: Vec<_> = world.driver.read("dead-letters").iter().map(keep).collect();
    if dedup {
        verdicts = first_by_id(verdicts);
        // Broken records have no id in them: that each is there is what remains to be said.
        dead.sort();
        dead.dedup();
    }
    let profiles = (0..7).filter_map(|n| {
        let user = format!("user-{n}");
        let (marks, profile) = world.driver.value::<mangrove::scoring::UserProfile>("profiles", user.as_bytes())?;
        let mut bytes = Vec::new();
        state::store::encode_kept(&marks, &profile, &mut bytes);
        Some((user, bytes))
    });
    Left { verdicts, dead, profiles: profiles.collect() }
}

/// Of verdicts with the same id only one stays; they must be the same bytes.
fn first_by_id(verdicts: Vec<(u32, Vec<u8>)>) -> Vec<(u32, Vec<u8>)> {
    let mut by_id = BTreeMap::new();
    for (partition, bytes) in verdicts {
        let verdict: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let offset: u64 = verdict["id"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        let before = by_id.insert((partition, offset), bytes.clone());
        assert!(before.as_ref().is_none_or(|before| *before == bytes), "{} has two verdicts", verdict["id"]);
    }
    by_id.into_iter().map(|((partition, _), bytes)| (partition, bytes)).collect()
}

fn undisturbed(events: &[Event], exactly_once: bool) -> Left {
    let mut world = world(DriverOptions { exactly_once, ..DriverOptions::default() });
    pipe(&mut world, events, &mut { T });
    world.driver.run().unwrap();
    left(&mut world, !exactly_once)
}

fn options() -> impl Strategy<Value = DriverOptions> {
    let polls = prop_oneof![Just(1usize), 2..40usize];
    let cache = prop_oneof![Just(0usize), Just(3_000), Just(1 << 20)];
    (polls, cache, 1..20usize, any::<bool>()).prop_map(|(max_poll_records, cache_bytes, max_changed, exactly_once)| {
        DriverOptions { max_poll_records, cache_bytes, max_changed, exactly_once, ..DriverOptions::default() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batches_caches_and_interruptions_change_nothing(
        events in events(150),
        options in options(),
        chunks in prop::collection::vec((1..40usize, prop::option::weighted(0.3, any::<bool>())), 1..12),
    ) {
        let exactly_once = options.exactly_once;
        let mut world = world(options);
        let (mut rest, mut at) = (events.as_slice(), T);
        for (size, crash) in chunks.into_iter().cycle() {
            let (chunk, others) = rest.split_at(size.min(rest.len()));
            pipe(&mut world, chunk, &mut at);
            world.driver.run().unwrap();
            if let Some(wipe) = crash {
                world.driver.crash(wipe);
            }
            rest = others;
            if rest.is_empty() {
                break;
            }
        }
        world.driver.run().unwrap();
        prop_assert_eq!(left(&mut world, !exactly_once), undisturbed(&events, exactly_once));
    }
}

fn some_events() -> Vec<Event> {
    let event = |n: u32| Event {
        user: (n % 7) as u8,
        cents: n * n * 37 % 9_000,
        merchant: (n % 11) as u8,
        step_s: if n.is_multiple_of(9) { -4_000 } else { 700 },
        broken: n % 13 == 5,
    };
    (0..45).map(event).collect()
}

/// Dies at the nth call of the broker, before or after it was done, then lives again with or without its disk.
fn die_at(nth: u64, done: bool, wipe: bool, exactly_once: bool, events: &[Event]) -> Option<Left> {
    let options = DriverOptions { exactly_once, max_poll_records: 8, max_changed: 4, ..DriverOptions::default() };
    let mut world = world(options);
    pipe(&mut world, events, &mut { T });
    let mut calls = 0;
    world.driver.sim.set_faults(move |call| {
        if matches!(call.op, Op::Publish | Op::PublisherFlush) {
            return Fault::None;
        }
        calls += 1;
        if calls == nth + 1 { Fault::Crash { done } } else { Fault::None }
    });
    let died = world.driver.run().is_err();
    world.driver.sim.clear_faults();
    if died {
        world.driver.crash(wipe);
        world.driver.run().unwrap();
    }
    died.then(|| left(&mut world, !exactly_once))
}

#[test]
fn a_crash_at_any_call_changes_nothing() {
    let events = some_events();
    for exactly_once in [true, false] {
        let want = undisturbed(&events, exactly_once);
        assert_eq!(want.verdicts.len(), events.iter().filter(|event| !event.broken).count());
        let mut deaths = 0;
        for nth in 0.. {
            let mut alive = true;
            for (done, wipe) in [(false, false), (false, true), (true, false), (true, true)] {
                if let Some(got) = die_at(nth, done, wipe, exactly_once, &events) {
                    alive = false;
                    assert_eq!(got, want, "call {nth}, done {done}, wipe {wipe}, exactly_once {exactly_once}");
                    deaths += 1;
                }
            }
            if alive {
                break;
            }
        }
        assert!(deaths > 200, "only {deaths} crashes were tried");
    }
}

#[test]
fn the_verdicts_of_a_user_are_in_the_order_of_the_payments() {
    let mut world = world(DriverOptions { max_poll_records: 3, ..DriverOptions::default() });
    pipe(&mut world, &some_events(), &mut { T });
    world.driver.run().unwrap();
    let mut last: BTreeMap<u32, i64> = BTreeMap::new();
    for record in world.driver.read("verdicts") {
        let id = json(&record)["id"].as_str().unwrap().to_owned();
        let offset: i64 = id.rsplit(':').next().unwrap().parse().unwrap();
        let before = last.insert(record.partition.partition, offset);
        assert!(before.is_none_or(|before| before < offset), "{id} comes after {before:?}");
    }
    assert!(last.len() > 1, "more than one partition has users");
}
