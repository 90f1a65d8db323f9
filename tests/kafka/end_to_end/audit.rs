//! `verify`, `explain` and `rebuild` on real Kafka: while instances run and are killed, and after faults were planted.

use std::process::Output;

use serde_json::Value;

use super::feed::Feed;
use super::ledger::{Ledger, model};
use super::records::Raw;
use super::scene::{PARTITIONS, Scene};
use super::service::Service;
use super::until;

const PAYMENTS: usize = 20_000;

fn run(scene: &Scene, state: &str, arguments: &[&str]) -> Output {
    scene.command(state, arguments).output().expect("it runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {}", text(output)))
}

fn sum(report: &Value, of: [&str; 2]) -> u64 {
    report["partitions"].as_array().expect("partitions").iter().map(|one| one[of[0]][of[1]].as_u64().expect("a count")).sum()
}

#[test]
fn what_was_killed_again_and_again_is_verified_explained_and_rebuilt() {
    let Some(scene) = Scene::new("audit") else { return };
    let scene = scene.with("COMMIT_INTERVAL_MS", "5").with("MODEL_PATH", model().to_str().expect("a plain path"));
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let mut feed = Feed::new(&scene, &ledger.payments);
    for kill in 1..=2 {
        feed.reach(PAYMENTS * kill / 4);
        service.kill();
        service = scene.start("a");
    }
    // Beside a running instance, whatever its transactions are at.
    feed.reach(PAYMENTS * 5 / 8);
    feed.send(PAYMENTS * 7 / 8);
    let running = run(&scene, "a", &["verify", "--json"]);
    assert!(running.status.success(), "{}", text(&running));
    assert!(json(&running)["partitions"][0]["store"]["note"].as_str().expect("a note").contains("an instance uses"));
    feed.finish(PAYMENTS);
    service.kill();
    let killed = run(&scene, "a", &["verify", "--json"]);
    assert!(killed.status.success(), "{}", text(&killed));
    let report = json(&killed);
    assert_eq!(sum(&report, ["outcomes", "compared"]), PAYMENTS as u64);
    assert_eq!(sum(&report, ["users", "same"]), ledger.profiles().len() as u64);
    assert_eq!(sum(&report, ["store", "compared"]), ledger.profiles().len() as u64, "the store of the one that was killed");

    let id = scene.read(&scene.topic("verdicts"))[PAYMENTS / 2].json()["id"].as_str().expect("an id").to_owned();
    let explained = run(&scene, "a", &["explain", &id, "--json"]);
    assert!(explained.status.success(), "{}", text(&explained));
    let explained = json(&explained);
    assert_eq!((&explained["outcome"]["scored"]["same"], &explained["outcome"]["state"]["same"]), (&true.into(), &true.into()));

    // Killed at its start and on its way: what is there is behind, not different. Then run again.
    for (kill, partition) in [None, Some(0), Some(1), Some(4)].into_iter().enumerate() {
        let mut command = scene.command("a", &["rebuild", "--from", "changelog"]);
        let mut rebuild = Service::spawn(&mut command, scene.path(&format!("rebuild-{kill}.log")));
        let so_far =
            partition.map_or("model loaded".to_owned(), |partition: u32| format!(r#"changelog","partition":{partition},"#));
        until("it is so far, or done", || (rebuild.text().contains(&so_far) || !rebuild.lives()).then_some(()));
        // It may have come to its end meanwhile: then there is nothing left to kill.
        drop(rebuild);
        let half = run(&scene, "a", &["verify", "--json"]);
        assert!(half.status.success(), "{}", text(&half));
        println!("killed with {} of {} users there", sum(&json(&half), ["store", "compared"]), ledger.profiles().len());
    }
    let rebuilt = run(&scene, "a", &["rebuild", "--from", "changelog"]);
    assert!(rebuilt.status.success(), "{}", text(&rebuilt));
    let verified = run(&scene, "a", &["verify", "--json"]);
    assert!(verified.status.success(), "{}", text(&verified));
    assert_eq!(sum(&json(&verified), ["store", "compared"]), ledger.profiles().len() as u64);

    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let refused = run(&scene, "a", &["rebuild", "--from", "changelog"]);
    assert!(text(&refused).contains("another running instance"), "{}", text(&refused));
    service.stop();
    assert_eq!(scene.profiles(), ledger.profiles());
}

#[test]
fn a_changelog_that_was_tampered_with_is_mended_from_the_transactions() {
    let Some(scene) = Scene::new("mend") else { return };
    let scene = scene.with("MODEL_PATH", model().to_str().expect("a plain path"));
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS / 4);
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.finish(ledger.payments.len());
    let refused = run(&scene, "b", &["rebuild", "--from", "transactions", "--apply"]);
    assert!(!refused.status.success() && text(&refused).contains("Stop all instances"), "{}", text(&refused));
    service.stop();
    // A user of the first record of the changelog gets another user's profile.
    let changelog = scene.read(&scene.changelog());
    let victim = changelog.iter().find(|seen| seen.value.is_some()).expect("a record");
    let other =
        changelog.iter().rfind(|seen| seen.partition == victim.partition && seen.key != victim.key).expect("another user");
    let writer = scene.writer();
    let (partition, key, value) = (victim.partition, victim.key.clone(), other.value.clone());
    writer.raw(&scene.changelog(), &Raw { partition, key, value, ..Raw::default() });
    writer.flush();
    assert_ne!(scene.profiles(), ledger.profiles(), "the fault is there");
    let found = run(&scene, "a", &["verify"]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));

    let dry = run(&scene, "a", &["rebuild", "--from", "transactions"]);
    assert!(dry.status.success(), "{}", text(&dry));
    assert_ne!(scene.profiles(), ledger.profiles(), "a dry run mends nothing");
    let mended = run(&scene, "a", &["rebuild", "--from", "transactions", "--apply"]);
    assert!(mended.status.success(), "{}", text(&mended));
    assert_eq!(scene.profiles(), ledger.profiles());
    let verified = run(&scene, "a", &["verify", "--json"]);
    assert!(verified.status.success(), "{}", text(&verified));
    assert_eq!(sum(&json(&verified), ["store", "compared"]), ledger.profiles().len() as u64, "the store was read anew");
    // It goes on from there: nothing is answered again.
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    service.stop();
    assert_eq!(scene.read(&scene.topic("verdicts")).len(), ledger.payments.len());
}
