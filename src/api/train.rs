//! `/v1/train` and `/v1/retrain`: trainings as jobs, and the daily one.

use std::path::PathBuf;

use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use models::forest::{SAMPLES_MAX, TREES_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::{Answer, Call};
use super::declare::{Declared, Takes, gives, json, parameter};
use super::models::problem;
use super::problem::{Kind, Problem};
use super::reply::Reply;
use crate::training::jobs::{Order, Promotion, Source};
use crate::training::{SAMPLES, Span, TREES};

/// Seconds after which the queue may have room again.
const RETRY_S: u16 = 10;

/// The body; all of it may be left out.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "training_order")]
struct Body {
    /// `verdicts` (their topic), `postgres`, or `csv` with `file`.
    source: Option<String>,
    file: Option<PathBuf>,
    window: Option<Window>,
    trees: Option<usize>,
    samples: Option<usize>,
    contamination: Option<f64>,
    seed: Option<u64>,
    /// Goes live where every check passes.
    promote: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Window {
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    last_days: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct Accepted {
    job_id: String,
    status: String,
}

/// What ordering a training says of itself.
pub(crate) const ORDER: Declared =
    Declared::new("Models", "Orders a training", &[gives::<Accepted>(202, "Its job; `status` is where to look.")])
        .body(&[json::<Body>()])
        .problems(&[Kind::TooManyRequests]);

/// What a job's route says of itself.
pub(crate) const JOB: Declared =
    Declared::new("Models", "How far a training is", &[gives::<crate::training::jobs::Job>(200, "The job.")])
        .about(parameter("job_id", Takes::Text(64), "The job's id."))
        .problems(&[Kind::NoSuchJob]);

/// What the retrain's status says of itself.
pub(crate) const RETRAIN_STATUS: Declared = Declared::new(
    "Models",
    "When the daily retrain is due, and how the last one went",
    &[gives::<crate::retraining::Status>(200, "How it is.")],
);

/// What asking for a retraining says of itself.
pub(crate) const TRIGGER: Declared =
    Declared::new("Models", "Asks for a retraining now, wherever it is done", &[gives::<Accepted>(202, "It will be done.")])
        .problems(&[Kind::BrokerUnavailable]);

/// Takes an order for a training.
pub(crate) fn order(call: &Call) -> Answer {
    let api = &call.site.api;
    let order = read(&call.body, api.retraining.contamination())?;
    if order.source == Source::Postgres && api.tiers.cold.is_none() {
        return Err(Problem::invalid("/source", "there is no Postgres: DATABASE_URL is not set"));
    }
    let job_id = api.jobs.submit(order, api.clock.now_ms()).map_err(|_| {
        Problem::new(Kind::TooManyRequests, "four trainings are waiting already: one runs at a time").retry_after(RETRY_S)
    })?;
    Ok(accepted(&Accepted { status: format!("/v1/train/{job_id}"), job_id }))
}

fn accepted(job: &Accepted) -> Reply {
    let reply = Reply::json(StatusCode::ACCEPTED, job);
    match HeaderValue::from_str(&job.status) {
        Ok(status) => reply.with(LOCATION, status),
        Err(_) => reply,
    }
}

fn read(body: &[u8], contamination: f64) -> Result<Order, Problem> {
    let body: Body = if body.is_empty() {
        Body::default()
    } else {
        // A sequence would pass for a body with every part left out.
        if body.trim_ascii_start().first() == Some(&b'[') {
            return Err(Problem::invalid("", "a JSON object is expected"));
        }
        serde_json::from_slice(body).map_err(|why| {
            if why.is_data() {
                Problem::invalid(
                    "",
                    "expected are source, file, window {from_ms, to_ms | last_days}, trees, samples, contamination, seed and promote, \
                     each of its own type",
                )
            } else {
                Problem::new(Kind::NotJson, "the body is not one well-formed JSON value")
            }
        })?
    };
    let order = Order {
        source: source(body.source.as_deref(), body.file)?,
        span: span(body.window)?,
        trees: body.trees.unwrap_or(TREES),
        samples: body.samples.unwrap_or(SAMPLES),
        seed: body.seed.unwrap_or(42),
        contamination: body.contamination.unwrap_or(contamination),
        promotion: if body.promote { Promotion::IfPassed } else { Promotion::ByHand },
        why: "trained",
    };
    if !(1..=TREES_MAX).contains(&order.trees) {
        return Err(Problem::invalid("/trees", format!("expected 1 to {TREES_MAX}")));
    }
    if !(2..=SAMPLES_MAX).contains(&order.samples) {
        return Err(Problem::invalid("/samples", format!("expected 2 to {SAMPLES_MAX}")));
    }
    if !(order.contamination > 0.0 && order.contamination <= 0.5) {
        return Err(Problem::invalid("/contamination", "expected a share above 0, at most 0.5"));
    }
    Ok(order)
}

fn source(name: Option<&str>, file: Option<PathBuf>) -> Result<Source, Problem> {
    match (name.unwrap_or(if file.is_some() { "csv" } else { "verdicts" }), file) {
        ("verdicts", None) => Ok(Source::Verdicts),
        ("csv", Some(file)) => Ok(Source::Csv(file)),
        ("postgres", None) => Ok(Source::Postgres),
        ("verdicts" | "postgres", Some(_)) => Err(Problem::invalid("/file", "a file goes with the source csv")),
        ("csv", None) => Err(Problem::invalid("/file", "the source csv needs a file, named relative to TRAINING_DIR")),
        _ => Err(Problem::invalid("/source", "expected verdicts, postgres or csv")),
    }
}

fn span(window: Option<Window>) -> Result<Span, Problem> {
    match window {
        None => Ok(Span::All),
        Some(Window { from_ms: None, to_ms: None, last_days: Some(days) }) if days > 0 => Ok(Span::LastDays(days)),
        Some(Window { from_ms, to_ms, last_days: None }) => {
            let (from_ms, to_ms) = (from_ms.unwrap_or(i64::MIN), to_ms.unwrap_or(i64::MAX));
            if from_ms < to_ms {
                Ok(Span::Between { from_ms, to_ms })
            } else {
                Err(Problem::invalid("/window", "from_ms must lie before to_ms"))
            }
        }
        Some(_) => Err(Problem::invalid("/window", "expected from_ms and to_ms, or last_days of 1 or more")),
    }
}

/// How far a training is.
pub(crate) fn job(call: &Call) -> Answer {
    let job = call.site.api.jobs.get(&call.name);
    let job = job.ok_or_else(|| Problem::new(Kind::NoSuchJob, "this instance knows no training of this id"))?;
    Ok(Reply::json(StatusCode::OK, &job))
}

/// When the daily retrain is due, and how the last one went.
pub(crate) fn retrain_status(call: &Call) -> Answer {
    Ok(Reply::json(StatusCode::OK, &call.site.api.retraining.status()))
}

/// Asks for a retraining now, wherever it is done.
pub(crate) fn trigger(call: &Call) -> Answer {
    let request = call.site.api.registry.request_retrain().map_err(|why| problem(call, &why))?;
    let accepted = Accepted { job_id: request, status: "/v1/retrain/status".to_owned() };
    Ok(self::accepted(&accepted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_body_may_be_left_out() {
        let order = read(b"", 0.01).unwrap();
        assert_eq!((order.trees, order.samples, order.promotion), (TREES, SAMPLES, Promotion::ByHand));
        assert_eq!((order.source, order.span), (Source::Verdicts, Span::All));
        let body = br#"{"file":"june.csv","window":{"from_ms":1,"to_ms":2},"trees":7,"samples":64,"contamination":0.02,"seed":5,"promote":true}"#;
        let order = read(body, 0.01).unwrap();
        assert_eq!(order.source, Source::Csv("june.csv".into()));
        assert_eq!(order.span, Span::Between { from_ms: 1, to_ms: 2 });
        assert_eq!((order.trees, order.samples, order.contamination, order.seed), (7, 64, 0.02, 5));
        assert_eq!(order.promotion, Promotion::IfPassed);
        assert_eq!(read(br#"{"source":"postgres"}"#, 0.01).unwrap().source, Source::Postgres);
        assert_eq!(read(br#"{"window":{"last_days":3}}"#, 0.01).unwrap().span, Span::LastDays(3));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for body in [
            &br#"{"trees":0}"#[..],
            br#"{"trees":10001}"#,
            br#"{"samples":1}"#,
            br#"{"contamination":0}"#,
            br#"{"contamination":0.6}"#,
            br#"{"source":"postgres","file":"a.csv"}"#,
            br#"{"source":"verdicts","file":"a.csv"}"#,
            br#"{"source":"csv"}"#,
            br#"{"source":"elsewhere"}"#,
            br#"{"window":{"from_ms":2,"to_ms":2}}"#,
            br#"{"window":{"from_ms":2,"last_days":2}}"#,
            br#"{"window":{"last_days":0}}"#,
            br#"{"tree":3}"#,
            br#"[]"#,
            br#"{"#,
        ] {
            assert!(read(body, 0.01).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }
}
