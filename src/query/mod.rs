//! Where an answer about a user comes from: this instance, the owner of the user's partition, or a standby.
//!
//! Who has which partition is asked of a [`Directory`](crate::membership::Directory), whose entries may be a moment old: whoever is
//! asked says for itself whether it has the partition.
//!
//! | file | role |
//! |---|---|
//! | `wish` | what a caller asks of an answer: how fresh, at least from where, within what time |
//! | `place` | the decision, pure: from what is known, the next step |
//! | `peers` | asks another instance over HTTP, once, within bounds |
//!
//! Invariants: a request is passed on once at the most (the one that gets it answers from what it has, or refuses); an answer
//! from elsewhere counts only where the instance that was meant says that it gave it (I5: a stranger at a reused address never
//! makes a user unknown); "no such user" is said by owners only.

mod peers;
mod place;
mod wish;

pub use peers::{ANSWERED_BY, Asked, Failed, Got, HOP, Peers};
pub use place::{Facts, Gave, Here, Refusal, Step, TierName, next};
pub use wish::{Consistency, TIMEOUT_MAX, Unreadable, Wish};
