//! Users who leave this machine for a real Postgres, and come back through outages: the verdicts are those of an instance that keeps everybody.

use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use state::backend::StorePartition;
use state::tiered::Stub;
use topology::partitioner::partition_of;
use topology::status::Phase;

use crate::place;
use crate::servers::Server;
use crate::site::Site;
use crate::stage::{PARTITIONS, Stage, until};

const TWO_HOURS_MS: i64 = 2 * 3_600_000;

fn get(site: &Site, path: &str) -> (u16, Value) {
    let got = site.ask(path, "");
    (got.status, serde_json::from_str(&got.body).unwrap())
}

/// The answer, once this tier has it: one that is slow for once is done without.
pub fn answered(site: &Site, path: &str, source: &str) -> Value {
    until(&format!("{source} answers"), || {
        let (status, answer) = get(site, path);
        assert!([200, 503].contains(&status), "an outage makes nobody unknown: {answer}");
        (status == 200 && answer["source"] == source).then_some(answer)
    })
}

/// An instance that lets users go after so many seconds, and its twin that keeps them.
fn twins(redis: &Server, postgres: &Server, ttl: &str) -> (Stage, Stage) {
    let ttl = [("STATE_TTL", ttl.to_owned())];
    (Stage::with(Some(&redis.url), Some(&postgres.url), &ttl), Stage::new(None, None))
}

fn evicted(stage: &Stage) -> u64 {
    stage.api().tiered.expect("it evicts").counts().evicted.load(Ordering::Relaxed)
}

fn brought_back(stage: &Stage) -> u64 {
    stage.api().tiered.expect("it evicts").counts().brought_back.load(Ordering::Relaxed)
}

/// Users who left, by what lies in the store.
fn stubs(stage: &Stage) -> usize {
    let (backend, mut count) = (stage.api().backend, 0);
    for partition in 0..PARTITIONS {
        let of = StorePartition { store: "profiles".into(), partition };
        let mut look = |_: &[u8], value: &[u8]| {
            count += usize::from(Stub::decode(value).is_some());
            true
        };
        backend.scan(&of, None, usize::MAX, &mut look).unwrap();
    }
    count
}

