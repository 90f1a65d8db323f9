//! Standbys: copies of other instances' state, kept by following their changelogs, so that taking over restores only the tail.
//!
//! One for each instance, on a thread of whoever drives it: [`Standbys::step`] reads a bounded bite and applies it as a restore does, up to
//! what is committed and stable. The stores are the very ones that a task of this instance would use: once the instance runs a task, its
//! copy is the task's ([`crate::status::Tasks`] sees to it that nobody else writes then), and once the task is closed a standby goes on where
//! it stood. State that belongs to no task and is no copy goes after [`StandbyConfig::cleanup_delay_ms`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use state::backend::{BackendError, StorePartition, WriteSet};
use tracing::{info, warn};

use crate::broker::{Broker, BrokerError, Reader};
use crate::metrics::Metrics;
use crate::processor::ProcessError;
use crate::record::{Fetched, TopicPartition};
use crate::restore::{Facts, Progress};
use crate::status::CopyStatus;
use crate::topology::TaskId;
use crate::worker::Parts;

/// Records of one bite: a task that opens waits for one at most.
const BITE_RECORDS: usize = 10_000;
/// Arena memory that stays between bites.
const KEEP_ARENA_BYTES: usize = 4 << 20;
/// How often the changelogs' ends are asked for.
const ENDS_EVERY_US: u64 = 1_000_000;

/// How standbys work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbyConfig {
    /// Exactly-once, or at-least-once.
    pub exactly_once: bool,
    /// `delete.retention.ms` of the changelogs: an older copy is rebuilt.
    pub tombstone_retention_ms: u64,
    /// State that is neither a task's nor a copy is dropped after so many milliseconds.
    pub cleanup_delay_ms: u64,
}

/// One task's copy.
struct Copy {
    stores: Vec<Progress>,
    as_of_ms: Option<i64>,
}

/// See the module's header.
pub struct Standbys<B: Broker> {
    broker: Arc<B>,
    parts: Parts,
    config: StandbyConfig,
    reader: Option<B::Reader>,
    copies: BTreeMap<TaskId, Copy>,
    /// By changelog partition: its end.
    ends: BTreeMap<TopicPartition, u64>,
    ends_at: Option<(u64, i64)>,
    /// By partition that nobody wants: since when.
    unwanted_us: BTreeMap<StorePartition, u64>,
    cleaned_us: u64,
    fetched: Fetched,
    order: Vec<u32>,
    set: WriteSet,
}

impl<B: Broker> Standbys<B> {
    /// Follows nothing yet.
    #[must_use]
    pub fn new(broker: Arc<B>, parts: Parts, config: StandbyConfig) -> Self {
        Self {
            broker,
            parts,
            config,
            reader: None,
            copies: BTreeMap::new(),
            ends: BTreeMap::new(),
            ends_at: None,
            unwanted_us: BTreeMap::new(),
            cleaned_us: 0,
            fetched: Fetched::default(),
            order: Vec::new(),
            set: WriteSet::default(),
        }
    }

    /// All tasks that keep state: what can be copied.
    #[must_use]
    pub fn candidates(parts: &Parts) -> Vec<TaskId> {
        let subs = parts.topology.subs().iter().enumerate().filter(|(_, sub)| !sub.stores.is_empty());
        let tasks = subs.flat_map(|(at, sub)| {
            let partitions = parts.partitions[usize::from(sub.lead().0)];
            (0..partitions).map(move |partition| TaskId { sub: at as u16, partition })
        });
        tasks.collect()
    }

    /// Follows these tasks, those that this instance runs left out; waits for records at most `wait`. True where something was applied.
    ///
    /// # Errors
    /// What failed; the next step begins anew from what is on disk.
    pub fn step(&mut self, wanted: &BTreeSet<TaskId>, wait: Duration) -> Result<bool, ProcessError> {
        let done = self.round(wanted, wait);
        if done.is_err() {
            self.reader = None;
            self.ends_at = None;
            for id in std::mem::take(&mut self.copies).into_keys() {
                let _ = self.parts.tasks.write_copy(id, || Ok::<_, ()>(None));
            }
        }
        done
    }

