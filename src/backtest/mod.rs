//! Past payments through the very same topology, on a simulated clock.
//!
//! Each row becomes a record of a simulated `transactions` topic and goes through the product's own task, worker and commit code; what
//! comes out of `verdicts` is judged by the file's labels. Rows before the first one of day `train_to` are scored without a model;
//! there the forest is trained on what the verdicts of the training days logged, and scores from then on.

mod judge;
mod report;
mod rows;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use models::{Model, TrainParams, Verdict};
use topology::driver::{DriverOptions, TestDriver};

use crate::clock::{monotonic, process_cpu, since};
use crate::input::csv::{Mapping, Reader};
use crate::scoring::{ModelSlot, ScoringParams, TopicNames, scoring_topology};
use crate::training::{RowsError, TrainingRows};

pub use judge::Judgement;
pub use report::{Report, Stages};

use rows::DAY_MS;

/// Rows that go through the topology before their verdicts are read.
const CHUNK_ROWS: usize = 20_000;

/// Which model scores.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Train on days `from..to`; rows from the first one of day `to` on are scored.
    Train {
        /// First day of the training window.
        from: u32,
        /// Its end, exclusive.
        to: u32,
        /// How the forest is grown.
        params: TrainParams,
        /// The share taken to be anomalous.
        contamination: f64,
    },
    /// Score everything by this model.
    Score(Arc<Model>),
}

/// A backtest.
#[derive(Clone, Debug)]
pub struct Backtest {
    /// Payments as CSV.
    pub file: PathBuf,
    /// Columns by other names.
    pub mappings: Vec<Mapping>,
    /// Which model scores.
    pub plan: Plan,
    /// First day that is judged.
    pub judge_from: u32,
    /// The end of what is judged, exclusive; none is the end of the file.
    pub judge_to: Option<u32>,
    /// Partitions of the simulated topics.
    pub partitions: u32,
    /// What scoring depends on.
    pub scoring: ScoringParams,
    /// The topics' names: they are part of the verdicts' ids.
    pub names: TopicNames,
}

/// Why a backtest failed.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    /// The file, or the topology.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The training.
    #[error("no model could be trained on days {from} to {to} ({rows} rows): {why}")]
    Train {
        /// First day.
        from: u32,
        /// End, exclusive.
        to: u32,
        /// Rows found there.
        rows: usize,
        /// What does not fit.
        why: models::TrainError,
    },
    /// The output file.
    #[error("the verdicts cannot be written: {0}")]
    Out(#[from] std::io::Error),
}

/// What is remembered of a row until its verdict comes.
#[derive(Clone, Copy, Debug)]
struct Pending {
    day: u32,
    card: u32,
    fraud: Option<bool>,
}

struct Run<'a> {
    backtest: &'a Backtest,
    driver: TestDriver,
    slot: ModelSlot,
    /// By partition: rows piped, in offset order, from `first` on.
    pending: Vec<Vec<Pending>>,
    piped: usize,
    out: Option<BufWriter<std::fs::File>>,
    training: TrainingRows,
    judgement: Judgement,
    report: Report,
    model: Option<Arc<Model>>,
}

impl Backtest {
    /// Runs it. `progress` is told the number of rows scored so far.
    ///
    /// # Errors
    /// [`BacktestError`] names what failed.
    pub fn run(&self, out: Option<&Path>, progress: &dyn Fn(u64)) -> Result<(Report, Option<Arc<Model>>), BacktestError> {
        let began = monotonic();
        let cpu = process_cpu();
        let slot = ModelSlot::default();
        if let Plan::Score(model) = &self.plan {
            slot.set(Some(Arc::clone(model)));
        }
        let topology = scoring_topology("backtest", &self.names, &self.scoring, &slot).map_err(RowsError::from)?;
        let options = DriverOptions { partitions: self.partitions, cache_bytes: 1 << 30, ..DriverOptions::default() };
        let mut run = Run {
            backtest: self,
            driver: TestDriver::new(topology, options),
            slot,
            pending: vec![Vec::new(); self.partitions as usize],
            piped: 0,
            out: out.map(std::fs::File::create).transpose()?.map(BufWriter::new),
            training: TrainingRows::default(),
            judgement: Judgement::default(),
            report: Report::default(),
            model: None,
        };
        run.rows(progress)?;
        if let Some(out) = &mut run.out {
            out.flush()?;
        }
        let judging = monotonic();
        run.judgement.finish(&mut run.report);
        run.report.stages.judge += since(judging);
        run.report.finish(since(began), process_cpu().saturating_sub(cpu));
        let model = run.model.or_else(|| run.slot.get());
        run.report.model_id = model.as_ref().map(|model| model.id.clone());
        Ok((run.report, model))
    }
}

