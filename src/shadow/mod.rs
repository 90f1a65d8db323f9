//! Shadow: a candidate scores the live stream beside the active model, and no verdict knows of it.
//!
//! ```text
//!  verdicts (features, score, is_anomaly, model) -> Walk: the shadow's score of the same features -> Comparison
//!                                                     |  every few seconds, with the positions that it stands for
//!                                                     v
//!  models topic: shadow/{id} (begun, ended), shadow-tally/{id} -> every instance's view -> GET /v1/models/{id}/shadow
//! ```
//!
//! Verdicts log the very features that the forest got, so the shadow is scored from the log, off the stream: payments wait for
//! nothing, and the past can be scored as well as what is to come. Whoever holds partition 0 of the payments and has the role `schedule` does
//! it for all partitions. A tally says which offsets it includes in one record with its figures, so each verdict is
//! counted once whatever is restarted or moves, and two that count for a moment write the same. Decision 0042 says why not in the tasks.
//!
//! | file | role |
//! |---|---|
//! | `walk` | one model's way through the log |
//! | `runner` | begins, writes down and ends; judges those that are to be promoted |
//! | `summary` | what people are told |

mod runner;
mod summary;
mod walk;

#[cfg(test)]
mod tests;

pub use runner::Shadows;
pub use summary::Summary;
