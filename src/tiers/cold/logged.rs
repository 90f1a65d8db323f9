//! What verdicts logged and what people found out, for training: fetched some thousand rows at a time and day by day, so that nothing is collected on the way, and
//! no day's partition and no snapshot is held for long.

use std::ops::ControlFlow;

use deadpool_postgres::Object;
use jiff::Timestamp;
use models::FEATURES;
use serde::Deserialize;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::super::Unreachable;
use super::Cold;
use super::days::{DAY_MS, day_of};
use super::profiles::postgres_time;
use crate::labels::{Finding, Label};

/// Rows of one fetch: some two megabytes.
const CHUNK: i32 = 10_000;

/// A payment as it was scored.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedRow<'r> {
    /// The verdict's id.
    pub id: &'r str,
    /// Who paid.
    pub user_id: &'r str,
    /// The sender's id of the payment.
    pub tx_id: &'r str,
    /// Event time, in milliseconds since the epoch.
    pub event_time: i64,
    /// The amount that was scored: after conversion, where there was one.
    pub amount: f64,
    /// What the forest got.
    pub features: [f32; FEATURES],
}

/// What is needed of a conversion. Read from its text, so that it is the very number that the topic's readers get.
#[derive(Deserialize)]
struct Converted {
    amount: f64,
}

const ROWS: &str = "
    SELECT id, user_id, tx_id, event_time, amount, fx::text, features FROM verdicts WHERE event_time >= $1 AND event_time < $2";

impl<'r> LoggedRow<'r> {
    /// None where it is no row of the projection's.
    fn of(row: &'r Row) -> Result<Option<Self>, Error> {
        let features = <[f32; FEATURES]>::try_from(row.try_get::<_, Vec<f32>>(6)?);
        let converted = row.try_get::<_, Option<&str>>(5)?.map(serde_json::from_str::<Converted>).transpose();
        let (Ok(features), Ok(converted)) = (features, converted) else { return Ok(None) };
        let amount = converted.map_or(row.try_get(4)?, |converted| converted.amount);
        let event_time = row.try_get::<_, Timestamp>(3)?.as_millisecond();
        Ok(Some(Self { id: row.try_get(0)?, user_id: row.try_get(1)?, tx_id: row.try_get(2)?, event_time, amount, features }))
    }
}

impl Cold {
    /// The last event time before `to_ms`; none where there is none.
    ///
    /// # Errors
    /// No answer.
    pub async fn last_logged(&self, to_ms: i64) -> Result<Option<i64>, Unreachable> {
        self.edge("SELECT max(event_time) FROM verdicts WHERE event_time < $1", &[&postgres_time(to_ms)]).await
    }

    async fn edge(&self, statement: &str, bounds: &[&(dyn ToSql + Sync)]) -> Result<Option<i64>, Unreachable> {
        let client = self.get().await?;
        let row = client.query_one(statement, bounds).await.map_err(|why| self.unreachable(&why))?;
        Ok(row.get::<_, Option<Timestamp>>(0).map(Timestamp::as_millisecond))
    }

    /// Tells the payments of event times from the first, inclusive, to the second, exclusive, in no order, until told to stop.
    ///
    /// # Errors
    /// No answer; some were told then.
    pub async fn logged(
        &self,
        from_ms: i64,
        to_ms: i64,
        tell: &mut dyn FnMut(&LoggedRow<'_>) -> ControlFlow<()>,
    ) -> Result<(), Unreachable> {
        let first = "SELECT min(event_time) FROM verdicts WHERE event_time >= $1 AND event_time < $2";
        let mut from_ms = from_ms;
        // From one day that has any to the next.
        while let Some(first_ms) = self.edge(first, &[&postgres_time(from_ms), &postgres_time(to_ms)]).await? {
            from_ms = ((day_of(first_ms) + 1) * DAY_MS).min(to_ms);
            let mut client = self.get().await?;
            let mut each = |row: &Row| Ok(LoggedRow::of(row)?.map_or(ControlFlow::Continue(()), |row| tell(&row)));
            let told = fetch(&mut client, ROWS, &[&postgres_time(first_ms), &postgres_time(from_ms)], &mut each).await;
            if told.map_err(|why| self.unreachable(&why))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Tells every label, with the offset that its record had in its partition.
    ///
    /// # Errors
    /// No answer; some were told then.
    pub async fn labelled(&self, tell: &mut dyn FnMut(&Label, u64)) -> Result<(), Unreachable> {
        let mut client = self.get().await?;
        let mut each = |row: &Row| {
            if let Some((label, offset)) = label(row)? {
                tell(&label, offset);
            }
            Ok(ControlFlow::Continue(()))
        };
        fetch(&mut client, LABELS, &[], &mut each).await.map(drop).map_err(|why| self.unreachable(&why))
    }
}

const LABELS: &str = "SELECT id, verdict_id, user_id, tx_id, label, labelled_by, labelled_at, reason FROM labels";

/// None where it is no row of the projection's.
fn label(row: &Row) -> Result<Option<(Label, u64)>, Error> {
    let offset = row.try_get::<_, &str>(0)?.rsplit(':').next().and_then(|offset| offset.parse().ok());
    let label = if row.try_get::<_, &str>(4)? == Finding::Fraud.as_str() { Finding::Fraud } else { Finding::Legitimate };
    let at = row.try_get::<_, Timestamp>(6)?.as_millisecond();
    let (verdict_id, user_id, tx_id) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let (by, reason) = (row.try_get(5)?, row.try_get(7)?);
    Ok(offset.map(|offset| (Label { verdict_id, user_id, tx_id, label, by, reason, at }, offset)))
}

/// Tells a statement's rows, some at a time.
async fn fetch(
    client: &mut Object,
    statement: &str,
    values: &[&(dyn ToSql + Sync)],
    tell: &mut dyn FnMut(&Row) -> Result<ControlFlow<()>, Error>,
) -> Result<ControlFlow<()>, Error> {
    let transaction = client.build_transaction().read_only(true).start().await?;
    let portal = transaction.bind(&transaction.prepare_cached(statement).await?, values).await?;
    loop {
        let rows = transaction.query_portal(&portal, CHUNK).await?;
        if rows.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        for row in &rows {
            if tell(row)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}
