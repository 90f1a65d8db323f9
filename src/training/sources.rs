//! Where training rows come from: what verdicts logged, or payments that go through the topology first.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use models::Verdict;
use schemars::JsonSchema;
use serde::Serialize;
use topology::broker::{Broker, BrokerError, Reaction, Reader as _};
use topology::driver::{DriverOptions, TestDriver};
use topology::record::{Record, TopicId, TopicPartition};
use topology::topology::Topology;

use super::TrainingRows;
use super::erased::Erased;
use super::rows::Known as Finding;
use crate::broker::{partitions, scan};
use crate::generator::{Generator, GeneratorParams};
use crate::input::csv::{InputError, Mapping, Reader};
use crate::labels::Known;
use crate::scoring::{ModelSlot, ScoringParams, TopicNames, scoring_topology};

/// Payments that go through the topology before their verdicts are read.
const CHUNK: usize = 20_000;
/// Most rows of one training: some 1.2 GB.
pub const ROWS_MAX: usize = 20_000_000;

/// Rows between two looks at which of them are old: what a window that moves on leaves behind must not fill memory.
const TRIM_ROWS: usize = 1_000_000;
pub(super) const DAY_MS: i64 = 86_400_000;

/// Why payments gave no rows to train on.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The file.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The topology.
    #[error("the topology stopped: {0}")]
    Halt(#[from] topology::worker::Halt),
    /// Names of topics that collide.
    #[error(transparent)]
    Topology(#[from] topology::topology::InvalidTopology),
    /// A verdict that is none: a fault of ours.
    #[error("a verdict cannot be read back: {0}")]
    Verdict(#[from] serde_json::Error),
}

/// Which rows, by event time in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// All there are.
    All,
    /// From the first, inclusive, to the second, exclusive.
    Between {
        /// The first.
        from_ms: i64,
        /// The end.
        to_ms: i64,
    },
    /// So many days up to the last row.
    LastDays(u32),
}

impl Span {
    fn holds(self, at_ms: i64) -> bool {
        match self {
            Self::Between { from_ms, to_ms } => (from_ms..to_ms).contains(&at_ms),
            Self::All | Self::LastDays(_) => true,
        }
    }

    /// Drops what a moving window has left behind, in all parts by the same end.
    pub(super) fn trim(self, parts: &mut [TrainingRows]) {
        let Self::LastDays(days) = self else { return };
        let Some(last) = parts.iter().filter_map(TrainingRows::latest_ms).max() else { return };
        let from_ms = last.saturating_sub(i64::from(days) * DAY_MS);
        parts.iter_mut().for_each(|part| part.keep_since(from_ms));
    }
}

/// The topics that training reads.
#[derive(Clone, Copy, Debug)]
pub struct Logs {
    /// What was said of each payment.
    pub verdicts: TopicId,
    /// Who was erased, and when.
    pub decisions: TopicId,
    /// The payments' topic, as verdicts' ids name it.
    pub lead: TopicId,
    /// What people found out.
    pub labels: TopicId,
}

impl Logs {
    /// The topics of the scoring topology, by the names of its verdicts and labels.
    ///
    /// # Panics
    /// Where it is another topology.
    #[must_use]
    pub fn of(topology: &Topology, verdicts: &str, labels: &str) -> Self {
        let sub = topology.subs().last().expect("invariant: a topology has a sub-topology");
        Self {
            verdicts: topology.topics().find(verdicts).expect("invariant: the topology writes verdicts"),
            decisions: sub.decisions.expect("invariant: scoring writes decisions"),
            lead: sub.lead(),
            labels: topology.topics().find(labels).expect("invariant: the topology has the labels topic"),
        }
    }
}

/// Which payments were met. At least once, verdicts are written again after a failure; each writer of a partition begins where something
/// was committed, so of each partition of payments everything up to some offset was met.
#[derive(Default)]
struct Met(HashMap<u32, HashMap<String, u64>>);

impl Met {
    /// True where the id's place was passed before: a verdict that was written again, or one of a topic that was made anew.
    fn again(&mut self, partition: u32, id: &str) -> bool {
        let Some((place, offset)) = id.rsplit_once(':') else { return false };
        let Ok(offset) = offset.parse::<u64>() else { return false };
        let met = self.0.entry(partition).or_default();
        match met.get_mut(place) {
            Some(next) if offset < *next => return true,
            Some(next) => *next = offset.saturating_add(1),
            None => drop(met.insert(place.to_owned(), offset.saturating_add(1))),
        }
        false
    }
}

/// Where there are more rows than one training may have.
pub(super) fn too_many() -> String {
    format!("more than {ROWS_MAX} verdicts are in the window: train on a shorter one")
}

/// The verdicts of a span that are committed in the topic, each once, without those of users who were erased since; none where the topic
/// holds fewer than `least` at all. Their order is that of [`super::from_postgres`], too. Rows are labelled where `labels` knows of them.
/// `stopped` ends it early.
///
/// # Errors
/// The broker's; more than [`ROWS_MAX`] verdicts.
pub fn from_verdicts<B: Broker>(
    broker: &B,
    Logs { verdicts, decisions, lead, labels }: Logs,
    span: Span,
    least: u64,
    progress: &dyn Fn(u64),
    stopped: &dyn Fn() -> bool,
) -> Result<TrainingRows, BrokerError> {
    let labels = Known::read(broker, labels, stopped)?;
    let erased = Erased::read(broker, decisions, stopped)?;
    let lead = broker.topics().name(lead);
    let mut met = Met::default();
    // Those that may be there twice apart: they are few.
    let parts: RefCell<[TrainingRows; 2]> = RefCell::default();
    let tell = &mut |record: &Record<'_>| {
        let verdict = serde_json::from_slice::<Verdict>(record.value.unwrap_or_default());
        let counts = |verdict: &Verdict| span.holds(verdict.event_time) && !erased.covers(lead, &verdict.user_id, &verdict.id);
        let Some(verdict) = verdict.ok().filter(counts) else { return };
        let known = labels.of(&verdict.id, &verdict.user_id, &verdict.tx_id);
        let again = met.again(record.from.partition, &verdict.id);
        let known = known.map(|fraud| Finding::new(fraud, &verdict.user_id));
        parts.borrow_mut()[usize::from(again)].push_known(&verdict, known);
    };
    let mut trim_at = TRIM_ROWS;
    let polled = &mut || {
        let mut parts = parts.borrow_mut();
        let mut count: usize = parts.iter().map(TrainingRows::len).sum();
        if count >= trim_at {
            span.trim(&mut *parts);
            count = parts.iter().map(TrainingRows::len).sum();
            trim_at = count + TRIM_ROWS;
        }
        progress(count as u64);
        if count > ROWS_MAX { Err(BrokerError::new(Reaction::Stop, too_many())) } else { Ok(()) }
    };
    scan(broker, verdicts, least, tell, polled, stopped)?;
    let mut parts = parts.into_inner();
    span.trim(&mut parts);
    let [mut rows, again] = parts;
    rows.arrange();
    rows.add_missing(&again);
    Ok(rows)
}

