//! Two instances on one simulated broker: what one snoozes, both leave out, until it is over.

use topology::broker::{Cleanup, Publisher as _, TopicSpec};
use topology::clock::MockClock;
use topology::record::{Outgoing, TopicPartition, Topics};
use topology::simulated::SimBroker;

use super::*;

const NOW_MS: i64 = 1_700_000_000_000;

struct Place {
    broker: Arc<SimBroker>,
    clock: MockClock,
}

impl Place {
    fn new() -> Self {
        let broker = SimBroker::new(Topics::new(vec!["snoozes".to_owned()]));
        let cleanup = Cleanup::Compact { tombstone_retention_ms: 1_000 };
        broker.create(&TopicSpec { name: "snoozes".into(), partitions: 1, cleanup, max_message_bytes: None }).unwrap();
        Self { broker: Arc::new(broker), clock: MockClock::at(NOW_MS) }
    }

    fn side(&self) -> Snoozes {
        Snoozes::new(&self.broker, TopicId(0), Arc::new(self.clock.clone()))
    }
}

fn snooze(kind: Kind, name: &str, until_ms: i64) -> Snooze {
    Snooze { kind, name: name.into(), reason: "travels".into(), by: None, from_ms: NOW_MS, until_ms }
}

#[test]
fn what_one_instance_snoozes_both_leave_out_until_it_is_over() {
    let place = Place::new();
    let (one, two) = (place.side(), place.side());
    assert!(!one.is_snoozed("u1", "m1", NOW_MS));
    one.begin(&snooze(Kind::User, "u1", NOW_MS + 100)).unwrap();
    two.begin(&snooze(Kind::Merchant, "m1", NOW_MS + 200)).unwrap();
    for side in [&one, &two, &place.side()] {
        side.look(Duration::ZERO).unwrap();
        assert!(side.is_snoozed("u1", "m2", NOW_MS) && side.is_snoozed("u2", "m1", NOW_MS));
        // A user and a merchant of one name are not the same.
        assert!(!side.is_snoozed("m1", "u1", NOW_MS) && !side.is_snoozed("u2", "m2", NOW_MS));
        assert!(side.is_snoozed("u1", "m2", NOW_MS + 99) && !side.is_snoozed("u1", "m2", NOW_MS + 100), "its end is its own");
        assert!(!side.is_snoozed("u1", "m2", NOW_MS - 1));
    }
    place.clock.advance(150);
    assert_eq!(one.list(), [snooze(Kind::Merchant, "m1", NOW_MS + 200)], "what is over is not listed");
    // A later one for the same name takes the place, and what is over goes from the topic.
    one.begin(&snooze(Kind::Merchant, "m1", NOW_MS + 900)).unwrap();
    assert_eq!(lock(&one.0.view).snoozes.len(), 1);
    two.look(Duration::ZERO).unwrap();
    assert_eq!(two.list(), [snooze(Kind::Merchant, "m1", NOW_MS + 900)]);
    two.end("merchant:m1").unwrap();
    assert_eq!(two.end("merchant:m1"), Err(SnoozeError::Unknown));
    one.look(Duration::ZERO).unwrap();
    assert!(!one.is_snoozed("u2", "m1", NOW_MS + 160) && one.list().is_empty());
}

#[test]
fn records_that_are_none_change_nothing() {
    let place = Place::new();
    let one = place.side();
    one.begin(&snooze(Kind::User, "u1", NOW_MS + 100)).unwrap();
    let mut publisher = place.broker.publisher().unwrap();
    let to = TopicPartition { topic: TopicId(0), partition: 0 };
    let other = serde_json::to_vec(&snooze(Kind::User, "u2", NOW_MS + 100)).unwrap();
    let backwards = serde_json::to_vec(&snooze(Kind::User, "u3", NOW_MS)).unwrap();
    for (key, value) in [(&b"user:u1"[..], &b"{}"[..]), (b"user:u1", &other), (b"user:u3", &backwards), (b"\xff", b"x")] {
        publisher.send(&Outgoing { to, key: Some(key), value: Some(value), timestamp: 0, headers: &[] }).unwrap();
    }
    publisher.flush().unwrap();
    one.look(Duration::ZERO).unwrap();
    assert_eq!(one.list(), [snooze(Kind::User, "u1", NOW_MS + 100)]);
}
