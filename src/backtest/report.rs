//! What a backtest says, to a person or as JSON.

use std::fmt;
use std::time::Duration;

use models::Severity;
use serde::Serialize;
use serde::ser::SerializeMap;

/// Wall time by stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stages {
    /// Reading and encoding rows.
    pub read: Duration,
    /// The topology: decode, features, forest, verdicts, commits.
    pub score: Duration,
    /// Growing the forest.
    pub train: Duration,
    /// Reading verdicts back and judging them.
    pub judge: Duration,
}

/// A backtest's result.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Rows read.
    pub rows: u64,
    /// Verdicts given.
    pub verdicts: u64,
    /// Bytes of all verdicts.
    pub verdict_bytes: u64,
    /// Rows that could not be scored.
    pub dead_letters: u64,
    /// Rows trained on, where a model was trained.
    pub trained_rows: Option<u64>,
    /// The model that scored.
    pub model_id: Option<String>,
    /// Rows judged: scored by the model, on the judged days.
    pub judged_rows: u64,
    /// Frauds among them.
    pub frauds: u64,
    /// Area under the ROC curve.
    pub auroc: Option<f64>,
    /// Average precision.
    pub average_precision: Option<f64>,
    /// Card precision at 100: per day, mean.
    pub card_precision_100: Option<f64>,
    /// Judged rows by severity, NONE first.
    pub severities: [u64; 5],
    /// Wall time by stage.
    pub stages: Stages,
    /// Wall time in all.
    pub elapsed: Duration,
    /// CPU time of the process, all threads.
    pub cpu: Duration,
}

const SEVERITIES: [Severity; 5] = [Severity::None, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

impl Report {
    pub(super) fn finish(&mut self, elapsed: Duration, cpu: Duration) {
        self.elapsed = elapsed;
        self.cpu = cpu;
    }

    /// Rows a second through the topology (the stage `score`: one thread).
    #[must_use]
    pub fn records_per_second(&self) -> f64 {
        self.rows as f64 / self.stages.score.as_secs_f64().max(1e-9)
    }

    /// CPU time of everything, training and judging included, by row, in microseconds.
    #[must_use]
    pub fn cpu_us_per_record(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / (self.rows as f64).max(1.0)
    }

    fn share(&self, severity: usize) -> f64 {
        self.severities[severity] as f64 / (self.judged_rows as f64).max(1.0)
    }

    /// Share of judged rows at or above the threshold.
    #[must_use]
    pub fn alert_rate(&self) -> f64 {
        (1..5).map(|severity| self.share(severity)).sum()
    }
}

impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("rows", &self.rows)?;
        map.serialize_entry("verdicts", &self.verdicts)?;
        map.serialize_entry("dead_letters", &self.dead_letters)?;
        map.serialize_entry("mean_verdict_bytes", &(self.verdict_bytes as f64 / (self.verdicts as f64).max(1.0)))?;
        map.serialize_entry("trained_rows", &self.trained_rows)?;
        map.serialize_entry("model_id", &self.model_id)?;
        map.serialize_entry("judged_rows", &self.judged_rows)?;
        map.serialize_entry("frauds", &self.frauds)?;
        map.serialize_entry("auroc", &self.auroc)?;
        map.serialize_entry("average_precision", &self.average_precision)?;
        map.serialize_entry("card_precision_100", &self.card_precision_100)?;
        map.serialize_entry("alert_rate", &self.alert_rate())?;
        let by_severity: std::collections::BTreeMap<_, _> =
            SEVERITIES.iter().enumerate().skip(1).map(|(at, severity)| (severity.as_str(), self.share(at))).collect();
        map.serialize_entry("alert_rate_by_severity", &by_severity)?;
        map.serialize_entry("records_per_second", &self.records_per_second())?;
        map.serialize_entry("cpu_us_per_record", &self.cpu_us_per_record())?;
        let seconds = [
            ("read", self.stages.read),
            ("score", self.stages.score),
            ("train", self.stages.train),
            ("judge", self.stages.judge),
            ("all", self.elapsed),
        ];
        let seconds: std::collections::BTreeMap<_, _> =
            seconds.into_iter().map(|(stage, time)| (stage, time.as_secs_f64())).collect();
        map.serialize_entry("seconds_by_stage", &seconds)?;
        map.end()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.3} %", share * 100.0);
        let figure = |figure: Option<f64>| figure.map_or("- (no labels)".to_owned(), |figure| format!("{figure:.4}"));
        let line = |f: &mut fmt::Formatter<'_>, name: &str, value: String| writeln!(f, "{name:<24}{value}");
        line(f, "rows", format!("{} ({} verdicts, {} dead letters)", self.rows, self.verdicts, self.dead_letters))?;
        if let Some(rows) = self.trained_rows {
            line(f, "trained on", format!("{rows} rows"))?;
        }
        line(f, "model", self.model_id.clone().unwrap_or_else(|| "none".into()))?;
        line(f, "judged", format!("{} rows, {} frauds", self.judged_rows, self.frauds))?;
        line(f, "AUROC", figure(self.auroc))?;
        line(f, "average precision", figure(self.average_precision))?;
        line(f, "card precision at 100", figure(self.card_precision_100))?;
        line(f, "alert rate", percent(self.alert_rate()))?;
        for (at, severity) in SEVERITIES.iter().enumerate().skip(1) {
            line(f, &format!("  {}", severity.as_str()), percent(self.share(at)))?;
        }
        line(f, "throughput", format!("{:.0} records/s through the topology, one thread", self.records_per_second()))?;
        line(f, "CPU", format!("{:.2} us a record, all stages", self.cpu_us_per_record()))?;
        let Stages { read, score, train, judge } = self.stages;
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let stages = [("read", read), ("score", score), ("train", train), ("judge", judge), ("all", self.elapsed)];
        let stages: Vec<String> = stages.iter().map(|(name, time)| format!("{name} {}", seconds(*time))).collect();
        write!(f, "{:<24}{}", "time by stage", stages.join(", "))
    }
}
