//! `mangrove train`: a model from the verdicts topic, from a file, or from made-up payments.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ArgGroup;

use super::{Failure, ForestParameters, Output, progress};
use crate::backtest::BacktestError;
use crate::config::{BrokerKind, Settings};
use crate::input::csv::Mapping;
use crate::instance::{Blueprint, save_model, scoring_params};
use crate::service;
use crate::training::{self, TrainingRows};

const EXAMPLES: &str = "\
Examples:
  mangrove train --from verdicts                         from the features logged with past verdicts
  mangrove train --from payments.csv.gz --map when=timestamp --map shop=merchant
  mangrove train --synthetic 200000 --trees 300 --samples 1024 --out big.forest";

/// Where training rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrainingSource {
    /// The features in the verdicts topic.
    Verdicts,
    /// A file of payments, CSV, possibly compressed by gzip.
    File(PathBuf),
}

impl FromStr for TrainingSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "verdicts" => Self::Verdicts,
            path => Self::File(PathBuf::from(path)),
        })
    }
}

/// What to train from, how, and where to put it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("rows").required(true))]
pub struct Args {
    /// `verdicts`, or a CSV file, possibly compressed by gzip
    #[arg(long, value_name = "verdicts|FILE", group = "rows")]
    pub from: Option<TrainingSource>,

    /// Make up this many payments and train from them
    #[arg(long, value_name = "N", group = "rows", value_parser = clap::value_parser!(u64).range(256..))]
    pub synthetic: Option<u64>,

    /// What a column of the file holds; may be given several times
    #[arg(long, value_name = "COLUMN=FIELD", requires = "from")]
    pub map: Vec<Mapping>,

    /// How the forest is grown.
    #[command(flatten)]
    pub forest: ForestParameters,

    /// The model's file [default: MODEL_PATH]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl Args {
    pub(super) fn validate(&self) -> Result<(), Failure> {
        if !self.map.is_empty() && self.from == Some(TrainingSource::Verdicts) {
            return Err(Failure::usage("--map is for a file; verdicts have known fields"));
        }
        Ok(())
    }
}

/// Fewer rows say too little of what is normal.
const ROWS_MIN: usize = 256;

/// Trains and writes a model.
///
/// # Errors
/// When there are too few rows, or the rows cannot be read, or the model cannot be written.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let rows = rows(&args, &settings)?;
    if rows.len() < ROWS_MIN {
        let what = format!("{} payments are too few to train on: at least {ROWS_MIN} are needed", rows.len());
        return Err(Failure::new(what));
    }
    let params = args.forest.params();
    let bar = progress::steps("growing trees", params.trees as u64);
    let model = rows.train(params, settings.contamination, None, &|| bar.inc(1));
    bar.finish_and_clear();
    let model = model.map_err(|why| Failure::new("the model cannot be trained").caused_by(why))?;
    let path = args.out.as_ref().unwrap_or(&settings.model_path);
    save_model(path, &model)?;
    Output::stdout().line(&format!(
        "model {} of {} trees, trained on {} payments, written to {}",
        model.id,
        params.trees,
        rows.len(),
        path.display()
    ))
}

fn rows(args: &Args, settings: &Settings) -> Result<TrainingRows, Failure> {
    let params = scoring_params(settings, None)?;
    let bar = progress::rows("reading payments");
    let told = |rows| bar.set_position(rows);
    let failed = |why: BacktestError| Failure::new("the payments cannot be read").caused_by(why);
    let rows = match (&args.from, args.synthetic) {
        (Some(TrainingSource::File(path)), _) => training::from_file(path, &args.map, &params, &told).map_err(failed)?,
        (None, Some(count)) => training::synthetic(count, &params, &told).map_err(failed)?,
        (Some(TrainingSource::Verdicts) | None, _) => {
            let blueprint = Blueprint::new(settings)?;
            let topics = blueprint.topics();
            let verdicts = topics.find(&settings.verdicts_topic).expect("invariant: the topology writes verdicts");
            let read = match settings.broker {
                BrokerKind::Kafka => training::from_verdicts(&*service::kafka(settings, &blueprint)?, verdicts, 1, &|| false),
                BrokerKind::Embedded => {
                    training::from_verdicts(&*service::embedded(settings, &blueprint)?, verdicts, 1, &|| false)
                }
            };
            read.map_err(|why| Failure::new("the verdicts cannot be read").caused_by(why))?
        }
    };
    bar.finish_and_clear();
    Ok(rows)
}
