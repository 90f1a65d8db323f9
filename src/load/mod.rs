//! The load generator: made-up payments to a topic, to the HTTP interface or into a file, and what becomes of each.
//!
//! ```text
//! generator -> traffic (late, out of order, broken) -> drive (pace, open loop) -> sink: topic | HTTP
//!                                                        |                          |
//!                                                      ledger <- watch (verdicts and dead letters, read committed)
//! ```
//!
//! | file | role |
//! |---|---|
//! | `traffic`, `share` | what is sent, exact shares; pure |
//! | `pace` | when each is due; pure |
//! | `ledger` | what is under way, latencies, duplicates; pure |
//! | `drive` | sends when due |
//! | `topics`, `http`, `file` | where to |
//! | `places` | the topics concerned |
//! | `watch` | what comes back |
//! | `session`, `control` | a load under way; starting and stopping it from elsewhere |
//! | `report` | what came of it, and thresholds |
//!
//! Invariants: the same parameters give the same records in the same order; latency counts from when a payment was due, not from when
//! it could be sent (coordinated omission: G. Tene, "How NOT to Measure Latency"); each payment that was taken is counted once, as a
//! verdict, a dead letter or lost. Limits: memory goes by the people and by what is under way, never by how long it goes on.

mod control;
mod drive;
mod file;
mod http;
mod ledger;
mod pace;
mod places;
mod report;
mod session;
mod share;
mod topics;
mod traffic;
mod watch;

pub use control::{Control, Order, Refusal, Status};
pub use drive::LoadParams;
pub use file::{Written, to_file};
pub use http::{HttpTarget, to_http, to_http_and_topics};
pub use pace::Bursts;
pub use places::Places;
pub use report::{Found, Latency, Report, Thresholds};
pub use session::{Progress, Session, Shared};
pub use share::Share;
pub use topics::to_topic;
pub use traffic::{Event, Poison, Traffic, TrafficParams};
