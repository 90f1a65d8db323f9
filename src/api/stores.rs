//! `GET /v1/state`: the partitions of state on this instance, with what each takes and where it stands.

use std::collections::BTreeSet;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use state::backend::{Size, StorePartition};
use topology::record::TopicPartition;
use topology::status::{Phase, TaskStatus};
use tracing::warn;

use super::call::{Answer, Call};
use super::declare::{Declared, gives};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::site::Site;

#[derive(Serialize, JsonSchema)]
struct State<'s> {
    instance: &'s str,
    partitions: Vec<Shown>,
}

/// One partition of one store.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "stored_partition")]
struct Shown {
    store: String,
    partition: u32,
    /// `active`: its task is here; `standby`: a copy that follows the changelog; `kept`: left from when its task was here.
    role: &'static str,
    /// Its task's phase; null without a task.
    phase: Option<&'static str>,
    /// Keys, as the store estimates them: deleted ones may count until they are compacted away.
    users_estimate: Option<u64>,
    /// Bytes on disk, as the store estimates them.
    bytes: Option<u64>,
    /// By input topic, the next offset that is not included.
    input_offsets: Vec<InputOffset>,
    /// The next offset of the changelog.
    changelog_offset: u64,
    /// Milliseconds since its last commit or restore; of a copy, since it was last at the changelog's end.
    age_ms: u64,
    /// The current restore; null where there is none.
    restore: Option<Restore>,
}

#[derive(Serialize, JsonSchema)]
struct InputOffset {
    topic: String,
    offset: u64,
}

#[derive(Serialize, JsonSchema)]
struct Restore {
    /// Changelog records applied.
    restored: u64,
    /// Changelog offsets still to pass.
    remaining: u64,
}

/// What the route says of itself.
pub(crate) const STATE: Declared = Declared::new(
    "Operations",
    "The partitions of state on this instance",
    &[gives::<State<'_>>(200, "What each takes and where it stands.")],
)
.problems(&[Kind::StateUnavailable]);

/// Answers the route.
pub(crate) fn state(call: &Call) -> Answer {
    let site = &*call.site;
    let api = &site.api;
    let on_disk = api.backend.partitions().map_err(|why| {
        warn!(request = call.request, %why, "the stores cannot be listed");
        Problem::new(Kind::StateUnavailable, "the stores cannot be listed")
    })?;
    let mut shown = Vec::new();
    let mut active = BTreeSet::new();
    for (task, status) in api.tasks.all() {
        for (at, spec) in api.topology.subs()[usize::from(task.sub)].stores.iter().enumerate() {
            let of = StorePartition { store: spec.name.clone(), partition: task.partition };
            shown.push(of_task(site, &of, &status, at));
            active.insert(of);
        }
    }
    shown.extend(on_disk.iter().filter(|of| !active.contains(of)).filter_map(|of| of_copy(site, of)));
    shown.sort_by(|one, other| (&one.store, one.partition).cmp(&(&other.store, other.partition)));
    Ok(Reply::json(StatusCode::OK, &State { instance: &api.instance, partitions: shown }))
}

fn of_task(site: &Site, of: &StorePartition, status: &TaskStatus, store: usize) -> Shown {
    let size = size(site, of);
    let input = |&(from, offset): &(TopicPartition, u64)| InputOffset { topic: site.topic(from.topic).to_owned(), offset };
    Shown {
        store: of.store.to_string(),
        partition: of.partition,
        role: "active",
        phase: Some(status.phase.as_str()),
        users_estimate: size.map(|size| size.keys),
        bytes: size.map(|size| size.bytes),
        input_offsets: status.inputs.iter().map(input).collect(),
        changelog_offset: status.changelogs.get(store).map_or(0, |(_, next)| *next),
        age_ms: site.age_ms(status.as_of_ms),
        restore: (status.phase == Phase::Restoring).then_some(Restore { restored: status.restored, remaining: status.remaining }),
    }
}

/// A partition without a task; none where it has just been dropped.
fn of_copy(site: &Site, of: &StorePartition) -> Option<Shown> {
    let positions = site.api.backend.positions(of).ok()??;
    let size = size(site, of);
    let api = &site.api;
    let follows = api.directory.standbys(of.partition).iter().any(|peer| peer.instance == api.instance);
    Some(Shown {
        store: of.store.to_string(),
        partition: of.partition,
        role: if follows { "standby" } else { "kept" },
        phase: None,
        users_estimate: size.map(|size| size.keys),
        bytes: size.map(|size| size.bytes),
        input_offsets: positions.inputs.into_iter().map(|(topic, offset)| InputOffset { topic, offset }).collect(),
        changelog_offset: positions.changelog,
        age_ms: site.age_ms(i64::try_from(positions.current_at_ms).unwrap_or(i64::MAX)),
        restore: None,
    })
}

fn size(site: &Site, of: &StorePartition) -> Option<Size> {
    // Not opened yet, or just dropped: that is no trouble.
    site.api.backend.size(of).ok()
}
