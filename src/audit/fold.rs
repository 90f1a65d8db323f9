//! A changelog folded to the last value of each key, and up to which input position it is complete.
//!
//! A changelog's end may lie in the middle of a transaction. So it is read twice: to the end C1, which waits for every transaction that
//! began before it, then to the end C2 seen after that. Each transaction that wrote below C1 is then in the fold as a whole, and so is the
//! effect of every payment below the highest one that a value below C1 includes: [`Fold::sure`].

use std::collections::BTreeMap;

use state::backend::Positions;
use state::store::{Marks, decode_marks};
use topology::broker::Broker;
use topology::record::Record;

use super::cursor::Cursor;
use super::{Audit, AuditError, Result, Told};

/// A key's last record; no value is a tombstone.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) offset: u64,
    pub(super) marks: Marks,
    pub(super) value: Option<Box<[u8]>>,
}

/// Records beside the last ones, where a store stands before the end.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// By key, its last record below the store's position.
    pub(super) below: BTreeMap<Box<[u8]>, Kept>,
    /// Records from the position on that the store may have all the same: positions are counted and may be too low.
    pub(super) band: BTreeMap<Box<[u8]>, Vec<Kept>>,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Fold {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) users: BTreeMap<Box<[u8]>, Kept>,
    /// The effects of all payments below this offset are in it, as far as they are in the log.
    pub(super) sure: u64,
    /// Behind the last payment that any value includes.
    pub(super) furthest: u64,
    pub(super) beside: Beside,
}

/// Where a store on disk stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    pub(super) changelog: u64,
    pub(super) lead: u64,
}

impl Stand {
    pub(super) fn of(positions: &Positions, lead: &str) -> Self {
        let next = positions.inputs.iter().find(|(name, _)| name == lead).map_or(0, |(_, next)| *next);
        Self { changelog: positions.changelog, lead: next }
    }
}

impl<B: Broker> Audit<B> {
    /// Folds the changelog of a partition.
    pub(super) fn fold(&self, partition: u32, store: Option<Stand>, told: &mut Told<'_>) -> Result<Fold> {
        let at = self.changelog(partition);
        let bounds = self.bounds(at)?;
        let mut fold = Fold { start: bounds.start, ..Fold::default() };
        let (mut from, mut until) = (bounds.start, bounds.end);
        for pass in 0..2 {
            let cursor = Cursor::open(self.broker.reader()?, at, from, until)?;
            cursor.each(&mut |batch| {
                for record in batch.iter() {
                    let place = || self.place(at, record.offset);
                    fold.take(&record, store, self.exactly_once)
                        .map_err(|why| AuditError(format!("{} cannot be read: {why}", place())))?;
                }
                told("changelog", batch.get(batch.len() - 1).offset - bounds.start, until - bounds.start);
                Ok(())
            })?;
            // Of the values that stand: those of a state that was emptied since say nothing.
            let standing = fold.users.values().filter(|kept| kept.value.is_some());
            fold.furthest = standing.map(|kept| kept.marks.0[0]).max().unwrap_or(0);
            if pass == 0 {
                fold.sure = fold.furthest;
            }
            (from, until) = (until, self.bounds(at)?.end.max(until));
            fold.end = from;
        }
        Ok(fold)
    }
}

impl Fold {
    fn take(&mut self, record: &Record<'_>, store: Option<Stand>, exactly_once: bool) -> std::result::Result<(), String> {
        let Some(key) = record.key else { return Ok(()) };
        let marks = record.value.map(decode_marks).transpose().map_err(|why| why.to_string())?;
        let lead = marks.map_or(0, |marks| marks.0[0]);
        let kept = Kept { offset: record.offset, marks: marks.unwrap_or_default(), value: record.value.map(Into::into) };
        if let Some(store) = store
            && record.offset >= store.changelog
        {
            if let Some(before) = self.users.get(key).filter(|before| before.offset < store.changelog) {
                self.beside.below.insert(key.into(), before.clone());
            }
            if lead <= store.lead {
                self.beside.band.entry(key.into()).or_default().push(kept.clone());
            }
        }
        // Nothing fences a zombie under at-least-once: the value that includes the most wins, as in a restore.
        let stale = |before: &Kept| !exactly_once && kept.value.is_some() && kept.marks.0[0] < before.marks.0[0];
        if !self.users.get(key).is_some_and(stale) {
            self.users.insert(key.into(), kept);
        }
        Ok(())
    }
}
