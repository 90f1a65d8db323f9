//! How a worker restores: all of its restoring tasks at once through one reader, a bounded bite per step, so that running tasks go on
//! and the group is followed meanwhile.

use std::time::Duration;

use tracing::{info, warn};

use crate::broker::{Bounds, Broker, BrokerError, Member, Reaction, Reader};
use crate::decision::{Decision, EMPTIED};
use crate::metrics::Metrics;
use crate::processor::ProcessError;
use crate::record::{Fetched, TopicPartition};
use crate::restore::{Facts, Progress, STATE_INCOMPLETE, STATE_MOVED, StartFrom};
use crate::status::Phase;
use crate::task::Task;
use crate::topology::TaskId;
use crate::worker::{COMMITTED_WAIT_RUNNING, Worker};

/// Records read from changelogs in one step.
const BITE_RECORDS: usize = 100_000;
/// Memory for them that is kept from step to step.
const BITE_KEEP_BYTES: usize = 64 << 20;
/// How long a step waits for changelog records when nothing else is to be done.
const BITE_WAIT: Duration = Duration::from_millis(20);
/// How long the group may take to answer for committed offsets in one step, when nothing else is to be done. While tasks run it
/// is [`COMMITTED_WAIT_RUNNING`] at first.
const COMMITTED_WAIT: Duration = Duration::from_millis(1000);
/// The same for all new tasks together: an answer that does not come by then is asked for task by task.
const COMMITTED_WAIT_TOGETHER: Duration = Duration::from_millis(200);
/// What a restore was planned on is asked again before it counts, if it is older than this: far less than any session timeout.
const FACTS_FRESH_US: u64 = 1_000_000;

impl<B: Broker> Worker<B> {
    /// Restores a bite; true where that brought it further.
    pub(crate) fn restore_some(&mut self) -> Result<bool, ProcessError> {
        let restoring = |task: &&Task| task.phase == Phase::Restoring;
        let ids: Vec<TaskId> = self.tasks.values().filter(restoring).map(|task| task.id).collect();
        if ids.is_empty() {
            self.reader = None;
            self.bite = Fetched::default();
            return Ok(false);
        }
        if self.reader.is_none() {
            self.reader = Some(self.broker.reader()?);
        }
        let restoring: Vec<&Task> = ids.iter().map(|id| &self.tasks[id]).collect();
        self.ending.end(&*self.broker, &self.config.member, &restoring, &*self.clock, &self.metrics);
        let before = self.restore_stage();
        let planned = self.plan_restores(&ids);
        // What the disk says stops the worker (I7): no later trouble with the broker may take its place.
        if let Err(ProcessError::Backend(_)) = planned {
            return planned.map(|()| false);
        }
        self.read_changelogs(&ids)?;
        let done: Vec<TaskId> = ids.into_iter().filter(|id| self.tasks[id].restored()).collect();
        let inputs: Vec<TopicPartition> = done.iter().flat_map(|id| self.tasks[id].froms()).collect();
        let mut bounds = self.member()?.bounds_of(&inputs)?.into_iter();
        for id in done {
            let bounds: Vec<Bounds> = bounds.by_ref().take(self.tasks[&id].inputs.len()).collect();
            self.finish_restore(id, &bounds)?;
        }
        planned.map(|()| self.restore_stage() != before)
    }

    /// Grows with whatever is planned, read and finished.
    fn restore_stage(&self) -> (usize, usize, u64) {
        let tasks = || self.tasks.values();
        let running = tasks().filter(|task| task.phase == Phase::Running).count();
        let position = |task: &Task| task.restores.iter().map(|progress| progress.position).sum::<u64>();
        (running, tasks().filter(|task| task.planned).count(), tasks().map(position).sum())
    }

