//! `/v1/labels`, `/v1/quality` and `/v1/snoozes`: what people found out, how good verdicts were by it, and who is left alone.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::error;

use super::call::{Answer, Call};
use super::declare::{Declared, Takes, gives, json, parameter};
use super::parameters;
use super::problem::{Kind, Problem};
use super::reply::Reply;
use crate::labels::{Finding, Label, LabelsError, Moment, Named, Quality};
use crate::snoozes::{self, SNOOZE_MS_MAX, Snooze, SnoozeError, TEXT_BYTES_MAX};

/// Seconds after which to try again.
const RETRY_S: u16 = 1;
/// Days that quality looks back, where nobody says otherwise, and the most.
const DAYS: i64 = 30;
const DAYS_MAX: i64 = 3_660;
/// Figures are made anew after so long.
const FRESH_MS: i64 = 30_000;
const HOUR_MS: i64 = 3_600_000;

fn ms(time: &Moment, pointer: &'static str) -> Result<i64, Problem> {
    time.ms().ok_or_else(|| Problem::invalid(pointer, "expected milliseconds since the epoch, or a time of RFC 3339"))
}

/// Who says it: the caller's token, so that nobody speaks in another's name; a name in the body comes behind it, since one token may act
/// for several people. Without tokens there is only what the body says.
fn said_by(call: &Call, given: Option<String>) -> Result<Option<String>, Problem> {
    if given.as_ref().is_some_and(String::is_empty) {
        return Err(Problem::invalid("/by", "a text of 1 byte or more is expected"));
    }
    Ok(match (&call.actor, given) {
        (None, given) => given,
        (Some(token), None) => Some(token.clone()),
        (Some(token), Some(given)) => Some(format!("{token}: {given}")),
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "label_order")]
struct LabelBody {
    verdict_id: Option<String>,
    tx_id: Option<String>,
    user_id: Option<String>,
    label: Finding,
    /// By whom; behind the name of the caller's token, where it has one.
    by: Option<String>,
    /// Why, or how: for people. At most 2,000 bytes.
    reason: Option<String>,
    /// When it was found out; now, where it is missing.
    at: Option<Moment>,
}

#[derive(Serialize, JsonSchema)]
struct Labelled {
    /// The label's own id.
    id: String,
    #[serde(flatten)]
    label: Label,
}

fn body<T: for<'b> Deserialize<'b>>(call: &Call, expected: &'static str) -> Result<T, Problem> {
    // A sequence would pass for an object.
    if call.body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::invalid("", expected));
    }
    serde_json::from_slice(&call.body).map_err(|why| {
        if why.is_data() {
            Problem::invalid("", expected)
        } else {
            Problem::new(Kind::NotJson, "the body is not one well-formed JSON value")
        }
    })
}

/// What labelling says of itself.
pub(crate) const LABEL: Declared = Declared::new(
    "Labels",
    "Says what a payment was: a fraud, or legitimate",
    &[gives::<Labelled>(201, "The label, as it is kept.")],
)
.details("Which payment: a verdict's id, or the user's id and the payment's own. A later label supersedes an earlier one.")
.body(&[json::<LabelBody>()])
.problems(&[Kind::NoSuchVerdict, Kind::BrokerUnavailable]);

/// What the quality of verdicts says of itself.
pub(crate) const QUALITY: Declared =
    Declared::new("Labels", "How good verdicts were, by what people found out", &[gives::<Quality>(200, "By day and by model.")])
        .query(&[parameter("days", Takes::Number(1, DAYS_MAX), "Days that it looks back; 30 unless given.")])
        .problems(&[Kind::TooManyRequests, Kind::BrokerUnavailable]);

