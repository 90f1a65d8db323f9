//! A user's profile as the instance has committed it, and where it stands.
//!
//! Read from the store itself, which never shows what is not committed (I2), and only while the partition runs here. An absent
//! profile is believed only of a store that has its positions: one that is just being dropped looks empty and is not (I5).

use serde::Serialize;
use state::backend::{BackendError, StorePartition};
use state::store::decode_kept;
use topology::partitioner::partition_of;
use topology::status::{Phase, TaskStatus};
use topology::topology::TaskId;
use tracing::{debug, error};

use super::problem::{Kind, Problem};
use super::routes::Call;
use super::site::Site;
use crate::scoring::UserProfile;

/// When to come again while a partition is restored, in seconds.
const RETRY_RESTORING_S: u16 = 2;
/// Bytes of a user's id.
const USER_ID_BYTES_MAX: usize = 256;

/// Which committed state an answer is about.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Standing {
    position: Position,
    /// Where it was read.
    source: &'static str,
    /// Milliseconds since the partition's last commit or restore.
    age_ms: u64,
}

/// Everything before these offsets is in the answer; what was being committed at that moment may be, too.
#[derive(Clone, Debug, Serialize)]
struct Position {
    /// The user's partition.
    partition: u32,
    /// The next offset of the input.
    input_offset: u64,
    /// The next offset of the store's changelog.
    changelog_offset: u64,
}

/// A user's committed profile; none where the user has none.
pub(crate) struct Committed {
    pub(crate) profile: Option<UserProfile>,
    pub(crate) standing: Standing,
}

/// Reads a user's profile.
pub(crate) fn read(call: &Call, user_id: &str) -> Result<Committed, Problem> {
    let site = &*call.site;
    if !(1..=USER_ID_BYTES_MAX).contains(&user_id.len()) {
        return Err(Problem::new(
            Kind::InvalidUserId,
            format!("the id has {} bytes instead of 1 to {USER_ID_BYTES_MAX}", user_id.len()),
        ));
    }
    if tracing::enabled!(tracing::Level::DEBUG) {
        debug!(request = call.request, user = site.hash_of(user_id), "reads a profile");
    }
    let partition = partition_of(user_id.as_bytes(), site.profiles.partitions);
    // Before the value, so that the value is at least as new as the position says.
    let status = running(site, partition)?;
    let from = StorePartition { store: site.profiles.store.clone(), partition };
    let profile = match value(site, &from, user_id.as_bytes()) {
        Ok(profile) => profile,
        Err(why) => {
            // Taken away in the middle of the request: that has its own answer.
            running(site, partition)?;
            error!(request = call.request, store = %from, %why, "a profile could not be read");
            return Err(Problem::new(Kind::StateUnavailable, format!("partition {partition} could not be read")));
        }
    };
    Ok(Committed { profile, standing: standing(site, partition, &status) })
}

/// The task that holds the partition, where it can answer.
fn running(site: &Site, partition: u32) -> Result<TaskStatus, Problem> {
    let task = TaskId { sub: site.profiles.sub, partition };
    let Some(status) = site.api.tasks.get(task) else {
        return Err(Problem::new(Kind::NotHere, format!("partition {partition} is not on this instance")));
    };
    match status.phase {
        Phase::Running => Ok(status),
        Phase::Restoring | Phase::Suspended => {
            let remaining = status.remaining;
            let detail = format!("partition {partition} is being restored, {remaining} records remain");
            Err(Problem::new(Kind::Restoring, detail).retry_after(RETRY_RESTORING_S))
        }
    }
}

fn value(site: &Site, from: &StorePartition, key: &[u8]) -> Result<Option<UserProfile>, BackendError> {
    let backend = &site.api.backend;
    match backend.get(from, key)? {
        Some(bytes) => {
            let kept = decode_kept::<UserProfile>(&bytes);
            let (_, profile) = kept.map_err(|why| BackendError::Corrupt { partition: from.clone(), what: why.to_string() })?;
            Ok(Some(profile))
        }
        None if backend.positions(from)?.is_none() => Err(BackendError::Unusable(format!("{from} has no positions"))),
        None => Ok(None),
    }
}

fn standing(site: &Site, partition: u32, status: &TaskStatus) -> Standing {
    let stores = &site.api.topology.subs()[usize::from(site.profiles.sub)].stores;
    let changelog = stores.iter().find(|store| store.name == site.profiles.store).map(|store| store.changelog);
    let changelog = status.changelogs.iter().find(|(of, _)| Some(of.topic) == changelog);
    Standing {
        position: Position {
            partition,
            input_offset: status.inputs.first().map_or(0, |(_, next)| *next),
            changelog_offset: changelog.map_or(0, |(_, next)| *next),
        },
        source: "local",
        age_ms: site.api.clock.now_ms().saturating_sub(status.as_of_ms).max(0).unsigned_abs(),
    }
}
