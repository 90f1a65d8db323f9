//! One past record: its verdict, the score again from the logged features, and the state that it met.

use models::explain::{self, Reason};
use models::{FEATURE_NAMES, FEATURES, Model, Observation, Transaction, Verdict};
use serde::Serialize;
use topology::broker::Broker;
use topology::partitioner::partition_of;
use topology::record::TopicPartition;

use super::cursor::Cursor;
use super::find::{Found, of_dead_letter, of_verdict};
use super::player::{Player, decoded};
use super::{Audit, AuditError, Place, Result, Told};

/// What is known of one input record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// The input record.
    pub record: Place,
    /// What became of it.
    pub outcome: Outcome,
    /// What could not be rebuilt or found, and why.
    pub not_rebuilt: Vec<String>,
}

/// What became of an input record.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// It has a verdict.
    Verdict {
        /// Where.
        at: Place,
        /// The logged verdict.
        verdict: Box<Verdict>,
        /// The score again, where its model is at hand.
        scored: Option<Box<Scored>>,
        /// The state that it met, where it could be rebuilt.
        state: Option<State>,
    },
    /// It was put aside.
    DeadLetter {
        /// Where.
        at: Place,
        /// The cause, as in `__streams.errors.exception`.
        cause: String,
        /// For a person.
        message: String,
    },
    /// There is neither.
    Nothing {
        /// Why, as far as it can be known.
        why: String,
    },
}

/// A feature, and how it moved the score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Feature {
    /// Its name.
    pub feature: &'static str,
    /// The logged value.
    pub value: f32,
    /// By how many steps it shortened the mean path: positive is more anomalous.
    pub contribution: f64,
}

/// The score again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored {
    /// The model.
    pub model_id: String,
    /// The forest's own score of the logged features.
    pub raw_score: f64,
    /// The calibrated score.
    pub score: f64,
    /// True where both are the logged ones, bit for bit.
    pub same: bool,
    /// All features, strongest first.
    pub contributions: Vec<Feature>,
}

/// The state that a record met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    /// Payments of this user before this one.
    pub seen: u64,
    /// Their mean amount.
    pub mean: f64,
    /// The features again.
    pub features: [f32; FEATURES],
    /// True where they are the logged ones, bit for bit.
    pub same: bool,
    /// The first that is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs: Option<&'static str>,
    /// The reasons again, in words.
    pub reasons: Vec<String>,
}

impl Explained {
    /// True where the answer is the logged one, as far as it could be made again.
    #[must_use]
    pub fn same(&self) -> bool {
        match &self.outcome {
            Outcome::Verdict { scored, state, .. } => {
                scored.as_ref().is_none_or(|scored| scored.same) && state.as_ref().is_none_or(|state| state.same)
            }
            Outcome::DeadLetter { .. } => true,
            Outcome::Nothing { .. } => false,
        }
    }
}

impl<B: Broker> Audit<B> {
    /// Explains an input record, or the one that a verdict or a dead letter is about.
    ///
    /// `models` gives a model by its id.
    ///
    /// # Errors
    /// A place that is none, and what cannot be read. What could not be rebuilt is part of the answer.
    pub fn explain(&self, place: &Place, models: &dyn Fn(&str) -> Option<Model>, told: &mut Told<'_>) -> Result<Explained> {
        let place = self.origin(place)?;
        let at = self.partition_at(&place)?;
        let bounds = self.bounds(at)?;
        let mut not_rebuilt = Vec::new();
        if place.offset >= bounds.end {
            return Err(AuditError(format!("{place} does not exist yet: the partition ends at {}", bounds.end)));
        }
        let payment = if place.offset < bounds.start {
            not_rebuilt.push(format!("the payment itself: the first one still retained is {}", bounds.start));
            None
        } else {
            let found = self.record(at, place.offset)?;
            if found.is_none() {
                let why = "the offset holds no committed record: a control record, or one of an aborted transaction".to_owned();
                return Ok(Explained { record: place, outcome: Outcome::Nothing { why }, not_rebuilt });
            }
            found
        };
        let outcome = match self.verdict_of(&place, payment.as_ref(), told)? {
            Some(found) => self.judged(&place, found, models, &mut not_rebuilt, told)?,
            None => self.put_aside(&place, told)?,
        };
        Ok(Explained { record: place, outcome, not_rebuilt })
    }

