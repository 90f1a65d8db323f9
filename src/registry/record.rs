//! Records of the models topic: JSON under the keys `model/{id}`, `active`, `shadow/{id}`, `shadow-tally/{id}`, `retrain/request` and
//! `retrain/last`.

use std::collections::BTreeMap;

use models::compare::Comparison;
use models::validate::Report;
use models::{Model, TrainParams, Window};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Activations remembered for rolling back.
pub const HISTORY_MAX: usize = 16;
/// Bytes of a record that is looked at: a report is far below.
pub(super) const RECORD_BYTES_MAX: usize = 256 << 10;
const ACTIVE: &str = "active";
const REQUEST: &str = "retrain/request";
const LAST: &str = "retrain/last";
const MODEL: &str = "model/";
const SHADOW: &str = "shadow/";
const TALLY: &str = "shadow-tally/";

/// A trained model, as it was registered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The first 16 hexadecimal digits of the digest: what verdicts name.
    pub id: String,
    /// SHA-256 of the artifact before its own checksum, in hexadecimal: the whole content.
    pub digest: String,
    /// Bytes of the artifact.
    pub bytes: u64,
    /// When it was registered, in milliseconds since the epoch.
    pub created_ms: i64,
    /// Event times of the rows it was trained on: from the first to the last, in milliseconds.
    pub from_ms: i64,
    /// See `from_ms`.
    pub to_ms: i64,
    /// Rows it was trained on.
    pub rows: u64,
    /// Trees.
    pub trees: u64,
    /// Rows of each tree.
    pub samples: u64,
    /// Seed.
    pub seed: u64,
    /// The share of the window taken to be anomalous.
    pub contamination: f64,
    /// Where its rows came from: `verdicts`, `csv`, `import`, ...
    pub source: String,
    /// The model that was active when it was trained.
    #[serde(default)]
    pub parent: Option<String>,
    /// What validation found; none where it was imported.
    #[serde(default)]
    pub report: Option<Report>,
}

impl Version {
    /// What a model and its artifact say of themselves.
    pub(super) fn of(model: &Model, artifact: &[u8], source: &str, created_ms: i64) -> Self {
        let TrainParams { trees, max_samples, seed } = model.params;
        let Window { from_ms, to_ms } = model.window;
        Self {
            id: model.id.clone(),
            digest: digest_of(artifact),
            bytes: artifact.len() as u64,
            created_ms,
            from_ms,
            to_ms,
            rows: model.trained_rows,
            trees: trees as u64,
            samples: max_samples as u64,
            seed,
            contamination: model.contamination,
            source: source.to_owned(),
            parent: None,
            report: None,
        }
    }
}

/// The checksum that ends an artifact, in hexadecimal.
pub(super) fn digest_of(artifact: &[u8]) -> String {
    let checksum = artifact.last_chunk::<32>().map_or(&[] as &[u8], |checksum| checksum);
    checksum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Which model scores from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Activation {
    /// Its id.
    pub model: String,
    /// Those before it, the latest first: what rolling back goes through.
    #[serde(default)]
    pub previous: Vec<String>,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Why: `promoted`, `rolled back`, `retrained`, `first model`, `imported`.
    pub why: String,
    /// The instance that wrote it.
    pub instance: String,
}

/// A version scores beside the active one, with no effect on any verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shadowing {
    /// Its id.
    pub model: String,
    /// The model that was active when it began.
    pub beside: Option<String>,
    /// When it began, in milliseconds since the epoch.
    pub began_ms: i64,
    /// True where it scores the whole log, false where it begins at its end.
    #[serde(default)]
    pub whole_log: bool,
    /// When it is to be judged, and promoted if it passes; none where somebody decides by hand.
    #[serde(default)]
    pub promote_at_ms: Option<i64>,
    /// When it ended.
    #[serde(default)]
    pub ended_ms: Option<i64>,
    /// How it began or ended, for a person.
    pub why: String,
    /// The instance that wrote it.
    pub instance: String,
}

impl Shadowing {
    /// True until it has ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.ended_ms.is_none()
    }
}

/// What a shadow was found to do so far. Written by whoever holds partition 0 of the payments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// The model.
    pub model: String,
    /// When its shadow began: a tally of an earlier one is none of it.
    pub began_ms: i64,
    /// When it was written, in milliseconds since the epoch.
    pub at_ms: i64,
    /// By partition of the verdicts: everything below this offset is in here, once.
    pub positions: BTreeMap<u32, u64>,
    /// Beside the scores in the verdicts.
    pub comparison: Comparison,
    /// What the shadow's scores cost.
    pub cost: Cost,
    /// Beside it, on some of the same rows, what the active model's do.
    pub active_cost: Cost,
}

/// The time that scores took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Rows scored.
    pub rows: u64,
    /// Microseconds on one core, by the clock.
    pub micros: u64,
}

/// Somebody wants a retraining now. Whichever instance holds partition 0 of the payments does it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its id.
    pub id: String,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// How a retraining came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retrained {
    /// It is under way.
    Running,
    /// Too few rows.
    Skipped,
    /// The old model goes on: a check failed, or the new model is the same.
    Kept,
    /// The new model is live.
    Promoted,
    /// The new model passed, and is in shadow until it is judged by what it does there.
    Shadow,
    /// There is no candidate.
    Failed,
}

