//! Records that are not where their user belongs, and topics whose records may be anywhere.

use std::collections::BTreeMap;

use mangrove::scoring::{Partitioning, ScoringParams};
use serde_json::Value;
use topology::broker::{Broker, Publisher};
use topology::driver::DriverOptions;
use topology::record::{Header, Outgoing, TopicPartition};

use crate::scoring_world::{T, World, json, model, outcomes, payment};

fn two(partitioning: Partitioning) -> World {
    let params = ScoringParams { partitioning, ..ScoringParams::default() };
    World::new(&params, DriverOptions { partitions: 2, ..DriverOptions::default() })
}

/// `count` records of ann: every `n`th is in the wrong partition.
fn pipe(world: &mut World, count: u32, misplaced: impl Fn(u32) -> bool) {
    let here = world.partition_of("ann");
    for n in 0..count {
        // Other users fill the other partition, so that a misplaced record is one among many.
        let json = payment(if misplaced(n) { "ann" } else { other(here) }, 5.0, "m", T);
        world.driver.pipe_to("transactions", 1 - here, None, Some(json.as_bytes()), T);
    }
}

/// A user of the other partition than ann's.
fn other(here: u32) -> &'static str {
    let users = ["bob", "cid", "dee", "eve", "fay", "gus", "hal", "ida"];
    let mut of_others = users.into_iter().filter(|user| topology::partitioner::partition_of(user.as_bytes(), 2) != here);
    of_others.next().expect("one of eight users is in the other partition")
}

#[test]
fn a_few_misplaced_records_are_put_aside() {
    let mut world = two(Partitioning::Murmur2);
    pipe(&mut world, 1_000, |n| n % 10 == 0);
    world.driver.run().unwrap();
    let outcomes = outcomes(&mut world.driver, false);
    assert_eq!(outcomes.values().filter(|what| *what == "misplaced").count(), 100);
    assert_eq!(outcomes.len(), 1_000);
    assert_eq!(world.seen("ann"), None);
}

#[test]
fn many_of_the_first_thousand_stop_the_instance_with_advice() {
    let mut world = two(Partitioning::Murmur2);
    pipe(&mut world, 1_000, |n| n % 10 == 0 || n == 999);
    let halt = world.driver.run().unwrap_err().to_string();
    assert!(halt.contains("INPUT_PARTITIONING=any") && halt.contains("murmur2"), "{halt}");
    assert!(outcomes(&mut world.driver, false).len() < 1_000, "the batch of the stop is not committed");
}

#[test]
fn after_the_first_thousand_the_stream_goes_on() {
    let mut world = two(Partitioning::Murmur2);
    pipe(&mut world, 1_500, |n| n >= 1_000);
    world.driver.run().unwrap();
    let outcomes = outcomes(&mut world.driver, false);
    assert_eq!(outcomes.values().filter(|what| *what == "misplaced").count(), 500);
}

#[test]
fn a_header_that_a_producer_wrote_does_not_become_an_id() {
    let mut world = two(Partitioning::Murmur2);
    let mut publisher = world.driver.sim.publisher().unwrap();
    let topic = world.driver.sim.topics().find("transactions").unwrap();
    let to = TopicPartition { topic, partition: world.partition_of("ann") };
    let json = payment("ann", 5.0, "m", T);
    let headers = [Header { name: "mangrove.origin", value: Some(b"transactions:0:77") }];
    publisher.send(&Outgoing { to, key: None, value: Some(json.as_bytes()), timestamp: T, headers: &headers }).unwrap();
    publisher.flush().unwrap();
    assert_eq!(world.verdicts()[0]["id"], format!("transactions:{}:0", to.partition));
}

/// By id: user, features and score.
fn told(verdicts: &[Value]) -> BTreeMap<String, (Value, Value, Value)> {
    let one = |verdict: &Value| {
        let field = |name: &str| verdict[name].clone();
        (verdict["id"].as_str().unwrap().to_owned(), (field("user_id"), field("features"), field("score")))
    };
    verdicts.iter().map(one).collect()
}

#[test]
fn records_anywhere_are_scored_where_their_users_live_under_the_ids_their_producers_know() {
    let users = ["ann", "bob", "cid", "dee", "eve"];
    let mut world = two(Partitioning::Any);
    world.slot.set(Some(model(1)));
    let forged = Header { name: "mangrove.origin", value: Some(b"forged:0:0") };
    let kept = Header { name: "trace", value: Some(b"7") };
    let topic = world.driver.sim.topics().find("transactions").unwrap();
    let mut publisher = world.driver.sim.publisher().unwrap();
    for n in 0..60usize {
        // All of one user's records are in one partition, though not in the right one: their order is the file's.
        let (user, partition) = (users[n % 5], (n % 5 % 2) as u32);
        let json = payment(user, n as f64, "m", T + n as i64);
        let to = TopicPartition { topic, partition };
        let headers = [forged, kept];
        publisher.send(&Outgoing { to, key: None, value: Some(json.as_bytes()), timestamp: T + 60, headers: &headers }).unwrap();
    }
    publisher.flush().unwrap();
    world.driver.pipe_to("transactions", 1, None, Some(b"{"), T);
    world.driver.pipe_to("transactions", 1, None, None, T);
    world.driver.run().unwrap();
    let records = world.driver.read("verdicts");
    for record in &records {
        let user = json(record)["user_id"].as_str().unwrap().to_owned();
        assert_eq!((record.partition.partition, record.timestamp), (world.partition_of(&user), T + 60));
    }
    let verdicts: Vec<Value> = records.iter().map(json).collect();
    let repartitioned = world.driver.read("test-by-user-repartition");
    assert!(repartitioned.iter().all(|record| record.headers.iter().filter(|h| h.name == "mangrove.origin").count() == 1));
    assert!(repartitioned.iter().all(|record| record.headers.iter().any(|h| h.name == "trace")));
    // The same payments, each in its place from the start.
    let mut straight = World::new(&ScoringParams::default(), DriverOptions { partitions: 1, ..DriverOptions::default() });
    straight.slot.set(Some(model(1)));
    for n in 0..60usize {
        let json = payment(users[n % 5], n as f64, "m", T + n as i64);
        straight.driver.pipe("transactions", None, Some(json.as_bytes()), T + 60);
    }
    let want = straight.verdicts();
    let mut offsets = [0, 0];
    let renamed = want.into_iter().enumerate().map(|(n, mut verdict)| {
        let partition = n % 5 % 2;
        verdict["id"] = format!("transactions:{partition}:{}", offsets[partition]).into();
        offsets[partition] += 1;
        verdict
    });
    assert_eq!(told(&verdicts), told(&renamed.collect::<Vec<_>>()));
    let dead = world.driver.read("dead-letters");
    let mut causes: Vec<_> = dead.iter().map(crate::scoring_world::origin).collect();
    causes.sort();
    let want = [("transactions:1:24", "not_json"), ("transactions:1:25", "tombstone")];
    assert_eq!(causes, want.map(|(id, cause)| (id.to_owned(), cause.to_owned())));
}