    /// The input record that a place is about.
    fn origin(&self, place: &Place) -> Result<Place> {
        let (verdicts, dead) = (self.name(self.verdicts()), self.name(self.dead_letters()));
        let about = match place.topic.as_str() {
            topic if topic == verdicts => of_verdict,
            topic if topic == dead => of_dead_letter,
            _ => return Ok(place.clone()),
        };
        let at = self.partition_at(place)?;
        let bounds = self.bounds(at)?;
        if !(bounds.start..bounds.end).contains(&place.offset) {
            return Err(AuditError(format!("{place} does not exist: the partition holds {} to {}", bounds.start, bounds.end)));
        }
        let mut cursor = Cursor::open(self.broker.reader()?, at, place.offset, place.offset + 1)?;
        let found = cursor.peek()?.as_ref().and_then(about);
        found.ok_or_else(|| AuditError(format!("{place} holds no committed record of ours")))
    }

    fn partition_at(&self, place: &Place) -> Result<TopicPartition> {
        let known =
            [self.topology.subs()[0].lead(), self.sub().lead(), self.commands(0).topic, self.verdicts(), self.dead_letters()];
        let topic = known.into_iter().find(|&topic| self.name(topic) == place.topic).ok_or_else(|| {
            let names = [known[0], self.verdicts(), self.dead_letters()].map(|topic| self.name(topic));
            AuditError(format!(
                "`{}` is none of the topics that hold payments or their outcomes: {}",
                place.topic,
                names.join(", ")
            ))
        })?;
        let partitions = self.partitions_of(topic);
        if place.partition >= partitions {
            return Err(AuditError(format!(
                "`{}` has the partitions 0 to {}, no {}",
                place.topic,
                partitions - 1,
                place.partition
            )));
        }
        Ok(TopicPartition { topic, partition: place.partition })
    }

