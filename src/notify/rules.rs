//! What the policy is told, and what it tells: targets' wishes, outcomes of attempts, counts.

use std::collections::BTreeMap;

use models::Severity;

/// What a target wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// From this severity on.
    pub min_severity: Severity,
    /// Whether messages say whose payments they are about.
    pub include_user: bool,
    /// New messages in a minute.
    pub rate_per_minute: u32,
    /// Stands for the target's address.
    pub address: String,
}

/// What all targets want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How long anomalies of one user are counted together, in milliseconds; 0 tells of each at once.
    pub window_ms: i64,
    /// By name.
    pub targets: BTreeMap<String, Rule>,
    /// Bytes that windows and deliveries of all targets together may take.
    pub memory_bytes: usize,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target has it.
    Arrived,
    /// It has not, or nobody knows.
    Failed {
        /// For a person.
        why: String,
        /// The pause that the target asked for, in milliseconds.
        pause_ms: Option<i64>,
    },
    /// The target wants nothing more, ever.
    Gone {
        /// For a person.
        why: String,
    },
}

/// What has happened to a target's messages since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that arrived.
    pub sent: u64,
    /// Messages given up.
    pub failed: u64,
    /// Attempts that failed and will be made again.
    pub retried: u64,
    /// Anomalies that went into a flood's message.
    pub folded: u64,
    /// Anomalies that somebody had snoozed.
    pub snoozed: u64,
    /// Anomalies that came while the target was disabled.
    pub dropped: u64,
}
