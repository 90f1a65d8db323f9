//! A user's profile as the instance has committed it, and where it stands.
//!
//! Read from the store itself, which never shows what is not committed (I2): of a task while it runs here, or of a copy that follows
//! the changelog. An absent profile is believed only of a running task's store that has its positions: one that is just being dropped
//! looks empty and is not, and a copy may be older than the user (I5).

use std::sync::Arc;

use state::backend::{BackendError, Peeked, Positions, StorePartition};
use state::store::decode_kept;
use state::tier::Held;
use topology::partitioner::partition_of;
use topology::status::{Phase, TaskStatus};
use topology::topology::TaskId;
use tracing::{debug, error};

use super::call::Call;
use super::problem::{Kind, Problem};
use super::site::Site;
use super::standing::{Position, Standing};
use crate::scoring::UserProfile;

/// When to come again while a partition is restored or not far enough, in seconds.
const RETRY_RESTORING_S: u16 = 2;
const RETRY_BEHIND_S: u16 = 1;
/// Bytes of a user's id.
const USER_ID_BYTES_MAX: usize = 256;

/// The source of what a copy has.
pub(crate) const STANDBY: &str = "standby";

/// What is to be read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// Whose profile.
    pub(crate) user: Arc<str>,
    /// What the answer says of where it is from: `local` and `owner` are a running task's state, `standby` is a copy's,
    /// `redis` and `postgres` are the tiers'.
    pub(crate) source: &'static str,
    /// The next input offset that it must have reached.
    pub(crate) min: u64,
    /// What a tier has of the user, where one was asked.
    pub(crate) held: Option<Held>,
}

/// A user's committed profile; none where the user has none.
pub(crate) struct Committed {
    pub(crate) profile: Option<UserProfile>,
    pub(crate) standing: Standing,
}

/// A user's id as a payment can have it.
pub(crate) fn checked(user_id: String) -> Result<String, Problem> {
    if (1..=USER_ID_BYTES_MAX).contains(&user_id.len()) {
        return Ok(user_id);
    }
    let detail = format!("the id has {} bytes instead of 1 to {USER_ID_BYTES_MAX}", user_id.len());
    Err(Problem::new(Kind::InvalidUserId, detail))
}

/// Reads a user's profile.
pub(crate) fn read(call: &Call, reading: &Reading) -> Result<Committed, Problem> {
    let site = &*call.site;
    let partition = partition_of(reading.user.as_bytes(), site.profiles.partitions);
    if let Some(held) = &reading.held {
        return of_tier(call, reading, held);
    }
    let from = StorePartition { store: site.profiles.store.clone(), partition };
    let is_copy = reading.source == STANDBY;
    // Before the value, so that the value is at least as new as the position says.
    let mut standing = if is_copy {
        of_copy(site, &from).map_err(|why| unreadable(call, &from, &why))?
    } else {
        of_task(site, partition, &running(site, partition)?, reading.source)
    };
    if standing.position.input_offset < reading.min {
        return Err(behind(partition, standing.position.input_offset, reading.min).about(standing));
    }
    match value(site, &from, reading.user.as_bytes()) {
        Ok(None) if is_copy => {
            let detail = "the copy has no such user; only the partition's owner knows whether there is one";
            Err(Problem::new(Kind::StateUnavailable, detail).about(standing).retry_after(RETRY_BEHIND_S))
        }
        Ok(found) => {
            let (profile, from) = found.unzip();
            // What is evicted is the value that stands here: only where it lies is another place.
            standing.source = from.flatten().unwrap_or(standing.source);
            Ok(Committed { profile, standing })
        }
        Err(BackendError::Away { what, .. }) => {
            debug!(request = call.request, store = %from, what, "an evicted profile could not be brought back");
            let detail = "the user was idle for long, and the tier that keeps the profile gives no answer at the moment";
            Err(Problem::new(Kind::StateUnavailable, detail).about(standing).retry_after(RETRY_BEHIND_S))
        }
        Err(why) => {
            if !is_copy {
                // Taken away in the middle of the request: that has its own answer.
                running(site, partition)?;
            }
            Err(unreadable(call, &from, &why))
        }
    }
}

/// As [`read`] of a running task's state, where nothing has to be waited for and the user is there; none where it is not so simple.
pub(crate) fn at_hand(call: &Call, reading: &Reading) -> Option<Committed> {
    if reading.held.is_some() || reading.source == STANDBY {
        return None;
    }
    let site = &*call.site;
    let partition = partition_of(reading.user.as_bytes(), site.profiles.partitions);
    // As in `read`: the position before the value.
    let standing = of_task(site, partition, &running(site, partition).ok()?, reading.source);
    if standing.position.input_offset < reading.min {
        return None;
    }
    let from = StorePartition { store: site.profiles.store.clone(), partition };
    let Ok(Peeked::Here(Some(bytes))) = site.api.backend.peek(&from, reading.user.as_bytes()) else { return None };
    let (_, profile) = decode_kept(&bytes).ok()?;
    Some(Committed { profile: Some(profile), standing })
}

