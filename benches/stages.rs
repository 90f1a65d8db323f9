//! What each stage of a record's journey costs, alone: `cargo bench --bench stages`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mangrove::generator::{Generator, GeneratorParams};
use mangrove::scoring::{ModelSlot, ScoringParams, TopicNames, UserProfile, scoring_topology};
use mangrove::training;
use models::verdict::{Severity, VerdictRef};
use models::{FEATURES, Limits, Model, Profile, TrainParams, Transaction};
use state::backend::{Backend, StorePartition, WriteSet};
use state::memory::MemoryBackend;
use state::rocks::{RocksBackend, RocksOptions};
use state::store::{AnyStore, Marks, Store, StoreOptions, encode_kept};
use topology::driver::{DriverOptions, TestDriver};
use topology::partitioner::partition_of;

const ROWS: usize = 4_096;
const USERS: usize = 20_000;

/// Payments as a producer sends them: user, JSON, time.
fn payments(count: usize) -> Vec<(String, Vec<u8>, i64)> {
    let generator = Generator::new(&GeneratorParams::default()).expect("the defaults are within their bounds");
    let one = |payment: mangrove::generator::Payment| {
        let mut json = Vec::new();
        payment.write_json(&mut json);
        (payment.user_id.to_string(), json, payment.timestamp_ms)
    };
    generator.take(count).map(one).collect()
}

fn decoded(payments: &[(String, Vec<u8>, i64)]) -> Vec<Transaction<'_>> {
    payments.iter().map(|(_, json, at)| Transaction::from_json(json, *at, &Limits::default()).expect("a payment")).collect()
}

fn model() -> Model {
    let rows = training::synthetic(20_000, &ScoringParams::default(), &|_| {}).expect("generated payments are scored");
    let params = TrainParams { trees: 100, max_samples: 256, seed: 1 };
    rows.train(params, 0.01, None, &|| {}).expect("trains")
}

