//! Audits see what is there: a healthy log is the same everywhere, and each planted fault is named.

mod explaining;
mod repairing;

use std::sync::Arc;

use mangrove::audit::{Audit, Difference, Naming, PartitionReport, Place};
use mangrove::scoring::{FxTable, ScoringParams, TopicNames, UserProfile, scoring_topology};
use state::backend::{Backend, StorePartition, WriteSet};
use state::memory::MemoryBackend;
use state::store::{Marks, decode_kept, encode_kept};
use state::tiered::Stub;
use topology::broker::{Broker as _, Cleanup, Publisher as _, TopicSpec};
use topology::driver::DriverOptions;
use topology::record::{Header, Outgoing, TopicId, TopicPartition};
use topology::refill::Refill;
use topology::simulated::{SimBroker, StoredRecord};

use crate::scoring_world::{T, World, model, one_partition, origin};

const USERS: i64 = 40;
const PAYMENTS: i64 = 600;

fn topic(name: &str) -> TopicId {
    let topology = scoring_topology("test", &TopicNames::default(), &ScoringParams::default(), &Default::default());
    topology.unwrap().topics().find(name).unwrap()
}

fn at(name: &str, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic(name), partition }
}

fn audit_of(sim: &SimBroker) -> Audit<SimBroker> {
    Audit::new(Arc::new(sim.clone()), "test", &TopicNames::default(), &ScoringParams::default(), true).unwrap()
}

fn reports(sim: &SimBroker) -> Vec<PartitionReport> {
    let audit = audit_of(sim);
    let verify = |partition| audit.verify(partition, Err("none"), &Naming::Id, &mut |_, _, _| {}).unwrap();
    (0..audit.partitions()).map(verify).collect()
}

fn differences(sim: &SimBroker) -> Vec<Difference> {
    reports(sim).into_iter().flat_map(|report| report.differences).collect()
}