    /// Plans what is not planned yet. A task that cannot be planned keeps none of the others from their restore.
    fn plan_restores(&mut self, ids: &[TaskId]) -> Result<(), ProcessError> {
        let running = self.tasks.values().any(|task| task.phase == Phase::Running);
        let now_us = self.clock.monotonic_us();
        if running && now_us < self.plan_at_us {
            return Ok(());
        }
        let wait = if running { self.plan_wait } else { COMMITTED_WAIT };
        let unplanned: Vec<TaskId> = ids.iter().copied().filter(|id| !self.tasks[id].planned).collect();
        // New ones are asked about together, and one by one where that fails: one that is held up holds up no other.
        let new = unplanned.iter().all(|id| self.tasks[id].planned_at_us == 0);
        if new && unplanned.len() > 1 {
            match self.plan(&unplanned, wait.min(COMMITTED_WAIT_TOGETHER)) {
                Err(ProcessError::Broker(why)) if why.reaction == Reaction::Retry => {}
                done => return done,
            }
        }
        for id in unplanned.into_iter().filter(|id| !self.tasks[id].planned).collect::<Vec<_>>() {
            if let Err(why) = self.plan(&[id], wait) {
                self.plan_wait = (self.plan_wait * 2).min(COMMITTED_WAIT);
                self.plan_at_us = self.clock.monotonic_us() + 4 * wait.as_micros() as u64;
                return Err(why);
            }
            self.plan_wait = COMMITTED_WAIT_RUNNING;
        }
        Ok(())
    }

    /// Asks for the facts of these tasks and plans them.
    fn plan(&mut self, ids: &[TaskId], wait: Duration) -> Result<(), ProcessError> {
        let now_us = self.clock.monotonic_us();
        ids.iter().for_each(|id| self.tasks.get_mut(id).expect("invariant: listed by the caller").planned_at_us = now_us);
        let froms: Vec<TopicPartition> = ids.iter().flat_map(|id| self.tasks[id].froms()).collect();
        let logs: Vec<TopicPartition> = ids.iter().flat_map(|id| self.tasks[id].changelogs.iter().map(|log| log.to)).collect();
        // First the committed offsets: the answer waits for a dead owner's transaction to end. Then the changelogs' ends.
        let mut committed = self.member()?.committed(&froms, wait)?.into_iter();
        let reader = self.reader.as_mut().expect("invariant: made before planning");
        let mut bounds = reader.bounds_of(&logs)?.into_iter();
        for &id in ids {
            let committed = committed.by_ref().take(self.tasks[&id].inputs.len()).collect();
            self.plan_restore(id, committed, &mut bounds)?;
        }
        Ok(())
    }

    /// Decides from its facts what one task's stores need.
    fn plan_restore(
        &mut self,
        id: TaskId,
        committed: Vec<Option<u64>>,
        changelogs: &mut impl Iterator<Item = Bounds>,
    ) -> Result<(), ProcessError> {
        let now_ms = self.clock.now_ms();
        let reader = self.reader.as_mut().expect("invariant: made before planning");
        let task = self.tasks.get_mut(&id).expect("invariant: listed by the caller");
        let lead = task.inputs[0].from;
        let topics = self.shared.topology.topics();
        task.restores.clear();
        for (store, log) in task.stores.iter().zip(&task.changelogs) {
            let partition = store.partition().clone();
            let stored = self.shared.backend.open(&partition)?;
            let facts = Facts {
                stored: stored.as_ref(),
                changelog: changelogs.next().expect("invariant: asked for each changelog"),
                tombstone_retention_ms: self.config.tombstone_retention_ms,
                now_ms,
            };
            let lead = topics.name(lead.topic);
            let progress = Progress::begin(&*self.shared.backend, partition, log.to, &facts, lead, |store, why| {
                warn!(task = %id, store = %store, why, "store dropped: it is rebuilt from its changelog");
                Metrics::add(&self.metrics.stores_rebuilt_total, 1);
            })?;
            if !progress.done() {
                reader.assign(log.to, progress.position)?;
            }
            task.restores.push(progress);
        }
        task.decisions = match self.shared.topology.subs()[usize::from(id.sub)].decisions {
            // Without the group's offsets they tell how far the inputs were processed.
            Some(topic) if !self.config.exactly_once || committed[0].is_none() => {
                let from = TopicPartition { topic, partition: id.partition };
                let bounds = reader.bounds(from)?;
                if bounds.start < bounds.end {
                    reader.assign(from, bounds.start)?;
                    Some((from, bounds.end, Vec::new()))
                } else {
                    None
                }
            }
            _ => None,
        };
        task.committed = committed;
        task.planned = true;
        task.restoring_since_ms = now_ms;
        let remaining: u64 = task.restores.iter().map(Progress::remaining).sum();
        info!(task = %id, remaining, at_s = self.clock.monotonic_us() as f64 / 1e6, "restoring");
        Ok(())
    }

