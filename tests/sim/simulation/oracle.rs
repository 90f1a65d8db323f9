//! What one single-threaded run without any fault would have said and kept, from the logs of transactions, commands and decisions alone.
//!
//! It knows the models crate and the shapes on the wire, and nothing of tasks, stores or commits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mangrove::scoring::{Command, CommandKind, UserProfile};
use models::verdict::{self, Severity, VerdictRef};
use models::{Limits, Model, Profile, Transaction, explain};
use state::store::{Marks, encode_kept};
use topology::decision::Decision;
use topology::partitioner::partition_of;
use topology::simulated::StoredRecord;

use super::feed::scorers;
use super::world::PARTITIONS;

const THRESHOLD: f64 = 0.5;

/// What must come of one payment's record.
pub enum Expected {
    /// The profile that it meets.
    Verdict(Box<Profile>),
    /// The cause.
    DeadLetter(&'static str),
}

/// A key's bytes as kept, none once it was erased.
pub type Kept = (Vec<u8>, Option<Vec<u8>>);

/// One partition's story.
#[derive(Default)]
pub struct Story {
    /// By offset.
    pub payments: BTreeMap<u64, Expected>,
    /// The model decided for each payment.
    pub models: BTreeMap<u64, Option<Arc<Model>>>,
    /// What the store keeps in the end, by key.
    pub state: BTreeMap<Vec<u8>, (Marks, Profile)>,
    /// Everything that was ever kept, where asked for.
    pub history: BTreeSet<Kept>,
    /// Commands that must be dead letters.
    pub no_commands: BTreeSet<u64>,
}

/// A decision as read, with the order it was asked for by.
struct Effect {
    after: u64,
    offset: u64,
    key: Vec<u8>,
    kind: CommandKind,
}

/// The logs of one partition, read committed.
pub struct Logs {
    pub transactions: Vec<StoredRecord>,
    pub commands: Vec<StoredRecord>,
    pub decisions: Vec<StoredRecord>,
}

pub fn value(record: &StoredRecord) -> &[u8] {
    record.value.as_deref().unwrap_or_default()
}

fn model(id: Option<&str>) -> Option<Arc<Model>> {
    id.map(|id| Arc::clone(scorers().iter().find(|model| model.id == id).expect("a model of this simulation")))
}

/// Tells the story. `once` demands that each command was decided once; else repeats must agree.
pub fn tell(partition: u32, logs: &Logs, once: bool, with_history: bool) -> Result<Story, String> {
    let mut story = Story::default();
    let decisions: Vec<Decision> =
        logs.decisions.iter().map(|record| Decision::decode(value(record)).expect("a decision")).collect();
    let mut effects = effects(partition, logs, &decisions, once, &mut story)?.into_iter().peekable();
    let mut models = decisions.iter().filter(|decision| decision.kind == "model").peekable();
    let mut current = None;
    for record in &logs.transactions {
        while let Some(effect) = effects.next_if(|effect| effect.after <= record.offset) {
            story.obey(&effect, with_history);
        }
        while let Some(decision) = models.next_if(|decision| decision.after <= record.offset) {
            current = model(decision.subject.as_deref());
        }
        story.models.insert(record.offset, current.clone());
        story.pay(partition, record, with_history);
    }
    effects.for_each(|effect| story.obey(&effect, with_history));
    Ok(story)
}

/// Commands in the order of their effect.
fn effects(partition: u32, logs: &Logs, decisions: &[Decision], once: bool, story: &mut Story) -> Result<Vec<Effect>, String> {
    let mut decided: BTreeMap<u64, u64> = BTreeMap::new();
    for decision in decisions.iter().filter(|decision| decision.topic.as_deref() == Some("commands")) {
        let offset = decision.offset.expect("a command's decision names its record");
        let before = decided.insert(offset, decision.after);
        if before.is_some_and(|before| once || before != decision.after) {
            return Err(format!("command {partition}:{offset} was decided twice: after {before:?} and {}", decision.after));
        }
    }
    let mut effects = Vec::new();
    for record in &logs.commands {
        let Ok(command) = Command::decode(value(record)) else {
            story.no_commands.insert(record.offset);
            continue;
        };
        let Some(&after) = decided.get(&record.offset) else {
            return Err(format!("command {partition}:{} was never decided", record.offset));
        };
        let key = command.user_id.into_bytes();
        effects.push(Effect { after, offset: record.offset, key, kind: command.kind });
    }
    effects.sort_by_key(|effect| (effect.after, effect.offset));
    Ok(effects)
}

impl Story {
    fn keep(&mut self, key: &[u8], with_history: bool) {
        if with_history {
            let kept = self.state.get(key).map(|(marks, profile)| kept(marks, profile));
            self.history.insert((key.to_vec(), kept));
        }
    }

