//! `mangrove migrate`: an application's state moves to another number of partitions.

use serde::Serialize;
use topology::record::Record;

use super::{Failure, Output, progress};
use crate::broker::Groups;
use crate::config::{BrokerKind, ProcessingGuarantee, Settings};
use crate::instance::{application, scoring_params, topic_names};
use crate::migrate::{MigrateError, Migration, Places, Prospect, Report};
use crate::scoring::{Command, ModelSlot, TopicNames, scoring_topology, snoozes_topic};
use crate::service;

const EXAMPLES: &str = "\
Examples:
  mangrove migrate --to 16 --application mangrove-16                   the plan; nothing is written
  mangrove migrate --to 16 --application mangrove-16 --execute         the input grew in place to 16 partitions
  mangrove migrate --to 16 --application mangrove-16 --new-transactions payments --new-commands payment-commands --execute
                                                                       the input is replaced by another topic

Settings are those of the application as it was. In this order: stop producers and all instances; let the input and the
commands grow (or leave it to this command to create other ones); migrate; start instances with APPLICATION_ID set to
the new id (and TRANSACTIONS_TOPIC, COMMANDS_TOPIC where they are other ones); start producers. Killed at any point, the
same command goes on. Once it began, instances under the old id refuse to start: what waits would be scored twice.

Exit status: 0 planned, done, or done before; 1 refused or failed, with the reason; 2 wrong usage.";

/// Where to.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The number of partitions that the input has from now on
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub to: u32,

    /// The APPLICATION_ID from now on
    #[arg(long, value_name = "NEW_ID")]
    pub application: String,

    /// The topic of payments from now on [default: the present one, which has grown]
    #[arg(long, value_name = "TOPIC")]
    pub new_transactions: Option<String>,

    /// The topic of commands from now on [default: the present one, which has grown]
    #[arg(long, value_name = "TOPIC")]
    pub new_commands: Option<String>,

    /// Do it; without it only the plan is shown
    #[arg(long, visible_alias = "yes")]
    pub execute: bool,

    /// Print one JSON object instead of lines
    #[arg(long)]
    pub json: bool,
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Refused(why) => Self::new(why),
            MigrateError::Broker(why) => {
                Self::new("the migration ended early").caused_by(why).hint("nothing is lost: run the same command again")
            }
        }
    }
}

/// Plans, and with `--execute` migrates.
///
/// # Errors
/// What stands in the way; an interrupted migration is gone on with by the same command.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let params = scoring_params(&settings, None)?;
    let present = topic_names(&settings);
    let names = TopicNames {
        transactions: args.new_transactions.clone().unwrap_or_else(|| present.transactions.clone()),
        commands: args.new_commands.clone().unwrap_or_else(|| present.commands.clone()),
        ..present.clone()
    };
    let build = |id: &str, names: &TopicNames| {
        let topology = scoring_topology(id, names, &params, &ModelSlot::default());
        topology.map_err(|why| Failure::new("the topology is not valid").caused_by(why))
    };
    let new_id = format!("{}{}", settings.topic_prefix, args.application);
    let old_id = application(&settings);
    let places = Places::of(&build(&old_id, &present)?, &build(&new_id, &names)?)?;
    let places = places.carrying(&snoozes_topic(&old_id), &snoozes_topic(&new_id));
    match settings.broker {
        BrokerKind::Kafka => act(&args, &settings, &*service::kafka_with(&settings, places.topics())?, &places),
        BrokerKind::Embedded => act(&args, &settings, &*service::embedded_with(&settings, places.topics())?, &places),
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    executed: bool,
    prospect: &'a Prospect,
    report: Option<&'a Report>,
}

fn act<B: Groups>(args: &Args, settings: &Settings, broker: &B, places: &Places) -> Result<(), Failure> {
    let limits = scoring_params(settings, None)?.limits();
    let owner = |input: usize, record: &Record<'_>| {
        let value = record.value?;
        match input {
            0 => models::Transaction::from_json(value, record.timestamp, &limits).ok().map(|t| t.user_id.as_bytes().to_vec()),
            _ => Command::decode(value).ok().map(|command| command.user_id.into_bytes()),
        }
    };
    let bar = progress::steps("records", 0);
    let migration = Migration {
        broker,
        places,
        partitions: args.to,
        exactly_once: settings.processing_guarantee == ProcessingGuarantee::ExactlyOnce,
        owner: &owner,
        progress: &|done, total| progress::moving(&bar, done, total),
    };
    let prospect = migration.prospect()?;
    let mut output = Output::stdout();
    if !args.json {
        output.line(&prospect.plan.to_string())?;
    }
    let report = if args.execute { Some(migration.run()?) } else { prospect.done.clone() };
    bar.finish_and_clear();
    if args.json {
        return output.json(&Answer { executed: args.execute, prospect: &prospect, report: report.as_ref() });
    }
    match report {
        None => {
            let begun = if prospect.begun { " A migration was begun and interrupted: it will be gone on with." } else { "" };
            output.line(&format!("Nothing was written.{begun} To migrate: the same command with --execute"))
        }
        Some(report) => tell(&mut output, &report, &prospect, &args.application),
    }
}

fn tell(output: &mut Output, report: &Report, prospect: &Prospect, id: &str) -> Result<(), Failure> {
    if report.before {
        output.line("This migration was done before:")?;
    }
    output.line(&format!("{} keys copied, read back and equal on both sides", report.keys))?;
    if report.snoozes > 0 {
        output.line(&format!("{} snoozes went along", report.snoozes))?;
    }
    for (at, input) in prospect.plan.inputs.iter().enumerate() {
        output.line(&format!("{} records of {} wait in {} for {id}", report.moved[at], input.from, input.to))?;
        if report.included[at] > 0 {
            output.line(&format!("{} more were in the state already and were left out", report.included[at]))?;
        }
        if report.foreign[at] > 0 {
            output.line(&format!(
                "{} records were written to {} by producers meanwhile: none is lost or doubled, but a user's payments among them may be \
                 out of order with those that waited",
                report.foreign[at], input.to
            ))?;
        }
    }
    output.line(&format!("Start the instances with APPLICATION_ID={id}"))
}