/// What snoozing says of itself.
pub(crate) const SNOOZE: Declared = Declared::new(
    "Labels",
    "Leaves a user or a merchant alone for a while",
    &[gives::<Snoozed<'_>>(201, "The snooze, with its id.")],
)
.details("Verdicts are as ever; nobody is notified of them meanwhile.")
.body(&[json::<SnoozeBody>()])
.problems(&[Kind::TooManyRequests, Kind::BrokerUnavailable]);

/// What the list of snoozes says of itself.
pub(crate) const LIST_SNOOZES: Declared =
    Declared::new("Labels", "The snoozes in force", &[gives::<Snoozes<'_>>(200, "All of them.")]);

/// What ending a snooze says of itself.
pub(crate) const END_SNOOZE: Declared =
    Declared::new("Labels", "Ends a snooze before its time", &[gives::<Ended<'_>>(200, "It is over.")])
        .about(parameter("snooze_id", Takes::Text(540), "The snooze's id, such as `user:alice`."))
        .problems(&[Kind::NoSuchSnooze, Kind::TooManyRequests, Kind::BrokerUnavailable]);

/// Takes a label.
pub(crate) fn label(call: &Call) -> Answer {
    let expected = "expected are verdict_id, or tx_id and user_id; label (fraud or legitimate); by, reason and at, each of its own \
                    type";
    let LabelBody { verdict_id, tx_id, user_id, label, by, reason, at } = body(call, expected)?;
    let api = &call.site.api;
    let now_ms = api.clock.now_ms();
    let at = at.map_or(Ok(now_ms), |at| ms(&at, "/at"))?;
    let by = said_by(call, by)?;
    let label = Label { verdict_id, tx_id, user_id, label, by, reason, at };
    let label = label.checked().map_err(|what| Problem::invalid("", what))?;
    let label = match label.verdict_id.clone() {
        Some(id) => named(call, label, &id)?,
        None => label,
    };
    let user = label.user_id.clone().expect("invariant: checked above, or named by the verdict");
    let id = api.labels.write(&user, &label, now_ms).map_err(|why| unavailable(call, &why))?;
    Ok(Reply::json(StatusCode::CREATED, &Labelled { id, label }))
}

/// The label with the user and the payment that the verdict is about.
fn named(call: &Call, label: Label, id: &str) -> Result<Label, Problem> {
    let named = call.site.api.labels.payment(id).map_err(|why| unavailable(call, &why))?;
    let Some(Named { user_id, tx_id }) = named else {
        return Err(Problem::new(Kind::NoSuchVerdict, "no payment that is still retained has this verdict"));
    };
    // A verdict of somebody else's payment is a slip that would teach the wrong thing.
    for (pointer, given, real) in [("/user_id", &label.user_id, &user_id), ("/tx_id", &label.tx_id, &tx_id)] {
        if given.as_ref().is_some_and(|given| given != real) {
            return Err(Problem::invalid(pointer, "the verdict is about another one"));
        }
    }
    Ok(Label { user_id: Some(user_id), tx_id: Some(tx_id), ..label })
}

fn unavailable(call: &Call, why: &LabelsError) -> Problem {
    match why {
        LabelsError::Busy => {
            Problem::new(Kind::TooManyRequests, "the figures are being made for somebody else").retry_after(RETRY_S)
        }
        LabelsError::Broker(_) => {
            error!(request = call.request, %why, "labels cannot be read or written");
            Problem::new(Kind::BrokerUnavailable, "the broker did not answer, or not surely").retry_after(RETRY_S)
        }
    }
}

/// How good verdicts were.
pub(crate) fn quality(call: &Call) -> Answer {
    let days = match parameters::read(&call.query, &["days"])?.first() {
        None => DAYS,
        Some((_, days)) => days
            .parse()
            .ok()
            .filter(|days| (1..=DAYS_MAX).contains(days))
            .ok_or_else(|| parameters::invalid(format!("`days` is not 1 to {DAYS_MAX}")))?,
    };
    let api = &call.site.api;
    let now_ms = api.clock.now_ms();
    let quality = api.labels.quality(now_ms - days * 24 * HOUR_MS, now_ms, FRESH_MS);
    Ok(Reply::json(StatusCode::OK, &quality.map_err(|why| unavailable(call, &why))?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "snooze_order")]
struct SnoozeBody {
    user_id: Option<String>,
    merchant: Option<String>,
    reason: String,
    by: Option<String>,
    until: Option<Moment>,
    hours: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct Snoozed<'s> {
    id: String,
    #[serde(flatten)]
    snooze: &'s Snooze,
}

#[derive(Serialize, JsonSchema)]
struct Snoozes<'s> {
    snoozes: Vec<Snoozed<'s>>,
}

fn shown(snooze: &Snooze) -> Snoozed<'_> {
    Snoozed { id: snooze.id(), snooze }
}

/// Leaves a user or a merchant alone for a while.
pub(crate) fn snooze(call: &Call) -> Answer {
    let expected = "expected are user_id or merchant; reason; until or hours; by, each of its own type";
    let given: SnoozeBody = body(call, expected)?;
    let (kind, name) = match (given.user_id, given.merchant) {
        (Some(user), None) => (snoozes::Kind::User, user),
        (None, Some(merchant)) => (snoozes::Kind::Merchant, merchant),
        _ => return Err(Problem::invalid("", "either user_id or merchant is expected")),
    };
    let from_ms = call.site.api.clock.now_ms();
    let until_ms = match (given.until, given.hours) {
        (Some(until), None) => ms(&until, "/until")?,
        (None, Some(hours)) => from_ms + i64::from(hours) * HOUR_MS,
        _ => return Err(Problem::invalid("", "either until or hours is expected")),
    };
    if !(from_ms + 1..=from_ms + SNOOZE_MS_MAX).contains(&until_ms) {
        return Err(Problem::invalid("/until", "the end must lie ahead, at most ten years"));
    }
    let by = said_by(call, given.by)?;
    let snooze = Snooze { kind, name, reason: given.reason, by, from_ms, until_ms };
    for (pointer, text) in [("", Some(&snooze.name)), ("/reason", Some(&snooze.reason)), ("/by", snooze.by.as_ref())] {
        if text.is_some_and(|text| text.is_empty() || text.len() > TEXT_BYTES_MAX) {
            return Err(Problem::invalid(pointer, "a text of 1 to 512 bytes is expected"));
        }
    }
    call.site.api.snoozes.begin(&snooze).map_err(|why| refused(call, &why))?;
    Ok(Reply::json(StatusCode::CREATED, &shown(&snooze)))
}

/// Those in force.
pub(crate) fn list_snoozes(call: &Call) -> Answer {
    let all = call.site.api.snoozes.list();
    Ok(Reply::json(StatusCode::OK, &Snoozes { snoozes: all.iter().map(shown).collect() }))
}

/// Ends one before its time.
pub(crate) fn end_snooze(call: &Call) -> Answer {
    call.site.api.snoozes.end(&call.name).map_err(|why| refused(call, &why))?;
    Ok(Reply::json(StatusCode::OK, &Ended { id: &call.name, ended: true }))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "snooze_ended")]
struct Ended<'c> {
    id: &'c str,
    ended: bool,
}

fn refused(call: &Call, why: &SnoozeError) -> Problem {
    match why {
        SnoozeError::Unknown => Problem::new(Kind::NoSuchSnooze, why.to_string()),
        SnoozeError::TooMany => Problem::new(Kind::TooManyRequests, why.to_string()),
        SnoozeError::Broker(_) | SnoozeError::Pending => {
            error!(request = call.request, %why, "the snoozes topic did not take a record");
            let detail = "the record was not written to the snoozes topic, or is not known to be there";
            Problem::new(Kind::BrokerUnavailable, detail).retry_after(RETRY_S)
        }
    }
}
