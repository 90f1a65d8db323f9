//! Queries that nobody runs the partition for: with `consistency=any` the tiers answer, and an outage never makes a user unknown (I5).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use mangrove::api::Doors;
use serde_json::Value;

use crate::place;
use crate::servers::Server;
use crate::stage::Stage;

fn get(address: SocketAddr, path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
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
    let listener = stage.wait(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let doors = Doors { tokens: Vec::new(), requests_per_second: 0, tls: None, peers_only: false };
    stage.spawn(mangrove::api::serve(Arc::new(api), listener, doors, std::future::pending()));

    let profile = "/v1/users/user%201/profile";
    let any = format!("{profile}?consistency=any");
    assert_eq!(get(address, profile).0, 503, "who wants the owner gets nobody else");
    let (status, warm) = get(address, &any);
    assert_eq!((status, &warm["source"], warm["count"].as_u64()), (200, &"redis".into(), Some(15)), "{warm}");
    assert!(warm["position"]["input_offset"].as_u64() > Some(0) && warm["age_ms"].is_u64(), "{warm}");
    let partition = warm["position"]["partition"].as_u64().unwrap();
    let (status, late) = get(address, &format!("{any}&timeout=300ms&min_position={partition}:1000000"));
    assert_eq!(status, 503, "no tier has that: {late}");
    assert_eq!(
        get(address, "/v1/users/nobody/profile?consistency=any&timeout=300ms").0,
        503,
        "only an owner knows that there is nobody"
    );
    redis.kill();
    let (status, cold) = get(address, &any);
    assert_eq!(
        (status, &cold["source"], &cold["count"], &cold["position"]),
        (200, &"postgres".into(), &warm["count"], &warm["position"])
    );
    postgres.kill();
    assert_eq!(get(address, &any).0, 503, "an outage makes nobody unknown");
}
