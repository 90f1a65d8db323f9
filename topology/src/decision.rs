//! Decisions: the written order of what has no order by itself.
//!
//! A command, a new model or a new table of rates has no order relative to the lead topic's records. So the moment when it first takes
//! effect in a partition is decided once and written to the decisions topic, in the same transaction as that effect (at-least-once:
//! acknowledged before it, and after all outputs that came before it). Replay, rebuild and audits read decisions and never decide anew.
//!
//! Format: JSON, `{"after":N,"kind":"...","topic":"...","offset":N,"subject":"..."}`, absent fields left out. `after` is the lead
//! topic's next offset: all records below it were processed before, all others after.

use serde::{Deserialize, Serialize};

/// The kind of the decision that the task's state was emptied: it begins anew at `after`, and what was decided before is void.
pub const EMPTIED: &str = "emptied";

/// One decision. See the module's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The lead input's next offset when it took effect.
    pub after: u64,
    /// What it is: `reset`, `erase`, `model`, ...
    pub kind: String,
    /// The topic of the record that asked for it, where one did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub topic: Option<String>,
    /// That record's offset, in the task's partition.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offset: Option<u64>,
    /// What it is about: a model's id, say. Never a user's id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<String>,
    /// The key whose values it clears, where it clears one: the record's key, not part of its JSON.
    #[serde(skip)]
    pub clears: Option<Box<[u8]>>,
}

impl Decision {
    /// As on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: strings and numbers always serialise")
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is wrong with bytes that are no decision.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
