//! The scoring topology on the TestDriver, and how tests of it speak.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use mangrove::scoring::{ModelSlot, ScoringParams, TopicNames, UserProfile, scoring_topology};
use mangrove::training;
use models::{Model, TrainParams};
use serde_json::Value;
use topology::driver::{DriverOptions, TestDriver};
use topology::partitioner::partition_of;
use topology::simulated::StoredRecord;

/// A Tuesday afternoon.
pub const T: i64 = 1_700_000_000_000;

pub struct World {
    pub driver: TestDriver,
    pub slot: ModelSlot,
    pub partitions: u32,
}

impl World {
    pub fn new(params: &ScoringParams, options: DriverOptions) -> Self {
        let slot = ModelSlot::default();
        let topology = scoring_topology("test", &TopicNames::default(), params, &slot).unwrap();
        let partitions = options.partitions;
        Self { driver: TestDriver::new(topology, options), slot, partitions }
    }

    /// One partition, default parameters, no model.
    pub fn plain() -> Self {
        Self::new(&ScoringParams::default(), one_partition())
    }

    /// A payment keyed by its user, as a producer would send it.
    pub fn pay(&mut self, user: &str, amount: f64, merchant: &str, at: i64) {
        let json = payment(user, amount, merchant, at);
        self.driver.pipe("transactions", Some(user.as_bytes()), Some(json.as_bytes()), at);
    }

    pub fn command(&mut self, json: &str, user: &str, at: i64) {
        self.driver.pipe("commands", Some(user.as_bytes()), Some(json.as_bytes()), at);
    }

    /// Runs, then the new verdicts.
    pub fn verdicts(&mut self) -> Vec<Value> {
        self.driver.run().unwrap();
        self.driver.read("verdicts").iter().map(json).collect()
    }

    pub fn seen(&self, user: &str) -> Option<u64> {
        self.profile(user).map(|profile| profile.0.seen())
    }

    pub fn profile(&self, user: &str) -> Option<UserProfile> {
        self.driver.value::<UserProfile>("profiles", user.as_bytes()).map(|(_, profile)| profile)
    }

    pub fn partition_of(&self, user: &str) -> u32 {
        partition_of(user.as_bytes(), self.partitions)
    }
}

pub fn one_partition() -> DriverOptions {
    DriverOptions { partitions: 1, ..DriverOptions::default() }
}

pub fn payment(user: &str, amount: f64, merchant: &str, at: i64) -> String {
    serde_json::json!({"user_id": user, "amount": amount, "merchant": merchant, "timestamp": at}).to_string()
}

pub fn bytes(record: &StoredRecord) -> &[u8] {
    record.value.as_deref().expect("a value")
}

pub fn json(record: &StoredRecord) -> Value {
    serde_json::from_slice(bytes(record)).expect("JSON")
}

pub fn header<'r>(record: &'r StoredRecord, name: &str) -> Option<&'r str> {
    let header = record.headers.iter().find(|header| header.name == name)?;
    header.value.as_deref().map(|value| std::str::from_utf8(value).expect("our headers are text"))
}

/// Where a dead letter's record was: `topic:partition:offset`, and the cause.
pub fn origin(record: &StoredRecord) -> (String, String) {
    let error = |name: &str| header(record, &format!("__streams.errors.{name}")).expect("every dead letter says why").to_owned();
    (format!("{}:{}:{}", error("topic"), error("partition"), error("offset")), error("exception"))
}

/// Every record's outcome by id: `scored`, or the cause of its dead letter. One record may have only one, unless `repeats` allows equal
/// ones again.
pub fn outcomes(driver: &mut TestDriver, repeats: bool) -> BTreeMap<String, String> {
    let verdicts = driver.read("verdicts");
    let dead = driver.read("dead-letters");
    let scored = verdicts.iter().map(|record| (json(record)["id"].as_str().expect("an id").to_owned(), "scored".to_owned()));
    let mut outcomes = BTreeMap::new();
    for (id, what) in scored.chain(dead.iter().map(origin)) {
        let before = outcomes.insert(id.clone(), what.clone());
        assert!(before.is_none() || (repeats && before.as_ref() == Some(&what)), "{id}: {before:?}, then {what}");
    }
    outcomes
}

/// A small model of made-up payments, trained once for each seed asked for.
pub fn model(seed: u64) -> Arc<Model> {
    static ROWS: OnceLock<training::TrainingRows> = OnceLock::new();
    let rows = ROWS.get_or_init(|| training::synthetic(4_000, &ScoringParams::default(), &|_| {}).unwrap());
    let params = TrainParams { trees: 20, max_samples: 64, seed };
    Arc::new(rows.train(params, 0.05, None, &|| {}).unwrap())
}
