//! `DELETE /v1/users/{id}/profile`, `POST /v1/users/{id}/erase` and `GET /v1/jobs/{id}`: resets and erasures, as jobs.
//!
//! Any instance takes an order: it goes to `commands` and takes effect where the user's partition is. Any instance tells how far a job is,
//! too, by asking that partition's owner: `done` means that the owner's committed state has it, so that what is read from then on is
//! what the order left.

use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use schemars::JsonSchema;
use serde::Serialize;
use state::backend::StorePartition;
use topology::broker::BrokerError;
use topology::partitioner::partition_of;
use topology::topology::TaskId;
use tracing::{error, info};

use super::anywhere::OfPartition;
use super::call::{Answer, Call};
use super::committed::{self, Reading};
use super::declare::{Declared, Parameter, Takes, USER, gives, parameter};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::site::Site;
use crate::orders::{Job, JobId};
use crate::portrait::rfc3339;
use crate::scoring::CommandKind;

/// Seconds after which to try again when the broker did not answer.
const RETRY_S: u16 = 1;

/// An order that was taken.
#[derive(Serialize, JsonSchema)]
struct Ordered {
    job_id: String,
    kind: CommandKind,
    /// Where to look how far it is.
    status: String,
    /// Where its receipt is, of an erasure.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
    /// The user's partition.
    partition: u32,
    /// The offset of its record in the topic of commands.
    command_offset: u64,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Its command is written; the partition's owner has not come to it.
    Queued,
    /// It is decided; the owner's committed state does not have it yet.
    Running,
    /// The owner's committed state has it.
    Done,
}

/// A job.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "job")]
struct Shown {
    job_id: String,
    kind: CommandKind,
    status: Phase,
    /// When it was ordered; null once the topic of commands no longer keeps its record.
    ordered_at: Option<String>,
    /// Where it took effect; null while it has not.
    position: Option<Effect>,
    /// Where its receipt is, of an erasure.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
}

/// Where an order took effect.
#[derive(Serialize, JsonSchema)]
struct Effect {
    partition: u32,
    /// The offset of its record in the topic of commands.
    command_offset: Option<u64>,
    /// The payments' next offset at that moment: those below were scored before, all others after.
    input_offset: u64,
    /// The offset of the decision's record.
    decision_offset: u64,
}

/// What resetting says of itself.
pub(crate) const RESET: Declared = Declared::new(
    "Users",
    "Lets a user's profile begin anew",
    &[gives::<Ordered>(202, "It will be; `status` is where to look.")],
)
.details(
    "The reset takes effect in the user's partition, in some order to the payments that are under way; the job says in which.",
)
.about(USER)
.problems(&[Kind::InvalidUserId, Kind::BrokerUnavailable]);

/// What erasing says of itself.
pub(crate) const ERASE: Declared =
    Declared::new("Users", "Erases a user", &[gives::<Ordered>(202, "It will be; `receipt` lists every place.")])
        .details(
            "Reaches local state, its copies, the changelog, training data, Redis, and the rows of Postgres; ends the user's snooze. What lies in \
             topics goes by their retention. Payments that come afterwards begin a new profile.",
        )
        .about(USER)
        .problems(&[Kind::InvalidUserId, Kind::BrokerUnavailable]);

const JOB_ID: Parameter = parameter("job_id", Takes::Text(160), "The job's id.");

/// What a job's route says of itself.
pub(crate) const JOB: Declared = Declared::new("Users", "How far a reset or an erasure is", &[gives::<Shown>(200, "The job.")])
    .about(JOB_ID)
    .problems(&[Kind::NoSuchJob, Kind::BrokerUnavailable]);

/// Answers `DELETE /v1/users/{id}/profile`.
pub(crate) fn reset(call: &Call) -> Answer {
    order(call, CommandKind::Reset)
}

/// Answers `POST /v1/users/{id}/erase`.
pub(crate) fn erase(call: &Call) -> Answer {
    order(call, CommandKind::Erase)
}

