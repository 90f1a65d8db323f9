//! What the group decides of a worker's tasks, done: assigned, revoked, lost.

use state::store::StoreOptions;
use tracing::info;

use crate::broker::{Broker, Event, Member, Reader};
use crate::processor::ProcessError;
use crate::record::TopicPartition;
use crate::task::Task;
use crate::topology::TaskId;
use crate::worker::Worker;

impl<B: Broker> Worker<B> {
    /// Does what the group decided. The decision stays pending until it is acknowledged: a commit that fails on the way must not leave
    /// the group waiting for ever.
    pub(crate) fn follow(&mut self) -> Result<(), ProcessError> {
        let Some(event) = self.pending.clone() else { return Ok(()) };
        match &event {
            Event::Assigned(partitions) => {
                self.member()?.acknowledge(&event)?;
                self.pending = None;
                for &partition in partitions {
                    self.open_task(partition)?;
                }
            }
            Event::Revoked(partitions) => {
                let ids: Vec<TaskId> = partitions.iter().filter_map(|&p| self.led(p)).collect();
                if ids.iter().any(|id| self.tasks.get(id).is_some_and(Task::is_ahead)) {
                    self.working = true;
                    self.commit()?;
                    self.working = false;
                }
                self.close_tasks(&ids)?;
                self.member()?.acknowledge(&event)?;
            }
            Event::Lost(partitions) => {
                let ids: Vec<TaskId> = partitions.iter().filter_map(|&p| self.led(p)).collect();
                // Their outputs are in the open transaction: none of it may commit.
                self.abort()?;
                self.close_tasks(&ids)?;
                self.member()?.acknowledge(&event)?;
            }
        }
        self.pending = None;
        Ok(())
    }

    fn led(&self, partition: TopicPartition) -> Option<TaskId> {
        let sub = self.shared.topology.led_by(partition.topic)?;
        Some(TaskId { sub, partition: partition.partition })
    }

    fn open_task(&mut self, partition: TopicPartition) -> Result<(), ProcessError> {
        let Some(id) = self.led(partition) else { return Ok(()) };
        let known = self.shared.counts.of(partition.topic);
        if partition.partition >= known {
            return Err(ProcessError::Stop(format!(
                "`{}` grew beyond the {known} partitions it had at the start: keys live in other partitions now than their state. Move to a \
                 new APPLICATION_ID, or set the topic back",
                self.shared.topology.topics().name(partition.topic)
            )));
        }
        info!(task = %id, worker = self.config.index, "task assigned");
        let options = StoreOptions {
            cache_bytes: self.config.cache_bytes,
            exactly_once: self.config.exactly_once,
            hash_seed: self.config.hash_seed,
        };
        let task = Task::new(id, &self.shared, &options);
        self.shared.tasks.open(id, task.status(&self.shared, self.clock.now_ms()));
        self.tasks.insert(id, task);
        Ok(())
    }

    fn close_tasks(&mut self, ids: &[TaskId]) -> Result<(), ProcessError> {
        for id in ids {
            let Some(task) = self.tasks.remove(id) else { continue };
            self.shared.tasks.remove(*id, self.config.index);
            if let Some(reader) = &mut self.reader {
                for progress in &task.restores {
                    reader.unassign(progress.changelog)?;
                }
            }
            let inputs: Vec<_> = task.inputs.iter().map(|input| input.from).collect();
            self.member()?.stop(&inputs)?;
            info!(task = %id, worker = self.config.index, "task closed");
        }
        Ok(())
    }
}
