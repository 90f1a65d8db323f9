//! `/v1/models/{id}/shadow`: a model that scores beside the active one, and what it would have alerted.

use hyper::StatusCode;
use serde::Deserialize;

use super::models::problem;
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::routes::{Answer, Call};
use crate::registry::RegistryError;
use crate::shadow::Summary;

/// The body; all of it may be left out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    /// `now`, or `earliest`: the whole log.
    from: Option<From>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum From {
    Now,
    Earliest,
}

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
