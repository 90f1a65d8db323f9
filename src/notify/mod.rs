//! Tells people of anomalies: webhooks, Slack, e-mail (role `notify`).
//!
//! ```text
//!  anomalies -> Notifier (one member of the group at a time) -> Policy (pure: windows, rates, schedule) -> Couriers -> targets
//!                  |  one transaction: offsets and records           ^
//!                  +---> notifications topic (compacted) --restore---+--- orders: resend, enable
//! ```
//!
//! | file | role |
//! |---|---|
//! | `targets` | who is told: the file of `NOTIFY_TARGETS` |
//! | `policy` | what is sent when: a pure state machine |
//! | `rules` | what the policy is told of targets and attempts, and what it counts |
//! | `message` | what a notification counts and says |
//! | `schedule` | when a failed delivery is tried again |
//! | `entry` | what is in the notifications topic |
//! | `notifier` | the member that reads anomalies and owns the policy |
//! | `book` | what there is, as any instance or command sees it; orders |
//! | `send` | one attempt: HTTP and SMTP |
//! | `guard` | which addresses may be called |
//! | `webhook`, `render` | bytes on the way |
//!
//! Guarantee: what the policy decides and how far anomalies were read is committed in one transaction, and a delivery leaves only after
//! that. So each anomaly is counted once, and each delivery arrives at least once: after a crash between arrival and
//! commit it comes again, under the same id.

pub mod book;
pub mod entry;
pub mod guard;
pub mod message;
pub mod notifier;
pub mod policy;
pub mod render;
pub mod rules;
pub mod schedule;
pub mod send;
pub mod targets;

mod webhook;

use std::sync::Arc;

use models::Severity;

/// What an instance shows of notifications.
#[derive(Clone)]
pub struct Notifications {
    /// What there is, and orders.
    pub book: book::Book,
    /// Figures of this instance's notifier.
    pub status: Arc<notifier::Status>,
    /// Name, kind and least severity of each target.
    pub targets: Arc<[(String, &'static str, Severity)]>,
}
