//! Topics: created as asked, left alone when they exist, never created by asking.

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use topology::broker::{Broker, Cleanup, Publisher, TopicInfo, TopicSpec};

use crate::world::{INPUT, MISSING, NARROW, NARROW_BYTES, PARTITIONS, World, at, record, run};

/// What the broker says about a topic's properties.
fn property(world: &World, topic: &str, name: &str) -> Option<String> {
    let admin: AdminClient<DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &world.address).create().expect("an admin client");
    let answer = run(admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new()));
    answer.expect("an answer").remove(0).expect("a topic").get(name).and_then(|entry| entry.value.clone())
}

#[test]
fn a_missing_topic_is_none_and_stays_missing() {
    let Some(world) = World::new("missing") else { return };
    for _ in 0..2 {
        let infos = world.broker.describe(&[INPUT, MISSING, NARROW]).expect("described");
        assert_eq!(infos[0].as_ref().map(|info| info.partitions), Some(PARTITIONS));
        assert_eq!(infos[1], None);
        let narrow = infos[2].as_ref().expect("a topic");
        assert_eq!((narrow.partitions, narrow.max_message_bytes), (PARTITIONS, Some(NARROW_BYTES)));
        let kept = narrow.kept.expect("the broker tells");
        assert_eq!((kept.compacted, kept.retention_ms), (false, None), "created to keep all");
        assert!(kept.roll_ms > 0, "segments of a real broker roll");
    }
}

#[test]
fn topics_are_created_as_asked_and_then_left_alone() {
    let Some(world) = World::new("created") else { return };
    let name = world.broker.topics().name(MISSING).to_owned();
    let cleanup = Cleanup::Compact { tombstone_retention_ms: 123_456 };
    let spec = TopicSpec { name: name.clone(), partitions: 3, cleanup, max_message_bytes: Some(2_000_000) };
    world.broker.create(&spec).expect("created");
    world.broker.create(&TopicSpec { partitions: 5, max_message_bytes: None, ..spec }).expect("it exists");
    let infos = world.broker.describe(&[MISSING]).expect("described");
    let [Some(TopicInfo { partitions: 3, max_message_bytes: Some(2_000_000), kept: Some(kept) })] = infos[..] else {
        panic!("{infos:?}")
    };
    assert_eq!((kept.compacted, kept.retention_ms), (true, None));
    assert_eq!(property(&world, &name, "cleanup.policy").as_deref(), Some("compact"));
    assert_eq!(property(&world, &name, "delete.retention.ms").as_deref(), Some("123456"));
    let input = world.broker.topics().name(INPUT);
    assert_eq!(property(&world, input, "cleanup.policy").as_deref(), Some("delete"));
    assert_eq!(property(&world, input, "retention.ms").as_deref(), Some("-1"));
    // Ready at once: its partitions have leaders.
    world.broker.publisher().expect("a publisher").send(&record(at(MISSING, 2), b"x")).expect("sent");
}

#[test]
fn a_publisher_learns_where_each_record_went() {
    let Some(world) = World::new("positions") else { return };
    let mut publisher = world.broker.publisher().expect("a publisher");
    let mut positions = Vec::new();
    for round in 0..3_u64 {
        let targets = [1, 0, 1, 3, 1].map(|partition| at(INPUT, partition));
        for to in targets {
            publisher.send(&record(to, b"x")).expect("sent");
        }
        positions.clear();
        publisher.flush_positions(&mut positions).expect("durable");
        let expected = [3 * round, round, 3 * round + 1, round, 3 * round + 2];
        assert_eq!(positions, targets.into_iter().zip(expected).collect::<Vec<_>>());
    }
    publisher.send(&record(at(INPUT, 2), b"x")).expect("sent");
    publisher.flush().expect("durable");
    positions.clear();
    publisher.flush_positions(&mut positions).expect("nothing to flush");
    assert_eq!(positions, []);
}
