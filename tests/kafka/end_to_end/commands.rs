//! Resets and erasures from `commands`.

use serde_json::{Value, json};
use topology::partitioner::partition_of;

use super::records::{Raw, Seen, now_ms};
use super::scene::Scene;
use super::service::Service;
use super::until;

const PARTITIONS: u32 = 4;
const USER: &str = "u-1";

struct World {
    scene: Scene,
    service: Service,
    sent: usize,
}

impl World {
    fn new(test: &str) -> Option<Self> {
        let scene = Scene::new(test)?;
        scene.create("transactions", PARTITIONS, &[]);
        let mut service = scene.start("a");
        service.restored(PARTITIONS as usize);
        Some(Self { scene, service, sent: 0 })
    }

    fn write(&self, topic: &str, user: &str, value: &Value) {
        let key = user.as_bytes().to_vec();
        let raw = Raw {
            partition: partition_of(&key, PARTITIONS),
            key: Some(key),
            value: Some(value.to_string().into_bytes()),
            timestamp: Some(now_ms()),
            ..Raw::default()
        };
        let writer = self.scene.writer();
        writer.raw(&self.scene.topic(topic), &raw);
        writer.flush();
    }

    /// Pays and gives the verdict's ten features.
    fn pay(&mut self, user: &str, amount: f64) -> Vec<f64> {
        self.write("transactions", user, &json!({"user_id": user, "amount": amount, "merchant": "m"}));
        self.sent += 1;
        let mut verdicts = until("the verdict", || {
            Some(self.scene.read(&self.scene.topic("verdicts"))).filter(|verdicts| verdicts.len() == self.sent)
        });
        verdicts.sort_by_key(|seen| (seen.timestamp, seen.offset));
        let newest = verdicts.iter().rev().find(|seen| seen.key.as_deref() == Some(user.as_bytes())).expect("the user's").json();
        assert_eq!(newest["amount"], amount);
        serde_json::from_value(newest["features"].clone()).expect("ten numbers")
    }

    /// Waits for so many decisions about commands and gives them in order.
    fn decisions(&self, count: usize) -> Vec<Value> {
        let topic = self.scene.topic("app-decisions");
        until("the decisions", || {
            let decisions: Vec<Value> =
                self.scene.read(&topic).iter().map(Seen::json).filter(|d| d["topic"] != Value::Null).collect();
            (decisions.len() >= count).then_some(decisions)
        })
    }

    fn count(&mut self, user: &str) -> (u16, Option<u64>) {
        let (status, body) = self.service.get(&format!("/v1/users/{user}/profile"));
        let body: Value = serde_json::from_str(&body).expect("JSON");
        (status, body["count"].as_u64())
    }
}

#[test]
fn a_reset_begins_the_profile_anew_and_is_decided_once() {
    let Some(mut world) = World::new("reset") else { return };
    let first = world.pay(USER, 20.0);
    world.pay(USER, 20.0);
    let third = world.pay(USER, 20.0);
    assert!(first[8] == 1.0 && third != first, "a profile makes a difference: {third:?}");
    until("the profile is committed", || (world.count(USER) == (200, Some(3))).then_some(()));
    world.write("commands", USER, &json!({"kind": "reset", "user_id": USER, "job": "job-7"}));
    let decisions = world.decisions(1);
    let decided = json!({"after": 3, "kind": "reset", "topic": world.scene.topic("commands"), "offset": 0, "subject": "job-7"});
    assert_eq!(decisions, [decided]);
    assert_eq!(world.pay(USER, 20.0), first, "as on an empty profile");
    until("the profile is committed", || (world.count(USER) == (200, Some(1))).then_some(()));
    // A crash and a lost folder bring nothing of the old profile back, and the command does not act again.
    let World { scene, service, sent } = world;
    service.kill();
    scene.forget("a");
    let mut service = scene.start_with("b", &[]);
    service.restored(PARTITIONS as usize);
    let mut world = World { scene, service, sent };
    until("the profile is there", || (world.count(USER) == (200, Some(1))).then_some(()));
    assert_eq!(world.pay(USER, 20.0)[8], 1.0, "still a new user");
    until("the profile is committed", || (world.count(USER) == (200, Some(2))).then_some(()));
    assert_eq!(world.decisions(1).len(), 1);
    world.service.stop();
}

#[test]
fn an_erasure_leaves_a_tombstone() {
    let Some(mut world) = World::new("erase") else { return };
    let first = world.pay(USER, 20.0);
    world.pay(USER, 20.0);
    world.pay("someone-else", 20.0);
    world.write("commands", USER, &json!({"kind": "erase", "user_id": USER}));
    assert_eq!(world.decisions(1)[0]["kind"], "erase");
    until("the user is gone", || (world.count(USER).0 == 404).then_some(()));
    let changelog = world.scene.read(&world.scene.changelog());
    let of_user: Vec<&Seen> = changelog.iter().filter(|seen| seen.key.as_deref() == Some(USER.as_bytes())).collect();
    assert_eq!(of_user.iter().map(|seen| seen.value.is_some()).collect::<Vec<_>>(), [true, true, false]);
    until("nobody else is touched", || (world.count("someone-else") == (200, Some(1))).then_some(()));
    assert_eq!(world.pay(USER, 20.0), first);
    world.service.stop();
}

#[test]
fn what_is_no_command_is_put_aside() {
    let Some(world) = World::new("nocommand") else { return };
    world.write("commands", USER, &json!({"kind": "promote", "user_id": USER}));
    let elsewhere = |key: &String| partition_of(key.as_bytes(), PARTITIONS) != partition_of(USER.as_bytes(), PARTITIONS);
    let key = (0..).map(|number| format!("key-{number}")).find(elsewhere).expect("a key of another partition");
    world.write("commands", &key, &json!({"kind": "reset", "user_id": USER}));
    world.write("commands", USER, &json!({"kind": "reset", "user_id": USER}));
    assert_eq!(world.decisions(1).len(), 1);
    let mut causes: Vec<String> = until("two dead letters", || {
        let dead = world.scene.read(&world.scene.topic("dead-letters"));
        let causes: Vec<String> = dead.iter().map(|seen| seen.header("__streams.errors.exception")).collect();
        (causes.len() == 2).then_some(causes)
    });
    causes.sort_unstable();
    assert_eq!(causes, ["misplaced", "not_a_command"]);
    world.service.stop();
}
