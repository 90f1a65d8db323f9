//! `mangrove check`: are the settings right, and with `--connect`, does each part answer?
//!
//! Settings that cannot be read at all never reach [`run`]: the program has ended with status 2 by then, having named
//! them all. What is checked here is what the settings point at.

use std::fs;
use std::path::Path;

use serde::Serialize;
use topology::broker::Broker;
use topology::topology::Topology;

use super::{Failure, Output};
use crate::config::{BrokerKind, Fault, Origin, Settings};
use crate::instance::{Blueprint, check_partitions};
use crate::service;
use crate::tiers::Tiers;

const EXAMPLES: &str = "\
Examples:
  mangrove check                the settings, and the files and folders they name
  mangrove check --connect      each real part must answer too
  mangrove check --json         for scripts

Exit status: 0 all well, 1 a part does not answer, 2 settings are wrong.";

/// What to check, and how to say it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Ask each part that the settings name whether it answers
    #[arg(long)]
    pub connect: bool,

    /// Print one JSON object instead of lines
    #[arg(long)]
    pub json: bool,
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub part: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found, and what to do where it is not as it should be.
    pub detail: String,
}

impl Finding {
    /// All is well with this part.
    pub fn good(part: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { part: part.into(), ok: true, detail: detail.into() }
    }

    /// Something is wrong with this part.
    pub fn bad(part: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { part: part.into(), ok: false, detail: detail.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = if self.ok { "ok   " } else { "wrong" };
        write!(f, "{mark}  {}: {}", self.part, self.detail)
    }
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    faults: Vec<String>,
    findings: &'a [Finding],
}

/// Checks, prints what was found, and fails where anything is wrong.
///
/// # Errors
/// When a check fails, or standard output does.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let mut findings = inspect(&settings);
    if args.connect {
        findings.extend(connect(&settings)?);
    }
    let wrong = findings.iter().filter(|finding| !finding.ok).count();
    let mut output = Output::stdout();
    if args.json {
        output.json(&Report { ok: wrong == 0, faults: Vec::new(), findings: &findings })?;
    } else {
        findings.iter().try_for_each(|finding| output.line(&finding.to_string()))?;
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::new("one check failed")),
        _ => Err(Failure::new(format!("{wrong} checks failed"))),
    }
}

/// The findings as lines, for others to show.
pub(super) fn text(settings: &Settings, ask: bool) -> String {
    let mut lines: Vec<String> = inspect(settings).iter().map(ToString::to_string).collect();
    if ask {
        match connect(settings) {
            Ok(findings) => lines.extend(findings.iter().map(ToString::to_string)),
            Err(why) => lines.push(why.to_string()),
        }
    }
    lines.join("\n")
}

/// The answer of `check --json` when the settings themselves are wrong.
pub(super) fn report_faults(faults: &[Fault]) -> Result<(), Failure> {
    let faults = faults.iter().map(ToString::to_string).collect();
    Output::stdout().json(&Report { ok: false, faults, findings: &[] })
}

/// Looks at the settings and the files they name; opens no connection and changes nothing.
fn inspect(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![Finding::good("settings", format!("{} read, none wrong", settings.describe().len()))];
    findings.push(folder("STATE_DIR", &settings.state_dir));
    if settings.broker == BrokerKind::Embedded {
        findings.push(folder("EMBEDDED_DIR", &settings.embedded_dir));
    }
    findings.push(model(settings));
    if !settings.model_store.contains("://") {
        findings.push(folder("MODEL_STORE", Path::new(&settings.model_store)));
    }
    if let Some(path) = &settings.fx_rates_path {
        findings.push(match fs::File::open(path) {
            Ok(_) => Finding::good("FX_RATES_PATH", format!("{} can be read", path.display())),
            Err(error) => Finding::bad("FX_RATES_PATH", format!("{}: {error}", path.display())),
        });
    }
    if let Some(path) = &settings.notify_targets {
        // Read and found right with the settings.
        findings.push(Finding::good("NOTIFY_TARGETS", format!("{}: every target is right", path.display())));
    }
    findings
}

/// A folder that exists must be a writable folder; for one that does not, that holds of the nearest one above it.
fn folder(variable: &str, path: &Path) -> Finding {
    let existing = path.ancestors().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    let Some((nearest, metadata)) = existing.into_iter().find_map(|above| Some((above, fs::metadata(above).ok()?))) else {
        return Finding::bad(variable, format!("{}: nothing of this path exists", path.display()));
    };
    if !metadata.is_dir() {
        Finding::bad(variable, format!("{} is not a folder", nearest.display()))
    } else if metadata.permissions().readonly() {
        Finding::bad(variable, format!("{} cannot be written to", nearest.display()))
    } else if nearest == path {
        Finding::good(variable, format!("{} exists", path.display()))
    } else {
        Finding::good(variable, format!("{} will be made", path.display()))
    }
}

