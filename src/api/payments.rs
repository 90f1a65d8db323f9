//! `POST /v1/transactions`, and `/tx` for short: payments into the stream.
//!
//! One payment (an object), up to [`ITEMS_MAX`] (an array), or as many as come (`application/x-ndjson`, see `lines`). Each is checked as
//! the stream will check it, so that what is accepted is scored. Accepted means durable in the broker: the answer has the verdict's
//! `id` (`topic:partition:offset`) and the `tx_id`. A `tx_id` that its user had before, within DEDUP_SECONDS, answers with the first
//! one's `id` and `duplicate: true`, and is not written again.
//!
//! `wait=verdict` (one payment only) answers 200 with the verdict as it is in the topic, within `timeout` (5 s); else 202 as without it.

use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Request, StatusCode};
use models::Verdict;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use topology::partitioner::partition_of;

use super::anywhere::{relay, says_not_here};
use super::call::{Answer, Call, Coming, is_of_type, read_body};
use super::declare::{Declared, TIMEOUT, Takes, gives, gives_other, json, parameter};
use super::document::Transaction;
use super::intake::{
    Done, IDS_READ_MAX, PASSED_ON_MAX, RETRY_S, ask, begin, destination, id, moving, no_room, outcomes, problem_of, read,
};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::trail::{self, About};
use super::{lines, parameters};
use crate::clock::{monotonic, since};
use crate::ingest::{Full, Ingest, Outcome, Payment, Ticket};
use crate::membership::Peer;
use crate::query::Wish;

/// Payments of one array.
const ITEMS_MAX: usize = 10_000;

/// A body of JSON.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "payments_order")]
#[allow(dead_code, reason = "the shape of what models::Transaction reads without a type of its own on the way")]
enum Body {
    One(Transaction),
    Several(#[schemars(length(min = 1, max = ITEMS_MAX))] Vec<Transaction>),
}

/// An answer without a verdict.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "accepted")]
#[allow(dead_code, reason = "either is written by itself")]
enum Accepted {
    One(Done),
    Several(Results),
}

/// What the route says of itself.
pub(crate) const TAKE: Declared = Declared::new(
    "Payments",
    "Takes payments into the stream",
    &[
        gives::<Verdict>(200, "The verdict, with `wait=verdict`; of lines, an answer for each."),
        gives_other(200, "application/x-ndjson", "What became of each line, with its number."),
        gives::<Accepted>(202, "Durable in the broker; each with the id of the verdict to come."),
        gives::<Results>(207, "Several, some of them refused."),
    ],
)
.details(
    "One payment, an array of them, or lines (`application/x-ndjson`), read and answered as they come. A `tx_id` that its user had \
     before, within DEDUP_SECONDS, answers with the first one's id and is not written again.",
)
.query(&[
    parameter("wait", Takes::OneOf(&["verdict"]), "Answer with the verdict itself; for one payment."),
    parameter("timeout", Takes::Pattern(TIMEOUT), "For the verdict: `250ms` or `2s`, 30 s at most; 5 s unless given."),
])
.body(&[json::<Body>(), ("application/x-ndjson", None)])
.problems(&[
    Kind::IdsNotKnown,
    Kind::NotHere,
    Kind::Moving,
    Kind::OwnerUnreachable,
    Kind::BrokerUnavailable,
]);

/// Answers the route.
pub(crate) fn take(call: Call, request: Request<Incoming>) -> Coming {
    Box::pin(async move {
        let waits = Waits::read(&call)?;
        if is_of_type(request.headers(), "application/x-ndjson") {
            waits.refuse()?;
            return lines::stream(call, request.into_body()).await;
        }
        let body = read_body(request).await?;
        if body.trim_ascii_start().first() == Some(&b'[') {
            waits.refuse()?;
            return many(&call, &body).await;
        }
        one(call, waits, body).await
    })
}

/// What the caller waits for.
#[derive(Clone, Copy, Debug)]
struct Waits {
    verdict: bool,
    began: Duration,
    limit: Duration,
}

impl Waits {
    fn read(call: &Call) -> Result<Self, Problem> {
        let (mut verdict, mut wish) = (false, Wish::default());
        for (name, value) in parameters::read(&call.query, &["wait", "timeout"])? {
            match (name, &*value) {
                ("wait", "verdict") => verdict = true,
                ("wait", _) => return Err(parameters::invalid("`wait`: expected verdict")),
                (name, value) => {
                    let wrong =
                        |why: crate::query::Unreadable| parameters::invalid(format!("`timeout`: expected {}", why.expected));
                    wish.set(name, value).map_err(wrong)?;
                }
            }
        }
        Ok(Self { verdict, began: monotonic(), limit: wish.timeout })
    }

