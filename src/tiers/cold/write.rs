//! What the projection writes: rows of any kind and the progress of their topics, in one transaction.
//!
//! Verdicts go by COPY into a table of the session, from there with one statement into `verdicts`, ids that are there already left
//! alone: the same path for one and for a million. The transaction's end waits for no disk (`synchronous_commit` off): what a crash of
//! Postgres loses is rows and progress together, and the projection writes them again.

use std::collections::BTreeSet;
use std::pin::pin;

use deadpool_postgres::{Object, Transaction};
use serde_json::value::RawValue;
use state::tier::{Applied, Batch, Progress, Unreachable};
use tokio_postgres::Error;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;

use super::super::TOMBSTONES_KEPT;
use super::Cold;
use super::days::{self, Day, Window, day_of};
use super::documents::{self, AuditRow, ModelRow, NotificationRow};
use super::erasures::{self, Erasure};
use super::profiles::{self, postgres_text, postgres_time};
use super::rows::{LabelRow, VerdictRow, severity_rank};

/// Records of one topic's partition, on their way in.
#[derive(Debug)]
pub struct Part<'a> {
    /// From where to where, and the profiles where it is a changelog's.
    pub batch: Batch<'a>,
    /// Verdicts.
    pub verdicts: Vec<VerdictRow<'a>>,
    /// Labels.
    pub labels: Vec<LabelRow>,
    /// Users who were erased.
    pub erasures: Vec<Erasure<'a>>,
    /// Models.
    pub models: Vec<ModelRow>,
    /// Notifications.
    pub notifications: Vec<NotificationRow>,
    /// The trail.
    pub audit: Vec<AuditRow>,
}

impl<'a> Part<'a> {
    /// Without any rows.
    #[must_use]
    pub fn new(batch: Batch<'a>) -> Self {
        let (verdicts, labels, erasures) = (Vec::new(), Vec::new(), Vec::new());
        Self { batch, verdicts, labels, erasures, models: Vec::new(), notifications: Vec::new(), audit: Vec::new() }
    }
}

/// What came of some parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By part.
    pub applied: Vec<Applied>,
    /// Verdicts left out because they are older than the history that is kept.
    pub expired: u64,
}

/// The one who writes. Holds what it knows of the table's days.
#[derive(Debug)]
pub struct Writer {
    cold: Cold,
    history_days: u32,
    /// None until asked, and after any failure.
    days: Option<BTreeSet<Day>>,
}

impl Writer {
    /// Keeps so many days of verdicts.
    #[must_use]
    pub fn new(cold: Cold, history_days: u32) -> Self {
        Self { cold, history_days, days: None }
    }

    /// The tier it writes to.
    #[must_use]
    pub fn cold(&self) -> &Cold {
        &self.cold
    }

