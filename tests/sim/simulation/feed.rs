//! What comes in: payments of a few hot users and many others, records that are none, resets and erasures.

use std::sync::{Arc, OnceLock};

use models::{FEATURES, Model, TrainParams, Window};
use ndarray::ArrayView2;
use serde_json::json;
use topology::broker::{Broker, Publisher};
use topology::partitioner::partition_of;
use topology::record::{Outgoing, TopicPartition};
use topology::simulated::{SimBroker, SimPublisher};

use super::random::Random;
use super::world::{BEGIN_MS, PARTITIONS};

const USERS: usize = 24;

pub struct Feed {
    publisher: SimPublisher,
    sim: SimBroker,
    users: Vec<String>,
    pub payments: u64,
    commands: u64,
    event_time_ms: i64,
}

impl Feed {
    pub fn new(sim: &SimBroker) -> Self {
        Self {
            publisher: sim.publisher().expect("tests are not interfered with"),
            sim: sim.clone(),
            users: users(),
            payments: 0,
            commands: 0,
            event_time_ms: BEGIN_MS,
        }
    }

    fn user(&self, random: &mut Random) -> &str {
        let hot = random.one_in(3);
        &self.users[random.index(if hot { 2 } else { USERS })]
    }

    fn send(&mut self, topic: &str, partition: u32, key: &str, value: Option<&[u8]>) {
        let topic = self.sim.topics().find(topic).expect("a topic of the application");
        let to = TopicPartition { topic, partition };
        let record = Outgoing { to, key: Some(key.as_bytes()), value, timestamp: self.event_time_ms, headers: &[] };
        self.publisher.send(&record).expect("tests are not interfered with");
        self.publisher.flush().expect("tests are not interfered with");
    }

    /// One payment; now and then one that is none.
    pub fn pay(&mut self, random: &mut Random) {
        if random.one_in(20) {
            return self.poison(random);
        }
        let amount = if random.one_in(12) { 50_000 + random.below(1_000_000) } else { 100 + random.below(9_000) };
        self.pay_amount(random, amount);
    }

    /// A payment of so many cents.
    pub fn pay_amount(&mut self, random: &mut Random, cents: u64) {
        self.event_time_ms += 1_000 * random.below(7_200) as i64;
        let user = self.user(random).to_owned();
        let merchant = format!("m{}", random.below(9));
        let amount = cents as f64 / 100.0;
        let value = json!({"user_id": user, "amount": amount, "merchant": merchant, "timestamp": self.event_time_ms}).to_string();
        self.payments += 1;
        self.send("transactions", partition_of(user.as_bytes(), PARTITIONS), &user, Some(value.as_bytes()));
    }

    pub fn poison(&mut self, random: &mut Random) {
        let user = self.user(random).to_owned();
        let home = partition_of(user.as_bytes(), PARTITIONS);
        let misplaced = json!({"user_id": user, "amount": 1, "merchant": "m"}).to_string();
        let (partition, value) = match random.below(4) {
            0 => (home, Some(&b"{"[..])),
            1 => (home, Some(&br#"{"user_id":"u","amount":1}"#[..])),
            2 => (home, None),
            _ => ((home + 1) % PARTITIONS, Some(misplaced.as_bytes())),
        };
        self.payments += 1;
        self.send("transactions", partition, &user, value);
    }

    pub fn command(&mut self, random: &mut Random) {
        let user = self.user(random).to_owned();
        self.commands += 1;
        let kind = if random.one_in(2) { "erase" } else { "reset" };
        let command = json!({"kind": kind, "user_id": user, "job": format!("j{}", self.commands)}).to_string();
        let value = if random.one_in(10) { "no command" } else { &command };
        self.send("commands", partition_of(user.as_bytes(), PARTITIONS), &user, Some(value.as_bytes()));
    }
}

/// As many of each partition.
fn users() -> Vec<String> {
    let mut room = [USERS / PARTITIONS as usize; PARTITIONS as usize];
    let mut fits = |name: &String| {
        let room = &mut room[partition_of(name.as_bytes(), PARTITIONS) as usize];
        *room > 0 && {
            *room -= 1;
            true
        }
    };
    (0..10_000).map(|n| format!("u{n}")).filter(|name| fits(name)).take(USERS).collect()
}

/// Three small models, made once.
pub fn scorers() -> &'static [Arc<Model>] {
    static MODELS: OnceLock<Vec<Arc<Model>>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let mut random = Random::new(7);
        let rows: Vec<f32> = (0..400 * FEATURES).map(|_| random.below(1_000) as f32 / 250.0).collect();
        let view = ArrayView2::from_shape((400, FEATURES), &rows).expect("it has that many");
        let model = |seed: u64| {
            let amounts: Vec<f64> = (0..400).map(|n| f64::from(n) * seed as f64).collect();
            let params = TrainParams { trees: 6, max_samples: 32, seed };
            Arc::new(Model::train(view, &amounts, params, 0.1, None, Window::default()).expect("trains"))
        };
        (1..4).map(model).collect()
    })
}
