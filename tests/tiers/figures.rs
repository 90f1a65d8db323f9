//! Measurements, ignored by default: how fast the projection catches up. Each prints one line of JSON. docs/performance.md has the command.

use std::time::Instant;

use mangrove::projection::{ColdSink, Projection, Sources, Status, WarmSink};
use mangrove::tiers::{Cold, ColdOptions, WRITE_TIMEOUT, Warm, WarmOptions, Writer};
use topology::broker::{Broker as _, Publisher as _};
use topology::record::{Outgoing, TopicId, TopicPartition};

use crate::rival::config;
use crate::servers::Server;
use crate::site::Site;
use crate::stage::{PARTITIONS, Stage, until};

const VERDICTS: u64 = 300_000;
const PROFILES: u64 = 400_000;
/// Records sent between two waits for the broker.
const CHUNK: u64 = 20_000;
/// Payments a second of the stream that is caught up with: it decides how many days it spans.
const STREAM_RATE: u64 = 50;

/// Appends records made of their number to a topic, in turn to its partitions.
fn fill(stage: &Stage, topic: TopicId, count: u64, mut record: impl FnMut(u64) -> (String, Vec<u8>)) {
    let mut publisher = stage.broker.publisher().unwrap();
    for number in 0..count {
        let (key, value) = record(number);
        let to = TopicPartition { topic, partition: (number % u64::from(PARTITIONS)) as u32 };
        let outgoing =
            Outgoing { to, key: Some(key.as_bytes()), value: Some(&value), timestamp: 1_795_392_000_000, headers: &[] };
        publisher.send(&outgoing).unwrap();
        if number % CHUNK == CHUNK - 1 {
            publisher.flush().unwrap();
        }
    }
    publisher.flush().unwrap();
}

/// An instance that scored some payments and ended: real verdicts and profiles to make many of.
fn samples() -> Stage {
    let mut stage = Stage::new(None, None);
    stage.pay(4_000, 20);
    stage.scored();
    stage
}

fn report(what: &str, records: u64, begun: Instant, more: &str) {
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        r#"{{"what":"{what}","records":{records},"seconds":{seconds:.2},"per_second":{:.0}{more}}}"#,
        records as f64 / seconds
    );
}

