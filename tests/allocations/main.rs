//! In its steady state (users known, their profiles in memory, buffers grown) scoring allocates nothing for a payment: neither to decode
//! it, nor for its features, the forest, its verdict, or the changed profile.
//!
//! The whole of it is run, worker and commit included. The simulated broker keeps each record, so it does allocate; what it takes is
//! what a processor takes that copies each payment to the output and changes a number of its user's. Scoring may not take more.

use std::sync::Arc;

use mangrove::scoring::{ModelSlot, ScoringParams, TopicNames, UserProfile, scoring_topology};
use mangrove::training;
use models::TrainParams;
use state::backend::{Backend, StorePartition};
use state::memory::MemoryBackend;
use state::store::{AnyStore as _, Mark, Store, StoreOptions};
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

/// Users that pay so often take so many bytes each in a store's memory, key and index included.
fn bytes_of_a_cached_profile(payments: usize) -> u64 {
    // Just below a power of two, so that what the store's tables hold in reserve is small.
    const KEYS: usize = 16_000;
    let partition = StorePartition { store: "profiles".into(), partition: 0 };
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
    backend.open(&partition).expect("opens");
    let keys: Vec<String> = (0..KEYS).map(|n| format!("u{n:07}")).collect();
    let options = StoreOptions { cache_bytes: 1 << 30, exactly_once: true, hash_seed: 7 };
    let mut kept = None;
    let counted = allocation_counter::measure(|| {
        let mut store: Store<UserProfile> = Store::new(partition.clone(), Arc::clone(&backend), options.clone());
        store.prefetch(keys.iter().map(String::as_bytes)).expect("prefetches");
        for (user, key) in keys.iter().enumerate() {
            for payment in 0..payments {
                let mark = Mark { input: 0, offset: (user * payments + payment) as u64 };
                let profile = store.update(key.as_bytes(), mark).expect("not included yet");
                let at = 1_700_000_000_000 + payment as i64 * DAY_MS / 5;
                profile.0.update(
                    5.0 + (user * 7 + payment * 13) as f64 % 90.0,
                    at,
                    &format!("m{:04}", (user + payment * 31) % 2_000),
                );
            }
        }
        kept = Some(store);
    });
    let held = u64::try_from(counted.bytes_current).expect("memory is held") / KEYS as u64;
    assert_eq!(kept.expect("made above").changed(), KEYS);
    println!("a cached profile of {payments} payments: {held} bytes");
    held
}

/// At a million users every byte of a cached profile is a megabyte of memory.
#[test]
fn a_cached_profile_of_a_few_payments_is_small() {
    let (five, twenty) = (bytes_of_a_cached_profile(5), bytes_of_a_cached_profile(20));
    assert!(five <= 600, "{five} bytes at five payments");
    assert!(twenty <= 1_000, "{twenty} bytes at twenty");
}
