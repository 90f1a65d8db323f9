//! The thread that writes. It alone looks ids up and remembers them, so that no two requests can both be the first under one id.
//!
//!  1 it takes everything that waits (a group), up to [`GROUP_BYTES`]
//!  2 each payment: known id, or id of an earlier one of the group, or handed to the producer
//!  3 the producer is flushed: one sync of the disk, or one round trip, for the whole group
//!  4 offsets are learned, ids remembered, callers answered
//!
//! Where 3 fails nobody knows what was written. The producer is dropped, and the partitions concerned are read back before an id of theirs
//! is judged again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use topology::broker::{Broker, BrokerError, Publisher, Reaction};
use topology::clock::Clock;
use topology::record::{Outgoing, TopicPartition};
use tracing::{info, warn};

use super::homes::{Home, home_of};
use super::window::{Fingerprint, Place, Window};
use super::{Answer, Config, Outcome, Payment, Shared, Submission, tail};
use crate::audit::AuditError;
use crate::clock::{monotonic, since};
use crate::membership::{Directory, Peer};
use crate::threads::spawn;

/// Bytes of one group, about.
const GROUP_BYTES: usize = 4 << 20;
/// Between two looks at who is there, at the most.
const LOOK: Duration = Duration::from_millis(100);
/// Before a partition is read back that somebody else may still be writing to: longer than the news of a new member takes, and than
/// a record that was under way when its producer was dropped.
const SETTLE: Duration = Duration::from_secs(1);

/// How much is known of a partition's ids.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Knowledge {
    /// All.
    Whole,
    /// Nothing, and nobody has asked yet: where no payments come by HTTP the topic is not read.
    Unread,
    /// They are to be read back, or are being read since this look.
    Reading,
    /// They are somebody else's affair.
    None(Option<Peer>),
}

/// What is to become of one payment of a group.
enum Slot {
    /// Its outcome is known.
    Done(Outcome),
    /// It is the n-th record that was sent.
    Sent(usize),
}

/// What was read back, or why not.
type ReadBack = Result<tail::Read, AuditError>;

/// See the module's header.
pub(super) struct Press<B: Broker> {
    broker: Arc<B>,
    config: Arc<Config>,
    directory: Arc<dyn Directory>,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    publisher: Option<B::Publisher>,
    window: Window,
    knowledge: Vec<Knowledge>,
    reads: (SyncSender<ReadBack>, Receiver<ReadBack>),
    /// Partitions that a thread is reading back and that did not leave meanwhile; one such thread at a time.
    being_read: Option<Vec<u32>>,
    looked: Option<Duration>,
}

impl<B: Broker> Press<B> {
    pub(super) fn new(
        broker: Arc<B>,
        config: Arc<Config>,
        directory: Arc<dyn Directory>,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
    ) -> Self {
        let window = Window::new(i64::try_from(config.dedup_ms).unwrap_or(i64::MAX), config.dedup_entries);
        let knowledge = vec![Knowledge::None(None); config.partitions as usize];
        let (reads, being_read) = (sync_channel(1), None);
        Self { broker, config, directory, clock, shared, publisher: None, window, knowledge, reads, being_read, looked: None }
    }

