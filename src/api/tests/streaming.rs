//! Verdicts as they come, and the latest ones.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::world::{NOW_MS, World};
use crate::clock::{monotonic, since};
use crate::scoring::ScoringParams;

/// A reader of the stream.
struct Listener {
    lines: BufReader<TcpStream>,
}

/// An event: its name, its id and its data.
type Heard = (String, Option<String>, Value);

impl Listener {
    fn open(world: &World, query: &str, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(world.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        let last = last.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        // In 1.0 nothing is chunked: what comes are the events alone.
        write!(stream, "GET /v1/stream/verdicts{query} HTTP/1.0\r\nHost: localhost\r\n{last}\r\n").expect("sent");
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).expect("a head") > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.0 200") && head.contains("text/event-stream"), "{head}");
        Self { lines }
    }

    /// The next verdict: what was missed comes before the event `place`, what is new behind it.
    fn verdict(&mut self) -> Value {
        loop {
            if let (event, _, data) = self.next()
                && event == "verdict"
            {
                return data;
            }
        }
    }

    fn next(&mut self) -> Heard {
        let (mut event, mut id, mut data) = (None, None, None);
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).expect("a line in time") > 0, "the stream ended");
            match line.trim_end().split_once(": ") {
                Some(("event", name)) => event = Some(name.to_owned()),
                Some(("id", place)) => id = Some(place.to_owned()),
                Some(("data", json)) => data = Some(serde_json::from_str(json).expect("JSON")),
                _ if data.is_some() => return (event.expect("a name"), id, data.expect("data")),
                _ => {}
            }
        }
    }
}

