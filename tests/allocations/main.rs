//! In its steady state (users known, their profiles in memory, buffers grown) scoring allocates nothing for a payment: neither to decode
//! it, nor for its features, the forest, its verdict, or the changed profile.
//!
//! The whole of it is run, worker and commit included. The simulated broker keeps each record, so it does allocate; what it takes is
//! what a processor takes that copies each payment to the output and changes a number of its user's. Scoring may not take more.

use std::sync::Arc;

use mangrove::scoring::{ModelSlot, ScoringParams, TopicNames, scoring_topology};
use mangrove::training;
use models::TrainParams;
use topology::driver::{DriverOptions, TestDriver};
use topology::processor::{Context, Processor, Result};
use topology::record::Batch;
use topology::topology::{StoreId, Topology};

const USERS: usize = 50;
/// Payments of a user in each half: learning, and counted.
const EACH: usize = 60;
const DAY_MS: i64 = 86_400_000;

struct Copying;

impl Processor for Copying {
    fn process(&mut self, batch: &Batch<'_>, context: &mut Context<'_>) -> Result {
        context.store::<u64>(StoreId(0)).prefetch(batch.iter().filter_map(|record| record.key))?;
        for record in batch.iter() {
            let (key, mark) = (record.key.expect("a key"), context.mark(&record));
            if let Some(count) = context.store::<u64>(StoreId(0)).update(key, mark) {
                *count += 1;
                context.emit_here(0, key, record.value.expect("a payment"), record.timestamp)?;
            }
        }
        Ok(())
    }
}

fn copying() -> Topology {
    let wire = Topology::builder("copy");
    wire.sub("copy", |_| Copying, |wiring| wiring.input("transactions").store::<u64>("counts").output("verdicts"))
        .build()
        .expect("valid")
}

fn scoring() -> Topology {
    // No score is above it: an anomaly's reasons are words, and words allocate.
    let params = ScoringParams { threshold: 1.0, ..ScoringParams::default() };
    let rows = training::synthetic(2_000, &params, &|_| {}).expect("generated payments are scored");
    let model = rows.train(TrainParams { trees: 100, max_samples: 256, seed: 1 }, 0.01, None, &|| {}).expect("trains");
    let slot = ModelSlot::default();
    slot.set(Some(Arc::new(model)));
    scoring_topology("steady", &TopicNames::default(), &params, &slot).expect("a valid topology")
}

/// Each user pays the same few shops the same few amounts, a day apart: after a week a profile holds all that it will ever hold.
fn pipe(driver: &mut TestDriver, rounds: std::ops::Range<usize>) {
    for round in rounds {
        let at = 1_700_000_000_000 + round as i64 * DAY_MS;
        for user in 0..USERS {
            let (name, shop, cents) = (format!("user-{user}"), round % 7, 100 * (round % 7));
            let json = format!(
                r#"{{"tx_id":"{user}-{round}","user_id":"{name}","amount":{}.5,"currency":"EUR","merchant":"shop-{shop}","timestamp":{at}}}"#,
                10 + cents
            );
            driver.pipe("transactions", Some(name.as_bytes()), Some(json.as_bytes()), at);
        }
    }
}

/// What the second half of the payments allocates, in blocks.
fn allocations(topology: Topology) -> u64 {
    let options = DriverOptions { partitions: 1, ..DriverOptions::default() };
    let mut driver = TestDriver::new(topology, options);
    pipe(&mut driver, 0..EACH);
    driver.run().expect("runs");
    pipe(&mut driver, EACH..2 * EACH);
    let counted = allocation_counter::measure(|| driver.run().expect("runs"));
    assert_eq!(driver.read("verdicts").len(), 2 * EACH * USERS);
    counted.count_total
}

#[test]
fn scoring_allocates_nothing_for_a_payment_in_its_steady_state() {
    let (least, taken) = (allocations(copying()), allocations(scoring()));
    let payments = (USERS * EACH) as u64;
    println!("allocations for {payments} payments: {least} copying, {taken} scoring");
    assert!(least >= payments, "the counter counts: the simulated broker keeps each record");
    // A batch and a commit have a few, whatever their size; one for each payment would be 3,000.
    assert!(taken < least + payments / 20, "{taken} allocations for {payments} payments, {least} of them the simulated broker's");
}
