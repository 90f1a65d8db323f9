//! Ingestion on the embedded broker: what is acknowledged is there, once, across restarts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use mangrove::broker::embedded::{EmbeddedBroker, EmbeddedOptions, NowMs};
use mangrove::ingest::{Config, Home, Ingest, Outcome, Payment};
use mangrove::membership::{Directory, Peer};
use mangrove::scoring::ScoringParams;
use tempfile::TempDir;
use topology::broker::{Broker, Cleanup, Reader as _, TopicSpec};
use topology::clock::{Clock, MockClock};
use topology::record::{TopicId, TopicPartition, Topics};

const PARTITIONS: u32 = 4;
const HOUR_MS: i64 = 3_600_000;
const NOW_MS: i64 = 1_700_000_000_000;

struct Alone;

impl Directory for Alone {
    fn me(&self) -> String {
        "one".to_owned()
    }
    fn owner(&self, _: u32) -> Option<Peer> {
        None
    }
    fn standbys(&self, _: u32) -> Vec<Peer> {
        Vec::new()
    }
    fn members(&self) -> Vec<Peer> {
        Vec::new()
    }
}

fn open(folder: &Path, clock: &MockClock) -> Arc<EmbeddedBroker> {
    let topics = Topics::new(vec!["transactions".to_owned(), "verdicts".to_owned(), "app-audit".to_owned()]);
    let now_ms: NowMs = Arc::new({
        let clock = clock.clone();
        move || clock.now_ms()
    });
    let options = EmbeddedOptions { memory_bytes: 32 << 20, ..EmbeddedOptions::default() };
    let broker = EmbeddedBroker::open(folder, topics.clone(), options, now_ms).unwrap();
    for (_, name) in topics.iter() {
        let cleanup = Cleanup::Delete { retention_ms: None };
        broker.create(&TopicSpec { name: name.to_owned(), partitions: PARTITIONS, cleanup, max_message_bytes: None }).unwrap();
    }
    Arc::new(broker)
}

fn start(broker: &Arc<EmbeddedBroker>, clock: &MockClock) -> Ingest {
    let config = Config {
        transactions: TopicId(0),
        partitions: PARTITIONS,
        trail: TopicId(2),
        verdicts: TopicId(1),
        user_partitions: PARTITIONS,
        params: ScoringParams::default(),
        dedup_ms: HOUR_MS as u64,
        dedup_entries: 100_000,
        alone: true,
    };
    let ingest = Ingest::start(broker, config, Arc::new(Alone), Arc::new(clock.clone()));
    // Its ids are read back beside us; a payment of each partition tells when.
    for n in 0..40 {
        while ingest.home_of(&payment(&format!("user-{n}"), 0, clock)) != Home::Here {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
    ingest
}

fn payment(user: &str, n: usize, clock: &MockClock) -> Payment {
    let text = format!(r#"{{"user_id":"{user}","amount":{n},"merchant":"m","tx_id":"tx-{n}"}}"#);
    Payment::read(Bytes::from(text), clock.now_ms(), &ScoringParams::default(), PARTITIONS).expect("a payment")
}

/// Sends payments in requests of so many, and gives what became of each.
fn send(ingest: &Ingest, clock: &MockClock, count: usize, at_once: usize) -> Vec<Outcome> {
    let numbers: Vec<usize> = (0..count).collect();
    let waiting: Vec<_> = numbers
        .chunks(at_once)
        .map(|part| {
            ingest.submit(part.iter().map(|n| payment(&format!("user-{}", n % 40), *n, clock)).collect(), None).expect("room")
        })
        .collect();
    waiting.into_iter().flat_map(|answer| answer.blocking_recv().expect("an answer").outcomes).collect()
}

fn place(outcome: Outcome) -> (u32, u64, bool) {
    let Outcome::Written { partition, offset, duplicate } = outcome else { panic!("{outcome:?}") };
    (partition, offset, duplicate)
}

fn records(broker: &EmbeddedBroker) -> u64 {
    let mut reader = broker.reader().unwrap();
    (0..PARTITIONS).map(|partition| reader.bounds(TopicPartition { topic: TopicId(0), partition }).unwrap().end).sum()
}

#[test]
fn ids_are_known_again_after_a_restart_and_for_their_time_only() {
    let (root, clock) = (TempDir::new().unwrap(), MockClock::at(NOW_MS));
    let folder = root.path().join("broker");
    let first: Vec<_> = {
        let broker = open(&folder, &clock);
        let ingest = start(&broker, &clock);
        let first = send(&ingest, &clock, 6_000, 7).into_iter().map(place).collect();
        assert_eq!(records(&broker), 6_000);
        drop(ingest);
        // The threads let go of the broker once nobody can submit any more.
        while Arc::strong_count(&broker) > 1 {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        first
    };
    assert!(first.iter().all(|(_, _, duplicate)| !duplicate));
    clock.advance(HOUR_MS - 1);
    let broker = open(&folder, &clock);
    let ingest = start(&broker, &clock);
    let again: Vec<_> = send(&ingest, &clock, 6_000, 100).into_iter().map(place).collect();
    assert!(again.iter().zip(&first).all(|(again, first)| again.2 && (again.0, again.1) == (first.0, first.1)));
    assert_eq!(records(&broker), 6_000);
    clock.advance(1);
    let later: Vec<_> = send(&ingest, &clock, 6_000, 100).into_iter().map(place).collect();
    assert!(later.iter().all(|(_, _, duplicate)| !duplicate), "an hour later they are new");
    assert_eq!(records(&broker), 12_000);
}

#[test]
fn requests_at_the_same_time_are_one_payment() {
    let (root, clock) = (TempDir::new().unwrap(), MockClock::at(NOW_MS));
    let broker = open(&root.path().join("broker"), &clock);
    let ingest = start(&broker, &clock);
    let places: Vec<Vec<(u32, u64, bool)>> = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..8).map(|_| scope.spawn(|| send(&ingest, &clock, 500, 1).into_iter().map(place).collect())).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    for n in 0..500 {
        let of: Vec<_> = places.iter().map(|places| places[n]).collect();
        assert!(of.iter().all(|place| (place.0, place.1) == (of[0].0, of[0].1)), "payment {n}: {of:?}");
        assert_eq!(of.iter().filter(|(_, _, duplicate)| !duplicate).count(), 1, "payment {n}: one was the first");
    }
    assert_eq!(records(&broker), 500);
}

#[test]
fn what_finds_no_room_is_refused_whole_and_nothing_accepted_is_lost() {
    let (root, clock) = (TempDir::new().unwrap(), MockClock::at(NOW_MS));
    let broker = open(&root.path().join("broker"), &clock);
    let ingest = start(&broker, &clock);
    let filler = "x".repeat(1 << 19);
    let (mut taken, mut refused) = (Vec::new(), 0);
    let payment = |n: usize| {
        let text = format!(r#"{{"user_id":"u","amount":{n},"merchant":"m","tx_id":"big-{n}","filler":"{filler}"}}"#);
        Payment::read(Bytes::from(text), NOW_MS, &ScoringParams::default(), PARTITIONS).expect("a payment")
    };
    // All are made before the first is sent: nobody writes them as fast as they come then.
    let payments: Vec<Payment> = (0..400).map(payment).collect();
    for payment in payments {
        match ingest.submit(vec![payment], None) {
            Ok(answer) => taken.push(answer),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0, "200 MiB at once find no room");
    let written =
        taken.into_iter().flat_map(|answer| answer.blocking_recv().expect("an answer").outcomes).map(place).count() as u64;
    assert_eq!((written, written + refused), (records(&broker), 400));
}
