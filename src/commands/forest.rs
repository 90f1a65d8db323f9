//! `mangrove forest`: the forest alone, on labelled sets and against the clock.

use std::path::PathBuf;

use models::TrainParams;

use super::{Failure, ForestParameters, Output, progress};
use crate::clock::{monotonic, process_cpu, since};
use crate::config::Settings;
use crate::forest::bench::{Times, measure};
use crate::forest::eval::{Evaluation, evaluate};
use crate::input::csv::Mapping;
use crate::training::Span;
use crate::{forest, training};

const DAY_MS: i64 = 86_400_000;

const EXAMPLES: &str = "\
Examples:
  mangrove forest eval 38_thyroid.npz
  mangrove forest eval 38_thyroid.npz --trees 300 --samples 1024 --seeds 5 --json
  mangrove forest stability payments.csv.gz --train-from 193 --train-to 200
  mangrove forest bench --rows 1000000 --trees 300 --samples 1024";

/// What to do with a forest.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What to do with a forest.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Train on all rows of a labelled set, rank all rows, and compare with the labels
    Eval(Eval),
    /// Grow forests from several seeds and compare what they rank highest
    Stability(Stability),
    /// Time training, scoring, explaining and loading on this machine
    Bench(Bench),
}

/// Which set, which forests.
#[derive(Debug, clap::Args)]
pub struct Eval {
    /// numpy's archive with X (rows x columns) and y (0 or 1 for each row)
    #[arg(value_name = "FILE.npz")]
    pub file: PathBuf,

    /// How many trees
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub trees: u32,

    /// How many rows each tree is grown from
    #[arg(long, value_name = "ROWS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    pub samples: u32,

    /// How many forests, with the seeds 1 to this
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub seeds: u64,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Which payments, which forests.
#[derive(Debug, clap::Args)]
pub struct Stability {
    /// Payments as CSV, possibly compressed by gzip
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// What a column holds; may be given several times
    #[arg(long, value_name = "COLUMN=FIELD")]
    pub map: Vec<Mapping>,

    /// Train on the rows from this day on; days count from midnight UTC before the first row
    #[arg(long, value_name = "DAY")]
    pub train_from: u32,

    /// Train on the rows before this day, rank the rows from this day on
    #[arg(long, value_name = "DAY")]
    pub train_to: u32,

    /// How many trees
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub trees: u32,

    /// How many rows each tree is grown from
    #[arg(long, value_name = "ROWS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    pub samples: u32,

    /// How many forests, with the seeds 1 to this; five make ten pairs
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=100))]
    pub seeds: u64,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What to measure with.
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// How many made-up payments to train on
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(256..=20_000_000))]
    pub rows: u64,

    /// How the forest is grown.
    #[command(flatten)]
    pub forest: ForestParameters,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Judges or measures.
///
/// # Errors
/// When the set cannot be read or the forest cannot be grown.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    match &args.what {
        What::Eval(args) => eval(args),
        What::Stability(args) => stability(args, settings),
        What::Bench(args) => bench(args, settings),
    }
}

fn eval(args: &Eval) -> Result<(), Failure> {
    let name = args.file.display();
    let set = forest::read(&args.file).map_err(|why| Failure::new(format!("{name}: {why}")))?;
    let bar = progress::steps("growing trees", args.seeds * u64::from(args.trees));
    let evaluation = evaluate(&set, args.trees as usize, args.samples as usize, args.seeds, &|| bar.inc(1));
    bar.finish_and_clear();
    let evaluation = evaluation.map_err(|why| Failure::new(format!("{name}: {why}")))?;
    let mut output = Output::stdout();
    if args.json { output.json(&evaluation) } else { output.line(&describe(&evaluation)) }
}

fn describe(of: &Evaluation) -> String {
    format!(
        "{} rows x {} columns, {} anomalies; {} trees x {} rows, {} seeds\nauroc              {:.4} +- {:.4}\naverage_precision  {:.4} +- {:.4}",
        of.rows,
        of.columns,
        of.anomalies,
        of.trees,
        of.samples,
        of.runs.len(),
        of.auroc,
        of.auroc_sd,
        of.average_precision,
        of.average_precision_sd
    )
}

