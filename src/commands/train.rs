//! `mangrove train`: a model from the verdicts topic, from Postgres, from a file, or from made-up payments.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ArgGroup;
use topology::broker::Broker;
use tracing::warn;

use super::{Failure, ForestParameters, Output, progress};
use crate::config::{BrokerKind, Settings};
use crate::input::csv::Mapping;
use crate::instance::{Blueprint, save_model, scoring_params};
use crate::service;
use crate::training::{self, Candidate, Logs, Recipe, RowsError, Span, TrainingRows};

const EXAMPLES: &str = "\
Examples:
  mangrove train --from verdicts                         from the features logged with past verdicts
  mangrove train --from postgres --last-days 30          from the same, as Postgres keeps them (DATABASE_URL)
  mangrove train --from payments.csv.gz --map when=timestamp --map shop=merchant
  mangrove train --synthetic 200000 --trees 300 --samples 1024 --out big.forest
  mangrove train --from verdicts --promote               into the registry; live where every check passes";

/// Where training rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrainingSource {
    /// The features in the verdicts topic.
    Verdicts,
    /// The same features in Postgres.
    Postgres,
    /// A file of payments, CSV, possibly compressed by gzip.
    File(PathBuf),
}

impl FromStr for TrainingSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "verdicts" => Self::Verdicts,
            "postgres" => Self::Postgres,
            path => Self::File(PathBuf::from(path)),
        })
    }
}

/// What to train from, how, and where to put it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("rows").required(true))]
pub struct Args {
    /// `verdicts`, `postgres`, or a CSV file, possibly compressed by gzip
    #[arg(long, value_name = "verdicts|postgres|FILE", group = "rows")]
    pub from: Option<TrainingSource>,

    /// Make up this many payments and train from them
    #[arg(long, value_name = "N", group = "rows", value_parser = clap::value_parser!(u64).range(256..))]
    pub synthetic: Option<u64>,

    /// Train on so many days up to the last row; those before teach what is normal
    #[arg(long, value_name = "DAYS", requires = "from", value_parser = clap::value_parser!(u32).range(1..))]
    pub last_days: Option<u32>,

    /// What a column of the file holds; may be given several times
    #[arg(long, value_name = "COLUMN=FIELD", requires = "from")]
    pub map: Vec<Mapping>,

    /// How the forest is grown.
    #[command(flatten)]
    pub forest: ForestParameters,

    /// The model's file [default: MODEL_PATH]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Validate on the last days and put the model into the registry instead of a file
    #[arg(long, conflicts_with = "out")]
    pub register: bool,

    /// As --register, and make it the active model where every check passes
    #[arg(long, conflicts_with = "out")]
    pub promote: bool,
}

impl Args {
    pub(super) fn validate(&self) -> Result<(), Failure> {
        if !self.map.is_empty() && !matches!(self.from, Some(TrainingSource::File(_))) {
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
    if args.register || args.promote {
        return register(&args, &settings, rows);
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

/// Trains on all but the last days, judges on these, registers.
fn register(args: &Args, settings: &Settings, rows: TrainingRows) -> Result<(), Failure> {
    let registry = super::models::open(settings)?;
    let active = registry.view().active().map(|active| registry.load(&active.model));
    let active = active.transpose().map_err(|why| Failure::new("the active model cannot be compared with").caused_by(why))?;
    let params = args.forest.params();
    let recipe = Recipe { params, contamination: settings.contamination, threshold: settings.anomaly_threshold, fixed_p99: None };
    let bar = progress::steps("growing trees", params.trees as u64);
    let candidate = training::candidate(rows, &recipe, active.as_ref(), &|| bar.inc(1));
    bar.finish_and_clear();
    let Candidate { model, report } = candidate.map_err(|why| Failure::new("the model cannot be trained").caused_by(why))?;
    let source = match args.from {
        Some(TrainingSource::File(_)) => "csv",
        Some(TrainingSource::Postgres) => "postgres",
        Some(TrainingSource::Verdicts) | None => "verdicts",
    };
    let failed = |why| super::models::failed(&why);
    let parent = active.as_ref().map(|active| active.id.as_str());
    registry.register(&model, source, parent, Some(report.clone())).map_err(failed)?;
    let mut output = Output::stdout();
    output.line(&super::models::report_table(&report))?;
    let refused: Vec<&str> = report.failed().collect();
    let goes_live = args.promote && refused.is_empty();
    if goes_live {
        registry.promote(&model.id, "trained").map_err(failed)?;
    }
    let then = if goes_live { "is active" } else { "is registered" };
    output.line(&format!("model {} {then}", model.id))?;
    if args.promote && !refused.is_empty() {
        let what = format!("the model is not promoted; failed: {}", refused.join(", "));
        return Err(Failure::new(what).hint("`mangrove models promote ID` does it all the same"));
    }
    Ok(())
}

fn rows(args: &Args, settings: &Settings) -> Result<TrainingRows, Failure> {
    let params = scoring_params(settings, None)?;
    let span = args.last_days.map_or(Span::All, Span::LastDays);
    let bar = progress::rows("reading payments");
    let told = |rows| bar.set_position(rows);
    let failed = |why: RowsError| Failure::new("the payments cannot be read").caused_by(why);
    let rows = match (&args.from, args.synthetic) {
        (Some(TrainingSource::File(path)), _) => training::from_file(path, &args.map, &params, span, &told).map_err(failed)?,
        (None, Some(count)) => training::synthetic(count, &params, &told).map_err(failed)?,
        (Some(TrainingSource::Verdicts | TrainingSource::Postgres) | None, _) => {
            let blueprint = Blueprint::new(settings)?;
            match settings.broker {
                BrokerKind::Kafka => logged(args, settings, &blueprint, &*service::kafka(settings, &blueprint)?, span, &told)?,
                BrokerKind::Embedded => {
                    logged(args, settings, &blueprint, &*service::embedded(settings, &blueprint)?, span, &told)?
                }
            }
        }
    };
    bar.finish_and_clear();
    Ok(rows)
}

/// What verdicts logged, from the topic or from Postgres.
fn logged<B: Broker>(
    args: &Args,
    settings: &Settings,
    blueprint: &Blueprint,
    broker: &B,
    span: Span,
    told: &dyn Fn(u64),
) -> Result<TrainingRows, Failure> {
    let logs = Logs::of(&blueprint.topology, &settings.verdicts_topic, &settings.labels_topic);
    if args.from != Some(TrainingSource::Postgres) {
        let read = training::from_verdicts(broker, logs, span, 1, told, &|| false);
        return read.map_err(|why| Failure::new("the verdicts cannot be read").caused_by(why));
    }
    let url = settings.database_url.as_ref().ok_or_else(|| Failure::usage("--from postgres needs DATABASE_URL"))?;
    let cold = (url, blueprint.topology.application());
    let read = training::from_postgres(broker, logs, cold, span, told, &|| false);
    let read = read.map_err(|why| Failure::new("the verdicts in Postgres cannot be read").caused_by(why))?;
    if !read.is_complete() {
        warn!(lacks = read.lacks, "Postgres lacks verdicts of the topic: the model is trained without them");
    }
    Ok(read.rows)
}
