//! What came of a load, and whether that is good enough.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::output::table;

/// Milliseconds from when a payment was meant to be sent to its verdict's arrival at the reader.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Latency {
    /// Half are faster.
    pub p50: f64,
    /// Nine of ten are faster.
    pub p90: f64,
    /// 99 of a hundred are faster.
    pub p99: f64,
    /// 999 of a thousand are faster.
    #[serde(rename = "p99_9")]
    pub p999: f64,
    /// The slowest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
}

/// Anomalies put in, and how many of them the verdicts call so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Found {
    /// Which.
    pub kind: &'static str,
    /// Sent.
    pub sent: u64,
    /// Called anomalies.
    pub flagged: u64,
}

/// What became of a load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Report {
    /// Where it went.
    pub target: String,
    /// What the payments were drawn from.
    pub seed: u64,
    /// What transaction ids begin with.
    pub run: String,
    /// Records handed over.
    pub sent: u64,
    /// Of them broken ones.
    pub poison: u64,
    /// Of them late ones.
    pub late: u64,
    /// Of them some that came behind later ones.
    pub out_of_order: u64,
    /// Came back as verdicts.
    pub verdicts: u64,
    /// Came back as dead letters.
    pub dead_letters: u64,
    /// Not accepted by the HTTP interface, which said so.
    pub refused: u64,
    /// Got no answer of the HTTP interface, and no verdict: they may or may not have been taken.
    pub unanswered: u64,
    /// Taken, and neither a verdict nor a dead letter came within the patience.
    pub lost: u64,
    /// Came back again.
    pub duplicates: u64,
    /// Sound payments that were refused or put aside.
    pub unexpected_dead_letters: u64,
    /// Broken records that got a verdict.
    pub poison_scored: u64,
    /// From the first record to the last.
    pub seconds: f64,
    /// Records a second.
    pub sent_per_second: f64,
    /// Verdicts and dead letters a second, until the last one; 0 where none are read back.
    pub answered_per_second: f64,
    /// Seconds during which nothing was sent since too much was under way. Such payments are late, and their latency says so.
    pub held_back_seconds: f64,
    /// `intended`: the time a payment was due, whatever kept it; `sent` where there is no rate that says when one is due.
    pub latency_from: &'static str,
    /// None where no verdict came.
    pub latency_ms: Option<Latency>,
    /// Of each kind of anomaly what was found. Empty before there is a model.
    pub anomalies: Vec<Found>,
    /// Whether it was stopped before its time.
    pub stopped: bool,
    /// Thresholds that were not met, in words.
    pub missed: Vec<String>,
}

/// What is good enough; what is none is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::Args)]
pub struct Thresholds {
    /// Half of all verdicts come within this many milliseconds
    #[arg(long, value_name = "MS", help_heading = "Thresholds")]
    pub max_p50_ms: Option<f64>,
    /// 99 % of all verdicts come within this many milliseconds
    #[arg(long, value_name = "MS", help_heading = "Thresholds")]
    pub max_p99_ms: Option<f64>,
    /// 99.9 % of all verdicts come within this many milliseconds
    #[arg(long, value_name = "MS", help_heading = "Thresholds")]
    pub max_p999_ms: Option<f64>,
    /// All verdicts come within this many milliseconds
    #[arg(long, value_name = "MS", help_heading = "Thresholds")]
    pub max_latency_ms: Option<f64>,
    /// At most so many payments come back as nothing
    #[arg(long, value_name = "COUNT", help_heading = "Thresholds")]
    pub max_lost: Option<u64>,
    /// At most so many come back more than once
    #[arg(long, value_name = "COUNT", help_heading = "Thresholds")]
    pub max_duplicates: Option<u64>,
    /// At most so many sound payments are refused or put aside
    #[arg(long, value_name = "COUNT", help_heading = "Thresholds")]
    pub max_unexpected: Option<u64>,
    /// At least so many a second come back (are sent, with --no-verdicts)
    #[arg(long, value_name = "PER_SECOND", help_heading = "Thresholds")]
    pub min_rate: Option<f64>,
}

impl Thresholds {
    /// True where one of them needs verdicts.
    #[must_use]
    pub fn need_verdicts(&self) -> bool {
        let times = [self.max_p50_ms, self.max_p99_ms, self.max_p999_ms, self.max_latency_ms];
        times.iter().any(Option::is_some)
            || self.max_lost.is_some()
            || self.max_duplicates.is_some()
            || self.max_unexpected.is_some()
    }

