//! The commit protocol. The unit is one worker's transaction over all of its tasks; the steps' numbers are DESIGN's.

use state::backend::WriteSet;
use tracing::trace;

use crate::broker::{Broker, CommitStep, Member};
use crate::latency::Steps;
use crate::metrics::Metrics;
use crate::processor::ProcessError;
use crate::record::{Outgoing, TopicPartition};
use crate::status::Phase;
use crate::task::{Shared, Task};
use crate::worker::Worker;

impl<B: Broker> Worker<B> {
    /// Commits everything processed so far. After an error nothing of it may be built upon: the caller voids it.
    pub(crate) fn commit(&mut self) -> Result<(), ProcessError> {
        let Some(open) = self.open else { return Ok(()) };
        let began_us = self.clock.monotonic_us();
        let now_ms = self.clock.now_ms();
        let exactly_once = self.config.exactly_once;
        let mut set = std::mem::take(&mut self.set);
        set.clear();
        let member = self.member.as_mut().expect("invariant: what is open was begun by a member");
        // 1a  At-least-once: outputs are in the log before any state that includes their records.
        if !exactly_once {
            member.flush()?;
        }
        let flushed_us = self.clock.monotonic_us();
        // 1  Each changed value is encoded once and goes to its changelog.
        let markers = if exactly_once { member.markers_per_commit() } else { 0 };
        let mut written = 0;
        for task in self.tasks.values_mut().filter(|task| task.phase == Phase::Running) {
            written += send_changes(task, member, &self.shared, markers, now_ms, &mut set)?;
        }
        // What the first flush took counts to the second one's step.
        let changed_us = began_us + (self.clock.monotonic_us() - flushed_us);
        let mut steps: Steps = [began_us, changed_us, 0, 0, 0];
        // 1b  At-least-once: state is in the log before the offsets that it includes.
        if !exactly_once {
            member.flush()?;
            steps[2] = self.clock.monotonic_us();
        }
        // 2, 3  Offsets join the transaction under the group's current generation; the transaction commits.
        // Brokers fence by the offsets' group alone: a transaction without any would commit whoever sent it. So each task that wrote puts its
        // lead's offset in, moved or not.
        let mut offsets: Vec<(TopicPartition, u64)> = Vec::new();
        for task in self.tasks.values().filter(|task| task.phase == Phase::Running) {
            let wrote = task.counters.emitted + task.counters.dead_letters > 0 || task.stores.iter().any(|s| s.changed() > 0);
            let moved = task.inputs.iter().enumerate().filter(|(at, input)| input.next != input.committed || (*at == 0 && wrote));
            offsets.extend(moved.map(|(_, input)| (input.from, input.next)));
        }
        let token = member.token()?;
        if exactly_once {
            let clock = &*self.clock;
            member.commit_in_steps(&offsets, token, &mut |step| {
                steps[if step == CommitStep::Flushed { 2 } else { 3 }] = clock.monotonic_us();
            })?;
        } else if !offsets.is_empty() {
            member.commit_offsets(&offsets, token)?;
        }
        self.open = None;
        steps[4] = self.clock.monotonic_us();
        // Steps that were not told took no time of their own.
        (2..4).for_each(|at| steps[at] = steps[at].max(steps[at - 1]));
        // 4  Only now the disk: it never shows what the committed changelog does not (I2).
        if !set.is_empty() {
            self.shared.backend.write(&set)?;
        }
        // 5  The overlay becomes the committed view.
        let mut counters = Counters::default();
        for task in self.tasks.values_mut().filter(|task| task.phase == Phase::Running) {
            task.settle();
            counters.add(task);
            task.notes.publish(&self.metrics);
            task.publish(&self.shared, now_ms);
        }
        set.clear();
        self.set = set;
        self.progress += 1;
        self.damaged = None;
        self.paused = None;
        Metrics::add(&self.metrics.changelog_records_total, written);
        counters.publish(&self.metrics);
        let micros = self.clock.monotonic_us() - began_us;
        self.metrics.commit(micros);
        self.journal.committed(&steps, &mut self.metrics.latency());
        trace!(worker = self.config.index, open.records, written, micros, "committed");
        Ok(())
    }
}

/// Sends every changed value of a task and adds it to the set. Returns how many.
fn send_changes<M: Member>(
    task: &mut Task,
    member: &mut M,
    shared: &Shared,
    markers: u64,
    now_ms: i64,
    set: &mut WriteSet,
) -> Result<u64, ProcessError> {
    let mut written = 0;
    for at in 0..task.stores.len() {
        let store = &mut task.stores[at];
        let changed = store.changed() as u64;
        if changed == 0 {
            continue;
        }
        set.begin(store.partition().clone());
        let to = task.changelogs[at].to;
        let mut sent = Ok(());
        store.encode_changes(&mut |key, value| {
            if sent.is_ok() {
                sent = member.send(&Outgoing { to, key: Some(key), value, timestamp: now_ms, headers: &[] });
                set.change(key, value);
            }
        });
        sent?;
        // One writer (I1): what this commit adds is what it sends, and the broker's control record.
        task.changelogs[at].position += changed + markers;
        set.positions(task.positions(at, shared, now_ms));
        written += changed;
    }
    Ok(written)
}

/// What tasks counted since the last commit, added up before it touches shared counters.
#[derive(Default)]
struct Counters {
    emitted: u64,
    dead_letters: u64,
    replayed: u64,
    hits: u64,
    misses: u64,
}

impl Counters {
    fn add(&mut self, task: &mut Task) {
        let counted = std::mem::take(&mut task.counters);
        self.emitted += counted.emitted;
        self.dead_letters += counted.dead_letters;
        for store in &mut task.stores {
            let counted = store.take_counters();
            self.replayed += counted.replayed;
            self.hits += counted.hits;
            self.misses += counted.misses;
        }
    }

    fn publish(&self, metrics: &Metrics) {
        Metrics::add(&metrics.emitted_total, self.emitted);
        Metrics::add(&metrics.dead_letters_total, self.dead_letters);
        Metrics::add(&metrics.records_replayed_total, self.replayed);
        Metrics::add(&metrics.cache_hits_total, self.hits);
        Metrics::add(&metrics.cache_misses_total, self.misses);
    }
}
