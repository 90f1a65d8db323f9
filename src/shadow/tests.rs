//! Shadows over a simulated log of verdicts: each verdict once, whatever is restarted or moves, and what becomes of a candidate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use models::compare::Comparison;
use models::features::{FEATURES, GLOBAL_AMOUNT_FLAG, global_amount_flag};
use models::{Model, TrainParams};
use serde_json::json;
use tempfile::TempDir;
use topology::broker::{Broker as _, Cleanup, Publisher as _, TopicSpec};
use topology::clock::{Clock as _, MockClock};
use topology::record::{Outgoing, TopicId, TopicPartition, Topics};
use topology::simulated::SimBroker;

use super::*;
use crate::registry::{Artifacts, LastRetrain, Registry, RegistryError, Retrained, State, Tally};
use crate::scoring::{ModelSlot, ScoringParams};
use crate::training::{TrainingRows, synthetic};

const MODELS: TopicId = TopicId(0);
const VERDICTS: TopicId = TopicId(1);
const PARTITIONS: u32 = 3;
const THRESHOLD: f64 = 0.5;
const HOUR_MS: i64 = 3_600_000;

fn rows() -> &'static TrainingRows {
    static ROWS: OnceLock<TrainingRows> = OnceLock::new();
    ROWS.get_or_init(|| synthetic(8_000, &ScoringParams::default(), &|_| {}).unwrap())
}

fn model(seed: u64, contamination: f64) -> Model {
    rows().train(TrainParams { trees: 20, max_samples: 64, seed }, contamination, None, &|| {}).unwrap()
}

struct Place {
    broker: Arc<SimBroker>,
    folder: TempDir,
    clock: MockClock,
    /// Verdicts written so far.
    written: std::cell::Cell<usize>,
}

struct Side {
    registry: Registry,
    shadows: Shadows<SimBroker>,
    owns: Arc<AtomicBool>,
}

impl Place {
    fn new() -> Self {
        let broker = SimBroker::new(Topics::new(vec!["models".to_owned(), "verdicts".to_owned()]));
        let compact = Cleanup::Compact { tombstone_retention_ms: 1_000 };
        let keep = Cleanup::Delete { retention_ms: None };
        for (name, partitions, cleanup) in [("models", 1, compact), ("verdicts", PARTITIONS, keep)] {
            broker.create(&TopicSpec { name: name.into(), partitions, cleanup, max_message_bytes: None }).unwrap();
        }
        let (folder, clock) = (TempDir::new().unwrap(), MockClock::at(1_000_000));
        Self { broker: Arc::new(broker), folder, clock, written: 0.into() }
    }

    fn side(&self, name: &str, owns: bool) -> Side {
        let artifacts = Artifacts::open(self.folder.path().to_str().unwrap()).unwrap();
        let clock = || Arc::new(self.clock.clone());
        let registry = Registry::new(&self.broker, MODELS, artifacts, ModelSlot::default(), clock(), name);
        assert!(registry.catch_up(&|| false));
        let owns = Arc::new(AtomicBool::new(owns));
        let asked = Arc::clone(&owns);
        let owner = move || asked.load(Ordering::SeqCst);
        let shadows = Shadows::new(&self.broker, VERDICTS, registry.clone(), clock(), THRESHOLD, owner);
        Side { registry, shadows, owns }
    }

    /// Logs the verdicts of this model on the next rows.
    fn log(&self, by: &Model, count: usize) {
        let mut publisher = self.broker.publisher().unwrap();
        let first = self.written.get();
        for at in first..first + count {
            let value = verdict(by, at).to_string();
            let to = TopicPartition { topic: VERDICTS, partition: at as u32 % PARTITIONS };
            publisher.send(&Outgoing { to, key: None, value: Some(value.as_bytes()), timestamp: 0, headers: &[] }).unwrap();
        }
        publisher.flush().unwrap();
        self.written.set(first + count);
    }
}

fn row(at: usize, by: &Model) -> ([f32; FEATURES], f64) {
    let (all, _) = rows().features().as_chunks::<FEATURES>();
    let mut row = all[at % all.len()];
    let amount = f64::from(row[0]).exp_m1();
    row[GLOBAL_AMOUNT_FLAG] = global_amount_flag(amount, Some(by.global_amount_p99));
    (row, amount)
}

