//! Live verdicts from the verdicts topic, filtered: committed ones only, without a group, so that looking changes nothing.
//!
//! Order: within a partition (so for each user) that of the topic; between partitions as they come.
//! Limits: a starting time is found by reading from the beginning; partitions that the topic gets later are not seen.

use std::time::Duration;

use models::{Severity, Verdict};
use topology::broker::{Bounds, Broker, BrokerError, Reaction, Reader as _, Result};
use topology::record::{Fetched, TopicId, TopicPartition};

/// Records of one read.
const CHUNK: usize = 1_000;
/// How soon a stop is noticed.
const WAIT: Duration = Duration::from_millis(100);

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the oldest verdict that is kept.
    Beginning,
    /// With what comes from now on.
    End,
    /// With payments of this time, in milliseconds since the epoch.
    Time(i64),
}

/// Which verdicts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// This severity or a higher one.
    pub severity: Severity,
    /// Of this user.
    pub user: Option<String>,
    /// Of this score or a higher one; verdicts without a score are none of these.
    pub min_score: Option<f64>,
    /// Of payments of this time or later.
    pub since_ms: Option<i64>,
}

impl Filter {
    /// True where this verdict is meant.
    #[must_use]
    pub fn takes(&self, verdict: &Verdict) -> bool {
        verdict.severity >= self.severity
            && self.user.as_ref().is_none_or(|user| *user == verdict.user_id)
            && self.min_score.is_none_or(|least| verdict.score.is_some_and(|score| score >= least))
            && self.since_ms.is_none_or(|since| verdict.event_time >= since)
    }
}

/// A severity by its name, in any case.
#[must_use]
pub fn severity(name: &str) -> Option<Severity> {
    let all = [Severity::None, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    all.into_iter().find(|severity| severity.as_str().eq_ignore_ascii_case(name))
}

/// A verdict as it lies in the topic.
pub struct Tapped<'r> {
    /// What was said.
    pub verdict: Verdict,
    /// Its bytes, as on the wire.
    pub bytes: &'r [u8],
    /// Where it lies.
    pub partition: u32,
    /// Where it lies in it.
    pub offset: u64,
}

/// Reads a topic of verdicts: [`Self::begin`] says from where, partition by partition.
pub struct Follower<B: Broker> {
    reader: B::Reader,
    topic: TopicId,
    bounds: Vec<Bounds>,
    fetched: Fetched,
}

impl<B: Broker> Follower<B> {
    /// A reader that reads nothing yet.
    ///
    /// # Errors
    /// The broker's; where the topic does not exist.
    pub fn new(broker: &B, topic: TopicId) -> Result<Self> {
        let Some(info) = broker.describe(&[topic])?.pop().flatten() else {
            let what = format!("topic {} does not exist", broker.topics().name(topic));
            return Err(BrokerError::new(Reaction::Stop, what));
        };
        let mut reader = broker.reader()?;
        let bounds = (0..info.partitions).map(|partition| reader.bounds(TopicPartition { topic, partition }));
        let bounds = bounds.collect::<Result<_>>()?;
        Ok(Self { reader, topic, bounds, fetched: Fetched::default() })
    }

    /// The bounds that each partition had when this was made.
    #[must_use]
    pub fn bounds(&self) -> &[Bounds] {
        &self.bounds
    }

    /// Reads a partition from this offset on; from its oldest record where that is gone.
    ///
    /// # Errors
    /// The broker's.
    pub fn begin(&mut self, partition: u32, at: u64) -> Result<()> {
        let start = self.bounds.get(partition as usize).map_or(0, |bounds| bounds.start);
        self.reader.assign(TopicPartition { topic: self.topic, partition }, at.max(start))
    }

    /// The offset up to which a partition was read.
    #[must_use]
    pub fn passed(&self, partition: u32) -> Option<u64> {
        self.reader.position(TopicPartition { topic: self.topic, partition })
    }

