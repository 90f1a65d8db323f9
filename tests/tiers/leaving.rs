//! The program itself with `STATE_TTL`, on a real Kafka with both tiers of the test's own: idle users leave and come back through kill -9 and an outage of Redis,
//! and the verdicts are those of a run in which nobody leaves.

use std::path::Path;

use state::backend::{Backend as _, StorePartition, WriteSet};
use state::rocks::{RocksBackend, RocksOptions};
use state::tiered::Stub;

use crate::common::feed::Feed;
use crate::common::ledger::{Ledger, faults, model};
use crate::common::scene::{PARTITIONS, Scene, program};
use crate::common::until;
use crate::place;
use crate::servers::Server;

const PAYMENTS: usize = 20_000;

fn store(partition: u32) -> StorePartition {
    StorePartition { store: "profiles".into(), partition }
}

/// The stubs in a store that no instance holds.
fn stubs(store_folder: &Path) -> Vec<(u32, Vec<u8>)> {
    let backend = RocksBackend::open(store_folder, RocksOptions::default()).unwrap();
    let mut found = Vec::new();
    for partition in 0..PARTITIONS {
        let mut look = |key: &[u8], value: &[u8]| {
            if Stub::decode(value).is_some() {
                found.push((partition, key.to_vec()));
            }
            true
        };
        backend.scan(&store(partition), None, usize::MAX, &mut look).unwrap();
    }
    found
}

#[test]
fn kills_and_an_outage_while_users_leave_and_come_back_change_no_verdict() {
    let Some(scene) = Scene::new("leaving") else { return };
    if place::redis("kills_and_an_outage_while_users_leave").is_none() || place::postgres("kills_and_an_outage").is_none() {
        return;
    }
    let (redis, postgres) = (Server::redis(), Server::postgres());
    // The reference keeps everybody: 300 users, each of whom pays about every 75 minutes.
    let scene = scene.with("MODEL_PATH", model().to_str().unwrap()).with("MEMORY_LIMIT", "384MiB");
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    let expected = ledger.verdicts(&scene, model());
    let scene = scene.with("REDIS_URL", redis.url.expose()).with("DATABASE_URL", postgres.url.expose()).with("STATE_TTL", "60");
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let mut feed = Feed::new(&scene, &ledger.payments);
    let mut brought_back = 0;
    for life in 1..=3 {
        let at = PAYMENTS * life * 3 / 10;
        feed.finish(at);
        until("idle users have left", || (service.metric("mangrove_evicted_total") > 0).then_some(()));
        // In the middle of payments of users who have just left. What is decoded in memory goes with the process.
        feed.send(at + 3_000);
        until("some of them are scored", || {
            feed.look();
            (feed.seen() > at + 500).then_some(())
        });
        brought_back += service.metric("mangrove_brought_back_total");
        service.kill();
        match life {
            1 => redis.kill(),
            2 => redis.start(),
            _ => {}
        }
        service = scene.start("a");
        service.restored(PARTITIONS as usize);
    }
    feed.finish(PAYMENTS);
    // Read in this order, and more left than came back: nobody pays again, so some stay away.
    until("idle users have left for good", || {
        let left = service.metric("mangrove_evicted_total");
        (left > service.metric("mangrove_brought_back_total")).then_some(())
    });
    brought_back += service.metric("mangrove_brought_back_total");
    assert!(brought_back > 0, "nobody had to come back: the test shows nothing");
    assert_eq!(service.metric("mangrove_stores_rebuilt_total"), 0, "stores with stubs are gone on with");
    service.stop();
    assert_eq!(faults(&scene.read(&scene.topic("verdicts")), &expected, true), "");
    assert_eq!(ledger.profiles(), scene.profiles());

    let verify = || {
        let output = scene.command("a", &["verify", "--json"]).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let compared =
            report["partitions"].as_array().unwrap().iter().map(|of| of["store"]["compared"].as_u64().unwrap()).sum::<u64>();
        (output.status.code(), report["same"].as_bool(), compared)
    };
    let users = ledger.profiles().len() as u64;
    let folder = scene.path("a").join("rocksdb");
    let gone = stubs(&folder);
    assert!(!gone.is_empty(), "some are away");
    assert_eq!(verify(), (Some(0), Some(true), users), "stubs are compared as all others");
    {
        let backend = RocksBackend::open(&folder, RocksOptions::default()).unwrap();
        let (partition, user) = &gone[0];
        let mut set = WriteSet::default();
        set.begin(store(*partition));
        set.change(user, Some(&Stub::of(b"of something else").encode()));
        backend.write(&set).unwrap();
    }
    assert_eq!(verify(), (Some(1), Some(false), users), "a stub of something else is a difference");
}

#[test]
fn eviction_without_what_it_needs_is_refused_with_all_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let run = |settings: &[(&str, &str)]| {
        let output = program(folder.path()).arg("run").envs(settings.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&[("STATE_TTL", "600"), ("PROCESSING_GUARANTEE", "at_least_once"), ("COMMIT_INTERVAL_MS", "6000")]);
    assert_eq!(code, Some(2), "{said}");
    for wrong in ["no DATABASE_URL is set", "PROCESSING_GUARANTEE=exactly_once", "COMMIT_INTERVAL_MS"] {
        assert!(said.contains(wrong), "{wrong} in {said}");
    }
    let (code, said) = run(&[("STATE_TTL", "ten minutes"), ("DATABASE_URL", "postgres://somebody@localhost/db")]);
    assert!(code == Some(2) && said.contains("STATE_TTL"), "{said}");
}