    fn round(&mut self, wanted: &BTreeSet<TaskId>, wait: Duration) -> Result<bool, ProcessError> {
        let running = self.parts.tasks.all();
        self.clean(wanted)?;
        let left: Vec<TaskId> =
            self.copies.keys().filter(|id| !wanted.contains(id) || running.contains_key(id)).copied().collect();
        for id in left {
            self.leave(id)?;
        }
        for &id in wanted.iter().filter(|id| !running.contains_key(id)) {
            if !self.copies.contains_key(&id) {
                self.follow(id)?;
            }
        }
        if self.copies.is_empty() {
            self.reader = None;
            return Ok(false);
        }
        self.ask_ends()?;
        let reader = self.reader.as_mut().expect("invariant: following made it");
        self.fetched.clear(KEEP_ARENA_BYTES);
        reader.poll(&mut self.fetched, BITE_RECORDS, wait)?;
        self.fetched.order_by_partition(&mut self.order);
        let ids: Vec<TaskId> = self.copies.keys().copied().collect();
        for id in ids {
            self.apply(id)?;
        }
        Ok(!self.fetched.is_empty())
    }

    fn leave(&mut self, id: TaskId) -> Result<(), ProcessError> {
        let Some(copy) = self.copies.remove(&id) else { return Ok(()) };
        let _ = self.parts.tasks.write_copy(id, || Ok::<_, ()>(None));
        for progress in &copy.stores {
            self.ends.remove(&progress.changelog);
            if let Some(reader) = &mut self.reader {
                reader.unassign(progress.changelog)?;
            }
        }
        info!(task = %id, "standby ends");
        Ok(())
    }

    /// Begins a copy, where it stands or anew.
    fn follow(&mut self, id: TaskId) -> Result<(), ProcessError> {
        if self.reader.is_none() {
            self.reader = Some(self.broker.reader()?);
        }
        let reader = self.reader.as_mut().expect("invariant: made above");
        let now_ms = self.parts.clock.now_ms();
        let (topology, backend) = (Arc::clone(&self.parts.topology), Arc::clone(&self.parts.backend));
        let sub = &topology.subs()[usize::from(id.sub)];
        let lead = topology.topics().name(sub.lead());
        let changelogs = sub.stores.iter().map(|spec| TopicPartition { topic: spec.changelog, partition: id.partition });
        // Asked before: nobody waits for a broker while the stores are held.
        let bounds: Vec<_> =
            changelogs.map(|changelog| Ok((changelog, reader.bounds(changelog)?))).collect::<Result<_, BrokerError>>()?;
        let mut stores = Vec::new();
        let began = self.parts.tasks.write_copy(id, || {
            for (spec, &(changelog, bounds)) in sub.stores.iter().zip(&bounds) {
                let partition = StorePartition { store: Arc::clone(&spec.name), partition: id.partition };
                let stored = backend.open(&partition)?;
                let tombstone_retention_ms = self.config.tombstone_retention_ms;
                let facts = Facts { stored: stored.as_ref(), changelog: bounds, tombstone_retention_ms, now_ms };
                let progress = Progress::begin(&*backend, partition, changelog, &facts, lead, |store, why| {
                    warn!(task = %id, store = %store, why, "copy dropped: it is rebuilt from the changelog");
                })?;
                // A copy has no end.
                stores.push(Progress { until: u64::MAX, ..progress });
            }
            Ok::<_, ProcessError>(None)
        });
        // None: a task has it meanwhile.
        let Some(began) = began else { return Ok(()) };
        began?;
        for progress in &stores {
            reader.assign(progress.changelog, progress.position)?;
        }
        info!(task = %id, "standby begins");
        self.ends_at = None;
        self.copies.insert(id, Copy { stores, as_of_ms: None });
        Ok(())
    }

