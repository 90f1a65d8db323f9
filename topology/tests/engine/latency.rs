//! Where a slow record's time went is told by stage: whatever is slow gets the blame, on the simulated clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use topology::driver::{DriverOptions, TestDriver};
use topology::latency::{Slowest, Stage};
use topology::processor::{Context, Processor, Result};
use topology::record::Batch;
use topology::simulated::{Fault, Op, SimBroker};
use topology::topology::{StoreId, Topology};

/// The broker whose time passes while a batch is processed, and how long that takes.
type Slowness = Arc<(Mutex<Option<SimBroker>>, AtomicU64)>;

struct Counting(Slowness);

impl Processor for Counting {
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        if let Some(sim) = &*self.0.0.lock().unwrap() {
            sim.advance(self.0.1.load(Ordering::Relaxed));
        }
        context.store::<u64>(StoreId(0)).prefetch(batch.iter().filter_map(|record| record.key))?;
        for record in batch.iter() {
            let (key, mark) = (record.key.unwrap(), context.mark(&record));
            if let Some(count) = context.store::<u64>(StoreId(0)).update(key, mark) {
                *count += 1;
            }
            context.emit_here(0, key, b"seen", record.timestamp)?;
        }
        Ok(())
    }
}

struct Scene {
    driver: TestDriver,
    slowness: Slowness,
}

impl Scene {
    /// Everything takes no time; the group has settled.
    fn new(options: DriverOptions) -> Self {
        let slowness = Slowness::default();
        let shared = Arc::clone(&slowness);
        let builder = Topology::builder("latency");
        let topology = builder
            .sub("count", move |_| Counting(Arc::clone(&shared)), |w| w.input("in").store::<u64>("counts").output("out"))
            .build()
            .unwrap();
        let mut driver = TestDriver::new(topology, options);
        *slowness.0.lock().unwrap() = Some(driver.sim.clone());
        driver.run().unwrap();
        Self { driver, slowness }
    }

    /// One record of this moment for each of these partitions.
    fn pipe(&mut self, partitions: std::ops::Range<u32>) {
        let now_ms = i64::try_from(self.driver.sim.now()).unwrap();
        for partition in partitions {
            self.driver.pipe_to("in", partition, Some(b"user"), Some(b"1"), now_ms);
        }
    }

    /// From here on each call of this kind takes so long.
    fn slow(&self, op: Op, ms: u64) {
        let sim = self.driver.sim.clone();
        self.driver.sim.set_faults(move |call| {
            if call.op == op {
                sim.advance(ms);
            }
            Fault::None
        });
    }

    fn slowest(&self) -> Slowest {
        self.driver.metrics.latency().all().unwrap()
    }

    /// The stages that took time, in milliseconds.
    fn blamed(&self) -> Vec<(Stage, u64)> {
        let stages = self.slowest().stages.into_iter().filter(|(_, took)| *took > Duration::ZERO);
        stages.map(|(stage, took)| (stage, u64::try_from(took.as_millis()).unwrap())).collect()
    }
}

fn one_partition() -> DriverOptions {
    DriverOptions { partitions: 1, ..DriverOptions::default() }
}

#[test]
fn what_takes_no_time_is_blamed_on_nothing() {
    let mut scene = Scene::new(one_partition());
    scene.pipe(0..1);
    scene.driver.run().unwrap();
    assert_eq!((scene.blamed(), scene.slowest().of), (vec![], 1));
}

#[test]
fn a_record_that_was_not_fetched_waited_in_the_topic() {
    let mut scene = Scene::new(one_partition());
    scene.pipe(0..1);
    scene.driver.sim.advance(70);
    scene.driver.run().unwrap();
    assert_eq!(scene.blamed(), [(Stage::Topic, 70)]);
}

#[test]
fn each_step_of_a_slow_commit_is_blamed_by_itself() {
    for (op, stage) in [(Op::Flush, Stage::Flush), (Op::AddOffsets, Stage::Offsets), (Op::EndTxnCommit, Stage::End)] {
        let mut scene = Scene::new(one_partition());
        scene.pipe(0..1);
        scene.slow(op, 90);
        scene.driver.run().unwrap();
        assert_eq!(scene.blamed(), [(stage, 90)], "{op:?}");
    }
}

#[test]
fn at_least_once_offsets_are_the_end_and_both_flushes_one_step() {
    let mut scene = Scene::new(DriverOptions { exactly_once: false, ..one_partition() });
    scene.pipe(0..1);
    scene.slow(Op::Flush, 30);
    scene.driver.run().unwrap();
    assert_eq!(scene.blamed(), [(Stage::Flush, 60)]);
    let mut scene = Scene::new(DriverOptions { exactly_once: false, ..one_partition() });
    scene.pipe(0..1);
    scene.slow(Op::CommitOffsets, 40);
    scene.driver.run().unwrap();
    assert_eq!(scene.blamed(), [(Stage::End, 40)]);
}

#[test]
fn a_slow_batch_is_blamed_on_processing_and_on_the_turn_of_those_behind_it() {
    let mut scene = Scene::new(DriverOptions { partitions: 2, ..DriverOptions::default() });
    scene.slowness.1.store(50, Ordering::Relaxed);
    scene.pipe(0..2);
    scene.driver.run().unwrap();
    // Both take as long, so both are the slowest: the first waits for the second's turn, the second for the first one's, and the mean is told.
    assert_eq!(scene.slowest().records, 2);
    assert_eq!(scene.blamed(), [(Stage::Batch, 25), (Stage::Process, 50), (Stage::Wait, 25)]);
}

#[test]
fn what_came_during_a_batch_or_commit_waited_for_it() {
    for (op, stage) in [(Op::Send, Stage::BatchBefore), (Op::EndTxnCommit, Stage::CommitBefore)] {
        let mut scene = Scene::new(DriverOptions { max_poll_records: 1, max_changed: 1, ..one_partition() });
        scene.pipe(0..1);
        let (sim, mut calls) = (scene.driver.sim.clone(), 0);
        scene.driver.sim.set_faults(move |call| {
            calls += u32::from(call.op == op);
            if call.op == op && calls == 1 {
                sim.advance(80);
            }
            Fault::None
        });
        // Written at once, fetched only with the second poll.
        scene.pipe(0..1);
        scene.driver.run().unwrap();
        let second = scene.slowest();
        assert_eq!(second.of, 2, "{op:?}");
        let (waited, mean) = (stage as usize, Duration::from_millis(40));
        assert_eq!(second.stages[waited], (stage, mean), "{op:?}: one of both waited 80 ms, {:?}", scene.blamed());
    }
}

#[test]
fn an_aborted_transaction_counts_once_and_as_waiting() {
    let mut scene = Scene::new(one_partition());
    scene.pipe(0..1);
    let (sim, mut failed) = (scene.driver.sim.clone(), false);
    scene.driver.sim.set_faults(move |call| {
        if call.op == Op::AddOffsets && !std::mem::replace(&mut failed, true) {
            sim.advance(20);
            return Fault::Error(topology::broker::Reaction::Abort);
        }
        Fault::None
    });
    scene.driver.run().unwrap();
    let slowest = scene.slowest();
    assert_eq!(slowest.of, 1, "the aborted attempt is not counted");
    let all: Duration = slowest.stages.iter().map(|(_, took)| *took).sum();
    assert!(all >= Duration::from_millis(20), "but the time it took is: {:?}", scene.blamed());
}
