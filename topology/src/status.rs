//! What an instance's tasks are doing, for queries, probes and people: written by workers at transitions and commits, read by anyone.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::record::TopicPartition;
use crate::topology::TaskId;

/// A task's place in its life; the chart is in the header of `task.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its stores are being brought up to date.
    Restoring,
    /// It processes.
    Running,
    /// It waits for a commit's fate to be known; its stores are brought up to date next.
    Suspended,
}

impl Phase {
    /// As in answers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restoring => "restoring",
            Self::Running => "running",
            Self::Suspended => "suspended",
        }
    }
}

/// A task as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// Where it is in its life.
    pub phase: Phase,
    /// The worker that has it.
    pub worker: usize,
    /// By input: the next offset that the committed state does not include.
    pub inputs: Vec<(TopicPartition, u64)>,
    /// By store: the changelog position the committed state stands at.
    pub changelogs: Vec<(TopicPartition, u64)>,
    /// Changelog records applied in the current restore.
    pub restored: u64,
    /// Changelog offsets still to be passed in the current restore.
    pub remaining: u64,
    /// Changelog offsets passed per second in the current restore; 0 where there is none.
    pub rate_per_second: u64,
    /// Seconds until the current restore ends at that rate; none where there is none, or nothing is known yet.
    pub eta_seconds: Option<u64>,
    /// When its last commit or restore ended, in milliseconds since the epoch.
    pub as_of_ms: i64,
    /// The largest record timestamp processed, in milliseconds since the epoch.
    pub stream_time_ms: Option<i64>,
}

/// All tasks of an instance.
#[derive(Debug, Default)]
pub struct Tasks(Mutex<BTreeMap<TaskId, TaskStatus>>);

impl Tasks {
    /// A copy of everything.
    #[must_use]
    pub fn all(&self) -> BTreeMap<TaskId, TaskStatus> {
        self.lock().clone()
    }

    /// One task, if this instance has it.
    #[must_use]
    pub fn get(&self, task: TaskId) -> Option<TaskStatus> {
        self.lock().get(&task).cloned()
    }

    pub(crate) fn set(&self, task: TaskId, status: TaskStatus) {
        self.lock().insert(task, status);
    }

    pub(crate) fn remove(&self, task: TaskId) {
        self.lock().remove(&task);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, TaskStatus>> {
        // A worker that panicked left whole entries behind: each change is one insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
