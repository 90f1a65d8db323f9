//! Load through the HTTP interface: `POST /v1/transactions`, lines of JSON or one payment a request.
//!
//! A user's payments all go by the same connection, one request after another, so they keep their order. What was not taken for now
//! (429, 503), and what got no answer, is sent again: the interface knows a transaction id again and does not write it twice.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use topology::broker::Broker;
use topology::partitioner::murmur2;

use super::drive::{LoadParams, Sink, drive, report};
use super::ledger::Fate;
use super::places::Places;
use super::report::Report;
use super::session::Shared;
use super::topics::watched;
use super::traffic::Event;
use crate::clock::{monotonic, since};
use crate::failure::Failure;

/// Requests that wait for their connection, each.
const WAITING: usize = 2;
/// For a request's answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Before something is sent again.
const AGAIN: Duration = Duration::from_millis(50);

/// Where to, and how.
#[derive(Clone, Debug)]
pub struct HttpTarget {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// The token to show, where one is needed; scope `write`.
    pub token: Option<String>,
    /// Whom the target's certificate must come from, PEM; none is whom the system trusts.
    pub authority: Option<PathBuf>,
    /// Connections at once.
    pub connections: usize,
    /// Payments of a request; 1 sends each alone.
    pub batch: usize,
    /// Each request waits for its payment's verdict, which the answer has; it goes with batches of 1.
    pub verdict_in_answer: bool,
}

impl HttpTarget {
    fn client(&self) -> Result<Client, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut value = value.map_err(|_| Failure::usage("the token has characters that no token has"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // An error means that one is chosen already, which serves as well.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder().default_headers(headers).timeout(ANSWER_MAX).tcp_nodelay(true);
        if let Some(authority) = &self.authority {
            let trusting = crate::tls::client_of(authority);
            let trusting = trusting.map_err(|why| Failure::new("--ca cannot be used").caused_by(why))?;
            client = client.tls_backend_preconfigured(trusting);
        }
        client.build().map_err(|why| Failure::new("the HTTP client cannot be set up").caused_by(why))
    }

    fn route(&self) -> String {
        let wait = if self.verdict_in_answer { "?wait=verdict" } else { "" };
        format!("{}/v1/transactions{wait}", self.url.trim_end_matches('/'))
    }
}

/// One payment on its way.
#[derive(Clone, Debug)]
struct Item {
    tx_id: String,
    number: u64,
    value: Vec<u8>,
}

/// What an answer says of one payment, or is where it is a verdict.
#[derive(Deserialize)]
struct Said {
    line: Option<usize>,
    status: Option<u16>,
    id: Option<String>,
    is_anomaly: Option<bool>,
    features: Option<serde::de::IgnoredAny>,
}

/// What became of one payment of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    /// It is in the topic.
    Taken,
    /// It is in the topic, and this is its verdict.
    Verdict(bool),
    /// It is none.
    Refused,
    /// Not now, or nothing was heard.
    Again,
}

/// What a connection needs.
struct Lane {
    client: Client,
    route: String,
    single: bool,
    verdict_in_answer: bool,
    patience: Duration,
    shared: Arc<Shared>,
}