fn order(call: &Call, kind: CommandKind) -> Answer {
    let site = &*call.site;
    let user = committed::checked(call.name.clone())?;
    let partition = partition_of(user.as_bytes(), site.profiles.partitions);
    if kind == CommandKind::Erase {
        site.api.snoozes.forget(&user).map_err(|why| {
            error!(request = call.request, %why, "a user's snooze could not be ended");
            Problem::new(Kind::BrokerUnavailable, "the user's snooze could not be ended; nothing was ordered")
                .retry_after(RETRY_S)
        })?;
    }
    let given = site.api.orders.give(kind, &user, partition, site.api.clock.now_ms());
    let given = given.map_err(|why| unavailable(call, &why))?;
    let job_id = given.job.to_string();
    info!(request = call.request, user = site.hash_of(&user), kind = kind.as_str(), job = job_id, "ordered");
    let ordered = Ordered {
        status: format!("/v1/jobs/{job_id}"),
        receipt: receipt(&given.job),
        job_id,
        kind,
        partition,
        command_offset: given.command_offset,
    };
    let reply = Reply::json(StatusCode::ACCEPTED, &ordered);
    let status = HeaderValue::from_str(&ordered.status).expect("invariant: a job's id is plain");
    Ok(reply.with(LOCATION, status))
}

fn receipt(job: &JobId) -> Option<String> {
    (job.kind == CommandKind::Erase).then(|| format!("/v1/erasures/{job}"))
}

/// The broker did not do its part.
pub(super) fn unavailable(call: &Call, why: &BrokerError) -> Problem {
    error!(request = call.request, %why, "the broker did not do what an order needs");
    Problem::new(Kind::BrokerUnavailable, "the broker did not answer, or not surely").retry_after(RETRY_S)
}

/// The job that a path names.
pub(super) fn named(call: &Call) -> Result<JobId, Problem> {
    let unknown = || Problem::new(Kind::NoSuchJob, "no job has this id");
    let job: JobId = call.name.parse().map_err(|_| unknown())?;
    if job.partition < call.site.profiles.partitions { Ok(job) } else { Err(unknown()) }
}

/// The job as the topics tell it.
pub(super) fn looked_up(call: &Call, id: &JobId) -> Result<Job, Problem> {
    let job = call.site.api.orders.look(id).map_err(|why| unavailable(call, &why))?;
    job.ok_or_else(|| Problem::new(Kind::NoSuchJob, "no command and no decision of this id are in the topics"))
}

/// How far it is, where its partition is read.
pub(super) fn phase(call: &Call, id: &JobId, job: &Job, reading: &Reading) -> Result<Phase, Problem> {
    let Some(decided) = &job.decided else { return Ok(Phase::Queued) };
    let Some(offset) = decided.command_offset else { return Ok(Phase::Done) };
    let next = commands_position(&call.site, id.partition, reading)?;
    Ok(if next.is_some_and(|next| next > offset) { Phase::Done } else { Phase::Running })
}

/// The next command that committed state does not include; none where it has seen no command.
fn commands_position(site: &Site, partition: u32, reading: &Reading) -> Result<Option<u64>, Problem> {
    let sub = &site.api.topology.subs()[usize::from(site.profiles.sub)];
    let topic = sub.inputs[1];
    if reading.source == committed::STANDBY {
        let of = StorePartition { store: site.profiles.store.clone(), partition };
        let positions = site.api.backend.positions(&of).ok().flatten();
        let next = positions.and_then(|at| at.inputs.iter().find(|(name, _)| name == site.topic(topic)).map(|(_, next)| *next));
        return Ok(next);
    }
    committed::running(site, partition)?;
    let status = site.api.tasks.get(TaskId { sub: site.profiles.sub, partition });
    Ok(status.and_then(|status| status.inputs.iter().find(|(of, _)| of.topic == topic).map(|(_, next)| *next)))
}

/// The route of jobs.
pub(crate) const HANDLER: OfPartition = OfPartition { partition: |call| Ok(named(call)?.partition), read: show };

fn show(call: &Call, reading: &Reading) -> Answer {
    let id = named(call)?;
    let job = looked_up(call, &id)?;
    let effect = job.decided.as_ref().map(|decided| Effect {
        partition: id.partition,
        command_offset: decided.command_offset,
        input_offset: decided.after,
        decision_offset: decided.offset,
    });
    let shown = Shown {
        job_id: id.to_string(),
        kind: id.kind,
        status: phase(call, &id, &job, reading)?,
        ordered_at: job.command.as_ref().and_then(|command| rfc3339(command.at_ms)),
        position: effect,
        receipt: receipt(&id),
    };
    Ok(Reply::json(StatusCode::OK, &shown))
}