impl Run<'_> {
    fn rows(&mut self, progress: &dyn Fn(u64)) -> Result<(), BacktestError> {
        let mut reader = Reader::open(&self.backtest.file, &self.backtest.mappings).map_err(RowsError::from)?;
        let train_to = match self.backtest.plan {
            Plan::Train { to, .. } => Some(to),
            Plan::Score(_) => None,
        };
        let mut midnight = None;
        let mut cards = rows::Numbers::default();
        let mut json = Vec::new();
        let mut read = monotonic();
        while let Some(row) = reader.next_row().map_err(RowsError::from)? {
            let midnight = *midnight.get_or_insert_with(|| row.timestamp_ms.div_euclid(DAY_MS) * DAY_MS);
            // Rows before the first one's midnight count as its day.
            let day = u32::try_from((row.timestamp_ms - midnight).div_euclid(DAY_MS).max(0)).unwrap_or(u32::MAX);
            if self.model.is_none() && train_to.is_some_and(|to| day >= to) {
                self.report.stages.read += since(read);
                self.score()?;
                self.train()?;
                read = monotonic();
            }
            json.clear();
            row.write_json(&mut json);
            let key = row.user_id.as_bytes();
            let partition = topology::partitioner::partition_of(key, self.backtest.partitions);
            let pending = Pending { day, card: cards.of(row.user_id), fraud: row.fraud };
            let timestamp_ms = row.timestamp_ms;
            self.pending[partition as usize].push(pending);
            self.driver.pipe_to(&self.backtest.names.transactions, partition, Some(key), Some(&json), timestamp_ms);
            self.piped += 1;
            if self.piped == CHUNK_ROWS {
                self.report.stages.read += since(read);
                self.score()?;
                progress(self.report.rows);
                read = monotonic();
            }
        }
        self.report.stages.read += since(read);
        self.score()?;
        match self.backtest.plan {
            // Nothing lies behind the training days: the model is trained all the same.
            Plan::Train { .. } if self.model.is_none() => self.train(),
            _ => Ok(()),
        }
    }

    /// Runs what was piped and reads its verdicts.
    fn score(&mut self) -> Result<(), BacktestError> {
        if self.piped == 0 {
            return Ok(());
        }
        let scoring = monotonic();
        self.driver.run().map_err(RowsError::from)?;
        self.report.stages.score += since(scoring);
        let judging = monotonic();
        self.report.rows += self.piped as u64;
        self.piped = 0;
        let names = &self.backtest.names;
        let verdicts = self.driver.take(&names.verdicts);
        self.report.dead_letters += self.driver.take(&names.dead_letters).len() as u64;
        for topic in [&names.anomalies, &names.transactions] {
            self.driver.take(topic);
        }
        for record in &verdicts {
            let bytes = record.value.as_deref().unwrap_or_default();
            self.report.verdict_bytes += bytes.len() as u64;
            if let Some(out) = &mut self.out {
                out.write_all(bytes)?;
                out.write_all(b"\n")?;
            }
            let verdict: Verdict = serde_json::from_slice(bytes).map_err(RowsError::from)?;
            let pending = self.judgement.row_of(&verdict, &self.pending);
            self.judge(&verdict, pending);
        }
        self.judgement.advance(&mut self.pending);
        self.report.verdicts += verdicts.len() as u64;
        self.report.stages.judge += since(judging);
        Ok(())
    }

    fn judge(&mut self, verdict: &Verdict, row: Pending) {
        if let Plan::Train { from, to, .. } = self.backtest.plan
            && (from..to).contains(&row.day)
            && self.model.is_none()
        {
            self.training.push(verdict);
        }
        let judged = row.day >= self.backtest.judge_from && self.backtest.judge_to.is_none_or(|to| row.day < to);
        if judged && let Some(score) = verdict.score {
            self.judgement.push(row.day, row.card, score, verdict.severity, row.fraud);
        }
    }

    fn train(&mut self) -> Result<(), BacktestError> {
        let Plan::Train { from, to, params, contamination } = self.backtest.plan else { return Ok(()) };
        let training = monotonic();
        let fixed = self.backtest.scoring.global_amount_p99;
        let model = self.training.train(params, contamination, fixed, &|| {});
        let model = model.map_err(|why| BacktestError::Train { from, to, rows: self.training.len(), why })?;
        let model = Arc::new(model);
        self.slot.set(Some(Arc::clone(&model)));
        self.model = Some(model);
        self.report.trained_rows = Some(self.training.len() as u64);
        self.report.stages.train += since(training);
        Ok(())
    }
}