    /// Reads a bite of everything assigned and applies it.
    fn read_changelogs(&mut self, ids: &[TaskId]) -> Result<(), ProcessError> {
        let idle = self.tasks.values().all(|task| task.phase == Phase::Restoring);
        let wait = if idle { BITE_WAIT } else { Duration::ZERO };
        let reader = self.reader.as_mut().expect("invariant: made before reading");
        let unfinished = ids.iter().any(|id| !self.tasks[id].restored());
        if !unfinished {
            return Ok(());
        }
        let mut fetched = std::mem::take(&mut self.bite);
        fetched.clear(BITE_KEEP_BYTES);
        reader.poll(&mut fetched, BITE_RECORDS, wait)?;
        let mut order = std::mem::take(&mut self.order);
        fetched.order_by_partition(&mut order);
        let now_ms = self.clock.now_ms();
        for id in ids {
            let task = self.tasks.get_mut(id).expect("invariant: listed by the caller");
            for progress in &mut task.restores {
                let position = reader.position(progress.changelog).unwrap_or(progress.position);
                let records = fetched.places(&order, progress.changelog);
                if records.is_empty() {
                    progress.position = progress.position.max(position);
                    continue;
                }
                let exactly_once = self.config.exactly_once;
                progress.apply(&*self.shared.backend, &fetched, records, position, exactly_once, &mut self.set)?;
                Metrics::add(&self.metrics.restored_records_total, records.len() as u64);
                self.progress += records.len() as u64;
            }
            if let Some((from, until, found)) = &mut task.decisions {
                for &at in fetched.places(&order, *from) {
                    let record = fetched.get(at as usize);
                    let Ok(decision) = Decision::decode(record.value.unwrap_or_default()) else { continue };
                    if decision.kind == EMPTIED {
                        found.clear();
                    }
                    found.push(Decision { clears: record.key.map(Into::into), ..decision });
                }
                if reader.position(*from).is_some_and(|position| position >= *until) {
                    *until = 0;
                }
            }
            task.publish(&self.shared, now_ms);
        }
        self.order = order;
        self.bite = fetched;
        Ok(())
    }

