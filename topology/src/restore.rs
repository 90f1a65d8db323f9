//! Bringing a task's store up to its changelog's end: the plan (pure), and the progress of one store.
//!
//! A restore ends where everything that was in the changelog when it began has been decided and read: at a position of the
//! read-committed reader that has reached the high watermark seen at the start. Ending at the last stable offset alone would not do: while a
//! zombie's transaction is open, committed records of a later owner lie above it.

use state::backend::{Backend, BackendError, Positions, StorePartition, WriteSet};
use state::store::{Marks, decode_marks};

use crate::broker::Bounds;
use crate::processor::ProcessError;
use crate::record::{Fetched, TopicPartition};

/// Committed in place of an offset while an application's state is being copied to it: nothing may start on half of a state.
pub const STATE_INCOMPLETE: u64 = i64::MAX as u64 - 1;

/// Committed in place of an offset once an application's state was copied to another one: nothing may be processed twice.
pub const STATE_MOVED: u64 = i64::MAX as u64 - 2;

/// Where a task without committed offsets may begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// Nowhere, if there is state: someone must say.
    #[default]
    Refuse,
    /// Behind the last record that the state includes.
    Changelog,
    /// At the first record still retained.
    Earliest,
}

/// What is known before a restore.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) stored: Option<&'a Positions>,
    pub(crate) changelog: Bounds,
    pub(crate) tombstone_retention_ms: u64,
    pub(crate) now_ms: i64,
}

/// What to do with a store on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Keep it and read the changelog from here.
    CatchUp { from: u64 },
    /// There is none: read all of the changelog.
    Fresh { from: u64 },
    /// Drop it, say why, and read all of the changelog.
    Rebuild { from: u64, why: String },
}

/// Decides from facts alone; the only place where a store is ever dropped for what it says.
pub(crate) fn plan(facts: &Facts<'_>) -> Plan {
    let Bounds { start, end } = facts.changelog;
    let Some(stored) = facts.stored else {
        return Plan::Fresh { from: start };
    };
    let age_ms = facts.now_ms.saturating_sub_unsigned(stored.current_at_ms).max(0).unsigned_abs();
    let why = if stored.changelog > end {
        format!(
            "it stands at changelog offset {}, but the changelog ends at {end}: lost data or a re-created topic",
            stored.changelog
        )
    } else if stored.changelog < start {
        format!("it stands at changelog offset {}, but the changelog begins at {start}", stored.changelog)
    } else if stored.changelog < end && age_ms > facts.tombstone_retention_ms {
        format!("it is {} h old, and the changelog may have dropped tombstones since", age_ms / 3_600_000)
    } else {
        return Plan::CatchUp { from: stored.changelog };
    };
    Plan::Rebuild { from: start, why }
}

/// Offsets a second, and the seconds that the rest will take at that pace; none while nothing has been passed.
pub(crate) fn pace(passed: u64, remaining: u64, elapsed_ms: u64) -> (u64, Option<u64>) {
    let rate = passed.saturating_mul(1000) / elapsed_ms.max(1);
    let eta = if remaining == 0 { Some(0) } else { remaining.checked_div(rate).map(|seconds| seconds.max(1)) };
    (rate, eta)
}

/// One store's restore under way.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) store: StorePartition,
    pub(crate) changelog: TopicPartition,
    /// The high watermark when it began.
    pub(crate) until: u64,
    /// Where it began.
    pub(crate) from: u64,
    /// Everything below this has been applied.
    pub(crate) position: u64,
    pub(crate) applied: u64,
    /// The lead topic's name.
    pub(crate) lead: String,
    /// The highest lead offset (next) that any value read includes.
    pub(crate) lead_mark: u64,
    /// The positions to write beside the data. The lead's says how far the values go, so that a restore which another one takes up
    /// does not forget what it has read.
    pub(crate) positions: Positions,
}

impl Progress {
    /// Of an open store, to the changelog's end as it is in the facts. One that cannot be caught up is dropped, which `dropping` hears first,
    /// and opened empty.
    pub(crate) fn begin(
        backend: &dyn Backend,
        store: StorePartition,
        changelog: TopicPartition,
        facts: &Facts<'_>,
        lead: &str,
        dropping: impl FnOnce(&StorePartition, &str),
    ) -> Result<Self, BackendError> {
        // What is read from the log's beginning is as young as this moment, also where it is interrupted and taken up again.
        let fresh = || Positions { current_at_ms: facts.now_ms.max(0).unsigned_abs(), ..Positions::default() };
        let (from, mut positions) = match plan(facts) {
            Plan::CatchUp { from } => (from, facts.stored.cloned().unwrap_or_default()),
            Plan::Fresh { from } => (from, fresh()),
            Plan::Rebuild { from, why } => {
                dropping(&store, &why);
                backend.drop_partition(&store)?;
                backend.open(&store)?;
                (from, fresh())
            }
        };
        if !positions.inputs.iter().any(|(name, _)| name == lead) {
            positions.inputs.push((lead.to_owned(), 0));
        }
        let lead_mark = positions.inputs.iter().find(|(name, _)| name == lead).map_or(0, |(_, next)| *next);
        Ok(Self {
            store,
            changelog,
            until: facts.changelog.end,
            from,
            position: from,
            applied: 0,
            lead: lead.to_owned(),
            lead_mark,
            positions,
        })
    }