/// The only difference there is.
fn difference(sim: &SimBroker) -> Difference {
    let mut all = differences(sim);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// Payments of many users, resets, erasures, bad records, two models, and a crash in between.
fn busy(partitions: u32) -> World {
    let options = DriverOptions { partitions, max_poll_records: 50, ..DriverOptions::default() };
    let mut world = World::new(&ScoringParams::default(), options);
    for n in 0..PAYMENTS {
        let user = format!("user-{}", n * n % USERS);
        world.pay(&user, (n % 17) as f64 + 0.25, &format!("shop-{}", n % 5), T + n * 60_000);
        if n % 97 == 13 {
            let kind = if n % 2 == 0 { "reset" } else { "erase" };
            world.command(&format!(r#"{{"kind":"{kind}","user_id":"{user}"}}"#), &user, T + n * 60_000);
        }
        if n % 101 == 50 {
            world.driver.pipe("transactions", Some(b"x"), Some(b"{"), T + n * 60_000);
        }
        if n % 40 == 0 {
            world.driver.run().unwrap();
        }
        if n == 150 || n == 400 {
            world.slot.set(Some(model(n as u64)));
        }
        if n == 300 {
            world.driver.crash(true);
        }
    }
    world.driver.run().unwrap();
    world
}

/// What becomes of a record in a copy.
enum Edit {
    Keep,
    Drop,
    Twice,
    Value(Vec<u8>),
}

/// The committed records of all topics on another broker, edited on the way.
fn copy(world: &World, edit: impl Fn(&str, &StoredRecord) -> Edit) -> SimBroker {
    let sim = &world.driver.sim;
    let copy = SimBroker::new(sim.topics().clone());
    let mut publisher = copy.publisher().unwrap();
    for (topic, name) in sim.topics().iter() {
        let cleanup = Cleanup::Delete { retention_ms: None };
        let spec = TopicSpec { name: name.to_owned(), partitions: world.partitions, cleanup, max_message_bytes: None };
        copy.create(&spec).unwrap();
        for record in sim.committed_records(topic) {
            let mut send = |value: Option<&[u8]>| {
                let headers: Vec<Header<'_>> =
                    record.headers.iter().map(|h| Header { name: &h.name, value: h.value.as_deref() }).collect();
                let (key, timestamp, headers) = (record.key.as_deref(), record.timestamp, &headers[..]);
                publisher.send(&Outgoing { to: record.partition, key, value, timestamp, headers }).unwrap();
            };
            match edit(name, &record) {
                Edit::Keep => send(record.value.as_deref()),
                Edit::Drop => {}
                Edit::Twice => (0..2).for_each(|_| send(record.value.as_deref())),
                Edit::Value(value) => send(Some(&value)),
            }
        }
    }
    publisher.flush().unwrap();
    copy
}

/// The last record of a topic that satisfies something.
fn last(world: &World, name: &str, wanted: impl Fn(&StoredRecord) -> bool) -> StoredRecord {
    world.driver.sim.committed_records(topic(name)).into_iter().rfind(|record| wanted(record)).expect("there is one")
}

fn one_more_payment(value: &[u8]) -> Vec<u8> {
    let (marks, mut profile): (Marks, UserProfile) = decode_kept(value).unwrap();
    profile.0.update(1.0, T, "shop-0");
    let mut bytes = Vec::new();
    encode_kept(&marks, &profile, &mut bytes);
    bytes
}

#[test]
fn a_healthy_log_is_the_same_everywhere() {
    let world = busy(3);
    let reports = reports(&world.driver.sim);
    for report in &reports {
        assert!(report.same(), "{:?}", report.differences);
        assert_eq!((report.users.differ, report.users.began_before, report.outcomes.differ), (0, 0, 0));
        assert_eq!(report.outcomes.note, None);
    }
    let compared: u64 = reports.iter().map(|report| report.outcomes.compared).sum();
    assert!(compared >= PAYMENTS as u64 - 3, "all but what lies behind each partition's last change: {compared}");
    let changelog = world.driver.sim.committed_records(topic("test-profiles-changelog"));
    let mut users: Vec<_> = changelog.iter().map(|record| record.key.clone()).collect();
    users.sort();
    users.dedup();
    let same: u64 = reports.iter().map(|report| report.users.same).sum();
    let alive = users.iter().filter(|user| world.profile(std::str::from_utf8(user.as_deref().unwrap()).unwrap()).is_some());
    assert_eq!(same, alive.count() as u64);
    assert_eq!(differences(&copy(&world, |_, _| Edit::Keep)), [], "a copy is as good");
}

#[test]
fn a_lost_changelog_record_is_named() {
    let world = busy(1);
    let lost = last(&world, "test-profiles-changelog", |record| record.key.as_deref() == Some(b"user-9"));
    let found = difference(&copy(&world, |name, record| {
        if name == "test-profiles-changelog" && record.offset == lost.offset { Edit::Drop } else { Edit::Keep }
    }));
    assert_eq!((found.between, found.user.as_deref()), ("changelog and transactions", Some("user-9")));
    assert_eq!(found.field, "payments included below offset");
    let (marks, _): (Marks, UserProfile) = decode_kept(lost.value.as_deref().unwrap()).unwrap();
    assert_eq!(found.right, marks.0[0].to_string());
    assert!(found.at.iter().any(|place| place.to_string() == format!("transactions:0:{}", marks.0[0] - 1)), "{found}");
}

#[test]
fn a_changed_profile_in_the_changelog_is_named() {
    let world = busy(1);
    let changed = last(&world, "test-profiles-changelog", |record| record.key.as_deref() == Some(b"user-4"));
    let found = difference(&copy(&world, |name, record| {
        let hit = name == "test-profiles-changelog" && record.offset == changed.offset;
        if hit { Edit::Value(one_more_payment(record.value.as_deref().unwrap())) } else { Edit::Keep }
    }));
    assert_eq!((found.user.as_deref(), found.field.as_str()), (Some("user-4"), "payments seen"));
}

#[test]
fn an_extra_a_missing_and_a_changed_verdict_are_named() {
    let world = busy(1);
    let victim = world.driver.sim.committed_records(topic("verdicts")).swap_remove(200);
    let id = crate::scoring_world::json(&victim)["id"].as_str().unwrap().to_owned();
    let edited = |edit: fn(&StoredRecord) -> Edit| {
        let hit = |name: &str, record: &StoredRecord| name == "verdicts" && record.offset == victim.offset;
        difference(&copy(&world, |name, record| if hit(name, record) { edit(record) } else { Edit::Keep }))
    };
    let twice = edited(|_| Edit::Twice);
    assert_eq!((twice.between, twice.left.as_str()), ("verdicts and transactions", "one more of the same payment"));
    assert!(twice.at.iter().any(|place| place.to_string() == id), "{twice}");
    let missing = edited(|_| Edit::Drop);
    assert_eq!(missing.left, "none, and no dead letter");
    assert_eq!(missing.at[0].to_string(), id);
    let changed = edited(|record| {
        let mut verdict = crate::scoring_world::json(record);
        verdict["features"][1] = serde_json::json!(49.5);
        Edit::Value(verdict.to_string().into_bytes())
    });
    assert_eq!((changed.field.as_str(), changed.left.as_str()), ("feature amount_zscore", "49.5"));
    let letter = last(&world, "dead-letters", |_| true);
    let copy = copy(
        &world,
        |name, record| if name == "dead-letters" && record.offset == letter.offset { Edit::Drop } else { Edit::Keep },
    );
    let found = difference(&copy);
    assert_eq!(found.left, "none, and no verdict");
    assert_eq!(found.at[0].to_string(), origin(&letter).0);
}

#[test]
fn a_dropped_decision_is_named_whatever_it_decided() {
    let world = busy(1);
    for kind in ["reset", "erase", "model"] {
        let is = |record: &StoredRecord| crate::scoring_world::json(record)["kind"] == kind;
        let lost = last(&world, "test-decisions", is);
        let copy = copy(
            &world,
            |name, record| {
                if name == "test-decisions" && record.offset == lost.offset { Edit::Drop } else { Edit::Keep }
            },
        );
        let all = differences(&copy);
        let told = all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let after = crate::scoring_world::json(&lost)["after"].as_u64().unwrap();
        match kind {
            "reset" => {
                let command = crate::scoring_world::json(&lost)["offset"].clone();
                assert!(told.contains(&format!("commands:0:{command}")), "{told}");
                assert!(told.contains("test-decisions has no decision about it"), "{told}");
            }
            // The profile that was erased goes on in the replay.
            "erase" => assert!(all.iter().any(|found| found.between == "changelog and transactions"), "{told}"),
            _ => {
                let found = all.iter().find(|found| found.field == "model").unwrap_or_else(|| panic!("{told}"));
                let verdict = found.at[0].offset;
                let records = copy.committed_records(topic("verdicts"));
                let id: Place = crate::scoring_world::json(&records[verdict as usize])["id"].as_str().unwrap().parse().unwrap();
                assert!(id.offset >= after, "{told}");
            }
        }
    }
}

#[test]
fn a_byte_changed_in_a_store_is_named_and_a_store_that_is_behind_is_not() {
    let mut world = busy(1);
    let audit = audit_of(&world.driver.sim);
    let backend = MemoryBackend::new();
    let store = StorePartition { store: "profiles".into(), partition: 0 };
    audit.refill(0, &backend, 0, &mut |_, _, _| {}).unwrap();
    let verify = || audit.verify(0, Ok(&backend), &Naming::Id, &mut |_, _, _| {}).unwrap();
    let clean = verify();
    assert_eq!((clean.store.differ, clean.store.compared, clean.same()), (0, clean.users.same, true));
    for n in 0..20 {
        world.pay(&format!("user-{}", n % 7), 3.0, "shop-1", T + 90_000_000 + n);
    }
    world.pay("somebody new", 3.0, "shop-1", T + 90_000_100);
    world.driver.run().unwrap();
    let behind = verify();
    assert!(behind.same() && behind.store.compared == clean.store.compared, "{:?}", behind.differences);
    let good = backend.get(&store, b"user-9").unwrap().unwrap();
    let write = |value: Option<&[u8]>| {
        let mut set = WriteSet::default();
        set.begin(store.clone());
        set.change(b"user-9", value);
        backend.write(&set).unwrap();
    };
    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 1;
    write(Some(&bytes));
    let found = verify().differences.remove(0);
    assert_eq!((found.between, found.user.as_deref()), ("store and changelog", Some("user-9")));
    write(None);
    let found = verify().differences.remove(0);
    assert_eq!((found.user.as_deref(), found.left.as_str()), (Some("user-9"), "none"));
    write(Some(&good));
    assert!(verify().same());
}

/// Users who left this machine are compared by what their stubs say of the value that went.
#[test]
fn a_stub_is_compared_and_one_of_another_value_is_named() {
    let world = busy(1);
    let audit = audit_of(&world.driver.sim);
    let backend = MemoryBackend::new();
    let store = StorePartition { store: "profiles".into(), partition: 0 };
    audit.refill(0, &backend, 0, &mut |_, _, _| {}).unwrap();
    let verify = || audit.verify(0, Ok(&backend), &Naming::Id, &mut |_, _, _| {}).unwrap();
    let full = verify();
    let mut everyone = Vec::new();
    let mut see = |key: &[u8], value: &[u8]| {
        everyone.push((key.to_vec(), value.to_vec()));
        true
    };
    backend.scan(&store, None, usize::MAX, &mut see).unwrap();
    let write = |key: &[u8], value: &[u8]| {
        let mut set = WriteSet::default();
        set.begin(store.clone());
        set.change(key, Some(value));
        backend.write(&set).unwrap();
    };
    for (key, value) in &everyone {
        write(key, &Stub::of(value).encode());
    }
    let stubs = verify();
    assert!(stubs.same() && full.same(), "{:?}", stubs.differences);
    assert_eq!((stubs.store.compared, stubs.store.differ), (full.store.compared, 0), "each stub is compared");
    let (key, value) = everyone.iter().find(|(key, _)| key == b"user-9").unwrap();
    let mut other = value.clone();
    *other.last_mut().unwrap() ^= 1;
    write(key, &Stub::of(&other).encode());
    let mut report = verify();
    assert_eq!((report.same(), report.store.differ), (false, 1));
    let found = report.differences.remove(0);
    assert_eq!((found.between, found.user.as_deref()), ("store and changelog", Some("user-9")));
    assert_eq!((&*found.left, &*found.right), ("an evicted value", "another value"));
    write(key, &Stub::of(value).encode());
    write(b"nobody", &Stub::of(value).encode());
    let found = verify().differences.remove(0);
    assert_eq!((found.user.as_deref(), &*found.right), (Some("nobody"), "no such user"));
}

#[test]
fn a_refill_that_is_interrupted_leaves_a_store_that_the_next_one_completes() {
    let world = busy(1);
    let audit = audit_of(&world.driver.sim);
    let backend = MemoryBackend::new();
    let verify = || audit.verify(0, Ok(&backend), &Naming::Id, &mut |_, _, _| {}).unwrap();
    audit.refill(0, &backend, 0, &mut |_, _, _| {}).unwrap();
    let whole = verify().store.compared;
    let mut reader = world.driver.sim.reader().unwrap();
    let (store, changelog) = (StorePartition { store: "profiles".into(), partition: 0 }, at("test-profiles-changelog", 0));
    let refill = Refill { store, changelog, lead: "transactions".into(), exactly_once: true, now_ms: 0 };
    refill.run(&mut reader, &backend, &mut |_, _| false).unwrap_err();
    let half = verify();
    assert!(half.same() && half.store.compared == 0, "{half:?}");
    refill.run(&mut reader, &backend, &mut |_, _| true).unwrap();
    assert_eq!((verify().store.compared, verify().same()), (whole, true));
}

#[test]
fn where_payments_are_gone_it_says_who_cannot_be_verified_and_still_sees_what_can() {
    let mut world = busy(1);
    // An untouched user, one that goes on, and one that only begins later.
    world.driver.sim.truncate_before(at("transactions", 0), 500);
    world.pay("late", 5.0, "shop-1", T + 90_000_000);
    world.driver.run().unwrap();
    let report = reports(&world.driver.sim).remove(0);
    assert!(report.same(), "{:?}", report.differences);
    assert!(report.users.began_before > 0 && report.users.same > 0, "{:?}", report.users);
    assert_eq!(report.payments.0, 500);
    // How far a profile goes is still compared.
    let lost = last(&world, "test-profiles-changelog", |record| record.key.as_deref() == Some(b"user-9"));
    let mut publisher = world.driver.sim.publisher().unwrap();
    let (_, profile): (Marks, UserProfile) = decode_kept(lost.value.as_deref().unwrap()).unwrap();
    let mut value = Vec::new();
    encode_kept(&Marks([501, 0, 0, 0]), &profile, &mut value);
    let to = lost.partition;
    publisher.send(&Outgoing { to, key: Some(b"user-9"), value: Some(&value), timestamp: 0, headers: &[] }).unwrap();
    publisher.flush().unwrap();
    assert_eq!(difference(&world.driver.sim).field, "payments included below offset");
}

#[test]
fn a_state_that_was_emptied_is_verified_from_there() {
    let options = DriverOptions { start_from: topology::restore::StartFrom::Earliest, ..one_partition() };
    let mut world = World::new(&ScoringParams::default(), options);
    for n in 0..10 {
        world.pay("ann", 5.0, "shop", T + n);
        world.pay("bob", 5.0, "shop", T + n);
    }
    world.command(r#"{"kind":"erase","user_id":"bob"}"#, "bob", T);
    world.driver.run().unwrap();
    world.driver.sim.truncate_before(at("transactions", 0), 10);
    world.driver.crash(true);
    world.driver.sim.forget_offsets("test");
    world.driver.run().unwrap();
    let report = reports(&world.driver.sim).remove(0);
    // Nobody's profile began before: all of them began with nothing at offset 10, and the erasure was decided again.
    assert!(report.same(), "{:?}", report.differences);
    assert_eq!(report.users.began_before, 0);
    assert!(report.users.same > 0);
}

#[test]
fn amounts_are_converted_as_was_decided() {
    let table = FxTable::parse(br#"{"EUR":1.25}"#, "USD").unwrap();
    let params = ScoringParams { fx: Some(Arc::new(table)), ..ScoringParams::default() };
    let mut world = World::new(&params, one_partition());
    for n in 0..20 {
        let json = format!(r#"{{"user_id":"ann","amount":{n},"merchant":"shop","currency":"EUR"}}"#);
        world.driver.pipe("transactions", Some(b"ann"), Some(json.as_bytes()), T + n);
    }
    world.driver.run().unwrap();
    let report = reports(&world.driver.sim).remove(0);
    assert!(report.same() && report.users.same == 1, "{report:?}");
    assert_eq!(report.outcomes.compared, 20);
}

#[test]
fn a_replay_gives_the_state_as_of_an_input_offset() {
    let mut world = World::plain();
    for n in 0..10 {
        world.pay("ann", n as f64, "shop", T + n);
    }
    world.driver.run().unwrap();
    let audit = audit_of(&world.driver.sim);
    let store = StorePartition { store: "profiles".into(), partition: 0 };
    for (to, seen) in [(Some(4), 4), (None, 10)] {
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        let replayed = audit.replay(0, to, &backend, &mut |_, _, _| {}).unwrap();
        assert_eq!((replayed.users, replayed.payments.1, replayed.truncated), (1, seen, false));
        let (marks, profile): (Marks, UserProfile) = decode_kept(&backend.get(&store, b"ann").unwrap().unwrap()).unwrap();
        assert_eq!((marks.0[0], profile.0.seen()), (seen, seen));
    }
    let refused = audit.replay(0, Some(11), &(Arc::new(MemoryBackend::new()) as Arc<dyn Backend>), &mut |_, _, _| {});
    assert!(refused.unwrap_err().to_string().contains("holds offsets 0 to 10"));
}
