//! Models, notifications and the audit trail: few columns to look for, and the record as a document.

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use tokio_postgres::Error;

use super::profiles::{postgres_text, postgres_time};

/// A registered model, or that it is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRow {
    /// Its id.
    pub id: String,
    /// The record's offset.
    pub offset: u64,
    /// When it was registered, or was let go; in milliseconds since the epoch.
    pub at_ms: i64,
    /// What the registry says of it; none where it is no more.
    pub document: Option<String>,
}

/// A notification on its way, given up, or at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationRow {
    /// The delivery's id.
    pub id: String,
    /// The record's offset.
    pub offset: u64,
    /// When it was made, or ended; in milliseconds since the epoch.
    pub at_ms: i64,
    /// None at its end.
    pub told: Option<Told>,
}

/// What there is to say of a notification that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The target's name.
    pub channel: String,
    /// `pending` or `given up`.
    pub outcome: &'static str,
    /// The delivery, without the user and what was paid.
    pub document: String,
}

/// Who did what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// `topic:partition:offset` of its record.
    pub id: String,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// The token's name.
    pub actor: Option<String>,
    /// Method and route.
    pub action: String,
    /// The keyed hash of the user it was about.
    pub subject: Option<String>,
    /// The answer's status.
    pub outcome: String,
    /// The record.
    pub document: String,
}

const MODEL: &str = "
    INSERT INTO models AS kept (model_id, created_at, document, generation, record_offset) VALUES ($1, $2, $3::text::json, $4, $5)
    ON CONFLICT (model_id) DO UPDATE SET created_at = excluded.created_at, document = excluded.document, removed_at = NULL,
        generation = excluded.generation, record_offset = excluded.record_offset
    WHERE (kept.generation, kept.record_offset) < (excluded.generation, excluded.record_offset)";

const MODEL_GONE: &str = "
    UPDATE models SET removed_at = $2, generation = $3, record_offset = $4
    WHERE model_id = $1 AND (generation, record_offset) < ($3, $4)";

pub(super) async fn write_models(transaction: &Transaction<'_>, generation: u64, rows: &[ModelRow]) -> Result<(), Error> {
    let generation = generation as i64;
    for ModelRow { id, offset, at_ms, document } in rows {
        let (at, offset) = (postgres_time(*at_ms), *offset as i64);
        match document {
            Some(document) => {
                let statement = transaction.prepare_cached(MODEL).await?;
                transaction.execute(&statement, &[id, &at, document, &generation, &offset]).await?;
            }
            None => {
                let statement = transaction.prepare_cached(MODEL_GONE).await?;
                transaction.execute(&statement, &[id, &at, &generation, &offset]).await?;
            }
        }
    }
    Ok(())
}

const NOTIFICATION: &str = "
    INSERT INTO notifications AS kept (id, at, channel, outcome, document, generation, record_offset)
    VALUES ($1, $2, $3, $4, $5::text::json, $6, $7)
    ON CONFLICT (id) DO UPDATE SET at = excluded.at, channel = excluded.channel, outcome = excluded.outcome,
        document = excluded.document, ended_at = NULL, generation = excluded.generation, record_offset = excluded.record_offset
    WHERE (kept.generation, kept.record_offset) < (excluded.generation, excluded.record_offset)";

/// What was given up and is forgotten stays what it was.
const NOTIFICATION_ENDED: &str = "
    UPDATE notifications SET outcome = CASE outcome WHEN 'pending' THEN 'arrived' ELSE outcome END, ended_at = $2,
        generation = $3, record_offset = $4
    WHERE id = $1 AND (generation, record_offset) < ($3, $4)";

pub(super) async fn write_notifications(
    transaction: &Transaction<'_>,
    generation: u64,
    rows: &[NotificationRow],
) -> Result<(), Error> {
    let generation = generation as i64;
    for NotificationRow { id, offset, at_ms, told } in rows {
        let (id, at, offset) = (postgres_text(id), postgres_time(*at_ms), *offset as i64);
        match told {
            Some(Told { channel, outcome, document }) => {
                let channel = postgres_text(channel);
                let statement = transaction.prepare_cached(NOTIFICATION).await?;
                transaction.execute(&statement, &[&&*id, &at, &&*channel, outcome, document, &generation, &offset]).await?;
            }
            None => {
                let statement = transaction.prepare_cached(NOTIFICATION_ENDED).await?;
                transaction.execute(&statement, &[&&*id, &at, &generation, &offset]).await?;
            }
        }
    }
    Ok(())
}

/// As arrays: each payment that comes alone by HTTP is a row.
const AUDIT: &str = "
    INSERT INTO audit (id, at, actor, action, subject, outcome, document)
    SELECT id, at, actor, action, subject, outcome, document::json
    FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
        AS new (id, at, actor, action, subject, outcome, document)
    ON CONFLICT DO NOTHING";

pub(super) async fn write_audit(transaction: &Transaction<'_>, rows: &[AuditRow]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let text = |text: &str| postgres_text(text).into_owned();
    let column = |of: fn(&AuditRow) -> &str| -> Vec<String> { rows.iter().map(|row| text(of(row))).collect() };
    let optional =
        |of: fn(&AuditRow) -> Option<&str>| -> Vec<Option<String>> { rows.iter().map(|row| of(row).map(text)).collect() };
    let times: Vec<Timestamp> = rows.iter().map(|row| postgres_time(row.at_ms)).collect();
    let (ids, actors) = (column(|row| &row.id), optional(|row| row.actor.as_deref()));
    let (actions, subjects) = (column(|row| &row.action), optional(|row| row.subject.as_deref()));
    let (outcomes, documents) = (column(|row| &row.outcome), column(|row| &row.document));
    let statement = transaction.prepare_cached(AUDIT).await?;
    transaction.execute(&statement, &[&ids, &times, &actors, &actions, &subjects, &outcomes, &documents]).await.map(drop)
}
