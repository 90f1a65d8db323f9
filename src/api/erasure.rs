//! `GET /v1/erasures/{id}`: the receipt of an erasure. Each place is asked anew, every time.

use std::sync::Arc;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use topology::broker::Kept;
use topology::record::TopicId;

use super::anywhere::OfPartition;
use super::committed::{self, Committed, Reading};
use super::document::{Declared, Takes, gives, parameter};
use super::orders::{Phase, looked_up, named, phase, unavailable};
use super::problem::{Kind, Problem};
use super::profile::rfc3339;
use super::reply::Reply;
use super::routes::{Answer, Call};
use crate::orders::{Job, JobId};
use crate::scoring::CommandKind;

/// What was found of the user in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Found {
    /// Nothing is there.
    Deleted,
    /// What is there goes by itself: by a topic's retention, or at its next compaction.
    Expiring,
    /// What is there stays, as the place is set up.
    Kept,
    /// Something is there: payments came after the erasure, or it has not got there yet.
    Present,
    /// The place did not answer.
    Unreachable,
}

/// One place.
#[derive(Serialize, JsonSchema)]
struct Place {
    /// `state`, `training`, or a topic's name.
    place: String,
    found: Found,
    /// When all of it is gone at the latest, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// What is known of it, for a person.
    why: String,
}

/// The receipt of an erasure.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "receipt")]
struct Receipt {
    job_id: String,
    status: Phase,
    /// When the erasure was ordered.
    ordered_at: Option<String>,
    /// When the places were asked: just now.
    checked_at: Option<String>,
    /// Every place; none before the erasure is done.
    places: Vec<Place>,
}

/// What the route says of itself.
pub(crate) const RECEIPT: Declared =
    Declared::new("Users", "The receipt of an erasure", &[gives::<Receipt>(200, "Every place, asked anew.")])
        .about(parameter("job_id", Takes::Text(160), "The erasure's job id."))
        .problems(&[Kind::NoSuchJob, Kind::BrokerUnavailable]);

/// The route.
pub(crate) const HANDLER: OfPartition = OfPartition { partition: |call| Ok(erasure(call)?.partition), read: show };

fn erasure(call: &Call) -> Result<JobId, Problem> {
    let job = named(call)?;
    if job.kind == CommandKind::Erase { Ok(job) } else { Err(Problem::new(Kind::NoSuchJob, "the job is a reset")) }
}

fn show(call: &Call, reading: &Reading) -> Answer {
    let id = erasure(call)?;
    let job = looked_up(call, &id)?;
    let status = phase(call, &id, &job, reading)?;
    let places = if status == Phase::Done { places(call, &id, &job, reading)? } else { Vec::new() };
    let receipt = Receipt {
        job_id: id.to_string(),
        status,
        ordered_at: rfc3339(ordered_ms(&job)),
        checked_at: rfc3339(call.site.api.clock.now_ms()),
        places,
    };
    Ok(Reply::json(StatusCode::OK, &receipt))
}

fn ordered_ms(job: &Job) -> i64 {
    let command = job.command.as_ref().map(|command| command.at_ms);
    command.or(job.decided.as_ref().map(|decided| decided.at_ms)).unwrap_or_default()
}

fn places(call: &Call, id: &JobId, job: &Job, reading: &Reading) -> Result<Vec<Place>, Problem> {
    let command = job.command.as_ref().map(|command| command.user_id.clone());
    let user = command.or_else(|| job.decided.as_ref()?.user_id.clone());
    let Some(user) = user else {
        return Err(Problem::new(Kind::NoSuchJob, "the records that say whom the erasure was about are gone themselves"));
    };
    let mut places = vec![state(call, &user, reading), changelog(call, id, &user)?, training(job)];
    places.extend(topics(call, ordered_ms(job))?);
    Ok(places)
}

fn place(place: &str, found: Found, why: impl Into<String>) -> Place {
    Place { place: place.to_owned(), found, until: None, why: why.into() }
}

/// The owner's store, or a copy where one is read.
fn state(call: &Call, user: &str, reading: &Reading) -> Place {
    let reading = Reading { user: Arc::from(user), ..reading.clone() };
    match committed::read(call, &reading) {
        Ok(Committed { profile: None, .. }) => place("state", Found::Deleted, "the partition's owner has no such user"),
        Ok(Committed { profile: Some(profile), .. }) => {
            let first = profile.0.first_seen_ms().and_then(rfc3339).unwrap_or_default();
            place("state", Found::Present, format!("{} payments came since, the first of {first}", profile.0.seen()))
        }
        Err(_) => place("state", Found::Unreachable, "the partition's owner cannot tell"),
    }
}

fn changelog(call: &Call, id: &JobId, user: &str) -> Result<Place, Problem> {
    let orders = &call.site.api.orders;
    let unavailable = |why| unavailable(call, &why);
    let name = call.site.topic(orders.changelog());
    let Some(tombstone) = orders.tombstone(id, user).map_err(unavailable)? else {
        return Ok(place(name, Found::Deleted, "the tombstone itself is gone by now, and all before it went first"));
    };
    let why = format!("a tombstone at partition {}, offset {tombstone} ends it", id.partition);
    Ok(match orders.remains(id, user, tombstone).map_err(unavailable)? {
        Some(false) => place(name, Found::Deleted, format!("{why}, and nothing is left before it")),
        Some(true) => place(name, Found::Expiring, format!("{why}; values before it go when the broker next compacts")),
        None => {
            place(name, Found::Expiring, format!("{why}; values before it, if any are left, go when the broker next compacts"))
        }
    })
}

fn training(job: &Job) -> Place {
    let after = job.decided.as_ref().map_or(0, |decided| decided.after);
    let why = format!("trainings leave out all payments of the user before input offset {after}; models hold no user's data");
    place("training", Found::Deleted, why)
}

/// Topics keep what they were given until it expires.
fn topics(call: &Call, erased_ms: i64) -> Result<Vec<Place>, Problem> {
    let api = &call.site.api;
    let topology = &api.topology;
    let without_users = |topic: TopicId| topology.globals().contains(&topic) || topology.members() == Some(topic);
    let others: Vec<TopicId> = topology.topics().iter().map(|(topic, _)| topic).collect();
    let others: Vec<TopicId> =
        others.into_iter().filter(|&topic| !without_users(topic) && topic != api.orders.changelog()).collect();
    let told = api.orders.describe(&others).map_err(|why| unavailable(call, &why))?;
    let known = others.into_iter().zip(told).filter_map(|(topic, info)| Some((call.site.topic(topic), info?.kept)));
    Ok(known.map(|(name, kept)| topic(name, kept, erased_ms)).collect())
}

fn topic(name: &str, kept: Option<Kept>, erased_ms: i64) -> Place {
    let Some(Kept { retention_ms, roll_ms, compacted }) = kept else {
        return place(name, Found::Unreachable, "the broker does not tell how long the topic keeps its records");
    };
    match retention_ms {
        Some(retention_ms) => {
            let left_ms = i64::try_from(retention_ms.saturating_add(roll_ms)).unwrap_or(i64::MAX);
            let until = rfc3339(erased_ms.saturating_add(left_ms));
            let why = format!("by retention: {retention_ms} ms, and {roll_ms} ms at most until their segment is closed");
            Place { until, ..place(name, Found::Expiring, why) }
        }
        None if compacted => place(name, Found::Kept, "the topic keeps the last record of each key"),
        None => place(name, Found::Kept, "the topic keeps all records: retention.ms lets them go"),
    }
}
