//! `mangrove demo`: everything on one machine, nothing else needed.

use std::path::PathBuf;

use super::Failure;
use crate::config::{CommandDefaults, Settings};
use crate::demo::{COMMAND, Show, Wish};
use crate::instance::{Blueprint, Identity};
use crate::service;

const EXAMPLES: &str = "\
Examples:
  mangrove demo                  the last day, then what is paid now, until Ctrl-C; goes on from there at the next start
  mangrove demo --records 20000  that many more payments, then a summary
  mangrove demo --rate 100       more at a time, after a shorter past";

/// What to show, and how fast.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Score this many more payments, print a summary and end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub records: Option<u64>,

    /// The folder for topics, state and model; STATE_DIR, EMBEDDED_DIR, MODEL_PATH and MODEL_STORE default to places in it
    #[arg(long, value_name = "FOLDER", default_value = "./data/demo")]
    pub dir: PathBuf,

    /// Payments a second, once the past is made up for [default: 5; with --records as fast as they go]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
}

impl Args {
    /// The demo needs no Kafka and leaves the folders of a real instance alone.
    pub(super) fn defaults(&self) -> CommandDefaults {
        let inside = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        CommandDefaults {
            command: COMMAND,
            values: vec![
                ("BROKER", "embedded".to_owned()),
                ("STATE_DIR", inside("state")),
                ("EMBEDDED_DIR", inside("broker")),
                ("MODEL_PATH", inside("current.forest")),
                ("MODEL_STORE", inside("models")),
                // The demo has its first model trained, once there are habits to learn.
                ("AUTO_TRAIN", "false".to_owned()),
                // No warning of a Redis that nobody has here.
                ("REDIS_URL", String::new()),
            ],
        }
    }
}

/// Runs the demo until Ctrl-C or until the records asked for are scored.
///
/// # Errors
/// When a part fails; what is committed stays, and the next start goes on from there.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let identity = Identity::lock(&settings.state_dir, settings.instance_id.as_deref())?;
    let blueprint = Blueprint::new(&settings)?;
    let broker = service::embedded(&settings, &blueprint)?;
    let mut show = Show::new(Wish { records: args.records, rate: args.rate }, &settings);
    service::serve(&settings, identity, broker, blueprint, &mut show, &service::maintain)
}
