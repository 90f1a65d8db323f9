//! `mangrove models`: the registry by hand, straight on the broker; no instance need run.

use std::path::PathBuf;
use std::sync::Arc;

use models::validate::Report;
use serde::Serialize;
use topology::broker::Broker;

use super::{Failure, Group, Output};
use crate::clock::RealClock;
use crate::config::{BrokerKind, Settings};
use crate::instance::Blueprint;
use crate::output::table;
use crate::registry::{Activation, Artifacts, Registry, RegistryError, State, Version, View};
use crate::service;
use crate::shadow::Summary;

const EXAMPLES: &str = "\
Examples:
  mangrove models list
  mangrove models show 3f0c9a5d1e2b4c67
  mangrove models promote 3f0c9a5d1e2b4c67
  mangrove models rollback
  mangrove models shadow 3f0c9a5d1e2b4c67 --begin

Every running instance goes over by itself, within a second. The embedded broker belongs to one process: while an instance
runs on it, ask that instance: GET /v1/models, POST /v1/models/{id}/promote, POST /v1/models/rollback,
GET, POST and DELETE /v1/models/{id}/shadow.";

/// The command's arguments.
pub type Args = Group<What>;

/// What to do with the models.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum What {
    /// All versions, the latest first
    List,
    /// One version, with what validation found
    Show {
        /// The model's id
        id: String,
    },
    /// Make a version the active one
    Promote {
        /// The model's id
        id: String,
    },
    /// Go back to the version that was active before
    Rollback,
    /// What a version would have alerted beside the active one
    Shadow {
        /// The model's id
        id: String,
        /// Begin to score the payments to come; a running instance does it
        #[arg(long, conflicts_with = "end")]
        begin: bool,
        /// With --begin: score the whole log of verdicts as well
        #[arg(long, requires = "begin")]
        whole_log: bool,
        /// End it
        #[arg(long)]
        end: bool,
    },
    /// Register a model's file
    Import {
        /// What `mangrove train --out` or `backtest --model-out` wrote
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Does it.
///
/// # Errors
/// Where the broker does not answer, the model is unknown, or its artifact cannot be used.
pub fn run(args: &Args, settings: &Settings) -> Result<(), Failure> {
    let registry = open(settings)?;
    let mut output = Output::stdout();
    match &args.what {
        What::List => list(&registry.view(), args.json, &mut output),
        What::Show { id } => {
            let view = registry.view();
            let version = view.version(id).ok_or_else(|| failed(&RegistryError::Unknown))?;
            if args.json {
                output.json(&Shown { state: view.state(id), version })
            } else {
                output.line(&describe(&view, version))
            }
        }
        What::Promote { id } => activated(&registry.promote(id, "promoted").map_err(|why| failed(&why))?, args.json, &mut output),
        What::Import { file } => {
            let model = crate::instance::load_model(file)?;
            let version = registry.register(&model, "import", None, None).map_err(|why| failed(&why))?;
            if args.json { output.json(&version) } else { output.line(&format!("model {} is registered", version.id)) }
        }
        What::Shadow { id, begin, whole_log, end } => {
            let changed = match (begin, end) {
                (true, _) => Some(registry.begin_shadow(id, *whole_log, None, "asked for")),
                (_, true) => Some(registry.end_shadow(id, "ended by hand")),
                _ => None,
            };
            changed.transpose().map_err(|why| failed(&why))?;
            shadow(&registry.view(), id, args.json, &mut output)
        }
        What::Rollback => activated(&registry.roll_back().map_err(|why| failed(&why))?, args.json, &mut output),
    }
}

/// The registry of the settings' broker, read to its end.
pub(super) fn open(settings: &Settings) -> Result<Registry, Failure> {
    let blueprint = Blueprint::new(settings)?;
    match settings.broker {
        BrokerKind::Kafka => registry(settings, &blueprint, &service::kafka(settings, &blueprint)?),
        BrokerKind::Embedded => registry(settings, &blueprint, &service::embedded(settings, &blueprint)?),
    }
}

fn registry<B: Broker>(settings: &Settings, blueprint: &Blueprint, broker: &Arc<B>) -> Result<Registry, Failure> {
    let topic = blueprint.topics().find(&settings.models_topic).expect("invariant: the topology has the models topic");
    let there = broker.describe(&[topic]).map_err(|why| Failure::new("the broker does not answer").caused_by(why))?;
    if there.first().is_none_or(Option::is_none) {
        let what = format!("the topic {} does not exist yet", settings.models_topic);
        return Err(Failure::new(what).hint("the first instance creates it: `mangrove run`"));
    }
    let artifacts = Artifacts::open(&settings.model_store).map_err(|why| Failure::new(why.to_string()))?;
    let registry = Registry::new(broker, topic, artifacts, blueprint.model.clone(), Arc::new(RealClock), "command");
    registry.catch_up(&|| false);
    Ok(registry)
}

pub(super) fn failed(why: &RegistryError) -> Failure {
    Failure::new(why.to_string()).hint("`mangrove models list` shows every version")
}

#[derive(Serialize)]
struct Shown<'v> {
    state: State,
    #[serde(flatten)]
    version: &'v Version,
}