/// The digest of all verdicts, in the order of their partitions.
fn verdicts(stage: &Stage) -> (usize, String) {
    let (mut count, mut digest) = (0, Sha256::new());
    stage.each(stage.topic("verdicts"), |partition, record| {
        count += 1;
        digest.update(partition.to_le_bytes());
        digest.update(record.key.unwrap());
        digest.update(record.value.unwrap());
    });
    (count, digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Users in numbers' order from `from`, of one partition or of all others.
fn users(from: u64, of_partition: u32, same: bool) -> impl Iterator<Item = u64> {
    (from..).filter(move |n| (partition_of(format!("user {n}").as_bytes(), PARTITIONS) == of_partition) == same)
}

#[test]
fn evicted_profiles_come_back_through_outages_of_both_tiers() {
    if place::redis("evicted_profiles").is_none() || place::postgres("evicted_profiles").is_none() {
        return;
    }
    let (redis, postgres) = (Server::redis(), Server::postgres());
    let (mut stage, mut plain) = twins(&redis, &postgres, "10");
    for stage in [&mut stage, &mut plain] {
        stage.pay(400, 40);
        stage.let_pass(TWO_HOURS_MS);
        // One of each partition stays busy: its time goes on.
        for partition in 0..PARTITIONS {
            stage.pay_by(&[users(0, partition, true).next().unwrap()]);
        }
        stage.scored();
    }
    stage.redis_is_right();
    until("all idle users have left", || (stubs(&stage) == 36).then_some(()));
    // What is still decoded in memory needs no tier: the next life has to ask.
    stage.stop();
    stage.start();
    until("its partitions run again", || {
        let tasks = stage.api().tasks.all();
        (tasks.len() == PARTITIONS as usize && tasks.values().all(|task| task.phase == Phase::Running)).then_some(())
    });
    assert_eq!(stubs(&stage), 36, "a restart keeps stubs");

    let site = Site::of(stage.api());
    let gone = users(0, 0, true).nth(1).unwrap();
    let path = format!("/v1/users/user%20{gone}/profile");
    let warm = answered(&site, &path, "redis");
    assert_eq!(warm["count"].as_u64(), Some(10), "{warm}");
    redis.kill();
    let cold = answered(&site, &path, "postgres");
    assert_eq!(cold["amount"], warm["amount"]);
    assert_eq!(cold["position"], warm["position"], "it is the profile that stands here");
    postgres.kill();
    assert_eq!(get(&site, &path).0, 503, "an outage makes nobody unknown");
    assert_eq!(get(&site, "/v1/state/users?limit=1000").1["users"].as_array().map(Vec::len), Some(40));

    // One partition waits for its user; the others go on.
    let others: Vec<u64> = (1..PARTITIONS).map(|partition| users(0, partition, true).next().unwrap()).collect();
    let before = verdicts(&stage).0;
    for stage in [&mut stage, &mut plain] {
        stage.pay_by(&[gone]);
        stage.pay_by(&others);
    }
    until("the others' verdicts", || (verdicts(&stage).0 == before + others.len()).then_some(()));
    until("the partition says that it waits", || {
        let (status, ready) = get(&site, "/readyz");
        let waits = ready["waits"][0].as_str().is_some_and(|waits| waits.starts_with("1 partitions wait"));
        (status == 200 && waits).then_some(())
    });
    let tasks = get(&site, "/v1/health").1["tasks"].clone();
    let waiting: Vec<&Value> =
        tasks.as_array().unwrap().iter().filter(|task| task["waits_for_tiers_since"].is_string()).collect();
    assert!(waiting.len() == 1 && waiting[0]["partition"] == 0, "{tasks}");
    postgres.start();
    stage.scored();
    until("nothing waits", || (get(&site, "/readyz").1["waits"] == Value::Array(Vec::new())).then_some(()));

    // Everybody comes back, while Redis is still down and after it came back empty.
    let all: Vec<u64> = (0..40).collect();
    for stage in [&mut stage, &mut plain] {
        stage.pay_by(&all[..20]);
        stage.scored();
    }
    redis.start();
    for stage in [&mut stage, &mut plain] {
        stage.pay_by(&all[20..]);
        stage.scored();
    }
    assert!(brought_back(&stage) >= 36, "{}", brought_back(&stage));
    assert_eq!(verdicts(&stage), verdicts(&plain));
    stage.postgres_is_right();
}

/// Bytes of the store's files and of its keys and values, as RocksDB tells them.
fn local_bytes(stage: &Stage) -> u64 {
    let backend = stage.api().backend;
    let size = |partition| backend.size(&StorePartition { store: "profiles".into(), partition }).unwrap().bytes;
    (0..PARTITIONS).map(size).sum()
}

/// Bytes on this machine for each user where nine of ten are away: a stub with its key, and a tenth of a small profile.
const STUB_ROOM: u64 = 80;

/// Nine of ten users are idle: what stays on this machine, and whether verdicts are the same through an outage of each tier.
#[test]
#[ignore = "a measurement"]
fn figure_of_nine_idle_users_in_ten() {
    let count: u64 = std::env::var("USERS").map_or(1_000_000, |users| users.parse().unwrap());
    let (redis, postgres) = (Server::redis(), Server::postgres());
    let (mut stage, mut plain) = twins(&redis, &postgres, "600");
    for stage in [&mut stage, &mut plain] {
        // Ten payments a millisecond: all of them within the limit. Three of a user in turn, so that each profile changes about once a commit.
        stage.pay_by_many((0..3 * count).map(|number| number / 3));
        stage.let_pass(TWO_HOURS_MS);
        stage.pay_by_many(0..count / 10);
    }
    let begun = Instant::now();
    let full = (until_scored(&plain), local_bytes(&plain)).1;
    until_scored(&stage);
    let idle = count - count / 10;
    until_long("nine of ten have left", || (evicted(&stage) >= idle).then_some(()));
    let left_s = begun.elapsed().as_secs();
    // The last compaction follows the last stub. What stays is bounded by the number of users, whatever their profiles take.
    let bounded = until_long("the room is given back", || Some(local_bytes(&stage)).filter(|&bytes| bytes < count * STUB_ROOM));
    let left = evicted(&stage);
    // Nothing is decoded in memory any more.
    stage.stop();
    stage.start();
    redis.kill();
    for stage in [&mut stage, &mut plain] {
        stage.pay_by_many(count / 2..count / 2 + count / 10);
    }
    until_scored(&stage);
    postgres.kill();
    for stage in [&mut stage, &mut plain] {
        stage.pay_by_many(count / 5..count / 5 + count / 10);
    }
    until("partitions wait", || {
        stage.api().tasks.all().values().any(|task| task.waits_for_tiers_since_ms.is_some()).then_some(())
    });
    postgres.start();
    redis.start();
    until_scored(&stage);
    until_scored(&plain);
    let (with, without) = (verdicts(&stage), verdicts(&plain));
    println!(
        r#"{{"figure":"eviction","users":{count},"idle":{idle},"evicted":{},"brought_back":{},"seconds_until_all_left":{left_s},"full_bytes":{full},"bytes_after_eviction":{bounded},"verdicts":{},"verdicts_equal":{}}}"#,
        left,
        brought_back(&stage),
        with.0,
        with == without
    );
    assert_eq!(with, without);
}

fn until_scored(stage: &Stage) {
    until_long("every payment has its verdict", || stage.is_scored().then_some(()));
}

/// Patience for millions.
fn until_long<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed().as_secs() < 3_600, "not within an hour: {what}");
        std::thread::park_timeout(std::time::Duration::from_millis(500));
    }
}