    /// Writes each part as a whole, or nothing of it; without an answer all or none may be written.
    ///
    /// # Errors
    /// No answer, or a refusal of the server.
    pub async fn apply(&mut self, parts: &[Part<'_>], now_ms: i64) -> Result<Outcome, Unreachable> {
        let mut client = self.cold.get().await?;
        let outcome = self.try_apply(&mut client, parts, day_of(now_ms)).await;
        outcome.map_err(|why| {
            // What it refused may be a day that another process dropped.
            self.days = None;
            self.cold.unreachable(&why)
        })
    }

    async fn try_apply(&mut self, client: &mut Object, parts: &[Part<'_>], today: Day) -> Result<Outcome, Error> {
        let mut known = match self.days.take() {
            Some(days) => days,
            None => days::existing(client).await?,
        };
        let wanted: BTreeSet<Day> =
            parts.iter().flat_map(|part| &part.verdicts).map(|verdict| day_of(verdict.event_time)).collect();
        let window = Window::new(known.union(&wanted).copied(), today, self.history_days);
        let transaction = client.transaction().await?;
        transaction.batch_execute("SET LOCAL synchronous_commit = off").await?;
        for &day in wanted.iter().filter(|&&day| window.holds(day) && !known.contains(&day)) {
            days::make(&transaction, day).await?;
        }
        let mut outcome = Outcome::default();
        let taken = self.take(&transaction, parts, &mut outcome).await?;
        let kept: Vec<&VerdictRow<'_>> = taken
            .iter()
            .flat_map(|(part, _)| &part.verdicts)
            .filter(|verdict| window.holds(day_of(verdict.event_time)))
            .collect();
        outcome.expired = taken.iter().map(|(part, _)| part.verdicts.len() as u64).sum::<u64>() - kept.len() as u64;
        // Before any row is touched, so that nobody waits for one while holding it.
        let erases = taken.iter().any(|(part, _)| !part.erasures.is_empty());
        if erases || !kept.is_empty() || taken.iter().any(|(part, _)| !part.labels.is_empty()) {
            erasures::lock(&transaction, erases).await?;
        }
        for (part, _) in &taken {
            erasures::write(&transaction, part.batch.partition, &part.erasures).await?;
        }
        insert_verdicts(&transaction, &kept).await?;
        for (part, progress) in &taken {
            profiles::write(&transaction, &part.batch).await?;
            insert_labels(&transaction, &part.labels).await?;
            documents::write_models(&transaction, part.batch.generation, &part.models).await?;
            documents::write_notifications(&transaction, part.batch.generation, &part.notifications).await?;
            documents::write_audit(&transaction, &part.audit).await?;
            profiles::advance(&transaction, part.batch.topic, part.batch.partition, *progress).await?;
        }
        transaction.commit().await?;
        known.extend(wanted.iter().filter(|&&day| window.holds(day)));
        let old: Vec<Day> = known.iter().copied().filter(|&day| day < window.first).collect();
        for day in old {
            // Readers may hold it for longer than we wait: then with the next batch.
            if days::remove(client, day).await.is_ok() {
                known.remove(&day);
            }
        }
        self.days = Some(known);
        Ok(outcome)
    }

    /// Which parts continue where the tier stands.
    async fn take<'p, 'a>(
        &self,
        transaction: &Transaction<'_>,
        parts: &'p [Part<'a>],
        outcome: &mut Outcome,
    ) -> Result<Vec<(&'p Part<'a>, Progress)>, Error> {
        let mut taken = Vec::with_capacity(parts.len());
        for part in parts {
            let stored = profiles::stored(transaction, part.batch.topic, part.batch.partition).await?;
            let verdict = part.batch.verdict(stored);
            if verdict == Applied::Taken {
                taken.push((part, part.batch.progress_after(stored)));
            }
            outcome.applied.push(verdict);
        }
        Ok(taken)
    }

    /// Drops days that are too old, and guards of profiles that were deleted long ago. To be called now and then.
    ///
    /// # Errors
    /// No answer, or a refusal of the server.
    pub async fn tidy(&mut self, now_ms: i64) -> Result<(), Unreachable> {
        let mut client = self.cold.get().await?;
        let tidied = self.try_tidy(&mut client, now_ms).await;
        tidied.map_err(|why| self.cold.unreachable(&why))
    }

    async fn try_tidy(&mut self, client: &mut Object, now_ms: i64) -> Result<(), Error> {
        self.days = None;
        let known = days::existing(client).await?;
        let window = Window::new(known.iter().copied(), day_of(now_ms), self.history_days);
        for &day in known.iter().filter(|&&day| day < window.first) {
            days::remove(client, day).await?;
        }
        let until = postgres_time(now_ms - TOMBSTONES_KEPT.as_millis() as i64);
        client.execute("DELETE FROM profiles WHERE value IS NULL AND updated_at < $1", &[&until]).await.map(drop)
    }
}

const COLUMNS: [(&str, Type); 16] = [
    ("id", Type::TEXT),
    ("event_time", Type::TIMESTAMPTZ),
    ("tx_id", Type::TEXT),
    ("user_id", Type::TEXT),
    ("merchant", Type::TEXT),
    ("amount", Type::FLOAT8),
    ("currency", Type::TEXT),
    ("fx", Type::TEXT),
    ("score", Type::FLOAT8),
    ("raw_score", Type::FLOAT8),
    ("severity", Type::INT2),
    ("is_anomaly", Type::BOOL),
    ("explanation", Type::TEXT),
    ("reasons", Type::TEXT),
    ("features", Type::FLOAT4_ARRAY),
    ("model_id", Type::TEXT),
];

async fn insert_verdicts(transaction: &Transaction<'_>, rows: &[&VerdictRow<'_>]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let columns = COLUMNS.map(|(name, _)| name).join(", ");
    let stage = "CREATE TEMPORARY TABLE IF NOT EXISTS verdicts_in (id text, event_time timestamptz, tx_id text, user_id text,
        merchant text, amount float8, currency text, fx text, score float8, raw_score float8, severity int2, is_anomaly bool,
        explanation text, reasons text, features float4[], model_id text) ON COMMIT DELETE ROWS";
    transaction.batch_execute(stage).await?;
    let sink = transaction.copy_in(&format!("COPY verdicts_in ({columns}) FROM STDIN BINARY")).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &COLUMNS.map(|(_, kind)| kind)));
    for row in rows {
        let reasons = Some(row.reasons.get()).filter(|text| *text != "[]");
        let features: &[f32] = &row.features;
        writer
            .as_mut()
            .write(&[
                &postgres_text(&row.id),
                &postgres_time(row.event_time),
                &postgres_text(&row.tx_id),
                &postgres_text(&row.user_id),
                &postgres_text(&row.merchant),
                &row.amount,
                &row.currency.as_deref().map(postgres_text),
                &row.fx.map(RawValue::get),
                &row.score,
                &row.raw_score,
                &severity_rank(row.severity),
                &row.is_anomaly,
                &postgres_text(&row.explanation),
                &reasons,
                &features,
                &row.model_id.as_deref().map(postgres_text),
            ])
            .await?;
    }
    writer.finish().await?;
    // What is none of an erased user's past, each id once.
    let insert =
        transaction.prepare_cached(&format!("{INSERT} WHERE {} ON CONFLICT DO NOTHING", erasures::takes_verdict())).await?;
    transaction.execute(&insert, &[]).await.map(drop)
}

