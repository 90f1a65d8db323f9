//! Where models meet topology: the processor that turns payments into verdicts, and the topology it runs in.
//!
//! ```text
//! transactions, commands -> score (profiles -> changelog, decisions) -> verdicts, anomalies, dead letters
//! ```

mod commands;
mod fx;
mod params;
mod processor;
mod repartition;
mod slot;
mod trace;
mod wiring;

use serde::{Deserialize, Serialize};
use state::store::Value;

pub use commands::{Command, CommandKind};
pub use fx::{FxError, FxTable};
pub use params::{Partitioning, ScoringParams, Unconvertible};
pub use processor::{PROFILES, SEVERITIES, Scoring, VERDICTS_BY_SEVERITY};
pub use slot::ModelSlot;
pub use wiring::{TopicNames, audit_topic, notifications_topic, scoring_topology, snoozes_topic};

/// A user's profile as the store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserProfile(pub models::Profile);

impl Value for UserProfile {
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}
