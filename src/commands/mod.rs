//! The command line: what each command takes, and how it ends.
//!
//! A command's module holds its arguments and one function `run(args, settings)` that puts parts together; it holds no
//! logic of its own. Settings are flags of every command ([`crate::config`]).
//!
//! Exit status: 0 done, 1 failed, 2 wrong settings or usage, 3 a threshold that was given is not met. Results go to standard output, everything else to standard
//! error.

pub mod backtest;
pub mod backup;
pub mod bundle;
pub mod check;
pub mod completions;
pub mod config;
pub mod demo;
pub mod explain;
pub mod forest;
pub mod load;
pub mod migrate;
pub mod models;
pub mod notify;
pub mod probe;
pub mod rebuild;
pub mod redrive;
pub mod run;
pub mod tap;
pub mod token;
pub mod topology;
pub mod train;
pub mod verify;

mod audits;
mod parameters;
mod progress;
mod signals;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{CommandDefaults, SettingFlags, Settings, Sources};
use crate::logging;

pub use crate::failure::{Ending, Failure};
pub use crate::output::{Output, table};
pub use parameters::ForestParameters;
use signals::stop_on_signal;

const AFTER_HELP: &str = "\
Examples:
  mangrove demo                    everything on this machine, nothing else needed
  mangrove check --connect         are the settings right, does each part answer?
  mangrove run                     one instance; start more to share the work
  mangrove train --from pay.csv.gz
  mangrove backtest pay.csv.gz --train-from 0 --train-to 30 --judge-from 30
  mangrove explain transactions:3:1205    one past payment: its score again, and why
  mangrove load --rate 1000 --duration 1m --max-p99-ms 100 --max-lost 0
  mangrove verify                  is the state what payments and decisions give?

Settings are environment variables, lines of .env, or flags of any command:
`mangrove help run` lists them, `mangrove config` shows what is in force and from
where.

Exit status: 0 done, 1 failed, 2 wrong settings or usage, 3 done, but a threshold
that was given is not met (load).";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "mangrove",
    version,
    about = "Scores every payment as it happens: exactly once, with the reason why.",
    after_help = AFTER_HELP,
    max_term_width = 110,
    disable_help_subcommand = false,
    propagate_version = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Settings given as flags.
    #[command(flatten)]
    pub settings: SettingFlags,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show everything at work on this machine, with made-up payments
    Demo(demo::Args),
    /// Run one instance until it is told to stop
    Run(run::Args),
    /// Train a model
    Train(train::Args),
    /// Score a file of past payments through the very same topology, and judge the verdicts
    Backtest(backtest::Args),
    /// Make a token for the HTTP interface
    Token(token::Args),
    /// Show verdicts as they come
    Tap(tap::Args),
    /// Make payments up: into the stream, to measure it, or into a labelled file
    Load(Box<load::Args>),
    /// Send dead letters back to where they came from
    Redrive(redrive::Args),
    /// Move the state to another number of partitions, under a new application id
    Migrate(migrate::Args),
    /// Copy the embedded broker to a folder
    Backup(backup::BackupArgs),
    /// Put a backup in the embedded broker's place
    Restore(backup::RestoreArgs),
    /// Write a support archive, without secrets and user ids
    Bundle(bundle::Args),
    /// List models, promote one, roll back
    Models(models::Args),
    /// Try a notification target out; list and resend what did not arrive
    Notify(notify::Args),
    /// Judge the forest alone on a labelled set, or time it
    Forest(forest::Args),
    /// Show the graph that a record passes through
    Topology(topology::Args),
    /// Check the settings, and that each part answers
    Check(check::Args),
    /// Ask the instance on this machine whether it is alive or ready
    Probe(probe::Args),
    /// Print a script that completes commands and flags in a shell
    Completions(completions::Args),
    /// Show the settings in force and where each is from
    Config(config::Args),
    /// Compare profiles, changelog, payments, decisions and verdicts, and name the first difference
    Verify(verify::Args),
    /// Score one past record again by its own model, and show why
    Explain(explain::Args),
    /// Make state anew from its changelog, or from payments and decisions
    Rebuild(rebuild::Args),
}

