//! Sends the demo's payments from a thread of its own, as [`Plan`] has it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use topology::broker::{Broker, BrokerError, Publisher, Reader};
use topology::partitioner::partition_of;
use topology::record::{Fetched, Outgoing, TopicId, TopicPartition};

use crate::clock::{monotonic, now_ms, since};
use crate::failure::Failure;
use crate::generator::{Anomaly, Generator, Payment};

use super::plan::{Plan, Wish};

/// What was injected, by transaction id: the truth that verdicts are held against.
pub(super) type Injected = Arc<Mutex<HashMap<String, Anomaly>>>;

/// Payments sent between two flushes where nothing asks for fewer.
const BURST: u64 = 5_000;
/// Payments ahead of their verdicts, at most: whoever else pays meanwhile waits behind no more than these.
const LEAD: u64 = 50_000;
/// The longest wait without a look at whether it is over.
const LOOK: Duration = Duration::from_millis(50);

struct Shared {
    stop: AtomicBool,
    go_on: AtomicBool,
    sent: AtomicU64,
    live: AtomicBool,
    /// Verdicts that came back.
    seen: AtomicU64,
    /// Another load takes this one's place.
    taken_over: Arc<AtomicBool>,
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
    plan: Plan,
}

impl Feed {
    pub(super) fn start<B: Broker>(
        broker: &B,
        topic: TopicId,
        partitions: u32,
        wish: Wish,
        injected: Injected,
    ) -> Result<Self, Failure> {
        let (before, last_ms) = history(broker, topic, partitions).map_err(super::failed)?;
        let plan = Plan::new(wish, before, last_ms, now_ms());
        let generator = Generator::new(&plan.people);
        let generator = generator.map_err(|why| Failure::new("the demo's payments cannot be made").caused_by(why))?;
        let publisher = broker.publisher().map_err(super::failed)?;
        let shared = Arc::new(Shared {
            stop: false.into(),
            go_on: false.into(),
            sent: 0.into(),
            live: false.into(),
            seen: 0.into(),
            taken_over: Arc::default(),
            failure: Mutex::default(),
        });
        let (theirs, pace) = (Arc::clone(&shared), plan.clone());
        let work = move || {
            let mut post = Post { publisher, topic, partitions, injected, shared: &theirs, sent: 0, json: Vec::new() };
            if let Err(why) = post.send(generator, &pace) {
                *theirs.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            }
        };
        let thread = std::thread::Builder::new().name("payments".into()).spawn(work);
        let thread = thread.map_err(|why| Failure::new("cannot start a thread").caused_by(why))?;
        Ok(Self { shared, thread: Some(thread), plan })
    }

    /// What is sent.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What ends these payments once it is set.
    pub(super) fn taken_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.taken_over)
    }

    /// There is a model, or none is waited for.
    pub(super) fn go_on(&self) {
        self.shared.go_on.store(true, Ordering::Release);
    }

    /// So many verdicts came back.
    pub(super) fn saw(&self, verdicts: u64) {
        self.shared.seen.store(verdicts, Ordering::Release);
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure.map_or(Ok(()), |why| Err(super::failed(why)))
    }

    /// What was due is sent: the next one lies ahead.
    pub(super) fn is_live(&self) -> bool {
        self.shared.live.load(Ordering::Acquire)
    }

    /// How many were sent, once all that were asked for are.
    pub(super) fn sent_all(&self) -> Option<u64> {
        let sent = self.shared.sent.load(Ordering::Acquire);
        self.plan.records.filter(|&records| sent >= records)
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

/// What sending takes.
struct Post<'s, P: Publisher> {
    publisher: P,
    topic: TopicId,
    partitions: u32,
    injected: Injected,
    shared: &'s Shared,
    sent: u64,
    json: Vec<u8>,
}

impl<P: Publisher> Post<'_, P> {
    fn send(&mut self, generator: Generator, plan: &Plan) -> Result<(), BrokerError> {
        let mut began = None;
        for mut payment in generator.take(plan.records.and_then(|records| usize::try_from(records).ok()).unwrap_or(usize::MAX)) {
            if self.sent == plan.learn {
                self.wait(|| (!self.shared.go_on.load(Ordering::Acquire)).then_some(LOOK))?;
            }
            match (plan.records, plan.rate) {
                // Each is sent once its time has come: the past as fast as it goes.
                (None, _) => {
                    self.shared.live.store(ahead(payment.timestamp_ms).is_some(), Ordering::Release);
                    self.wait(|| ahead(payment.timestamp_ms))?;
                }
                (Some(_), Some(rate)) => {
                    let (first, began) = *began.get_or_insert((self.sent, monotonic()));
                    let due = Duration::from_secs_f64((self.sent - first) as f64 / f64::from(rate));
                    self.wait(|| Some(due.saturating_sub(since(began))).filter(|early| *early > Duration::from_millis(2)))?;
                }
                (Some(_), None) => {}
            }
            let (sent, shared) = (self.sent, self.shared);
            self.wait(|| (sent >= shared.seen.load(Ordering::Acquire) + LEAD).then_some(LOOK))?;
            if self.shared.is_over() {
                break;
            }
            payment.timestamp_ms = payment.timestamp_ms.min(now_ms());
            self.post(&payment)?;
        }
        self.flush()
    }

    fn post(&mut self, payment: &Payment) -> Result<(), BrokerError> {
        if let Some(anomaly) = payment.label {
            self.injected.lock().unwrap_or_else(PoisonError::into_inner).insert(payment.tx_id.clone(), anomaly);
        }
        self.json.clear();
        payment.write_json(&mut self.json);
        let key = payment.user_id.as_bytes();
        let to = TopicPartition { topic: self.topic, partition: partition_of(key, self.partitions) };
        let record = Outgoing { to, key: Some(key), value: Some(&self.json), timestamp: payment.timestamp_ms, headers: &[] };
        self.publisher.send(&record)?;
        self.sent += 1;
        if self.sent.is_multiple_of(BURST) { self.flush() } else { Ok(()) }
    }

    /// Waits, with all that was sent under way, as long as there is something to wait for.
    fn wait(&mut self, left: impl Fn() -> Option<Duration>) -> Result<(), BrokerError> {
        if left().is_some() {
            self.flush()?;
        }
        while let Some(left) = left().filter(|_| !self.shared.is_over()) {
            std::thread::park_timeout(left.min(LOOK));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BrokerError> {
        self.publisher.flush()?;
        self.shared.sent.store(self.sent, Ordering::Release);
        Ok(())
    }
}

/// How far a time is ahead of the clock.
fn ahead(time_ms: i64) -> Option<Duration> {
    u64::try_from(time_ms - now_ms()).ok().filter(|ahead| *ahead > 0).map(Duration::from_millis)
}
