//! `POST /v1/transactions`, and `/tx` for short: payments into the stream.
//!
//! One payment (an object), up to [`ITEMS_MAX`] (an array), or as many as come (`application/x-ndjson`, see `lines`). Each is checked as
//! the stream will check it, so that what is accepted is scored. Accepted means durable in the broker: the answer has the verdict's
//! `id` (`topic:partition:offset`) and the `tx_id`. A `tx_id` that its user had before, within DEDUP_SECONDS, answers with the first
//! one's `id` and `duplicate: true`, and is not written again.
//!
//! `wait=verdict` (one payment only) answers 200 with the verdict as it is in the topic, within `timeout` (5 s); else 202 as without it.
//!
//! Ids are remembered by one instance for each partition; payments that have one are passed on to it. Where it is not known or
//! does not answer, they are refused (503) rather than written without being looked up.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{HeaderMap, Request, StatusCode};
use models::{Cause, InvalidTransaction, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::oneshot;
use tokio::time::timeout;
use topology::partitioner::partition_of;

use super::anywhere::{relay, says_not_here};
use super::call::{Answer, Call, Coming, read_body};
use super::document::{Declared, TIMEOUT, Takes, Transaction, gives, gives_other, json, parameter};
use super::inference::{NO_RATE, OUT_OF_RANGE_CONVERTED};
use super::problem::{self, Kind, Problem};
use super::reply::Reply;
use super::trail::{self, About};
use super::{lines, parameters};
use crate::clock::{monotonic, since};
use crate::ingest::{self, Full, Home, Ingest, Outcome, Payment, Refused, Ticket};
use crate::membership::Peer;
use crate::query::{Asked, Failed, Got, Wish};
use crate::scoring::Unconvertible;

/// Payments of one array.
const ITEMS_MAX: usize = 10_000;
/// For the broker to acknowledge.
const ACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// For another instance to answer.
const PASSED_ON_MAX: Duration = Duration::from_secs(12);
/// For transaction ids to be read back from the topic, once per request.
const IDS_READ_MAX: Duration = Duration::from_secs(2);
/// When to come again, in seconds.
const RETRY_S: u16 = 1;

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
        if is(request.headers(), "application/x-ndjson") {
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

/// True where the body is of this type.
fn is(headers: &HeaderMap, kind: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind)
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

/// Reads a payment.
pub(super) fn read(call: &Call, value: Bytes) -> Result<Payment, Problem> {
    let api = &call.site.api;
    let payment = Payment::read(value, api.clock.now_ms(), &api.params, api.ingest.config().partitions);
    payment.map_err(|why| match why {
        Refused::Invalid(why) => refused(&why),
        Refused::Unconvertible(Unconvertible::Currency) => Problem::invalid("/currency", NO_RATE),
        Refused::Unconvertible(Unconvertible::Amount) => Problem::invalid("/amount", OUT_OF_RANGE_CONVERTED),
    })
}

/// What the reader refused. Its words hold no part of the value.
fn refused(why: &InvalidTransaction) -> Problem {
    let pointer = match why.field {
        Some("user_id") => "/user_id",
        Some("amount") => "/amount",
        Some("merchant") => "/merchant",
        Some("tx_id") => "/tx_id",
        Some("currency") => "/currency",
        Some("timestamp") => "/timestamp",
        _ => "",
    };
    match why.cause {
        Cause::NotJson | Cause::NotUtf8 | Cause::Empty => Problem::new(Kind::NotJson, why.to_string()),
        Cause::TooLarge => Problem::new(Kind::BodyTooLarge, why.to_string()),
        Cause::FarFuture => Problem::invalid(pointer, "timestamp: is later than now by more than is allowed (MAX_FUTURE_MS)"),
        _ => Problem::invalid(pointer, why.to_string()),
    }
}

/// Where a payment is to be written: here, at another instance, or nowhere at the moment. Ids that are being read are waited for, until
/// that moment of the process.
async fn destination(call: &Call, payment: &Payment, until: Duration) -> Result<Option<Peer>, Problem> {
    let of = payment.partition;
    match call.site.api.ingest.settled_home_of(payment, until).await {
        Home::Here => Ok(None),
        Home::There(_) if call.hop => {
            Err(Problem::new(Kind::NotHere, format!("the ids of partition {of} are not remembered here")).retry_after(RETRY_S))
        }
        Home::There(peer) => Ok(Some(peer)),
        Home::Reading => {
            Err(Problem::new(Kind::IdsNotKnown, format!("the ids of partition {of} are being read")).retry_after(RETRY_S))
        }
        Home::Nowhere => Err(moving(of)),
    }
}

fn moving(partition: u32) -> Problem {
    Problem::new(Kind::Moving, format!("no instance is known to remember the ids of partition {partition}")).retry_after(RETRY_S)
}

fn no_room() -> Problem {
    Problem::new(Kind::TooManyRequests, "the broker does not keep up with the payments that wait already").retry_after(RETRY_S)
}

/// The problem that an outcome is; none where the payment is written.
fn problem_of(outcome: Outcome) -> Problem {
    let unavailable = |detail: &'static str| Problem::new(Kind::BrokerUnavailable, detail).retry_after(RETRY_S);
    match outcome {
        Outcome::TooLarge => Problem::new(Kind::BodyTooLarge, "the payment is larger than its topic takes"),
        Outcome::Moving => {
            Problem::new(Kind::IdsNotKnown, "the partition's ids are not known here at the moment").retry_after(RETRY_S)
        }
        Outcome::NotWritten => unavailable("nothing was written"),
        Outcome::Unsure | Outcome::Written { .. } => {
            unavailable("the payment may have been written: sent again under the same tx_id it is not written twice")
        }
    }
}

/// What the thread that writes says, within bounds.
async fn outcomes(answer: oneshot::Receiver<ingest::Answer>, count: usize) -> Vec<Outcome> {
    match timeout(ACKNOWLEDGED_MAX, answer).await {
        Ok(Ok(answer)) if answer.outcomes.len() == count => answer.outcomes,
        _ => vec![Outcome::Unsure; count],
    }
}

fn id(ingest: &Ingest, call: &Call, partition: u32, offset: u64) -> String {
    format!("{}:{partition}:{offset}", call.site.topic(ingest.config().transactions))
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
    let done = Done {
        status: None,
        tx_id: Some(tx_id.unwrap_or_else(|| id.clone())),
        id: Some(id),
        duplicate: Some(duplicate),
        problem: None,
    };
    let mut reply = Reply::json(StatusCode::ACCEPTED, &done);
    if let Ok(place) = place {
        reply = reply.with(LOCATION, place);
    }
    Ok(if waits.verdict { reply.with(hyper::header::RETRY_AFTER, RETRY_S.into()) } else { reply })
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

async fn ask(call: &Call, peer: &Peer, query: String, body: Bytes, limit: Duration) -> Result<Got, Problem> {
    let asked = Asked {
        method: hyper::Method::POST,
        target: format!("{}{query}", call.path),
        id: call.request.clone(),
        authorization: call.authorization.clone(),
        body,
    };
    call.site.peers.ask(peer, &asked, limit).await.map_err(|why| match why {
        Failed::Busy => Problem::new(Kind::TooManyRequests, "too many requests are being passed on").retry_after(RETRY_S),
        _ => {
            let detail = "the instance that remembers the partition's ids gives no answer: sent again under the same tx_id the payment is \
                          not written twice";
            Problem::new(Kind::OwnerUnreachable, detail).retry_after(RETRY_S)
        }
    })
}

/// What became of one payment, as the caller is told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "payment_outcome")]
pub(super) struct Done {
    /// None where the whole answer has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<problem::Body<'static>>")]
    problem: Option<Box<RawValue>>,
}

impl Done {
    pub(super) fn refused(call: &Call, problem: &Problem) -> Self {
        let status = Some(problem.kind().status().as_u16());
        let problem =
            to_raw_value(&problem.body(&call.request)).expect("invariant: our own shapes have text keys and plain values");
        Self { status, id: None, tx_id: None, duplicate: None, problem: Some(problem) }
    }

    pub(super) fn is_written(&self) -> bool {
        self.id.is_some()
    }
}

/// Payments that are on their way: their order in the topic is settled.
pub(super) struct Pending {
    done: Vec<Option<Done>>,
    /// Those written here: place among all, and `tx_id`.
    here: Vec<(usize, Option<String>)>,
    answer: Result<Option<oneshot::Receiver<ingest::Answer>>, Full>,
}

/// Sends payments on their way, each to its place; waits for room as long as `patience`. Payments of one instance keep their order,
/// within a call and from call to call.
pub(super) async fn begin(call: &Call, read: Vec<Result<Payment, Problem>>, patience: Duration) -> Pending {
    let mut done: Vec<Option<Done>> = Vec::with_capacity(read.len());
    let (mut here, mut payments) = (Vec::new(), Vec::with_capacity(read.len()));
    let mut there: BTreeMap<String, (Peer, Vec<(usize, Bytes)>)> = BTreeMap::new();
    let until = monotonic() + IDS_READ_MAX;
    for (at, read) in read.into_iter().enumerate() {
        let destined = match read {
            Ok(payment) => destination(call, &payment, until).await.map(|to| (to, payment)),
            Err(problem) => Err(problem),
        };
        done.push(match destined {
            Err(problem) => Some(Done::refused(call, &problem)),
            Ok((None, payment)) => {
                here.push((at, payment.tx_id.clone()));
                payments.push(payment);
                None
            }
            Ok((Some(peer), payment)) => {
                let (_, theirs) = there.entry(peer.instance.clone()).or_insert((peer, Vec::new()));
                theirs.push((at, payment.value));
                None
            }
        });
    }
    let answer =
        if payments.is_empty() { Ok(None) } else { call.site.api.ingest.submit_within(payments, patience).await.map(Some) };
    for (peer, theirs) in there.into_values() {
        for (at, told) in batch_there(call, &peer, theirs).await {
            done[at] = Some(told);
        }
    }
    Pending { done, here, answer }
}

/// A batch for another instance: what it says of each.
async fn batch_there(call: &Call, peer: &Peer, theirs: Vec<(usize, Bytes)>) -> Vec<(usize, Done)> {
    #[derive(Deserialize)]
    struct Told {
        results: Vec<Done>,
    }
    let mut body = Vec::with_capacity(theirs.iter().map(|(_, value)| value.len() + 1).sum::<usize>() + 2);
    for (_, value) in &theirs {
        body.push(if body.is_empty() { b'[' } else { b',' });
        body.extend_from_slice(value);
    }
    body.push(b']');
    let told = match ask(call, peer, String::new(), body.into(), PASSED_ON_MAX).await {
        Ok(got) if got.status.is_success() => {
            serde_json::from_slice::<Told>(&got.body).map(|told| told.results).map_err(|_| None)
        }
        Ok(got) => Err(Some(got)),
        Err(problem) => {
            let done = Done::refused(call, &problem);
            return theirs.into_iter().map(|(at, _)| (at, done.clone())).collect();
        }
    };
    match told {
        Ok(results) if results.len() == theirs.len() => theirs.into_iter().map(|(at, _)| at).zip(results).collect(),
        told => {
            let problem = match told {
                Err(Some(got)) if got.status == StatusCode::TOO_MANY_REQUESTS => no_room(),
                _ => problem_of(Outcome::Unsure),
            };
            let done = Done::refused(call, &problem);
            theirs.into_iter().map(|(at, _)| (at, done.clone())).collect()
        }
    }
}

impl Pending {
    /// Waits until it is known what became of each.
    pub(super) async fn finish(mut self, call: &Call) -> Vec<Done> {
        let outcomes = match self.answer {
            Ok(None) => Vec::new(),
            Ok(Some(answer)) => outcomes(answer, self.here.len()).await.into_iter().map(Ok).collect(),
            Err(Full) => vec![Err(Full); self.here.len()],
        };
        for ((at, tx_id), outcome) in self.here.into_iter().zip(outcomes) {
            self.done[at] = Some(match outcome {
                Ok(Outcome::Written { partition, offset, duplicate }) => {
                    let id = id(&call.site.api.ingest, call, partition, offset);
                    let tx_id = Some(tx_id.unwrap_or_else(|| id.clone()));
                    Done { status: Some(202), id: Some(id), tx_id, duplicate: Some(duplicate), problem: None }
                }
                Ok(outcome) => Done::refused(call, &problem_of(outcome)),
                Err(Full) => Done::refused(call, &no_room()),
            });
        }
        self.done.into_iter().map(|done| done.expect("invariant: each is refused, written here or passed on")).collect()
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
    if pending.answer.is_err() && pending.here.len() == values.len() {
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

/// The line of an answer in lines.
pub(super) fn write_line(line: u64, done: &Done, into: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Numbered<'d> {
        line: u64,
        #[serde(flatten)]
        done: &'d Done,
    }
    let numbered = Numbered { line, done };
    serde_json::to_writer(&mut *into, &numbered).expect("invariant: our own shapes have text keys and plain values");
    into.push(b'\n');
}
