//! Payments that come over HTTP, on their way into the transactions topic.
//!
//! ```text
//! api::tx -> Payment::read (as the processor will) -> homes (which instance remembers the id) -> Ingest::submit (bounded)
//!         -> press: one thread, one producer: [known id? | write] -> flush -> offsets -> Outcome -> the caller
//! verdicts topic -> Verdicts (one reader, while somebody waits) -> the caller of `wait=verdict`
//! ```
//!
//! | file | role |
//! |---|---|
//! | `payment` | one payment, checked |
//! | `window` | transaction ids of the last while; pure |
//! | `homes` | which instance remembers a partition's ids; pure |
//! | `tail` | reads the ids back from the topic |
//! | `press` | the thread that writes: whatever comes while one group is on its way to the disk is the next group |
//! | `verdicts` | verdicts by id, for those who wait for them |
//!
//! Invariants: what is acknowledged is durable in the broker, with its offset known; nothing is written twice by one request; a payment
//! whose id is remembered is not written again; memory is bounded ([`ROOM_BYTES`]), and what finds no room is refused at once.
//! What is not promised about ids: docs/decisions/0034.

mod homes;
mod payment;
mod press;
mod tail;
mod verdicts;
mod window;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use topology::broker::Broker;
use topology::clock::Clock;
use topology::record::TopicId;

use crate::clock::{monotonic, since};
use crate::membership::Directory;
use crate::scoring::ScoringParams;
use crate::threads::spawn;

pub use homes::Home;
pub use payment::{Payment, Refused};
pub use verdicts::{Ticket, Verdicts};

use press::Press;

/// Bytes of payments that may wait for the broker.
pub const ROOM_BYTES: usize = 32 << 20;
/// Submissions that may wait.
const SUBMISSIONS_MAX: usize = 4_096;
/// A group that is on its way for longer than this means that the broker stalls: what comes now is refused instead of waiting behind it.
const STALLED: Duration = Duration::from_secs(1);
/// Between two attempts of somebody who may wait for room.
const AGAIN: Duration = Duration::from_millis(2);

/// What ingestion depends on.
#[derive(Clone, Debug)]
pub struct Config {
    /// The transactions topic.
    pub transactions: TopicId,
    /// Its partitions.
    pub partitions: u32,
    /// Where requests that change something are recorded, in partition 0.
    pub trail: TopicId,
    /// The verdicts topic.
    pub verdicts: TopicId,
    /// Partitions of the topic that users are scored by: a verdict is in its user's partition.
    pub user_partitions: u32,
    /// How the stream scores: what it would refuse is refused.
    pub params: ScoringParams,
    /// For how long a transaction id is known again; 0 is never.
    pub dedup_ms: u64,
    /// How many ids are remembered at most.
    pub dedup_entries: usize,
    /// There are no other instances: the broker is in this process.
    pub alone: bool,
}

/// What became of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable in the broker, there.
    Written {
        /// The partition of the transactions topic.
        partition: u32,
        /// Its offset.
        offset: u64,
        /// It was there before: an earlier payment had its id.
        duplicate: bool,
    },
    /// The topic takes no record as large.
    TooLarge,
    /// Its partition's ids are not known here at the moment. Nothing was written.
    Moving,
    /// The broker did not take it. Nothing was written.
    NotWritten,
    /// The broker gave no answer: it may have been written.
    Unsure,
}

/// What became of a submission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// One for each payment, in their order.
    pub outcomes: Vec<Outcome>,
    /// The trail's record is durable; false where there was none.
    pub recorded: bool,
}

/// There is no room: nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Payments by what became of them.
#[derive(Debug, Default)]
pub struct Counts {
    written: AtomicU64,
    duplicate: AtomicU64,
    too_large: AtomicU64,
    moving: AtomicU64,
    failed: AtomicU64,
    no_room: AtomicU64,
    remembered: AtomicU64,
}

impl Counts {
    fn of(&self, outcome: Outcome) -> &AtomicU64 {
        match outcome {
            Outcome::Written { duplicate: false, .. } => &self.written,
            Outcome::Written { duplicate: true, .. } => &self.duplicate,
            Outcome::TooLarge => &self.too_large,
            Outcome::Moving => &self.moving,
            Outcome::NotWritten | Outcome::Unsure => &self.failed,
        }
    }

    /// By name, as metrics have them.
    pub fn each(&self) -> [(&'static str, u64); 6] {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("written", get(&self.written)),
            ("duplicate", get(&self.duplicate)),
            ("too_large", get(&self.too_large)),
            ("moving", get(&self.moving)),
            ("failed", get(&self.failed)),
            ("no_room", get(&self.no_room)),
        ]
    }

    /// Transaction ids remembered.
    pub fn remembered(&self) -> u64 {
        self.remembered.load(Ordering::Relaxed)
    }
}

/// What was turned away.
type Turned = (Vec<Payment>, Option<Vec<u8>>);

/// Payments on their way to the thread that writes them.
struct Submission {
    payments: Vec<Payment>,
    /// What the trail gets along with them.
    record: Option<Vec<u8>>,
    answer: oneshot::Sender<Answer>,
    /// Given back once they are answered.
    _room: OwnedSemaphorePermit,
}