    pub(crate) fn remaining(&self) -> u64 {
        self.until.saturating_sub(self.position)
    }

    /// Offsets behind it since it began: control records and compacted gaps too, as in [`Self::remaining`].
    pub(crate) fn passed(&self) -> u64 {
        self.position.saturating_sub(self.from)
    }

    pub(crate) fn done(&self) -> bool {
        self.position >= self.until
    }

    /// Applies what was fetched of this changelog (places in `order`, in offset order) and moves on to `position`. Repeats of a key are
    /// folded: only the last one is written. Under at-least-once the one that includes the most of the input wins, whoever wrote it.
    pub(crate) fn apply(
        &mut self,
        backend: &dyn Backend,
        fetched: &Fetched,
        order: &[u32],
        position: u64,
        exactly_once: bool,
        set: &mut WriteSet,
    ) -> Result<(), ProcessError> {
        let mut last: Vec<(&[u8], u32)> =
            order.iter().filter_map(|&at| fetched.get(at as usize).key.map(|key| (key, at))).collect();
        if exactly_once {
            last.sort_unstable_by(|a, b| a.0.cmp(b.0).then(b.1.cmp(&a.1)));
            last.dedup_by(|next, kept| next.0 == kept.0);
        } else {
            last = self.newest_by_marks(backend, fetched, last)?;
        }
        set.clear();
        set.begin(self.store.clone());
        for &(key, at) in &last {
            let value = fetched.get(at as usize).value;
            if let Some(bytes) = value {
                let marks = decode_marks(bytes).map_err(|why| self.unreadable(fetched, at, &why))?;
                self.lead_mark = self.lead_mark.max(marks.0[0]);
            }
            set.change(key, value);
        }
        self.applied += order.len() as u64;
        self.position = self.position.max(position);
        self.positions.changelog = self.position;
        for (_, next) in self.positions.inputs.iter_mut().filter(|(name, _)| *name == self.lead) {
            *next = (*next).max(self.lead_mark);
        }
        set.positions(self.positions.clone());
        backend.load(set)?;
        Ok(())
    }

    fn unreadable(&self, fetched: &Fetched, at: u32, why: &dyn std::fmt::Display) -> ProcessError {
        let offset = fetched.get(at as usize).offset;
        ProcessError::Stop(format!("changelog record {} of {} cannot be read: {why}", offset, self.store))
    }

    /// Nothing fences a zombie under at-least-once: its late changelog records must not win over what includes more of the input.
    fn newest_by_marks<'f>(
        &self,
        backend: &dyn Backend,
        fetched: &'f Fetched,
        mut records: Vec<(&'f [u8], u32)>,
    ) -> Result<Vec<(&'f [u8], u32)>, ProcessError> {
        records.sort_by(|a, b| a.0.cmp(b.0).then(a.1.cmp(&b.1)));
        let mut keys: Vec<&[u8]> = records.iter().map(|&(key, _)| key).collect();
        keys.dedup();
        let mut kept = vec![Marks::default().0; keys.len()];
        backend.multi_get(&self.store, &keys, &mut |at, bytes| {
            kept[at] = bytes.and_then(|bytes| decode_marks(bytes).ok()).unwrap_or_default().0;
        })?;
        let mut best = Vec::with_capacity(keys.len());
        let mut rest = records.as_slice();
        for (key, mut highest) in keys.into_iter().zip(kept) {
            let run = rest.partition_point(|&(other, _)| other <= key);
            let mut winner = None;
            for &(key, at) in &rest[..run] {
                let Some(bytes) = fetched.get(at as usize).value else {
                    // A tombstone has no marks and takes its place in the order of the log; the key's history begins anew behind it.
                    (winner, highest) = (Some((key, at)), Marks::default().0);
                    continue;
                };
                let included = decode_marks(bytes).map_err(|why| self.unreadable(fetched, at, &why))?.0;
                // What began anew within one commit includes less of one input than before, but more of another.
                if included == highest || included.iter().zip(&highest).any(|(next, before)| next > before) {
                    highest = std::array::from_fn(|input| highest[input].max(included[input]));
                    winner = Some((key, at));
                }
            }
            best.extend(winner);
            rest = &rest[run..];
        }
        Ok(best)
    }
}

#[cfg(test)]
mod tests {
    use state::memory::MemoryBackend;
    use state::store::{Marks, decode_kept, encode_kept};

    use super::*;
    use crate::record::TopicId;

    fn at(changelog: u64, current_at_ms: u64) -> Positions {
        Positions { changelog, inputs: Vec::new(), current_at_ms }
    }

    fn decide(stored: Option<&Positions>, start: u64, end: u64) -> Plan {
        plan(&Facts { stored, changelog: Bounds { start, end }, tombstone_retention_ms: 1000, now_ms: 10_000 })
    }

