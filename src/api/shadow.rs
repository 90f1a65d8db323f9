//! `/v1/models/{id}/shadow`: a model that scores beside the active one, and what it would have alerted.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::call::{Answer, Call};
use super::declare::{Declared, gives, json};
use super::models::{MODEL, problem};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use crate::registry::{RegistryError, Shadowing};
use crate::shadow::Summary;

/// The body; all of it may be left out.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "shadow_order")]
struct Body {
    /// `now`, or `earliest`: the whole log.
    from: Option<From>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "shadow_from")]
enum From {
    Now,
    Earliest,
}

/// What the shadow's summary says of itself.
pub(crate) const SHOW: Declared = Declared::new(
    "Models",
    "What a model in shadow would have alerted",
    &[gives::<Summary>(200, "Beside what the active model said.")],
)
.about(MODEL)
.problems(&[Kind::NoSuchModel, Kind::NoShadow]);

/// What beginning a shadow says of itself.
pub(crate) const BEGIN: Declared = Declared::new(
    "Models",
    "Lets a model score beside the active one",
    &[gives::<Shadowing>(200, "It does, without effect on any verdict.")],
)
.about(MODEL)
.body(&[json::<Body>()])
.problems(&[Kind::NoSuchModel, Kind::ShadowRefused, Kind::ArtifactUnusable, Kind::BrokerUnavailable]);

/// What ending a shadow says of itself.
pub(crate) const END: Declared =
    Declared::new("Models", "Ends a model's shadow", &[gives::<Shadowing>(200, "What it would have alerted stays known.")])
        .about(MODEL)
        .problems(&[Kind::NoSuchModel, Kind::NoShadow, Kind::BrokerUnavailable]);

/// What it would have alerted.
pub(crate) fn show(call: &Call) -> Answer {
    let view = call.site.api.registry.view();
    let version = view.version(&call.name).ok_or_else(|| problem(call, &RegistryError::Unknown))?;
    let shadow = view.shadow(&call.name).ok_or_else(|| problem(call, &RegistryError::NoShadow))?;
    Ok(Reply::json(StatusCode::OK, &Summary::of(version, shadow, view.tally(shadow))))
}

/// Begins it, or begins it anew.
pub(crate) fn begin(call: &Call) -> Answer {
    let body = if call.body.is_empty() { Ok(Body::default()) } else { serde_json::from_slice(&call.body) };
    let body: Body = body.map_err(|why| {
        if why.is_data() {
            Problem::invalid("/from", "expected now or earliest, and nothing else")
        } else {
            Problem::new(Kind::NotJson, "the body is not one well-formed JSON value")
        }
    })?;
    let whole_log = body.from == Some(From::Earliest);
    let registry = &call.site.api.registry;
    let begun = registry.begin_shadow(&call.name, whole_log, None, "asked for").map_err(|why| problem(call, &why))?;
    Ok(Reply::json(StatusCode::OK, &begun))
}

/// Ends it; what it would have alerted stays known.
pub(crate) fn end(call: &Call) -> Answer {
    let ended = call.site.api.registry.end_shadow(&call.name, "ended by hand").map_err(|why| problem(call, &why))?;
    Ok(Reply::json(StatusCode::OK, &ended))
}
