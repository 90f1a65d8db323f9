//! Answers about users whose partition is elsewhere: every instance here is a real server.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use topology::partitioner::partition_of;

use super::access::token;
use super::client::{Client, Got};
use super::world::{NOW_MS, SESSION_MS, World};
use crate::config::{ApiToken, Scope};
use crate::membership::{Directory, Peer};
use crate::scoring::ScoringParams;

const PARTITIONS: u32 = 4;
/// Where nobody listens.
pub(super) const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
/// A user who pays, and one who never does, of the same partition or not.
const USER: &str = "u1";
const INFERENCE: &[u8] = br#"{"user_id":"u1","transaction":{"amount":3,"merchant":"m","timestamp":1699999999000}}"#;

/// What everybody knows of everybody, written by the test.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<Mutex<Vec<Peer>>>);

pub(super) struct Seat {
    me: &'static str,
    board: Board,
}

impl Board {
    pub(super) fn seat(&self, me: &'static str) -> Arc<dyn Directory> {
        Arc::new(Seat { me, board: self.clone() })
    }

    pub(super) fn put(&self, instance: &str, endpoint: SocketAddr, active: &[u32], standby: &[(u32, u64)]) {
        let mut peers = self.0.lock().expect("nobody panicked");
        peers.retain(|peer| peer.instance != instance);
        peers.push(Peer {
            instance: instance.to_owned(),
            endpoint: endpoint.to_string(),
            active: active.to_vec(),
            standby: standby.to_vec(),
            heard_ms: 0,
        });
    }
}

impl Directory for Seat {
    fn me(&self) -> String {
        self.me.to_owned()
    }

    fn owner(&self, partition: u32) -> Option<Peer> {
        self.members().into_iter().find(|peer| peer.active.contains(&partition))
    }

    fn standbys(&self, partition: u32) -> Vec<Peer> {
        self.members().into_iter().filter(|peer| peer.standby.iter().any(|(of, _)| *of == partition)).collect()
    }

    fn members(&self) -> Vec<Peer> {
        self.board.0.lock().expect("nobody panicked").clone()
    }
}

fn at(board: &Board, me: &'static str, tokens: Vec<ApiToken>) -> World {
    World::knowing(board.seat(me), ScoringParams::default(), tokens)
}

const ALL: [u32; 4] = [0, 1, 2, 3];

/// `one` runs everything, with ten payments of the user; `two` has nothing.
fn pair() -> (Board, World, World) {
    let board = Board::default();
    let (mut one, two) = (at(&board, "one", Vec::new()), at(&board, "two", Vec::new()));
    one.run();
    one.health.started();
    pay(&mut one, 10);
    board.put("one", one.address, &ALL, &[]);
    board.put("two", two.address, &[], &[]);
    (board, one, two)
}

