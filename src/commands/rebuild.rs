//! `mangrove rebuild`: state anew from its changelog, or from payments and decisions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use state::backend::Backend;
use topology::broker::Broker;
use tracing::info;

use super::audits::{self, Auditor, Step, open_rocks};
use super::{Failure, Output};
use crate::audit::Audit;
use crate::config::Settings;
use crate::instance::{Identity, application};

const EXAMPLES: &str = "\
Examples:
  mangrove rebuild --from changelog                       STATE_DIR's store, dropped and read anew; no topic is written
  mangrove rebuild --from transactions                    says which profiles of the changelog a replay would replace; writes nothing
  mangrove rebuild --from transactions --apply            replaces them in the changelog, then reads STATE_DIR's store anew
  mangrove rebuild --from transactions --into past --to 0=5000,1=4800
                                                          for an audit: the state as of these input offsets, in the new folder `past`

The instance on this STATE_DIR must be stopped; for --from transactions without --into all instances of the application must be.
After an interruption, run it again, or start the instance: what is missing is read from the changelog.
Profiles that began before the first payment still retained are left as they are.

Exit status: 0 done, 1 failed, 2 wrong settings or usage.";

/// Where state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum From {
    /// The last value of each user
    Changelog,
    /// Payments and decisions, replayed
    Transactions,
}

/// From where, up to where, to where.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What the state is made of
    #[arg(long, value_enum)]
    pub from: From,

    /// Payments below these offsets only; a partition not named is replayed to its end
    #[arg(long, value_name = "PARTITION=OFFSET", value_delimiter = ',', value_parser = position, requires = "into")]
    pub to: Vec<(u32, u64)>,

    /// A new folder for the replayed store; nothing else is written
    #[arg(long, value_name = "FOLDER", conflicts_with = "apply")]
    pub into: Option<PathBuf>,

    /// Write the replaced profiles to the changelog
    #[arg(long)]
    pub apply: bool,

    /// Only this partition; may be given several times
    #[arg(long, value_name = "N")]
    pub partition: Vec<u32>,

    /// Name users by their ids: the output is then personal data
    #[arg(long)]
    pub show_users: bool,

    /// Print one JSON object instead of lines
    #[arg(long)]
    pub json: bool,
}

impl Args {
    pub(super) fn validate(&self) -> Result<(), Failure> {
        if self.from == From::Changelog && (self.into.is_some() || self.apply) {
            return Err(Failure::usage(
                "--to, --into and --apply are for --from transactions: a compacted changelog has no past",
            ));
        }
        let mut partitions: Vec<u32> = self.to.iter().map(|(partition, _)| *partition).collect();
        partitions.sort_unstable();
        if let Some(twice) = partitions.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Failure::usage(format!("--to names partition {} twice", twice[0])));
        }
        Ok(())
    }
}

fn position(text: &str) -> Result<(u32, u64), String> {
    let parts = text.split_once('=').and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    parts.ok_or_else(|| "expected PARTITION=OFFSET, as in 3=1205".to_owned())
}

/// Rebuilds as asked.
///
/// # Errors
/// When an instance holds the folder or the partitions, or something cannot be read or written.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    if let Some(folder) = &args.into
        && std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
    {
        let what = format!("--into {}: the folder is not empty", folder.display());
        return Err(Failure::usage(what).hint("name a new folder: what is there is never overwritten"));
    }
    let identity = match args.into {
        Some(_) => None,
        None => Some(Identity::lock(&settings.state_dir, settings.instance_id.as_deref())?),
    };
    audits::with(&settings, Rebuild { args, settings: settings.clone(), identity })
}

struct Rebuild {
    args: Args,
    settings: Settings,
    identity: Option<Identity>,
}

impl Auditor for Rebuild {
    fn audit<B: Broker>(self, audit: &Audit<B>) -> Result<(), Failure> {
        match (self.args.from, &self.args.into) {
            (From::Changelog, _) => self.refill(audit),
            (From::Transactions, Some(folder)) => self.replay(audit, folder),
            (From::Transactions, None) => self.repair(audit),
        }
    }
}

impl Rebuild {
    /// The store of the state folder; one that refuses to open is dropped.
    fn store(&self, folder: &std::path::Path) -> Result<Arc<dyn Backend>, Failure> {
        let failed = |why: &dyn std::fmt::Display| Failure::new(format!("the store {} cannot be used: {why}", folder.display()));
        let backend = match open_rocks(folder, &self.settings) {
            Ok(backend) => backend,
            Err(why) if self.args.from == From::Changelog => {
                info!(%why, "the store cannot be opened: it is dropped");
                std::fs::remove_dir_all(folder).map_err(|why| failed(&why))?;
                open_rocks(folder, &self.settings).map_err(|why| failed(&why))?
            }
            Err(why) => return Err(failed(&why)),
        };
        Ok(Arc::new(backend))
    }

