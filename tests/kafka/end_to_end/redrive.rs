//! `mangrove redrive` on real Kafka: killed on its way, each dead letter goes back once.

use std::process::Stdio;

use serde_json::Value;
use topology::partitioner::partition_of;

use super::records::{Raw, Seen, now_ms};
use super::scene::Scene;
use super::until;

const PARTITIONS: u32 = 3;
const LATE: usize = 300;
const BROKEN: usize = 5;
const KILLS: usize = 3;

fn json(scene: &Scene, arguments: &[&str]) -> Value {
    let output = scene.call(&[&["redrive", "--json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Kills it while records go out.
fn kill_on_its_way(scene: &Scene) {
    let topic = scene.topic("transactions");
    // So slow that many are left at each kill, however late it comes.
    let slow = ["redrive", "--cause", "far_future", "--execute", "--rate", "20"];
    for kill in 0..KILLS {
        let gone = scene.ends(&topic).iter().sum::<u64>();
        let mut child = scene.command("none", &slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        until(&format!("some records go back before kill {kill}"), || {
            assert!(child.try_wait().expect("its status").is_none(), "it ended before it was killed");
            (scene.ends(&topic).iter().sum::<u64>() > gone + 5).then_some(())
        });
        child.kill().expect("killed");
        child.wait().expect("it ends");
    }
}

/// What nothing mends comes back with its count, until it may not go again.
fn fail_again(scene: &Scene) {
    let dead = scene.topic("dead-letters");
    for round in 1..=2 {
        assert_eq!(json(scene, &["--execute", "--max-redrives", "2"])["redriven"], BROKEN);
        until("they fail again", || {
            let counts: Vec<String> = scene.read(&dead).iter().map(|seen| seen.header("mangrove.redrives")).collect();
            (counts.iter().filter(|count| **count == round.to_string()).count() == BROKEN).then_some(())
        });
    }
    let over = json(scene, &["--execute", "--max-redrives", "2"]);
    assert_eq!((over["redriven"].as_u64(), over["skipped"]["too_often"].as_u64()), (Some(0), Some(BROKEN as u64)));
}

#[test]
fn dead_letters_go_back_once_through_kills_and_loops_are_seen() {
    let Some(scene) = Scene::new("redrive") else { return };
    scene.create("transactions", PARTITIONS, &[]);
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let (topic, dead, writer) = (scene.topic("transactions"), scene.topic("dead-letters"), scene.writer());
    let write = |user: String, value: String| {
        let key = user.into_bytes();
        let raw = Raw {
            partition: partition_of(&key, PARTITIONS),
            key: Some(key),
            value: Some(value.into_bytes()),
            timestamp: Some(now_ms()),
            headers: vec![("trace", b"abc".to_vec())],
        };
        writer.raw(&topic, &raw);
    };
    // Payments two hours ahead, which a setting lets through, and some that nothing mends.
    let ahead = now_ms() + 2 * 3_600_000;
    for number in 0..LATE {
        write(
            format!("u{number}"),
            format!(r#"{{"user_id":"u{number}","amount":1,"merchant":"m","tx_id":"t{number}","timestamp":{ahead}}}"#),
        );
    }
    (0..BROKEN).for_each(|number| write(format!("b{number}"), "?".to_owned()));
    writer.flush();
    let all = LATE + BROKEN;
    until("all are put aside", || (scene.ends(&dead).iter().sum::<u64>() >= all as u64).then_some(()));
    until("all are put aside", || (scene.read(&dead).len() == all).then_some(()));
    service.stop();
    let scene = scene.with("MAX_FUTURE_MS", "86400000");
    let service = scene.start("a");
    // Counting writes nothing.
    let before = scene.ends(&topic);
    let plan = json(&scene, &[]);
    assert_eq!((plan["matching"].as_u64(), plan["redriven"].as_u64()), (Some(all as u64), Some(0)));
    let of = |cause: &str| {
        let groups = plan["groups"].as_array().expect("groups").iter().filter(|group| group["cause"] == cause);
        groups.map(|group| group["records"].as_u64().expect("a number")).sum::<u64>()
    };
    assert_eq!((of("far_future"), of("not_json")), (LATE as u64, BROKEN as u64));
    assert_eq!(scene.ends(&topic), before);
    kill_on_its_way(&scene);
    let last = json(&scene, &["--cause", "far_future", "--execute"]);
    let (gone, already) = (last["redriven"].as_u64().expect("a number"), last["skipped"]["already"].as_u64().expect("a number"));
    assert_eq!((gone + already, already > 0), (LATE as u64, true), "{last}");
    let written = scene.read(&topic);
    assert_eq!(written.len(), all + LATE, "each once");
    let back: Vec<&Seen> = written.iter().filter(|seen| seen.header("mangrove.redrives") == "1").collect();
    assert_eq!(back.len(), LATE);
    for seen in back {
        assert_eq!(partition_of(seen.key.as_deref().expect("a key"), PARTITIONS), seen.partition);
        let names: Vec<&str> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["trace", "mangrove.redrives"], "no error header is left");
    }
    until("all are scored", || (scene.ends(&scene.topic("verdicts")).iter().sum::<u64>() >= LATE as u64).then_some(()));
    let verdicts = until("all are scored", || Some(scene.read(&scene.topic("verdicts"))).filter(|seen| seen.len() >= LATE));
    let mut ids: Vec<String> = verdicts.iter().map(|seen| seen.json()["tx_id"].as_str().expect("an id").to_owned()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((verdicts.len(), ids.len()), (LATE, LATE));
    fail_again(&scene);
    service.stop();
}
