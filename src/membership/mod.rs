//! Who else is there: each instance announces itself on the members topic (`<app>-members`, compacted, one partition), and all listen.
//!
//! | file | role |
//! |---|---|
//! | `directory` | the port: what others may ask about instances |
//! | `announcement` | one instance's record on the wire |
//! | `roster` | all that was heard, folded; pure |
//! | `placement` | who keeps copies of what; pure |
//! | `herald` | the thread that announces and listens |
//!
//! What is heard is eventual: the group alone decides who owns a partition. The topic says where an owner is reached, who keeps standbys,
//! and under which transactional id a dead owner may have left a transaction open.

mod announcement;
mod directory;
mod herald;
mod placement;
mod roster;

#[cfg(test)]
mod tests;

pub(crate) use announcement::is_endpoint;
pub use announcement::{Announcement, Claims, Malformed, StandbyNote};
pub use directory::{Directory, Peer};
pub use herald::{Herald, Introduction};
pub use roster::Roster;
