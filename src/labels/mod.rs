//! Labels: what people found out about verdicts, and how good the verdicts were by it.
//!
//! ```text
//!  POST /v1/labels, or any producer -> labels topic (co-partitioned, key: user) -> Postgres, by the projection
//!                                                     |-> GET /v1/quality
//!                                                     '-> validation of a candidate, beside the active model
//! ```
//!
//! A label has no effect on any score: it is read where figures are made. The latest one about a payment counts, by its time and then
//! by its place in the topic.
//!
//! | file | role |
//! |---|---|
//! | `record` | what is in the topic |
//! | `known` | the topic folded |
//! | `quality` | figures on labelled verdicts: pure |
//! | `desk` | reading and writing on any broker |

mod desk;
mod known;
mod quality;
mod record;

#[cfg(test)]
mod tests;

pub(crate) use desk::LabelTopics;
pub use desk::{Labels, LabelsError, Named};
pub use known::Known;
pub use quality::{Figures, Quality};
pub use record::{Finding, Label, Moment, Written};