/// What both sides see.
#[derive(Debug)]
struct Shared {
    homes: Mutex<Arc<[Home]>>,
    /// Somebody asked for ids that are not known here yet.
    asked: AtomicBool,
    /// Microseconds of the process at which the group began that is on its way; 0 while none is.
    began_us: AtomicU64,
    counts: Counts,
}

/// The way in. Clones are handles on the same one; its threads end once all are dropped.
#[derive(Clone)]
pub struct Ingest {
    config: Arc<Config>,
    inbox: SyncSender<Submission>,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
    verdicts: Verdicts,
}

impl Ingest {
    /// Starts the threads.
    pub fn start<B: Broker>(broker: &Arc<B>, config: Config, directory: Arc<dyn Directory>, clock: Arc<dyn Clock>) -> Self {
        let homes = vec![Home::Nowhere; config.partitions as usize].into();
        let shared = Arc::new(Shared {
            homes: Mutex::new(homes),
            asked: AtomicBool::new(false),
            began_us: AtomicU64::new(0),
            counts: Counts::default(),
        });
        let (inbox, taken) = sync_channel(SUBMISSIONS_MAX);
        let config = Arc::new(config);
        let verdicts = Verdicts::start(broker, config.verdicts);
        let press = Press::new(Arc::clone(broker), Arc::clone(&config), directory, clock, Arc::clone(&shared));
        spawn("ingest", move || press.run(&taken));
        Self { config, inbox, room: Arc::new(Semaphore::new(ROOM_BYTES)), shared, verdicts }
    }

    /// What it depends on.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the ids of this payment's partition are remembered; the first to ask has them read. One without an id, or where none are remembered, may be written anywhere.
    #[must_use]
    pub fn home_of(&self, payment: &Payment) -> Home {
        if payment.tx_id.is_none() || self.config.dedup_ms == 0 {
            return Home::Here;
        }
        let homes = self.shared.homes.lock().unwrap_or_else(PoisonError::into_inner);
        let home = homes.get(payment.partition as usize).cloned().unwrap_or(Home::Nowhere);
        if home == Home::Reading {
            self.shared.asked.store(true, Ordering::Relaxed);
        }
        home
    }

    /// As [`Self::home_of`], waiting while ids are being read, but not beyond that moment of the process.
    pub async fn settled_home_of(&self, payment: &Payment, until: Duration) -> Home {
        loop {
            match self.home_of(payment) {
                Home::Reading if monotonic() < until => tokio::time::sleep(AGAIN).await,
                home => return home,
            }
        }
    }

    /// Hands payments over, all or none; the answer has one outcome for each, in their order. It fails to come only where the process
    /// ends.
    ///
    /// # Errors
    /// [`Full`] where the broker does not keep up.
    pub fn submit(&self, payments: Vec<Payment>, record: Option<Vec<u8>>) -> Result<oneshot::Receiver<Answer>, Full> {
        self.try_submit(payments, record).map_err(|(payments, _)| self.refuse(&payments))
    }

    /// As [`Self::submit`], waiting for room for a while.
    ///
    /// # Errors
    /// [`Full`] where there was none in time.
    pub async fn submit_within(&self, mut payments: Vec<Payment>, limit: Duration) -> Result<oneshot::Receiver<Answer>, Full> {
        let began = monotonic();
        loop {
            payments = match self.try_submit(payments, None) {
                Ok(answer) => return Ok(answer),
                Err((payments, _)) if since(began) >= limit => return Err(self.refuse(&payments)),
                Err((payments, _)) => payments,
            };
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Writes a record to the trail, in the next group.
    ///
    /// # Errors
    /// [`Full`] where the broker does not keep up.
    pub fn record(&self, record: Vec<u8>) -> Result<oneshot::Receiver<Answer>, Full> {
        self.try_submit(Vec::new(), Some(record)).map_err(|_| Full)
    }

    fn try_submit(&self, payments: Vec<Payment>, record: Option<Vec<u8>>) -> Result<oneshot::Receiver<Answer>, Turned> {
        if self.stalls() {
            return Err((payments, record));
        }
        let bytes = payments.iter().map(Payment::bytes).sum::<usize>() + record.as_ref().map_or(0, Vec::len);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else { return Err((payments, record)) };
        let (answer, answered) = oneshot::channel();
        match self.inbox.try_send(Submission { payments, record, answer, _room: room }) {
            Ok(()) => Ok(answered),
            Err(TrySendError::Full(turned) | TrySendError::Disconnected(turned)) => Err((turned.payments, turned.record)),
        }
    }

    fn refuse(&self, payments: &[Payment]) -> Full {
        self.shared.counts.no_room.fetch_add(payments.len() as u64, Ordering::Relaxed);
        Full
    }

    fn stalls(&self) -> bool {
        let began_us = self.shared.began_us.load(Ordering::Relaxed);
        began_us != 0 && since(Duration::from_micros(began_us)) > STALLED
    }

    /// Verdicts by id.
    #[must_use]
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// What it counts.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }
}