    /// What was not met, in words.
    #[must_use]
    pub fn missed(&self, report: &Report, verdicts_read: bool) -> Vec<String> {
        let mut missed = Vec::new();
        let mut above = |name: &str, flag: &str, found: Option<f64>, most: Option<f64>| {
            let Some(most) = most else { return };
            match found {
                Some(found) if found <= most => {}
                Some(found) => missed.push(format!("{name} is {found}, above {flag} {most}")),
                None => missed.push(format!("{name} is not known, no verdict came: {flag} {most} is not met")),
            }
        };
        let time = |of: fn(&Latency) -> f64| report.latency_ms.as_ref().map(of);
        above("p50 in ms", "--max-p50-ms", time(|l| l.p50), self.max_p50_ms);
        above("p99 in ms", "--max-p99-ms", time(|l| l.p99), self.max_p99_ms);
        above("p99.9 in ms", "--max-p999-ms", time(|l| l.p999), self.max_p999_ms);
        above("the longest time in ms", "--max-latency-ms", time(|l| l.max), self.max_latency_ms);
        let count = |count: u64| Some(count as f64);
        let most = |most: Option<u64>| most.map(|most| most as f64);
        above("lost", "--max-lost", count(report.lost), most(self.max_lost));
        above("duplicates", "--max-duplicates", count(report.duplicates), most(self.max_duplicates));
        above("sound payments refused", "--max-unexpected", count(report.unexpected_dead_letters), most(self.max_unexpected));
        let rate = if verdicts_read { report.answered_per_second } else { report.sent_per_second };
        if let Some(least) = self.min_rate.filter(|least| rate < *least) {
            missed.push(format!("the rate is {rate:.1} a second, below --min-rate {least}"));
        }
        missed
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, poison, late, out_of_order, seconds, .. } = self;
        writeln!(
            f,
            "{sent} payments to {} in {seconds:.2} s, {:.0} a second (seed {}, run {})",
            self.target, self.sent_per_second, self.seed, self.run
        )?;
        writeln!(
            f,
            "  {poison} broken, {late} late, {out_of_order} out of order; sending was held back for {:.2} s",
            self.held_back_seconds
        )?;
        writeln!(
            f,
            "{} verdicts, {} dead letters, {} refused, {} unanswered, {} lost, {} duplicates; {:.0} a second",
            self.verdicts, self.dead_letters, self.refused, self.unanswered, self.lost, self.duplicates, self.answered_per_second
        )?;
        if self.unexpected_dead_letters + self.poison_scored > 0 {
            writeln!(f, "  {} sound payments refused, {} broken ones scored", self.unexpected_dead_letters, self.poison_scored)?;
        }
        match &self.latency_ms {
            Some(Latency { p50, p90, p99, p999, max, .. }) => writeln!(
                f,
                "latency in ms, from when a payment was {}: p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2}",
                if self.latency_from == "intended" { "due" } else { "sent" }
            )?,
            None => writeln!(f, "no latency: no verdict was read back")?,
        }
        if !self.anomalies.is_empty() && self.verdicts > 0 {
            let row = |found: &Found| [found.kind.to_owned(), found.sent.to_string(), found.flagged.to_string()];
            writeln!(f, "{}", table(["anomaly", "sent", "flagged"], &self.anomalies.iter().map(row).collect::<Vec<_>>()))?;
        }
        for missed in &self.missed {
            writeln!(f, "MISSED: {missed}")?;
        }
        write!(f, "{}", if self.stopped { "stopped before its end" } else { "done" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_threshold_is_looked_at() {
        let latency = Latency { p50: 5.0, p90: 8.0, p99: 10.0, p999: 20.0, max: 30.0, mean: 6.0 };
        let report = Report {
            lost: 1,
            duplicates: 2,
            unexpected_dead_letters: 3,
            answered_per_second: 100.0,
            sent_per_second: 200.0,
            latency_ms: Some(latency),
            ..Report::default()
        };
        let met = Thresholds {
            max_p50_ms: Some(5.0),
            max_p99_ms: Some(10.0),
            max_p999_ms: Some(20.0),
            max_latency_ms: Some(30.0),
            max_lost: Some(1),
            max_duplicates: Some(2),
            max_unexpected: Some(3),
            min_rate: Some(100.0),
        };
        assert_eq!(met.missed(&report, true), Vec::<String>::new());
        let missed = Thresholds {
            max_p50_ms: Some(4.9),
            max_p99_ms: Some(9.9),
            max_p999_ms: Some(19.9),
            max_latency_ms: Some(29.9),
            max_lost: Some(0),
            max_duplicates: Some(1),
            max_unexpected: Some(2),
            min_rate: Some(100.1),
        };
        let said = missed.missed(&report, true);
        assert_eq!(said.len(), 8, "{said:#?}");
        for (flag, said) in ["p50", "p99", "p999", "latency", "lost", "duplicates", "unexpected", "min-rate"].iter().zip(&said) {
            assert!(said.contains(flag), "{flag}: {said}");
        }
        assert!(missed.missed(&report, false).len() == 7, "without verdicts the rate is that of sending");
        let silent = Report { latency_ms: None, ..report };
        assert_eq!(
            Thresholds { max_p99_ms: Some(1e9), ..Thresholds::default() }.missed(&silent, true).len(),
            1,
            "no verdict meets none"
        );
    }
}
