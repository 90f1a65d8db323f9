//! The processing of one task again, by the very same processor and store code, away from the group and its topics.
//!
//! Nothing is written but the store that the caller gives: what the processor emits goes to a closure. The caller feeds the inputs in
//! the order that the decisions wrote down ([`crate::decision`]); [`Replay::advance`] stands for what a task's input position passes without
//! records. What comes out is a function of that order alone (I6), so it can be compared with what the log has.

use std::sync::Arc;

use state::backend::{Backend, Positions, WriteSet};
use state::store::StoreOptions;

use crate::broker::BrokerError;
use crate::processor::{Counts, DeadLetters, ProcessError, Result};
use crate::record::{Batch, Outgoing};
use crate::sink::Sink;
use crate::status::{Phase, Tasks};
use crate::task::{Shared, Task};
use crate::topology::{TaskId, Topology};

/// Decoded state kept in memory above the store, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// Takes what a replayed processor emits; the record is borrowed from it.
pub type Emitted<'a> = dyn FnMut(&Outgoing<'_>) + 'a;

/// One task replayed. See the module's header.
pub struct Replay {
    task: Task,
    shared: Shared,
    set: WriteSet,
}

struct Tell<'a, 'e>(&'a mut Emitted<'e>);

impl Sink for Tell<'_, '_> {
    fn send(&mut self, record: &Outgoing<'_>) -> std::result::Result<(), BrokerError> {
        (self.0)(record);
        Ok(())
    }

    fn settle_order(&mut self) -> std::result::Result<(), BrokerError> {
        Ok(())
    }
}

impl Replay {
    /// The task as it stands above what the backend holds (empty partitions for a replay from the beginning), its inputs at 0.
    ///
    /// `partitions` are those of each topic of the topology's table.
    ///
    /// # Errors
    /// The backend's.
    pub fn new(topology: Arc<Topology>, partitions: Vec<u32>, id: TaskId, backend: Arc<dyn Backend>) -> Result<Self> {
        let dead_letters = topology.dead_letters().map(|topic| DeadLetters { topic, max_bytes: usize::MAX });
        let counts = Arc::new(Counts(partitions));
        let shared =
            Shared { topology, counts, backend, tasks: Arc::new(Tasks::default()), dead_letters, worker: 0, clock: None };
        // A value that includes a record already is for the caller to find, not for an assertion.
        let options = StoreOptions { cache_bytes: CACHE_BYTES, exactly_once: false, hash_seed: 0 };
        let mut task = Task::new(id, &shared, &options);
        for store in &task.stores {
            shared.backend.open(store.partition())?;
        }
        task.planned = true;
        task.enter(Phase::Running, &shared, 0);
        Ok(Self { task, shared, set: WriteSet::default() })
    }

    /// An input's next offset.
    #[must_use]
    pub fn next(&self, input: usize) -> u64 {
        self.task.inputs[input].next
    }

    /// Moves an input forward past offsets that hold no record; never back.
    pub fn advance(&mut self, input: usize, to: u64) {
        let next = &mut self.task.inputs[input].next;
        *next = (*next).max(to);
    }

    /// Processes records of one input, in offset order and not below [`Self::next`].
    ///
    /// # Errors
    /// The processor's.
    pub fn process(&mut self, input: usize, batch: &Batch<'_>, emitted: &mut Emitted<'_>) -> Result {
        if batch.is_empty() {
            return Ok(());
        }
        if batch.get(0).offset < self.next(input) {
            return Err(ProcessError::Stop("a replay was fed a record that it has passed".into()));
        }
        self.task.process(input, batch, &self.shared, &mut Tell(emitted))
    }

    /// How many keys are changed and not in the backend yet.
    #[must_use]
    pub fn changed(&self) -> usize {
        self.task.stores.iter().map(|store| store.changed()).sum()
    }

    /// Brings what was changed into the backend, with the inputs' positions and no changelog position.
    ///
    /// # Errors
    /// The backend's.
    pub fn settle(&mut self) -> Result {
        self.set.clear();
        let topics = self.shared.topology.topics();
        let inputs: Vec<(String, u64)> =
            self.task.inputs.iter().map(|input| (topics.name(input.from.topic).to_owned(), input.next)).collect();
        for store in &mut self.task.stores {
            self.set.begin(store.partition().clone());
            store.encode_changes(&mut |key, value| self.set.change(key, value));
            self.set.positions(Positions { inputs: inputs.clone(), ..Positions::default() });
        }
        self.shared.backend.write(&self.set)?;
        self.task.settle();
        Ok(())
    }
}
