//! Tasks as people and other instances see them, with how far they are behind.
//!
//! Lag in records: the input's end, as last heard of the broker (about a second ago), less the next offset that committed state does
//! not include. Offsets are counted, so a transaction's end in the input counts as a record.
//! Lag in seconds, of event time: 0 where no record is missing; else the time now less the largest record timestamp that committed
//! state includes. It says how old what is known has become: a replay of last year begins with a year of it. Not known before the
//! first record since the task came.

use schemars::JsonSchema;
use serde::Serialize;
use topology::record::TopicPartition;
use topology::status::TaskStatus;
use topology::topology::TaskId;

use super::site::Site;
use crate::portrait::rfc3339;

/// One task.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TaskShown<'s> {
    /// `{sub-topology}_{partition}`.
    task: String,
    sub_topology: &'s str,
    partition: u32,
    phase: &'static str,
    instance: &'s str,
    worker: usize,
    inputs: Vec<Place<'s>>,
    changelogs: Vec<Place<'s>>,
    /// Event time that its lead input is behind; null where that is not known.
    lag_seconds: Option<f64>,
    restored: u64,
    remaining: u64,
    /// When its last commit or restore ended.
    as_of: Option<String>,
    /// The largest record timestamp processed.
    stream_time: Option<String>,
    /// Since when it waits for evicted profiles that no tier gives back; null where it does not.
    waits_for_tiers_since: Option<String>,
}

/// A place in a topic.
#[derive(Serialize, JsonSchema)]
struct Place<'s> {
    topic: &'s str,
    partition: u32,
    /// The next offset.
    offset: u64,
    /// The input's end, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
    /// Records up to the end, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_records: Option<u64>,
}

/// Shows a task.
pub(crate) fn shown<'s>(site: &'s Site, task: TaskId, status: &TaskStatus) -> TaskShown<'s> {
    let place = |&(of, offset): &(TopicPartition, u64)| Place {
        topic: site.topic(of.topic),
        partition: of.partition,
        offset,
        end: site.api.health.input_end(of),
        lag_records: lag_records(site, of, offset),
    };
    let changelog = |at| Place { end: None, lag_records: None, ..place(at) };
    TaskShown {
        task: task.to_string(),
        sub_topology: site.api.topology.subs().get(usize::from(task.sub)).map_or("", |sub| &sub.name),
        partition: task.partition,
        phase: status.phase.as_str(),
        instance: &site.api.instance,
        worker: status.worker,
        inputs: status.inputs.iter().map(place).collect(),
        changelogs: status.changelogs.iter().map(changelog).collect(),
        lag_seconds: lag_seconds(site, status),
        restored: status.restored,
        remaining: status.remaining,
        as_of: rfc3339(status.as_of_ms),
        stream_time: status.stream_time_ms.and_then(rfc3339),
        waits_for_tiers_since: status.waits_for_tiers_since_ms.and_then(rfc3339),
    }
}

/// Records of an input that committed state does not include; none where its end is not known.
pub(crate) fn lag_records(site: &Site, of: TopicPartition, next: u64) -> Option<u64> {
    site.api.health.input_end(of).map(|end| end.saturating_sub(next))
}

/// Seconds of event time that a task's lead input is behind; none where that is not known.
pub(crate) fn lag_seconds(site: &Site, status: &TaskStatus) -> Option<f64> {
    let &(lead, next) = status.inputs.first()?;
    match lag_records(site, lead, next)? {
        0 => Some(0.0),
        _ => status.stream_time_ms.map(|newest_ms| site.age_ms(newest_ms) as f64 / 1e3),
    }
}