/// How many records the topic holds, control records included. `kept` is the reader of the last call: a client of a broker costs threads
/// and connections, too much for every look.
///
/// # Errors
/// The broker's; the reader is made anew then.
pub fn logged<B: Broker>(broker: &B, verdicts: TopicId, kept: &mut Option<B::Reader>) -> Result<u64, BrokerError> {
    let partitions = partitions(broker, verdicts)?.unwrap_or(0);
    let mut reader = match kept.take() {
        Some(reader) => reader,
        None => broker.reader()?,
    };
    let count = (0..partitions).try_fold(0, |sum, partition| {
        let bounds = reader.bounds(TopicPartition { topic: verdicts, partition })?;
        Ok(sum + bounds.end - bounds.start)
    })?;
    *kept = Some(reader);
    Ok(count)
}

/// A topology without a model, fed by hand: what it logs is trained on.
struct Features {
    driver: TestDriver,
    names: TopicNames,
    rows: TrainingRows,
    piped: usize,
    /// By offset, from `first` on: what is known of each payment.
    labels: Vec<Option<bool>>,
    first: u64,
}

impl Features {
    fn new(params: &ScoringParams) -> Result<Self, RowsError> {
        let names = TopicNames::default();
        let topology = scoring_topology("training", &names, params, &ModelSlot::default())?;
        let options = DriverOptions { partitions: 1, cache_bytes: 1 << 30, ..DriverOptions::default() };
        let (driver, rows) = (TestDriver::new(topology, options), TrainingRows::default());
        Ok(Self { driver, names, rows, piped: 0, labels: Vec::new(), first: 0 })
    }

