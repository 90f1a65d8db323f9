//! Attempts at real servers of the tests' own: HTTP and SMTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::notify::entry::State;
use crate::notify::message::Message;
use crate::notify::policy::tests::verdict;
use models::Severity;

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A request as it came.
struct Seen {
    headers: hyper::HeaderMap,
    body: Vec<u8>,
}

fn request(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let mut headers = hyper::HeaderMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        let name: hyper::header::HeaderName = name.parse().expect("a name");
        headers.insert(name, value.parse().expect("a value"));
    }
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    Some(Seen { headers, body })
}

/// A server that gives each request to the test and answers as `answer` does. Returns its port.
fn server(answer: impl Fn(&mut TcpStream) + Send + 'static) -> (u16, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (tell, seen) = sync_channel(1_000);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Some(request) = request(&stream) else { continue };
            if tell.send(request).is_err() {
                break;
            }
            answer(&mut stream);
        }
    });
    (port, seen)
}

fn says(answer: &'static str) -> impl Fn(&mut TcpStream) + Send + 'static {
    // The client may have seen enough before all is written.
    move |stream| drop(stream.write_all(answer.as_bytes()))
}

fn sender(target: &str, allow_private: bool) -> Sender {
    let json = format!(r#"{{"targets": [{target}]}}"#);
    // Read as where private ones are allowed: refused at the attempt is what is tested.
    let targets = Targets::parse(json.as_bytes(), true).expect("a target");
    Sender { patience: Duration::from_secs(60), ..Sender::new(targets, "http://dash", allow_private) }
}

fn webhook(host: &str, port: u16) -> String {
    format!(r#"{{"name": "ops", "kind": "webhook", "url": "http://{host}:{port}/hook", "secrets": ["{NEW}", "{OLD}"]}}"#)
}

fn delivery() -> Delivery {
    let message = Message::new(&verdict(7, "carla", Severity::Critical), false);
    let id = message.id_for("ops");
    Delivery { id, target: "ops".into(), state: State::Pending, made_ms: 0, next_ms: 0, attempts: 0, trouble: None, message }
}

async fn attempt(sender: &Sender) -> Answer {
    sender.attempt(&delivery(), crate::clock::now_ms()).await
}

/// What comes of an answer.
async fn outcome_of(answer: &'static str) -> Outcome {
    let (port, _seen) = server(says(answer));
    attempt(&sender(&webhook("127.0.0.1", port), true)).await.outcome
}

fn why(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed { why, .. } => why,
        other => panic!("it did not fail: {other:?}"),
    }
}

#[tokio::test]
async fn a_webhook_is_signed_by_each_secret_as_the_specification_has_it() {
    let (port, seen) = server(says("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok"));
    let answer = attempt(&sender(&webhook("localhost", port), true)).await;
    assert_eq!((answer.outcome, answer.said.as_str()), (Outcome::Arrived, "202 ok"));
    let seen = seen.recv().expect("a request");
    for secret in [NEW, OLD] {
        let verifier = standardwebhooks::Webhook::new(secret).expect("a secret");
        verifier.verify(&seen.body, &seen.headers).expect("the signature is right");
    }
    let stranger = standardwebhooks::Webhook::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").expect("a secret");
    assert!(stranger.verify(&seen.body, &seen.headers).is_err());
    assert_eq!(seen.headers["webhook-id"], delivery().id.as_str());
    let body: serde_json::Value = serde_json::from_slice(&seen.body).expect("JSON");
    assert_eq!(body["type"], "mangrove.anomalies");
    assert_eq!(body["timestamp"], "1970-01-01T00:00:00Z");
    assert_eq!(body["data"]["verdict_id"], "transactions:0:7");
    assert_eq!(body["data"]["link"], "http://dash/#/verdict/transactions:0:7");
    assert_eq!((&body["data"]["count"], &body["data"]["severity"]), (&1.into(), &"CRITICAL".into()));
    assert!(!String::from_utf8_lossy(&seen.body).contains("carla"), "the user is nobody's business");
}

#[tokio::test]
async fn answers_mean_what_the_specification_says() {
    assert_eq!(outcome_of("HTTP/1.1 204 No Content\r\n\r\n").await, Outcome::Arrived);
    assert_eq!(
        outcome_of("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n").await,
        Outcome::Gone { why: "it answered 410".into() }
    );
    let slow_down = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 90\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(outcome_of(slow_down).await, Outcome::Failed { why: "it answered 429".into(), pause_ms: Some(90_000) });
    for broken in
        ["HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "hello\r\n\r\n", ""]
    {
        why(outcome_of(broken).await);
    }
}

#[test]
fn a_pause_is_asked_for_in_seconds_or_by_a_date() {
    assert_eq!(pause_ms(" 120 ", 0), Some(120_000));
    assert_eq!(pause_ms("Wed, 21 Oct 2015 07:28:00 GMT", 1_445_412_480_000 - 5_000), Some(5_000));
    assert_eq!(pause_ms("Wed, 21 Oct 2015 07:28:00 GMT", 1_700_000_000_000), Some(0));
    assert_eq!((pause_ms("soon", 0), pause_ms("-1", 0)), (None, None));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (elsewhere, visited) = server(says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let (port, _seen) = server(move |stream| {
        let answer = format!("HTTP/1.1 307 Over there\r\nLocation: http://127.0.0.1:{elsewhere}/\r\nContent-Length: 0\r\n\r\n");
        drop(stream.write_all(answer.as_bytes()));
    });
    let failed = why(attempt(&sender(&webhook("127.0.0.1", port), true)).await.outcome);
    assert_eq!(failed, "it answered 307: redirects are not followed");
    assert!(visited.try_recv().is_err(), "nobody went there");
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut_and_one_that_never_comes_is_not_waited_for() {
    let (port, _seen) = server(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(4096)).as_bytes()).is_ok() {}
    });
    let answer = attempt(&sender(&webhook("127.0.0.1", port), true)).await;
    assert_eq!((answer.outcome, answer.said.len()), (Outcome::Arrived, "200 ".len() + ANSWER_MAX));

    let (keep, held) = sync_channel(1_000);
    let (port, _seen) = server(move |stream| drop(keep.send(stream.try_clone().expect("a second handle"))));
    let impatient = Sender { patience: Duration::from_millis(300), ..sender(&webhook("127.0.0.1", port), true) };
    assert_eq!(why(attempt(&impatient).await.outcome), "no answer within 300 ms");
    drop(held);
}

#[tokio::test]
async fn a_private_target_is_not_even_connected_to() {
    let (port, seen) = server(says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    for host in ["127.0.0.1", "localhost", "2130706433", "[::1]"] {
        let failed = why(attempt(&sender(&webhook(host, port), false)).await.outcome);
        assert!(failed.contains("not public"), "{failed}");
    }
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn a_failure_says_why_without_the_url() {
    // Nobody listens at the first port.
    let slack = r#"{"name": "ops", "kind": "slack", "url": "http://127.0.0.1:1/services/hush-hush"}"#;
    let failed = why(attempt(&sender(slack, true)).await.outcome);
    assert!(failed.contains("refused") && !failed.contains("hush"), "{failed}");
}

/// A mail server that takes one message, or answers RCPT with a refusal. Gives the lines it got.
fn mail_server(refuses: bool) -> (u16, Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (tell, told) = sync_channel(1_000);
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let reader = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).expect("said");
        let (mut lines, mut data) = (Vec::new(), false);
        say("220 sink");
        for line in reader.lines().map_while(Result::ok) {
            match line.get(..4).unwrap_or_default() {
                _ if data && line == "." => {
                    data = false;
                    say("250 queued as 17");
                }
                _ if data => {}
                "EHLO" => say("250 sink"),
                "RCPT" if refuses => say("550 no such mailbox"),
                "DATA" => {
                    data = true;
                    say("354 go on");
                }
                "QUIT" => {
                    say("221 bye");
                    lines.push(line);
                    break;
                }
                _ => say("250 ok"),
            }
            lines.push(line);
        }
        // A test that only looks at the outcome has no ears for this.
        let _ = tell.send(lines);
    });
    (port, told)
}

fn email(port: u16) -> String {
    format!(
        r#"{{"name": "ops", "kind": "email", "host": "127.0.0.1", "port": {port}, "tls": "none",
            "from": "Mangrove <m@example.com>", "to": ["fraud@example.com", "night@example.com"]}}"#
    )
}

#[tokio::test]
async fn an_email_arrives_at_its_server() {
    let (port, told) = mail_server(false);
    let sender = sender(&email(port), true);
    let answer = attempt(&sender).await;
    assert_eq!((answer.outcome, answer.said.as_str()), (Outcome::Arrived, "queued as 17"));
    drop(sender);
    let lines = told.recv().expect("a dialogue");
    for expected in [
        "MAIL FROM:<m@example.com>",
        "RCPT TO:<fraud@example.com>",
        "RCPT TO:<night@example.com>",
        "Subject: [Mangrove] Critical anomaly",
        &format!("Message-ID: <{}@example.com>", delivery().id),
        "http://dash/#/verdict/transactions:0:7",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected}: {lines:#?}");
    }
}

#[tokio::test]
async fn an_email_that_is_refused_or_may_not_go_there_says_so() {
    let (port, _told) = mail_server(true);
    let failed = why(attempt(&sender(&email(port), true)).await.outcome);
    assert!(failed.contains("550") || failed.contains("no such mailbox"), "{failed}");
    let failed = why(attempt(&sender(&email(port), false)).await.outcome);
    assert!(failed.contains("not public"), "{failed}");
}
