//! `/v1/models`: the versions there are, which one scores, and going over to another.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::error;

use super::call::{Answer, Call};
use super::declare::{Declared, Parameter, Takes, gives, parameter};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use crate::registry::{Activation, Refusal, RegistryError, State, Version, View};

/// Seconds after which to try again when the broker did not answer.
const RETRY_S: u16 = 1;

/// A version as it is shown.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "model")]
struct Shown<'v> {
    state: State,
    #[serde(flatten)]
    version: &'v Version,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "models")]
struct List<'v> {
    /// The activation in force.
    active: Option<&'v Activation>,
    /// The model that scores on this instance; another than the active one only while `refused` says why.
    scoring: Option<String>,
    refused: Option<Refusal>,
    /// The models topic was read up to here.
    position: u64,
    models: Vec<Shown<'v>>,
}

#[derive(Serialize, JsonSchema)]
struct Active<'v> {
    active: &'v Activation,
    scoring: Option<String>,
}

fn scoring(call: &Call) -> Option<String> {
    call.site.api.registry.scoring().map(|model| model.id.clone())
}

fn shown<'v>(view: &View, version: &'v Version) -> Shown<'v> {
    Shown { state: view.state(&version.id), version }
}

/// A model, in a path.
pub(super) const MODEL: Parameter =
    parameter("model_id", Takes::Pattern("^[0-9a-f]{16}$"), "The model's id: 16 hexadecimal digits.");

/// What the list says of itself.
pub(crate) const LIST: Declared = Declared::new(
    "Models",
    "Every model, the latest first, and which one scores",
    &[gives::<List<'_>>(200, "All, without their reports.")],
);

/// What one model's route says of itself.
pub(crate) const SHOW: Declared =
    Declared::new("Models", "One model, with the report of its validation", &[gives::<Shown<'_>>(200, "The model.")])
        .about(MODEL)
        .problems(&[Kind::NoSuchModel]);

/// What promoting says of itself.
pub(crate) const PROMOTE: Declared =
    Declared::new("Models", "Makes a model the active one", &[gives::<Active<'_>>(200, "It is active; every instance follows.")])
        .about(MODEL)
        .problems(&[Kind::NoSuchModel, Kind::ArtifactUnusable, Kind::BrokerUnavailable]);

/// What going back says of itself.
pub(crate) const ROLL_BACK: Declared =
    Declared::new("Models", "Goes back to the model that was active before", &[gives::<Active<'_>>(200, "It is active again.")])
        .problems(&[Kind::NoEarlierModel, Kind::ArtifactUnusable, Kind::BrokerUnavailable]);

/// Every version, the latest first, without the reports.
pub(crate) fn list(call: &Call) -> Answer {
    let registry = &call.site.api.registry;
    let view = registry.view();
    let brief: Vec<Version> = view.versions().into_iter().map(|version| Version { report: None, ..version.clone() }).collect();
    let list = List {
        active: view.active(),
        scoring: scoring(call),
        refused: registry.refusal(),
        position: view.position(),
        models: brief.iter().map(|version| shown(&view, version)).collect(),
    };
    Ok(Reply::json(StatusCode::OK, &list))
}

/// One version, with its report.
pub(crate) fn show(call: &Call) -> Answer {
    let view = call.site.api.registry.view();
    let version = view.version(&call.name).ok_or_else(|| problem(call, &RegistryError::Unknown))?;
    Ok(Reply::json(StatusCode::OK, &shown(&view, version)))
}

/// Makes a version the active one.
pub(crate) fn promote(call: &Call) -> Answer {
    activated(call, call.site.api.registry.promote(&call.name, "promoted"))
}

/// Goes back to the version that was active before.
pub(crate) fn roll_back(call: &Call) -> Answer {
    activated(call, call.site.api.registry.roll_back())
}

fn activated(call: &Call, activation: Result<Activation, RegistryError>) -> Answer {
    let activation = activation.map_err(|why| problem(call, &why))?;
    Ok(Reply::json(StatusCode::OK, &Active { active: &activation, scoring: scoring(call) }))
}

/// What went wrong, without what the broker or the store said: the log has that.
pub(super) fn problem(call: &Call, why: &RegistryError) -> Problem {
    let kind = match why {
        RegistryError::Unknown => Kind::NoSuchModel,
        RegistryError::NoEarlier => Kind::NoEarlierModel,
        RegistryError::NoShadow => Kind::NoShadow,
        RegistryError::IsActive | RegistryError::TooManyShadows => Kind::ShadowRefused,
        // Made of our own words and the settings': whoever operates the instance needs it.
        RegistryError::Unusable(_) => Kind::ArtifactUnusable,
        RegistryError::Broker(_) | RegistryError::Pending => {
            error!(request = call.request, %why, "the models topic did not take a record");
            let detail = "the record was not written to the models topic, or is not known to be there";
            return Problem::new(Kind::BrokerUnavailable, detail).retry_after(RETRY_S);
        }
    };
    Problem::new(kind, why.to_string())
}