impl Lane {
    async fn run(self, mut batches: mpsc::Receiver<Vec<Item>>) -> Result<(), String> {
        while let Some(mut batch) = batches.recv().await {
            let began = monotonic();
            while !batch.is_empty() {
                let told = self.post(&batch).await?;
                let now = monotonic();
                let mut again = Vec::new();
                {
                    let mut ledger = self.shared.ledger();
                    for (item, told) in batch.into_iter().zip(told) {
                        match told {
                            // The answer was to have the verdict, and it did not come in time.
                            Told::Taken if self.verdict_in_answer => ledger.doubt(item.number),
                            Told::Taken => {}
                            Told::Verdict(anomaly) => ledger.returned(&item.tx_id, Fate::Verdict(anomaly), now),
                            Told::Refused => ledger.returned(&item.tx_id, Fate::Refused, now),
                            Told::Again if since(began) >= self.patience || self.shared.has_failed() => ledger.doubt(item.number),
                            Told::Again => again.push(item),
                        }
                    }
                }
                batch = again;
                if !batch.is_empty() {
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        Ok(())
    }

    /// What is said of each. An error is one that no second attempt mends.
    async fn post(&self, batch: &[Item]) -> Result<Vec<Told>, String> {
        let (kind, body) = if self.single {
            ("application/json", batch[0].value.clone())
        } else {
            let mut lines = Vec::with_capacity(batch.iter().map(|item| item.value.len() + 1).sum());
            for item in batch {
                lines.extend_from_slice(&item.value);
                lines.push(b'\n');
            }
            ("application/x-ndjson", lines)
        };
        let sent = self.client.post(&self.route).header(CONTENT_TYPE, kind).body(body).send().await;
        let Ok(answer) = sent else { return Ok(vec![Told::Again; batch.len()]) };
        let status = answer.status();
        if matches!(
            status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        ) {
            return Err(format!("{} answers {status}: is it a Mangrove, and has the token the scope write?", self.route));
        }
        let body = answer.bytes().await.unwrap_or_default();
        Ok(if self.single { vec![one(status, &body)] } else { lines(status, &body, batch.len()) })
    }
}

/// What the answer to one payment says.
fn one(status: StatusCode, body: &[u8]) -> Told {
    match serde_json::from_slice::<Said>(body) {
        Ok(said) if status == StatusCode::OK && said.features.is_some() => Told::Verdict(said.is_anomaly.unwrap_or(false)),
        Ok(Said { id: Some(_), .. }) if status.is_success() => Told::Taken,
        _ => refusal(status.as_u16()),
    }
}

/// What the answer to lines says of each; a line that it says nothing of was not heard.
fn lines(status: StatusCode, body: &[u8], count: usize) -> Vec<Told> {
    if !status.is_success() {
        return vec![refusal(status.as_u16()); count];
    }
    let mut told = vec![Told::Again; count];
    for line in body.split(|byte| *byte == b'\n') {
        let Ok(said) = serde_json::from_slice::<Said>(line) else { continue };
        if let Some(told) = said.line.and_then(|line| told.get_mut(line.wrapping_sub(1))) {
            *told = if said.id.is_some() { Told::Taken } else { refusal(said.status.unwrap_or_default()) };
        }
    }
    told
}

fn refusal(status: u16) -> Told {
    match status {
        400 | 413 | 415 | 422 => Told::Refused,
        _ => Told::Again,
    }
}

/// Spreads payments over the connections.
struct HttpSink {
    lanes: Vec<(mpsc::Sender<Vec<Item>>, Vec<Item>)>,
    workers: JoinSet<Result<(), String>>,
    batch: usize,
    runtime: Runtime,
}

impl HttpSink {
    fn new(target: &HttpTarget, patience: Duration, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|why| Failure::new("cannot start threads").caused_by(why))?;
        let client = target.client()?;
        let mut workers = JoinSet::new();
        let mut lanes = Vec::new();
        for _ in 0..target.connections.max(1) {
            let (batches, theirs) = mpsc::channel(WAITING);
            let (client, shared) = (client.clone(), Arc::clone(shared));
            let lane = Lane {
                client,
                route: target.route(),
                single: target.batch == 1,
                verdict_in_answer: target.verdict_in_answer,
                patience,
                shared,
            };
            let failed = Arc::clone(&lane.shared);
            workers.spawn_on(async move { lane.run(theirs).await.inspect_err(|_| failed.fail()) }, runtime.handle());
            lanes.push((batches, Vec::new()));
        }
        Ok(Self { lanes, workers, batch: target.batch.max(1), runtime })
    }

    fn hand_over(lane: &mut (mpsc::Sender<Vec<Item>>, Vec<Item>)) {
        let batch = std::mem::take(&mut lane.1);
        // A connection that is gone has failed, which is told at the end.
        let _gone = lane.0.blocking_send(batch);
    }
}

impl Sink for HttpSink {
    fn send(&mut self, event: &Event, value: &[u8], _: i64) -> Result<(), Failure> {
        let at = murmur2(event.payment.user_id.as_bytes()) as usize % self.lanes.len();
        let lane = &mut self.lanes[at];
        lane.1.push(Item { tx_id: event.payment.tx_id.clone(), number: event.number, value: value.to_vec() });
        if lane.1.len() >= self.batch {
            Self::hand_over(lane);
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.lanes.iter_mut().filter(|lane| !lane.1.is_empty()).for_each(Self::hand_over);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.pause()?;
        self.lanes.clear();
        let mut workers = std::mem::take(&mut self.workers);
        self.runtime.block_on(async {
            while let Some(ended) = workers.join_next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => return Err(Failure::new("the load ended early").caused_by(why)),
                    Err(_) => return Err(Failure::new("a connection's task panicked")),
                }
            }
            Ok(())
        })
    }
}

/// Sends over HTTP; verdicts come in the answers, or are not looked at.
///
/// # Errors
/// Where nothing can be sent at all: no such route, no right to it.
pub fn to_http(target: &HttpTarget, params: &LoadParams, shared: &Arc<Shared>) -> Result<Report, Failure> {
    let params = LoadParams { read_back: target.verdict_in_answer, ..params.clone() };
    let mut sink = HttpSink::new(target, params.patience, shared)?;
    let driven = drive(&params, &mut sink, shared)?;
    Ok(report(&params, target.route(), driven, shared))
}

/// Sends over HTTP, and reads verdicts and dead letters from their topics.
///
/// # Errors
/// As [`to_http`], and the broker's.
pub fn to_http_and_topics<B: Broker>(
    target: &HttpTarget,
    broker: &B,
    places: &Places,
    params: &LoadParams,
    shared: &Arc<Shared>,
) -> Result<Report, Failure> {
    let mut sink = HttpSink::new(target, params.patience, shared)?;
    watched(broker, places, target.route(), params, &mut sink, shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_one_payment_are_told_apart() {
        let status = |status| StatusCode::from_u16(status).unwrap();
        let verdict = br#"{"tx_id":"t","id":"transactions:0:1","is_anomaly":true,"features":[1,2]}"#;
        assert_eq!(one(status(200), verdict), Told::Verdict(true));
        assert_eq!(one(status(202), br#"{"id":"transactions:0:1","tx_id":"t","duplicate":false}"#), Told::Taken);
        assert_eq!(one(status(422), br#"{"type":"/problems/invalid-request","status":422}"#), Told::Refused);
        assert_eq!(one(status(429), br#"{"status":429}"#), Told::Again);
        assert_eq!(one(status(503), b"not json"), Told::Again);
    }

    #[test]
    fn lines_are_matched_by_their_number_and_what_is_missing_was_not_heard() {
        let body = br#"{"line":2,"status":422,"problem":{"status":422}}
{"line":1,"id":"transactions:0:1","tx_id":"a","duplicate":false}
{"line":4,"status":503,"problem":{}}
{"line":9,"id":"x"}
{"line":5,"id":"#;
        let told = lines(StatusCode::OK, body, 5);
        assert_eq!(told, [Told::Taken, Told::Refused, Told::Again, Told::Again, Told::Again]);
        assert_eq!(lines(StatusCode::SERVICE_UNAVAILABLE, b"", 2), [Told::Again; 2]);
        assert_eq!(lines(StatusCode::BAD_REQUEST, b"", 1), [Told::Refused]);
    }
}
