//! Rows out of Postgres: what the topic's retention has dropped is still there, and of a window only its own days are read.

use std::ops::ControlFlow;

use state::tier::Tier as _;
use topology::broker::{Broker, BrokerError, Reader as _};
use topology::record::{TopicId, TopicPartition};

use super::TrainingRows;
use super::erased::Erased;
use super::rows::Known as Finding;
use super::sources::{DAY_MS, Logs, ROWS_MAX, Span, too_many};
use crate::broker::partitions;
use crate::labels::Known;
use crate::tiers::{Cold, ColdOptions, LoggedRow, ServerUrl, Unreachable, WRITE_TIMEOUT};

/// Rows between two reports of progress.
const TELL_ROWS: usize = 10_000;
/// What Postgres may lack of the topic, as a part of what it holds.
const LACK: u64 = 100;
/// Ends of transactions count as records of the topic: so many a partition say nothing.
const MARKERS: u64 = 2;

/// Why there are no rows.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// There is none.
    #[error("no DATABASE_URL is set")]
    NotSet,
    /// Erasures and labels are in topics.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// It does not answer.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// More than [`ROWS_MAX`].
    #[error("{}", too_many())]
    TooMany,
    /// No runtime to read with.
    #[error("the system refuses what reading needs: {0}")]
    System(#[from] std::io::Error),
}

/// What was read.
#[derive(Clone, Debug)]
pub struct FromPostgres {
    /// The rows.
    pub rows: TrainingRows,
    /// Verdicts in the topic that Postgres had not taken in when the reading began.
    pub lacks: u64,
}

impl FromPostgres {
    /// True where Postgres is as good as the topic: it lacks at most a hundredth.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lacks <= self.rows.len() as u64 / LACK
    }
}

/// The verdicts of a span that Postgres holds, without those of users who were erased since, labelled by what it and the topic know. The
/// same rows in the same order as [`super::from_verdicts`] gives, where both hold the same. `stopped` ends it early.
///
/// # Errors
/// [`PostgresError`].
pub fn from_postgres<B: Broker>(
    broker: &B,
    Logs { verdicts, decisions, lead, labels }: Logs,
    (url, application): (&ServerUrl, &str),
    span: Span,
    progress: &dyn Fn(u64),
    stopped: &dyn Fn() -> bool,
) -> Result<FromPostgres, PostgresError> {
    // Of its own: connections live on the runtime that made them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let options = ColdOptions { connections: 1, statement_timeout: WRITE_TIMEOUT, ..ColdOptions::default() };
    let cold = Cold::open(url, application, &options)?;
    let known = Known::read(broker, labels, stopped)?;
    let erased = Erased::read(broker, decisions, stopped)?;
    let lead = broker.topics().name(lead);
    let mut reading = Reading { cold, known, erased, lead, rows: TrainingRows::default(), progress, stopped };
    runtime.block_on(async {
        let lacks = lacking(broker, verdicts, &reading.cold).await?;
        reading.cold.labelled(&mut |label, offset| reading.known.take(label, offset)).await?;
        reading.span(span).await?;
        reading.rows.arrange();
        Ok(FromPostgres { rows: reading.rows, lacks })
    })
}

/// How many records of the topic Postgres has not taken in.
async fn lacking<B: Broker>(broker: &B, verdicts: TopicId, cold: &Cold) -> Result<u64, PostgresError> {
    let partitions = partitions(broker, verdicts)?.unwrap_or(0);
    let mut reader = broker.reader()?;
    let bounds = (0..partitions).map(|partition| reader.bounds(TopicPartition { topic: verdicts, partition }));
    let bounds = bounds.collect::<Result<Vec<_>, _>>()?;
    let name = broker.topics().name(verdicts);
    let of: Vec<(&str, u32)> = (0..partitions).map(|partition| (name, partition)).collect();
    let stored = cold.progress(&of).await?;
    let lacks = bounds.iter().zip(stored).map(|(bounds, stored)| {
        let from = stored.map_or(0, |progress| progress.next).max(bounds.start);
        bounds.end.saturating_sub(from).saturating_sub(MARKERS)
    });
    Ok(lacks.sum())
}

struct Reading<'a> {
    cold: Cold,
    known: Known,
    erased: Erased,
    lead: &'a str,
    rows: TrainingRows,
    progress: &'a dyn Fn(u64),
    stopped: &'a dyn Fn() -> bool,
}

impl Reading<'_> {
    async fn span(&mut self, span: Span) -> Result<(), PostgresError> {
        let days = match span {
            Span::All => return self.between(i64::MIN, i64::MAX).await,
            Span::Between { from_ms, to_ms } => return self.between(from_ms, to_ms).await,
            Span::LastDays(days) => days,
        };
        // The days end with the last row that counts: where all the latest are of erased users, more is read below them.
        let mut to_ms = i64::MAX;
        while let Some(last_ms) = self.cold.last_logged(to_ms).await?.filter(|_| !(self.stopped)()) {
            let last_ms = self.rows.latest_ms().unwrap_or(last_ms);
            let from_ms = last_ms.saturating_sub(i64::from(days) * DAY_MS);
            if from_ms >= to_ms {
                break;
            }
            self.between(from_ms, to_ms).await?;
            to_ms = from_ms;
        }
        span.trim(std::slice::from_mut(&mut self.rows));
        Ok(())
    }

    async fn between(&mut self, from_ms: i64, to_ms: i64) -> Result<(), PostgresError> {
        let Self { cold, known, erased, lead, rows, progress, stopped } = self;
        let tell = &mut |row: &LoggedRow<'_>| {
            if erased.covers(lead, row.user_id, row.id) {
                return ControlFlow::Continue(());
            }
            let known = known.of(row.id, row.user_id, row.tx_id).map(|fraud| Finding::new(fraud, row.user_id));
            rows.push_row(&row.features, row.amount, row.event_time, known);
            if rows.len().is_multiple_of(TELL_ROWS) {
                progress(rows.len() as u64);
            }
            if stopped() || rows.len() > ROWS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        cold.logged(from_ms, to_ms, tell).await?;
        progress(rows.len() as u64);
        if rows.len() > ROWS_MAX { Err(PostgresError::TooMany) } else { Ok(()) }
    }
}
