//! `mangrove bundle`: a support archive.

use std::path::PathBuf;

use super::{Failure, Output, check};
use crate::ask::Desk;
use crate::bundle::{Parts, Scrub};
use crate::config::Settings;

const EXAMPLES: &str = "\
Examples:
  mangrove bundle support.tar.gz
  mangrove bundle support.tar.gz --log-file /var/log/mangrove.log
  mangrove bundle support.tar.gz --connect        what `mangrove check --connect` says, too

Inside: version, settings with their sources, checks, topology, sizes and positions of the state, the end of the log, and
what an instance at HTTP_ADDR answers without a token. Secrets and user ids are taken out. Read it before you send it.

Exit status: 0 written, whatever was found, 1 it cannot be written, 2 wrong usage.";

/// User ids of the local state that are looked for in all texts: more would take too much memory.
const IDS_MAX: usize = 1_000_000;

/// Where to, and what else to look at.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The archive; replaced where it exists
    #[arg(value_name = "FILE.tar.gz")]
    pub file: PathBuf,

    /// A log whose end is to go in
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// Ask each part that the settings name whether it answers
    #[arg(long)]
    pub connect: bool,

    /// Whom the instance's certificate comes from (PEM) [default: HTTP_TLS_CERT, as the instance has it; without one plain HTTP]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Writes the archive and tells what is in it.
///
/// # Errors
/// When it cannot be written.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let mut parts = Parts::default();
    parts.add(
        "version.txt",
        format!("mangrove {}\n{} {}\n", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH),
    );
    parts.add("settings.txt", super::config::text(&settings));
    parts.add("check.txt", check::text(&settings, args.connect));
    parts.add("topology.txt", super::topology::text(&settings).unwrap_or_else(|why| why.to_string()));
    parts.add_state(&settings.state_dir);
    if let Some(path) = &args.log_file {
        parts.add_log(path);
    }
    match Desk::here(&settings, args.ca.as_deref()) {
        Ok(desk) => parts.add_answers(&desk),
        Err(why) => parts.add("http.txt", why.to_string()),
    }
    let ids = state::rocks::keys(&settings.state_dir.join("rocksdb"), IDS_MAX).unwrap_or_default();
    let ids = ids.into_iter().filter_map(|id| String::from_utf8(id).ok());
    let scrub = Scrub::new(settings.secrets(), ids);
    let names = parts.write(&args.file, &scrub, crate::clock::now_ms());
    let names = names.map_err(|why| Failure::new(format!("cannot write {}", args.file.display())).caused_by(why))?;
    let mut output = Output::stdout();
    names.iter().try_for_each(|name| output.line(name))?;
    output.line(&format!("written to {}; read it before you send it", args.file.display()))
}
