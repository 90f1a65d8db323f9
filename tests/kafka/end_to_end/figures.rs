//! Measurements, not tests: how long partitions are without verdicts (`benches/failover.sh`), and how long a rollback takes
//! (`benches/rollback.sh`).
//!
//! One line of JSON for each run. Times are wall time of this machine, in milliseconds; a verdict's is when a read-committed consumer got it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::instances::share;
use super::members::announced;
use crate::common::ledger::{model, other_model};
use crate::common::records::{Tail, Writer, now_ms};
use crate::common::scene::{PARTITIONS, Scene};
use crate::common::service::Service;
use crate::common::until;

const USERS: u64 = 100_000;
/// Between two payments while it is measured.
const GAP: Duration = Duration::from_millis(1);

/// How many payments are scored before: the size of the changelog.
fn payments() -> u64 {
    std::env::var("FIGURE_PAYMENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000)
}

/// Payments that never end, and the verdicts that come back.
struct Stream {
    writer: Writer,
    topic: String,
    tail: Tail,
    sent: u64,
    seen: u64,
    /// By partition, when its last verdict came.
    last: BTreeMap<u32, i64>,
    /// Only verdicts with this in them count for `last`.
    wanted: Option<String>,
}

impl Stream {
    fn new(scene: &Scene) -> Self {
        let tail = Tail::new(&scene.address, &scene.topic("verdicts"));
        let (writer, topic) = (scene.writer(), scene.topic("transactions"));
        Self { writer, topic, tail, sent: 0, seen: 0, last: BTreeMap::new(), wanted: None }
    }

    fn send(&mut self) {
        let user = format!("user-{}", self.sent.wrapping_mul(0x9E37_79B9_7F4A_7C15) % USERS);
        let amount = 10 + self.sent % 90;
        let value = format!(r#"{{"user_id":"{user}","amount":{amount},"merchant":"m-{}"}}"#, self.sent % 40);
        self.writer.keyed(&self.topic, user.as_bytes(), value.as_bytes(), now_ms());
        self.sent += 1;
    }

    fn read(&mut self, wait: Duration) {
        let mut next = self.tail.next(wait);
        while let Some(seen) = next {
            self.seen += 1;
            let text = String::from_utf8_lossy(seen.value.as_deref().unwrap_or_default());
            if self.wanted.as_ref().is_none_or(|wanted| text.contains(wanted)) {
                self.last.insert(seen.partition, now_ms());
            }
            next = self.tail.next(Duration::ZERO);
        }
    }

    /// Scores so many payments as fast as it goes.
    fn fill(&mut self, count: u64) {
        while self.seen < count {
            while self.sent < count && self.sent < self.seen + 50_000 {
                self.send();
            }
            self.writer.serve();
            self.read(Duration::from_millis(5));
        }
    }

    /// Goes on at a quiet pace until each of these partitions has a verdict later than its moment, and gives the delays.
    fn delays(&mut self, mut since: impl FnMut() -> Option<BTreeMap<u32, i64>>) -> Vec<i64> {
        self.last.clear();
        let mut first: BTreeMap<u32, i64> = BTreeMap::new();
        until("verdicts of all partitions", || {
            self.send();
            self.writer.serve();
            self.read(GAP);
            for (&partition, &at) in &self.last {
                first.entry(partition).or_insert(at);
            }
            let since = since()?;
            since.iter().map(|(partition, at)| Some(first.get(partition)? - at)).collect()
        })
    }
}

fn scene(test: &str) -> Option<Scene> {
    let scene = Scene::new(test)?.with("MODEL_PATH", model().to_str().expect("a plain path"));
    scene.create("transactions", PARTITIONS, &[]);
    Some(scene.with("MEMORY_LIMIT", "512MiB"))
}

/// When a process said this of a task, after a moment, by partition.
fn said(service: &Service, message: &str, after_ms: i64) -> BTreeMap<u32, i64> {
    let lines = service.lines();
    let lines = lines.iter().filter(|line| line["message"] == message);
    let moment = |line: &serde_json::Value| {
        let at: jiff::Timestamp = line["timestamp"].as_str()?.parse().ok()?;
        let partition = line["task"].as_str()?.rsplit('_').next()?.parse().ok()?;
        Some((partition, at.as_millisecond()))
    };
    lines.filter_map(moment).filter(|(_, at)| *at > after_ms).collect()
}

fn print(figure: &str, mut delays: Vec<i64>, more: &str) {
    delays.sort_unstable();
    let records = payments();
    println!(
        r#"{{"figure":"{figure}","payments":{records},"first_ms":{},"last_ms":{},"all_ms":{delays:?}{more}}}"#,
        delays[0],
        delays[delays.len() - 1]
    );
}

fn fail_over(standbys: &str) {
    let Some(scene) = scene("fail-over") else { return };
    let scene = scene.with("STANDBY_REPLICAS", standbys);
    let (mut a, mut b) = (scene.start_with("a", &[("INSTANCE_ID", "a")]), scene.start_with("b", &[("INSTANCE_ID", "b")]));
    share(&mut a, &mut b);
    let mut stream = Stream::new(&scene);
    stream.fill(payments());
    let of_b: Vec<u32> = announced(&scene)["b"].workers.iter().flat_map(|worker| &worker.tasks).map(|task| task.1).collect();
    let killed_ms = now_ms();
    b.kill();
    // What was on its way from b is still read; b's partitions are silent until a has them.
    for _ in 0..200 {
        stream.read(GAP);
    }
    let delays = stream.delays(|| {
        let given = said(&a, "task assigned", killed_ms);
        of_b.iter()
            .all(|partition| given.contains_key(partition))
            .then(|| given.into_iter().filter(|(partition, _)| of_b.contains(partition)).collect())
    });
    let given = said(&a, "task assigned", killed_ms).into_values().min().unwrap_or(killed_ms) - killed_ms;
    let restored = a.metric("mangrove_restored_records_total");
    print("fail_over", delays, &format!(r#","standbys":{standbys},"given_after_kill_ms":{given},"restored_records":{restored}"#));
    a.stop();
}

#[test]
#[ignore = "a measurement: benches/failover.sh"]
fn figure_fail_over_with_a_standby() {
    fail_over("1");
}

#[test]
#[ignore = "a measurement: benches/failover.sh"]
fn figure_fail_over_without_one() {
    fail_over("0");
}

#[test]
#[ignore = "a measurement: benches/failover.sh"]
fn figure_restart_with_its_disk() {
    let Some(scene) = scene("restart") else { return };
    let mut a = scene.start("a");
    a.restored(PARTITIONS as usize);
    let mut stream = Stream::new(&scene);
    stream.fill(payments());
    a.kill();
    for _ in 0..200 {
        stream.read(GAP);
    }
    let started_ms = now_ms();
    let a = scene.start("a");
    let delays = stream.delays(|| Some((0..PARTITIONS).map(|partition| (partition, started_ms)).collect()));
    let step = |message| said(&a, message, started_ms).into_values().max().map_or(0, |at| at - started_ms);
    let (assigned, running) = (step("task assigned"), step("task restored and running"));
    print("restart", delays, &format!(r#","assigned_ms":{assigned},"running_ms":{running}"#));
    a.stop();
}

/// From the request until a verdict of the earlier model was read from each partition, of two instances with half of them each.
#[test]
#[ignore = "a measurement: benches/rollback.sh"]
fn figure_rollback() {
    let Some(scene) = scene("rollback") else { return };
    let (mut a, mut b) = (scene.start_with("a", &[("INSTANCE_ID", "a")]), scene.start_with("b", &[("INSTANCE_ID", "b")]));
    share(&mut a, &mut b);
    let mut stream = Stream::new(&scene);
    stream.fill(payments());
    let newer = scene.register(other_model());
    let listed: serde_json::Value = serde_json::from_str(&b.get("/v1/models").1).expect("JSON");
    let earlier = listed["scoring"].as_str().expect("a model scores").to_owned();
    let everywhere = |at: i64| Some((0..PARTITIONS).map(|partition| (partition, at)).collect());
    let mut change = |service: &mut Service, path: &str, to: &str| {
        stream.wanted = Some(to.to_owned());
        let asked_ms = now_ms();
        std::thread::scope(|scope| {
            let answered = scope.spawn(move || {
                let (status, body) = service.post(path, "");
                assert_eq!(status, 200, "{body}");
                now_ms() - asked_ms
            });
            (stream.delays(|| everywhere(asked_ms)), answered.join().expect("answered"))
        })
    };
    let (delays, answered) = change(&mut b, &format!("/v1/models/{newer}/promote"), &newer);
    print("promotion", delays, &format!(r#","answered_ms":{answered}"#));
    let (delays, answered) = change(&mut a, "/v1/models/rollback", &earlier);
    print("rollback", delays, &format!(r#","answered_ms":{answered}"#));
    a.stop();
    b.stop();
}
