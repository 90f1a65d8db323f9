//! Labels on a broker: finding what a verdict's id names, writing, and reading for figures.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use models::{Limits, Transaction};
use serde::Deserialize;
use topology::broker::{Broker, BrokerError, Reaction, Reader as _, Result};
use topology::partitioner::partition_of;
use topology::record::{Fetched, Record, TopicId, TopicPartition};

use super::known::Known;
use super::quality::{Collected, Quality};
use super::record::Label;
use crate::audit::Place;
use crate::broker::{Scribe, partitions, scan};

/// For the record of one payment to be read.
const PATIENCE_POLLS: u32 = 10;
/// The longest that one poll waits.
const WAIT: Duration = Duration::from_millis(200);

/// Why something is not known or not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// The broker's.
    #[error("the broker does not answer: {0}")]
    Broker(#[from] BrokerError),
    /// Figures are being made already.
    #[error("the figures are being made for somebody else")]
    Busy,
}

/// A payment that a verdict's id names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Who paid.
    pub user_id: String,
    /// The sender's id of the payment, or the verdict's.
    pub tx_id: String,
}

/// The topics that labels have to do with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LabelTopics {
    pub(crate) transactions: TopicId,
    pub(crate) verdicts: TopicId,
    pub(crate) labels: TopicId,
}

trait Desk: Send + Sync {
    fn payment(&self, verdict_id: &str) -> Result<Option<Named>>;
    fn write(&self, user_id: &str, label: &Label, now_ms: i64) -> Result<String>;
    fn quality(&self, from_ms: i64, now_ms: i64) -> Result<Quality>;
}

/// Figures that were made, and of which window.
type Made = Option<(i64, Quality)>;

/// Labels of one application. Clones share it.
#[derive(Clone)]
pub struct Labels {
    desk: Arc<dyn Desk>,
    made: Arc<Mutex<Made>>,
}

impl Labels {
    /// On a broker; nothing is asked of it yet.
    #[must_use]
    pub(crate) fn new<B: Broker>(broker: &Arc<B>, topics: LabelTopics, limits: Limits) -> Self {
        let desk = BrokerDesk { broker: Arc::clone(broker), topics, limits, scribe: Mutex::new(Scribe::new(broker)) };
        Self { desk: Arc::new(desk), made: Arc::default() }
    }

    /// The payment that a verdict's id names; none where there is none, or its record is no longer retained.
    ///
    /// # Errors
    /// The broker's.
    pub fn payment(&self, verdict_id: &str) -> std::result::Result<Option<Named>, LabelsError> {
        Ok(self.desk.payment(verdict_id)?)
    }

    /// Writes a label; its own id, `topic:partition:offset`.
    ///
    /// # Errors
    /// The broker's: whether it was written is then not known.
    pub fn write(&self, user_id: &str, label: &Label, now_ms: i64) -> std::result::Result<String, LabelsError> {
        Ok(self.desk.write(user_id, label, now_ms)?)
    }

    /// How good verdicts were from an event time on. Reads both topics; an answer is good for `fresh_ms`, and one caller at a time makes it.
    ///
    /// # Errors
    /// [`LabelsError`].
    pub fn quality(&self, from_ms: i64, now_ms: i64, fresh_ms: i64) -> std::result::Result<Quality, LabelsError> {
        let mut made = match self.made.try_lock() {
            Ok(made) => made,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return Err(LabelsError::Busy),
        };
        if let Some((of, quality)) = made.as_ref().filter(|(_, quality)| now_ms - quality.as_of_ms < fresh_ms) {
            // The same window a moment later is the same.
            if (of - from_ms).abs() < fresh_ms {
                return Ok(quality.clone());
            }
        }
        let quality = self.desk.quality(from_ms, now_ms)?;
        *made = Some((from_ms, quality.clone()));
        Ok(quality)
    }
}

struct BrokerDesk<B: Broker> {
    broker: Arc<B>,
    topics: LabelTopics,
    limits: Limits,
    /// Made at the first label and anew after a failure.
    scribe: Mutex<Scribe<B>>,
}

