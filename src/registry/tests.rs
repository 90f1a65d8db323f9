//! Two instances on one simulated broker and one folder: who says what, and which model scores.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use models::{Model, TrainParams};
use tempfile::TempDir;
use topology::broker::{Broker as _, Cleanup, Publisher as _, TopicSpec};
use topology::clock::MockClock;
use topology::record::{Outgoing, TopicId, TopicPartition, Topics};
use topology::simulated::SimBroker;

use super::*;
use crate::scoring::{ModelSlot, ScoringParams};
use crate::training::{TrainingRows, synthetic};

const TOPIC: TopicId = TopicId(0);

struct Place {
    broker: Arc<SimBroker>,
    folder: TempDir,
    clock: MockClock,
}

/// One instance's side.
struct Side {
    registry: Registry,
    slot: ModelSlot,
}

impl Place {
    fn new() -> Self {
        let broker = SimBroker::new(Topics::new(vec!["models".to_owned()]));
        let cleanup = Cleanup::Compact { tombstone_retention_ms: 1_000 };
        broker.create(&TopicSpec { name: "models".into(), partitions: 1, cleanup, max_message_bytes: None }).unwrap();
        Self { broker: Arc::new(broker), folder: TempDir::new().unwrap(), clock: MockClock::at(1_000) }
    }

    fn side(&self, name: &str) -> Side {
        let slot = ModelSlot::default();
        let artifacts = Artifacts::open(self.folder.path().to_str().unwrap()).unwrap();
        let clock = Arc::new(self.clock.clone());
        let registry = Registry::new(&self.broker, TOPIC, artifacts, slot.clone(), clock, name);
        assert!(registry.catch_up(&|| false));
        Side { registry, slot }
    }

    fn write(&self, key: &[u8], value: Option<&[u8]>) {
        let mut publisher = self.broker.publisher().unwrap();
        let to = TopicPartition { topic: TOPIC, partition: 0 };
        publisher.send(&Outgoing { to, key: Some(key), value, timestamp: 0, headers: &[] }).unwrap();
        publisher.flush().unwrap();
    }

    fn artifact(&self, id: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("{id}.forest"))
    }
}

impl Side {
    fn scores(&self) -> Option<String> {
        self.slot.get().map(|model| model.id.clone())
    }

    fn follows(&self) -> Option<String> {
        assert!(self.registry.catch_up(&|| false));
        self.scores()
    }

    fn registered(&self, seed: u64) -> String {
        self.registry.register(&model(seed), "csv", None, None).unwrap().id
    }
}

fn model(seed: u64) -> Model {
    static ROWS: OnceLock<TrainingRows> = OnceLock::new();
    let rows = ROWS.get_or_init(|| synthetic(2_000, &ScoringParams::default(), &|_| {}).unwrap());
    rows.train(TrainParams { trees: 5, max_samples: 32, seed }, 0.05, None, &|| {}).unwrap()
}

#[test]
fn every_instance_follows_the_last_activation_and_rolls_back() {
    let place = Place::new();
    let (one, two) = (place.side("one"), place.side("two"));
    let (a, b) = (one.registered(1), two.registered(2));
    assert_eq!((one.scores(), two.scores()), (None, None), "registering alone changes nothing");
    one.registry.promote(&a, "promoted").unwrap();
    assert_eq!((one.scores().as_ref(), two.follows().as_ref()), (Some(&a), Some(&a)));
    let activation = two.registry.promote(&b, "promoted").unwrap();
    assert_eq!((activation.model.as_str(), &activation.previous[..]), (b.as_str(), &[a.clone()][..]));
    assert_eq!((one.follows().as_ref(), two.scores().as_ref()), (Some(&b), Some(&b)));
    assert_eq!((one.registry.view().state(&a), one.registry.view().state(&b)), (State::Retired, State::Active));
    one.registry.roll_back().unwrap();
    assert_eq!((one.scores().as_ref(), two.follows().as_ref()), (Some(&a), Some(&a)));
    assert_eq!(one.registry.roll_back(), Err(RegistryError::NoEarlier), "rolling back goes back, not to and fro");
    assert_eq!(one.registry.promote("0123456789abcdef", "promoted"), Err(RegistryError::Unknown));
    // A new instance begins with the active model, and knows all versions.
    let three = place.side("three");
    assert_eq!(three.scores(), Some(a));
    assert_eq!(three.registry.view().versions().len(), 2);
}

