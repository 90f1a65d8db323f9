//! One task's inputs again, through the product's own processor and store, in the order that the script says.

use std::sync::Arc;

use state::backend::{Backend, StorePartition};
use state::memory::MemoryBackend;
use state::store::{Marks, decode_kept, decode_marks};
use topology::broker::Broker;
use topology::record::{Batch, Fetched};
use topology::replay::{Emitted, Replay};
use topology::topology::TaskId;

use super::script::Script;
use super::{Audit, AuditError, Result};
use crate::scoring::{FxTable, ModelSlot, ScoringParams, TopicNames, UserProfile, scoring_topology};

/// Records of one batch, and changed profiles that make the player write them down.
const BATCH: usize = 5_000;
const MAX_CHANGED: usize = 50_000;

/// See the module's header.
pub(super) struct Player<'s> {
    script: &'s Script,
    next: usize,
    replay: Replay,
    backend: Arc<dyn Backend>,
    store: StorePartition,
    task: TaskId,
    params: ScoringParams,
    application: String,
    names: TopicNames,
    partitions: Vec<u32>,
}

impl<'s> Player<'s> {
    /// At the beginning, with a store in memory.
    pub(super) fn new<B: Broker>(audit: &Audit<B>, partition: u32, script: &'s Script) -> Result<Self> {
        Self::above(audit, partition, script, Arc::new(MemoryBackend::new()))
    }

    /// At the beginning, with a store that the caller has, without this partition.
    pub(super) fn above<B: Broker>(
        audit: &Audit<B>,
        partition: u32,
        script: &'s Script,
        backend: Arc<dyn Backend>,
    ) -> Result<Self> {
        let task = audit.task(partition);
        let store = StorePartition { store: Arc::clone(&audit.sub().stores[0].name), partition };
        // Rates of exchange come from decisions alone. No model: a profile does not depend on it.
        let params = ScoringParams { fx: None, ..audit.params.clone() };
        let (application, names) = (audit.application.clone(), audit.names.clone());
        let partitions = audit.partitions.clone();
        let replay = make(&application, &names, &params, &partitions, task, &backend)?;
        let mut player = Self { script, next: 0, replay, backend, store, task, params, application, names, partitions };
        player.replay.advance(0, script.begins);
        Ok(player)
    }

    /// Plays payments, in offset order, and what was decided before each of them.
    pub(super) fn lead(&mut self, fetched: &Fetched, order: &[u32], emitted: &mut Emitted<'_>) -> Result<()> {
        let offset = |at: u32| fetched.get(at as usize).offset;
        let mut rest = &order[order.partition_point(|&at| offset(at) < self.script.begins)..];
        while let Some(&first) = rest.first() {
            self.rule(offset(first), emitted)?;
            let stop = self.script.rulings.get(self.next).map(|ruling| ruling.decision.after);
            let run = stop.map_or(rest.len(), |after| rest.partition_point(|&at| offset(at) < after));
            let (now, later) = rest.split_at(run.min(BATCH));
            self.replay.process(0, &Batch::new(fetched, now), emitted)?;
            rest = later;
            if self.replay.changed() >= MAX_CHANGED {
                self.replay.settle()?;
            }
        }
        Ok(())
    }

    /// Plays one payment of a batch, and what was decided before it.
    pub(super) fn one(&mut self, batch: &Batch<'_>, at: usize) -> Result<()> {
        let record = batch.get(at);
        if record.offset < self.script.begins {
            return Ok(());
        }
        self.rule(record.offset, &mut |_| {})?;
        Ok(self.replay.process(0, &batch.only(at), &mut |_| {})?)
    }

    /// Plays what was decided before the payment at this offset.
    pub(super) fn rule(&mut self, lead: u64, emitted: &mut Emitted<'_>) -> Result<()> {
        while self.next_after().is_some_and(|after| after <= lead) {
            self.rule_one(emitted)?;
        }
        Ok(())
    }

    /// Where the next decision takes effect.
    pub(super) fn next_after(&self) -> Option<u64> {
        self.script.rulings.get(self.next).map(|ruling| ruling.decision.after)
    }

    /// Plays the next decision.
    pub(super) fn rule_one(&mut self, emitted: &mut Emitted<'_>) -> Result<()> {
        let script = self.script;
        let Some(ruling) = script.rulings.get(self.next) else { return Ok(()) };
        self.next += 1;
        self.replay.advance(0, ruling.decision.after);
        match (ruling.decision.kind.as_str(), ruling.decision.offset) {
            ("reset" | "erase", Some(offset)) => {
                if let Some((commands, at)) = script.command(offset)
                    && offset >= self.replay.next(1)
                {
                    self.replay.process(1, &Batch::new(commands, &[at]), emitted)?;
                }
            }
            ("fx", _) => self.exchange(ruling.decision.subject.as_deref())?,
            _ => {}
        }
        Ok(())
    }

    /// Goes over to another table of rates.
    fn exchange(&mut self, label: Option<&str>) -> Result<()> {
        if self.params.fx.as_ref().map(|fx| fx.label()).as_deref() == label {
            return Ok(());
        }
        self.replay.settle()?;
        self.params.fx = match label {
            None => None,
            Some(label) => {
                let table = FxTable::from_label(label);
                Some(Arc::new(table.ok_or_else(|| AuditError("a decision names a table of rates that cannot be read".into()))?))
            }
        };
        let inputs = [self.replay.next(0), self.replay.next(1)];
        self.replay = make(&self.application, &self.names, &self.params, &self.partitions, self.task, &self.backend)?;
        for (input, next) in inputs.into_iter().enumerate() {
            self.replay.advance(input, next);
        }
        Ok(())
    }

    /// The payments' next offset.
    pub(super) fn position(&self) -> u64 {
        self.replay.next(0)
    }

    /// The rates in force.
    pub(super) fn fx(&self) -> Option<&Arc<FxTable>> {
        self.params.fx.as_ref()
    }

    /// Brings everything into the store.
    pub(super) fn settle(&mut self) -> Result<()> {
        Ok(self.replay.settle()?)
    }

    /// A user's kept value, as of the last [`Self::settle`].
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.backend.get(&self.store, key)?)
    }

    /// All kept values, as of the last [`Self::settle`].
    pub(super) fn scan(&self, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        Ok(self.backend.scan(&self.store, None, usize::MAX, &mut |key, value| {
            each(key, value);
            true
        })?)
    }
}

/// A kept value as marks and profile.
pub(super) fn decoded(bytes: &[u8]) -> Result<(Marks, UserProfile)> {
    decode_kept(bytes).map_err(|why| AuditError(format!("a kept value cannot be read: {why}")))
}

/// The payments that a kept value includes.
pub(super) fn included(bytes: &[u8]) -> u64 {
    decode_marks(bytes).unwrap_or_default().0[0]
}

fn make(
    application: &str,
    names: &TopicNames,
    params: &ScoringParams,
    partitions: &[u32],
    task: TaskId,
    backend: &Arc<dyn Backend>,
) -> Result<Replay> {
    let topology = scoring_topology(application, names, params, &ModelSlot::default());
    let topology = Arc::new(topology.map_err(|why| AuditError(why.to_string()))?);
    Ok(Replay::new(topology, partitions.to_vec(), task, Arc::clone(backend))?)
}
