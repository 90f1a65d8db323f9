//! What is checked while a world lives, at the very step that breaks it: I2, I7, I8, and views that go back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use state::backend::WriteSet;
use topology::record::{TopicId, TopicPartition, Topics};
use topology::simulated::SimBroker;
use topology::status::{Phase, Tasks};
use topology::topology::TaskId;

use super::steps::Step;
use super::trace::At;
use super::world::{INSTANCES, PARTITIONS};

type Bytes = Arc<[u8]>;

/// A changelog partition as a read-committed reader has seen it grow, compacted away or not.
#[derive(Clone, Debug, Default)]
pub struct Grown {
    next: u64,
    values: BTreeMap<Bytes, BTreeSet<Option<Bytes>>>,
    /// Every committed record in order.
    pub records: Vec<(Bytes, Option<Bytes>)>,
}

pub struct Watch {
    changelog: TopicId,
    topics: Topics,
    pub grown: Vec<Grown>,
    /// By worker and task: what it showed last. By input: the most anyone ever showed.
    shown: BTreeMap<(At, TaskId), BTreeMap<TopicPartition, u64>>,
    highest: BTreeMap<TopicPartition, u64>,
    /// By worker: `highest` when its current step began. What others show while it is frozen comes after what it showed before.
    begun: BTreeMap<At, BTreeMap<TopicPartition, u64>>,
    /// By worker: the epoch of its producer whose last end got no answer.
    unanswered: BTreeMap<At, Option<u32>>,
    write_failed: [bool; INSTANCES],
    pub violations: Vec<String>,
}

impl Watch {
    pub fn new(topics: &Topics, changelog: TopicId) -> Self {
        Self {
            changelog,
            topics: topics.clone(),
            grown: vec![Grown::default(); PARTITIONS as usize],
            shown: BTreeMap::new(),
            highest: BTreeMap::new(),
            begun: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            write_failed: [false; INSTANCES],
            violations: Vec::new(),
        }
    }

    /// Reads on in a changelog; before a compaction takes something away, and whenever it is compared with.
    pub fn read_on(&mut self, sim: &SimBroker, partition: u32) -> &Grown {
        let grown = &mut self.grown[partition as usize];
        let (records, next) = sim.committed_from(TopicPartition { topic: self.changelog, partition }, grown.next);
        grown.next = next;
        for record in records {
            let key = record.key.expect("a changelog's records have keys");
            grown.values.entry(Arc::clone(&key)).or_default().insert(record.value.clone());
            grown.records.push((key, record.value));
        }
        grown
    }

    /// I2: what comes to the disk is in the committed changelog, and its position not beyond it.
    pub fn store_written(&mut self, sim: &SimBroker, set: &WriteSet) {
        for part in set.parts() {
            let store = part.partition();
            let changelog = TopicPartition { topic: self.changelog, partition: store.partition };
            let grown = self.read_on(sim, store.partition);
            // Decided is committed, whenever readers get it.
            let coming = sim.decided_from(changelog, grown.next);
            let known = |key: &[u8], value: Option<&[u8]>| {
                grown.values.get(key).is_some_and(|known| known.contains(&value.map(Bytes::from)))
                    || coming.iter().any(|record| record.key.as_deref() == Some(key) && record.value.as_deref() == value)
            };
            let unknown = part.changes().any(|(key, value)| !known(key, value));
            // Behind the last of them comes their marker.
            let end = coming.last().map_or(grown.next, |record| record.offset + 2);
            let beyond = part.positions().map(|positions| positions.changelog).filter(|&position| position > end);
            if unknown {
                self.violations
                    .push(format!("I2: a value is written to the disk of {store} that its committed changelog does not have"));
            }
            if let Some(at) = beyond {
                self.violations.push(format!("I2: the disk of {store} stands at {at}, its committed changelog ends at {end}"));
            }
        }
    }

    /// I8: an end of a transaction got no answer.
    pub fn unanswered(&mut self, sim: &SimBroker, at: At) {
        self.unanswered.insert(at, sim.producer_epoch(&at.name()));
    }

    /// I8: what a worker does next with its producer after that.
    pub fn called(&mut self, sim: &SimBroker, at: At, step: Step) {
        let uses_producer = step.is_sending() || step.is_end() || step == Step::AddOffsets;
        let Some(epoch) = uses_producer.then(|| self.unanswered.remove(&at)).flatten() else { return };
        if sim.producer_epoch(&at.name()) == epoch {
            self.violations.push(format!("I8: {at} goes on to {step:?} with a producer whose last end got no answer"));
        }
    }

    pub fn write_failed(&mut self, instance: usize) {
        self.write_failed[instance] = true;
    }

    /// I7: a worker whose durable write failed has stopped.
    pub fn write_reported(&mut self, instance: usize, stopped: bool) {
        if std::mem::take(&mut self.write_failed[instance]) && !stopped {
            self.violations.push(format!("I7: a write to the disk of i{instance} failed, and its worker goes on"));
        }
    }

    /// An instance's process is gone.
    pub fn forget(&mut self, instance: usize) {
        self.shown.retain(|(at, _), _| at.instance != instance);
        self.unanswered.retain(|at, _| at.instance != instance);
    }

    /// A worker begins a step.
    pub fn begins(&mut self, at: At) {
        self.begun.insert(at, self.highest.clone());
    }

    /// Committed views never go back: neither one worker's, nor from a partition's owner to the next.
    pub fn views(&mut self, at: At, tasks: &Tasks, exactly_once: bool) {
        let all = tasks.all();
        let running =
            |id: &TaskId| all.get(id).is_some_and(|status| status.phase == Phase::Running && Some(status.worker) == at.worker);
        self.shown.retain(|(who, id), _| *who != at || running(id));
        for (id, status) in all.iter().filter(|(id, _)| running(id)) {
            let now: BTreeMap<TopicPartition, u64> = status.inputs.iter().copied().collect();
            let before = self.shown.insert((at, *id), now.clone());
            for (input, next) in now {
                let least = match &before {
                    Some(before) => before.get(&input).copied().unwrap_or(0),
                    None => self.begun[&at].get(&input).copied().unwrap_or(0),
                };
                if next < least && exactly_once {
                    let topic = self.topics.name(input.topic);
                    self.violations.push(format!("{at} shows {topic}:{} up to {next}, after {least} was shown", input.partition));
                }
                let highest = self.highest.entry(input).or_default();
                *highest = (*highest).max(next);
            }
        }
    }
}
