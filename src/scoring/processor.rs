//! Scores payments: decode, prefetch, features and update in offset order, the whole batch through the forest, verdicts.
//!
//! Score first, then update: a payment never sees itself in its own profile. The same records, commands and decisions give the same
//! bytes, however they were batched. Nothing after the prefetch waits.

use std::io::Write as _;
use std::sync::Arc;

use models::features::AMOUNT_MAX;
use models::verdict::{Fx, Severity, VerdictRef};
use models::{Cause, Limits, Model, Observation, Transaction, explain, verdict};
use state::store::Mark;
use topology::partitioner::partition_of;
use topology::processor::{Context, ProcessError, Processor, Result};
use topology::record::{Batch, Header, Record};
use topology::topology::StoreId;

use super::UserProfile;
use super::commands::{Command, CommandKind};
use super::params::{Partitioning, ScoringParams};
use super::repartition::{ORIGIN, TOMBSTONE, TOMBSTONE_MESSAGE};
use super::slot::ModelSlot;
use super::trace;

/// The profiles store's number in its sub-topology.
pub const PROFILES: StoreId = StoreId(0);
/// Outputs, in the order declared.
const VERDICTS: usize = 0;
const ANOMALIES: usize = 1;
/// Inputs, in the order declared.
const COMMANDS: u8 = 1;

/// The family under which verdicts are counted by severity.
pub const VERDICTS_BY_SEVERITY: &str = "verdicts";
/// Every severity, in the order of its numbers.
pub const SEVERITIES: [Severity; 5] = [Severity::None, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

/// Records of a task by which the producers' partitioning is judged, and how many of them may be misplaced.
const JUDGED: u64 = 1000;
const MISPLACED_MAX: u64 = JUDGED / 10;

/// A decoded payment on its way to a verdict.
struct Payment<'b> {
    record: Record<'b>,
    transaction: Transaction<'b>,
    fx: Option<Fx>,
    observation: Option<Observation>,
}

/// A record that is no payment: the cause, and its message for a person.
type Undecoded<'b> = (Record<'b>, &'static str, String);

impl Payment<'_> {
    /// The amount that is scored.
    fn amount(&self) -> f64 {
        self.fx.as_ref().map_or(self.transaction.amount, |fx| fx.amount)
    }
}

/// The scoring processor of one task.
pub struct Scoring {
    params: ScoringParams,
    limits: Limits,
    slot: ModelSlot,
    model: Option<Arc<Model>>,
    version: Option<u64>,
    judged: u64,
    misplaced: u64,
    rows: Vec<f32>,
    raw: Vec<f64>,
    id: Vec<u8>,
    text: Vec<u8>,
}

