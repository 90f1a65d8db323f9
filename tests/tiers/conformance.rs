//! The tiers' suite on real servers, and what an outage answers.

use std::net::TcpListener;

use mangrove::tiers::{Cold, ColdOptions, ServerUrl, Unreachable, Warm, WarmOptions};
use state::tier::{Lookup, Tier, conformance};

use crate::place;

#[tokio::test]
async fn conformance_of_redis() {
    let Some(url) = place::redis("conformance_of_redis") else { return };
    conformance::suite(|| std::future::ready(place::warm(&url))).await;
}

#[tokio::test]
async fn conformance_of_postgres() {
    let Some(url) = place::postgres("conformance_of_postgres") else { return };
    conformance::suite(|| std::future::ready(place::cold(&url))).await;
}

/// An address where nothing listens, one where whoever listens says nothing, and a wrong password: no answer, and no "not found" (I5).
#[tokio::test]
async fn an_outage_is_unreachable_and_never_not_found() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    for address in ["127.0.0.1:1".to_owned(), silent] {
        let warm = Warm::open(&ServerUrl::new(format!("redis://:hunter2@{address}/0")), "app", WarmOptions::default()).unwrap();
        unreachable(warm.read(&["u"]).await);
        let url = ServerUrl::new(format!("postgres://somebody:hunter2@{address}/db"));
        let cold = Cold::open(&url, "app", &ColdOptions::default()).unwrap();
        unreachable(cold.read(&["u"]).await);
    }
}

#[tokio::test]
async fn a_wrong_password_is_unreachable_and_not_repeated() {
    let (Some(redis), Some(postgres)) = (place::redis("wrong_password"), place::postgres("wrong_password")) else { return };
    let wrong = |url: &ServerUrl| ServerUrl::new(url.expose().replace(&url.password().unwrap(), "hunter2"));
    unreachable(place::warm(&wrong(&redis)).read(&["u"]).await);
    unreachable(place::cold(&wrong(&postgres)).read(&["u"]).await);
    let shown = format!("{redis} {redis:?} {:?} {postgres} {postgres:?} {:?}", place::warm(&redis), place::cold(&postgres));
    for url in [redis, postgres] {
        assert!(!shown.contains(&url.password().unwrap()), "{shown}");
    }
}

#[track_caller]
fn unreachable(answer: Result<Vec<Lookup>, Unreachable>) {
    let why = answer.expect_err("an outage has no answer").to_string();
    assert!(why.contains("127.0.0.1"), "it says where: {why}");
    assert!(!why.contains("hunter2"), "and no password: {why}");
}