#[test]
#[ignore = "a measurement"]
fn figure_verdicts_into_postgres() {
    let server = Server::postgres();
    let stage = samples();
    let verdicts = stage.topic("verdicts");
    let sample: serde_json::Value = serde_json::from_slice(stage.records(verdicts)[3_999].3.as_ref().unwrap()).unwrap();
    let before = stage.records(verdicts).len() as u64;
    fill(&stage, verdicts, VERDICTS, |number| {
        let mut verdict = sample.clone();
        let user = format!("user {:07}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44);
        verdict["id"] = format!("transactions:{}:{}", number % 4, 1_000_000 + number).into();
        verdict["user_id"] = user.clone().into();
        verdict["merchant"] = format!("merchant {}", number % 5_003).into();
        verdict["tx_id"] = format!("9f7c2a51-{number:012x}").into();
        verdict["model_id"] = "0123456789abcdef".into();
        verdict["score"] = 0.314_159.into();
        verdict["event_time"] = (1_795_000_000_000_u64 + number * 1_000 / STREAM_RATE).into();
        (user, serde_json::to_vec(&verdict).unwrap())
    });
    let sources = Sources::of(&stage.api().topology, "verdicts", "labels", "models");
    let options = ColdOptions { connections: 1, statement_timeout: WRITE_TIMEOUT, ..ColdOptions::default() };
    let cold = Cold::open(&server.url, &stage.application, &options).unwrap();
    drop(stage.wait(cold.get()).unwrap());
    let status = Status::default();
    let mut projection = Projection::none();
    let begun = Instant::now();
    let sink = ColdSink::new(Writer::new(cold, 90), sources, None);
    projection.spawn(&stage.broker, sink, config("figure", "postgres"), status.tier("postgres"));
    until("every verdict is written", || (status.tier("postgres").view().written >= VERDICTS + before).then_some(()));
    report("verdicts into postgres", VERDICTS + before, begun, "");
    projection.tell();
}

#[test]
#[ignore = "a measurement"]
fn figure_profiles_into_redis() {
    let server = Server::redis();
    let stage = samples();
    let changelog = stage.changelog();
    let records = stage.records(changelog);
    let values: Vec<Vec<u8>> = records.iter().rev().filter_map(|record| record.3.clone()).take(20).collect();
    let (before, bytes) = (records.len() as u64, values[0].len());
    fill(&stage, changelog, PROFILES, |number| {
        (format!("user {number:08}"), values[(number % values.len() as u64) as usize].clone())
    });
    let sources = Sources::of(&stage.api().topology, "verdicts", "labels", "models");
    let warm =
        Warm::open(&server.url, &stage.application, WarmOptions { timeout: WRITE_TIMEOUT, ..WarmOptions::default() }).unwrap();
    let status = Status::default();
    let mut projection = Projection::none();
    let begun = Instant::now();
    projection.spawn(&stage.broker, WarmSink::new(warm, sources, None), config("figure", "redis"), status.tier("redis"));
    until("every profile is written", || (status.tier("redis").view().written >= PROFILES + before).then_some(()));
    report("profiles into redis", PROFILES + before, begun, &format!(r#","value_bytes":{bytes}"#));
    projection.tell();
}

/// How long `GET /v1/quality` takes, and what it holds, with so many verdicts of which one in ten is labelled.
#[test]
#[ignore = "a measurement"]
fn figure_quality_of_a_million_verdicts() {
    let count: u64 = std::env::var("VERDICTS").map_or(1_000_000, |verdicts| verdicts.parse().unwrap());
    let stage = samples();
    let verdicts = stage.topic("verdicts");
    let sample: serde_json::Value = serde_json::from_slice(stage.records(verdicts)[3_999].3.as_ref().unwrap()).unwrap();
    let id = |number: u64| format!("transactions:{}:{}", number % 4, 1_000_000 + number);
    let user = |number: u64| format!("user {:07}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44);
    let now_ms = u64::try_from(mangrove::clock::now_ms()).unwrap();
    fill(&stage, verdicts, count, |number| {
        let mut verdict = sample.clone();
        verdict["id"] = id(number).into();
        verdict["user_id"] = user(number).into();
        verdict["tx_id"] = format!("9f7c2a51-{number:012x}").into();
        verdict["model_id"] = "0123456789abcdef".into();
        verdict["score"] = ((number % 1_000) as f64 / 1_000.0).into();
        verdict["event_time"] = (now_ms - 20 * 86_400_000 + number).into();
        (user(number), serde_json::to_vec(&verdict).unwrap())
    });
    let labels = count / 10;
    fill(&stage, stage.topic("labels"), labels, |number| {
        let (number, label) = (number * 10, if number % 7 == 0 { "fraud" } else { "legitimate" });
        let label = serde_json::json!({"verdict_id": id(number), "user_id": user(number), "label": label, "at": now_ms});
        (user(number), serde_json::to_vec(&label).unwrap())
    });
    let site = Site::of(stage.api());
    // From here on the peak counts anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    let (begun, mut asked) = (Instant::now(), 0);
    let quality = until("figures", || {
        asked += 1;
        let got = site.ask("/v1/quality?days=30", "");
        (got.status == 200).then(|| serde_json::from_str::<serde_json::Value>(&got.body).unwrap())
    });
    // The samples' own verdicts may be of these days as well.
    assert!(quality["verdicts"].as_u64() >= Some(count) && quality["labelled"].as_u64() == Some(labels), "{quality}");
    let held = (memory("VmHWM") - before) as f64 * 1024.0 / labels as f64;
    report("quality", count, begun, &format!(r#","labels":{labels},"asked":{asked},"bytes_held_by_label":{held:.0}"#));
}

/// Of this process, in KiB.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')?.trim().strip_suffix(" kB"));
    found.unwrap().trim().parse().unwrap()
}
