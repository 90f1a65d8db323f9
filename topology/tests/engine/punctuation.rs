//! Punctuation: what is called when, and that a void transaction takes its calls back.

use topology::broker::Reaction;
use topology::driver::{DriverOptions, TestDriver};
use topology::processor::{Context, Processor, Punctuation, Result, Schedule};
use topology::record::Batch;
use topology::simulated::{Fault, Op};
use topology::topology::Topology;

/// Emits the time of each call; keeps a count that nothing but its own memory holds.
#[derive(Default)]
struct Ticks {
    seen: u64,
}

impl Processor for Ticks {
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        for record in batch.iter() {
            self.seen += 1;
            context.emit_here(0, b"seen", self.seen.to_string().as_bytes(), record.timestamp)?;
        }
        Ok(())
    }

    fn schedules(&self) -> Vec<Schedule> {
        let schedule = |kind, every_ms| Schedule { kind, every_ms };
        vec![schedule(Punctuation::WallClock, 1_000), schedule(Punctuation::StreamTime, 60_000)]
    }

    fn punctuate(&mut self, kind: Punctuation, now_ms: i64, context: &mut Context<'_>) -> Result {
        let output = if kind == Punctuation::WallClock { 1 } else { 2 };
        context.emit_here(output, b"tick", now_ms.to_string().as_bytes(), now_ms)
    }
}

fn driver() -> TestDriver {
    let topology = Topology::builder("ticks")
        .sub("tick", |_| Ticks::default(), |w| w.input("in").output("seen").output("wall").output("stream"))
        .build()
        .expect("a valid topology");
    TestDriver::new(topology, DriverOptions { partitions: 1, ..DriverOptions::default() })
}

fn said(driver: &mut TestDriver, topic: &str) -> Vec<i64> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).parse().expect("a number");
    driver.read(topic).iter().map(|record| text(record.value.as_deref().expect("a value"))).collect()
}

#[test]
fn the_wall_clock_calls_without_records() {
    let mut driver = driver();
    driver.run().expect("runs");
    assert!(said(&mut driver, "wall").is_empty());
    let begin = driver.sim.now() as i64;
    for _ in 0..3 {
        driver.advance(500).expect("runs");
    }
    let calls = said(&mut driver, "wall");
    assert_eq!(calls.len(), 1, "{calls:?} since {begin}");
    driver.advance(9_000).expect("runs");
    assert_eq!(said(&mut driver, "wall").len(), 1, "late calls are not made up for");
    assert!(said(&mut driver, "stream").is_empty());
}

#[test]
fn a_void_transaction_takes_its_calls_back() {
    let mut driver = driver();
    driver.pipe("in", None, Some(b"x"), 0);
    driver.run().expect("runs");
    let mut left = 2;
    driver.sim.set_faults(move |call| {
        let void = call.op == Op::EndTxnCommit && left > 0;
        left -= i32::from(void);
        if void { Fault::Error(Reaction::Abort) } else { Fault::None }
    });
    driver.pipe("in", None, Some(b"x"), 60_000);
    driver.run().expect("runs");
    assert_eq!(said(&mut driver, "stream"), [60_000], "the call of the void transaction is made again, once");
}

#[test]
fn what_a_processor_remembers_of_a_void_transaction_is_void() {
    let mut driver = driver();
    let mut left = 1;
    driver.sim.set_faults(move |call| {
        let void = call.op == Op::EndTxnCommit && left > 0;
        left -= i32::from(void);
        if void { Fault::Error(Reaction::Abort) } else { Fault::None }
    });
    driver.pipe("in", None, Some(b"x"), 0);
    driver.pipe("in", None, Some(b"x"), 0);
    driver.run().expect("runs");
    assert_eq!(said(&mut driver, "seen"), [1, 2]);
}