    /// Works until nobody can submit any more.
    pub(super) fn run(mut self, inbox: &Receiver<Submission>) {
        let mut group = Vec::new();
        loop {
            self.look();
            match inbox.recv_timeout(LOOK) {
                Ok(first) => group.push(first),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // 1
            let mut bytes = 0;
            while bytes < GROUP_BYTES
                && let Ok(next) = inbox.try_recv()
            {
                bytes += next.payments.iter().map(Payment::bytes).sum::<usize>();
                group.push(next);
            }
            let began_us = u64::try_from(monotonic().as_micros()).unwrap_or(u64::MAX).max(1);
            self.shared.began_us.store(began_us, Ordering::Relaxed);
            self.publish(&mut group);
            self.shared.began_us.store(0, Ordering::Relaxed);
        }
    }

    /// Steps 2 to 4.
    fn publish(&mut self, group: &mut Vec<Submission>) {
        // Who gave up waiting was told that it is not sure: what was not sent yet never is.
        group.retain(|submission| !submission.answer.is_closed());
        let now_ms = self.clock.now_ms();
        let mut sent: Vec<Option<&Payment>> = Vec::new();
        let mut ids: HashMap<Fingerprint, usize> = HashMap::new();
        let mut failed = None;
        let (mut slots, mut records) = (Vec::new(), Vec::new());
        for submission in &*group {
            for payment in &submission.payments {
                slots.push(self.judge(payment, now_ms, &ids).unwrap_or_else(|| {
                    let slot = self.send(&self.payment(payment), sent.len(), &mut failed);
                    if let Slot::Sent(number) = slot {
                        sent.push(Some(payment));
                        ids.extend(payment.fingerprint.map(|of| (of, number)));
                    }
                    slot
                }));
            }
            records.push(submission.record.as_ref().is_some_and(|record| {
                let to = TopicPartition { topic: self.config.trail, partition: 0 };
                let record = Outgoing { to, key: None, value: Some(record), timestamp: now_ms, headers: &[] };
                let is_sent = matches!(self.send(&record, sent.len(), &mut failed), Slot::Sent(_));
                sent.extend(is_sent.then_some(None));
                is_sent
            }));
        }
        let offsets = self.flush(&sent, failed);
        let partitions: Vec<u32> = sent.iter().map(|sent| sent.map_or(0, |payment| payment.partition)).collect();
        let outcomes = outcomes(slots, &partitions, offsets.as_deref());
        self.answer(group, records, offsets.is_some(), outcomes);
    }

    /// Step 4.
    fn answer(&self, group: &mut Vec<Submission>, records: Vec<bool>, flushed: bool, outcomes: Vec<Outcome>) {
        let mut outcomes = outcomes.into_iter();
        for (submission, recorded) in group.drain(..).zip(records) {
            let theirs: Vec<Outcome> = outcomes.by_ref().take(submission.payments.len()).collect();
            for outcome in &theirs {
                self.shared.counts.of(*outcome).fetch_add(1, Ordering::Relaxed);
            }
            // Who is gone by now was told that it is not sure.
            let _gone = submission.answer.send(Answer { outcomes: theirs, recorded: recorded && flushed });
        }
        self.shared.counts.remembered.store(self.window.len() as u64, Ordering::Relaxed);
    }

    fn payment<'p>(&self, payment: &'p Payment) -> Outgoing<'p> {
        let to = TopicPartition { topic: self.config.transactions, partition: payment.partition };
        let key = Some(payment.user_id.as_bytes());
        Outgoing { to, key, value: Some(&payment.value), timestamp: payment.time_ms, headers: &[] }
    }

    /// What is known of a payment without sending it.
    fn judge(&self, payment: &Payment, now_ms: i64, ids: &HashMap<Fingerprint, usize>) -> Option<Slot> {
        if self.config.dedup_ms == 0 {
            return None;
        }
        let of = payment.fingerprint.as_ref()?;
        if self.knowledge[payment.partition as usize] != Knowledge::Whole {
            return Some(Slot::Done(Outcome::Moving));
        }
        if let Some(Place { partition, offset }) = self.window.find(of, now_ms) {
            return Some(Slot::Done(Outcome::Written { partition, offset, duplicate: true }));
        }
        ids.get(of).map(|&number| Slot::Sent(number))
    }

    fn send(&mut self, record: &Outgoing<'_>, number: usize, failed: &mut Option<BrokerError>) -> Slot {
        if failed.is_some() {
            return Slot::Done(Outcome::NotWritten);
        }
        let publisher = match &mut self.publisher {
            Some(publisher) => publisher,
            none => match self.broker.publisher() {
                Ok(publisher) => none.insert(publisher),
                Err(why) => {
                    *failed = Some(why);
                    return Slot::Done(Outcome::NotWritten);
                }
            },
        };
        match publisher.send(record) {
            Ok(()) => Slot::Sent(number),
            Err(BrokerError { reaction: Reaction::TooLarge, .. }) => Slot::Done(Outcome::TooLarge),
            Err(why) => {
                *failed = Some(why);
                // It may be the sending of what came before that failed, and this record may have gone along.
                Slot::Done(Outcome::Unsure)
            }
        }
    }

    /// The offset of each record sent; none where that is not known.
    fn flush(&mut self, sent: &[Option<&Payment>], failed: Option<BrokerError>) -> Option<Vec<u64>> {
        let mut positions = Vec::with_capacity(sent.len());
        let flushed = match (failed, &mut self.publisher) {
            (Some(why), _) => Err(why),
            (None, Some(publisher)) if !sent.is_empty() => publisher.flush_positions(&mut positions),
            (None, _) => return Some(Vec::new()),
        };
        match flushed {
            Ok(()) => {
                let offsets: Vec<u64> = positions.iter().map(|(_, offset)| *offset).collect();
                if self.config.dedup_ms > 0 {
                    for (payment, &offset) in sent.iter().zip(&offsets) {
                        if let Some(payment) = payment
                            && let Some(of) = payment.fingerprint
                        {
                            self.window.add(of, Place { partition: payment.partition, offset }, payment.time_ms);
                        }
                    }
                }
                Some(offsets)
            }
            Err(why) => {
                warn!(%why, records = sent.len(), "records were not acknowledged by the broker");
                self.publisher = None;
                for payment in sent.iter().flatten() {
                    let knowledge = &mut self.knowledge[payment.partition as usize];
                    if *knowledge == Knowledge::Whole {
                        *knowledge = Knowledge::Reading;
                    }
                }
                self.tell();
                None
            }
        }
    }

    /// Looks who is there now and then, and takes up what was read back.
    fn look(&mut self) {
        while let Ok(read) = self.reads.1.try_recv() {
            let partitions = self.being_read.take().unwrap_or_default();
            match read {
                Ok(read) => {
                    info!(partitions = partitions.len(), ids = read.len(), "transaction ids read back");
                    self.window.add_read(read, self.clock.now_ms());
                    for partition in partitions {
                        self.knowledge[partition as usize] = Knowledge::Whole;
                    }
                    self.tell();
                }
                Err(why) => warn!(%why, "transaction ids cannot be read back yet"),
            }
        }
        if self.config.dedup_ms == 0 || self.looked.is_some_and(|at| since(at) < LOOK) {
            return;
        }
        self.looked = Some(monotonic());
        let members = if self.config.alone { Vec::new() } else { self.directory.members() };
        let me = self.directory.me();
        let asked = self.shared.asked.load(Ordering::Relaxed);
        let mut changed = false;
        for (partition, known) in (0..).zip(&mut self.knowledge) {
            let home = home_of(partition, &members);
            let mine = self.config.alone || home.is_some_and(|peer| peer.instance == me);
            let now = match (&*known, mine) {
                (Knowledge::None(_) | Knowledge::Unread, true) if asked => Knowledge::Reading,
                (Knowledge::None(_), true) => Knowledge::Unread,
                (_, true) => continue,
                (_, false) => {
                    // Others write from here on: what is being read of it will not be whole.
                    self.being_read.iter_mut().for_each(|being_read| being_read.retain(|of| *of != partition));
                    Knowledge::None(home.cloned())
                }
            };
            changed |= *known != now;
            *known = now;
        }
        if changed {
            self.tell();
        }
        self.read_back(members.len() > 1);
    }

    /// Reads back what is to be, beside this thread.
    fn read_back(&mut self, with_others: bool) {
        let wanted = (0..).zip(&self.knowledge).filter(|(_, known)| **known == Knowledge::Reading);
        let wanted: Vec<u32> = wanted.map(|(partition, _)| partition).collect();
        if wanted.is_empty() || self.being_read.is_some() {
            return;
        }
        self.being_read = Some(wanted.clone());
        let (broker, config, tell) = (Arc::clone(&self.broker), Arc::clone(&self.config), self.reads.0.clone());
        let since_ms = self.clock.now_ms().saturating_sub(i64::try_from(config.dedup_ms).unwrap_or(i64::MAX));
        // At the first start, and with nobody else about, nothing can be under way.
        let settle = with_others || self.publisher.is_none() && self.window.len() > 0;
        spawn("ingest-read-back", move || {
            if settle {
                std::thread::park_timeout(SETTLE);
            }
            let share = (config.dedup_entries / config.partitions.max(1) as usize).max(1) as u64;
            let read = wanted.iter().try_fold(tail::Read::new(), |mut all, &partition| {
                let at = TopicPartition { topic: config.transactions, partition };
                all.extend(tail::read(&*broker, at, since_ms, share, &config.params)?);
                Ok(all)
            });
            // The press may have ended meanwhile.
            let _ended = tell.send(read);
        });
    }

    /// Lets the interface know.
    fn tell(&self) {
        let home = |known: &Knowledge| match known {
            Knowledge::Whole => Home::Here,
            Knowledge::Unread | Knowledge::Reading => Home::Reading,
            Knowledge::None(Some(peer)) => Home::There(peer.clone()),
            Knowledge::None(None) => Home::Nowhere,
        };
        let homes = self.knowledge.iter().map(home).collect();
        *self.shared.homes.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = homes;
    }
}

