//! What a worker does when something fails: the one place, by what the failure asks for ([`Reaction`]).
//!
//! Every way back leads through restoring: what is uncommitted is void, the store is brought to its changelog's end, and input goes on at the
//! group's committed offset, which alone decides. Nobody guesses (I7, I8).

use state::backend::BackendError;
use tracing::{error, info, warn};

use crate::broker::{Broker, BrokerError, Member, Reaction};
use crate::metrics::Metrics;
use crate::processor::ProcessError;
use crate::status::Phase;
use crate::topology::TaskId;
use crate::worker::{Halt, Paused, Step, Worker};

/// How long a worker waits between two attempts to get its store back, at first and at most.
const REVIVE_MIN_MS: u64 = 250;
const REVIVE_MAX_MS: u64 = 8_000;

impl<B: Broker> Worker<B> {
    /// Voids everything uncommitted and sends all tasks back to restoring: from there they go on at the committed offsets.
    pub(crate) fn abort(&mut self) -> Result<(), ProcessError> {
        let open = self.open.take().is_some();
        let voided = self.suspend_all(open);
        // What could not be aborted is still open in the producer: only a new one is rid of it, whoever asked for the abort.
        self.reopen |= open && voided.is_err();
        voided
    }

    fn suspend_all(&mut self, open: bool) -> Result<(), ProcessError> {
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        self.reader = None;
        self.journal.forget();
        let now_ms = self.clock.now_ms();
        for id in ids {
            let task = self.tasks.get_mut(&id).expect("invariant: listed above");
            let started = task.phase == Phase::Running;
            task.enter(Phase::Suspended, &self.shared, now_ms);
            task.enter(Phase::Restoring, &self.shared, now_ms);
            let inputs: Vec<_> = task.inputs.iter().map(|input| input.from).collect();
            if started && let Some(member) = &mut self.member {
                member.stop(&inputs)?;
            }
        }
        Metrics::add(&self.metrics.aborts_total, u64::from(open));
        if open && self.config.exactly_once && !self.reopen {
            self.member()?.abort()?;
        }
        Ok(())
    }

    pub(crate) fn react(&mut self, error: ProcessError) -> Result<Step, Halt> {
        let working = std::mem::take(&mut self.working);
        match error {
            ProcessError::Broker(BrokerError { reaction, what }) => match reaction {
                Reaction::Retry if !working => {
                    self.trouble(&what);
                    Ok(Step::Backoff)
                }
                Reaction::Abort if self.config.exactly_once => {
                    self.trouble(&what);
                    self.void()
                }
                // A request that was tried in vain half-way may still arrive, and without a transaction what was sent before the failure
                // still goes out: only a new producer is sure of what is in the log (I8).
                Reaction::Retry | Reaction::Abort | Reaction::Unknown => {
                    self.trouble(&what);
                    Metrics::add(&self.metrics.reopens_total, 1);
                    self.reopen = true;
                    self.void()
                }
                Reaction::Fenced => {
                    self.trouble(&what);
                    Metrics::add(&self.metrics.fenced_total, 1);
                    self.leave_all();
                    Ok(Step::Backoff)
                }
                _ => Err(self.halt(what)),
            },
            ProcessError::Backend(BackendError::Corrupt { partition, what }) if self.damaged.as_ref() == Some(&partition) => {
                // Restored, and damaged again before anything was committed: the damage is in the changelog.
                Err(self.halt(format!("the changelog of {partition} holds a value that cannot be read: {what}")))
            }
            ProcessError::Backend(BackendError::Corrupt { partition, what }) => {
                self.damaged = Some(partition.clone());
                error!(store = %partition, what, "a store is damaged: it is dropped and restored from its changelog");
                Metrics::add(&self.metrics.stores_rebuilt_total, 1);
                match self.shared.backend.drop_partition(&partition) {
                    Ok(()) => self.void(),
                    Err(BackendError::Paused(what)) => Ok(self.pause(what)),
                    Err(why) => Err(self.halt(why.to_string())),
                }
            }
            ProcessError::Backend(BackendError::Paused(what)) => Ok(self.pause(what)),
            // Not in a batch, where the partition alone waits: whatever it was is done again.
            ProcessError::Backend(why @ BackendError::Away { .. }) => {
                self.trouble(&why.to_string());
                self.void()
            }
            ProcessError::Backend(why) => Err(self.halt(why.to_string())),
            ProcessError::Stop(why) => Err(self.halt(why)),
        }
    }