fn list(view: &View, json: bool, output: &mut Output) -> Result<(), Failure> {
    let versions = view.versions();
    if json {
        let shown: Vec<_> = versions.iter().map(|version| Shown { state: view.state(&version.id), version }).collect();
        return output.json(&shown);
    }
    if versions.is_empty() {
        return output.line("no models yet");
    }
    let rows: Vec<_> = versions
        .iter()
        .map(|version| {
            let checks = version.report.as_ref().map_or_else(|| "-".to_owned(), checks);
            [
                version.id.clone(),
                state(view.state(&version.id)).to_owned(),
                time(version.created_ms),
                version.rows.to_string(),
                format!("{} x {}", version.trees, version.samples),
                version.source.clone(),
                checks,
            ]
        })
        .collect();
    output.line(&table(["model", "state", "created", "rows", "forest", "source", "checks"], &rows))
}

fn state(state: State) -> &'static str {
    match state {
        State::Active => "active",
        State::Retired => "retired",
        State::Shadow => "shadow",
        State::Candidate => "candidate",
    }
}

fn checks(report: &Report) -> String {
    let failed: Vec<&str> = report.failed().collect();
    if failed.is_empty() { "passed".to_owned() } else { format!("failed: {}", failed.join(", ")) }
}

fn time(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

fn describe(view: &View, version: &Version) -> String {
    let head = format!(
        "model {}, {}\n  created {}, from {}, parent {}\n  {} payments from {} to {}\n  {} trees x {} rows, seed {}, contamination {}\n  {} bytes, sha256 {}",
        version.id,
        state(view.state(&version.id)),
        time(version.created_ms),
        version.source,
        version.parent.as_deref().unwrap_or("none"),
        version.rows,
        time(version.from_ms),
        time(version.to_ms),
        version.trees,
        version.samples,
        version.seed,
        version.contamination,
        version.bytes,
        version.digest
    );
    version.report.as_ref().map_or(head.clone(), |report| format!("{head}\n{}", report_table(report)))
}

fn shadow(view: &View, id: &str, json: bool, output: &mut Output) -> Result<(), Failure> {
    let version = view.version(id).ok_or_else(|| failed(&RegistryError::Unknown))?;
    let shadow = view.shadow(id).ok_or_else(|| failed(&RegistryError::NoShadow))?;
    let summary = Summary::of(version, shadow, view.tally(shadow));
    if json { output.json(&summary) } else { output.line(&describe_shadow(id, &summary)) }
}

fn describe_shadow(id: &str, summary: &Summary) -> String {
    let Summary { shadow, compared, would_alert, cost, .. } = summary;
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.4}"));
    let micros = |micros: Option<f64>| micros.map_or_else(|| "-".to_owned(), |micros| format!("{micros:.2} us"));
    let until = match (shadow.ended_ms, shadow.promote_at_ms) {
        (Some(at_ms), _) => format!("ended {}: {}", time(at_ms), shadow.why),
        (None, Some(at_ms)) => format!("to be judged {}", time(at_ms)),
        (None, None) => "until it is ended or promoted".to_owned(),
    };
    let head = format!(
        "model {id} in shadow beside {}\n  since {}, {until}\n  {compared} payments compared; as of {}\n  \
         it would have alerted {} more and {} fewer than the {} there were\n  agreement {}, overlap of alerts {}\n  \
         {} a payment, the active model {}; {:.1} s so far",
        shadow.beside.as_deref().unwrap_or("none"),
        time(shadow.began_ms),
        summary.as_of_ms.map_or_else(|| "-".to_owned(), time),
        would_alert.more,
        would_alert.fewer,
        would_alert.active,
        share(summary.agreement),
        share(summary.alert_overlap),
        micros(cost.micros_per_payment),
        micros(cost.active_micros_per_payment),
        cost.seconds,
    );
    let sides = [("more", &summary.examples.more), ("fewer", &summary.examples.fewer)];
    let rows: Vec<_> = sides
        .iter()
        .flat_map(|(side, examples)| {
            let row = |example: &models::compare::Example| {
                [
                    (*side).to_owned(),
                    example.verdict_id.clone(),
                    format!("{:.4}", example.active),
                    format!("{:.4}", example.shadow),
                ]
            };
            examples.iter().map(row).collect::<Vec<_>>()
        })
        .collect();
    if rows.is_empty() { head } else { format!("{head}\n{}", table(["alert", "verdict", "active", "shadow"], &rows)) }
}

/// Every check with its figure and bounds.
pub(super) fn report_table(report: &Report) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let rows: Vec<_> = report
        .checks
        .iter()
        .map(|check| {
            let outcome = format!("{:?}", check.outcome).to_lowercase();
            [check.name.clone(), outcome, number(check.value), number(check.low), number(check.high), check.note.clone()]
        })
        .collect();
    table(["check", "outcome", "figure", "least", "most", "note"], &rows)
}

fn activated(activation: &Activation, json: bool, output: &mut Output) -> Result<(), Failure> {
    if json { output.json(activation) } else { output.line(&format!("model {} is active: {}", activation.model, activation.why)) }
}