/// What of a verdict is judged.
#[derive(Deserialize)]
struct Verdict<'v> {
    #[serde(borrow)]
    id: Cow<'v, str>,
    #[serde(borrow)]
    tx_id: Cow<'v, str>,
    #[serde(borrow)]
    user_id: Cow<'v, str>,
    event_time: i64,
    score: Option<f64>,
    is_anomaly: bool,
    #[serde(borrow)]
    model_id: Option<Cow<'v, str>>,
}

impl<B: Broker> BrokerDesk<B> {
    fn partitions(&self, topic: TopicId) -> Result<u32> {
        partitions(&*self.broker, topic)?.ok_or_else(|| {
            let what = format!("the topic {} does not exist", self.broker.topics().name(topic));
            BrokerError::new(Reaction::Stop, what)
        })
    }
}

impl<B: Broker> Desk for BrokerDesk<B> {
    fn payment(&self, verdict_id: &str) -> Result<Option<Named>> {
        let Ok(Place { topic, partition, offset }) = verdict_id.parse() else { return Ok(None) };
        let known = topic == self.broker.topics().name(self.topics.transactions);
        if !known || partition >= self.partitions(self.topics.transactions)? {
            return Ok(None);
        }
        let at = TopicPartition { topic: self.topics.transactions, partition };
        let mut reader = self.broker.reader()?;
        let bounds = reader.bounds(at)?;
        if !(bounds.start..bounds.end).contains(&offset) {
            return Ok(None);
        }
        reader.assign(at, offset)?;
        let mut fetched = Fetched::default();
        for _ in 0..PATIENCE_POLLS {
            reader.poll(&mut fetched, 1, WAIT)?;
            if !fetched.is_empty() || reader.position(at).is_some_and(|position| position > offset) {
                break;
            }
        }
        let Some(record) = fetched.iter().find(|record| record.offset == offset) else { return Ok(None) };
        let Some(text) = record.value.and_then(|value| std::str::from_utf8(value).ok()) else { return Ok(None) };
        // What was no payment became a dead letter: it has no verdict.
        let Ok(payment) = Transaction::from_json(text.as_bytes(), record.timestamp, &self.limits) else { return Ok(None) };
        let tx_id = payment.tx_id.as_deref().unwrap_or(verdict_id).to_owned();
        Ok(Some(Named { user_id: payment.user_id.into_owned(), tx_id }))
    }

    fn write(&self, user_id: &str, label: &Label, now_ms: i64) -> Result<String> {
        let topic = self.topics.labels;
        let to = TopicPartition { topic, partition: partition_of(user_id.as_bytes(), self.partitions(topic)?) };
        let value = serde_json::to_vec(label).expect("invariant: texts and numbers always serialise");
        let mut scribe = self.scribe.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = scribe.write(to, user_id.as_bytes(), Some(&value), now_ms)?;
        Ok(format!("{}:{}:{offset}", self.broker.topics().name(topic), to.partition))
    }

    fn quality(&self, from_ms: i64, now_ms: i64) -> Result<Quality> {
        let known = Known::read(&*self.broker, self.topics.labels, &|| false)?;
        let mut collected = Collected::default();
        let tell = &mut |record: &Record<'_>| {
            let Some(Ok(verdict)) = record.value.map(serde_json::from_slice::<Verdict<'_>>) else { return };
            if verdict.event_time < from_ms {
                return;
            }
            collected.verdicts += 1;
            let fraud = known.of(&verdict.id, &verdict.user_id, &verdict.tx_id);
            // Without a model there was no score to judge.
            if let (Some(fraud), Some(score), Some(model)) = (fraud, verdict.score, &verdict.model_id) {
                collected.push(verdict.event_time, model, &verdict.user_id, score, verdict.is_anomaly, fraud);
            }
        };
        if !known.is_empty() {
            scan(&*self.broker, self.topics.verdicts, 1, tell, &mut || Ok(()), &|| false)?;
        }
        Ok(collected.quality(now_ms, from_ms))
    }
}