    #[test]
    fn a_store_is_kept_unless_it_cannot_be_caught_up() {
        assert_eq!(decide(None, 3, 9), Plan::Fresh { from: 3 });
        assert_eq!(decide(Some(&at(5, 9_500)), 3, 9), Plan::CatchUp { from: 5 });
        assert_eq!(decide(Some(&at(9, 1)), 3, 9), Plan::CatchUp { from: 9 }, "old, but nothing was written since");
        for (stored, why) in [(at(10, 9_500), "re-created"), (at(2, 9_500), "begins at 3"), (at(5, 8_999), "tombstones")] {
            match decide(Some(&stored), 3, 9) {
                Plan::Rebuild { from: 3, why: said } => assert!(said.contains(why), "{said}"),
                other => panic!("{stored:?} gave {other:?}"),
            }
        }
    }

    #[test]
    fn the_pace_foretells_the_end() {
        assert_eq!(pace(0, 100, 5_000), (0, None), "nothing passed yet: no guess");
        assert_eq!(pace(50, 100, 10_000), (5, Some(20)));
        assert_eq!(pace(1_000_000, 1, 1_000), (1_000_000, Some(1)), "never none while something remains");
        assert_eq!(pace(7, 0, 0), (7_000, Some(0)));
    }

    #[test]
    fn without_transactions_the_newest_by_marks_wins_also_behind_a_tombstone() {
        let (store, changelog) =
            (StorePartition { store: "s".into(), partition: 0 }, TopicPartition { topic: TopicId(0), partition: 0 });
        // By record: its marks, none for a tombstone; and the one that is kept.
        type Case<'c> = (&'c [Option<[u64; 4]>], Option<usize>);
        let cases: [Case<'_>; 6] = [
            (&[Some([5, 0, 0, 0]), Some([3, 0, 0, 0])], Some(0)),
            (&[Some([5, 0, 0, 0]), None], None),
            // A reset of what was erased before includes nothing of the lead input, and is newer all the same.
            (&[Some([5, 1, 0, 0]), None, Some([0, 3, 0, 0])], Some(2)),
            // The same without a tombstone, where both fell into one commit.
            (&[Some([5, 1, 0, 0]), Some([0, 3, 0, 0])], Some(1)),
            (&[Some([5, 1, 0, 0]), Some([0, 3, 0, 0]), Some([5, 1, 0, 0])], Some(1)),
            // Replayed from before the erasure: the second time it has not come as far yet.
            (&[Some([5, 1, 0, 0]), None, Some([9, 0, 0, 0]), None, Some([7, 0, 0, 0])], Some(4)),
        ];
        for (records, kept) in cases {
            let backend = MemoryBackend::new();
            backend.open(&store).expect("opened");
            let mut fetched = Fetched::default();
            for (at, marks) in records.iter().enumerate() {
                let mut value = Vec::new();
                encode_kept(&Marks(marks.unwrap_or_default()), &(at as u64), &mut value);
                fetched.push(changelog, at as u64, 0, Some(b"a"), marks.map(|_| value.as_slice()), std::iter::empty());
            }
            let (lead, store_of, positions) = ("lead".to_owned(), store.clone(), Positions::default());
            let mut progress = Progress {
                store: store_of,
                changelog,
                until: 9,
                from: 0,
                position: 0,
                applied: 0,
                lead,
                lead_mark: 0,
                positions,
            };
            let order: Vec<u32> = (0..records.len() as u32).collect();
            progress.apply(&backend, &fetched, &order, 9, false, &mut WriteSet::default()).expect("applied");
            let value = backend.get(&store, b"a").expect("there").map(|bytes| decode_kept::<u64>(&bytes).expect("kept").1);
            assert_eq!(value, kept.map(|at| at as u64), "{records:?}");
        }
    }

    #[test]
    fn an_interrupted_restore_leaves_behind_how_far_its_values_go() {
        let (backend, store) = (MemoryBackend::new(), StorePartition { store: "s".into(), partition: 0 });
        backend.open(&store).expect("opened");
        let changelog = TopicPartition { topic: TopicId(0), partition: 0 };
        let mut fetched = Fetched::default();
        for (offset, key, next) in [(0, b"a", 7), (1, b"b", 12), (2, b"a", 9)] {
            let mut value = Vec::new();
            encode_kept(&Marks([next, 0, 0, 0]), &next, &mut value);
            fetched.push(changelog, offset, 0, Some(key), Some(&value), std::iter::empty());
        }
        let positions = Positions { inputs: vec![("lead".into(), 0)], ..Positions::default() };
        let (lead, store_of) = ("lead".to_owned(), store.clone());
        let mut progress =
            Progress { store: store_of, changelog, until: 100, from: 0, position: 0, applied: 0, lead, lead_mark: 0, positions };
        progress.apply(&backend, &fetched, &[0, 1, 2], 3, true, &mut WriteSet::default()).expect("applied");
        let kept = backend.positions(&store).expect("there").expect("written");
        assert_eq!((kept.changelog, kept.inputs), (3, vec![("lead".to_owned(), 12)]));
    }
}
