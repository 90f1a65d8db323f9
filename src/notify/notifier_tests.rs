//! The notifier on an embedded broker, under a time that the tests make up, with a courier that only takes notes.

use tempfile::TempDir;
use topology::broker::{Cleanup, Publisher as _, TopicSpec};
use topology::clock::MockClock;
use topology::record::Topics;

use super::*;
use crate::broker::Groups as _;
use crate::broker::embedded::{Durability, EmbeddedBroker, EmbeddedOptions};
use crate::notify::book::Book;
use crate::notify::entry::{Delivery, Order};
use crate::notify::message::Kind;
use crate::notify::policy::tests::verdict;
use crate::notify::policy::{Outcome, Rule};
use models::Severity;

const START_MS: i64 = 1_700_000_000_000;
const WINDOW_MS: i64 = 60_000;
const PARTITIONS: u32 = 4;
const ANOMALIES: TopicId = TopicId(0);
const NOTIFICATIONS: TopicId = TopicId(1);

/// What couriers were given, and how the targets answer: none is no answer yet.
struct Post {
    sent: Vec<Delivery>,
    answer: Option<Outcome>,
    outcomes: Vec<(String, Outcome)>,
}

struct Notes(Arc<Mutex<Post>>);

impl Courier for Notes {
    fn send(&mut self, delivery: Delivery, _: i64) {
        let mut post = self.0.lock().expect("notes");
        if let Some(outcome) = post.answer.clone() {
            post.outcomes.push((delivery.id.clone(), outcome));
        }
        post.sent.push(delivery);
    }

    fn outcomes(&mut self) -> Vec<(String, Outcome)> {
        std::mem::take(&mut self.0.lock().expect("notes").outcomes)
    }
}

struct World {
    broker: Arc<EmbeddedBroker>,
    clock: MockClock,
    post: Arc<Mutex<Post>>,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = MockClock::at(START_MS);
        let topics = Topics::new(vec!["anomalies".into(), "app-notifications".into()]);
        let options = EmbeddedOptions { durability: Durability::Os, memory_bytes: 32 << 20, ..EmbeddedOptions::default() };
        let time = clock.clone();
        let broker = EmbeddedBroker::open(folder.path(), topics, options, Arc::new(move || time.now_ms())).expect("a broker");
        let compact = Cleanup::Compact { tombstone_retention_ms: 1_000 };
        for (name, partitions, cleanup) in
            [("anomalies", PARTITIONS, Cleanup::Delete { retention_ms: None }), ("app-notifications", 1, compact)]
        {
            broker.create(&TopicSpec { name: name.into(), partitions, cleanup, max_message_bytes: None }).expect("a topic");
        }
        let post = Post { sent: Vec::new(), answer: Some(Outcome::Arrived), outcomes: Vec::new() };
        Self { broker: Arc::new(broker), clock, post: Arc::new(Mutex::new(post)), _folder: folder }
    }

    fn notifier(&self, instance: &str) -> Notifier<EmbeddedBroker> {
        let rule = Rule { min_severity: Severity::High, include_user: false, rate_per_minute: 20, address: "a".into() };
        let plan = Plan {
            application: "app".into(),
            instance: instance.into(),
            anomalies: ANOMALIES,
            notifications: NOTIFICATIONS,
            transaction_timeout_ms: 10_000,
            rules: Rules { window_ms: WINDOW_MS, targets: [("ops".to_owned(), rule)].into(), memory_bytes: usize::MAX },
        };
        let snoozed = |verdict: &Verdict| verdict.user_id == "snoozed";
        Notifier::new(
            &self.broker,
            plan,
            Arc::new(self.clock.clone()),
            Box::new(Notes(Arc::clone(&self.post))),
            Box::new(snoozed),
        )
    }

    fn publish(&self, numbers: impl Iterator<Item = u64>, user: impl Fn(u64) -> String, timestamp: i64) {
        let mut publisher = self.broker.publisher().expect("a publisher");
        for number in numbers {
            let user = user(number);
            let partition = user.bytes().map(u32::from).sum::<u32>() % PARTITIONS;
            let value = serde_json::to_vec(&verdict(number, &user, Severity::High)).expect("JSON");
            let to = TopicPartition { topic: ANOMALIES, partition };
            let record = Outgoing { to, key: Some(user.as_bytes()), value: Some(&value), timestamp, headers: &[] };
            publisher.send(&record).expect("sent");
        }
        publisher.flush().expect("durable");
    }

    /// Lets so much time pass, four steps a second.
    fn run(&self, notifier: &mut Notifier<EmbeddedBroker>, ms: i64) {
        let until_ms = self.clock.now_ms() + ms;
        while self.clock.now_ms() < until_ms {
            self.clock.advance(250);
            notifier.step(Duration::ZERO, &|| false).expect("a step");
        }
    }

    fn sent(&self) -> Vec<Delivery> {
        self.post.lock().expect("notes").sent.clone()
    }

    fn answer(&self, outcome: Option<Outcome>) {
        self.post.lock().expect("notes").answer = outcome;
    }

    fn book(&self) -> Book {
        let book = Book::new(&self.broker, NOTIFICATIONS, Arc::new(self.clock.clone()));
        book.catch_up().expect("read");
        book
    }
}