    /// Everything is read: checks where input goes on, writes the positions, starts the inputs.
    fn finish_restore(&mut self, id: TaskId, bounds: &[Bounds]) -> Result<(), ProcessError> {
        let now_ms = self.clock.now_ms();
        if self.is_overtaken(id)? {
            return Ok(());
        }
        if self.place_inputs(id, bounds)? {
            // A failure on the way voids the transaction, as in processing.
            self.working = true;
            self.empty_stores(id)?;
            self.working = false;
            let decisions = &mut self.tasks.get_mut(&id).expect("invariant: listed by the caller").decisions;
            decisions.iter_mut().for_each(|(_, _, found)| found.clear());
        }
        let topics = self.shared.topology.topics().clone();
        let reader = self.reader.as_mut().expect("invariant: made before reading");
        let member = self.member.as_mut().expect("invariant: tasks belong to a member");
        let task = self.tasks.get_mut(&id).expect("invariant: listed by the caller");
        self.set.clear();
        let mut applied = 0;
        for at in 0..task.restores.len() {
            let progress = &task.restores[at];
            applied += progress.applied;
            task.changelogs[at].position = progress.position;
            reader.unassign(progress.changelog)?;
            let store = progress.store.clone();
            self.set.begin(store);
            self.set.positions(task.positions(at, &self.shared, now_ms));
        }
        if !self.set.is_empty() {
            self.shared.backend.write(&self.set)?;
        }
        task.stores.iter_mut().for_each(|store| store.reset());
        if let Some((from, _, found)) = task.decisions.take() {
            reader.unassign(from)?;
            task.remember(&found, &self.shared.topology);
        }
        // At-least-once: state comes into the log before the offsets that it includes. Without a first commit, a crash in between would
        // look as if the group's offsets had been lost.
        let unset = task.inputs.iter().zip(&task.committed).filter(|(_, committed)| committed.is_none());
        let firsts: Vec<_> = unset.map(|(input, _)| (input.from, input.next)).collect();
        if !self.config.exactly_once && !firsts.is_empty() {
            let token = member.token()?;
            member.commit_offsets(&firsts, token)?;
        }
        let starts: Vec<_> = task.inputs.iter().map(|input| (input.from, input.next)).collect();
        member.start(&starts)?;
        task.enter(Phase::Running, &self.shared, now_ms);
        task.restores.clear();
        task.planned = false;
        let lead = &task.inputs[0];
        let at_s = self.clock.monotonic_us() as f64 / 1e6;
        let topic = topics.name(lead.from.topic);
        info!(task = %id, records = applied, topic, next = lead.next, at_s, "task restored and running");
        Ok(())
    }

    /// The changelog includes more than the group had committed when it was asked. Where it has committed more by now, another member
    /// went on with the task between that question and the changelog's end: the group took it from us, and we have yet to hear of it. Then
    /// the restore begins anew (and ends with the news); otherwise the offsets were set back, which is not ours to mend. Old facts are asked again
    /// in any case: one who was frozen meanwhile must not show an older view than was shown.
    fn is_overtaken(&mut self, id: TaskId) -> Result<bool, ProcessError> {
        let member = self.member.as_mut().expect("invariant: tasks belong to a member");
        let task = self.tasks.get_mut(&id).expect("invariant: listed by the caller");
        let age_us = self.clock.monotonic_us().saturating_sub(task.planned_at_us);
        let ahead = lead_included(task, self.config.exactly_once) > task.committed[0].unwrap_or(0);
        if !ahead && age_us < FACTS_FRESH_US {
            return Ok(false);
        }
        let froms: Vec<TopicPartition> = task.froms().collect();
        if member.committed(&froms, COMMITTED_WAIT)? == task.committed {
            return Ok(false);
        }
        info!(task = %id, "another member went on with it: restoring again");
        task.planned = false;
        Ok(true)
    }

