//! `/v1/live` and `/v1/recent`: the latest figures and verdicts, from memory or from the end of the topic. No database is needed for them;
//! what is older is in the topic, and in the cold tier where there is one.

use hyper::StatusCode;
use models::features::{FEATURE_NAMES, FEATURES};
use models::{Severity, Verdict};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::call::{Answer, Call};
use super::declare::{Declared, Parameter, Takes, gives, parameter};
use super::parameters::{self, invalid};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::stream::{MIN_SCORE, OF_USER, SEVERITY, narrow, unreadable};
use crate::live::{Look, Second, Seen, View};
use crate::tap::Filter;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

#[derive(Serialize)]
struct Figures<'s> {
    /// Figures by second, oldest first: since somebody watches, of the last 15 minutes.
    seconds: Vec<&'s Second>,
}

/// A verdict and where it lies.
#[derive(Serialize)]
struct Shown<'s> {
    partition: u32,
    offset: u64,
    verdict: &'s RawValue,
}

#[derive(Serialize)]
struct List<'s> {
    /// The newest first.
    verdicts: Vec<Shown<'s>>,
    /// True where there are, or may be, older ones.
    more: bool,
}

#[derive(Serialize)]
struct One<'s> {
    #[serde(flatten)]
    shown: Shown<'s>,
    /// What each feature did to the score: by how many steps it shortened (above 0) or lengthened (below) the mean path of the forest.
    /// Null where the model that judged is no longer the one that scores.
    contributions: Option<Vec<Contribution>>,
}

#[derive(Serialize, JsonSchema)]
struct Contribution {
    feature: &'static str,
    contribution: f64,
}

fn shown(seen: &Seen) -> Shown<'_> {
    Shown { partition: seen.partition, offset: seen.offset, verdict: &seen.json }
}

/// The answers as they are documented; verdicts and figures go out as the bytes that they came as.
#[derive(JsonSchema)]
#[schemars(rename = "live")]
#[allow(dead_code, reason = "written from bytes")]
struct FiguresShown {
    /// Figures by second, oldest first: since somebody watches, of the last 15 minutes.
    seconds: Vec<Map<String, Value>>,
}

#[derive(JsonSchema)]
#[schemars(rename = "recent_verdict")]
#[allow(dead_code, reason = "written from bytes")]
struct VerdictShown {
    partition: u32,
    offset: u64,
    verdict: Verdict,
}

#[derive(JsonSchema)]
#[schemars(rename = "recent_verdicts")]
#[allow(dead_code, reason = "written from bytes")]
struct ListShown {
    /// The newest first.
    verdicts: Vec<VerdictShown>,
    /// True where there are, or may be, older ones.
    more: bool,
}

#[derive(JsonSchema)]
#[schemars(rename = "recent_verdict_explained")]
#[allow(dead_code, reason = "written from bytes")]
struct OneShown {
    #[schemars(flatten)]
    shown: VerdictShown,
    /// What each feature did to the score; null where the model that judged is no longer the one that scores.
    contributions: Option<Vec<Contribution>>,
}

const LIMIT: Parameter = parameter("limit", Takes::Number(1, LIMIT_MAX as i64), "Verdicts at most; 100 unless given.");

/// What the figures say of themselves.
pub(crate) const FIGURES: Declared = Declared::new(
    "Live",
    "Figures by second, of the last quarter of an hour",
    &[gives::<FiguresShown>(200, "Since somebody watches.")],
)
.problems(&[Kind::TopicUnreadable]);

/// What the list says of itself.
pub(crate) const LIST: Declared = Declared::new("Live", "The latest verdicts", &[gives::<ListShown>(200, "The newest first.")])
    .query(&[SEVERITY, OF_USER, MIN_SCORE, LIMIT])
    .problems(&[Kind::TopicUnreadable]);

/// What one verdict says of itself.
pub(crate) const SHOW: Declared = Declared::new(
    "Live",
    "One of the latest verdicts, explained",
    &[gives::<OneShown>(200, "The verdict, and what each feature did.")],
)
.about(parameter("verdict_id", Takes::Text(300), "The verdict's id."))
.problems(&[Kind::NoSuchVerdict, Kind::TopicUnreadable]);

/// `GET /v1/live`.
pub(crate) fn figures(call: &Call) -> Answer {
    let seconds = call.site.api.live.view(|view| view.seconds.clone()).map_err(|why| unreadable(call, &why))?;
    Ok(Reply::json(StatusCode::OK, &Figures { seconds: seconds.iter().map(AsRef::as_ref).collect() }))
}

/// `GET /v1/recent/verdicts`: with `user` the last ones of that user, read from the topic; else those kept in memory.
pub(crate) fn list(call: &Call) -> Answer {
    let (mut filter, mut limit) = (Filter::default(), LIMIT_DEFAULT);
    for (name, value) in parameters::read(&call.query, &["severity", "user", "min_score", "limit"])? {
        if !narrow(&mut filter, name, &value)? {
            let given = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
            limit = given.ok_or_else(|| invalid(format!("`limit`: expected 1 to {LIMIT_MAX}")))?;
        }
    }
    let live = &call.site.api.live;
    let look = match filter.user.clone() {
        Some(user) => live.of_user(&user, &filter, limit),
        None => live.view(|view| newest(view, &filter, limit)),
    };
    let Look { found, more, .. } = look.map_err(|why| unreadable(call, &why))?;
    Ok(Reply::json(StatusCode::OK, &List { verdicts: found.iter().rev().map(|seen| shown(seen)).collect(), more }))
}

fn newest(view: &View, filter: &Filter, limit: usize) -> Look {
    let from = if filter.severity > Severity::None { &view.anomalies } else { &view.recent };
    let mut found: Vec<_> = from.iter().rev().filter(|seen| filter.takes(&seen.verdict)).take(limit + 1).cloned().collect();
    let more = found.len() > limit || from.len() == crate::live::KEPT;
    found.truncate(limit);
    Look { found: found.into_iter().rev().collect(), more, ..Look::default() }
}

/// `GET /v1/recent/verdicts/{id}`.
pub(crate) fn show(call: &Call) -> Answer {
    let live = &call.site.api.live;
    let kept = live.view(|view| {
        let mut all = view.anomalies.iter().rev().chain(view.recent.iter().rev());
        all.find(|seen| seen.verdict.id == call.name).cloned()
    });
    let found = match kept.map_err(|why| unreadable(call, &why))? {
        Some(seen) => Some(seen),
        None => {
            // A user's payments and verdicts are in partitions of the same number.
            let partition = call.name.rsplit(':').nth(1).and_then(|number| number.parse().ok());
            let partition = partition.ok_or_else(|| Problem::new(Kind::NoSuchVerdict, "an id is topic:partition:offset"))?;
            live.find(&call.name, partition).map_err(|why| unreadable(call, &why))?.found.pop_back()
        }
    };
    let seen = found.ok_or_else(|| Problem::new(Kind::NoSuchVerdict, "no verdict of this id is among the last ones"))?;
    Ok(Reply::json(StatusCode::OK, &One { shown: shown(&seen), contributions: contributions(call, &seen.verdict) }))
}

fn contributions(call: &Call, verdict: &Verdict) -> Option<Vec<Contribution>> {
    let model = call.site.api.model.get().filter(|model| Some(&model.id) == verdict.model_id.as_ref())?;
    let mut steps = [0.0; FEATURES];
    model.forest.contributions(&verdict.features, &mut steps);
    let of = |(&feature, contribution)| Contribution { feature, contribution };
    Some(FEATURE_NAMES.iter().zip(steps).map(of).collect())
}
