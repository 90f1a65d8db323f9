//! `mangrove redrive`: dead letters go back to the topics they came from.

use topology::broker::Broker;

use super::parameters::time_ms;
use super::{Failure, Output, progress};
use crate::config::{BrokerKind, Settings};
use crate::instance::Blueprint;
use crate::redrive::{Filter, Options, Places, Report, Span, redrive};
use crate::service;

const EXAMPLES: &str = "\
Examples:
  mangrove redrive                                      count what would go back, by cause, topic and partition
  mangrove redrive --cause misplaced --execute          do it, for one cause
  mangrove redrive --topic transactions --partition 3 --offsets 1000..2000 --execute
  mangrove redrive --since 2026-11-23T10:00:00Z --until 2026-11-23T11:00:00Z --rate 100 --execute
  mangrove redrive --json                               for scripts

Each letter goes back once, however often the command is repeated or killed: what went is written down in the same
transaction (topic <application>-redriven). A redriven record is a new input record: its verdict has a new id. One that
fails again becomes a new dead letter, whose header mangrove.redrives counts how often.

Exit status: 0 counted or redriven, 1 failed (what went before stays; the same command goes on), 2 wrong usage.";

/// Which letters, how fast, and whether to do it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Send them back; without it nothing is written
    #[arg(long, visible_alias = "yes")]
    pub execute: bool,

    /// Only letters of this cause; may be given several times
    #[arg(long, value_name = "CAUSE")]
    pub cause: Vec<String>,

    /// Only records that came from this topic; may be given several times
    #[arg(long, value_name = "TOPIC")]
    pub topic: Vec<String>,

    /// Only records that came from this partition; may be given several times
    #[arg(long, value_name = "PARTITION")]
    pub partition: Vec<u32>,

    /// Only records that were at these offsets; TO is exclusive, either may be left out
    #[arg(long, value_name = "FROM..TO", default_value = "..")]
    pub offsets: Span,

    /// Only records whose own time is this or later
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    pub since: Option<i64>,

    /// Only records whose own time is before this
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    pub until: Option<i64>,

    /// Leave records aside that were redriven this often already
    #[arg(long, value_name = "TIMES", default_value_t = 3)]
    pub max_redrives: u32,

    /// Records a second, at most
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,

    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Counts, and with `--execute` redrives.
///
/// # Errors
/// When the broker fails; the same command goes on from there.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let blueprint = Blueprint::new(&settings)?;
    let places = Places::of(&blueprint.topology).ok_or_else(|| Failure::new("this topology has no dead letters"))?;
    let options = Options {
        filter: Filter {
            causes: args.cause,
            topics: args.topic,
            partitions: args.partition,
            offsets: args.offsets,
            since_ms: args.since,
            until_ms: args.until,
        },
        max_redrives: args.max_redrives,
        rate: args.rate,
        execute: args.execute,
    };
    let report = match settings.broker {
        BrokerKind::Kafka => act(&*service::kafka_with(&settings, places.topics())?, &places, &options),
        BrokerKind::Embedded => act(&*service::embedded_with(&settings, places.topics())?, &places, &options),
    }?;
    let mut output = Output::stdout();
    if args.json { output.json(&report) } else { output.line(&report.to_string()) }
}

fn act<B: Broker>(broker: &B, places: &Places, options: &Options) -> Result<Report, Failure> {
    let bar = progress::steps("dead letters", 0);
    let report = redrive(broker, places, options, &|done, total| progress::moving(&bar, done, total));
    bar.finish_and_clear();
    report.map_err(|why| {
        let hint = "what was redriven stays so and is not redriven twice: run the same command again";
        Failure::new("redriving ended early").caused_by(why).hint(hint)
    })
}
