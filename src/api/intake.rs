//! Payments of a request, on their way to where they are written: here, or at the instance that remembers their partition's ids.
//!
//! Ids are remembered by one instance for each partition; payments that have one are passed on to it. Where it is not known or
//! does not answer, they are refused (503) rather than written without being looked up.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use models::{Cause, InvalidTransaction};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::call::Call;
use super::inference::{NO_RATE, OUT_OF_RANGE_CONVERTED};
use super::problem::{self, Kind, Problem};
use crate::clock::monotonic;
use crate::ingest::{self, Full, Home, Ingest, Outcome, Payment, Refused};
use crate::membership::Peer;
use crate::query::{Asked, Failed, Got};
use crate::scoring::Unconvertible;

/// For the broker to acknowledge.
const ACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// For another instance to answer.
pub(super) const PASSED_ON_MAX: Duration = Duration::from_secs(12);
/// For transaction ids to be read back from the topic, once per request.
pub(super) const IDS_READ_MAX: Duration = Duration::from_secs(2);
/// When to come again, in seconds.
pub(super) const RETRY_S: u16 = 1;

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
pub(super) async fn destination(call: &Call, payment: &Payment, until: Duration) -> Result<Option<Peer>, Problem> {
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

pub(super) fn moving(partition: u32) -> Problem {
    Problem::new(Kind::Moving, format!("no instance is known to remember the ids of partition {partition}")).retry_after(RETRY_S)
}

pub(super) fn no_room() -> Problem {
    Problem::new(Kind::TooManyRequests, "the broker does not keep up with the payments that wait already").retry_after(RETRY_S)
}

/// The problem that an outcome is; none where the payment is written.
pub(super) fn problem_of(outcome: Outcome) -> Problem {
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
pub(super) async fn outcomes(answer: oneshot::Receiver<ingest::Answer>, count: usize) -> Vec<Outcome> {
    match timeout(ACKNOWLEDGED_MAX, answer).await {
        Ok(Ok(answer)) if answer.outcomes.len() == count => answer.outcomes,
        _ => vec![Outcome::Unsure; count],
    }
}

/// The id of the verdict to come.
pub(super) fn id(ingest: &Ingest, call: &Call, partition: u32, offset: u64) -> String {
    format!("{}:{partition}:{offset}", call.site.topic(ingest.config().transactions))
}

pub(super) async fn ask(call: &Call, peer: &Peer, query: String, body: Bytes, limit: Duration) -> Result<Got, Problem> {
    let asked = Asked {
        method: Method::POST,
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
    /// Written under this id, which stands for a transaction's own where the payment has none.
    pub(super) fn written(status: Option<u16>, id: String, tx_id: Option<String>, duplicate: bool) -> Self {
        let tx_id = Some(tx_id.unwrap_or_else(|| id.clone()));
        Self { status, id: Some(id), tx_id, duplicate: Some(duplicate), problem: None }
    }

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
    /// True where nothing was refused or passed on, and there is no room for any of it.
    pub(super) fn has_no_room(&self) -> bool {
        self.answer.is_err() && self.here.len() == self.done.len()
    }

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
                    Done::written(Some(202), id, tx_id, duplicate)
                }
                Ok(outcome) => Done::refused(call, &problem_of(outcome)),
                Err(Full) => Done::refused(call, &no_room()),
            });
        }
        self.done.into_iter().map(|done| done.expect("invariant: each is refused, written here or passed on")).collect()
    }
}