/// What became of each payment, given where the records that were sent are; the first one under an id is no duplicate.
fn outcomes(slots: Vec<Slot>, partitions: &[u32], offsets: Option<&[u64]>) -> Vec<Outcome> {
    let mut first = vec![true; partitions.len()];
    let outcome = |slot| match (slot, offsets) {
        (Slot::Done(outcome), _) => outcome,
        (Slot::Sent(_), None) => Outcome::Unsure,
        (Slot::Sent(number), Some(offsets)) => {
            let duplicate = !std::mem::take(&mut first[number]);
            Outcome::Written { partition: partitions[number], offset: offsets[number], duplicate }
        }
    };
    slots.into_iter().map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use hyper::body::Bytes;
    use topology::clock::MockClock;
    use topology::record::Topics;
    use topology::simulated::SimBroker;

    use super::*;
    use crate::ingest::{Counts, ROOM_BYTES};
    use crate::scoring::ScoringParams;

    struct Nobody;

    impl Directory for Nobody {
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

    /// Its own look is at most each tenth of a second.
    fn look(press: &mut Press<SimBroker>) {
        press.looked = None;
        press.look();
    }

    #[test]
    fn ids_are_read_back_once_somebody_asks_and_not_before() {
        let names = ["transactions", "audit", "verdicts"];
        let sim = SimBroker::new(Topics::new(names.map(str::to_owned).to_vec()));
        let [transactions, trail, verdicts] = names.map(|name| sim.create_topic(name, 1));
        let clock = MockClock::at(1_700_000_000_000);
        let params = ScoringParams::default();
        let value = Bytes::from_static(br#"{"user_id":"u","amount":1,"merchant":"m","tx_id":"first"}"#);
        let payment = Payment::read(value, clock.now_ms(), &params, 1).expect("a payment");
        let config = Config {
            transactions,
            partitions: 1,
            trail,
            verdicts,
            user_partitions: 1,
            params,
            dedup_ms: 3_600_000,
            dedup_entries: 1_000,
            alone: true,
        };
        let shared = Arc::new(Shared {
            homes: Mutex::new(vec![Home::Nowhere].into()),
            asked: AtomicBool::new(false),
            began_us: AtomicU64::new(0),
            counts: Counts::default(),
        });
        let broker = Arc::new(sim);
        let mut press = Press::new(
            Arc::clone(&broker),
            Arc::new(config.clone()),
            Arc::new(Nobody),
            Arc::new(clock.clone()),
            Arc::clone(&shared),
        );
        let mut publisher = broker.publisher().expect("a publisher");
        publisher.send(&press.payment(&payment)).expect("room");
        publisher.flush().expect("written");
        for _ in 0..2 {
            look(&mut press);
            assert_eq!((&press.knowledge[0], &press.being_read), (&Knowledge::Unread, &None));
        }
        let (inbox, _taken) = sync_channel(1);
        let room = Arc::new(tokio::sync::Semaphore::new(ROOM_BYTES));
        let verdicts = crate::ingest::Verdicts::start(&broker, config.verdicts);
        let ingest = crate::ingest::Ingest { config: Arc::new(config), inbox, room, shared, verdicts };
        assert_eq!(ingest.home_of(&payment), Home::Reading);
        look(&mut press);
        assert_eq!(press.being_read, Some(vec![0]));
        while ingest.home_of(&payment) != Home::Here {
            look(&mut press);
            std::thread::yield_now();
        }
        let of = payment.fingerprint.expect("it has an id");
        assert_eq!(press.window.find(&of, clock.now_ms()), Some(Place { partition: 0, offset: 0 }));
    }
}