impl Scoring {
    /// A processor that takes its model from the slot.
    #[must_use]
    pub fn new(params: ScoringParams, slot: ModelSlot) -> Self {
        Self {
            limits: params.limits(),
            params,
            slot,
            model: None,
            version: None,
            judged: 0,
            misplaced: 0,
            rows: Vec::new(),
            raw: Vec::new(),
            id: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Goes over to the slot's model where it has changed, and writes down when.
    fn follow_model(&mut self, context: &mut Context<'_>, first: &Record<'_>) -> Result {
        let (now_ms, first_offset) = (first.timestamp, first.offset);
        let version = self.slot.version();
        if self.version == Some(version) {
            return Ok(());
        }
        let model = self.slot.get();
        let id = |model: &Option<Arc<Model>>| model.as_ref().map(|model| model.id.clone());
        // The partition's last owner may have had a model that this instance has not: that too is a change to write down.
        let inherited = self.version.is_none() && first_offset > 0;
        if inherited || id(&model) != id(&self.model) {
            context.decide("model", id(&model).as_deref(), None, None, now_ms)?;
        }
        if self.version.is_none()
            && let Some(fx) = &self.params.fx
        {
            context.decide("fx", Some(&fx.label()), None, None, now_ms)?;
        }
        self.model = model;
        self.version = Some(version);
        Ok(())
    }

    /// The payments, and what does not decode.
    fn decode<'b>(&mut self, batch: &Batch<'b>, context: &Context<'_>) -> (Vec<Payment<'b>>, Vec<Undecoded<'b>>) {
        let (mut payments, mut undecoded) = (Vec::with_capacity(batch.len()), Vec::new());
        for record in batch.iter() {
            match self.decode_one(record, context) {
                Ok(payment) => payments.push(payment),
                Err((cause, message)) => undecoded.push((record, cause, message)),
            }
        }
        (payments, undecoded)
    }

    fn decode_one<'b>(
        &mut self,
        record: Record<'b>,
        context: &Context<'_>,
    ) -> std::result::Result<Payment<'b>, (&'static str, String)> {
        let Some(value) = record.value else {
            return Err((TOMBSTONE, TOMBSTONE_MESSAGE.into()));
        };
        let transaction =
            Transaction::from_json(value, record.timestamp, &self.limits).map_err(|why| (why.cause.as_str(), why.to_string()))?;
        let partitions = context.partitions();
        self.judged += 1;
        if partition_of(transaction.user_id.as_bytes(), partitions) != record.from.partition {
            self.misplaced += u64::from(self.judged <= JUDGED);
            let message = format!(
                "the record is in partition {} but its user_id belongs elsewhere by murmur2 over {partitions} partitions; key records by \
                 user_id with Kafka's default partitioner, or set INPUT_PARTITIONING=any",
                record.from.partition
            );
            return Err(("misplaced", message));
        }
        let fx = match &self.params.fx {
            None => None,
            Some(table) => {
                let fx = table.convert(transaction.amount, transaction.currency.as_deref());
                let fx = fx.ok_or_else(|| ("unknown_currency", "`currency` is not in the table of rates".to_owned()))?;
                // Profiles keep what fits their bounds: a larger amount would make one that can't be read again.
                if fx.amount > AMOUNT_MAX {
                    let message = "`amount` is above 1e12 once converted to the base currency".to_owned();
                    return Err((Cause::OutOfRange.as_str(), message));
                }
                Some(fx)
            }
        };
        Ok(Payment { record, transaction, fx, observation: None })
    }

    /// Many misplaced records mean a producer with another partitioner, not a few bad records: going on would put them all aside.
    fn judge(&self) -> Result {
        if self.params.partitioning == Partitioning::Murmur2 && self.misplaced > MISPLACED_MAX {
            return Err(ProcessError::Stop(format!(
                "more than {MISPLACED_MAX} of the first {JUDGED} records of a partition are not where murmur2(user_id) puts them: the \
                 producers use another key or partitioner (librdkafka: partitioner=murmur2_random). Mend them, or set INPUT_PARTITIONING=any"
            )));
        }
        Ok(())
    }

    /// Features as they were before each payment, then the update.
    fn observe(&mut self, payments: &mut [Payment<'_>], context: &mut Context<'_>) {
        let bound = self.params.global_amount_p99.or_else(|| self.model.as_ref().map(|model| model.global_amount_p99));
        let input = context.input();
        let store = context.store::<UserProfile>(PROFILES);
        self.rows.clear();
        for payment in payments {
            let Transaction { user_id, merchant, event_time, .. } = &payment.transaction;
            let mark = Mark { input, offset: payment.record.offset };
            let Some(profile) = store.update(user_id.as_bytes(), mark) else {
                continue;
            };
            let amount = payment.amount();
            let observation = profile.0.score_then_update(amount, *event_time, merchant, bound);
            self.rows.extend_from_slice(&observation.features);
            payment.observation = Some(observation);
        }
    }

    fn emit(&mut self, payments: &[Payment<'_>], context: &mut Context<'_>) -> Result {
        self.raw.clear();
        let model = self.model.clone();
        if let Some(model) = &model {
            model.forest.raw_scores(&self.rows, &mut self.raw);
        }
        context.lap("score");
        let mut severities = [0; SEVERITIES.len()];
        let mut headers: Vec<Header<'_>> = Vec::new();
        let scored = payments.iter().filter_map(|payment| payment.observation.as_ref().map(|seen| (payment, seen)));
        for (at, (payment, observation)) in scored.enumerate() {
            let scored = model.as_deref().map(|model| (model, self.raw[at]));
            let (is_anomaly, severity) = self.write_verdict(payment, observation, scored, context);
            severities[severity as usize] += 1;
            trace::carried(&payment.record, &mut headers);
            let (key, timestamp) = (payment.transaction.user_id.as_bytes(), payment.record.timestamp);
            context.emit_here_with(VERDICTS, key, &self.text, timestamp, &headers)?;
            if is_anomaly {
                context.emit_here_with(ANOMALIES, key, &self.text, timestamp, &headers)?;
            }
        }
        for (severity, count) in SEVERITIES.into_iter().zip(severities) {
            context.count(VERDICTS_BY_SEVERITY, severity.as_str(), count);
        }
        context.lap("emit");
        Ok(())
    }

    /// Writes the verdict into `self.text`; says whether it is an anomaly, and how severe.
    fn write_verdict(
        &mut self,
        payment: &Payment<'_>,
        observation: &Observation,
        scored: Option<(&Model, f64)>,
        context: &Context<'_>,
    ) -> (bool, Severity) {
        write_id(&mut self.id, &payment.record, self.params.partitioning, context);
        let id = std::str::from_utf8(&self.id).expect("invariant: made of a topic's name and digits");
        let score = scored.map(|(model, raw)| model.score(raw));
        let is_anomaly = score.is_some_and(|score| score >= self.params.threshold);
        let reasons = match scored {
            Some((model, _)) if is_anomaly || self.params.reasons_for_all => {
                explain::explain(model, observation, payment.amount())
            }
            _ => Vec::new(),
        };
        let explanation = explain::explanation(&reasons);
        let severity = score.map_or(Severity::None, |score| verdict::severity(score, self.params.threshold));
        let Transaction { user_id, merchant, tx_id, currency, event_time, amount } = &payment.transaction;
        self.text.clear();
        VerdictRef {
            tx_id: tx_id.as_deref().unwrap_or(id),
            id,
            user_id,
            event_time: *event_time,
            amount: *amount,
            currency: currency.as_deref(),
            merchant,
            score,
            raw_score: scored.map(|(_, raw)| raw),
            is_anomaly,
            severity,
            explanation: &explanation,
            reasons: &reasons,
            features: &observation.features,
            model_id: scored.map(|(model, _)| model.id.as_str()),
            fx: payment.fx.as_ref(),
        }
        .write_json(&mut self.text);
        (is_anomaly, severity)
    }

    fn commands(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        let decode = |record: Record<'_>| match record.value {
            None => Err("the record has no value: a command is expected"),
            Some(value) => Command::decode(value),
        };
        let commands: Vec<_> = batch.iter().map(decode).collect();
        let users = commands.iter().flatten().map(|command| command.user_id.as_bytes());
        context.store::<UserProfile>(PROFILES).prefetch(users)?;
        batch.iter().zip(commands).try_for_each(|(record, command)| self.command(&record, command, context))
    }

    fn command(
        &mut self,
        record: &Record<'_>,
        decoded: std::result::Result<Command, &'static str>,
        context: &mut Context<'_>,
    ) -> Result {
        let command = match decoded {
            Ok(command) => command,
            Err(message) => return context.dead_letter(record, "not_a_command", message),
        };
        let key = command.user_id.as_bytes();
        if partition_of(key, context.partitions()) != record.from.partition {
            let message = "the command is not in its user's partition: key it by user_id with Kafka's default partitioner";
            return context.dead_letter(record, "misplaced", message);
        }
        let mark = context.mark(record);
        if context.store::<UserProfile>(PROFILES).includes(key, mark) {
            return Ok(());
        }
        context.decide(command.kind.as_str(), command.job.as_deref(), Some(record), Some(key), record.timestamp)?;
        let store = context.store::<UserProfile>(PROFILES);
        match command.kind {
            CommandKind::Reset => {
                if let Some(profile) = store.update(key, mark) {
                    *profile = UserProfile::default();
                }
            }
            CommandKind::Erase => {
                store.remove(key, mark);
            }
        }
        Ok(())
    }
}

