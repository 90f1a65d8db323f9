//! What one notification says: anomalies counted together, the worst of them in front.

use models::{Severity, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Verdicts' ids that a message lists; the rest is in its count only.
pub const IDS_MAX: usize = 20;
/// Characters of a text that a payment or a model brought along.
const TEXT_MAX: usize = 500;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Anomalies of one user.
    Anomalies,
    /// More anomalies than the target's rate lets through.
    Flood,
    /// Nothing: somebody tries the target out.
    Test,
}

/// The worst payment that a message counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Payment {
    /// Its verdict.
    pub verdict_id: String,
    /// How anomalous it is, from 0 to 1.
    pub score: Option<f64>,
    /// As it was sent.
    pub amount: f64,
    /// As it was sent.
    pub currency: Option<String>,
    /// Who is paid.
    pub merchant: String,
    /// Why, in a line.
    pub explanation: String,
}

/// Anomalies by severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BySeverity {
    /// From the threshold.
    pub low: u64,
    /// From 0.65.
    pub medium: u64,
    /// From 0.8.
    pub high: u64,
    /// From 0.9.
    pub critical: u64,
}

impl BySeverity {
    fn add(&mut self, other: Self) {
        self.low += other.low;
        self.medium += other.medium;
        self.high += other.high;
        self.critical += other.critical;
    }

    fn one(severity: Severity) -> Self {
        let mut one = Self::default();
        match severity {
            Severity::None | Severity::Low => one.low = 1,
            Severity::Medium => one.medium = 1,
            Severity::High => one.high = 1,
            Severity::Critical => one.critical = 1,
        }
        one
    }
}

/// See the module's header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// What it is about.
    pub kind: Kind,
    /// The first verdict that it counts: what stands for the message where one comes twice.
    pub verdict_id: String,
    /// Whose payments; only where the target is to know.
    pub user_id: Option<String>,
    /// How many anomalies.
    pub count: u64,
    /// How many messages a flood stands for; 0 in any other.
    pub folded: u64,
    /// The highest severity.
    pub severity: Severity,
    /// How many of each.
    pub by_severity: BySeverity,
    /// The earliest payment's time, in milliseconds since the epoch.
    pub first_ms: i64,
    /// The latest payment's time.
    pub last_ms: i64,
    /// The worst payment.
    pub worst: Option<Payment>,
    /// The first verdicts that it counts.
    pub verdict_ids: Vec<String>,
}

impl Message {
    /// A message of one anomaly.
    #[must_use]
    pub fn new(verdict: &Verdict, include_user: bool) -> Self {
        Self {
            kind: Kind::Anomalies,
            verdict_id: verdict.id.clone(),
            user_id: include_user.then(|| verdict.user_id.clone()),
            count: 1,
            folded: 0,
            severity: verdict.severity,
            by_severity: BySeverity::one(verdict.severity),
            first_ms: verdict.event_time,
            last_ms: verdict.event_time,
            worst: Some(payment(verdict)),
            verdict_ids: vec![verdict.id.clone()],
        }
    }

    /// Bytes that it takes in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = [Some(&self.verdict_id), self.user_id.as_ref()].into_iter().flatten().chain(&self.verdict_ids);
        let worst = self.worst.iter().flat_map(|worst| {
            [Some(&worst.verdict_id), worst.currency.as_ref(), Some(&worst.merchant), Some(&worst.explanation)]
                .into_iter()
                .flatten()
        });
        size_of::<Self>() + texts.chain(worst).map(|text| size_of::<String>() + text.len()).sum::<usize>()
    }

    /// A message that tries a target out.
    #[must_use]
    pub fn test(now_ms: i64) -> Self {
        Self {
            kind: Kind::Test,
            verdict_id: format!("test-{now_ms}"),
            user_id: None,
            count: 0,
            folded: 0,
            severity: Severity::None,
            by_severity: BySeverity::default(),
            first_ms: now_ms,
            last_ms: now_ms,
            worst: None,
            verdict_ids: Vec::new(),
        }
    }

    /// Counts one more anomaly of the same user; false where its verdict is counted already.
    pub fn add(&mut self, verdict: &Verdict) -> bool {
        if self.verdict_ids.contains(&verdict.id) {
            return false;
        }
        if self.verdict_ids.len() < IDS_MAX {
            self.verdict_ids.push(verdict.id.clone());
        }
        let worse = self.worst.as_ref().is_none_or(|worst| verdict.score > worst.score);
        if worse {
            self.worst = Some(payment(verdict));
        }
        self.count += 1;
        self.span(verdict.event_time, verdict.event_time);
        self.severity = self.severity.max(verdict.severity);
        self.by_severity.add(BySeverity::one(verdict.severity));
        true
    }

    /// The first message that a flood takes in.
    #[must_use]
    pub fn into_flood(self) -> Self {
        Self { kind: Kind::Flood, user_id: None, folded: 1, ..self }
    }

    /// A flood takes in one more message.
    pub fn fold(&mut self, other: Self) {
        self.count += other.count;
        self.folded += 1;
        self.span(other.first_ms, other.last_ms);
        self.severity = self.severity.max(other.severity);
        self.by_severity.add(other.by_severity);
        let score = |payment: &Option<Payment>| payment.as_ref().and_then(|payment| payment.score);
        if score(&other.worst) > score(&self.worst) {
            self.worst = other.worst;
        }
        let room = IDS_MAX.saturating_sub(self.verdict_ids.len());
        self.verdict_ids.extend(other.verdict_ids.into_iter().take(room));
    }

    fn span(&mut self, first_ms: i64, last_ms: i64) {
        self.first_ms = self.first_ms.min(first_ms);
        self.last_ms = self.last_ms.max(last_ms);
    }

    /// One line for people.
    #[must_use]
    pub fn title(&self) -> String {
        let severity = self.severity.as_str().to_lowercase();
        let anomalies = if self.count == 1 { "anomaly" } else { "anomalies" };
        match self.kind {
            Kind::Test => "Test of this notification target".to_owned(),
            Kind::Anomalies if self.count == 1 => format!("{} anomaly", capital(&severity)),
            Kind::Anomalies => format!("{} {anomalies} of one user, {severity} at worst", self.count),
            Kind::Flood => {
                format!(
                    "Flood: {} more {anomalies} in {} messages folded into this one, {severity} at worst",
                    self.count, self.folded
                )
            }
        }
    }

    /// The verdict to look at first: the worst payment's.
    #[must_use]
    pub fn look_at(&self) -> &str {
        self.worst.as_ref().map_or(&self.verdict_id, |worst| &worst.verdict_id)
    }

    /// The id of this message to a target. The same verdict, kind and target give the same id, on any instance at any time, so that
    /// whoever gets the message twice can know.
    #[must_use]
    pub fn id_for(&self, target: &str) -> String {
        let kind = match self.kind {
            Kind::Anomalies => "anomalies",
            Kind::Flood => "flood",
            Kind::Test => "test",
        };
        format!("msg_{}", digest(&[target, kind, &self.verdict_id]))
    }
}

fn payment(verdict: &Verdict) -> Payment {
    Payment {
        verdict_id: verdict.id.clone(),
        score: verdict.score,
        amount: verdict.amount,
        currency: verdict.currency.clone(),
        merchant: cut(&verdict.merchant),
        explanation: cut(&verdict.explanation),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// Half of a SHA-256 over parts that cannot run into one another, in hexadecimal.
pub(super) fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
