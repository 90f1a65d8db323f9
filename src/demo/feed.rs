//! Sends the demo's payments from a thread of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use topology::broker::{Broker, BrokerError, Publisher, Reader};
use topology::partitioner::partition_of;
use topology::record::{Fetched, Outgoing, TopicId, TopicPartition};

use crate::clock::{monotonic, since};
use crate::failure::Failure;
use crate::generator::{Anomaly, Generator, GeneratorParams};

/// What was injected, by transaction id: the truth that verdicts are held against.
pub(super) type Injected = Arc<Mutex<HashMap<String, Anomaly>>>;

/// Payments sent, as fast as they go, before the first model is waited for: the history that it learns from.
const HISTORY: u64 = 10_000;
/// People who pay in the demo: few, so that each soon has a history.
const USERS: u32 = 400;
/// Payments sent between two flushes where the rate does not ask for fewer.
const BURST: u64 = 5_000;

struct Shared {
    stop: AtomicBool,
    go_on: AtomicBool,
    sent: AtomicU64,
    /// Another load takes this one's place.
    taken_over: Arc<AtomicBool>,
    /// The time of the latest payment.
    event_ms: Arc<AtomicI64>,
    failure: Mutex<Option<BrokerError>>,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.taken_over.load(Ordering::Acquire)
    }
}

pub(super) struct Feed {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    records: Option<u64>,
}

impl Feed {
    pub(super) fn start<B: Broker>(
        broker: &B,
        topic: TopicId,
        partitions: u32,
        records: Option<u64>,
        rate: Option<u32>,
        injected: Injected,
    ) -> Result<Self, Failure> {
        let (before, last_ms) = history(broker, topic, partitions).map_err(super::failed)?;
        let defaults = GeneratorParams::default();
        let params = GeneratorParams {
            stream: u32::try_from(before).unwrap_or(u32::MAX),
            start_ms: last_ms.unwrap_or(defaults.start_ms),
            users: USERS,
            ..defaults
        };
        let generator =
            Generator::new(&params).map_err(|why| Failure::new("the demo's payments cannot be made").caused_by(why))?;
        let publisher = broker.publisher().map_err(super::failed)?;
        let shared = Arc::new(Shared {
            stop: false.into(),
            go_on: false.into(),
            sent: 0.into(),
            taken_over: Arc::default(),
            event_ms: Arc::new(AtomicI64::new(params.start_ms)),
            failure: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        let work = move || {
            if let Err(why) = send(publisher, generator, topic, partitions, records, rate, &injected, &theirs) {
                *theirs.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            }
        };
        let thread = std::thread::Builder::new().name("payments".into()).spawn(work);
        let thread = thread.map_err(|why| Failure::new("cannot start a thread").caused_by(why))?;
        Ok(Self { shared, thread: Some(thread), records })
    }

    /// What ends these payments once it is set, and the time of the latest one.
    pub(super) fn handles(&self) -> (Arc<AtomicBool>, Arc<AtomicI64>) {
        (Arc::clone(&self.shared.taken_over), Arc::clone(&self.shared.event_ms))
    }

    /// There is a model, or none is waited for.
    pub(super) fn go_on(&self) {
        self.shared.go_on.store(true, Ordering::Release);
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure.map_or(Ok(()), |why| Err(super::failed(why)))
    }

    /// How many were sent, once all that were asked for are.
    pub(super) fn sent_all(&self) -> Option<u64> {
        let sent = self.shared.sent.load(Ordering::Acquire);
        self.records.filter(|&records| sent >= records)
    }

    pub(super) fn stop(mut self) -> Result<u64, Failure> {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            return Err(Failure::new("the thread that sends payments panicked"));
        }
        self.check()?;
        Ok(self.shared.sent.load(Ordering::Acquire))
    }
}

/// How many payments there are already, and the latest one's time.
fn history<B: Broker>(broker: &B, topic: TopicId, partitions: u32) -> Result<(u64, Option<i64>), BrokerError> {
    let mut reader = broker.reader()?;
    let (mut count, mut waiting) = (0, 0);
    for partition in 0..partitions {
        let at = TopicPartition { topic, partition };
        let bounds = reader.bounds(at)?;
        count += bounds.end;
        if bounds.end > bounds.start {
            reader.assign(at, bounds.end - 1)?;
            waiting += 1;
        }
    }
    let mut fetched = Fetched::default();
    for _ in 0..50 {
        if fetched.len() >= waiting {
            break;
        }
        reader.poll(&mut fetched, 1_000, Duration::from_millis(100))?;
    }
    let latest = fetched.iter().map(|record| record.timestamp).max();
    Ok((count, latest))
}

#[expect(clippy::too_many_arguments, reason = "a thread's whole world, handed over once")]
fn send<P: Publisher>(
    mut publisher: P,
    generator: Generator,
    topic: TopicId,
    partitions: u32,
    records: Option<u64>,
    rate: Option<u32>,
    injected: &Injected,
    shared: &Shared,
) -> Result<(), BrokerError> {
    let mut json = Vec::new();
    let mut sent = 0u64;
    let limit = usize::try_from(records.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    // Too few for a first training: no model is waited for.
    let history = if limit >= 2_000 { HISTORY.min(limit as u64 / 2) } else { u64::MAX };
    let mut paced = None;
    for payment in generator.take(limit) {
        if sent >= history && !shared.go_on.load(Ordering::Acquire) {
            publisher.flush()?;
            shared.sent.store(sent, Ordering::Release);
            while !shared.go_on.load(Ordering::Acquire) && !shared.is_over() {
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        if let Some(rate) = rate.filter(|_| shared.go_on.load(Ordering::Acquire)) {
            let (first, began) = *paced.get_or_insert((sent, monotonic()));
            let due = Duration::from_secs_f64((sent - first) as f64 / f64::from(rate));
            let early = due.saturating_sub(since(began));
            if early > Duration::from_millis(2) {
                publisher.flush()?;
                shared.sent.store(sent, Ordering::Release);
                std::thread::park_timeout(early);
            }
        }
        if shared.is_over() {
            break;
        }
        if let Some(anomaly) = payment.label {
            injected.lock().unwrap_or_else(PoisonError::into_inner).insert(payment.tx_id.clone(), anomaly);
        }
        json.clear();
        payment.write_json(&mut json);
        let key = payment.user_id.as_bytes();
        let to = TopicPartition { topic, partition: partition_of(key, partitions) };
        let record = Outgoing { to, key: Some(key), value: Some(&json), timestamp: payment.timestamp_ms, headers: &[] };
        publisher.send(&record)?;
        shared.event_ms.fetch_max(payment.timestamp_ms, Ordering::AcqRel);
        sent += 1;
        if sent.is_multiple_of(BURST) {
            publisher.flush()?;
            shared.sent.store(sent, Ordering::Release);
        }
    }
    publisher.flush()?;
    shared.sent.store(sent, Ordering::Release);
    Ok(())
}
