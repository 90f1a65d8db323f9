//! What the receipt of an erasure says of one place.

use schemars::JsonSchema;
use serde::Serialize;

/// What was found of the user in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Found {
    /// Nothing is there.
    Deleted,
    /// What is there goes by itself: by a topic's retention, or at its next compaction.
    Expiring,
    /// What is there stays, as the place is set up.
    Kept,
    /// Something is there: payments came after the erasure, or it has not got there yet.
    Present,
    /// The place did not answer.
    Unreachable,
}

/// One place.
#[derive(Serialize, JsonSchema)]
pub(super) struct Place {
    /// `state`, `training`, `redis`, `postgres`, or a topic's name.
    pub(super) place: String,
    pub(super) found: Found,
    /// When all of it is gone at the latest, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<String>,
    /// What is known of it, for a person.
    pub(super) why: String,
}

/// A place of which it is not known when all is gone.
pub(super) fn place(place: &str, found: Found, why: impl Into<String>) -> Place {
    Place { place: place.to_owned(), found, until: None, why: why.into() }
}