fn pay(world: &mut World, count: usize) {
    for i in 0..count {
        world.pay(USER, &format!(r#"{{"user_id":"{USER}","amount":{i},"merchant":"m"}}"#), NOW_MS - 1_000);
    }
    world.run();
}

fn partition() -> u32 {
    partition_of(USER.as_bytes(), PARTITIONS)
}

fn profile(query: &str) -> String {
    format!("/v1/users/{USER}/profile{query}")
}

/// An answer without what differs from request to request.
fn body(got: &Got) -> Value {
    assert_eq!(got.status, 200, "{}", got.text());
    let mut body = got.json();
    for volatile in ["id", "tx_id", "source"] {
        body.as_object_mut().expect("an object").remove(volatile);
    }
    body
}

fn hops(world: &World, route: &str) -> f64 {
    let text = world.get("/metrics").text().to_owned();
    let prefix = format!("mangrove_http_request_duration_seconds_count{{route=\"{route}\"");
    let counts =
        text.lines().filter(|line| line.starts_with(&prefix)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    counts.sum()
}

#[test]
fn any_instance_gives_the_owners_answer() {
    let (_board, one, two) = pair();
    let (here, there) = (one.get(&profile("")), two.get(&profile("")));
    assert_eq!((here.json()["source"].as_str(), there.json()["source"].as_str()), (Some("local"), Some("owner")));
    assert_eq!(body(&here), body(&there));
    assert_eq!(there.json()["position"]["input_offset"], 10);
    assert_eq!(there.header("content-type"), Some("application/json"));
    let (here, there) = (one.client().post("/v1/inference", INFERENCE), two.client().post("/v1/inference", INFERENCE));
    assert_eq!(there.json()["source"], "owner");
    assert_eq!(body(&here), body(&there));
    // The owner's "no such user" is one; its refusals of a request are relayed whole.
    let problem = two.get("/v1/users/nobody/profile").problem(404, "no-such-user");
    assert_eq!(problem["source"], "owner");
    let head = two.client().send("HEAD", &profile(""), &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    // What is wrong by itself goes nowhere.
    let before = hops(&one, "/v1/inference");
    two.client().post("/v1/inference", b"{}").problem(422, "invalid-request");
    two.get(&profile("?consistency=maybe")).problem(400, "invalid-parameter");
    assert_eq!(hops(&one, "/v1/inference"), before);
}

#[test]
fn one_connection_serves_many_requests() {
    let (_board, one, two) = pair();
    let mut client = two.client();
    for _ in 0..50 {
        assert_eq!(client.get(&profile("")).status, 200);
    }
    let text = one.get("/metrics").text().to_owned();
    let open = text.lines().find_map(|line| line.strip_prefix("mangrove_http_connections ")).expect("the gauge");
    // The pooled one, the one that asks, the place kept, and ours of before that the server has not seen end.
    assert!(open.parse::<u32>().expect("a number") <= 5, "{open} connections after 50 requests");
}

#[test]
fn the_callers_authorization_is_passed_on() {
    let board = Board::default();
    let reader = || token("reader", "read-secret", &[Scope::Query]);
    let other = || token("other", "other-secret", &[Scope::Query]);
    let mut one = at(&board, "one", vec![reader()]);
    let two = at(&board, "two", vec![reader(), other()]);
    one.run();
    pay(&mut one, 1);
    board.put("one", one.address, &ALL, &[]);
    let ask = |authorization: &str| two.client().send("GET", &profile(""), &[authorization], b"");
    assert_eq!(ask("Authorization: Bearer read-secret").json()["source"], "owner");
    ask("X-Nothing: 1").problem(401, "unauthorized");
    // Known here and not there: there it is decided.
    let refused = ask("Authorization: Bearer other-secret");
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").is_some_and(|challenge| challenge.contains("invalid_token")));
}

#[test]
fn a_request_is_passed_on_once_and_a_move_is_said() {
    let board = Board::default();
    let (one, two) = (at(&board, "one", Vec::new()), at(&board, "two", Vec::new()));
    let got = two.get(&profile(""));
    got.problem(503, "moving");
    assert_eq!(got.header("retry-after"), Some("1"));
    // It is said to have what it does not have.
    board.put("one", one.address, &ALL, &[]);
    let before = hops(&two, "/v1/users/{}/profile");
    let got = two.get(&profile(""));
    got.problem(503, "moving");
    assert_eq!(got.header("retry-after"), Some("1"));
    assert_eq!(hops(&one, "/v1/users/{}/profile"), 1.0, "asked once");
    assert_eq!(hops(&two, "/v1/users/{}/profile"), before + 1.0, "and not asked back");
    // One that asks itself for what it does not have says so at once.
    one.get(&profile("")).problem(503, "moving");
    let asked = one.client().send("GET", &profile(""), &["Mangrove-Hop: 1-1"], b"");
    let problem = asked.problem(503, "not-here");
    assert_eq!((asked.header("mangrove-instance"), problem["instance"].as_str()), (Some("one"), Some("1-1")));
}

#[test]
fn an_owner_that_restores_says_so() {
    let board = Board::default();
    let (mut one, two) = (at(&board, "one", Vec::new()), at(&board, "two", Vec::new()));
    one.step_into_restore();
    board.put("one", one.address, &ALL, &[]);
    let got = two.get(&profile(""));
    got.problem(503, "restoring");
    assert_eq!(got.header("retry-after"), Some("2"));
}

#[test]
fn no_answer_or_a_strangers_is_never_an_unknown_user() {
    let board = Board::default();
    let two = at(&board, "two", Vec::new());
    let refused = |endpoint: SocketAddr, timeout: &str| {
        board.put("one", endpoint, &ALL, &[]);
        for _ in 0..2 {
            let got = two.get(&profile(&format!("?timeout={timeout}")));
            got.problem(503, "owner-unreachable");
            assert_eq!(got.header("retry-after"), Some("1"));
        }
    };
    refused(NOBODY, "20s");
    // Someone takes connections and is silent.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    refused(silent.local_addr().expect("an address"), "500ms");
    // Another server has the address by now, and knows no such path; or it is one of ours, of another name.
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = stranger.local_addr().expect("an address");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = stranger.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        }
    });
    refused(address, "20s");
    let mut three = at(&board, "three", Vec::new());
    three.run();
    refused(three.address, "20s");
    let text = two.get("/metrics").text().to_owned();
    for (outcome, count) in [("answered", 0), ("unreachable", 2), ("too_late", 2), ("stranger", 4)] {
        let sample = format!("mangrove_peer_requests_total{{outcome=\"{outcome}\"}} {count}");
        assert!(text.lines().any(|line| line == sample), "no `{sample}` in\n{text}");
    }
}

#[test]
fn an_answer_waits_for_the_position_it_is_asked_for() {
    let (_board, mut one, two) = pair();
    let at_least = |offset: u64, timeout: &str| profile(&format!("?min_position={}:{offset}&timeout={timeout}", partition()));
    for world in [&one, &two] {
        assert_eq!(world.get(&at_least(10, "5s")).status, 200);
        let got = world.get(&at_least(11, "2s"));
        let problem = got.problem(503, "position-not-reached");
        assert_eq!(problem["position"]["input_offset"], 10, "{problem}");
        assert_eq!(got.header("retry-after"), Some("1"));
    }
    // Positions of other partitions are passed over.
    let other = (partition() + 1) % PARTITIONS;
    assert_eq!(one.get(&profile(&format!("?min_position={other}:99,{}:10", partition()))).status, 200);
    // Two that wait, at the owner and elsewhere, get their answer with the commit.
    let waiting = [one.address, two.address].map(|address| {
        let path = at_least(12, "20s");
        std::thread::spawn(move || Client::connect(address).get(&path))
    });
    pay(&mut one, 1);
    assert!(waiting.iter().all(|thread| !thread.is_finished()), "one payment is not enough");
    pay(&mut one, 1);
    for thread in waiting {
        let got = thread.join().expect("an answer");
        assert_eq!((got.status, got.json()["position"]["input_offset"].as_u64()), (200, Some(12)), "{}", got.text());
    }
}

#[test]
fn one_that_slept_does_not_answer_from_the_past() {
    let (board, one, mut two) = pair();
    // While it slept longer than its session lasts, the other one took over and went on.
    two.run();
    pay(&mut two, 12);
    one.clock.advance(i64::try_from(SESSION_MS).expect("small") + 1);
    // It has not even heard of that yet: nobody is better than the past.
    one.get(&profile("")).problem(503, "moving");
    board.put("one", one.address, &[], &[]);
    board.put("two", two.address, &ALL, &[]);
    let got = one.get(&profile(""));
    assert_eq!((got.json()["source"].as_str(), got.json()["count"].as_u64()), (Some("owner"), Some(12)), "{}", got.text());
    // A worker that steps is in its group, as far as anyone can tell.
    one.health.stepped(0, (NOW_MS.unsigned_abs()) + SESSION_MS + 1, true);
    assert_eq!(one.get(&profile("")).json()["source"], "local");
}

#[test]
fn a_copy_answers_who_allows_it() {
    let (board, one, two) = pair();
    let three = at(&board, "three", Vec::new());
    two.copy(&one, partition());
    board.put("two", two.address, &[], &[(partition(), 11)]);
    board.put("three", three.address, &[], &[]);
    let any = |more: &str| profile(&format!("?consistency=any&timeout=2s{more}"));
    // As long as the owner answers, it is the one who does.
    assert_eq!(two.get(&any("")).json()["source"], "owner");
    board.put("one", NOBODY, &ALL, &[]);
    let fresh = body(&one.get(&profile("")));
    for world in [&two, &three] {
        world.get(&profile("?timeout=500ms")).problem(503, "owner-unreachable");
        let got = world.get(&any(""));
        assert_eq!(got.json()["source"], "standby", "{}", got.text());
        let mut copied = body(&got);
        assert_eq!(copied["position"]["input_offset"], 10);
        assert!(copied["age_ms"].is_u64());
        copied["age_ms"] = fresh["age_ms"].clone();
        assert_eq!(copied, fresh);
        let judged = world.client().post("/v1/inference?consistency=any", INFERENCE);
        assert_eq!((judged.status, judged.json()["source"].as_str()), (200, Some("standby")), "{}", judged.text());
        // A copy that is not far enough, and one that cannot know of a user.
        let min = |offset| any(&format!("&min_position={}:{offset}", partition()));
        assert_eq!(world.get(&min(10)).status, 200);
        assert_eq!(world.get(&min(11)).status, 503);
        let stranger = (0..).map(|i| format!("s{i}")).find(|user| partition_of(user.as_bytes(), PARTITIONS) == partition());
        let path = format!("/v1/users/{}/profile?consistency=any&timeout=1s", stranger.expect("one of them"));
        let got = world.get(&path);
        assert_eq!(got.status, 503, "a copy may be older than the user: {}", got.text());
    }
    // Two keeps no copy of other partitions, though its disk may have something of them.
    two.copy(&one, (partition() + 1) % PARTITIONS);
    let elsewhere =
        (0..).map(|i| format!("e{i}")).find(|user| partition_of(user.as_bytes(), PARTITIONS) == (partition() + 1) % PARTITIONS);
    let path = format!("/v1/users/{}/profile?consistency=any&timeout=1s", elsewhere.expect("one of them"));
    two.get(&path).problem(503, "owner-unreachable");
}

#[test]
fn parameters_are_checked() {
    let (_board, one, _two) = pair();
    for query in [
        "?consistency=",
        "?consistency=strong",
        "?timeout=5",
        "?timeout=0s",
        "?timeout=31s",
        "?min_position=1",
        "?min_position=a:b",
        "?consistncy=any",
        "?timeout=1s&timeout=1s",
        "?timeout=%zz",
    ] {
        let got = one.get(&profile(query));
        got.problem(400, "invalid-parameter");
        assert!(!got.text().contains("strong") && !got.text().contains("consistncy"), "what was sent is not echoed");
    }
    assert_eq!(one.get(&profile("?min_position=0%3A0&consistency=any&timeout=250ms")).status, 200);
    assert_eq!(one.get(&profile("?")).status, 200);
}
