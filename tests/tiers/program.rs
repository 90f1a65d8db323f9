//! The program itself, on a real Kafka with both tiers of the test's own: kill -9 and outages at once; nothing is lost, nothing doubled,
//! and no password is in a log.

use std::collections::BTreeMap;

use mangrove::scoring::UserProfile;
use mangrove::tiers::{Cold, ColdOptions, Warm, WarmOptions};
use state::store::decode_kept;
use state::tier::{Lookup, Tier};

use crate::common::feed::Feed;
use crate::common::ledger::Ledger;
use crate::common::scene::{PARTITIONS, Scene};
use crate::common::until;
use crate::place;
use crate::servers::Server;

const PAYMENTS: usize = 6_000;

#[test]
fn the_program_loses_nothing_through_kills_and_outages() {
    let Some(scene) = Scene::new("tiers") else { return };
    if place::redis("the_program_loses_nothing").is_none() || place::postgres("the_program_loses_nothing").is_none() {
        return;
    }
    let (redis, postgres) = (Server::redis(), Server::postgres());
    let scene = scene.with("REDIS_URL", redis.url.expose()).with("DATABASE_URL", postgres.url.expose());
    let scene = scene.with("MEMORY_LIMIT", "384MiB").with("LOG", "debug");
    let ledger = Ledger::made(&scene.path("payments.csv"), PAYMENTS);
    scene.create("transactions", PARTITIONS, &[]);
    let mut logs = Vec::new();
    let mut service = scene.start("a");
    service.restored(PARTITIONS as usize);
    let mut feed = Feed::new(&scene, &ledger.payments);
    feed.reach(PAYMENTS / 4);
    service.says("that a tier answers", |line| (line["message"] == "the tier answers").then_some(()));
    logs.push(service.log().to_owned());
    service.kill();
    postgres.kill();
    redis.kill();
    service = scene.start("a");
    logs.push(service.log().to_owned());
    service.restored(PARTITIONS as usize);
    feed.reach(PAYMENTS / 2);
    service.says("that the projection rests", |line| line["message"].as_str()?.contains("the projection rests").then_some(()));
    until("ready, although both tiers are down", || (service.get("/readyz").0 == 200).then_some(()));
    let up = |text: &str, tier: &str| text.contains(&format!("mangrove_tier_up{{tier=\"{tier}\"}} 1"));
    let metrics = service.get("/metrics").1;
    assert!(!up(&metrics, "redis") && !up(&metrics, "postgres"), "{metrics}");
    postgres.start();
    redis.start();
    feed.finish(PAYMENTS);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let expected = scene.profiles();
    assert_eq!(expected, ledger.profiles());
    let warm = Warm::open(&redis.url, &scene.group(), WarmOptions::default()).unwrap();
    let cold = Cold::open(&postgres.url, &scene.group(), &ColdOptions::default()).unwrap();
    until("Redis holds every profile", || (runtime.block_on(profiles(&warm, &expected))? == expected).then_some(()));
    until("Postgres holds every profile", || (runtime.block_on(profiles(&cold, &expected))? == expected).then_some(()));
    let count = "SELECT count(*), count(DISTINCT id) FROM verdicts";
    until("Postgres holds every verdict once", || {
        let client = runtime.block_on(cold.get()).ok()?;
        let row = runtime.block_on(client.query_one(count, &[])).ok()?;
        ((row.get::<_, i64>(0), row.get::<_, i64>(1)) == (PAYMENTS as i64, PAYMENTS as i64)).then_some(())
    });
    until("metrics say that nothing is behind", || {
        let metrics = service.get("/metrics").1;
        let lags = metrics.lines().filter(|line| line.starts_with("mangrove_projection_lag_records{"));
        let behind = lags.clone().filter(|line| !line.ends_with(" 0")).count();
        (up(&metrics, "redis") && up(&metrics, "postgres") && lags.count() > 0 && behind == 0).then_some(())
    });
    service.stop();
    for log in logs {
        let text = std::fs::read_to_string(&log).unwrap();
        for secret in [redis.url.password().unwrap(), postgres.url.password().unwrap()] {
            assert!(!text.contains(&secret), "{} holds a password", log.display());
        }
        assert!(!text.contains("\"user-"), "nor a user");
    }
}

async fn profiles(tier: &impl Tier, of: &BTreeMap<Vec<u8>, UserProfile>) -> Option<BTreeMap<Vec<u8>, UserProfile>> {
    let users: Vec<&str> = of.keys().map(|user| std::str::from_utf8(user).unwrap()).collect();
    let found = tier.read(&users).await.ok()?;
    let profile = |(user, lookup): (&&str, Lookup)| match lookup {
        Lookup::Found(held) => Some((user.as_bytes().to_vec(), decode_kept(&held.value).unwrap().1)),
        _ => None,
    };
    users.iter().zip(found).map(profile).collect()
}
