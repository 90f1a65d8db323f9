//! The follower over a simulated broker.

use models::{FEATURES, Severity};
use topology::broker::{Cleanup, Publisher, TopicSpec};
use topology::clock::MockClock;
use topology::record::{Outgoing, TopicPartition, Topics};
use topology::simulated::{SimBroker, SimPublisher};

use super::*;
use crate::clock::{monotonic, since};

const PARTITIONS: u32 = 2;

struct Stage {
    publisher: SimPublisher,
    clock: MockClock,
    live: Live,
    said: u64,
}

impl Stage {
    fn new() -> Self {
        let broker = SimBroker::new(Topics::new(vec!["verdicts".to_owned(), "anomalies".to_owned()]));
        for name in ["verdicts", "anomalies"] {
            let cleanup = Cleanup::Delete { retention_ms: None };
            broker
                .create(&TopicSpec { name: name.to_owned(), partitions: PARTITIONS, cleanup, max_message_bytes: None })
                .expect("created");
        }
        let publisher = broker.publisher().expect("a publisher");
        let places = Places { verdicts: TopicId(0), anomalies: TopicId(1) };
        let clock = MockClock::at(1_000_000);
        let live = Live::new(&Arc::new(broker), places, Arc::new(clock.clone()), Arc::default());
        Self { publisher, clock, live, said: 0 }
    }

    /// Says something of a user's payment, as the stream does.
    fn say(&mut self, user: &str, severity: Severity) -> String {
        let partition = partition_of(user.as_bytes(), PARTITIONS);
        let id = format!("transactions:{partition}:{}", self.said);
        self.said += 1;
        let verdict = Verdict {
            tx_id: id.clone(),
            id: id.clone(),
            user_id: user.to_owned(),
            event_time: 5,
            amount: 1.0,
            currency: None,
            merchant: "m".to_owned(),
            score: Some(0.5),
            raw_score: Some(0.5),
            is_anomaly: severity > Severity::None,
            severity,
            explanation: String::new(),
            reasons: Vec::new(),
            features: [0.0; FEATURES],
            model_id: None,
            fx: None,
        };
        let json = serde_json::to_vec(&verdict).expect("JSON");
        for topic in 0..=u16::from(verdict.is_anomaly) {
            let to = TopicPartition { topic: TopicId(topic), partition };
            let record = Outgoing { to, key: Some(user.as_bytes()), value: Some(&json), timestamp: 5, headers: &[] };
            self.publisher.send(&record).expect("sent");
        }
        self.publisher.flush().expect("sent");
        id
    }

    /// Looks until it is so.
    fn until(&self, what: &str, is_so: impl Fn(&View) -> bool) {
        let began = monotonic();
        while !self.live.view(&is_so).expect("a view") {
            assert!(since(began) < Duration::from_secs(20), "not in time: {what}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.live.stop();
    }
}

fn ids(seen: &VecDeque<Arc<Seen>>) -> Vec<&str> {
    seen.iter().map(|seen| seen.verdict.id.as_str()).collect()
}

#[test]
fn the_first_to_look_sees_what_was_there_before_and_each_anomaly_once() {
    let mut stage = Stage::new();
    let first = stage.say("u", Severity::High);
    let second = stage.say("u", Severity::None);
    let shown = |view: &View| (ids(&view.recent).join(" "), ids(&view.anomalies).join(" "), view.seconds.len());
    assert_eq!(stage.live.view(shown).expect("a view"), (format!("{first} {second}"), first.clone(), 0));
    let third = stage.say("u", Severity::Low);
    stage.until("the third", |view| ids(&view.anomalies) == [&first, &third] && view.recent.len() == 3);
}

#[test]
fn who_watches_gets_all_behind_the_place_told_and_reads_what_was_missed() {
    let mut stage = Stage::new();
    let before = stage.say("u", Severity::Low);
    let (mut events, place) = stage.live.watch().expect("watched");
    let partition = partition_of(b"u", PARTITIONS) as usize;
    assert_eq!(place[partition], 1);
    let after = stage.say("u", Severity::None);
    let Event::Verdict(seen) = events.blocking_recv().expect("an event") else { panic!("no verdict") };
    assert_eq!((&seen.verdict.id, seen.offset), (&after, 1));

    let missed = |from: &[u64], filter: &Filter| {
        let look = stage.live.missed(from, &[2, 2], filter).expect("a look");
        (ids(&look.found).join(" "), look.more)
    };
    // The other partition has nothing up to there: nothing is waited for.
    let to_end = |from: u64| {
        let mut at = vec![u64::MAX; 2];
        at[partition] = from;
        at
    };
    assert_eq!(missed(&to_end(0), &Filter::default()), (format!("{before} {after}"), false));
    assert_eq!(missed(&to_end(1), &Filter::default()), (after.clone(), false));
    assert_eq!(missed(&to_end(2), &Filter::default()), (String::new(), false));
    let severe = Filter { severity: Severity::Low, ..Filter::default() };
    assert_eq!(missed(&to_end(0), &severe), (before, false));
}

#[test]
fn figures_count_what_came_since_somebody_watches() {
    let mut stage = Stage::new();
    stage.say("u", Severity::High);
    let (mut events, _) = stage.live.watch().expect("watched");
    stage.say("u", Severity::Critical);
    stage.say("v", Severity::None);
    for _ in 0..2 {
        assert!(matches!(events.blocking_recv().expect("an event"), Event::Verdict(_)));
    }
    stage.clock.advance(1_500);
    let Event::Second(second) = events.blocking_recv().expect("an event") else { panic!("no figures") };
    assert_eq!((second.at_ms, second.verdicts, second.scored, second.severities), (1_000_000, 2, 2, [0, 0, 0, 1]));
    assert_eq!(second.commit_p99_ms, None);
}

#[test]
fn looks_back_find_a_users_payments_and_a_verdict_by_its_id() {
    let mut stage = Stage::new();
    let ours: Vec<String> = (0..5).map(|_| stage.say("u", Severity::None)).collect();
    stage.say("somebody else", Severity::None);
    let look = stage.live.of_user("u", &Filter::default(), 3).expect("a look");
    assert_eq!((ids(&look.found), look.more), (ours[2..].iter().map(String::as_str).collect(), true));
    let partition = partition_of(b"u", PARTITIONS);
    assert_eq!(ids(&stage.live.find(&ours[1], partition).expect("a look").found), [&ours[1]]);
    assert!(stage.live.find("transactions:0:77", partition).expect("a look").found.is_empty());
}

#[test]
fn nobody_is_followed_for_after_a_while_and_the_next_one_starts_again() {
    let mut stage = Stage::new();
    let first = stage.say("u", Severity::Low);
    stage.until("the first", |view| ids(&view.anomalies) == [&first]);
    stage.clock.advance(200_000);
    let began = monotonic();
    while stage.live.goes_on() {
        assert!(since(began) < Duration::from_secs(20), "it does not end");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let second = stage.say("u", Severity::Low);
    stage.until("both", |view| ids(&view.anomalies) == [&first, &second]);
}
