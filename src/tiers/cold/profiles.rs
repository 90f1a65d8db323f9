//! Profiles in Postgres: the Tier port.

use std::borrow::Cow;
use std::collections::HashMap;

use deadpool_postgres::{Object, Transaction};
use jiff::Timestamp;
use state::tier::{Applied, Batch, Guard, Held, Lookup, Progress, Tier, Unreachable};
use tokio_postgres::Error;

use super::Cold;

/// A text as Postgres keeps it: it knows no NUL, which the symbol for NUL (U+2400) stands for. Whoever looks for a user, a merchant or
/// an id passes it through this too.
#[must_use]
pub fn postgres_text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{2400}")) } else { Cow::Borrowed(text) }
}

const READ: &str =
    "SELECT user_id, generation, changelog_offset, partition, updated_at, value FROM profiles WHERE user_id = ANY($1)";

/// The newer row wins; written as arrays, so that the statement is the same for any number of rows.
const WRITE: &str = "
    INSERT INTO profiles AS kept (user_id, partition, generation, changelog_offset, updated_at, value, profile)
    SELECT user_id, $1, $2, changelog_offset, updated_at, value, nullif(profile, '')::json
    FROM unnest($3::text[], $4::bigint[], $5::timestamptz[], $6::bytea[], $7::text[])
        AS new (user_id, changelog_offset, updated_at, value, profile)
    ON CONFLICT (user_id) DO UPDATE SET
        partition = excluded.partition, generation = excluded.generation, changelog_offset = excluded.changelog_offset,
        updated_at = excluded.updated_at, value = excluded.value, profile = excluded.profile
    WHERE (kept.generation, kept.changelog_offset) < (excluded.generation, excluded.changelog_offset)";

const PROGRESS: &str = "
    SELECT p.generation, p.next_offset FROM unnest($1::text[], $2::integer[]) WITH ORDINALITY AS wanted (topic, partition, place)
    LEFT JOIN projection p USING (topic, partition) ORDER BY wanted.place";

const ADVANCE: &str = "
    INSERT INTO projection (topic, partition, generation, next_offset) VALUES ($1, $2, $3, $4)
    ON CONFLICT (topic, partition) DO UPDATE SET
        generation = excluded.generation, next_offset = excluded.next_offset, updated_at = now()";

/// Milliseconds since the epoch as a time that Postgres takes: what lies outside of the years 1 to 9999 becomes the first or last moment
/// of them (but for the last hours, which no calendar of ours has).
#[must_use]
pub fn postgres_time(ms: i64) -> Timestamp {
    const FIRST: i64 = -62_135_596_800_000;
    const LAST: i64 = 253_402_207_200_000;
    Timestamp::from_millisecond(ms.clamp(FIRST, LAST)).expect("invariant: these years are in any calendar")
}

/// Where a partition stands, its row locked until the transaction's end: of two projectors of one partition one waits for the other.
pub(super) async fn stored(transaction: &Transaction<'_>, topic: &str, partition: u32) -> Result<Option<Progress>, Error> {
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, $2))";
    let lock = transaction.prepare_cached(lock).await?;
    transaction.execute(&lock, &[&topic, &i64::from(partition)]).await?;
    let select = "SELECT generation, next_offset FROM projection WHERE topic = $1 AND partition = $2";
    let select = transaction.prepare_cached(select).await?;
    let row = transaction.query_opt(&select, &[&topic, &(partition as i32)]).await?;
    Ok(row.map(|row| Progress { generation: unsigned(row.get(0)), next: unsigned(row.get(1)) }))
}