fn stability(args: &Stability, settings: &Settings) -> Result<(), Failure> {
    let scoring = crate::instance::scoring_params(settings, None)?;
    let bar = progress::rows("reading payments");
    let rows = training::from_file(&args.file, &args.map, &scoring, Span::All, &|rows| bar.set_position(rows));
    bar.finish_and_clear();
    let rows = rows.map_err(|why| Failure::new("the payments cannot be read").caused_by(why))?;
    let midnight = rows.window().from_ms.div_euclid(DAY_MS) * DAY_MS;
    let day = |day: u32| midnight + i64::from(day) * DAY_MS;
    let (trained, judged) = (rows.between(day(args.train_from), day(args.train_to)), rows.between(day(args.train_to), i64::MAX));
    drop(rows);
    let bar = progress::steps("growing trees", args.seeds * u64::from(args.trees));
    let grown = || bar.inc(1);
    let found = forest::stability::stability(&trained, &judged, args.trees as usize, args.samples as usize, args.seeds, &grown);
    bar.finish_and_clear();
    let found = found.map_err(|why| Failure::new("the forests cannot be grown").caused_by(why))?;
    let mut output = Output::stdout();
    if args.json {
        return output.json(&found);
    }
    let figure = |value: Option<f64>| value.map_or_else(|| "no labels".to_owned(), |value| format!("{value:.4}"));
    output.line(&format!(
        "{} trees x {} rows, {} seeds: the highest 0.5% of {} payments share {:.3} +- {:.3} (Jaccard, {} pairs)\nauroc              {}\naverage_precision  {}",
        found.trees,
        found.samples,
        found.seeds,
        found.judged_rows,
        found.jaccard,
        found.jaccard_sd,
        found.pairs,
        figure(found.auroc),
        figure(found.average_precision)
    ))
}

fn bench(args: &Bench, settings: &Settings) -> Result<(), Failure> {
    let scoring = crate::instance::scoring_params(settings, None)?;
    let bar = progress::rows("making payments");
    // The first half of made-up payments only teaches what is normal.
    let rows = training::synthetic(2 * args.rows, &scoring, &|rows| bar.set_position(rows));
    bar.finish_and_clear();
    let rows = rows.map_err(|why| Failure::new("no payments could be made up").caused_by(why))?;
    let params: TrainParams = args.forest.params();
    let bar = progress::steps("growing trees", params.trees as u64);
    let (began, cpu) = (monotonic(), process_cpu());
    let model = rows.train(params, settings.contamination, None, &|| bar.inc(1));
    let (trained, trained_cpu) = (since(began), process_cpu().saturating_sub(cpu));
    bar.finish_and_clear();
    let model = model.map_err(|why| Failure::new("the forest cannot be grown").caused_by(why))?;
    let times = measure(&rows, &model, trained, trained_cpu);
    let mut output = Output::stdout();
    if args.json { output.json(&times) } else { output.line(&table(&times)) }
}

fn table(times: &Times) -> String {
    let kernels: Vec<String> = times.kernels.iter().map(|of| format!("{} {:.2}", of.kernel, of.score_batch_us)).collect();
    format!(
        "{} trees x {} rows, trained on {} rows on {} cores\n\
         training          {:.2} s ({:.2} s of CPU)\n\
         scoring, batch    {:.2} us/record on one core ({})\n\
         scoring, single   {:.2} us/record on one core\n\
         explaining        {:.1} us/record\n\
         artifact          {:.2} MB, loaded and checked in {:.1} ms",
        times.trees,
        times.samples,
        times.rows,
        times.cores,
        times.train_seconds,
        times.train_cpu_seconds,
        times.score_batch_us,
        kernels.join(", "),
        times.score_single_us,
        times.explain_us,
        times.artifact_bytes as f64 / 1e6,
        times.load_ms
    )
}
