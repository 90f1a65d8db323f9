//! Where training rows come from: what verdicts logged, or payments that go through the topology first.

use std::path::Path;
use std::time::Duration;

use models::Verdict;
use topology::broker::{Broker, BrokerError, Reader as _};
use topology::driver::{DriverOptions, TestDriver};
use topology::record::{Fetched, TopicId, TopicPartition};

use super::TrainingRows;
use crate::backtest::{BacktestError, write_payment};
use crate::generator::{Generator, GeneratorParams};
use crate::input::csv::{Mapping, Reader};
use crate::scoring::{ModelSlot, ScoringParams, TopicNames, scoring_topology};

/// Payments that go through the topology before their verdicts are read.
const CHUNK: usize = 20_000;
/// Polls without a record after which a partition's end is taken to be an open transaction's.
const QUIET_POLLS: u32 = 5;

/// Every verdict that is committed in the topic; `stopped` ends it early.
///
/// # Errors
/// The broker's.
pub fn from_verdicts<B: Broker>(
    broker: &B,
    verdicts: TopicId,
    least: u64,
    stopped: &dyn Fn() -> bool,
) -> Result<TrainingRows, BrokerError> {
    let mut rows = TrainingRows::default();
    let infos = broker.describe(&[verdicts])?;
    let Some(Some(info)) = infos.first() else { return Ok(rows) };
    let mut reader = broker.reader()?;
    let mut ends = Vec::new();
    let mut logged = 0;
    for partition in 0..info.partitions {
        let at = TopicPartition { topic: verdicts, partition };
        let bounds = reader.bounds(at)?;
        logged += bounds.end - bounds.start;
        if bounds.start < bounds.end {
            reader.assign(at, bounds.start)?;
            ends.push((at, bounds.end));
        }
    }
    if logged < least {
        return Ok(rows);
    }
    let mut fetched = Fetched::default();
    let mut quiet = 0;
    // An open transaction at a partition's end is not waited for: what is committed is enough.
    while !stopped() && quiet < QUIET_POLLS && ends.iter().any(|&(at, end)| reader.position(at).unwrap_or(0) < end) {
        fetched.clear(0);
        reader.poll(&mut fetched, CHUNK, Duration::from_millis(500))?;
        quiet = if fetched.is_empty() { quiet + 1 } else { 0 };
        for record in fetched.iter() {
            if let Ok(verdict) = serde_json::from_slice::<Verdict>(record.value.unwrap_or_default()) {
                rows.push(&verdict);
            }
        }
    }
    Ok(rows)
}

/// A topology without a model, fed by hand: what it logs is trained on.
struct Features {
    driver: TestDriver,
    names: TopicNames,
    rows: TrainingRows,
    piped: usize,
}

impl Features {
    fn new(params: &ScoringParams) -> Result<Self, BacktestError> {
        let names = TopicNames::default();
        let topology = scoring_topology("training", &names, params, &ModelSlot::default())?;
        let options = DriverOptions { partitions: 1, cache_bytes: 1 << 30, ..DriverOptions::default() };
        Ok(Self { driver: TestDriver::new(topology, options), names, rows: TrainingRows::default(), piped: 0 })
    }

    fn pipe(&mut self, key: &str, json: &[u8], timestamp_ms: i64) -> Result<(), BacktestError> {
        self.driver.pipe(&self.names.transactions, Some(key.as_bytes()), Some(json), timestamp_ms);
        self.piped += 1;
        if self.piped == CHUNK { self.log() } else { Ok(()) }
    }

    fn log(&mut self) -> Result<(), BacktestError> {
        self.driver.run()?;
        for record in self.driver.take(&self.names.verdicts) {
            self.rows.push(&serde_json::from_slice(record.value.as_deref().unwrap_or_default())?);
        }
        for topic in [&self.names.anomalies, &self.names.transactions, &self.names.dead_letters] {
            self.driver.take(topic);
        }
        self.piped = 0;
        Ok(())
    }
}

/// All payments of a file.
///
/// # Errors
/// What is wrong with the file.
pub fn from_file(
    path: &Path,
    mappings: &[Mapping],
    params: &ScoringParams,
    progress: &dyn Fn(u64),
) -> Result<TrainingRows, BacktestError> {
    let mut features = Features::new(params)?;
    let mut reader = Reader::open(path, mappings)?;
    let mut json = Vec::new();
    while let Some(row) = reader.next_row()? {
        json.clear();
        write_payment(&row, &mut json);
        features.pipe(row.user_id, &json, row.timestamp_ms)?;
        progress(features.rows.len() as u64);
    }
    features.log()?;
    Ok(features.rows)
}

/// So many made-up payments; the first half only teaches what is normal.
///
/// # Errors
/// Where the topology stops: it never does on generated payments.
pub fn synthetic(count: u64, params: &ScoringParams, progress: &dyn Fn(u64)) -> Result<TrainingRows, BacktestError> {
    let mut features = Features::new(params)?;
    let generator = Generator::new(&GeneratorParams::default()).expect("invariant: the defaults are within their bounds");
    let mut json = Vec::new();
    for payment in generator.take(usize::try_from(count).unwrap_or(usize::MAX)) {
        json.clear();
        payment.write_json(&mut json);
        features.pipe(&payment.user_id, &json, payment.timestamp_ms)?;
        progress(features.rows.len() as u64);
    }
    features.log()?;
    features.rows.keep_last(features.rows.len() / 2);
    Ok(features.rows)
}