    fn verdict_of(&self, place: &Place, payment: Option<&(i64, Found)>, told: &mut Told<'_>) -> Result<Option<Found>> {
        let topic = self.verdicts();
        let partitions = self.partitions_of(topic);
        let user = payment.and_then(|(timestamp, found)| {
            let payment = Transaction::from_json(found.value.as_deref()?, *timestamp, &self.params.limits()).ok()?;
            Some(partition_of(payment.user_id.as_bytes(), partitions))
        });
        // Without the payment its user is unknown: first where verdicts are where payments are, then anywhere.
        let first = user.unwrap_or(place.partition % partitions);
        let others = (0..partitions).filter(|&partition| user.is_none() && partition != first);
        for partition in std::iter::once(first).chain(others) {
            if let Some(found) = self.search(TopicPartition { topic, partition }, place, of_verdict, told)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn put_aside(&self, place: &Place, told: &mut Told<'_>) -> Result<Outcome> {
        let topic = self.dead_letters();
        let at = TopicPartition { topic, partition: place.partition % self.partitions_of(topic) };
        if let Some(found) = self.search(at, place, of_dead_letter, told)? {
            let header = |name: &str| {
                let found = found.headers.iter().rfind(|(other, _)| other.strip_prefix("__streams.errors.") == Some(name));
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            };
            let (cause, message) = (header("exception"), header("message"));
            return Ok(Outcome::DeadLetter { at: found.place, cause, message });
        }
        Ok(Outcome::Nothing { why: self.absence(place)? })
    }

    /// Why a record has neither verdict nor dead letter.
    fn absence(&self, place: &Place) -> Result<String> {
        let (verdicts, dead) = (self.verdicts(), self.dead_letters());
        if self.topology.subs()[0].lead() == self.sub().lead() {
            let mut told = |_: &str, _, _| {};
            let reached = self.fold(place.partition, None, &mut told)?.furthest;
            if reached <= place.offset {
                return Ok(format!(
                    "not processed yet: the state of partition {} includes payments below offset {reached}",
                    place.partition
                ));
            }
        }
        let mut trimmed = false;
        for (topic, partition) in [(verdicts, place.partition), (dead, place.partition % self.partitions_of(dead))] {
            let partition = partition % self.partitions_of(topic);
            trimmed |= self.bounds(TopicPartition { topic, partition })?.start > 0;
        }
        Ok(if trimmed {
            "neither verdict nor dead letter is retained: those topics have dropped records".to_owned()
        } else {
            "there is neither verdict nor dead letter, though later payments are processed: `mangrove verify` says more"
                .to_owned()
        })
    }

    fn judged(
        &self,
        place: &Place,
        found: Found,
        models: &dyn Fn(&str) -> Option<Model>,
        not_rebuilt: &mut Vec<String>,
        told: &mut Told<'_>,
    ) -> Result<Outcome> {
        let verdict: Verdict = serde_json::from_slice(found.value.as_deref().unwrap_or_default())
            .map_err(|why| AuditError(format!("{} is no verdict: {why}", found.place)))?;
        let model = verdict.model_id.as_deref().and_then(models);
        match (&verdict.model_id, &model) {
            (None, _) => not_rebuilt.push("the score: there was no model yet".into()),
            (Some(id), None) => {
                not_rebuilt.push(format!("the score: model {id} is not at hand (--model names a file or a folder)"))
            }
            _ => {}
        }
        let scored = model.as_ref().map(|model| Box::new(score(model, &verdict)));
        let state = match self.state_of(place, &verdict, model.as_ref(), told)? {
            Ok(state) => Some(state),
            Err(why) => {
                not_rebuilt.push(format!("the state: {why}"));
                None
            }
        };
        Ok(Outcome::Verdict { at: found.place, verdict: Box::new(verdict), scored, state })
    }

    /// The state that the record met, from payments and decisions; or why not.
    fn state_of(
        &self,
        place: &Place,
        verdict: &Verdict,
        model: Option<&Model>,
        told: &mut Told<'_>,
    ) -> Result<std::result::Result<State, String>> {
        let lead = self.sub().lead();
        if self.name(lead) != place.topic {
            return Ok(Err(format!("under INPUT_PARTITIONING=any payments are scored in the order of `{}`", self.name(lead))));
        }
        let bounds = self.bounds(self.lead(place.partition))?;
        if place.offset < bounds.start {
            return Ok(Err(format!("the first payment still retained is {}", bounds.start)));
        }
        let script = self.script(place.partition)?;
        let mut player = Player::new(self, place.partition, &script)?;
        let limits = self.params.limits();
        let cursor = Cursor::open(self.broker.reader()?, self.lead(place.partition), bounds.start, place.offset)?;
        cursor.each(&mut |batch| {
            for at in 0..batch.len() {
                let record = batch.get(at);
                let payment = record.value.and_then(|value| Transaction::from_json(value, record.timestamp, &limits).ok());
                if payment.is_some_and(|payment| payment.user_id == verdict.user_id) {
                    player.one(batch, at)?;
                }
            }
            told("transactions", batch.get(batch.len() - 1).offset - bounds.start, place.offset - bounds.start);
            Ok(())
        })?;
        player.rule(place.offset, &mut |_| {})?;
        player.settle()?;
        let profile = match player.value(verdict.user_id.as_bytes())? {
            Some(bytes) => decoded(&bytes)?.1.0,
            None => models::Profile::default(),
        };
        let amount = match player.fx() {
            Some(table) => table.convert(verdict.amount, verdict.currency.as_deref()).map_or(verdict.amount, |fx| fx.amount),
            None => verdict.amount,
        };
        // The bound of column 9 is the model's; without it the logged flag stands.
        let bound = self.params.global_amount_p99.or_else(|| model.map(|model| model.global_amount_p99));
        let mut again = profile.observe(amount, verdict.event_time, &verdict.merchant, bound);
        if model.is_none() {
            again.features[FEATURES - 1] = verdict.features[FEATURES - 1];
        }
        let differs = (0..FEATURES).find(|&at| again.features[at].to_bits() != verdict.features[at].to_bits());
        if differs.is_some() && bounds.start > script.begins {
            return Ok(Err(format!(
                "the profile began before the first payment still retained, {}: from there on it has {} payments",
                bounds.start,
                profile.seen()
            )));
        }
        if differs.is_some() && !script.lost.is_empty() {
            return Ok(Err("a command that was decided is no longer retained".into()));
        }
        let reasons = model.map_or_else(Vec::new, |model| reasons(model, &again, amount));
        let differs = differs.map(|at| FEATURE_NAMES[at]);
        let (seen, mean) = (profile.seen(), profile.mean());
        Ok(Ok(State { seen, mean, features: again.features, same: differs.is_none(), differs, reasons }))
    }
}

fn reasons(model: &Model, observation: &Observation, amount: f64) -> Vec<String> {
    explain::explain(model, observation, amount).into_iter().map(|Reason { text, .. }| text).collect()
}

fn score(model: &Model, verdict: &Verdict) -> Scored {
    let raw_score = model.raw_score(&verdict.features);
    let score = model.score(raw_score);
    let bits = |value: Option<f64>| value.map(f64::to_bits);
    let same = bits(verdict.raw_score) == Some(raw_score.to_bits()) && bits(verdict.score) == Some(score.to_bits());
    let mut shares = [0.0; FEATURES];
    model.forest.contributions(&verdict.features, &mut shares);
    let feature = |at: usize| Feature { feature: FEATURE_NAMES[at], value: verdict.features[at], contribution: shares[at] };
    let mut contributions: Vec<Feature> = (0..FEATURES).map(feature).collect();
    contributions.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
    Scored { model_id: model.id.clone(), raw_score, score, same, contributions }
}