/// `topic:partition:offset` of the payment's record, or of the one it was before it was repartitioned.
/// Only our own repartition topic is believed: what a producer writes into that header must not make two verdicts of one id.
fn write_id(id: &mut Vec<u8>, record: &Record<'_>, partitioning: Partitioning, context: &Context<'_>) {
    id.clear();
    let header = (partitioning == Partitioning::Any).then(|| record.header(ORIGIN)).flatten();
    let origin = header.and_then(|header| header.value).filter(|origin| std::str::from_utf8(origin).is_ok());
    match origin {
        Some(origin) => id.extend_from_slice(origin),
        None => {
            let topic = context.topic_name(record.from.topic);
            write!(id, "{topic}:{}:{}", record.from.partition, record.offset)
                .expect("invariant: writing to memory does not fail");
        }
    }
}

impl Processor for Scoring {
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        if context.input() == COMMANDS {
            return self.commands(batch, context);
        }
        let before = (self.judged, self.misplaced);
        let (mut payments, undecoded) = self.decode(batch, context);
        context.lap("decode");
        let users = payments.iter().map(|payment| payment.transaction.user_id.as_bytes());
        if let Err(why) = context.store::<UserProfile>(PROFILES).prefetch(users) {
            // The same batch comes again.
            (self.judged, self.misplaced) = before;
            return Err(why.into());
        }
        context.lap("prefetch");
        // From here on there are effects.
        self.follow_model(context, &batch.get(0))?;
        for (record, cause, message) in undecoded {
            context.dead_letter(&record, cause, &message)?;
        }
        self.judge()?;
        self.observe(&mut payments, context);
        context.lap("observe");
        self.emit(&payments, context)
    }
}