    fn pipe(&mut self, key: &str, json: &[u8], timestamp_ms: i64, fraud: Option<bool>) -> Result<(), RowsError> {
        self.driver.pipe(&self.names.transactions, Some(key.as_bytes()), Some(json), timestamp_ms);
        self.labels.push(fraud);
        self.piped += 1;
        if self.piped == CHUNK { self.log() } else { Ok(()) }
    }

    fn log(&mut self) -> Result<(), RowsError> {
        self.driver.run()?;
        for record in self.driver.take(&self.names.verdicts) {
            let verdict: Verdict = serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
            // `topic:partition:offset`.
            let offset = verdict.id.rsplit(':').next().and_then(|offset| offset.parse::<u64>().ok());
            let label = offset.and_then(|offset| self.labels.get(usize::try_from(offset.checked_sub(self.first)?).ok()?));
            let known = label.copied().flatten().map(|fraud| Finding::new(fraud, &verdict.user_id));
            self.rows.push_known(&verdict, known);
        }
        self.first += self.labels.len() as u64;
        self.labels.clear();
        for topic in [&self.names.anomalies, &self.names.transactions, &self.names.dead_letters] {
            self.driver.take(topic);
        }
        self.piped = 0;
        Ok(())
    }
}

/// The payments of a span out of a file; those before it teach what is normal.
///
/// # Errors
/// What is wrong with the file.
pub fn from_file(
    path: &Path,
    mappings: &[Mapping],
    params: &ScoringParams,
    span: Span,
    progress: &dyn Fn(u64),
) -> Result<TrainingRows, RowsError> {
    let mut features = Features::new(params)?;
    let mut reader = Reader::open(path, mappings)?;
    let mut json = Vec::new();
    while let Some(row) = reader.next_row()? {
        json.clear();
        row.write_json(&mut json);
        features.pipe(row.user_id, &json, row.timestamp_ms, row.fraud)?;
        progress(features.rows.len() as u64);
    }
    features.log()?;
    let mut rows = features.rows;
    if let Span::Between { from_ms, to_ms } = span {
        rows.keep_between(from_ms, to_ms);
    }
    span.trim(std::slice::from_mut(&mut rows));
    Ok(rows)
}

/// So many made-up payments; the first half only teaches what is normal.
///
/// # Errors
/// Where the topology stops: it never does on generated payments.
pub fn synthetic(count: u64, params: &ScoringParams, progress: &dyn Fn(u64)) -> Result<TrainingRows, RowsError> {
    let mut features = Features::new(params)?;
    let generator = Generator::new(&GeneratorParams::default()).expect("invariant: the defaults are within their bounds");
    let mut json = Vec::new();
    for payment in generator.take(usize::try_from(count).unwrap_or(usize::MAX)) {
        json.clear();
        payment.write_json(&mut json);
        features.pipe(&payment.user_id, &json, payment.timestamp_ms, None)?;
        progress(features.rows.len() as u64);
    }
    features.log()?;
    features.rows.keep_last(features.rows.len() / 2);
    Ok(features.rows)
}