/// A model may be absent: verdicts then carry no score until one is trained.
fn model(settings: &Settings) -> Finding {
    let path = settings.model_path.display();
    match fs::metadata(&settings.model_path) {
        Ok(metadata) if metadata.is_file() => Finding::good("MODEL_PATH", format!("{path}, {} bytes", metadata.len())),
        Ok(_) => Finding::bad("MODEL_PATH", format!("{path} is not a file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let then = if settings.auto_train {
                "one will be trained from the stream (AUTO_TRAIN)"
            } else {
                "verdicts will carry no score until one is trained (AUTO_TRAIN is off)"
            };
            Finding::good("MODEL_PATH", format!("{path} does not exist: {then}"))
        }
        Err(error) => Finding::bad("MODEL_PATH", format!("{path}: {error}")),
    }
}

/// Asks each part that the settings name.
fn connect(settings: &Settings) -> Result<Vec<Finding>, Failure> {
    let blueprint = Blueprint::new(settings)?;
    let mut findings = match settings.broker {
        BrokerKind::Kafka => {
            let address = format!("Kafka at {}", settings.kafka_bootstrap_servers);
            ask(&address, &*service::kafka(settings, &blueprint)?, &blueprint.topology, settings)
        }
        BrokerKind::Embedded => {
            let address = format!("embedded broker in {}", settings.embedded_dir.display());
            ask(&address, &*service::embedded(settings, &blueprint)?, &blueprint.topology, settings)
        }
    };
    findings.extend(ask_tiers(settings, blueprint.topology.application())?);
    Ok(findings)
}

/// Whether Redis and Postgres answer; changes nothing but the schema, which it brings up to date. A Redis that nobody asked for
/// need not be there.
fn ask_tiers(settings: &Settings, application: &str) -> Result<Vec<Finding>, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::new(why.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|why| failed(&why))?;
    let Tiers { warm, cold } = Tiers::open(settings, application).map_err(|why| failed(&why))?;
    let mut findings = Vec::new();
    if let Some(warm) = warm {
        let part = format!("Redis at {}", warm.address());
        findings.push(match runtime.block_on(warm.ping()) {
            Ok(()) => Finding::good(part, "answers"),
            Err(why) if settings.origin("REDIS_URL") == Some(&Origin::Default) => {
                Finding::good(part, format!("no warm tier: REDIS_URL is not set, and by default {why}"))
            }
            Err(why) => Finding::bad(part, why.to_string()),
        });
    }
    if let Some(cold) = cold {
        let part = format!("Postgres at {}", cold.address());
        findings.push(match runtime.block_on(cold.get()) {
            Ok(_) => Finding::good(part, format!("answers, its schema {} is current", cold.schema())),
            Err(why) => Finding::bad(part, why.to_string()),
        });
    }
    Ok(findings)
}

/// Whether the broker answers, and has the topics; creates nothing.
fn ask<B: Broker>(part: &str, broker: &B, topology: &Topology, settings: &Settings) -> Vec<Finding> {
    let all: Vec<_> = topology.topics().iter().collect();
    let ids: Vec<_> = all.iter().map(|(topic, _)| *topic).collect();
    let infos = match broker.describe(&ids) {
        Ok(infos) => infos,
        Err(why) => return vec![Finding::bad(part, why.to_string())],
    };
    let missing: Vec<&str> = all.iter().zip(&infos).filter(|(_, info)| info.is_none()).map(|((_, name), _)| *name).collect();
    let answered = Finding::good(part, "answers");
    if missing.is_empty() {
        let names = |count: usize| format!("all {count} exist");
        let partitions: Vec<u32> = infos.iter().flatten().map(|info| info.partitions).collect();
        let agree = check_partitions(topology, &partitions);
        let topics =
            agree.map_or_else(|why| Finding::bad("topics", why.to_string()), |()| Finding::good("topics", names(ids.len())));
        return vec![answered, topics];
    }
    let missing = missing.join(", ");
    let topics = if settings.create_topics {
        Finding::good("topics", format!("will be created at start: {missing}"))
    } else {
        Finding::bad("topics", format!("missing: {missing}. Create them, or set CREATE_TOPICS=true"))
    };
    vec![answered, topics]
}
