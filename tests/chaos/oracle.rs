//! What must have come of every record: one thread folds the input and the decisions with `models` alone, without the engine, its
//! stores, its commits or its restores, and compares with what came, with the state that is kept, and with what queries were answered.

use std::collections::BTreeMap;

use mangrove::scoring::{ScoringParams, UserProfile};
use models::verdict::VerdictRef;
use models::{Model, Transaction, explain, verdict};
use serde_json::Value;
use topology::partitioner::partition_of;

use crate::arena::Arena;
use crate::common::ledger::model;
use crate::common::records::{self, Seen};
use crate::common::scene::{PARTITIONS, Scene};
use crate::queries::Answered;
use crate::watch::{Came, digest};

/// Examples of one kind of fault that are told.
const EXAMPLES: usize = 3;

/// What was counted, and what is wrong (empty where nothing is).
#[derive(Default)]
pub struct Outcome {
    pub records: u64,
    pub lost: u64,
    pub doubled: u64,
    pub different: u64,
    pub decisions: u64,
    pub profiles: u64,
    pub queries: u64,
    pub faults: String,
    examples: BTreeMap<&'static str, (u64, Vec<String>)>,
}

impl Outcome {
    fn fault(&mut self, kind: &'static str, example: impl FnOnce() -> String) {
        let (count, examples) = self.examples.entry(kind).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example());
        }
    }

    fn judge(&mut self, came: &Came, expected: u64, exactly_once: bool, what: impl Fn() -> String) {
        self.records += 1;
        if came.times == 0 {
            self.lost += 1;
            return self.fault("lost", what);
        }
        self.doubled += u64::from(came.times - 1 + came.others);
        if exactly_once && came.times > 1 {
            self.fault("doubled", &what);
        }
        if came.others > 0 || came.digest != expected {
            self.different += 1;
            self.fault("different", what);
        }
    }
}

/// A user's profile at the point that the fold has reached, and how often it was updated up to which offset.
#[derive(Default)]
struct User {
    profile: UserProfile,
    /// From this offset on (the next one of the input) so many payments are counted; true where a reset made it so.
    counts: Vec<(u64, u64, bool)>,
}

struct Fold {
    params: ScoringParams,
    model: Model,
    users: BTreeMap<String, User>,
    /// By partition: from which offset on which user's profile is empty, in order.
    resets: Vec<Vec<(u64, String)>>,
    done: Vec<usize>,
}

impl Fold {
    fn reset_before(&mut self, partition: usize, offset: u64) {
        while let Some((after, user)) = self.resets[partition].get(self.done[partition]).filter(|(after, _)| *after <= offset) {
            let user = self.users.entry(user.clone()).or_default();
            user.profile = UserProfile::default();
            user.counts.push((*after, 0, true));
            self.done[partition] += 1;
        }
    }

    /// What must come of a record.
    fn expect(&mut self, topic: &str, record: &Seen) -> u64 {
        self.reset_before(record.partition as usize, record.offset);
        let dead = |cause: &str| digest(record.key.as_deref(), record.value.as_deref(), record.timestamp, cause);
        let Some(value) = &record.value else { return dead("tombstone") };
        let payment = match Transaction::from_json(value, record.timestamp, &self.params.limits()) {
            Ok(payment) => payment,
            Err(why) => return dead(why.cause.as_str()),
        };
        if partition_of(payment.user_id.as_bytes(), PARTITIONS) != record.partition {
            return dead("misplaced");
        }
        let (model, user) = (&self.model, self.users.entry(payment.user_id.to_string()).or_default());
        let bound = Some(model.global_amount_p99);
        let observation = user.profile.0.score_then_update(payment.amount, payment.event_time, &payment.merchant, bound);
        user.counts.push((record.offset + 1, user.profile.0.seen(), false));
        let raw = model.forest.raw_score(&observation.features);
        let score = model.score(raw);
        let is_anomaly = score >= self.params.threshold;
        let reasons = if is_anomaly { explain::explain(model, &observation, payment.amount) } else { Vec::new() };
        let id = format!("{topic}:{}:{}", record.partition, record.offset);
        let mut text = Vec::new();
        VerdictRef {
            tx_id: payment.tx_id.as_deref().expect("the load names each payment"),
            id: &id,
            user_id: &payment.user_id,
            event_time: payment.event_time,
            amount: payment.amount,
            currency: None,
            merchant: &payment.merchant,
            score: Some(score),
            raw_score: Some(raw),
            is_anomaly,
            severity: verdict::severity(score, self.params.threshold),
            explanation: &explain::explanation(&reasons),
            reasons: &reasons,
            features: &observation.features,
            model_id: Some(&model.id),
            fx: None,
        }
        .write_json(&mut text);
        digest(Some(payment.user_id.as_bytes()), Some(&text), record.timestamp, "")
    }
}

