//! What each stage of a payment's journey costs, alone.
//!
//!     cargo bench --bench stages [NAME]                 times, by criterion
//!     valgrind ... stages --count NAME                  runs a stage once, for scripts/instructions.sh; --stages lists what can be counted

use std::cell::RefCell;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use criterion::{BatchSize, Criterion};
use mangrove::generator::{Generator, GeneratorParams};
use mangrove::scoring::{ModelSlot, ScoringParams, TopicNames, UserProfile, scoring_topology};
use mangrove::training;
use models::verdict::{Severity, VerdictRef};
use models::{FEATURES, Kernel, Limits, Model, Observation, Profile, TrainParams, Transaction};
use state::backend::{Backend, StorePartition, WriteSet};
use state::memory::MemoryBackend;
use state::rocks::{RocksBackend, RocksOptions};
use state::store::{AnyStore, Mark, Marks, Store, StoreOptions, decode_kept, encode_kept};
use tempfile::TempDir;
use topology::driver::{DriverOptions, TestDriver};
use topology::partitioner::partition_of;

const ROWS: usize = 4_096;
const USERS: usize = 20_000;
/// Keys, records or values of one run of a stage.
const BATCH: usize = 1_000;

/// One stage: what is done once before each run and not measured, and the run.
trait Stage {
    /// What a run works through.
    fn elements(&self) -> usize;
    fn prepare(&mut self);
    fn run(&mut self);
}

struct Steps<S, P, R> {
    elements: usize,
    state: S,
    prepare: P,
    run: R,
}

impl<S, P: FnMut(&mut S), R: FnMut(&mut S)> Stage for Steps<S, P, R> {
    fn elements(&self) -> usize {
        self.elements
    }

    fn prepare(&mut self) {
        (self.prepare)(&mut self.state);
    }

    fn run(&mut self) {
        (self.run)(&mut self.state);
    }
}

type Make = fn() -> Box<dyn Stage>;

/// Every stage by name. What has threads of its own has no count that repeats.
const STAGES: [(&str, bool, Make); 16] = [
    ("decode payment", true, decode),
    ("features and update", true, features),
    ("forest, one row", true, forest_row),
    ("forest, batch", true, || forest_batch(None)),
    ("forest, batch, without AVX", true, || forest_batch(Some(Kernel::Compact))),
    ("forest, batch, plain walk", true, || forest_batch(Some(Kernel::Plain))),
    ("encode verdict", true, encode_verdict),
    ("encode profile", true, encode_profile),
    ("decode profile", true, decode_profile),
    ("look up, cached", true, || look_up(memory(), true)),
    ("look up, memory", true, || look_up(memory(), false)),
    ("look up, RocksDB", false, || look_up(rocks(), false)),
    ("overlay and commit, memory", true, || commit(memory())),
    ("overlay and commit, RocksDB", false, || commit(rocks())),
    ("restore", true, restore),
    ("payments in, verdicts out", true, whole),
];

fn stage<S: 'static>(
    elements: usize,
    state: S,
    prepare: impl FnMut(&mut S) + 'static,
    run: impl FnMut(&mut S) + 'static,
) -> Box<dyn Stage> {
    Box::new(Steps { elements, state, prepare, run })
}

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
    let rows = training::synthetic(4_000, &ScoringParams::default(), &|_| {}).expect("generated payments are scored");
    rows.train(TrainParams { trees: 100, max_samples: 256, seed: 1 }, 0.01, None, &|| {}).expect("trains")
}

fn observe(profile: &mut Profile, tx: &Transaction<'_>) -> Observation {
    profile.score_then_update(tx.amount, tx.event_time, &tx.merchant, Some(800.0))
}