/// A user's profile after 200 payments, and the features of the rows that made it.
fn grown(transactions: &[Transaction<'_>]) -> (Profile, Vec<f32>) {
    let (mut profile, mut rows) = (Profile::default(), Vec::new());
    for tx in transactions {
        let seen = profile.score_then_update(tx.amount, tx.event_time, &tx.merchant, Some(800.0));
        rows.extend_from_slice(&seen.features);
    }
    (profile, rows)
}

fn decode(c: &mut Criterion) {
    let payments = payments(ROWS);
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("payments", |b| {
        b.iter(|| {
            for (_, json, at) in &payments {
                black_box(Transaction::from_json(black_box(json), *at, &Limits::default()).is_ok());
            }
        });
    });
    group.finish();
}

fn features(c: &mut Criterion) {
    let payments = payments(ROWS);
    let transactions = decoded(&payments);
    let (start, _) = grown(&transactions[..200]);
    let mut group = c.benchmark_group("features");
    group.throughput(Throughput::Elements(200));
    group.bench_function("score_then_update", |b| {
        b.iter_batched_ref(
            || start.clone(),
            |profile| {
                for tx in &transactions[200..400] {
                    black_box(profile.score_then_update(tx.amount, tx.event_time, &tx.merchant, Some(800.0)));
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn forest(c: &mut Criterion) {
    let payments = payments(ROWS);
    let (_, rows) = grown(&decoded(&payments));
    let model = model();
    let one: [f32; FEATURES] = rows[..FEATURES].try_into().expect("ten features");
    let mut group = c.benchmark_group("forest");
    group.bench_function("one row", |b| b.iter(|| model.raw_score(black_box(&one))));
    group.throughput(Throughput::Elements(ROWS as u64));
    let mut scores = Vec::new();
    group.bench_function("batch", |b| {
        b.iter(|| {
            scores.clear();
            model.forest.raw_scores(black_box(&rows), &mut scores);
            scores.len()
        });
    });
    group.finish();
}

fn encode(c: &mut Criterion) {
    let payments = payments(ROWS);
    let transactions = decoded(&payments);
    let (profile, rows) = grown(&transactions[..200]);
    let features: [f32; FEATURES] = rows[..FEATURES].try_into().expect("ten features");
    let tx = &transactions[0];
    let verdict = VerdictRef {
        tx_id: "42-0-1",
        id: "transactions:3:123456",
        user_id: &tx.user_id,
        event_time: tx.event_time,
        amount: tx.amount,
        currency: Some("USD"),
        merchant: &tx.merchant,
        score: Some(0.123_456_789),
        raw_score: Some(0.412_345_678),
        is_anomaly: false,
        severity: Severity::None,
        explanation: "",
        reasons: &[],
        features: &features,
        model_id: Some("0123456789abcdef"),
        fx: None,
    };
    let mut group = c.benchmark_group("encode");
    let mut text = Vec::new();
    group.bench_function("verdict", |b| {
        b.iter(|| {
            text.clear();
            black_box(&verdict).write_json(&mut text);
            text.len()
        });
    });
    let (kept, marks) = (UserProfile(profile), Marks([123_456, 0, 0, 0]));
    let mut bytes = Vec::new();
    group.bench_function("profile", |b| {
        b.iter(|| {
            bytes.clear();
            encode_kept(&marks, black_box(&kept), &mut bytes);
            bytes.len()
        });
    });
    group.finish();
}

fn partition() -> StorePartition {
    StorePartition { store: "profiles".into(), partition: 0 }
}

/// Fills a backend with profiles of 20 payments each; returns the keys.
fn fill(backend: &dyn Backend) -> Vec<String> {
    backend.open(&partition()).expect("opens");
    let payments = payments(USERS + 20);
    let transactions = decoded(&payments);
    let (mut set, mut bytes) = (WriteSet::default(), Vec::new());
    set.begin(partition());
    let keys: Vec<String> = (0..USERS).map(|n| format!("user-{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        let (profile, _) = grown(&transactions[n..n + 20]);
        bytes.clear();
        encode_kept(&Marks([n as u64, 0, 0, 0]), &UserProfile(profile), &mut bytes);
        set.change(key.as_bytes(), Some(&bytes));
    }
    backend.write(&set).expect("writes");
    keys
}

fn prefetch(c: &mut Criterion) {
    let folder = tempfile::TempDir::new().expect("a folder");
    let rocks: Arc<dyn Backend> = Arc::new(RocksBackend::open(folder.path(), RocksOptions::default()).expect("opens"));
    let memory: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
    let mut group = c.benchmark_group("prefetch");
    group.throughput(Throughput::Elements(1_000));
    for (name, backend, cached) in [("cached", &memory, true), ("memory", &memory, false), ("RocksDB", &rocks, false)] {
        let keys = fill(&**backend);
        let options = StoreOptions { cache_bytes: 1 << 30, exactly_once: true, hash_seed: 7 };
        let mut store = Store::<UserProfile>::new(partition(), Arc::clone(backend), options);
        let mut at = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                if !cached {
                    store.reset();
                    at = (at + 1_000) % (USERS - 1_000);
                }
                store.prefetch(keys[at..at + 1_000].iter().map(String::as_bytes)).expect("prefetches");
            });
        });
    }
    group.finish();
}

fn topology(c: &mut Criterion) {
    let payments = payments(20_000);
    let model = Arc::new(model());
    let mut group = c.benchmark_group("topology");
    group.throughput(Throughput::Elements(payments.len() as u64)).sample_size(20);
    group.bench_function("payments in, verdicts out", |b| {
        b.iter_batched_ref(
            || {
                let slot = ModelSlot::default();
                slot.set(Some(Arc::clone(&model)));
                let topology = scoring_topology("bench", &TopicNames::default(), &ScoringParams::default(), &slot);
                let mut driver = TestDriver::new(topology.expect("a valid topology"), DriverOptions::default());
                for (user, json, at) in &payments {
                    let partition = partition_of(user.as_bytes(), 8);
                    driver.pipe_to("transactions", partition, Some(user.as_bytes()), Some(json), *at);
                }
                driver
            },
            |driver| driver.run().expect("runs"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(stages, decode, features, forest, encode, prefetch, topology);
criterion_main!(stages);