    fn void(&mut self) -> Result<Step, Halt> {
        match self.abort() {
            Ok(()) => Ok(Step::Backoff),
            Err(ProcessError::Broker(BrokerError { reaction: Reaction::Stop, what })) => Err(self.halt(what)),
            Err(ProcessError::Broker(BrokerError { reaction: Reaction::Fenced, what })) => {
                self.trouble(&what);
                self.leave_all();
                Ok(Step::Backoff)
            }
            Err(why) => {
                // The abort itself got no answer, or a partition could not be stopped: the same medicine as for a lost commit (I8).
                self.trouble(&why.to_string());
                self.reopen = true;
                match self.abort() {
                    Ok(()) => Ok(Step::Backoff),
                    Err(_) => {
                        self.leave_all();
                        Ok(Step::Backoff)
                    }
                }
            }
        }
    }

    /// The store takes no writes. What was committed is in the changelog; so the partitions go to whoever has a store, and this worker
    /// comes back when it has one again.
    fn pause(&mut self, what: String) -> Step {
        error!(
            worker = self.config.index,
            what, "the state store takes no writes: this worker gives its partitions back until it does"
        );
        Metrics::add(&self.metrics.store_pauses_total, 1);
        // An answer is welcome, and nothing depends on it: a transaction left open ends by its timeout, a silent member by its session's.
        let _ = self.abort();
        if let Some(member) = &mut self.member
            && let Err(why) = member.leave(true)
        {
            warn!(worker = self.config.index, %why, "leaving the group failed: it will notice by the session timeout");
        }
        self.leave_all();
        let wait_ms = self.paused.as_ref().map_or(REVIVE_MIN_MS, |paused| (paused.wait_ms * 2).min(REVIVE_MAX_MS));
        self.pause_for(what, wait_ms)
    }

    fn pause_for(&mut self, what: String, wait_ms: u64) -> Step {
        let try_at_us = self.clock.monotonic_us() + wait_ms * 1000;
        self.last_trouble = Some(what);
        self.paused = Some(Paused { waiting: true, wait_ms, try_at_us });
        Step::Backoff
    }

    /// What a paused worker does instead of a round; none where it is not paused.
    pub(crate) fn await_store(&mut self) -> Result<Option<Step>, Halt> {
        let Some(paused) = self.paused.as_mut().filter(|paused| paused.waiting) else { return Ok(None) };
        if self.clock.monotonic_us() < paused.try_at_us {
            return Ok(Some(Step::Backoff));
        }
        let wait_ms = paused.wait_ms;
        match self.shared.backend.revive() {
            Ok(()) => {
                info!(worker = self.config.index, "the state store is open again: joining the group");
                // The pause is over for good with the next commit: until then a second one waits longer.
                paused.waiting = false;
                self.last_trouble = None;
                Ok(None)
            }
            Err(BackendError::Paused(what)) => Ok(Some(self.pause_for(what, (wait_ms * 2).min(REVIVE_MAX_MS)))),
            Err(why) => Err(self.halt(why.to_string())),
        }
    }

    /// Drops the member and all tasks, keeps the disk; the next step joins again.
    pub(crate) fn leave_all(&mut self) {
        for id in std::mem::take(&mut self.tasks).into_keys() {
            self.shared.tasks.remove(id, self.config.index);
        }
        self.member = None;
        self.reader = None;
        self.open = None;
        self.journal.forget();
        self.pending = None;
        self.reopen = false;
    }

    /// Says what is wrong once, not at each retry.
    pub(crate) fn trouble(&mut self, what: &str) {
        if self.last_trouble.as_deref() != Some(what) {
            warn!(worker = self.config.index, what, "trouble with the broker; trying again");
            self.last_trouble = Some(what.to_owned());
        }
    }

    pub(crate) fn halt(&mut self, why: String) -> Halt {
        error!(worker = self.config.index, why, "worker stopped");
        self.leave_all();
        Halt(why)
    }
}
