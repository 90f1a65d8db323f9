//! Queries that nobody runs the partition for: with `consistency=any` the tiers answer, and an outage never makes a user unknown (I5).

use std::sync::Arc;

use serde_json::Value;

use crate::eviction::answered;
use crate::place;
use crate::servers::Server;
use crate::site::Site;
use crate::stage::Stage;

fn get(site: &Site, path: &str) -> (u16, Value) {
    let got = site.ask(path, "");
    (got.status, serde_json::from_str(&got.body).unwrap())
}

#[test]
fn tiers_answer_where_nobody_runs_the_partition() {
    if place::redis("tiers_answer").is_none() || place::postgres("tiers_answer").is_none() {
        return;
    }
    let (redis, postgres) = (Server::redis(), Server::postgres());
    let mut stage = Stage::new(Some(&redis.url), Some(&postgres.url));
    stage.pay(300, 20);
    stage.scored();
    stage.redis_is_right();
    stage.postgres_is_right();
    // The same instance, as if the group had given its partitions to nobody yet.
    let mut api = stage.api();
    api.tasks = Arc::default();
    let site = Site::of(api);

    let profile = "/v1/users/user%201/profile";
    let any = format!("{profile}?consistency=any");
    assert_eq!(get(&site, profile).0, 503, "who wants the owner gets nobody else");
    let warm = answered(&site, &any, "redis");
    assert_eq!(warm["count"].as_u64(), Some(15), "{warm}");
    assert!(warm["position"]["input_offset"].as_u64() > Some(0) && warm["age_ms"].is_u64(), "{warm}");
    let partition = warm["position"]["partition"].as_u64().unwrap();
    let (status, late) = get(&site, &format!("{any}&timeout=300ms&min_position={partition}:1000000"));
    assert_eq!(status, 503, "no tier has that: {late}");
    assert_eq!(
        get(&site, "/v1/users/nobody/profile?consistency=any&timeout=300ms").0,
        503,
        "only an owner knows that there is nobody"
    );
    redis.kill();
    let cold = answered(&site, &any, "postgres");
    assert_eq!((&cold["count"], &cold["position"]), (&warm["count"], &warm["position"]));
    postgres.kill();
    assert_eq!(get(&site, &any).0, 503, "an outage makes nobody unknown");
}
