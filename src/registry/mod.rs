//! The registry: which models there are, and which one scores.
//!
//! ```text
//!  train, import -> artifact (object store) -> version  \
//!                                                        models topic (compacted, one partition) -> every instance's view -> slot
//!  promote, roll back ----------------------> activation /                                                                   |
//!                                                                 each task goes over at its next batch, through a decision <-+
//! ```
//!
//! The topic is the truth: its last activation names the active model, so all instances end on the same one whoever wrote last, and a
//! switch is one record. An artifact is believed only after its size, digest and content were checked; one that fails leaves the old
//! model in place, and the refusal is shown and logged with its reason.
//!
//! | file | role |
//! |---|---|
//! | `record` | what is in the topic |
//! | `view` | the topic folded: pure |
//! | `artifacts` | bytes in a folder, S3, R2 or Google Cloud Storage |
//! | `log` | reading and writing the topic on any broker |
//! | `service` | the running registry |
//!
//! A version may be in shadow as well: see [`crate::shadow`], which does it; here is what is known of it.

mod artifacts;
mod log;
mod record;
mod service;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use artifacts::use_tls;
pub use artifacts::{ArtifactFault, Artifacts};
pub(crate) use log::writer;
pub use log::{BrokerLog, ModelsLog, Write};
pub use record::{Activation, Cost, LastRetrain, Request, Retrained, Shadowing, Tally, Version, is_id};
pub use service::{Refusal, Registry, RegistryError, SHADOWS_MAX};
pub use view::{State, View};
