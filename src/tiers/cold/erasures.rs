//! Who was erased, and up to which payment: rows go, and none comes back when topics are projected again.
//!
//! The table holds a digest of the user's id and an offset, not the id. Rows of a user and the user's erasure may be written by two
//! processes at once; a lock that those who write rows share puts them in an order: a row written before is deleted, one after is left out.

use std::borrow::Cow;

use deadpool_postgres::Transaction;
use tokio_postgres::Error;
use topology::decision::Decision;

use super::profiles::{postgres_text, postgres_time};
use super::{Cold, Unreachable};

/// A user who was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure<'a> {
    user: Cow<'a, str>,
    /// The payments' topic, which `after` is an offset of.
    topic: &'a str,
    after: u64,
    at_ms: i64,
}

impl<'a> Erasure<'a> {
    /// From a record of the decisions about payments of that topic: none inside where it is another decision, none at all where it is
    /// no decision.
    #[must_use]
    pub fn decode(topic: &'a str, key: Option<&'a [u8]>, value: &[u8], record_ms: i64) -> Option<Option<Self>> {
        let Decision { after, kind, .. } = Decision::decode(value).ok()?;
        if kind != "erase" {
            return Some(None);
        }
        let user = postgres_text(std::str::from_utf8(key?).ok()?);
        Some(Some(Self { user, topic, after, at_ms: record_ms }))
    }
}

/// What is left of an erased user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The erasure is known here: what comes later of the user's past is left out.
    pub known: bool,
    /// Rows of payments before it.
    pub rows: u64,
}

/// The user's key in the table.
const KEY: &str = "sha256(convert_to($user, 'UTF8'))";

/// True of a verdict's id and time where the payment came before the erasure `e`. An id of another topic than the payments' tells no
/// order: then the time does, with an hour for payments that are dated ahead.
const BEFORE: &str = "CASE WHEN $id ~ '^[^:]*:[0-9]{1,10}:[0-9]{1,18}$' AND split_part($id, ':', 1) = e.topic
    THEN split_part($id, ':', 3)::bigint < e.after ELSE $time < e.erased_at + $slack END";

fn key(user: &str) -> String {
    KEY.replace("$user", user)
}

fn verdict_before() -> String {
    BEFORE.replace("$id", "v.id").replace("$time", "v.event_time").replace("$slack", "interval '1 hour'")
}

/// Without a verdict's id the time counts at which the label was written.
fn label_before() -> String {
    let before = BEFORE.replace("$id", "coalesce(l.verdict_id, '')").replace("$slack", "interval '0'");
    before.replace("$time", "coalesce(l.written_at, l.labelled_at)")
}

/// What a verdict `v` must fulfil to be inserted: it is none of an erased user's past.
pub(super) fn takes_verdict() -> String {
    format!("NOT EXISTS (SELECT FROM erasures e WHERE e.user_key = {} AND {})", key("v.user_id"), verdict_before())
}

/// What a label `l` must fulfil to be inserted.
pub(super) fn takes_label() -> String {
    format!("NOT EXISTS (SELECT FROM erasures e WHERE e.user_key = {} AND {})", key("l.user_id"), label_before())
}

/// Whoever writes rows waits for erasures that are under way, and whoever erases for rows.
pub(super) async fn lock(transaction: &Transaction<'_>, erases: bool) -> Result<(), Error> {
    let lock = if erases { "pg_advisory_xact_lock" } else { "pg_advisory_xact_lock_shared" };
    let lock = transaction.prepare_cached(&format!("SELECT {lock}('erasures'::regclass::oid::bigint)")).await?;
    transaction.execute(&lock, &[]).await.map(drop)
}

/// Writes erasures of a partition down, and deletes what there is.
pub(super) async fn write(transaction: &Transaction<'_>, partition: u32, erasures: &[Erasure<'_>]) -> Result<(), Error> {
    if erasures.is_empty() {
        return Ok(());
    }
    let insert = format!(
        "INSERT INTO erasures AS kept (user_key, topic, partition, after, erased_at) VALUES ({}, $2, $3, $4, $5)
         ON CONFLICT (user_key) DO UPDATE SET topic = excluded.topic, partition = excluded.partition, after = excluded.after,
         erased_at = excluded.erased_at WHERE kept.after < excluded.after",
        key("$1::text")
    );
    let mine = key("$1::text");
    let verdicts = format!(
        "DELETE FROM verdicts v USING erasures e WHERE v.user_id = $1 AND e.user_key = {mine} AND {} RETURNING v.id",
        verdict_before()
    );
    let labels = format!(
        "DELETE FROM labels l USING erasures e WHERE e.user_key = {mine} AND (l.verdict_id = ANY($2) OR (l.user_id = $1 AND {}))",
        label_before()
    );
    let (insert, verdicts, labels) = (
        transaction.prepare_cached(&insert).await?,
        transaction.prepare_cached(&verdicts).await?,
        transaction.prepare_cached(&labels).await?,
    );
    for Erasure { user, topic, after, at_ms } in erasures {
        transaction.execute(&insert, &[&&**user, topic, &(partition as i32), &(*after as i64), &postgres_time(*at_ms)]).await?;
        let gone = transaction.query(&verdicts, &[&&**user]).await?;
        let gone: Vec<String> = gone.iter().map(|row| row.get(0)).collect();
        transaction.execute(&labels, &[&&**user, &gone]).await?;
    }
    Ok(())
}

impl Cold {
    /// What is left of a user who was erased before the payment at offset `after`.
    ///
    /// # Errors
    /// No answer, or a refusal of the server.
    pub async fn remains(&self, user: &str, after: u64) -> Result<Remains, Unreachable> {
        let mine = key("$1::text");
        let ask = format!(
            "SELECT EXISTS (SELECT FROM erasures e WHERE e.user_key = {mine} AND e.after >= $2),
             (SELECT count(*) FROM verdicts v, erasures e WHERE v.user_id = $1 AND e.user_key = {mine} AND {})
             + (SELECT count(*) FROM labels l, erasures e WHERE l.user_id = $1 AND e.user_key = {mine} AND {})",
            verdict_before(),
            label_before()
        );
        let client = self.get().await?;
        let row = client.query_one(&ask, &[&&*postgres_text(user), &(after as i64)]).await;
        let row = row.map_err(|why| self.unreachable(&why))?;
        Ok(Remains { known: row.get(0), rows: row.get::<_, i64>(1).unsigned_abs() })
    }
}
