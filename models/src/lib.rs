//! The pure part of Mangrove: what a payment is, what a user's normal is, and how far the one is from the other.
//!
//! Bytes become a [`Transaction`]; a [`Profile`] turns it into ten [`features`] and then learns from it; a [`Forest`]
//! of isolation trees turns features into a raw score; a [`Model`] calibrates that score; a [`verdict`] says so on
//! the wire and an [`explain`]ation says why.
//!
//! The crate is `no_std`: the compiler proves that nothing here does I/O, reads a clock or asks for randomness. Time
//! and seeds are arguments, so the same transactions and the same seed give the same bytes on every machine.
//!
//! ```
//! use models::{Limits, Profile, Transaction};
//!
//! let record_time_ms = 1_700_000_000_000;
//! let json = br#"{"user_id":"u1","amount":12.5,"merchant":"bakery"}"#;
//! let tx = Transaction::from_json(json, record_time_ms, &Limits::default())?;
//! let mut profile = Profile::default();
//! let observation = profile.observe(tx.amount, tx.event_time, &tx.merchant, None);
//! profile.update(tx.amount, tx.event_time, &tx.merchant);
//! assert_eq!(observation.normal.seen, 0);
//! assert_eq!(profile.seen(), 1);
//! # Ok::<(), models::InvalidTransaction>(())
//! ```
//!
//! Limits are named constants next to what they bound; every decoder here checks them before it allocates.
#![no_std]
#![deny(missing_docs, unsafe_code, clippy::iter_over_hash_type, clippy::unwrap_used)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod artifact;
pub mod calibration;
pub mod compare;
pub mod explain;
pub mod features;
pub mod forest;
pub mod metrics;
pub mod model;
pub mod profile;
pub mod transaction;
pub mod validate;
pub mod verdict;

mod json;

pub use artifact::ArtifactError;
pub use calibration::Calibration;
pub use explain::Reason;
pub use features::{FEATURE_NAMES, FEATURES, Normal, Observation};
pub use forest::{Forest, Kernel, TrainError, TrainParams, Tree};
pub use model::{Model, TrainingSet, Window};
pub use profile::Profile;
pub use transaction::{Cause, InvalidTransaction, Limits, Transaction};
pub use verdict::{Severity, Verdict, VerdictRef, severity};

#[cfg(test)]
mod tests;