fn counts(sent: &[Delivery]) -> Vec<u64> {
    sent.iter().map(|delivery| delivery.message.count).collect()
}

#[test]
fn a_flood_of_10_000_is_a_few_messages_and_the_group_has_read_them_all() {
    let world = World::new();
    let mut notifier = world.notifier("a");
    world.run(&mut notifier, 1_000);
    world.publish(0..10_000, |number| format!("u{}", number % 3_000), world.clock.now_ms());
    world.run(&mut notifier, 3 * WINDOW_MS);
    let sent = world.sent();
    assert!(sent.len() <= 21, "{} messages", sent.len());
    assert_eq!(counts(&sent).iter().sum::<u64>(), 10_000);
    assert_eq!(sent.iter().filter(|delivery| delivery.message.kind == Kind::Flood).count(), 1);
    let figures = notifier.status().figures()["ops"];
    assert_eq!((figures.counts.sent, figures.pending, figures.dead), (sent.len() as u64, 0, 0));
    assert!(world.book().deliveries().is_empty(), "what has arrived is not kept");
    let places: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition { topic: ANOMALIES, partition }).collect();
    let committed = world.broker.committed("app-notify", &places).expect("offsets");
    let mut reader = world.broker.reader().expect("a reader");
    let ends: Vec<_> = places.iter().map(|place| Some(reader.bounds(*place).expect("bounds").end)).collect();
    assert_eq!(committed, ends);
}

#[test]
fn a_crash_keeps_windows_and_counts_each_anomaly_once() {
    let world = World::new();
    let mut notifier = world.notifier("a");
    world.publish(0..5, |_| "u".into(), START_MS);
    world.run(&mut notifier, 20_000);
    drop(notifier);
    let mut notifier = world.notifier("a");
    world.publish(5..7, |_| "u".into(), world.clock.now_ms());
    world.run(&mut notifier, 35_000);
    assert_eq!(world.sent(), vec![], "the window is open");
    world.run(&mut notifier, 10_000);
    assert_eq!(counts(&world.sent()), [7]);
}

#[test]
fn what_was_sent_and_not_committed_comes_again_under_its_id_and_then_no_more() {
    let world = World::new();
    world.answer(None);
    let mut notifier = world.notifier("a");
    world.publish(0..1, |_| "u".into(), START_MS);
    world.run(&mut notifier, WINDOW_MS + 5_000);
    assert_eq!(world.sent().len(), 1, "under way");
    // It has arrived, but nobody will ever know.
    drop(notifier);
    world.answer(Some(Outcome::Arrived));
    let mut notifier = world.notifier("a");
    world.run(&mut notifier, 5_000);
    let sent = world.sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1], "the same id, the same bytes");
    drop(notifier);
    let mut notifier = world.notifier("a");
    world.run(&mut notifier, 2 * WINDOW_MS);
    assert_eq!(world.sent().len(), 2);
}

