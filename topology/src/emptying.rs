//! Beginning anew: a task's state is taken back record by record, so that nobody restores it later (`START_FROM=earliest`).

use tracing::warn;

use crate::broker::{Broker, Member};
use crate::decision::{Decision, EMPTIED};
use crate::processor::ProcessError;
use crate::record::{Outgoing, TopicPartition};
use crate::topology::TaskId;
use crate::worker::{Open, Worker};

/// Keys held in memory while their tombstones are sent.
const KEYS_AT_ONCE: usize = 10_000;

impl<B: Broker> Worker<B> {
    /// Writes a tombstone for every key of a restored task's stores and commits where its inputs begin, together; then empties the
    /// stores. A crash in between begins it again.
    pub(crate) fn empty_stores(&mut self, id: TaskId) -> Result<(), ProcessError> {
        // The producer has one transaction at a time: what other tasks have open goes first.
        self.commit()?;
        let exactly_once = self.config.exactly_once;
        let now_ms = self.clock.now_ms();
        let member = self.member.as_mut().expect("invariant: tasks belong to a member");
        let task = self.tasks.get_mut(&id).expect("invariant: the caller has it");
        let backend = &self.shared.backend;
        let markers = if exactly_once { member.markers_per_commit() } else { 0 };
        if exactly_once {
            member.begin()?;
        }
        // So that a failure from here on aborts it.
        self.open = Some(Open { since_us: self.clock.monotonic_us(), records: 0, bytes: 0 });
        for progress in &mut task.restores {
            let to = progress.changelog;
            let (mut keys, mut count, mut after) = (Vec::new(), 0, None);
            loop {
                backend.scan(&progress.store, after.as_deref(), KEYS_AT_ONCE, &mut |key, _| {
                    keys.push(key.to_vec());
                    true
                })?;
                for key in &keys {
                    member.send(&Outgoing { to, key: Some(key), value: None, timestamp: now_ms, headers: &[] })?;
                }
                count += keys.len() as u64;
                after = keys.pop();
                keys.clear();
                if after.is_none() {
                    break;
                }
            }
            progress.position += count + markers;
            warn!(task = %id, store = %progress.store, keys = count, "state emptied, as START_FROM=earliest asks");
        }
        // What was decided before no longer counts: replays begin here, with nothing.
        if let Some(topic) = self.shared.topology.subs()[usize::from(id.sub)].decisions {
            let after = task.inputs[0].next;
            let decision = Decision { after, kind: EMPTIED.into(), topic: None, offset: None, subject: None, clears: None };
            let to = TopicPartition { topic, partition: id.partition };
            member.send(&Outgoing { to, key: None, value: Some(&decision.encode()), timestamp: now_ms, headers: &[] })?;
        }
        let offsets: Vec<(TopicPartition, u64)> = task.inputs.iter().map(|input| (input.from, input.next)).collect();
        if exactly_once {
            let token = member.token()?;
            member.commit(&offsets, token)?;
        } else {
            member.flush()?;
            let token = member.token()?;
            member.commit_offsets(&offsets, token)?;
        }
        self.open = None;
        for progress in &task.restores {
            backend.drop_partition(&progress.store)?;
            backend.open(&progress.store)?;
        }
        Ok(())
    }
}
