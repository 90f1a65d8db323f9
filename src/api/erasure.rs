//! `GET /v1/erasures/{id}`: the receipt of an erasure. Each place is asked anew, every time.

use std::sync::Arc;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use topology::broker::Kept;
use topology::record::TopicId;

use super::anywhere::OfPartition;
use super::call::{Answer, Call};
use super::committed::{self, Committed, Reading};
use super::copies::{self, Erased};
use super::declare::{Declared, Takes, gives, parameter};
use super::orders::{Phase, looked_up, named, phase, unavailable};
use super::problem::{Kind, Problem};
use super::receipt::{Found, Place, place};
use super::reply::Reply;
use crate::notify::entry::names_user;
use crate::orders::{Job, JobId, Left};
use crate::portrait::rfc3339;
use crate::scoring::{CommandKind, audit_topic, notifications_topic, snoozes_topic};
use crate::snoozes;

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
    let api = &call.site.api;
    let Some(user) = user else {
        return Err(Problem::new(Kind::NoSuchJob, "the records that say whom the erasure was about are gone themselves"));
    };
    let tombstone = api.orders.tombstone(id, &user).map_err(|why| unavailable(call, &why))?;
    let mut places = vec![state(call, &user, reading), changelog(call, id, &user, tombstone)?, training(job)];
    let after = job.decided.as_ref().map_or(0, |decided| decided.after);
    let changelog = call.site.topic(api.orders.changelog());
    places.extend(copies::places(
        &api.tiers,
        &Erased { user: &user, changelog, partition: id.partition, tombstone, from: id.changelog_from, after },
    ));
    places.extend(topics(call, ordered_ms(job))?);
    places.extend(compacted(call, &user)?);
    Ok(places)
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

fn changelog(call: &Call, id: &JobId, user: &str, tombstone: Option<u64>) -> Result<Place, Problem> {
    let orders = &call.site.api.orders;
    let unavailable = |why| unavailable(call, &why);
    let name = call.site.topic(orders.changelog());
    let Some(tombstone) = tombstone else {
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

/// Topics in which what is over ends with a tombstone.
fn compacted(call: &Call, user: &str) -> Result<Vec<Place>, Problem> {
    let application = call.site.api.topology.application();
    let snooze = snoozes::Kind::User.key(user);
    let snoozed = left(call, &snoozes_topic(application), |key, _| key == snooze.as_bytes(), SNOOZED)?;
    let told = left(call, &notifications_topic(application), |key, value| names_user(key, value, user), TOLD)?;
    Ok(snoozed.into_iter().chain(told).collect())
}

const SNOOZED: &str = "somebody has snoozed the user since: it ends at its time, or by `DELETE /v1/snoozes/{id}`";
const TOLD: &str = "messages that name the user are on their way or were given up: each goes when it arrives, and of those given up the \
                    oldest first";

fn left(call: &Call, name: &str, is_of: impl Fn(&[u8], &[u8]) -> bool, there: &str) -> Result<Option<Place>, Problem> {
    let Some(topic) = call.site.api.topology.topics().find(name) else { return Ok(None) };
    let left = call.site.api.orders.left(topic, is_of).map_err(|why| unavailable(call, &why))?;
    Ok(Some(match left {
        Some(Left { records: 0, before: false }) => place(name, Found::Deleted, "nothing of the user is there"),
        Some(Left { records: 0, before: true }) => {
            place(name, Found::Expiring, "tombstones end what was there; values before them go when the broker next compacts")
        }
        Some(_) => place(name, Found::Present, there),
        None => {
            place(name, Found::Expiring, "too long to look through; what tombstones ended goes when the broker next compacts")
        }
    }))
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
    let audit = audit_topic(topology.application());
    let told = |(name, kept): (&str, Option<Kept>)| {
        let place = topic(name, kept, erased_ms);
        let why = if name == audit { format!("{}; it knows users by a keyed hash only", place.why) } else { place.why };
        Place { why, ..place }
    };
    Ok(known.map(told).collect())
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