    fn obey(&mut self, effect: &Effect, with_history: bool) {
        match effect.kind {
            CommandKind::Erase => {
                self.state.remove(&effect.key);
            }
            CommandKind::Reset => {
                let (marks, profile) = self.state.entry(effect.key.clone()).or_default();
                marks.0[1] = effect.offset + 1;
                *profile = Profile::default();
            }
        }
        self.keep(&effect.key, with_history);
    }

    fn pay(&mut self, partition: u32, record: &StoredRecord, with_history: bool) {
        let expected = match &record.value {
            None => Expected::DeadLetter("tombstone"),
            Some(bytes) => match Transaction::from_json(bytes, record.timestamp, &Limits::default()) {
                Err(why) => Expected::DeadLetter(why.cause.as_str()),
                Ok(payment) if partition_of(payment.user_id.as_bytes(), PARTITIONS) != partition => {
                    Expected::DeadLetter("misplaced")
                }
                Ok(payment) => {
                    let key = payment.user_id.as_bytes();
                    let (marks, profile) = self.state.entry(key.to_vec()).or_default();
                    let before = profile.clone();
                    marks.0[0] = record.offset + 1;
                    profile.update(payment.amount, payment.event_time, &payment.merchant);
                    self.keep(key, with_history);
                    Expected::Verdict(Box::new(before))
                }
            },
        };
        self.payments.insert(record.offset, expected);
    }
}

/// The bytes that the store and the changelog keep.
pub fn kept(marks: &Marks, profile: &Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_kept(marks, &UserProfile(profile.clone()), &mut bytes);
    bytes
}

/// The verdict of a payment that meets this profile under this model, and whether it is an anomaly.
pub fn verdict_of(record: &StoredRecord, before: &Profile, model: Option<&Model>) -> (Vec<u8>, bool) {
    let payment = Transaction::from_json(value(record), record.timestamp, &Limits::default()).expect("it was read before");
    let bound = model.map(|model| model.global_amount_p99);
    let observation = before.observe(payment.amount, payment.event_time, &payment.merchant, bound);
    let id = format!("transactions:{}:{}", record.partition.partition, record.offset);
    let raw_score = model.map(|model| model.raw_score(&observation.features));
    let score = model.zip(raw_score).map(|(model, raw)| model.score(raw));
    let is_anomaly = score.is_some_and(|score| score >= THRESHOLD);
    let reasons = match model {
        Some(model) if is_anomaly => explain::explain(model, &observation, payment.amount),
        _ => Vec::new(),
    };
    let mut text = Vec::new();
    VerdictRef {
        tx_id: payment.tx_id.as_deref().unwrap_or(&id),
        id: &id,
        user_id: &payment.user_id,
        event_time: payment.event_time,
        amount: payment.amount,
        currency: payment.currency.as_deref(),
        merchant: &payment.merchant,
        score,
        raw_score,
        is_anomaly,
        severity: score.map_or(Severity::None, |score| verdict::severity(score, THRESHOLD)),
        explanation: &explain::explanation(&reasons),
        reasons: &reasons,
        features: &observation.features,
        model_id: model.map(|model| model.id.as_str()),
        fx: None,
    }
    .write_json(&mut text);
    (text, is_anomaly)
}
