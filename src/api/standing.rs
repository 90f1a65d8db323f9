//! Where an answer about a user stands: part of the answers, and of the problems, that are about committed state.

use schemars::JsonSchema;
use serde::Serialize;

/// Which committed state an answer is about.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Standing {
    pub(crate) position: Position,
    /// Who read it: `local` (the instance that was asked runs the partition), `owner` (another one does, and was asked), `standby`; or `redis`,
    /// `postgres` where the profile had to be fetched from there.
    pub(crate) source: &'static str,
    /// Milliseconds since the partition's last commit or restore; of a copy, since it was last at its changelog's end;
    /// of a tier, since the profile's last change.
    pub(crate) age_ms: u64,
}

/// Everything before these offsets is in the answer; what was being committed at that moment may be, too.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Position {
    /// The user's partition.
    pub(crate) partition: u32,
    /// The next offset of the input.
    pub(crate) input_offset: u64,
    /// The next offset of the store's changelog.
    pub(crate) changelog_offset: u64,
}