/// From which offset on which user's profile is empty, as it was decided.
fn resets(scene: &Scene, outcome: &mut Outcome, commands: u64) -> Vec<Vec<(u64, String)>> {
    let mut users = BTreeMap::new();
    records::each(&scene.address, &scene.topic("commands"), |command| {
        let user = command.json()["user_id"].as_str().expect("a user").to_owned();
        users.insert((command.partition, command.offset), user);
    });
    assert_eq!(users.len() as u64, commands, "the broker has each command once");
    let mut resets = vec![Vec::new(); PARTITIONS as usize];
    records::each(&scene.address, &scene.topic("app-decisions"), |decision| {
        let decided = decision.json();
        if decided["topic"] == Value::Null {
            return;
        }
        outcome.decisions += 1;
        let of = (decision.partition, decided["offset"].as_u64().expect("an offset"));
        match users.remove(&of) {
            Some(user) => resets[of.0 as usize].push((decided["after"].as_u64().expect("an offset"), user)),
            None => outcome.fault("commands decided twice", || format!("{of:?}")),
        }
    });
    users.iter().for_each(|(of, _)| outcome.fault("commands not decided", || format!("{of:?}")));
    resets
}

/// Checks all that came. Nothing may be running.
pub fn check(arena: &Arena, exactly_once: bool) -> Outcome {
    use std::sync::atomic::Ordering::Relaxed;
    let (scene, mut outcome) = (&arena.scene, Outcome::default());
    let resets = resets(scene, &mut outcome, arena.sent.commands.load(Relaxed));
    let model = Model::from_bytes(&std::fs::read(model()).expect("the model")).expect("a model");
    let (users, done) = (BTreeMap::new(), vec![0; PARTITIONS as usize]);
    let mut fold = Fold { params: ScoringParams::default(), model, users, resets, done };
    let topic = scene.topic("transactions");
    let came = arena.watch.outcomes.lock().unwrap();
    let mut ends = vec![0; PARTITIONS as usize];
    records::each(&scene.address, &topic, |record| {
        let expected = fold.expect(&topic, &record);
        let (partition, offset) = (record.partition as usize, record.offset as usize);
        ends[partition] = record.offset + 1;
        let nothing = Came::default();
        let came = came.of.get(partition).and_then(|of| of.get(offset)).unwrap_or(&nothing);
        outcome.judge(came, expected, exactly_once, || format!("{partition}:{offset}"));
    });
    assert_eq!(outcome.records, arena.sent.records.load(Relaxed));
    for (partition, of) in came.of.iter().enumerate().filter(|(partition, of)| of.len() as u64 > ends[*partition]) {
        outcome.fault("of no record", || format!("{partition}: {} beyond {}", of.len(), ends[partition]));
    }
    // Resets behind the last record.
    (0..PARTITIONS as usize).for_each(|partition| fold.reset_before(partition, u64::MAX));
    let kept = if exactly_once { scene.profiles() } else { scene.newest_profiles() };
    check_state(&kept, &fold, &mut outcome);
    for (name, ends) in [("transactions", &ends), ("commands", &scene.ends(&scene.topic("commands")))] {
        let committed = scene.committed(&scene.topic(name));
        let expected: Vec<Option<u64>> = ends.iter().map(|&end| Some(end)).collect();
        // A partition without any commands may never have got an offset.
        if committed.iter().zip(&expected).any(|(is, end)| is != end && *end != Some(0)) {
            outcome.fault("committed offsets", || format!("{name}: {committed:?} instead of {expected:?}"));
        }
    }
    for answered in arena.queries.answered.lock().unwrap().iter() {
        outcome.queries += 1;
        if !is_true(&fold, answered) {
            outcome.fault("profiles answered wrong", || format!("{answered:?}"));
        }
    }
    for fault in arena.queries.faults.lock().unwrap().iter() {
        outcome.fault("answers", || fault.clone());
    }
    let faults = outcome.examples.iter().map(|(kind, (count, examples))| format!("{count} {kind}: {}; ", examples.join(", ")));
    outcome.faults = faults.collect();
    outcome
}

/// The changelog's value of each user is the fold's, byte for byte.
fn check_state(kept: &BTreeMap<Vec<u8>, UserProfile>, fold: &Fold, outcome: &mut Outcome) {
    let bytes = |profile: &UserProfile| {
        let mut bytes = Vec::new();
        state::codec::encode(profile, &mut bytes);
        bytes
    };
    outcome.profiles = kept.len() as u64;
    for (name, user) in &fold.users {
        let profile = kept.get(name.as_bytes());
        if profile.map(bytes) != Some(bytes(&user.profile)) {
            let seen = profile.map(|profile| profile.0.seen());
            outcome.fault("profiles kept wrong", || format!("{name}: {seen:?} of {} payments", user.profile.0.seen()));
        }
    }
    if kept.len() != fold.users.len() {
        outcome.fault("numbers of users", || format!("{} instead of {}", kept.len(), fold.users.len()));
    }
}

/// Whether the user had that profile at the answer's position or later: what is being committed may already be seen.
fn is_true(fold: &Fold, answered: &Answered) -> bool {
    let name = crate::load::user(answered.user);
    let counts = fold.users.get(&name).map_or(&[][..], |user| &user.counts);
    let mut first = counts.partition_point(|(from, ..)| *from <= answered.position);
    // A reset has no place of its own in the input: before it is as good as after it.
    while first > 0 && matches!(counts[first - 1], (from, _, true) if from == answered.position) {
        first -= 1;
    }
    let before = first.checked_sub(1).map(|at| counts[at].1);
    answered.count == before || counts[first..].iter().any(|(_, count, _)| Some(*count) == answered.count)
}