    fn ask_ends(&mut self) -> Result<(), ProcessError> {
        let now_us = self.parts.clock.monotonic_us();
        if self.ends_at.is_some_and(|(at, _)| now_us.saturating_sub(at) < ENDS_EVERY_US) {
            return Ok(());
        }
        let now_ms = self.parts.clock.now_ms();
        let reader = self.reader.as_mut().expect("invariant: following made it");
        for progress in self.copies.values().flat_map(|copy| &copy.stores) {
            self.ends.insert(progress.changelog, reader.bounds(progress.changelog)?.end);
        }
        self.ends_at = Some((now_us, now_ms));
        Ok(())
    }

    /// Applies a task's share of the bite and says how it stands.
    fn apply(&mut self, id: TaskId) -> Result<(), ProcessError> {
        let Self { parts, config, reader, copies, ends, ends_at, fetched, order, set, .. } = self;
        let (Some(copy), Some(reader)) = (copies.get_mut(&id), reader.as_ref()) else { return Ok(()) };
        let asked_ms = ends_at.map(|(_, at_ms)| at_ms);
        let done = parts.tasks.write_copy(id, || {
            let (mut lag, mut current) = (0, true);
            for progress in &mut copy.stores {
                let records = fetched.places(order, progress.changelog);
                let position = reader.position(progress.changelog).unwrap_or(progress.position).max(progress.position);
                let known_end = ends.get(&progress.changelog).copied().unwrap_or(u64::MAX);
                if position >= known_end {
                    // Everything that there was when the end was asked for is in it: as young as that moment.
                    let at = asked_ms.unwrap_or_default().max(0).unsigned_abs();
                    progress.positions.current_at_ms = progress.positions.current_at_ms.max(at);
                }
                if records.is_empty() {
                    progress.position = position;
                } else {
                    progress.apply(&*parts.backend, fetched, records, position, config.exactly_once, set)?;
                    Metrics::add(&parts.metrics.standby_records_total, records.len() as u64);
                }
                lag += known_end.saturating_sub(position);
                current &= position >= known_end;
            }
            if current {
                copy.as_of_ms = asked_ms;
            }
            let changelogs = copy.stores.iter().map(|progress| (progress.changelog, progress.position)).collect();
            Ok(Some(CopyStatus { changelogs, lag, as_of_ms: copy.as_of_ms }))
        });
        match done {
            Some(Err(ProcessError::Backend(BackendError::Corrupt { partition, what }))) => {
                warn!(store = %partition, what, "a copy is damaged: it is dropped and rebuilt");
                self.leave(id)?;
                let _ = self.parts.tasks.write_copy(id, || self.parts.backend.drop_partition(&partition).map(|()| None));
                Ok(())
            }
            Some(other) => other,
            // A task took it over in the middle of the bite: the next round leaves it.
            None => Ok(()),
        }
    }

    /// Drops what is neither a task's nor a copy for long enough.
    fn clean(&mut self, wanted: &BTreeSet<TaskId>) -> Result<(), ProcessError> {
        let now_us = self.parts.clock.monotonic_us();
        let delay_us = self.config.cleanup_delay_ms.saturating_mul(1000);
        if now_us.saturating_sub(self.cleaned_us) < (delay_us / 10).min(30_000_000) {
            return Ok(());
        }
        self.cleaned_us = now_us;
        let running = self.parts.tasks.all();
        let mut unwanted = BTreeMap::new();
        for partition in self.parts.backend.partitions()? {
            let Some(id) = self.task_of(&partition) else { continue };
            if wanted.contains(&id) || running.contains_key(&id) {
                continue;
            }
            let since = self.unwanted_us.get(&partition).copied().unwrap_or(now_us);
            if now_us.saturating_sub(since) < delay_us {
                unwanted.insert(partition, since);
                continue;
            }
            let dropped = self.parts.tasks.write_copy(id, || self.parts.backend.drop_partition(&partition).map(|()| None));
            dropped.transpose()?;
            info!(store = %partition, "state that this instance has no more to do with is dropped");
        }
        self.unwanted_us = unwanted;
        Ok(())
    }

    fn task_of(&self, partition: &StorePartition) -> Option<TaskId> {
        let mut subs = self.parts.topology.subs().iter();
        let sub = subs.position(|sub| sub.stores.iter().any(|store| store.name == partition.store))?;
        Some(TaskId { sub: sub as u16, partition: partition.partition })
    }
}
