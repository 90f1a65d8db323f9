//! `mangrove backup` and `mangrove restore`: the embedded broker's folder, to elsewhere and back.

use std::path::PathBuf;

use super::{Failure, Output};
use crate::backup::{BackupError, Manifest, back_up, check, restore as put_back};
use crate::config::{BrokerKind, Settings};
use crate::instance::Blueprint;
use crate::service;

const BACKUP_EXAMPLES: &str = "\
Examples:
  mangrove backup --broker embedded /backups/monday
  mangrove backup --broker embedded --embedded-dir data/demo/broker /backups/demo

The embedded broker has one process: stop the instance or demo that holds it (SIGTERM drains it), back up, start it again.
On the same file system the copy shares unchanged files with the original; keep one elsewhere as well.

Exit status: 0 done, 1 refused or failed, with the reason, 2 wrong usage.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  mangrove restore --broker embedded /backups/monday --check      is it whole?
  mangrove restore --broker embedded /backups/monday              into EMBEDDED_DIR, which must be empty
  mangrove restore --broker embedded /backups/monday --force      in its place

STATE_DIR may stay: an instance whose store is ahead of the restored log drops it at its next start and rebuilds it from
the log. Start the instance right after a restore, so that it sees the log as it was restored.

Exit status: 0 done, 1 refused or failed, with the reason, 2 wrong usage.";

/// Where to.
#[derive(Debug, clap::Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub struct BackupArgs {
    /// A new or empty folder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Print the manifest as JSON
    #[arg(long)]
    pub json: bool,
}

/// Where from.
#[derive(Debug, clap::Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub struct RestoreArgs {
    /// A folder that `mangrove backup` made
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Replace the broker that is there
    #[arg(long)]
    pub force: bool,

    /// Only check the backup
    #[arg(long, conflicts_with = "force")]
    pub check: bool,

    /// Print the manifest as JSON
    #[arg(long)]
    pub json: bool,
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::new(error.to_string())
    }
}

fn only_embedded(settings: &Settings) -> Result<(), Failure> {
    match settings.broker {
        BrokerKind::Embedded => Ok(()),
        BrokerKind::Kafka => Err(Failure::usage("BROKER is kafka: this is about the embedded broker's folder")
            .hint("--broker embedded; topics of Kafka are backed up by Kafka's own tools")),
    }
}

fn tell(manifest: &Manifest, what: &str, json: bool) -> Result<(), Failure> {
    let mut output = Output::stdout();
    if json {
        return output.json(manifest);
    }
    for topic in &manifest.topics {
        output.line(&format!("{}: {} partitions, {} offsets", topic.name, topic.partitions, topic.offsets))?;
    }
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    output.line(&format!(
        "{what}: {} files, {bytes} bytes, made {} by version {}",
        manifest.files.len(),
        manifest.created,
        manifest.version
    ))
}

/// Backs up.
///
/// # Errors
/// Where the broker is in use, the folder is not empty, or the disk fails.
pub fn backup(args: BackupArgs, settings: Settings) -> Result<(), Failure> {
    only_embedded(&settings)?;
    if !settings.embedded_dir.join("CURRENT").exists() {
        return Err(Failure::new(format!("EMBEDDED_DIR {} holds no broker", settings.embedded_dir.display())));
    }
    let blueprint = Blueprint::new(&settings)?;
    let broker = service::embedded(&settings, &blueprint)?;
    let now = jiff::Timestamp::from_millisecond(crate::clock::now_ms()).unwrap_or_default();
    let manifest = back_up(&broker, &args.dir, &now.to_string())?;
    tell(&manifest, &format!("backed up to {}", args.dir.display()), args.json)
}

/// Restores.
///
/// # Errors
/// Where the backup is damaged or foreign, the broker is in use or must not be replaced, or the disk fails.
pub fn restore(args: RestoreArgs, settings: Settings) -> Result<(), Failure> {
    only_embedded(&settings)?;
    if args.check {
        return tell(&check(&args.dir)?, "whole", args.json);
    }
    // Whoever holds the broker would go on writing into files that are gone. A broker that cannot be opened for another reason is what
    // a restore is for.
    if args.force && settings.embedded_dir.join("CURRENT").exists() {
        let blueprint = Blueprint::new(&settings)?;
        if let Err(why) = service::embedded(&settings, &blueprint)
            && why.to_string().contains(crate::broker::embedded::HELD)
        {
            return Err(why.hint("stop the process that holds it"));
        }
    }
    let manifest = put_back(&args.dir, &settings.embedded_dir, args.force)?;
    tell(&manifest, &format!("restored to {}", settings.embedded_dir.display()), args.json)
}