/// The last retraining, wherever it ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LastRetrain {
    /// The time or request that it was for: the schedule's, in milliseconds since the epoch.
    #[serde(default)]
    pub due_ms: Option<i64>,
    /// The request's id, where one was answered.
    #[serde(default)]
    pub request: Option<String>,
    /// When it began.
    pub began_ms: i64,
    /// When it ended.
    #[serde(default)]
    pub ended_ms: Option<i64>,
    /// How it came out.
    pub outcome: Retrained,
    /// Why, for a person.
    pub why: String,
    /// The candidate, where there is one.
    #[serde(default)]
    pub model: Option<String>,
    /// Where it ran.
    pub instance: String,
}

/// One record of the topic.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A version was registered.
    Version(Box<Version>),
    /// A version is no more.
    Gone(String),
    /// A version is active from here on.
    Active(Activation),
    /// A version is in shadow, or was.
    Shadow(Shadowing),
    /// What it was found to do.
    Tally(Box<Tally>),
    /// A retraining is wanted.
    Request(Request),
    /// A retraining has begun or ended.
    Last(LastRetrain),
}

impl Entry {
    /// From the wire; the message says what is wrong. None for keys of a later version of this program.
    pub(super) fn decode(key: &[u8], value: Option<&[u8]>) -> Option<Result<Self, String>> {
        let name = std::str::from_utf8(key).ok()?;
        if value.is_some_and(|value| value.len() > RECORD_BYTES_MAX) {
            return Some(Err(format!("has more than {RECORD_BYTES_MAX} bytes")));
        }
        let fault = |why: serde_json::Error| why.to_string();
        match name {
            ACTIVE => return Some(serde_json::from_slice(value?).map(Self::Active).map_err(fault).and_then(Self::checked)),
            REQUEST => return Some(serde_json::from_slice(value?).map(Self::Request).map_err(fault)),
            LAST => return Some(serde_json::from_slice(value?).map(Self::Last).map_err(fault)),
            _ => {}
        }
        if let Some(id) = name.strip_prefix(SHADOW) {
            let shadow = serde_json::from_slice(value?).map_err(fault);
            return Some(shadow.and_then(|shadow: Shadowing| Self::named(shadow.model == id, Self::Shadow(shadow))));
        }
        if let Some(id) = name.strip_prefix(TALLY) {
            let tally = serde_json::from_slice(value?).map_err(fault);
            return Some(tally.and_then(|tally: Box<Tally>| Self::named(tally.model == id, Self::Tally(tally))));
        }
        let id = name.strip_prefix(MODEL)?;
        let Some(value) = value else { return Some(Ok(Self::Gone(id.to_owned()))) };
        let version = serde_json::from_slice(value).map_err(fault);
        Some(version.and_then(|version: Box<Version>| Self::named(version.id == id, Self::Version(version))))
    }

    fn named(fits: bool, entry: Self) -> Result<Self, String> {
        if fits { entry.checked() } else { Err("its key names another model".to_owned()) }
    }

    /// Ids become names of files: only what an id can be is let through.
    fn checked(self) -> Result<Self, String> {
        let fits = match &self {
            Self::Version(version) => is_id(&version.id) && version.digest.starts_with(&version.id),
            Self::Active(activation) => {
                is_id(&activation.model)
                    && activation.previous.len() <= HISTORY_MAX
                    && activation.previous.iter().all(|id| is_id(id))
            }
            Self::Shadow(shadow) => is_id(&shadow.model),
            Self::Tally(tally) => is_id(&tally.model),
            Self::Gone(_) | Self::Request(_) | Self::Last(_) => true,
        };
        fits.then_some(self).ok_or_else(|| "an id is not 16 hexadecimal digits, or does not begin the digest".to_owned())
    }

    /// The key on the wire.
    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Self::Version(version) => format!("{MODEL}{}", version.id).into_bytes(),
            Self::Gone(id) => format!("{MODEL}{id}").into_bytes(),
            Self::Active(_) => ACTIVE.into(),
            Self::Shadow(shadow) => format!("{SHADOW}{}", shadow.model).into_bytes(),
            Self::Tally(tally) => format!("{TALLY}{}", tally.model).into_bytes(),
            Self::Request(_) => REQUEST.into(),
            Self::Last(_) => LAST.into(),
        }
    }

    /// The value on the wire; none is a tombstone.
    pub(super) fn value(&self) -> Option<Vec<u8>> {
        let value = match self {
            Self::Version(version) => serde_json::to_vec(version),
            Self::Active(activation) => serde_json::to_vec(activation),
            Self::Shadow(shadow) => serde_json::to_vec(shadow),
            Self::Tally(tally) => serde_json::to_vec(tally),
            Self::Request(request) => serde_json::to_vec(request),
            Self::Last(last) => serde_json::to_vec(last),
            Self::Gone(_) => return None,
        };
        Some(value.expect("invariant: text keys and finite numbers always serialise"))
    }
}

/// Whether this can be a model's id.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