fn unreadable(call: &Call, from: &StorePartition, why: &BackendError) -> Problem {
    error!(request = call.request, store = %from, %why, "a profile could not be read");
    Problem::new(Kind::StateUnavailable, format!("partition {} could not be read", from.partition))
}

/// The task that holds the partition, where it can answer.
pub(crate) fn running(site: &Site, partition: u32) -> Result<TaskStatus, Problem> {
    let task = TaskId { sub: site.profiles.sub, partition };
    let Some(status) = site.api.tasks.get(task) else {
        let problem = Problem::new(Kind::NotHere, format!("partition {partition} is not on this instance"));
        return Err(problem.retry_after(RETRY_BEHIND_S));
    };
    match status.phase {
        Phase::Running => Ok(status),
        Phase::Restoring | Phase::Suspended => Err(restoring(partition, status.remaining)),
    }
}

/// The partition is being restored.
pub(crate) fn restoring(partition: u32, remaining: u64) -> Problem {
    let detail = format!("partition {partition} is being restored, {remaining} records remain");
    Problem::new(Kind::Restoring, detail).retry_after(RETRY_RESTORING_S)
}

/// The partition has not reached the position that was asked for.
fn behind(partition: u32, next: u64, min: u64) -> Problem {
    let detail = format!("partition {partition} is at input position {next}, and {min} was asked for");
    Problem::new(Kind::PositionNotReached, detail).retry_after(RETRY_BEHIND_S)
}

/// The profile, and the tier that it had to be brought back from.
type Valued = Option<(UserProfile, Option<&'static str>)>;

fn value(site: &Site, from: &StorePartition, key: &[u8]) -> Result<Valued, BackendError> {
    let backend = &site.api.backend;
    match backend.get_from(from, key)? {
        Some((bytes, tier)) => {
            let kept = decode_kept::<UserProfile>(&bytes);
            let (_, profile) = kept.map_err(|why| BackendError::Corrupt { partition: from.clone(), what: why.to_string() })?;
            Ok(Some((profile, tier)))
        }
        None if backend.positions(from)?.is_none() => Err(BackendError::Unusable(format!("{from} has no positions"))),
        None => Ok(None),
    }
}

fn of_task(site: &Site, partition: u32, status: &TaskStatus, source: &'static str) -> Standing {
    let stores = &site.api.topology.subs()[usize::from(site.profiles.sub)].stores;
    let changelog = stores.iter().find(|store| store.name == site.profiles.store).map(|store| store.changelog);
    let changelog = status.changelogs.iter().find(|(of, _)| Some(of.topic) == changelog);
    Standing {
        position: Position {
            partition,
            input_offset: status.inputs.first().map_or(0, |(_, next)| *next),
            changelog_offset: changelog.map_or(0, |(_, next)| *next),
        },
        source,
        age_ms: site.age_ms(status.as_of_ms),
    }
}

/// What a tier has. It knows nothing of records after the last one that touched the profile: its position is that of this record.
fn of_tier(call: &Call, reading: &Reading, held: &Held) -> Result<Committed, Problem> {
    let Ok((marks, profile)) = decode_kept::<UserProfile>(&held.value) else {
        error!(request = call.request, tier = reading.source, "a profile in the tier has no version that is known here");
        return Err(Problem::new(Kind::StateUnavailable, "the tier's profile could not be read"));
    };
    let standing = Standing {
        position: Position { partition: held.partition, input_offset: marks.0[0], changelog_offset: held.guard.offset + 1 },
        source: reading.source,
        age_ms: call.site.age_ms(held.at_ms),
    };
    if standing.position.input_offset < reading.min {
        return Err(behind(held.partition, standing.position.input_offset, reading.min).about(standing));
    }
    Ok(Committed { profile: Some(profile), standing })
}

/// Where a copy stands, by the positions beside its data.
fn of_copy(site: &Site, from: &StorePartition) -> Result<Standing, BackendError> {
    let positions = site.api.backend.positions(from)?;
    let positions = positions.ok_or_else(|| BackendError::Unusable(format!("{from} has no positions")))?;
    Ok(Standing {
        position: Position {
            partition: from.partition,
            input_offset: lead_position(site, &positions),
            changelog_offset: positions.changelog,
        },
        source: STANDBY,
        age_ms: site.age_ms(i64::try_from(positions.current_at_ms).unwrap_or(i64::MAX)),
    })
}

/// The next offset of the lead input that a store includes, as far as it knows.
pub(crate) fn lead_position(site: &Site, positions: &Positions) -> u64 {
    let lead = site.topic(site.api.topology.subs()[usize::from(site.profiles.sub)].lead());
    positions.inputs.iter().find(|(topic, _)| topic == lead).map_or(0, |(_, next)| *next)
}