/// Writes where a partition stands.
pub(super) async fn advance(transaction: &Transaction<'_>, topic: &str, partition: u32, progress: Progress) -> Result<(), Error> {
    let statement = transaction.prepare_cached(ADVANCE).await?;
    let Progress { generation, next } = progress;
    transaction.execute(&statement, &[&topic, &(partition as i32), &(generation as i64), &(next as i64)]).await.map(drop)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Writes a batch that the tier may take.
pub(super) async fn write(transaction: &Transaction<'_>, batch: &Batch<'_>) -> Result<(), Error> {
    if batch.changes.is_empty() {
        return Ok(());
    }
    // In the order of users, so that two writers lock rows in the same order.
    let mut changes: Vec<_> = batch.changes.iter().map(|change| (postgres_text(change.user), change)).collect();
    changes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    // Two ids may differ in a NUL only: the later one counts.
    changes.dedup_by(|later, kept| {
        later.0 == kept.0 && {
            if later.1.offset > kept.1.offset {
                std::mem::swap(later, kept);
            }
            true
        }
    });
    let users: Vec<&str> = changes.iter().map(|(user, _)| user.as_ref()).collect();
    let offsets: Vec<i64> = changes.iter().map(|(_, change)| change.offset as i64).collect();
    let times: Vec<Timestamp> = changes.iter().map(|(_, change)| postgres_time(change.at_ms)).collect();
    let values: Vec<Option<&[u8]>> = changes.iter().map(|(_, change)| change.value).collect();
    let jsons: Vec<&str> = changes.iter().map(|(_, change)| change.json).collect();
    let statement = transaction.prepare_cached(WRITE).await?;
    let (partition, generation) = (batch.partition as i32, batch.generation as i64);
    transaction.execute(&statement, &[&partition, &generation, &users, &offsets, &times, &values, &jsons]).await.map(drop)
}

impl Cold {
    async fn try_read(&self, client: &Object, users: &[Cow<'_, str>]) -> Result<HashMap<String, Lookup>, Error> {
        let statement = client.prepare_cached(READ).await?;
        let wanted: Vec<&str> = users.iter().map(AsRef::as_ref).collect();
        let rows = client.query(&statement, &[&wanted]).await?;
        let lookup = |row: &tokio_postgres::Row| {
            let guard = Guard { generation: unsigned(row.get(1)), offset: unsigned(row.get(2)) };
            let at_ms = row.get::<_, Timestamp>(4).as_millisecond();
            let held = |value| Lookup::Found(Held { guard, partition: row.get::<_, i32>(3) as u32, at_ms, value });
            (row.get(0), row.get::<_, Option<Vec<u8>>>(5).map_or(Lookup::Deleted(guard), held))
        };
        Ok(rows.iter().map(lookup).collect())
    }

    async fn try_write(&self, client: &mut Object, batches: &[Batch<'_>]) -> Result<Vec<Applied>, Error> {
        let transaction = client.transaction().await?;
        let mut applied = Vec::with_capacity(batches.len());
        for batch in batches {
            let stored = stored(&transaction, batch.topic, batch.partition).await?;
            let verdict = batch.verdict(stored);
            if verdict == Applied::Taken {
                write(&transaction, batch).await?;
                advance(&transaction, batch.topic, batch.partition, batch.progress_after(stored)).await?;
            }
            applied.push(verdict);
        }
        transaction.commit().await?;
        Ok(applied)
    }

    async fn try_progress(&self, client: &Object, of: &[(&str, u32)]) -> Result<Vec<Option<Progress>>, Error> {
        let statement = client.prepare_cached(PROGRESS).await?;
        let topics: Vec<&str> = of.iter().map(|(topic, _)| *topic).collect();
        let partitions: Vec<i32> = of.iter().map(|(_, partition)| *partition as i32).collect();
        let rows = client.query(&statement, &[&topics, &partitions]).await?;
        let progress = |row: &tokio_postgres::Row| {
            Some(Progress { generation: unsigned(row.get::<_, Option<i64>>(0)?), next: unsigned(row.get::<_, Option<i64>>(1)?) })
        };
        Ok(rows.iter().map(progress).collect())
    }
}

impl Tier for Cold {
    async fn read(&self, users: &[&str]) -> Result<Vec<Lookup>, Unreachable> {
        let client = self.get().await?;
        let users: Vec<Cow<'_, str>> = users.iter().map(|user| postgres_text(user)).collect();
        let found = self.try_read(&client, &users).await.map_err(|why| self.unreachable(&why))?;
        Ok(users.iter().map(|user| found.get(user.as_ref()).cloned().unwrap_or(Lookup::NotFound)).collect())
    }

    async fn write(&self, batches: &[Batch<'_>]) -> Result<Vec<Applied>, Unreachable> {
        let mut client = self.get().await?;
        self.try_write(&mut client, batches).await.map_err(|why| self.unreachable(&why))
    }

    async fn progress(&self, of: &[(&str, u32)]) -> Result<Vec<Option<Progress>>, Unreachable> {
        let client = self.get().await?;
        self.try_progress(&client, of).await.map_err(|why| self.unreachable(&why))
    }
}