fn verdict(by: &Model, at: usize) -> serde_json::Value {
    let (features, amount) = row(at, by);
    let score = by.score(by.raw_score(&features));
    let id = format!("transactions:{}:{at}", at as u32 % PARTITIONS);
    json!({
        "tx_id": id, "id": id, "user_id": "u", "event_time": at, "amount": amount, "currency": null, "merchant": "m", "score": score,
        "is_anomaly": score >= THRESHOLD, "severity": "NONE", "features": features, "model_id": by.id,
    })
}

/// What a fold over these verdicts must give.
fn expected(active: &Model, shadow: &Model, verdicts: std::ops::Range<usize>) -> Comparison {
    let mut all = Comparison::default();
    for at in verdicts {
        let verdict = verdict(active, at);
        let score = verdict["score"].as_f64().unwrap();
        let given = shadow.score(shadow.raw_score(&row(at, shadow).0));
        all.add(verdict["id"].as_str().unwrap(), score >= THRESHOLD, score, given, THRESHOLD);
    }
    all
}

impl Side {
    /// Steps until there is nothing new.
    fn settle(&mut self) {
        assert!(self.registry.catch_up(&|| false));
        while self.shadows.step().unwrap() {}
        assert!(self.registry.catch_up(&|| false));
    }

    /// As it ends when the instance is told to stop.
    fn stop(self) {
        self.shadows.run(&|| true);
    }

    fn registered(&self, model: &Model) -> String {
        self.registry.register(model, "csv", None, None).unwrap().id
    }

    fn tally(&self, id: &str) -> Tally {
        assert!(self.registry.catch_up(&|| false));
        let view = self.registry.view();
        view.tally(view.shadow(id).unwrap()).cloned().unwrap_or_default()
    }
}

/// An active model and a candidate.
fn begun(place: &Place, side: &Side, contamination: f64) -> (Model, Model) {
    let (active, candidate) = (model(1, 0.01), model(2, contamination));
    side.registered(&active);
    side.registered(&candidate);
    side.registry.promote(&active.id, "promoted").unwrap();
    place.log(&active, 500);
    (active, candidate)
}

#[test]
fn each_verdict_is_compared_once_through_a_crash_a_move_and_a_stop() {
    let place = Place::new();
    let (mut one, mut two) = (place.side("one", true), place.side("two", false));
    let (active, candidate) = begun(&place, &one, 0.02);
    assert!(two.registry.catch_up(&|| false));
    two.registry.begin_shadow(&candidate.id, false, None, "asked for").unwrap();
    assert_eq!(one.registry.begin_shadow(&active.id, false, None, "no").unwrap_err(), RegistryError::IsActive);
    one.settle();
    place.log(&active, 700);
    one.settle();
    // It dies before it writes the rest down; whoever takes partition 0 over begins where the last record stands.
    place.log(&active, 300);
    place.clock.advance(1);
    while one.shadows.step().unwrap() {}
    drop(one);
    two.owns.store(true, Ordering::SeqCst);
    two.settle();
    assert!(two.tally(&candidate.id).comparison.compared >= 700);
    place.log(&active, 500);
    two.settle();
    two.stop();
    let mut three = place.side("three", true);
    let whole = expected(&active, &candidate, 500..2_000);
    assert!(whole.more > 5, "there is something to see: {whole:?}");
    assert_eq!(three.tally(&candidate.id).comparison, whole, "those before it began are not compared");
    // Its own verdicts, and those without a model, are no comparison.
    place.log(&candidate, 50);
    three.settle();
    place.clock.advance(10_000);
    three.settle();
    let tally = three.tally(&candidate.id);
    assert_eq!(tally.comparison, whole);
    assert_eq!(tally.positions.values().sum::<u64>(), 2_050);
    // Ended, it is known and does not go on.
    three.registry.end_shadow(&candidate.id, "ended by hand").unwrap();
    assert_eq!(three.registry.end_shadow(&candidate.id, "again").unwrap_err(), RegistryError::NoShadow);
    place.log(&active, 100);
    place.clock.advance(10_000);
    three.settle();
    assert_eq!(three.tally(&candidate.id).comparison, whole);
    // Begun anew, over the whole log this time.
    three.registry.begin_shadow(&candidate.id, true, None, "asked for").unwrap();
    assert_eq!(three.tally(&candidate.id).comparison, Comparison::default(), "nothing is left of the earlier one");
    three.settle();
    place.clock.advance(10_000);
    three.settle();
    let mut all = expected(&active, &candidate, 0..2_000);
    let last = expected(&active, &candidate, 2_050..2_150);
    all.compared += last.compared;
    assert_eq!(three.tally(&candidate.id).comparison.compared, all.compared);
}

