//! Decisions and the commands that they name: in which order the inputs took effect. Nothing is decided anew.

use std::collections::{BTreeMap, BTreeSet};

use topology::broker::Broker;
use topology::decision::{Decision, EMPTIED};
use topology::record::{Fetched, TopicPartition};

use super::cursor::Cursor;
use super::{Audit, AuditError, Result};

/// A decision and its offset.
#[derive(Clone, Debug)]
pub(super) struct Ruling {
    pub(super) offset: u64,
    pub(super) decision: Decision,
}

/// What happened beside the payments of a partition.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Where the state began with nothing: 0, or where it was emptied last.
    pub(super) begins: u64,
    /// In the order of their effect; each command once.
    pub(super) rulings: Vec<Ruling>,
    /// How many decisions there are.
    pub(super) count: u64,
    /// Decisions below this offset are no longer retained.
    pub(super) start: u64,
    commands: Fetched,
    by_offset: BTreeMap<u64, usize>,
    /// Commands that were decided and are no longer retained.
    pub(super) lost: BTreeSet<u64>,
}

impl Script {
    /// The commands, and the place of one among them.
    pub(super) fn command(&self, offset: u64) -> Option<(&Fetched, u32)> {
        self.by_offset.get(&offset).map(|&at| (&self.commands, at as u32))
    }

    /// The decision about a command.
    pub(super) fn about(&self, offset: u64) -> Option<&Ruling> {
        self.rulings.iter().find(|ruling| ruling.decision.offset == Some(offset))
    }

    /// True where an erasure was decided that is no longer retained: whom it was about is unknown.
    pub(super) fn lost_erasure(&self) -> bool {
        self.lost.iter().any(|&offset| self.about(offset).is_some_and(|ruling| ruling.decision.kind == "erase"))
    }

    /// The model in force for the payment at an offset: none where no decision says.
    pub(super) fn model_at(&self, lead: u64) -> Option<&Ruling> {
        self.rulings.iter().rev().find(|ruling| ruling.decision.kind == "model" && ruling.decision.after <= lead)
    }
}

impl<B: Broker> Audit<B> {
    /// Reads all decisions of a partition and the commands that they name.
    pub(super) fn script(&self, partition: u32) -> Result<Script> {
        let at = self.decisions(partition);
        let bounds = self.bounds(at)?;
        let mut script = Script { start: bounds.start, ..Script::default() };
        let mut seen = BTreeSet::new();
        let cursor = Cursor::open(self.broker.reader()?, at, bounds.start, bounds.end)?;
        cursor.each(&mut |batch| {
            for record in batch.iter() {
                let decision = Decision::decode(record.value.unwrap_or_default())
                    .map_err(|why| AuditError(format!("{} is no decision: {why}", self.place(at, record.offset))))?;
                script.count += 1;
                if decision.kind == EMPTIED {
                    script.begins = decision.after;
                    script.rulings.clear();
                    seen.clear();
                } else if decision.offset.is_none_or(|offset| seen.insert(offset)) {
                    script.rulings.push(Ruling { offset: record.offset, decision });
                }
            }
            Ok(())
        })?;
        // Under at-least-once a later life may have written a decision again behind others.
        script.rulings.sort_by_key(|ruling| ruling.decision.after);
        self.read_commands(&mut script, self.commands(partition))?;
        Ok(script)
    }

    fn read_commands(&self, script: &mut Script, at: TopicPartition) -> Result<()> {
        let named: BTreeSet<u64> = script.rulings.iter().filter_map(|ruling| ruling.decision.offset).collect();
        let (Some(&first), Some(&last)) = (named.first(), named.last()) else { return Ok(()) };
        let bounds = self.bounds(at)?;
        let (from, until) = (first.max(bounds.start), (last + 1).min(bounds.end));
        let cursor = Cursor::open(self.broker.reader()?, at, from.min(until), until)?;
        cursor.each(&mut |batch| {
            for record in batch.iter().filter(|record| named.contains(&record.offset)) {
                script.by_offset.insert(record.offset, script.commands.len());
                script.commands.push(at, record.offset, record.timestamp, record.key, record.value, record.headers());
            }
            Ok(())
        })?;
        script.lost = named.into_iter().filter(|offset| !script.by_offset.contains_key(offset)).collect();
        Ok(())
    }
}
