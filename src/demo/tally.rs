//! Follows the verdicts and holds them against what was injected.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use models::{Severity, Verdict};
use topology::broker::{Broker, BrokerError, Reader};
use topology::record::{Fetched, TopicId, TopicPartition};

use super::feed::Injected;

/// Verdicts read in one look.
const BITE: usize = 20_000;

#[derive(Clone, Copy, Debug, Default)]
struct Found {
    injected: u64,
    flagged: u64,
}

pub(super) struct Tally<B: Broker> {
    reader: B::Reader,
    fetched: Fetched,
    injected: Injected,
    seen: u64,
    scored: u64,
    severities: [u64; 5],
    found: BTreeMap<&'static str, Found>,
    fresh: Vec<Verdict>,
}

impl<B: Broker> Tally<B> {
    /// Follows the verdicts from here on.
    pub(super) fn follow(broker: &B, verdicts: TopicId) -> Result<Self, BrokerError> {
        let mut reader = broker.reader()?;
        let infos = broker.describe(&[verdicts])?;
        for partition in 0..infos.first().and_then(Option::as_ref).map_or(0, |info| info.partitions) {
            let at = TopicPartition { topic: verdicts, partition };
            let end = reader.bounds(at)?.end;
            reader.assign(at, end)?;
        }
        Ok(Self {
            reader,
            fetched: Fetched::default(),
            injected: Arc::default(),
            seen: 0,
            scored: 0,
            severities: [0; 5],
            found: BTreeMap::new(),
            fresh: Vec::new(),
        })
    }

    pub(super) fn injected(&self) -> Injected {
        Arc::clone(&self.injected)
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    pub(super) fn anomalies(&self) -> u64 {
        self.severities[1..].iter().sum()
    }

    /// Reads what is new.
    pub(super) fn read(&mut self) -> Result<(), BrokerError> {
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.fetched.clear(1 << 20);
            self.reader.poll(&mut self.fetched, BITE, Duration::ZERO)?;
            if self.fetched.is_empty() {
                return Ok(());
            }
            for record in self.fetched.iter() {
                self.seen += 1;
                let Ok(verdict) = serde_json::from_slice::<Verdict>(record.value.unwrap_or_default()) else { continue };
                let label = injected.remove(&verdict.tx_id);
                if verdict.score.is_none() {
                    continue;
                }
                self.scored += 1;
                self.severities[verdict.severity as usize] += 1;
                if let Some(label) = label {
                    let found = self.found.entry(label.name()).or_default();
                    found.injected += 1;
                    found.flagged += u64::from(verdict.is_anomaly);
                }
                if verdict.is_anomaly {
                    self.fresh.push(verdict);
                }
            }
        }
    }

    /// The worst anomalies since the last call, as lines for people.
    pub(super) fn worst(&mut self, most: usize) -> Vec<String> {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.sort_by(|a, b| b.score.unwrap_or(0.0).total_cmp(&a.score.unwrap_or(0.0)));
        fresh.truncate(most);
        let line = |verdict: &Verdict| {
            format!(
                "{:8} {:.2}  {} pays {:.2} {} to {}: {}",
                verdict.severity.as_str(),
                verdict.score.unwrap_or(0.0),
                verdict.user_id,
                verdict.amount,
                verdict.currency.as_deref().unwrap_or(""),
                verdict.merchant,
                verdict.explanation
            )
        };
        fresh.iter().map(line).collect()
    }

    pub(super) fn line(&self) -> String {
        let by = |severity: Severity| self.severities[severity as usize];
        format!(
            "{} verdicts, {} anomalies (LOW {}, MEDIUM {}, HIGH {}, CRITICAL {})",
            self.seen,
            self.anomalies(),
            by(Severity::Low),
            by(Severity::Medium),
            by(Severity::High),
            by(Severity::Critical)
        )
    }

    pub(super) fn summary(&self) -> Vec<String> {
        let share = |part: u64, of: u64| 100.0 * part as f64 / (of as f64).max(1.0);
        let mut lines = vec![
            self.line(),
            format!("{} of them scored by a model, {:.2} % anomalies", self.scored, share(self.anomalies(), self.scored)),
        ];
        for (kind, Found { injected, flagged }) in &self.found {
            let found = share(*flagged, *injected);
            lines.push(format!("  injected {kind:<18} {injected:>6}, flagged {flagged:>6} ({found:.0} %)"));
        }
        lines
    }
}