/// A retraining whose candidate is in shadow for an hour.
fn due(place: &Place, side: &Side, candidate: &Model) {
    let now_ms = place.clock.now_ms();
    side.registry.begin_shadow(&candidate.id, false, Some(now_ms + HOUR_MS), "retrained").unwrap();
    let last = LastRetrain {
        due_ms: None,
        request: None,
        began_ms: now_ms,
        ended_ms: Some(now_ms),
        outcome: Retrained::Shadow,
        why: "in shadow for 1 h".to_owned(),
        model: Some(candidate.id.clone()),
        instance: "one".to_owned(),
    };
    side.registry.report_retrain(last).unwrap();
}

fn outcome(side: &Side) -> (Retrained, String) {
    assert!(side.registry.catch_up(&|| false));
    let last = side.registry.retrains().1.unwrap();
    (last.outcome, last.why)
}

#[test]
fn a_candidate_goes_live_after_its_hours_if_it_alerts_much_as_the_active_model_does() {
    for (contamination, promoted) in [(0.011, true), (0.2, false)] {
        let place = Place::new();
        let mut one = place.side("one", true);
        let (active, candidate) = begun(&place, &one, contamination);
        due(&place, &one, &candidate);
        one.settle();
        place.log(&active, 900);
        place.clock.advance(HOUR_MS - 1);
        one.settle();
        assert_eq!(one.registry.view().state(&candidate.id), State::Shadow, "its hour is not over");
        place.clock.advance(1);
        one.settle();
        assert_eq!(one.registry.view().state(&candidate.id), State::Shadow, "900 payments decide nothing");
        // A restart remembers when it is due.
        one.stop();
        let mut one = place.side("one", true);
        place.log(&active, 1_500);
        one.settle();
        one.settle();
        let (outcome, why) = outcome(&one);
        let scores = one.registry.view().active().unwrap().model.clone();
        if promoted {
            assert_eq!((outcome, scores, why.as_str()), (Retrained::Promoted, candidate.id.clone(), "passed in shadow"));
            assert_eq!(one.registry.view().state(&candidate.id), State::Active);
        } else {
            assert_eq!((outcome, scores), (Retrained::Kept, active.id.clone()));
            assert!(why.contains("shadow_alerts"), "{why}");
            assert_eq!(one.registry.view().state(&candidate.id), State::Candidate);
        }
        assert!(one.tally(&candidate.id).comparison.compared >= 1_000);
    }
}

#[test]
fn a_promotion_by_hand_ends_what_was_waiting() {
    let place = Place::new();
    let mut one = place.side("one", true);
    let (active, candidate) = begun(&place, &one, 0.011);
    due(&place, &one, &candidate);
    one.settle();
    // Another model takes the place of the one that the candidate was validated beside.
    let other = model(3, 0.01);
    one.registered(&other);
    one.registry.promote(&other.id, "promoted").unwrap();
    place.log(&active, 3_000);
    place.clock.advance(HOUR_MS);
    one.settle();
    let (kept, why) = outcome(&one);
    assert!(kept == Retrained::Kept && why.contains("another model"), "{why}");
    // And one that is promoted itself is in shadow no more.
    due(&place, &one, &candidate);
    one.settle();
    one.registry.promote(&candidate.id, "promoted").unwrap();
    one.settle();
    assert!(!one.registry.view().shadow(&candidate.id).unwrap().is_running());
    assert_eq!(outcome(&one).0, Retrained::Promoted);
}

#[test]
fn a_shadow_whose_artifact_is_gone_ends_with_its_reason() {
    let place = Place::new();
    let mut one = place.side("one", true);
    let (_, candidate) = begun(&place, &one, 0.01);
    one.registry.begin_shadow(&candidate.id, true, None, "asked for").unwrap();
    std::fs::remove_file(place.folder.path().join(format!("{}.forest", candidate.id))).unwrap();
    one.settle();
    let view = one.registry.view();
    let shadow = view.shadow(&candidate.id).unwrap();
    assert!(!shadow.is_running() && shadow.why.contains("not found"), "{}", shadow.why);
}