#[test]
fn of_two_promotions_at_once_the_last_in_the_topic_wins_everywhere() {
    let place = Place::new();
    let (one, two) = (place.side("one"), place.side("two"));
    let (a, b, c) = (one.registered(1), one.registered(2), one.registered(3));
    one.registry.promote(&a, "promoted").unwrap();
    two.follows();
    // Neither has seen the other's when it writes.
    let view = two.registry.view();
    one.registry.promote(&b, "promoted").unwrap();
    let late = record::Entry::Active(view.promotion(&c, "promoted", "two", 5));
    place.write(&late.key(), late.value().as_deref());
    assert_eq!((one.follows().as_ref(), two.follows().as_ref()), (Some(&c), Some(&c)));
    assert_eq!(one.registry.view(), two.registry.view());
}

/// What happens to a file.
type Damage<'a> = &'a dyn Fn(&Path);

#[test]
fn an_artifact_that_is_not_whole_is_refused_with_its_reason_and_the_old_model_goes_on() {
    let place = Place::new();
    let (one, two) = (place.side("one"), place.side("two"));
    let (a, b) = (one.registered(1), one.registered(2));
    one.registry.promote(&a, "promoted").unwrap();
    two.follows();
    let whole = std::fs::read(place.artifact(&b)).unwrap();
    let mut changed = whole.clone();
    changed[200] ^= 1;
    let huge = |path: &Path| std::fs::File::create(path).unwrap().set_len(1 << 31).unwrap();
    let damage: [(&str, Damage<'_>); 6] = [
        ("checksum", &|path| std::fs::write(path, &changed).unwrap()),
        ("truncated", &|path| std::fs::write(path, &whole[..whole.len() - 7]).unwrap()),
        ("not a Mangrove model", &|path| std::fs::write(path, b"#!/bin/sh").unwrap()),
        ("at most", &|path| huge(path)),
        ("another model", &|path| assert!(std::fs::copy(place.artifact(&a), path).unwrap() > 0)),
        ("not found", &|path| std::fs::remove_file(path).unwrap()),
    ];
    for (words, damage) in damage {
        damage(&place.artifact(&b));
        let why = one.registry.promote(&b, "promoted").unwrap_err();
        assert!(matches!(&why, RegistryError::Unusable(fault) if fault.0.contains(words)), "{why} lacks {words}");
        assert_eq!(one.registry.view().active().unwrap().model, a, "nothing was written");
    }
    // It was whole when another instance promoted it, and is damaged when this one reads it.
    std::fs::write(place.artifact(&b), &whole).unwrap();
    one.registry.promote(&b, "promoted").unwrap();
    std::fs::write(place.artifact(&b), &changed).unwrap();
    assert_eq!(two.follows().as_ref(), Some(&a));
    let refusal = two.registry.refusal().unwrap();
    assert!(refusal.model == b && refusal.why.contains("checksum"), "{refusal:?}");
    // An instance that starts now has no old model; the one before is better than none.
    assert_eq!(place.side("three").scores(), Some(a));
    std::fs::write(place.artifact(&b), &whole).unwrap();
    assert_eq!(two.follows(), Some(b), "whole again");
    assert_eq!(two.registry.refusal(), None);
}

#[test]
fn records_that_mean_nothing_change_nothing() {
    let place = Place::new();
    let one = place.side("one");
    let a = one.registered(1);
    one.registry.promote(&a, "promoted").unwrap();
    let before = one.registry.view();
    let other = format!("model/{}", "0".repeat(16)).into_bytes();
    let version = record::Entry::Version(Box::new(before.version(&a).unwrap().clone()));
    place.write(b"active", Some(b"{}"));
    place.write(b"active", Some(br#"{"model":"../../etc/passwd","at_ms":1,"why":"","instance":""}"#));
    place.write(b"active", None);
    place.write(b"\xff", Some(b"x"));
    place.write(b"of a later version", Some(b"x"));
    place.write(&other, version.value().as_deref());
    place.write(&other, Some(&vec![b' '; 300 << 10]));
    assert_eq!(one.follows(), Some(a.clone()));
    let after = one.registry.view();
    assert_eq!((after.active(), after.versions()), (before.active(), before.versions()));
    assert_eq!(after.position(), before.position() + 7);
    assert_eq!(place.side("two").scores(), Some(a));
}
