//! `mangrove run`: one instance.

use super::Failure;
use crate::config::Settings;

const EXAMPLES: &str = "\
Examples:
  mangrove run                                          as .env and the environment say
  mangrove run --broker embedded                        no Kafka: one machine, topics in EMBEDDED_DIR
  KAFKA_BOOTSTRAP_SERVERS=kafka:9092 mangrove run       more instances share the work: start the same again
  mangrove run --start-from changelog                   after the group's offsets have expired

SIGTERM drains: not ready first, a last commit, then the end with status 0.";

/// Takes settings only.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Runs one instance until SIGTERM or Ctrl-C.
///
/// # Errors
/// When it has to stop for a reason that a restart alone does not mend.
pub fn run(_args: Args, settings: Settings) -> Result<(), Failure> {
    crate::service::run(&settings)
}
