//! The projection end to end: an instance scores payments, and the tiers come to what the topics say, through faults of either tier.

use mangrove::tiers::ServerUrl;
use state::tier::{Lookup, Tier as _};

use crate::place;
use crate::servers::Server;
use crate::stage::{Stage, until};

/// Both servers' URLs, where both are there.
fn both(test: &str) -> Option<(ServerUrl, ServerUrl)> {
    Some((place::redis(test)?, place::postgres(test)?))
}

#[test]
fn tiers_come_to_the_fold_of_the_topics() {
    let Some((redis, postgres)) = both("tiers_come_to_the_fold_of_the_topics") else { return };
    let mut stage = Stage::new(Some(&redis), Some(&postgres));
    stage.pay(3_000, 200);
    stage.scored();
    let label = |id: &str| format!(r#"{{"verdict_id":"{id}","label":"fraud","by":"ann","reason":"she called"}}"#);
    stage.say("labels", &[("user 1", &label("transactions:0:1")), ("user 2", "not a label")]);
    stage.say("commands", &[("user 7", r#"{"kind":"erase","user_id":"user 7"}"#)]);
    until("the erasure is in the changelog", || matches!(stage.profiles()["user 7"], Lookup::Deleted(_)).then_some(()));
    stage.redis_is_right();
    stage.postgres_is_right();
    until("the label is there and what is none was counted", || {
        let labels = stage
            .dump()
            .iter()
            .filter(|row| row.contains("transactions:0:1,") && row.contains("fraud,ann") && row.contains("she called"))
            .count();
        (labels == 1 && stage.tier("postgres").unreadable == 1).then_some(())
    });
    until("nothing is behind", || {
        let tiers = ["redis", "postgres"].map(|name| stage.tier(name));
        tiers.iter().all(|tier| tier.up && tier.lag_records() == 0).then_some(())
    });
    // Redis has the profile for people beside the bytes.
    let client = redis::Client::open(redis.expose()).unwrap();
    let key = format!("{{{}}}:profile:user 1", stage.application);
    let json: String = redis::cmd("HGET").arg(key).arg("j").query(&mut client.get_connection().unwrap()).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&shown["user_id"], shown["count"].as_u64()), (&"user 1".into(), Some(15)), "{json}");
}

/// Whatever was written is written again: no row is another, none is there twice.
#[test]
fn a_replay_ends_in_the_same_rows() {
    let Some((redis, postgres)) = both("a_replay_ends_in_the_same_rows") else { return };
    let mut stage = Stage::new(Some(&redis), Some(&postgres));
    stage.pay(2_000, 100);
    stage.scored();
    stage.redis_is_right();
    stage.postgres_is_right();
    stage.projected();
    let before = stage.dump();
    stage.stop();
    stage.sql("DELETE FROM projection");
    let written = |stage: &Stage| stage.tier("postgres").written;
    stage.start();
    until("everything was written again", || {
        (written(&stage) as usize >= stage.records(stage.topic("verdicts")).len()).then_some(())
    });
    stage.postgres_is_right();
    until("the same rows", || (stage.dump() == before).then_some(()));
}

/// Three write at once, each everything, as zombies do.
#[test]
fn two_projectors_of_the_same_partitions_end_in_the_same_rows() {
    let Some((redis, postgres)) = both("two_projectors_of_the_same_partitions") else { return };
    let mut stage = Stage::new(Some(&redis), Some(&postgres));
    // Two more, each in a group of its own, so that all three have all partitions.
    let rivals: Vec<_> = ["rival-1", "rival-2"].map(|name| crate::rival::Rival::start(&stage, &redis, &postgres, name)).into();
    for _ in 0..5 {
        stage.pay(600, 60);
        stage.scored();
    }
    stage.redis_is_right();
    stage.postgres_is_right();
    for rival in rivals {
        rival.stop();
    }
}

#[test]
fn redis_that_was_restarted_empty_is_filled_again() {
    if place::redis("redis_that_was_restarted_empty").is_none() {
        return;
    }
    let server = Server::redis();
    let mut stage = Stage::new(Some(&server.url), None);
    stage.pay(1_000, 100);
    stage.scored();
    stage.redis_is_right();
    server.kill();
    stage.pay(500, 100);
    stage.scored();
    assert!(stage.wait(stage.warm().read(&["user 1"])).is_err(), "down is not empty");
    server.start();
    stage.redis_is_right();
    // Emptied while it runs, with nothing new to write.
    let client = redis::Client::open(server.url.expose()).unwrap();
    redis::cmd("FLUSHALL").query::<()>(&mut client.get_connection().unwrap()).unwrap();
    stage.redis_is_right();
}

#[test]
fn postgres_that_was_killed_misses_nothing() {
    if place::postgres("postgres_that_was_killed").is_none() {
        return;
    }
    let server = Server::postgres();
    let mut stage = Stage::new(None, Some(&server.url));
    for round in 0..3 {
        until(&format!("round {round}: the projection works"), || stage.tier("postgres").up.then_some(()));
        stage.pay(1_000, 100);
        let before = stage.tier("postgres").failures;
        server.kill();
        stage.scored();
        until(&format!("round {round}: the projection has noticed"), || {
            let tier = stage.tier("postgres");
            (tier.failures > before && !tier.up).then_some(())
        });
        stage.pay(300, 100);
        server.start();
    }
    stage.scored();
    stage.postgres_is_right();
}

#[test]
fn postgres_that_takes_no_writes_for_a_while_misses_nothing() {
    if place::postgres("postgres_that_takes_no_writes").is_none() {
        return;
    }
    let server = Server::postgres();
    let mut stage = Stage::new(None, Some(&server.url));
    stage.pay(500, 50);
    stage.scored();
    stage.postgres_is_right();
    // As after a fail-over to a server that still follows.
    server.stop();
    server.start_with("POSTGRES_FLAGS", "-c default_transaction_read_only=on");
    stage.pay(500, 50);
    stage.scored();
    // After what it says of a server that ends and begins.
    until("it is refused as read-only", || stage.tier("postgres").trouble.filter(|why| why.contains("read-only")));
    server.stop();
    server.start();
    stage.postgres_is_right();
}

#[test]
fn postgres_without_a_free_connection_misses_nothing() {
    if place::postgres("postgres_without_a_free_connection").is_none() {
        return;
    }
    let server = Server::postgres();
    server.stop();
    server.start_with("POSTGRES_FLAGS", "-c max_connections=5 -c superuser_reserved_connections=0");
    let url = tokio_postgres::Config::from_url(&server.url);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let held: Vec<_> = runtime.block_on(async {
        let mut held = Vec::new();
        while let Ok((client, connection)) = url.connect(tokio_postgres::NoTls).await {
            tokio::spawn(connection);
            held.push(client);
        }
        held
    });
    assert!(!held.is_empty(), "others have all connections");
    let mut stage = Stage::new(None, Some(&server.url));
    stage.pay(500, 50);
    stage.scored();
    until("the projection says why", || stage.tier("postgres").trouble.filter(|why| why.contains("53300")));
    drop(held);
    stage.postgres_is_right();
}

/// Both down at once, under load, and back one after the other: each catches up by itself.
#[test]
fn both_down_under_load_miss_nothing() {
    if both("both_down_under_load").is_none() {
        return;
    }
    let (redis, postgres) = (Server::redis(), Server::postgres());
    let mut stage = Stage::new(Some(&redis.url), Some(&postgres.url));
    stage.pay(1_000, 100);
    redis.kill();
    postgres.kill();
    for _ in 0..10 {
        stage.pay(500, 100);
        stage.scored();
    }
    until("both are found to be down", || (!stage.tier("redis").up && !stage.tier("postgres").up).then_some(()));
    redis.start();
    stage.redis_is_right();
    assert!(!stage.tier("postgres").up, "one that is down does not hold up the other");
    postgres.start();
    stage.postgres_is_right();
}

trait FromUrl {
    fn from_url(url: &ServerUrl) -> Self;
}

impl FromUrl for tokio_postgres::Config {
    fn from_url(url: &ServerUrl) -> Self {
        url.expose().parse().unwrap()
    }
}
