//! What one poll brought, through the tasks: by partition, as far as the decided order lets it, and what is held back later.

use state::backend::BackendError;
use tracing::{debug, info, warn};

use crate::broker::{Broker, BrokerError, Member};
use crate::metrics::Metrics;
use crate::processor::{ProcessError, Punctuation};
use crate::record::{Batch, Fetched, Outgoing, TopicPartition};
use crate::sink::Sink;
use crate::status::Phase;
use crate::task::{Input, Task};
use crate::topology::TaskId;
use crate::worker::{Open, Worker};

struct MemberSink<'m, M> {
    member: &'m mut M,
    exactly_once: bool,
}

impl<M: Member> Sink for MemberSink<'_, M> {
    fn send(&mut self, record: &Outgoing<'_>) -> Result<(), BrokerError> {
        self.member.send(record)
    }

    fn settle_order(&mut self) -> Result<(), BrokerError> {
        if self.exactly_once { Ok(()) } else { self.member.flush() }
    }
}

impl<B: Broker> Worker<B> {
    fn begin(&mut self) -> Result<(), ProcessError> {
        if self.open.is_none() {
            if self.config.exactly_once {
                self.member()?.begin()?;
            }
            self.open = Some(Open { since_us: self.clock.monotonic_us(), records: 0, bytes: 0 });
        }
        Ok(())
    }

    pub(crate) fn process(&mut self, fetched: &Fetched) -> Result<(), ProcessError> {
        if fetched.is_empty() {
            return Ok(());
        }
        self.begin()?;
        let began_us = self.clock.monotonic_us();
        let mut order = std::mem::take(&mut self.order);
        fetched.order_by_partition(&mut order);
        let mut rest = order.as_slice();
        let mut outcome = Ok(());
        while let (Some(&first), Ok(())) = (rest.first(), &outcome) {
            let from = fetched.origin(first as usize);
            let run = rest.partition_point(|&at| fetched.origin(at as usize) <= from);
            let (batch, others) = rest.split_at(run);
            rest = others;
            outcome = self.process_partition(from, fetched, batch);
        }
        self.order = order;
        outcome?;
        if let Some(open) = &mut self.open {
            open.records += fetched.len() as u64;
            open.bytes += fetched.bytes();
        }
        Metrics::add(&self.metrics.records_total, fetched.len() as u64);
        Metrics::add(&self.metrics.record_bytes_total, fetched.bytes() as u64);
        Metrics::add(&self.metrics.process_micros_total, self.clock.monotonic_us() - began_us);
        Ok(())
    }

    fn process_partition(&mut self, from: TopicPartition, fetched: &Fetched, order: &[u32]) -> Result<(), ProcessError> {
        let Some((task, input)) = self.reader_of(from) else {
            debug!(topic = self.shared.topology.topics().name(from.topic), from.partition, "records of a task that is gone");
            return Ok(());
        };
        let Some(task) = self.tasks.get_mut(&task).filter(|task| task.phase == Phase::Running) else {
            return Ok(());
        };
        let member = self.member.as_mut().expect("invariant: records come from a member");
        let mut admitted = task.admit(input, order.iter().map(|&at| fetched.get(at as usize).offset));
        if admitted > 0 {
            let mut sink = MemberSink { member, exactly_once: self.config.exactly_once };
            let batch = Batch::new(fetched, &order[..admitted]);
            let waited = task.inputs[input].away.is_some();
            let began_us = self.clock.monotonic_us();
            match task.process(input, &batch, &self.shared, &mut sink) {
                Err(ProcessError::Backend(why @ BackendError::Away { .. })) => {
                    if !waited {
                        warn!(task = %task.id, %why, "the partition waits until its evicted values are to be had; others go on");
                    }
                    Metrics::add(&self.metrics.tier_pauses_total, 1);
                    task.inputs[input].wait(self.clock.now_ms(), self.clock.monotonic_us());
                    admitted = 0;
                }
                processed => {
                    processed?;
                    let timestamps_ms = batch.iter().map(|record| record.timestamp);
                    self.journal.processed(began_us, self.clock.monotonic_us(), timestamps_ms);
                }
            }
            if waited != task.inputs[input].away.is_some() {
                if waited {
                    info!(task = %task.id, "evicted values are to be had again: the partition goes on");
                }
                self.shared.tasks.waits(task.id, self.config.index, task.waits_since_ms());
            }
        }
        if let Some(&at) = order.get(admitted) {
            member.stop(&[from])?;
            task.inputs[input].held = true;
            task.inputs[input].next = task.inputs[input].next.max(fetched.get(at as usize).offset);
        }
        let id = task.id;
        self.release(id)
    }

    /// Inputs that were held back go on where the decided order allows it.
    fn release(&mut self, id: TaskId) -> Result<(), ProcessError> {
        let now_us = self.clock.monotonic_us();
        let task = self.tasks.get_mut(&id).expect("invariant: the caller has it");
        let member = self.member.as_mut().expect("invariant: tasks belong to a member");
        for at in 0..task.inputs.len() {
            let Input { from, next, held, .. } = task.inputs[at];
            if held && task.inputs[at].is_due(now_us) && task.admit(at, std::iter::once(next)) > 0 {
                task.inputs[at].held = false;
                member.start(&[(from, next)])?;
            }
        }
        Ok(())
    }

    /// Inputs that wait for evicted values are tried again when that is due; true where one is.
    pub(crate) fn try_away(&mut self) -> Result<bool, ProcessError> {
        let now_us = self.clock.monotonic_us();
        let due = |input: &Input| input.held && input.away.is_some() && input.is_due(now_us);
        let running = self.tasks.values().filter(|task| task.phase == Phase::Running);
        let ids: Vec<TaskId> = running.filter(|task| task.inputs.iter().any(due)).map(|task| task.id).collect();
        ids.iter().try_for_each(|&id| self.release(id))?;
        Ok(!ids.is_empty())
    }

    /// Lets go of what was staged to leave this machine.
    pub(crate) fn evict_staged(&mut self) -> Result<(), ProcessError> {
        for task in self.tasks.values().filter(|task| task.phase == Phase::Running) {
            for store in &task.stores {
                self.shared.backend.evict_staged(store.partition())?;
            }
        }
        Ok(())
    }

    fn reader_of(&self, from: TopicPartition) -> Option<(TaskId, usize)> {
        let subs = self.shared.topology.subs().iter().enumerate();
        let mut found = subs.filter_map(|(sub, spec)| Some((sub, usize::from(spec.input_number(from.topic)?))));
        found.next().map(|(sub, input)| (TaskId { sub: sub as u16, partition: from.partition }, input))
    }

    pub(crate) fn punctuate(&mut self) -> Result<(), ProcessError> {
        let now_ms = self.clock.now_ms();
        let due = |task: &Task| task.phase == Phase::Running && task.is_due(Punctuation::WallClock, now_ms);
        if !self.tasks.values().any(due) {
            return Ok(());
        }
        self.begin()?;
        let member = self.member.as_mut().expect("invariant: tasks belong to a member");
        let mut sink = MemberSink { member, exactly_once: self.config.exactly_once };
        for task in self.tasks.values_mut().filter(|task| task.phase == Phase::Running) {
            task.punctuate(Punctuation::WallClock, now_ms, &self.shared, &mut sink)?;
        }
        Ok(())
    }
}
