//! Live verdicts from the verdicts topic, filtered: committed ones only, without a group, so that looking changes nothing.
//!
//! Order: within a partition (so for each user) that of the topic; between partitions as they come.
//! Limits: a starting time is found by reading from the beginning; partitions that the topic gets later are not seen.

use std::time::Duration;

use models::{Severity, Verdict};
use topology::broker::{Broker, BrokerError, Reaction, Reader as _, Result};
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
    let Some(info) = broker.describe(&[verdicts])?.pop().flatten() else {
        let what = format!("topic {} does not exist", broker.topics().name(verdicts));
        return Err(BrokerError::new(Reaction::Stop, what));
    };
    let mut filter = filter.clone();
    if let From::Time(since_ms) = from {
        filter.since_ms = Some(since_ms);
    }
    let mut reader = broker.reader()?;
    for partition in 0..info.partitions {
        let at = TopicPartition { topic: verdicts, partition };
        let bounds = reader.bounds(at)?;
        reader.assign(at, if from == From::End { bounds.end } else { bounds.start })?;
    }
    let mut fetched = Fetched::default();
    while !stopped() {
        fetched.clear(1 << 20);
        match reader.poll(&mut fetched, CHUNK, WAIT) {
            Err(BrokerError { reaction: Reaction::Retry, .. }) => continue,
            polled => polled?,
        }
        for record in fetched.iter() {
            let bytes = record.value.unwrap_or_default();
            let Ok(verdict) = serde_json::from_slice::<Verdict>(bytes) else { continue };
            if filter.takes(&verdict) && !each(&verdict, bytes) {
                return Ok(());
            }
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
