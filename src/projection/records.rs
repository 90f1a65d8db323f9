//! From records of the registry, the notifier and the trail to rows. What is no such record is none; what a table has no row for is an
//! empty one.

use serde::Deserialize;
use topology::record::Record;

use crate::notify::entry::{Delivery, Key, State};
use crate::registry::Version;
use crate::tiers::{AuditRow, ModelRow, NotificationRow, Told};

/// Bytes of an id: what an index takes, and more than ids have.
const ID_BYTES_MAX: usize = 300;

/// Of the models topic: the versions. Which one is active, and what else is said of them, is in the topic and in verdicts.
pub(super) fn model(record: &Record<'_>) -> Option<Option<ModelRow>> {
    let Some(id) = std::str::from_utf8(record.key?).ok()?.strip_prefix("model/") else { return Some(None) };
    let id = Some(id).filter(|id| crate::registry::is_id(id))?.to_owned();
    let (at_ms, document) = match record.value {
        None => (record.timestamp, None),
        Some(value) => {
            let version: Version = serde_json::from_slice(value).ok()?;
            (version.created_ms, Some(serde_json::to_string(&version).ok()?))
        }
    };
    Some(Some(ModelRow { id, offset: record.offset, at_ms, document }))
}

/// Of the notifications topic: the deliveries. The row names verdicts, not users, and nothing that was paid: an erasure has nothing to
/// look for in it.
pub(super) fn notification(record: &Record<'_>) -> Option<Option<NotificationRow>> {
    let Key::Delivery(id) = Key::decode(record.key?)? else { return Some(None) };
    let id = Some(id).filter(|id| (1..=ID_BYTES_MAX).contains(&id.len()))?;
    let Some(value) = record.value else {
        return Some(Some(NotificationRow { id, offset: record.offset, at_ms: record.timestamp, told: None }));
    };
    let mut delivery: Delivery = serde_json::from_slice(value).ok()?;
    (delivery.message.user_id, delivery.message.worst) = (None, None);
    let outcome = match delivery.state {
        State::Pending => "pending",
        State::Dead => "given up",
    };
    let document = serde_json::to_string(&delivery).ok()?;
    let told = Some(Told { channel: delivery.target, outcome, document });
    Some(Some(NotificationRow { id, offset: record.offset, at_ms: delivery.made_ms, told }))
}

/// What of a record of the trail has a column.
#[derive(Deserialize)]
struct Trail {
    at: i64,
    actor: Option<String>,
    method: String,
    route: String,
    status: u16,
    user: Option<String>,
}

/// Of the audit topic.
pub(super) fn audit(record: &Record<'_>, id: String) -> Option<AuditRow> {
    let document = std::str::from_utf8(record.value?).ok()?;
    let Trail { at, actor, method, route, status, user } = serde_json::from_str(document).ok()?;
    let (action, outcome, document) = (format!("{method} {route}"), status.to_string(), document.to_owned());
    Some(AuditRow { id, at_ms: at, actor, action, subject: user, outcome, document })
}
