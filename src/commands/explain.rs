//! `mangrove explain`: one past record, scored again by its own model.

use std::path::{Path, PathBuf};

use models::Model;
use topology::broker::Broker;
use tracing::warn;

use super::audits::{self, Auditor, Step};
use super::{Failure, Output};
use crate::audit::{Audit, Explained, Outcome, Place, Scored, State};
use crate::config::Settings;
use crate::instance::load_model;

const EXAMPLES: &str = "\
Examples:
  mangrove explain transactions:3:1205                     why this payment got its score
  mangrove explain verdicts:3:1204                         the same, asked by its verdict
  mangrove explain dead-letters:0:7                        why a record was put aside
  mangrove explain transactions:3:1205 --model old/        with the models of a folder
  mangrove explain transactions:3:1205 --json

The score is made again from the logged features, the state from the payments and decisions still retained; what could not be
made again is said. The output names the user's payment: it is personal data.

Exit status: 0 the same answer again (or a dead letter), 1 another answer, no outcome, or something cannot be read, 2 settings
are wrong.";

/// Which record, and how to say it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A payment, or the verdict or dead letter that it got
    #[arg(value_name = "TOPIC:PARTITION:OFFSET")]
    pub place: Place,

    /// A model's file, or a folder of them [default: MODEL_PATH and the files beside it]
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,

    /// Print one JSON object instead of lines
    #[arg(long)]
    pub json: bool,
}

/// Finds the record's outcome and makes it again.
///
/// # Errors
/// When the answer is another one, there is none, or something cannot be read.
pub fn run(args: Args, settings: Settings) -> Result<(), Failure> {
    let folder = match &args.model {
        Some(path) => path.clone(),
        None => settings.model_path.clone(),
    };
    audits::with(&settings, Explain { args, folder })
}

struct Explain {
    args: Args,
    folder: PathBuf,
}

impl Auditor for Explain {
    fn audit<B: Broker>(self, audit: &Audit<B>) -> Result<(), Failure> {
        let step = Step::new(self.args.place.to_string());
        let explained = audit.explain(&self.args.place, &|id| find_model(&self.folder, id), &mut |what, done, all| {
            step.told(what, done, all);
        });
        drop(step);
        let explained = explained.map_err(|why| Failure::new(why.to_string()))?;
        let mut output = Output::stdout();
        if self.args.json {
            output.json(&explained)?;
        } else {
            output.line(&words(&explained))?;
        }
        if explained.same() { Ok(()) } else { Err(Failure::new(format!("{} has no such answer again", explained.record))) }
    }
}

/// The model of that id: the file itself, or one of the files in the folder or beside the file.
fn find_model(path: &Path, id: &str) -> Option<Model> {
    let load = |path: &Path| match load_model(path) {
        Ok(model) => Some(model).filter(|model| model.id == id),
        Err(why) => {
            warn!(%why, "passed over");
            None
        }
    };
    if path.is_file()
        && let Some(model) = load(path)
    {
        return Some(model);
    }
    let folder = if path.is_dir() { Some(path) } else { path.parent() }?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let named = |file: &&PathBuf| file.is_file() && *file != path && file.extension().is_some_and(|end| end == "forest");
    files.iter().filter(named).find_map(|file| load(file))
}

fn words(explained: &Explained) -> String {
    let mut lines = vec![explained.record.to_string()];
    match &explained.outcome {
        Outcome::Nothing { why } => lines.push(format!("  no outcome: {why}")),
        Outcome::DeadLetter { at, cause, message } => {
            lines.push(format!("  put aside as {at}: {cause}"));
            lines.push(format!("  {message}"));
        }
        Outcome::Verdict { at, verdict, scored, state } => {
            let score = verdict.score.map_or("none".to_owned(), |score| score.to_string());
            lines.push(format!("  verdict {at}: score {score}, severity {}", verdict.severity.as_str()));
            if !verdict.explanation.is_empty() {
                lines.push(format!("  logged reason: {}", verdict.explanation));
            }
            lines.extend(scored.iter().flat_map(|scored| scored_words(scored)));
            lines.extend(state.iter().flat_map(state_words));
        }
    }
    lines.extend(explained.not_rebuilt.iter().map(|what| format!("  not rebuilt: {what}")));
    lines.join("\n")
}

fn scored_words(scored: &Scored) -> Vec<String> {
    let same = if scored.same { "the same, bit for bit" } else { "NOT the same" };
    let mut lines =
        vec![format!("  again by model {}: score {} (raw {}), {same}", scored.model_id, scored.score, scored.raw_score)];
    let shares = scored.contributions.iter();
    lines.extend(shares.map(|share| format!("    {:+9.4}  {} = {}", share.contribution, share.feature, share.value)));
    lines
}

fn state_words(state: &State) -> Vec<String> {
    let same = match state.differs {
        None => "its features are the logged ones, bit for bit".to_owned(),
        Some(feature) => format!("its feature {feature} is NOT the logged one"),
    };
    let mut lines = vec![format!("  state rebuilt: {} earlier payments, mean {}; {same}", state.seen, state.mean)];
    lines.extend(state.reasons.iter().map(|reason| format!("    {reason}")));
    lines
}