/// A profile that has seen these payments, and the features of each.
fn grown(transactions: &[Transaction<'_>]) -> (Profile, Vec<f32>) {
    let mut profile = Profile::default();
    let rows = transactions.iter().flat_map(|tx| observe(&mut profile, tx).features).collect();
    (profile, rows)
}

fn decode() -> Box<dyn Stage> {
    let run = |payments: &mut Vec<(String, Vec<u8>, i64)>| {
        for (_, json, at) in payments {
            black_box(Transaction::from_json(black_box(json), *at, &Limits::default()).is_ok());
        }
    };
    stage(ROWS, payments(ROWS), |_| {}, run)
}

fn features() -> Box<dyn Stage> {
    let payments = payments(ROWS);
    let (start, _) = grown(&decoded(&payments)[..200]);
    let prepare = move |(profile, _): &mut (Profile, Vec<_>)| profile.clone_from(&start);
    let run = |(profile, payments): &mut (Profile, Vec<(String, f64, i64)>)| {
        for (merchant, amount, at) in payments {
            black_box(profile.score_then_update(*amount, *at, merchant, Some(800.0)));
        }
    };
    let of = |tx: &Transaction<'_>| (tx.merchant.to_string(), tx.amount, tx.event_time);
    let next: Vec<_> = decoded(&payments)[200..400].iter().map(of).collect();
    stage(next.len(), (Profile::default(), next), prepare, run)
}

fn rows() -> Vec<f32> {
    grown(&decoded(&payments(ROWS))).1
}

fn forest_row() -> Box<dyn Stage> {
    let run = |(model, rows): &mut (Model, Vec<f32>)| {
        for row in rows.as_chunks::<FEATURES>().0.iter().take(BATCH) {
            black_box(model.raw_score(black_box(row)));
        }
    };
    stage(BATCH, (model(), rows()), |_| {}, run)
}

/// By this kernel, or by the fastest that this processor has.
fn forest_batch(kernel: Option<Kernel>) -> Box<dyn Stage> {
    let run = move |(model, rows, scores): &mut (Model, Vec<f32>, Vec<f64>)| {
        scores.clear();
        match kernel {
            Some(kernel) => model.forest.raw_scores_by(kernel, black_box(rows), scores),
            None => model.forest.raw_scores(black_box(rows), scores),
        }
    };
    stage(ROWS, (model(), rows(), Vec::with_capacity(ROWS)), |_| {}, run)
}

fn encode_verdict() -> Box<dyn Stage> {
    let features: [f32; FEATURES] = rows()[..FEATURES].try_into().expect("ten features");
    let run = move |text: &mut Vec<u8>| {
        for n in 0..BATCH {
            text.clear();
            let verdict = VerdictRef {
                tx_id: "42-0-1",
                id: "transactions:3:123456",
                user_id: "user-42",
                event_time: 1_700_000_000_000 + n as i64,
                amount: 42.5,
                currency: Some("USD"),
                merchant: "shop-1234",
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
            black_box(&verdict).write_json(text);
        }
    };
    stage(BATCH, Vec::with_capacity(1_024), |_| {}, run)
}

/// A profile of 200 payments as it is kept.
fn kept() -> UserProfile {
    UserProfile(grown(&decoded(&payments(ROWS))[..200]).0)
}

fn encode_profile() -> Box<dyn Stage> {
    let run = |(profile, bytes): &mut (UserProfile, Vec<u8>)| {
        for n in 0..BATCH {
            bytes.clear();
            encode_kept(&Marks([123_456 + n as u64, 0, 0, 0]), black_box(&*profile), bytes);
        }
    };
    stage(BATCH, (kept(), Vec::with_capacity(4_096)), |_| {}, run)
}

fn decode_profile() -> Box<dyn Stage> {
    let mut bytes = Vec::new();
    encode_kept(&Marks([123_456, 0, 0, 0]), &kept(), &mut bytes);
    let run = |bytes: &mut Vec<u8>| {
        for _ in 0..BATCH {
            black_box(decode_kept::<UserProfile>(black_box(bytes)).is_ok());
        }
    };
    stage(BATCH, bytes, |_| {}, run)
}

fn partition() -> StorePartition {
    StorePartition { store: "profiles".into(), partition: 0 }
}

/// A backend, and the folder that goes with it.
type Place = (Arc<dyn Backend>, Option<TempDir>);

fn memory() -> Place {
    (Arc::new(MemoryBackend::new()), None)
}

fn rocks() -> Place {
    let folder = TempDir::new().expect("a folder");
    (Arc::new(RocksBackend::open(folder.path(), RocksOptions::default()).expect("opens")), Some(folder))
}

/// A store above this backend, which holds profiles of 20 payments each, and their keys.
fn filled(backend: &Arc<dyn Backend>) -> (Store<UserProfile>, Vec<String>) {
    backend.open(&partition()).expect("opens");
    let payments = payments(ROWS);
    let transactions = decoded(&payments);
    let (mut set, mut bytes) = (WriteSet::default(), Vec::new());
    set.begin(partition());
    let keys: Vec<String> = (0..USERS).map(|n| format!("user-{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        let first = n % (ROWS - 20);
        bytes.clear();
        let (profile, _) = grown(&transactions[first..first + 20]);
        encode_kept(&Marks([1, 0, 0, 0]), &UserProfile(profile), &mut bytes);
        set.change(key.as_bytes(), Some(&bytes));
    }
    backend.write(&set).expect("writes");
    let options = StoreOptions { cache_bytes: 1 << 30, exactly_once: true, hash_seed: 7 };
    (Store::new(partition(), Arc::clone(backend), options), keys)
}

fn prefetch(store: &mut Store<UserProfile>, keys: &[String]) {
    store.prefetch(keys.iter().map(String::as_bytes)).expect("prefetches");
}

fn look_up((backend, folder): Place, cached: bool) -> Box<dyn Stage> {
    let (store, keys) = filled(&backend);
    let prepare = move |(store, keys, at, _): &mut (Store<UserProfile>, Vec<String>, usize, _)| {
        if cached {
            prefetch(store, &keys[..BATCH]);
        } else {
            store.reset();
            *at = (*at + BATCH) % (USERS - BATCH);
        }
    };
    let run = |(store, keys, at, _): &mut (Store<UserProfile>, Vec<String>, usize, _)| prefetch(store, &keys[*at..*at + BATCH]);
    stage(BATCH, (store, keys, 0, folder), prepare, run)
}

/// Every key is changed once, encoded and written, and what was changed is the committed view then.
fn commit((backend, folder): Place) -> Box<dyn Stage> {
    let (mut store, keys) = filled(&backend);
    prefetch(&mut store, &keys[..BATCH]);
    let mut offset = 1;
    let run = move |(store, set, _): &mut (Store<UserProfile>, WriteSet, _)| {
        offset += 1;
        for (n, key) in keys[..BATCH].iter().enumerate() {
            let profile = store.update(key.as_bytes(), Mark { input: 0, offset }).expect("not included yet");
            profile.0.update(42.0 + n as f64, 1_700_000_000_000, "shop-1");
        }
        set.clear();
        set.begin(partition());
        store.encode_changes(&mut |key, value| set.change(key, value));
        backend.write(set).expect("writes");
        store.settle();
    };
    stage(BATCH, (store, WriteSet::default(), folder), |_| {}, run)
}

/// The scoring topology with these payments waiting.
fn waiting(payments: &[(String, Vec<u8>, i64)], model: &Arc<Model>) -> TestDriver {
    let slot = ModelSlot::default();
    slot.set(Some(Arc::clone(model)));
    let topology = scoring_topology("bench", &TopicNames::default(), &ScoringParams::default(), &slot);
    let mut driver = TestDriver::new(topology.expect("a valid topology"), DriverOptions::default());
    for (user, json, at) in payments {
        driver.pipe_to("transactions", partition_of(user.as_bytes(), 8), Some(user.as_bytes()), Some(json), *at);
    }
    driver
}

fn whole() -> Box<dyn Stage> {
    let (payments, model) = (payments(ROWS), Arc::new(model()));
    let prepare = move |driver: &mut Option<TestDriver>| *driver = Some(waiting(&payments, &model));
    stage(ROWS, None, prepare, |driver| driver.as_mut().expect("prepared").run().expect("runs"))
}

/// The whole changelog of the payments, from a wiped store.
fn restore() -> Box<dyn Stage> {
    let mut driver = waiting(&payments(ROWS), &Arc::new(model()));
    driver.run().expect("runs");
    stage(ROWS, driver, |driver| driver.crash(true), |driver| driver.run().expect("restores"))
}

/// Where instructions are counted: by its name.
#[inline(never)]
fn counted_run(stage: &mut dyn Stage) {
    stage.run();
    black_box(stage);
}

/// Runs one stage for the counter; prints what a run works through.
fn count(name: &str) -> ExitCode {
    let Some((_, _, make)) = STAGES.iter().find(|stage| stage.0 == name) else {
        eprintln!("no stage is called {name}");
        return ExitCode::FAILURE;
    };
    let mut stage = make();
    // Once to grow the buffers.
    stage.prepare();
    stage.run();
    stage.prepare();
    counted_run(&mut *stage);
    println!("{}", stage.elements());
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--stages"] => STAGES.iter().filter(|stage| stage.1).for_each(|stage| println!("{}", stage.0)),
        ["--count", name] => return count(name),
        _ => {
            let mut criterion = Criterion::default().configure_from_args();
            for (name, _, make) in STAGES {
                let stage = RefCell::new(None::<Box<dyn Stage>>);
                let mut group = criterion.benchmark_group("stages");
                // Made by the first sample, so that a filter leaves the others unmade.
                group.bench_function(name, |b| {
                    stage.borrow_mut().get_or_insert_with(make);
                    let of = |run: fn(&mut dyn Stage)| run(&mut **stage.borrow_mut().as_mut().expect("made above"));
                    b.iter_batched(|| of(|stage| stage.prepare()), |()| of(|stage| stage.run()), BatchSize::PerIteration);
                });
                group.finish();
            }
            criterion.final_summary();
        }
    }
    ExitCode::SUCCESS
}
