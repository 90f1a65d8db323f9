//! What was said of payments, out of the cold tier: by time, user, merchant, model and severity, the latest first.
//!
//! Every question has bounds in time, so that it looks at few of the table's days; an answer has at most [`LIMIT_MAX`] verdicts, and the
//! last of them is where the next one goes on ([`Place`]). Order: event time, then id, both downwards: the same for every question, so a
//! reader that goes on sees each verdict once, whatever comes meanwhile.

use std::fmt::Write as _;
use std::time::Duration;

use deadpool_postgres::Object;
use jiff::Timestamp;
use models::verdict::{Fx, ReasonRecord, Verdict};
use models::{FEATURES, Severity};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use crate::tiers::{Cold, Unreachable, postgres_text, postgres_time, severity_rank};

/// Verdicts of one answer at most.
pub const LIMIT_MAX: usize = 1_000;
/// The longest wait for an answer: the server ends a statement before, so this is for one that is gone.
const ANSWER_MAX: Duration = Duration::from_secs(6);

/// As the wire has them, in the order of [`verdict`].
const COLUMNS: &str = "id, event_time, tx_id, user_id, merchant, amount, currency, fx::text, score, raw_score, severity, is_anomaly, \
                       explanation, reasons::text, features, model_id";

/// A verdict's place in every answer's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its event time, in milliseconds since the epoch.
    pub event_time_ms: i64,
    /// Its id.
    pub id: String,
}

impl Place {
    /// Where a verdict stands.
    #[must_use]
    pub fn of(verdict: &Verdict) -> Self {
        Self { event_time_ms: verdict.event_time, id: verdict.id.clone() }
    }
}

/// Which verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// From this event time on, in milliseconds since the epoch.
    pub from_ms: i64,
    /// Before this one.
    pub to_ms: i64,
    /// Of this user.
    pub user: Option<String>,
    /// Of payments to this merchant.
    pub merchant: Option<String>,
    /// By this model.
    pub model: Option<String>,
    /// Of one of these severities; empty for any.
    pub severities: Vec<Severity>,
    /// Anomalies only.
    pub anomalies: bool,
    /// Only what comes behind this place.
    pub after: Option<Place>,
}

type Value = Box<dyn ToSql + Sync + Send>;

/// A statement under construction.
struct Statement {
    text: String,
    values: Vec<Value>,
}

impl Statement {
    fn add(&mut self, condition: &str, value: impl ToSql + Sync + Send + 'static) {
        self.values.push(Box::new(value));
        let _ = write!(self.text, " AND {}", condition.replace('?', &format!("${}", self.values.len())));
    }
}

impl Question {
    fn statement(&self, limit: usize) -> Statement {
        let mut statement = Statement { text: format!("SELECT {COLUMNS} FROM verdicts WHERE true"), values: Vec::new() };
        statement.add("event_time >= ?", postgres_time(self.from_ms));
        statement.add("event_time < ?", postgres_time(self.to_ms));
        let texts = [("user_id = ?", &self.user), ("merchant = ?", &self.merchant), ("model_id = ?", &self.model)];
        for (condition, value) in texts {
            if let Some(value) = value {
                statement.add(condition, postgres_text(value).into_owned());
            }
        }
        if !self.severities.is_empty() {
            statement
                .add("severity = ANY(?)", self.severities.iter().map(|severity| severity_rank(*severity)).collect::<Vec<i16>>());
        }
        // Said where it follows from the severities too: the indexes of anomalies are for those that say so.
        if self.anomalies || (!self.severities.is_empty() && !self.severities.contains(&Severity::None)) {
            statement.text.push_str(" AND is_anomaly");
        }
        if let Some(Place { event_time_ms, id }) = &self.after {
            // The first condition follows from the second, and is one that an index takes.
            statement.add("event_time <= ?", postgres_time(*event_time_ms));
            let place = statement.values.len();
            statement.add(&format!("(event_time, id) < (${place}, ?)"), postgres_text(id).into_owned());
        }
        let _ = write!(statement.text, " ORDER BY event_time DESC, id DESC LIMIT {limit}");
        statement
    }
}

/// The first `limit` verdicts of a question.
///
/// # Errors
/// The tier gives no answer.
pub async fn verdicts(cold: &Cold, question: &Question, limit: usize) -> Result<Vec<Verdict>, Unreachable> {
    let Statement { text, values } = question.statement(limit);
    let rows = ask(cold, &text, &values).await?;
    rows.iter().map(verdict).collect::<Result<_, _>>().map_err(|why| cold.unreachable(&why))
}

/// How Postgres comes to the answer of [`verdicts`]: the text of its EXPLAIN.
///
/// # Errors
/// The tier gives no answer.
pub async fn plan(cold: &Cold, question: &Question, limit: usize) -> Result<String, Unreachable> {
    let Statement { text, values } = question.statement(limit);
    let rows = ask(cold, &format!("EXPLAIN {text}"), &values).await?;
    Ok(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n"))
}

/// One verdict; none where the tier has none of this id.
///
/// # Errors
/// The tier gives no answer.
pub async fn one(cold: &Cold, id: &str) -> Result<Option<Verdict>, Unreachable> {
    let id: Value = Box::new(postgres_text(id).into_owned());
    let rows = ask(cold, &format!("SELECT {COLUMNS} FROM verdicts WHERE id = $1 LIMIT 1"), &[id]).await?;
    rows.first().map(verdict).transpose().map_err(|why| cold.unreachable(&why))
}

/// Planned anew each time: which index is best, and which days are looked at, is up to the values.
async fn ask(cold: &Cold, text: &str, values: &[Value]) -> Result<Vec<Row>, Unreachable> {
    let client = cold.get().await?;
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
    let answer = tokio::time::timeout(ANSWER_MAX, client.query(text, &values)).await;
    match answer {
        Ok(rows) => rows.map_err(|why| cold.unreachable(&why)),
        Err(_) => {
            // Who takes this connection next would wait behind this very question.
            drop(Object::take(client));
            let (address, limit) = (cold.address(), ANSWER_MAX.as_millis());
            Err(Unreachable(format!("Postgres at {address} gave no answer within {limit} ms")))
        }
    }
}

fn verdict(row: &Row) -> Result<Verdict, Error> {
    let fx: Option<String> = row.try_get(7)?;
    let reasons: Option<String> = row.try_get(13)?;
    let features: Vec<f32> = row.try_get(14)?;
    let mut all = [0.0; FEATURES];
    for (into, value) in all.iter_mut().zip(features) {
        *into = value;
    }
    Ok(Verdict {
        id: row.try_get(0)?,
        event_time: row.try_get::<_, Timestamp>(1)?.as_millisecond(),
        tx_id: row.try_get(2)?,
        user_id: row.try_get(3)?,
        merchant: row.try_get(4)?,
        amount: row.try_get(5)?,
        currency: row.try_get(6)?,
        fx: fx.and_then(|fx| serde_json::from_str::<Fx>(&fx).ok()),
        score: row.try_get(8)?,
        raw_score: row.try_get(9)?,
        severity: ranked(row.try_get(10)?),
        is_anomaly: row.try_get(11)?,
        explanation: row.try_get(12)?,
        reasons: reasons.and_then(|reasons| serde_json::from_str::<Vec<ReasonRecord>>(&reasons).ok()).unwrap_or_default(),
        features: all,
        model_id: row.try_get(15)?,
    })
}

fn ranked(rank: i16) -> Severity {
    let all = [Severity::None, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    all.into_iter().find(|severity| severity_rank(*severity) == rank).unwrap_or_default()
}
