//! `mangrove backtest`: past payments through the very same topology, on a simulated clock.

use std::path::PathBuf;
use std::sync::Arc;

use clap::ArgGroup;

use super::{Failure, ForestParameters, Output};
use crate::backtest::{Backtest, Plan};
use crate::config::Settings;
use crate::input::csv::Mapping;

const EXAMPLES: &str = "\
Examples:
  mangrove backtest payments.csv.gz --train-from 193 --train-to 200 --judge-from 200
  mangrove backtest payments.csv --map when=timestamp --map shop=merchant --model current.forest --judge-from 0
  mangrove backtest payments.csv.gz --train-from 0 --train-to 30 --judge-from 30 --out verdicts.ndjson --json

The file has a header. Fields: timestamp (RFC 3339, or whole milliseconds since 1970), user_id, merchant, amount, and
optionally currency, tx_id and fraud (0 or 1, used to judge only). The columns ts_s (seconds since 1970) and merchant_id
are known without --map. DAY counts days since midnight UTC before the first row; from is inclusive, to is exclusive.";

/// Which file, which model, which days.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("which_model").required(true))]
pub struct Args {
    /// Payments as CSV, possibly compressed by gzip
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// What a column holds; may be given several times
    #[arg(long, value_name = "COLUMN=FIELD")]
    pub map: Vec<Mapping>,

    /// Train on the rows from this day on; rows before --train-to are scored without a model
    #[arg(long, value_name = "DAY", group = "which_model", requires = "train_to")]
    pub train_from: Option<u32>,

    /// Train on the rows before this day
    #[arg(long, value_name = "DAY", requires = "train_from")]
    pub train_to: Option<u32>,

    /// Keep the model that was trained
    #[arg(long, value_name = "FILE", requires = "train_from")]
    pub model_out: Option<PathBuf>,

    /// Score all rows by this model instead of training one
    #[arg(long, value_name = "FILE", group = "which_model", conflicts_with_all = ["train_to", "model_out"])]
    pub model: Option<PathBuf>,

    /// Judge the verdicts from this day on
    #[arg(long, value_name = "DAY")]
    pub judge_from: u32,

    /// Judge the verdicts before this day [default: to the end]
    #[arg(long, value_name = "DAY")]
    pub judge_to: Option<u32>,

    /// How the forest is grown.
    #[command(flatten)]
    pub forest: ForestParameters,

    /// How many partitions the simulated topics have
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: u32,

    /// The amount above which global_amount_flag is 1, from the first row on, with or without a model
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub global_amount_p99: Option<f64>,

    /// Write every verdict, one JSON object a line, as on the wire
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Print one JSON object instead of a report
    #[arg(long)]
    pub json: bool,
}

impl Args {
    pub(super) fn validate(&self) -> Result<(), Failure> {
        let backwards = |from: Option<u32>, to: Option<u32>| from.zip(to).is_some_and(|(from, to)| from >= to);
        if backwards(self.train_from, self.train_to) {
            return Err(Failure::usage("--train-to must be a later day than --train-from"));
        }
        if backwards(Some(self.judge_from), self.judge_to) {
            return Err(Failure::usage("--judge-to must be a later day than --judge-from"));
        }
        if let Some(train_to) = self.train_to.filter(|train_to| self.judge_from < *train_to) {
            let what = "--judge-from lies before --train-to, where rows are scored without a model";
            return Err(Failure::usage(what).hint(format!("judge from day {train_to} on")));
        }
        Ok(())
    }
}

fn amount(text: &str) -> Result<f64, String> {
    let amount = text.parse::<f64>().ok().filter(|amount| amount.is_finite() && *amount >= 0.0);
    amount.ok_or_else(|| "expected an amount, 0 or more".to_owned())
}

/// Runs the file through the topology and prints the report.
///
/// # Errors
/// When the file or the model cannot be read, or there is nothing to train on or to judge.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let scoring = crate::instance::scoring_params(&settings, args.global_amount_p99)?;
    let plan = match (&args.model, args.train_from.zip(args.train_to)) {
        (Some(path), _) => Plan::Score(Arc::new(crate::instance::load_model(path)?)),
        (None, Some((from, to))) => Plan::Train { from, to, params: args.forest.params(), contamination: settings.contamination },
        (None, None) => return Err(Failure::usage("either --model or --train-from and --train-to must be given")),
    };
    let backtest = Backtest {
        file: args.file,
        mappings: args.map,
        plan,
        judge_from: args.judge_from,
        judge_to: args.judge_to,
        partitions: args.partitions,
        scoring,
        names: crate::instance::topic_names(&settings),
    };
    let bar = super::progress::rows("scoring");
    let (report, model) = backtest
        .run(args.out.as_deref(), &|rows| bar.set_position(rows))
        .map_err(|error| Failure::new("the backtest failed").caused_by(error))?;
    bar.finish_and_clear();
    if let (Some(path), Some(model)) = (&args.model_out, model) {
        crate::instance::save_model(path, &model)?;
    }
    let mut output = Output::stdout();
    if args.json { output.json(&report) } else { output.line(&report.to_string()) }
}