#[test]
fn the_work_moves_to_another_instance_with_all_that_is_open() {
    let world = World::new();
    world.answer(Some(Outcome::Failed { why: "it answered 500".into(), pause_ms: None }));
    let (mut one, mut other) = (world.notifier("a"), world.notifier("b"));
    world.run(&mut one, 1_000);
    world.run(&mut other, 1_000);
    world.publish(0..1, |_| "u".into(), START_MS);
    world.run(&mut one, WINDOW_MS + 1_000);
    assert_eq!(world.sent().len(), 1);
    world.publish(1..3, |_| "v".into(), START_MS);
    world.run(&mut one, 1_000);
    assert!(other.status().figures().is_empty(), "one of them has the work");
    one.close().expect("closed");
    world.answer(Some(Outcome::Arrived));
    world.run(&mut other, WINDOW_MS + 10_000);
    assert_eq!(counts(&world.sent()), [1, 1, 2], "the failed one again, and the window");
    assert_eq!(other.status().figures()["ops"].counts.sent, 2);
}

#[test]
fn what_was_given_up_is_listed_and_sent_again_when_ordered() {
    let world = World::new();
    world.answer(Some(Outcome::Gone { why: "it answered 410".into() }));
    let mut notifier = world.notifier("a");
    world.publish(0..1, |_| "u".into(), START_MS);
    world.run(&mut notifier, WINDOW_MS + 5_000);
    let book = world.book();
    let dead = book.deliveries();
    assert_eq!(dead.iter().map(|delivery| delivery.state).collect::<Vec<_>>(), [State::Dead]);
    assert_eq!(book.disabled()["ops"].why, "it answered 410");
    assert!(notifier.status().figures()["ops"].disabled);
    world.answer(Some(Outcome::Arrived));
    book.order(&Order::Resend { delivery: dead[0].id.clone() }).expect("ordered");
    world.run(&mut notifier, 3_000);
    assert_eq!(world.sent().iter().map(|delivery| &delivery.id).collect::<Vec<_>>(), [&dead[0].id, &dead[0].id]);
    let book = world.book();
    assert!(book.deliveries().is_empty() && book.disabled().is_empty());
    // An order is done once: a restart finds nothing to do.
    drop(notifier);
    world.run(&mut world.notifier("a"), 5_000);
    assert_eq!(world.sent().len(), 2);
}

#[test]
fn what_is_snoozed_old_or_no_verdict_is_left_out() {
    let world = World::new();
    let day_ms = 24 * 3_600_000;
    world.publish(0..3, |_| "old".into(), START_MS - day_ms - 60_000);
    world.publish(3..4, |_| "recent".into(), START_MS - day_ms + 600_000);
    let mut notifier = world.notifier("a");
    world.run(&mut notifier, 1_000);
    world.publish(4..6, |_| "snoozed".into(), START_MS);
    let mut publisher = world.broker.publisher().expect("a publisher");
    let to = TopicPartition { topic: ANOMALIES, partition: 0 };
    publisher.send(&Outgoing { to, key: None, value: Some(b"?"), timestamp: START_MS, headers: &[] }).expect("sent");
    publisher.flush().expect("durable");
    // Replayed under old times after the start: news all the same.
    world.publish(6..8, |_| "replayed".into(), 0);
    world.run(&mut notifier, 2 * WINDOW_MS);
    let mut told = counts(&world.sent());
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
    assert_eq!(notifier.status().figures()["ops"].counts.snoozed, 2);
}