/// Arguments of a command that has commands of its own.
#[derive(Debug, clap::Args)]
pub struct Group<What: Subcommand> {
    /// What to do.
    #[command(subcommand)]
    pub what: What,

    /// Print one JSON object
    #[arg(long, global = true)]
    pub json: bool,
}

impl Command {
    /// What clap cannot check of the arguments: how they go together.
    fn validate(&self) -> Result<(), Failure> {
        match self {
            Self::Train(args) => args.validate(),
            Self::Backtest(args) => args.validate(),
            Self::Rebuild(args) => args.validate(),
            Self::Load(args) => args.validate(),
            _ => Ok(()),
        }
    }

    /// Defaults that differ from the declared ones when this command runs.
    fn defaults(&self) -> Option<CommandDefaults> {
        match self {
            Self::Demo(args) => Some(args.defaults()),
            _ => None,
        }
    }

    /// `check --json` reports wrong settings as part of its answer.
    fn reports_faults_as_json(&self) -> bool {
        matches!(self, Self::Check(check::Args { json: true, .. }))
    }

    fn dispatch(self, settings: Settings) -> Result<(), Failure> {
        match self {
            Self::Demo(args) => demo::run(args, settings),
            Self::Run(args) => run::run(args, settings),
            Self::Train(args) => train::run(args, settings),
            Self::Backtest(args) => backtest::run(args, settings),
            Self::Token(args) => token::run(&args),
            Self::Tap(args) => tap::run(args, settings),
            Self::Load(args) => load::run(&args, &settings),
            Self::Redrive(args) => redrive::run(args, settings),
            Self::Migrate(args) => migrate::run(args, settings),
            Self::Backup(args) => backup::backup(args, settings),
            Self::Restore(args) => backup::restore(args, settings),
            Self::Bundle(args) => bundle::run(args, settings),
            Self::Models(args) => models::run(&args, &settings),
            Self::Notify(args) => notify::run(&args, &settings),
            Self::Forest(args) => forest::run(&args, &settings),
            Self::Topology(args) => topology::run(args, settings),
            Self::Check(args) => check::run(args, settings),
            Self::Probe(args) => probe::run(&args, &settings),
            Self::Completions(args) => completions::run(&args),
            Self::Config(args) => config::run(args, settings),
            Self::Verify(args) => verify::run(args, settings),
            Self::Explain(args) => explain::run(args, settings),
            Self::Rebuild(args) => rebuild::run(args, settings),
        }
    }
}

/// Runs the program: reads the command line and the settings, starts logging, runs the command, reports a failure.
pub fn main(arguments: impl IntoIterator<Item = OsString>, environment: Vec<(OsString, OsString)>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with status 0. Nobody is left to hear of a failed print.
            let _unheard = error.print();
            return if error.use_stderr() { Ending::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    match execute(cli, environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.ending().into()
        }
    }
}

fn execute(cli: Cli, environment: Vec<(OsString, OsString)>) -> Result<(), Failure> {
    if let Command::Completions(args) = &cli.command {
        // A shell asks before anything is set up.
        return completions::run(args);
    }
    cli.command.validate()?;
    if let Command::Token(args) = &cli.command {
        // Settings that lack a token are a reason to make one.
        return token::run(args);
    }
    let sources =
        Sources { flags: cli.settings.values, environment, dotenv: cli.settings.dotenv, command: cli.command.defaults() };
    let settings = match Settings::load(&sources) {
        Ok(settings) => settings,
        Err(faults) => {
            if cli.command.reports_faults_as_json() {
                check::report_faults(&faults)?;
            }
            return Err(Failure::settings(&faults));
        }
    };
    logging::start(&settings);
    cli.command.dispatch(settings)
}

/// The command line's definition, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests;