    fn refuse(self) -> Result<(), Problem> {
        if self.verdict { Err(parameters::invalid("`wait`: goes with one payment, not with several")) } else { Ok(()) }
    }

    fn left(self) -> Duration {
        self.limit.saturating_sub(since(self.began))
    }
}

/// One payment.
async fn one(call: Call, waits: Waits, body: Bytes) -> Answer {
    let ingest = &call.site.api.ingest;
    let payment = read(&call, body.clone())?;
    if let Some(peer) = destination(&call, &payment, monotonic() + IDS_READ_MAX).await? {
        return pass_on(&call, &peer, waits, body, payment.partition).await;
    }
    let ticket = if waits.verdict { enter(ingest, &payment, waits).await? } else { None };
    let tx_id = payment.tx_id.clone();
    let about = About { status: 202, user: Some(&payment.user_id), payments: Some(1) };
    let record = trail::record(&call, about);
    let answer = ingest.submit(vec![payment], Some(record)).map_err(|Full| no_room())?;
    call.recorded.set();
    let outcome = outcomes(answer, 1).await[0];
    let Outcome::Written { partition, offset, duplicate } = outcome else { return Err(problem_of(outcome)) };
    let id = id(ingest, &call, partition, offset);
    let place = HeaderValue::from_str(&format!("/v1/verdicts/{id}"));
    if let Some(ticket) = ticket
        && let Some(verdict) = ticket.wait(partition, offset, waits.left()).await
    {
        return Ok(Reply::new(StatusCode::OK, "application/json", verdict));
    }
    let done = Done::written(None, id, tx_id, duplicate);
    let mut reply = Reply::json(StatusCode::ACCEPTED, &done);
    if let Ok(place) = place {
        reply = reply.with(LOCATION, place);
    }
    Ok(if waits.verdict { reply.with(RETRY_AFTER, RETRY_S.into()) } else { reply })
}

/// Makes sure that the verdict is not missed; none where the reader is not in place in time.
async fn enter(ingest: &Ingest, payment: &Payment, waits: Waits) -> Result<Option<Ticket>, Problem> {
    let partition = partition_of(payment.user_id.as_bytes(), ingest.config().user_partitions);
    ingest
        .verdicts()
        .enter(partition, waits.left())
        .await
        .map_err(|Full| Problem::new(Kind::TooManyRequests, "too many requests wait for verdicts already").retry_after(RETRY_S))
}

/// One payment, to the instance that remembers its partition's ids.
async fn pass_on(call: &Call, peer: &Peer, waits: Waits, body: Bytes, partition: u32) -> Answer {
    let query =
        if waits.verdict { format!("?wait=verdict&timeout={}ms", waits.left().as_millis().max(1)) } else { String::new() };
    match ask(call, peer, query, body, PASSED_ON_MAX + waits.left()).await {
        Ok(got) if says_not_here(&got) => Err(moving(partition)),
        Ok(got) => {
            // The instance that answers has recorded it, under the same request.
            call.recorded.set();
            Ok(relay(got))
        }
        Err(problem) => Err(problem),
    }
}

/// What became of an array's payments.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "payment_outcomes")]
struct Results {
    accepted: usize,
    refused: usize,
    results: Vec<Numbered>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "numbered_outcome")]
struct Numbered {
    index: usize,
    #[serde(flatten)]
    done: Done,
}

/// An array of payments.
async fn many(call: &Call, body: &Bytes) -> Answer {
    let not_json = |_| Problem::new(Kind::NotJson, "the body is not one well-formed JSON value");
    let text = std::str::from_utf8(body).map_err(|_| Problem::new(Kind::NotJson, "the body is not UTF-8"))?;
    let values: Vec<&RawValue> = serde_json::from_str(text).map_err(not_json)?;
    if !(1..=ITEMS_MAX).contains(&values.len()) {
        return Err(Problem::invalid(
            "",
            format!("an array of 1 to {ITEMS_MAX} payments is expected; send more as application/x-ndjson"),
        ));
    }
    let read = values.iter().map(|value| read(call, body.slice_ref(value.get().as_bytes()))).collect();
    let pending = begin(call, read, Duration::ZERO).await;
    if pending.has_no_room() {
        return Err(no_room());
    }
    let done = pending.finish(call).await;
    let accepted = done.iter().filter(|done| done.is_written()).count();
    let refused = done.len() - accepted;
    let results = done.into_iter().enumerate().map(|(index, done)| Numbered { index, done }).collect();
    trail::write(call, About { status: 202, user: None, payments: Some(accepted) }).await?;
    let status = if refused == 0 { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
    Ok(Reply::json(status, &Results { accepted, refused, results }))
}