fn pay(world: &mut World, user: &str, tx: &str) {
    let json = format!(r#"{{"tx_id":"{tx}","user_id":"{user}","amount":5.0,"merchant":"m","timestamp":{NOW_MS}}}"#);
    world.pay(user, &json, NOW_MS);
    world.run();
}

#[test]
fn verdicts_come_with_a_place_to_come_back_to() {
    let mut world = World::running(ScoringParams::default());
    pay(&mut world, "u", "before");
    let mut listener = Listener::open(&world, "?user=u", None);
    let (event, begin, _) = listener.next();
    assert_eq!(event, "place");
    pay(&mut world, "v", "of another user");
    pay(&mut world, "u", "first");
    let (event, place, verdict) = listener.next();
    assert_eq!((event.as_str(), &verdict["tx_id"]), ("verdict", &Value::from("first")));
    drop(listener);
    pay(&mut world, "u", "second");

    // Who comes back is given what it has not seen, and then what comes.
    let mut again = Listener::open(&world, "?user=u", place.as_deref());
    assert_eq!(again.verdict()["tx_id"], "second");
    pay(&mut world, "u", "third");
    assert_eq!(again.verdict()["tx_id"], "third");
    let mut whole = Listener::open(&world, "?user=u", begin.as_deref());
    let seen: Vec<Value> = (0..3).map(|_| whole.verdict()["tx_id"].clone()).collect();
    assert_eq!(seen, ["first", "second", "third"]);
}

#[test]
fn a_wish_that_cannot_be_read_is_refused() {
    let world = World::running(ScoringParams::default());
    for query in ["severity=worst", "min_score=2", "min_score=x", "figures=1", "colour=red", "user=a&user=b"] {
        world.get(&format!("/v1/stream/verdicts?{query}")).problem(400, "invalid-parameter");
    }
    for query in ["limit=0", "limit=1001", "limit=x", "figures=true"] {
        world.get(&format!("/v1/recent/verdicts?{query}")).problem(400, "invalid-parameter");
    }
    let got = world.client().send("GET", "/v1/stream/verdicts", &["Last-Event-ID: yesterday"], b"");
    got.problem(400, "invalid-parameter");
}

#[test]
fn streams_end_with_the_server() {
    let mut world = World::running(ScoringParams::default());
    let mut listener = Listener::open(&world, "", None);
    assert_eq!(listener.next().0, "place");
    world.tell_to_stop();
    let mut rest = Vec::new();
    listener.lines.read_to_end(&mut rest).expect("an end");
    world.wait_for_the_end();
}

#[test]
fn the_latest_verdicts_are_found_by_user_and_id() {
    let mut world = World::running(ScoringParams::default());
    for tx in ["one", "two"] {
        pay(&mut world, "u", tx);
    }
    pay(&mut world, "v", "three");
    let txs = |path: &str| {
        let body = world.get(path).json();
        let all = body["verdicts"].as_array().expect("a list").iter();
        all.map(|one| one["verdict"]["tx_id"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(txs("/v1/recent/verdicts?user=u"), ["two", "one"], "the newest first");
    assert_eq!(txs("/v1/recent/verdicts?user=u&limit=1"), ["two"]);
    assert_eq!(txs("/v1/recent/verdicts").len(), 3);
    assert_eq!(txs("/v1/recent/verdicts?severity=low"), [""; 0]);

    let wanted = world.get("/v1/recent/verdicts?user=u&limit=1").json()["verdicts"][0].clone();
    let id = wanted["verdict"]["id"].as_str().expect("an id");
    let found = world.get(&format!("/v1/recent/verdicts/{id}")).json();
    assert_eq!(
        (&found["verdict"], &found["partition"], &found["offset"]),
        (&wanted["verdict"], &wanted["partition"], &wanted["offset"])
    );
    assert_eq!(found["contributions"], Value::Null, "no model judged it");
    for unknown in ["transactions:0:99", "transactions:99:0", "nonsense"] {
        world.get(&format!("/v1/recent/verdicts/{unknown}")).problem(404, "no-such-verdict");
    }
}

#[test]
fn what_each_feature_did_is_told_while_its_model_scores() {
    let mut world = World::running(ScoringParams::default());
    for at in 0..40 {
        pay(&mut world, &format!("u{}", at % 4), &format!("t{at}"));
    }
    let model = world.train();
    world.model.set(Some(model.clone()));
    pay(&mut world, "u1", "scored");
    let id = world.get("/v1/recent/verdicts?user=u1&limit=1").json()["verdicts"][0]["verdict"]["id"].clone();
    let path = format!("/v1/recent/verdicts/{}", id.as_str().expect("an id"));
    let found = world.get(&path).json();
    assert_eq!(found["verdict"]["model_id"], model.id);
    let steps = found["contributions"].as_array().expect("a list");
    assert_eq!(steps.len(), models::FEATURES);
    for reason in found["verdict"]["reasons"].as_array().expect("a list") {
        let same = steps.iter().find(|step| step["feature"] == reason["feature"]).expect("the reason's feature");
        assert_eq!(same["contribution"], reason["contribution"]);
    }
    world.model.set(None);
    assert_eq!(world.get(&path).json()["contributions"], Value::Null);
}

#[test]
fn the_dashboard_is_served_under_a_strict_policy() {
    let world = World::running(ScoringParams::default());
    let page = world.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';") && !policy.contains("unsafe"),
        "{policy}"
    );
    let script = world.get("/assets/main.js");
    assert_eq!((script.status, script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    world.get("/assets/other.js").problem(404, "no-such-route");
}

#[test]
fn dead_letters_are_counted_and_sent_back_once() {
    let mut world = World::running(ScoringParams::default());
    world.pay("u", r#"{"user_id":"u","amount":-5,"merchant":"m"}"#, NOW_MS);
    world.run();
    let letters = world.get("/v1/dead-letters").json();
    assert_eq!((&letters["letters"]["letters"], &letters["letters"]["matching"]), (&1.into(), &1.into()), "{letters}");
    assert_eq!(letters["letters"]["groups"][0]["topic"], "transactions");
    assert_eq!(letters["redrive"]["running"], false);
    let begun = world.client().post("/v1/dead-letters/redrive", b"");
    assert_eq!(begun.status, 202, "{}", begun.text());
    let began = monotonic();
    let done = loop {
        let told = world.get("/v1/dead-letters").json();
        if told["redrive"]["running"] == false {
            break told;
        }
        assert!(since(began) < Duration::from_secs(20), "it does not end");
        std::thread::park_timeout(Duration::from_millis(5));
    };
    assert_eq!(done["redrive"]["last"]["redriven"], 1, "{done}");
    assert_eq!(done["letters"]["skipped"]["already"], 1, "it is not sent twice: {done}");
    // It fails again: a letter that was redriven once.
    world.run();
    assert_eq!(world.get("/v1/dead-letters").json()["letters"]["again"], 1);
}
