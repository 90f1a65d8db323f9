//! What an instance's tasks are doing, for queries, probes and people: written by workers at transitions and commits, read by anyone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// Since when an input waits for evicted values that no tier gives, in milliseconds since the epoch; none where none does.
    pub waits_for_tiers_since_ms: Option<i64>,
}

/// A copy of another instance's task, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// By store: the changelog position the copy stands at.
    pub changelogs: Vec<(TopicPartition, u64)>,
    /// Changelog offsets that it is behind, as of the end last asked for.
    pub lag: u64,
    /// When it was last known to have everything committed, in milliseconds since the epoch; none before it caught up.
    pub as_of_ms: Option<i64>,
}

/// All tasks of an instance, and the copies that it keeps of others'.
///
/// A partition's store has one writer (I1): its task where the instance runs it, else the standby. A task that opens waits for a
/// write of its copy that is under way, and `Tasks::write_copy` refuses once there is a task.
#[derive(Debug, Default)]
pub struct Tasks {
    tasks: Mutex<BTreeMap<TaskId, TaskStatus>>,
    copies: Mutex<BTreeMap<TaskId, CopyStatus>>,
}

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

    /// The copies, of tasks that the instance does not run.
    #[must_use]
    pub fn copies(&self) -> BTreeMap<TaskId, CopyStatus> {
        self.lock_copies().clone()
    }

    /// The group gave the task to this worker. One that had it before and does not know yet changes nothing here any more.
    pub(crate) fn open(&self, task: TaskId, status: TaskStatus) {
        self.lock().insert(task, status);
        self.lock_copies().remove(&task);
    }

    pub(crate) fn set(&self, task: TaskId, status: TaskStatus) {
        if let Some(known) = self.lock().get_mut(&task).filter(|known| known.worker == status.worker) {
            *known = status;
        }
    }

    /// The task waits for evicted values since then, or does no more.
    pub(crate) fn waits(&self, task: TaskId, worker: usize, since_ms: Option<i64>) {
        if let Some(known) = self.lock().get_mut(&task).filter(|known| known.worker == worker) {
            known.waits_for_tiers_since_ms = since_ms;
        }
    }

    /// Lets the standby touch the stores of a task, unless the instance runs it; what comes back stands for the copy from then on.
    pub(crate) fn write_copy<E>(
        &self,
        task: TaskId,
        write: impl FnOnce() -> Result<Option<CopyStatus>, E>,
    ) -> Option<Result<(), E>> {
        let mut copies = self.lock_copies();
        copies.remove(&task);
        if self.lock().contains_key(&task) {
            return None;
        }
        Some(write().map(|status| {
            if let Some(status) = status {
                copies.insert(task, status);
            }
        }))
    }

    /// Removes all tasks of a worker that is gone.
    pub fn remove_worker(&self, worker: usize) {
        self.lock().retain(|_, task| task.worker != worker);
    }

    pub(crate) fn remove(&self, task: TaskId, worker: usize) {
        let mut tasks = self.lock();
        if tasks.get(&task).is_some_and(|known| known.worker == worker) {
            tasks.remove(&task);
        }
    }

    // A thread that panicked left whole entries behind: each change is one insert or remove.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, TaskStatus>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_copies(&self) -> MutexGuard<'_, BTreeMap<TaskId, CopyStatus>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
