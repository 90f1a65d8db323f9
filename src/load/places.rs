//! Where load goes, and what marks it.

use topology::record::TopicId;

/// On broken records: the transaction id that they would have had. Dead letters keep it.
pub(super) const ID_HEADER: &str = "mangrove.load.id";

/// The topics of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Payments go in here.
    pub transactions: TopicId,
    /// Verdicts come out here.
    pub verdicts: TopicId,
    /// What is put aside comes out here.
    pub dead_letters: TopicId,
}