    /// Waits for verdicts and gives them to `each` until it says false: then this does too. What is no verdict is passed over.
    ///
    /// # Errors
    /// The broker's, where trying again does not help.
    pub fn poll(&mut self, wait: Duration, each: &mut dyn FnMut(Tapped<'_>) -> bool) -> Result<bool> {
        self.fetched.clear(1 << 20);
        match self.reader.poll(&mut self.fetched, CHUNK, wait) {
            Err(BrokerError { reaction: Reaction::Retry, .. }) => return Ok(true),
            polled => polled?,
        }
        for record in self.fetched.iter() {
            let bytes = record.value.unwrap_or_default();
            let Ok(verdict) = serde_json::from_slice::<Verdict>(bytes) else { continue };
            if !each(Tapped { verdict, bytes, partition: record.from.partition, offset: record.offset }) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Gives verdicts to `each`, with their bytes as on the wire, until it says false or `stopped` does.
///
/// # Errors
/// The broker's; where the topic does not exist.
pub fn tap<B: Broker>(
    broker: &B,
    verdicts: TopicId,
    from: From,
    filter: &Filter,
    stopped: &dyn Fn() -> bool,
    each: &mut dyn FnMut(&Verdict, &[u8]) -> bool,
) -> Result<()> {
    let mut filter = filter.clone();
    if let From::Time(since_ms) = from {
        filter.since_ms = Some(since_ms);
    }
    let mut follower = Follower::new(broker, verdicts)?;
    for (partition, bounds) in (0..).zip(follower.bounds().to_vec()) {
        follower.begin(partition, if from == From::End { bounds.end } else { bounds.start })?;
    }
    while !stopped() {
        let go_on = follower.poll(WAIT, &mut |Tapped { verdict, bytes, .. }| !filter.takes(&verdict) || each(&verdict, bytes))?;
        if !go_on {
            break;
        }
    }
    Ok(())
}

/// A verdict in one line for people; `colour` paints the severity.
#[must_use]
pub fn line(verdict: &Verdict, colour: bool) -> String {
    let Verdict { event_time, severity, score, user_id, amount, currency, merchant, explanation, .. } = verdict;
    // What a payment says must not speak to the terminal.
    let clean = |text: &str| text.chars().flat_map(char::escape_debug).collect::<String>();
    let time = jiff::Timestamp::from_millisecond(*event_time).map_or_else(|_| event_time.to_string(), |at| at.to_string());
    let score = score.map_or_else(|| " -  ".to_owned(), |score| format!("{score:.2}"));
    let padded = format!("{:8}", severity.as_str());
    let severity = match severity {
        _ if !colour => padded,
        Severity::None => format!("\u{1b}[2m{padded}\u{1b}[0m"),
        Severity::Low => format!("\u{1b}[36m{padded}\u{1b}[0m"),
        Severity::Medium => format!("\u{1b}[33m{padded}\u{1b}[0m"),
        Severity::High => format!("\u{1b}[31m{padded}\u{1b}[0m"),
        Severity::Critical => format!("\u{1b}[1;31m{padded}\u{1b}[0m"),
    };
    let currency = currency.as_deref().map_or_else(String::new, |currency| format!(" {}", clean(currency)));
    let mut line = format!("{time}  {severity}  {score}  {} pays {amount:.2}{currency} to {}", clean(user_id), clean(merchant));
    if !explanation.is_empty() {
        line.push_str(": ");
        line.push_str(&clean(explanation));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(severity: Severity, score: Option<f64>, user: &str) -> Verdict {
        Verdict {
            tx_id: "t".into(),
            id: "transactions:0:1".into(),
            user_id: user.into(),
            event_time: 1_700_000_000_000,
            amount: 5.0,
            currency: Some("EUR".into()),
            merchant: "m".into(),
            score,
            raw_score: score,
            is_anomaly: severity > Severity::None,
            severity,
            explanation: "because".into(),
            reasons: Vec::new(),
            features: [0.0; models::FEATURES],
            model_id: None,
            fx: None,
        }
    }

    #[test]
    fn filters_narrow() {
        let high = verdict(Severity::High, Some(0.85), "u");
        assert!(Filter::default().takes(&verdict(Severity::None, None, "u")));
        let severe = Filter { severity: Severity::Medium, ..Filter::default() };
        assert!(severe.takes(&high) && !severe.takes(&verdict(Severity::Low, Some(0.5), "u")));
        let scored = Filter { min_score: Some(0.85), ..Filter::default() };
        assert!(scored.takes(&high) && !scored.takes(&verdict(Severity::None, None, "u")));
        let user = Filter { user: Some("v".into()), ..Filter::default() };
        assert!(!user.takes(&high));
        let late = Filter { since_ms: Some(1_700_000_000_001), ..Filter::default() };
        assert!(!late.takes(&high));
    }

    #[test]
    fn a_line_is_for_people_and_cannot_speak_to_the_terminal() {
        let shown = line(&verdict(Severity::High, Some(0.85), "u\u{1b}[31m"), false);
        assert_eq!(shown, "2023-11-14T22:13:20Z  HIGH      0.85  u\\u{1b}[31m pays 5.00 EUR to m: because");
        assert!(line(&verdict(Severity::High, None, "u"), true).contains("\u{1b}[31mHIGH    \u{1b}[0m"));
    }
}
