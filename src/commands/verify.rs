//! `mangrove verify`: I4, checked on what is there.

use serde::Serialize;
use state::backend::Backend;
use topology::broker::Broker;

use super::audits::{self, Auditor, Local, Step};
use super::{Failure, Output};
use crate::audit::{Audit, PartitionReport};
use crate::config::Settings;

const EXAMPLES: &str = "\
Examples:
  mangrove verify                               all partitions, and the store in STATE_DIR if nobody uses it
  mangrove verify --partition 3 --partition 4   two of them
  mangrove verify --json | jq '.partitions[] | select(.differences != [])'
  mangrove verify --show-users                  users by id instead of a keyed hash

Reads only; instances may run meanwhile. Profiles, payments and decisions of one partition are held in memory at a time.

Exit status: 0 the same everywhere, 1 something differs or cannot be read, 2 settings are wrong.";

/// What to verify, and how to say it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
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

#[derive(Serialize)]
struct Report {
    same: bool,
    partitions: Vec<PartitionReport>,
}

/// Compares changelog, payments and decisions, outcomes and the store, partition by partition.
///
/// # Errors
/// When something differs or cannot be read.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let local = Local::open(&settings);
    audits::with(&settings, Verify { args, local })
}

struct Verify {
    args: Args,
    local: Local,
}

impl Auditor for Verify {
    fn audit<B: Broker>(self, audit: &Audit<B>) -> Result<(), Failure> {
        let naming = audits::naming(self.args.show_users);
        let mut partitions = Vec::new();
        for partition in audits::chosen(&self.args.partition, audit.partitions())? {
            let step = Step::new(format!("partition {partition}"));
            let store = self.local.backend().map(|backend| backend as &dyn Backend);
            let report = audit.verify(partition, store, &naming, &mut |what, done, all| step.told(what, done, all));
            partitions
                .push(report.map_err(|why| Failure::new(format!("partition {partition} cannot be verified")).caused_by(why))?);
        }
        let report = Report { same: partitions.iter().all(PartitionReport::same), partitions };
        let mut output = Output::stdout();
        if self.args.json {
            output.json(&report)?;
        } else {
            report.partitions.iter().try_for_each(|partition| output.line(&words(partition)))?;
        }
        if report.same { Ok(()) } else { Err(Failure::new("what is in the log is not what payments and decisions give")) }
    }
}

fn words(report: &PartitionReport) -> String {
    let PartitionReport { partition, payments, changelog, decisions, users, outcomes, store, differences } = report;
    let mut text = format!(
        "{:7} partition {partition}: payments {}..{}, changelog {}..{}, {decisions} decisions",
        if differences.is_empty() { "same" } else { "DIFFERS" },
        payments.0,
        payments.1,
        changelog.0,
        changelog.1
    );
    text += &format!("\n          profiles: {} same, {} differ", users.same, users.differ);
    if users.began_before > 0 {
        text += &format!(", {} cannot be verified: they began before what is retained", users.began_before);
    }
    for (what, compared) in [("outcomes", outcomes), ("store", store)] {
        text += &match &compared.note {
            Some(note) => format!("\n          {what}: {note}"),
            None => format!("\n          {what}: {} compared, {} differ", compared.compared, compared.differ),
        };
    }
    for difference in differences {
        text += &format!("\n          first: {difference}");
    }
    text
}
