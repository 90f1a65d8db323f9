//! Resets and erasures: what they leave, what they write down, and that they survive crashes.

use serde_json::{Value, json};
use topology::driver::DriverOptions;
use topology::record::TopicPartition;

use crate::scoring_world::{T, World, json, one_partition, origin};
use mangrove::scoring::ScoringParams;

fn decisions(world: &mut World) -> Vec<Value> {
    world.driver.read("test-decisions").iter().map(json).collect()
}

fn changelog(world: &mut World) -> Vec<Option<usize>> {
    world.driver.read("test-profiles-changelog").iter().map(|record| record.value.as_ref().map(|value| value.len())).collect()
}

fn is_first(verdict: &Value) -> bool {
    // A user's first payment: half the amounts below, a month since the last one.
    verdict["features"][2] == json!(0.5) && verdict["features"][7] == json!(0.0) && verdict["features"][1] == json!(0.0)
}

#[test]
fn a_reset_leaves_an_empty_profile_that_keeps_its_place() {
    let mut world = World::plain();
    world.pay("ann", 5.0, "bakery", T);
    world.pay("ann", 6.0, "bakery", T + 1);
    world.verdicts();
    changelog(&mut world);
    world.command(r#"{"kind":"reset","user_id":"ann","job":"job-7"}"#, "ann", T + 2);
    world.driver.run().unwrap();
    assert_eq!(world.seen("ann"), Some(0));
    assert_eq!(changelog(&mut world).iter().filter(|value| value.is_some()).count(), 1, "an empty profile, no tombstone");
    let decision = json!({"after": 2, "kind": "reset", "topic": "commands", "offset": 0, "subject": "job-7"});
    assert_eq!(decisions(&mut world), [decision]);
    world.pay("ann", 7.0, "bakery", T + 3);
    assert!(is_first(&world.verdicts()[0]));
}

#[test]
fn an_erasure_is_a_tombstone_and_nothing_comes_back() {
    for exactly_once in [true, false] {
        let mut world = World::new(&ScoringParams::default(), DriverOptions { exactly_once, ..one_partition() });
        world.pay("ann", 5.0, "bakery", T);
        world.pay("bob", 5.0, "bakery", T);
        world.verdicts();
        changelog(&mut world);
        world.command(r#"{"kind":"erase","user_id":"ann"}"#, "ann", T);
        world.driver.run().unwrap();
        assert_eq!(world.seen("ann"), None);
        assert_eq!(changelog(&mut world), [None]);
        assert_eq!(decisions(&mut world), [json!({"after": 2, "kind": "erase", "topic": "commands", "offset": 0})]);
        for wipe in [false, true] {
            world.driver.crash(wipe);
            world.driver.run().unwrap();
            assert_eq!((world.seen("ann"), world.seen("bob")), (None, Some(1)), "exactly_once {exactly_once}, wipe {wipe}");
        }
        let changelog = world.driver.sim.committed_records(topic("test-profiles-changelog"));
        world.driver.sim.compact(changelog[0].partition.topic);
        world.driver.crash(true);
        world.pay("ann", 7.0, "bakery", T + 3);
        assert!(is_first(&world.verdicts()[0]));
        // A new owner without a model says so once: the one before may have had one.
        let decided = decisions(&mut world);
        assert_eq!(decided, [json!({"after": 2, "kind": "model"})], "what was decided is not decided again");
    }
}

fn topic(name: &str) -> topology::record::TopicId {
    let names = mangrove::scoring::TopicNames::default();
    let topology = mangrove::scoring::scoring_topology("test", &names, &ScoringParams::default(), &Default::default());
    topology.unwrap().topics().find(name).unwrap()
}

#[test]
fn an_erasure_of_somebody_unknown_is_answered_too() {
    let mut world = World::plain();
    world.command(r#"{"kind":"erase","user_id":"zoe","job":"j"}"#, "zoe", T);
    world.driver.run().unwrap();
    assert_eq!(decisions(&mut world)[0]["subject"], json!("j"));
    assert_eq!(world.seen("zoe"), None);
}

#[test]
fn what_is_no_command_is_put_aside_and_the_next_one_obeyed() {
    let mut world = World::new(&ScoringParams::default(), DriverOptions { partitions: 2, ..DriverOptions::default() });
    world.pay("ann", 5.0, "bakery", T);
    let here = world.partition_of("ann");
    let long = format!(r#"{{"kind":"reset","user_id":"ann","job":"{}"}}"#, "j".repeat(257));
    let bad: [Option<&str>; 7] = [
        None,
        Some("{"),
        Some("[]"),
        Some(r#"{"kind":"explode","user_id":"ann"}"#),
        Some(r#"{"kind":"reset","user_id":""}"#),
        Some(r#"{"kind":"reset"}"#),
        Some(&long),
    ];
    for value in bad {
        world.driver.pipe_to("commands", here, Some(b"ann"), value.map(str::as_bytes), T);
    }
    let reset = br#"{"kind":"reset","user_id":"ann"}"#;
    world.driver.pipe_to("commands", 1 - here, Some(b"ann"), Some(reset), T);
    world.driver.pipe_to("commands", here, Some(b"ann"), Some(reset), T);
    world.verdicts();
    assert_eq!(world.seen("ann"), Some(0));
    let mut dead: Vec<(String, String)> = world.driver.read("dead-letters").iter().map(origin).collect();
    dead.sort();
    let mut want: Vec<(String, String)> =
        (0..bad.len()).map(|n| (format!("commands:{here}:{n}"), "not_a_command".to_owned())).collect();
    want.push((format!("commands:{}:0", 1 - here), "misplaced".to_owned()));
    want.sort();
    assert_eq!(dead, want);
}

#[test]
fn commands_take_effect_between_the_payments_they_came_between() {
    let mut world = World::plain();
    for round in 0..3 {
        for n in 0..4 {
            world.pay("ann", 5.0, "bakery", T + round * 10 + n);
        }
        let verdicts = world.verdicts();
        let firsts: Vec<bool> = verdicts.iter().map(is_first).collect();
        assert_eq!(firsts, [true, false, false, false], "round {round}");
        world.command(r#"{"kind":"reset","user_id":"ann"}"#, "ann", T);
        world.driver.run().unwrap();
    }
    let after: Vec<u64> = decisions(&mut world).iter().map(|decision| decision["after"].as_u64().unwrap()).collect();
    assert_eq!(after, [4, 8, 12]);
    let offsets = world.driver.sim.group_offsets("test");
    let commands = TopicPartition { topic: topic("commands"), partition: 0 };
    assert_eq!(offsets.get(&commands), Some(&3));
}