const INSERT: &str = "
    INSERT INTO verdicts (id, event_time, tx_id, user_id, merchant, amount, currency, fx, score, raw_score, severity, is_anomaly,
        explanation, reasons, features, model_id)
    SELECT id, event_time, tx_id, user_id, merchant, amount, currency, fx::json, score, raw_score, severity, is_anomaly,
        explanation, reasons::json, features, model_id
    FROM verdicts_in v";

async fn insert_labels(transaction: &Transaction<'_>, rows: &[LabelRow]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let insert = format!(
        "INSERT INTO labels (id, verdict_id, user_id, tx_id, label, labelled_by, reason, labelled_at, written_at)
         SELECT * FROM (VALUES ($1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, $8::timestamptz, $9::timestamptz))
             AS l (id, verdict_id, user_id, tx_id, label, labelled_by, reason, labelled_at, written_at)
         WHERE {} ON CONFLICT DO NOTHING",
        erasures::takes_label()
    );
    let statement = transaction.prepare_cached(&insert).await?;
    for LabelRow { id, label, written_ms } in rows {
        let text = |text: &Option<String>| text.as_deref().map(|text| postgres_text(text).into_owned());
        let (verdict, user, tx) = (text(&label.verdict_id), text(&label.user_id), text(&label.tx_id));
        let (by, reason) = (text(&label.by), text(&label.reason));
        let (finding, at, written) = (label.label.as_str(), postgres_time(label.at), postgres_time(*written_ms));
        transaction.execute(&statement, &[id, &verdict, &user, &tx, &finding, &by, &reason, &at, &written]).await?;
    }
    Ok(())
}