    fn refill<B: Broker>(&self, audit: &Audit<B>) -> Result<(), Failure> {
        let records = self.refill_store(audit)?;
        let mut output = Output::stdout();
        if self.args.json {
            return output.json(&serde_json::json!({ "store": self.settings.state_dir, "records": records }));
        }
        let total: u64 = records.values().sum();
        let (count, folder) = (records.len(), self.settings.state_dir.display());
        output.line(&format!("{count} partitions of {folder} read anew: {total} changelog records"))
    }

    /// All partitions, or those asked for: which ones the store has says nothing after an interruption.
    fn refill_store<B: Broker>(&self, audit: &Audit<B>) -> Result<BTreeMap<u32, u64>, Failure> {
        let folder = self.identity.as_ref().map_or(&self.settings.state_dir, |identity| &identity.folder).join("rocksdb");
        let backend = self.store(&folder)?;
        let mut records = BTreeMap::new();
        for partition in audits::chosen(&self.args.partition, audit.partitions())? {
            let step = Step::new(format!("partition {partition}"));
            let applied = audit.refill(partition, &*backend, crate::clock::now_ms(), &mut |what, done, all| {
                step.told(what, done, all);
            });
            let applied =
                applied.map_err(|why| Failure::new(format!("partition {partition} cannot be read anew")).caused_by(why))?;
            info!(partition, records = applied, "read anew from its changelog");
            records.insert(partition, applied);
        }
        Ok(records)
    }

    fn replay<B: Broker>(&self, audit: &Audit<B>, folder: &std::path::Path) -> Result<(), Failure> {
        let to: BTreeMap<u32, u64> = self.args.to.iter().copied().collect();
        let named: Vec<u32> = to.keys().copied().collect();
        audits::chosen(&named, audit.partitions())?;
        let backend = self.store(&folder.join("rocksdb"))?;
        let mut replayed = Vec::new();
        for partition in audits::chosen(&self.args.partition, audit.partitions())? {
            let step = Step::new(format!("partition {partition}"));
            let done = audit.replay(partition, to.get(&partition).copied(), &backend, &mut |what, done, all| {
                step.told(what, done, all);
            });
            replayed.push(done.map_err(|why| Failure::new(format!("partition {partition} cannot be replayed")).caused_by(why))?);
        }
        let mut output = Output::stdout();
        if self.args.json {
            return output.json(&serde_json::json!({ "store": folder, "partitions": replayed }));
        }
        for one in &replayed {
            let short = if one.truncated { "; earlier payments are no longer retained" } else { "" };
            let (from, to) = one.payments;
            output.line(&format!("partition {}: {} users of payments {from}..{to}{short}", one.partition, one.users))?;
        }
        output.line(&format!("written to {}", folder.display()))
    }

    fn repair<B: Broker>(&self, audit: &Audit<B>) -> Result<(), Failure> {
        let partitions = audits::chosen(&self.args.partition, audit.partitions())?;
        let application = application(&self.settings);
        let step = Step::new("replay".into());
        // A dead member's session ends within its time-out, and the group tells a little later.
        let session = self.settings.kafka.iter().find(|(key, _)| *key == "session.timeout.ms");
        let session_ms = session.and_then(|(_, value)| value.parse().ok()).unwrap_or(15_000);
        let patience = Duration::from_millis(session_ms) + Duration::from_secs(15);
        let instance = format!("{application}-rebuild");
        let naming = audits::naming(self.args.show_users);
        let now_ms = crate::clock::now_ms();
        let repairs = audit.repair(&partitions, self.args.apply, &instance, patience, now_ms, &naming, &mut |what, done, all| {
            step.told(what, done, all);
        });
        drop(step);
        let repairs = repairs.map_err(|why| Failure::new("the changelog cannot be compared with payments").caused_by(why))?;
        if self.args.apply {
            self.refill_store(audit)?;
        }
        let mut output = Output::stdout();
        if self.args.json {
            return output.json(&serde_json::json!({ "applied": self.args.apply, "partitions": repairs }));
        }
        let verb = if self.args.apply { "replaced" } else { "to be replaced" };
        for repair in &repairs {
            let first = repair.first.as_ref().map_or(String::new(), |first| format!("; first: {first}"));
            output.line(&format!(
                "partition {}: {} profiles the same, {} {verb}, {} left as they are{first}",
                repair.partition, repair.same, repair.replaced, repair.left
            ))?;
        }
        match (self.args.apply, repairs.iter().any(|repair| repair.replaced > 0)) {
            (false, true) => output.line("nothing was written: --apply writes them to the changelog"),
            _ => Ok(()),
        }
    }
}
