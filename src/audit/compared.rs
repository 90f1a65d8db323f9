//! What came of a comparison.

use serde::Serialize;

/// What came of comparing two sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// How many were compared.
    pub compared: u64,
    /// How many differ.
    pub differ: u64,
    /// Why nothing, or less, was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Compared {
    pub(super) fn not(why: impl Into<String>) -> Self {
        Self { note: Some(why.into()), ..Self::default() }
    }
}