    /// Decides where each input goes on, or that it may not; true where the state is to be emptied first.
    fn place_inputs(&mut self, id: TaskId, bounds: &[Bounds]) -> Result<bool, ProcessError> {
        let start_from = self.config.start_from;
        let exactly_once = self.config.exactly_once;
        let topics = self.shared.topology.topics().clone();
        let task = self.tasks.get_mut(&id).expect("invariant: listed by the caller");
        let lead_mark = lead_included(task, exactly_once);
        let stateful = lead_mark > 0 && task.restores.iter().any(|progress| progress.until > 0);
        let mut anew = false;
        if let Some(why) = task.committed.iter().copied().find_map(migration_said) {
            return stop(why);
        }
        for at in 0..task.inputs.len() {
            let from = task.inputs[at].from;
            let bounds = bounds[at];
            if at == 0 {
                task.replay_until = if exactly_once { 0 } else { bounds.end };
            }
            let name = format!("{}:{}", topics.name(from.topic), from.partition);
            let next = match task.committed[at] {
                Some(next) if next > bounds.end => {
                    return stop(format!(
                        "the group committed offset {next} of {name}, which ends at {}: the topic lost data or was re-created. Restore \
                         the topic, or run under a new APPLICATION_ID",
                        bounds.end
                    ));
                }
                Some(next) if next < bounds.start && start_from == StartFrom::Earliest => {
                    warn!(task = %id, next, retained = bounds.start, input = name, "records lost to retention are skipped, as asked");
                    bounds.start
                }
                Some(next) if next < bounds.start => {
                    return stop(format!(
                        "records {next} to {} of {name} are no longer retained and were never processed. To go on without them: \
                         START_FROM=earliest",
                        bounds.start
                    ));
                }
                Some(next) if at == 0 && exactly_once && lead_mark > next => {
                    return stop(format!(
                        "the state includes {name} up to offset {lead_mark}, but the group committed only {next}: the group's offsets \
                         were set back. Set them to {lead_mark}, or run under a new APPLICATION_ID"
                    ));
                }
                Some(next) => next,
                None if at == 0 && stateful => match start_from {
                    StartFrom::Changelog => lead_mark.max(bounds.start),
                    StartFrom::Earliest => {
                        anew = true;
                        bounds.start
                    }
                    StartFrom::Refuse => {
                        return stop(format!(
                            "there is state for {name} (up to offset {lead_mark}), but the group has no committed offset: Kafka drops those \
                             of idle groups. To go on behind what the state includes: START_FROM=changelog. To empty the state and begin \
                             anew: START_FROM=earliest"
                        ));
                    }
                },
                None if stateful && start_from == StartFrom::Changelog => {
                    included(task, topics.name(from.topic), lead_mark, exactly_once).max(bounds.start)
                }
                None => bounds.start,
            };
            task.inputs[at].next = next;
            task.inputs[at].committed = next;
            task.inputs[at].held = false;
            task.inputs[at].away = None;
        }
        Ok(anew)
    }
}

/// How far the state includes the lead: by the positions kept with it, its values' marks, and what exactly-once committed with it.
fn lead_included(task: &Task, exactly_once: bool) -> u64 {
    let decided = task.decisions.iter().flat_map(|(_, _, found)| found).map(|decision| decision.after);
    let decided = decided.filter(|_| exactly_once);
    task.restores.iter().map(|progress| progress.lead_mark).chain(decided).max().unwrap_or(0)
}

/// How far it includes another input. Under exactly-once a decision was committed with its effect; without transactions its effect is
/// in the changelog if that of a later record of the lead is.
fn included(task: &Task, name: &str, lead_mark: u64, exactly_once: bool) -> u64 {
    let kept = task.restores.iter().flat_map(|progress| &progress.positions.inputs);
    let kept = kept.filter(|(input, _)| input == name).map(|(_, next)| *next);
    let decided = task.decisions.iter().flat_map(|(_, _, found)| found);
    let decided =
        decided.filter(|decision| decision.topic.as_deref() == Some(name) && (exactly_once || decision.after < lead_mark));
    kept.chain(decided.filter_map(|decision| decision.offset.map(|offset| offset + 1))).max().unwrap_or(0)
}

/// What a number that stands in place of an offset says: see [`crate::restore::STATE_MOVED`].
fn migration_said(committed: Option<u64>) -> Option<String> {
    let why = match committed? {
        STATE_INCOMPLETE => {
            "the state of this application is being copied from another one, and is not whole yet. Wait for the end of `mangrove migrate`; \
             where it was interrupted, run the same command again"
        }
        STATE_MOVED => {
            "the state of this application was moved to another one by `mangrove migrate`: run the instances under the new APPLICATION_ID \
             (processing here too would score payments twice)"
        }
        _ => return None,
    };
    Some(why.to_owned())
}

fn stop<T>(why: String) -> Result<T, ProcessError> {
    Err(BrokerError::new(Reaction::Stop, why).into())
}
