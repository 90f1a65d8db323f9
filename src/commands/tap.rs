//! `mangrove tap`: live verdicts.

use std::io::IsTerminal as _;
use std::str::FromStr;

use models::Severity;
use topology::broker::Broker;
use topology::record::TopicId;

use super::parameters::time_ms;
use super::{Failure, Output, stop_on_signal};
use crate::config::{BrokerKind, Settings};
use crate::instance::{Blueprint, Stop};
use crate::service;
use crate::tap::{Filter, From, line, tap};

const EXAMPLES: &str = "\
Examples:
  mangrove tap                                    every verdict from now on
  mangrove tap --severity high                    high and critical ones
  mangrove tap --user u1 --from beginning --count 10
  mangrove tap --json --min-score 0.8 --from 2026-11-23T10:00:00Z | jq .explanation

Reads committed verdicts only, in no group: nothing that runs notices. The embedded broker has one process: stop that one.

Exit status: 0 ended by --count, a signal or a closed pipe, 1 failed, 2 wrong usage.";

/// Where to begin, as it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin(From);

impl FromStr for Begin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "beginning" => From::Beginning,
            "end" => From::End,
            time => From::Time(time_ms(time).map_err(|why| format!("beginning, end or a time: {why}"))?),
        }))
    }
}

fn severity(text: &str) -> Result<Severity, String> {
    crate::tap::severity(text).ok_or_else(|| "expected none, low, medium, high or critical".to_owned())
}

/// Which verdicts, and how to show them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only verdicts of this severity or a higher one: none, low, medium, high, critical
    #[arg(long, value_name = "SEVERITY", default_value = "none", value_parser = severity, hide_default_value = true)]
    pub severity: Severity,

    /// Only this user's
    #[arg(long, value_name = "USER_ID")]
    pub user: Option<String>,

    /// Only verdicts of this score or a higher one
    #[arg(long, value_name = "SCORE")]
    pub min_score: Option<f64>,

    /// Where to begin: at the oldest verdict, with new ones, or with payments of a time
    #[arg(long, value_name = "beginning|end|TIME", default_value = "end")]
    pub from: Begin,

    /// End after this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Print verdicts as on the wire, one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Shows verdicts until a signal, a closed pipe or the count.
///
/// # Errors
/// When the broker or standard output fails.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let blueprint = Blueprint::new(&settings)?;
    let verdicts = blueprint.topology.topics().find(&settings.verdicts_topic).expect("invariant: the topology writes verdicts");
    let stop = stop_on_signal()?;
    match settings.broker {
        BrokerKind::Kafka => show(&args, &*service::kafka(&settings, &blueprint)?, verdicts, &stop),
        BrokerKind::Embedded => show(&args, &*service::embedded(&settings, &blueprint)?, verdicts, &stop),
    }
}

fn show<B: Broker>(args: &Args, broker: &B, verdicts: TopicId, stop: &Stop) -> Result<(), Failure> {
    let filter = Filter { severity: args.severity, user: args.user.clone(), min_score: args.min_score, since_ms: None };
    let colour = !args.json && std::io::stdout().is_terminal();
    let mut output = Output::stdout();
    let mut left = args.count;
    let mut failed = None;
    let tapped = tap(broker, verdicts, args.from.0, &filter, &|| stop.raised(), &mut |verdict, bytes| {
        let text = if args.json { String::from_utf8_lossy(bytes).into_owned() } else { line(verdict, colour) };
        failed = output.line(&text).err();
        left = left.map(|left| left - 1);
        failed.is_none() && left != Some(0) && !output.is_closed()
    });
    match failed {
        Some(failure) => Err(failure),
        None => tapped.map_err(|why| Failure::new("the verdicts cannot be read").caused_by(why)),
    }
}
