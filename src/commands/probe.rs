//! `mangrove probe`: asks the instance on this machine one of its probes, for health checks where there is no HTTP client.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::{Failure, Output};
use crate::ask::Desk;
use crate::config::Settings;

const EXAMPLES: &str = "\
Examples:
  mangrove probe                 is the instance at HTTP_ADDR making progress?
  mangrove probe readyz          are the keys of its partitions answerable?
  mangrove probe --ca ca.pem     one that serves TLS, where its HTTP_TLS_CERT is not in this environment

Exit status: 0 yes, 1 no or no answer within 2 seconds, 2 wrong usage.";

/// How long the instance may take.
const WAIT: Duration = Duration::from_secs(2);

/// What can be asked.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Probe {
    /// Progress is being committed
    #[default]
    Livez,
    /// Keys are answerable
    Readyz,
    /// It has started
    Startupz,
}

/// Which probe.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which one
    #[arg(value_enum, default_value_t)]
    pub probe: Probe,

    /// Whom its certificate comes from (PEM) [default: HTTP_TLS_CERT, as the instance has it; without one plain HTTP]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Prints the answer.
///
/// # Errors
/// Where it is no, or none.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let desk = Desk::here(settings, args.ca.as_deref())?;
    let name = args.probe.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let path = format!("/{name}");
    let answer = desk.get(&path, WAIT);
    let answer = answer.map_err(|why| Failure::new(format!("no answer from {}", desk.url(&path))).caused_by(why))?;
    let (status, body) = answer.split_once("\n\n").unwrap_or((&answer, ""));
    if status.split(' ').nth(1) != Some("200") {
        return Err(Failure::new(format!("{name}: {status}: {}", body.trim())));
    }
    Output::stdout().line(body.trim())
}
