//! The producer of a member or publisher: hands records over, delivers them, ends transactions.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};
use topology::broker::{BrokerError, MemberConfig, Reaction, Result, TopicInfo};
use topology::record::{Outgoing, TopicId, TopicPartition, Topics};

use super::admin::Desk;
use super::config::{Extremes, SENT_ONCE};
use super::context::{Delivered, Deliveries};
use super::deadline::Deadline;
use super::errors;
use super::native::{self, GroupMetadata, Topic};
use super::reports::Reports;

/// A batch's header and a record's own fields at their largest, beside keys, values and headers.
const RECORD_OVERHEAD: usize = 61 + 40;
/// Lengths of one header's name and value.
const HEADER_OVERHEAD: usize = 10;
/// The broker's default `max.message.bytes`, for topics whose limit is not told.
pub(super) const DEFAULT_LIMIT: u32 = 1_048_588;

/// The largest batch each topic takes, none where the broker does not tell.
pub(super) type Limits = Arc<[Option<u32>]>;

/// The limits of described topics.
pub(super) fn limits_of(topics: &[Option<TopicInfo>]) -> Limits {
    topics.iter().map(|info| info.as_ref().and_then(|info| info.max_message_bytes)).collect()
}

/// The smallest limit of all topics, since librdkafka has one batch size for all of them, and the largest, since it has one queue.
pub(super) fn extremes(limits: &Limits) -> Extremes {
    let told = || limits.iter().flatten().copied();
    Extremes { smallest: told().fold(DEFAULT_LIMIT, u32::min), largest: told().fold(DEFAULT_LIMIT, u32::max) }
}

/// For a coordinator to end what somebody left open.
const ENDING: Duration = Duration::from_secs(5);

/// Initialises a transactional id with a producer that does nothing else.
pub(super) fn end_transactions_of(desk: &Desk, topics: &Topics, transactional_id: &str) -> Result<()> {
    let config = MemberConfig {
        group: String::new(),
        instance: String::new(),
        transactional_id: Some(transactional_id.to_owned()),
        transaction_timeout_ms: 10_000,
        leads: Vec::new(),
    };
    let limits: Limits = topics.iter().map(|_| None).collect();
    let config = desk.config().writing(&config, extremes(&limits));
    Sender::open(&config, topics, &limits, &[], ENDING).map(drop)
}

/// The longest wait of one call for a producer's first answer before it is looked at whether the coordinator is busy.
const LOOK: Duration = Duration::from_millis(20);
/// Between two questions to a coordinator that is ending a transaction: it takes as long as writing a marker to each partition.
const BUSY: Duration = Duration::from_millis(10);
/// For the first connection of a producer. One that takes longer is waited for where it is needed.
const CONNECTING: Duration = Duration::from_secs(1);

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By the only request to end it, and with the only one that carried its offsets.
    Once,
    /// Perhaps by the second one: librdkafka repeats a request whose connection broke. The first one may arrive yet, and would end the
    /// NEXT transaction in the middle, or put its offsets back (KIP-890). A new epoch refuses it: the producer must be opened again.
    Repeated,
    /// It was to be aborted, but the coordinator knew of no transaction: librdkafka purged it before its first partition was registered
    /// (registering waits while the transaction before is being completed) but sends the end of it all the same. The producer must
    /// be opened again.
    Never,
}

/// One producer.
pub(super) struct Sender {
    topics: Topics,
    limits: Limits,
    handles: Vec<Option<Topic>>,
    producer: Arc<BaseProducer<Deliveries>>,
    /// How long a record may take, and the end of a transaction.
    timeout: Duration,
    /// What it hears of its records.
    reports: Reports,
    /// A request that belongs to the transaction was perhaps repeated.
    repeated: Cell<bool>,
}

impl Sender {
    pub(super) fn new(config: &ClientConfig, topics: Topics, limits: Limits, timeout: Duration) -> Result<Self> {
        let producer = config.create_with_context(Deliveries::new()).map_err(|error| {
            BrokerError::new(Reaction::Stop, format!("Kafka producer: {}", super::config::explain("configuration", &error)))
        })?;
        let handles = topics.iter().map(|_| None).collect();
        let reports = Reports::of(config);
        Ok(Self { topics, limits, handles, producer: Arc::new(producer), timeout, reports, repeated: Cell::new(false) })
    }

    /// A new producer that takes its transactional id over: ends what a predecessor left open and refuses what still is under way from
    /// it.
    ///
    /// A coordinator that has a transaction to end says so and is to be asked again; librdkafka does that after 500 ms, whatever is
    /// set. A new producer asks at once. The old one has its answer and asks no more, so nothing of it can come late.
    ///
    /// `outputs` are looked up meanwhile: the first transaction need not wait for that.
    pub(super) fn open(
        config: &ClientConfig,
        topics: &Topics,
        limits: &Limits,
        outputs: &[TopicId],
        timeout: Duration,
    ) -> Result<Self> {
        let deadline = Deadline::after(timeout);
        loop {
            let mut sender = Self::new(config, topics.clone(), Arc::clone(limits), timeout)?;
            outputs.iter().try_for_each(|&topic| sender.prepare(topic))?;
            sender.connect();
            match sender.initialise(deadline) {
                Err(error) if is_busy(&error) && deadline.pass(BUSY) => {}
                done => return done.map(|()| sender).map_err(|error| errors::of_open(&error)),
            }
        }
    }

    /// Connects before anything is asked: librdkafka's own wait for a first connection looks twice a second.
    fn connect(&self) {
        // Where it fails the question fails as well, and says why.
        let _unconnected = native::connect(self.producer.client(), CONNECTING);
    }

    /// Asks until there is an answer, or the coordinator says that it is busy.
    fn initialise(&self, deadline: Deadline) -> std::result::Result<(), KafkaError> {
        loop {
            match self.producer.init_transactions(LOOK) {
                Err(error) if !is_busy(&error) && is_unfinished(&error) && !deadline.is_over() => {}
                done => return done,
            }
        }
    }

    pub(super) fn begin(&self) -> Result<()> {
        // What failed before this transaction was that one's affair.
        self.serve();
        self.producer.context().take_failure();
        self.producer.begin_transaction().map_err(|error| errors::of_end("beginning a transaction", &error))
    }

    /// Hands a record over; `number` comes back with its delivery. Waits while the buffer is full.
    pub(super) fn send(&mut self, record: &Outgoing<'_>, number: usize) -> Result<()> {
        self.check_size(record)?;
        self.prepare(record.to.topic)?;
        let mut deadline = None;
        loop {
            let handle = self.handles[usize::from(record.to.topic.0)].as_ref().expect("invariant: prepared above");
            match native::produce(self.producer.client(), handle, record, number) {
                Ok(()) => return Ok(()),
                Err(Code::QueueFull) => {
                    if deadline.get_or_insert_with(|| Deadline::after(self.timeout)).is_over() {
                        let what =
                            format!("the producer's buffer stayed full for {:?}: the broker does not keep up", self.timeout);
                        return Err(BrokerError::new(Reaction::Abort, what));
                    }
                    self.producer.poll(Duration::from_millis(1));
                }
                Err(code) => return Err(self.refusal(record.to, code)),
            }
        }
    }

    /// Serves delivery reports and errors; never waits.
    pub(super) fn serve(&self) {
        self.reports.serve(|| self.producer.in_flight_count(), || self.producer.poll(Duration::ZERO));
    }

    /// Waits until nothing is in flight and tells the first failure.
    pub(super) fn flush(&self) -> Result<()> {
        let deadline = Deadline::after(self.timeout + self.reports.slice());
        while self.producer.in_flight_count() > 0 {
            native::flush(self.producer.client(), self.reports.slice());
            self.serve();
            if deadline.is_over() {
                return Err(BrokerError::new(Reaction::Abort, format!("records are not acknowledged within {:?}", self.timeout)));
            }
        }
        match self.producer.context().take_failure() {
            None => Ok(()),
            Some((topic, code)) => Err(self.fatal("writing").unwrap_or_else(|| errors::of_delivery(&topic, code))),
        }
    }

    /// Moves what was delivered, as (number given at send, offset), to the end of `into`.
    pub(super) fn take_delivered(&self, into: &mut Vec<Delivered>) {
        self.producer.context().take_delivered(into);
    }

    /// Adds offsets to the transaction, in the name of the member that `token` proves.
    pub(super) fn add_offsets(&self, offsets: &rdkafka::TopicPartitionList, token: &GroupMetadata) -> Result<()> {
        let done = self.timed(|| token.send_offsets(self.producer.client(), offsets, self.timeout));
        done.map_err(|error| errors::of_send_offsets(&error))
    }

    /// Makes a request, and notes where it took so long that librdkafka may have repeated it.
    fn timed<T>(&self, ask: impl FnOnce() -> T) -> T {
        let once = Deadline::after(SENT_ONCE);
        let answer = ask();
        if once.is_over() {
            self.repeated.set(true);
        }
        answer
    }

    fn ended(&self) -> Ended {
        if self.repeated.get() { Ended::Repeated } else { Ended::Once }
    }

    /// Commits the transaction. Call only when nothing is in flight: rdkafka's own flush in here waits in steps of 100 ms.
    pub(super) fn commit(&self) -> Result<Ended> {
        let done = self.timed(|| self.producer.commit_transaction(self.timeout));
        done.map(|()| self.ended()).map_err(|error| errors::of_end("committing a transaction", &error))
    }

    /// Aborts the transaction and forgets what was in flight.
    pub(super) fn abort(&self) -> Result<Ended> {
        let (producer, timeout) = (&*self.producer, self.timeout);
        // librdkafka purges what is in flight and waits until its failure reports are served, which only this thread does.
        let done = self.timed(|| {
            std::thread::scope(|scope| {
                let aborting = scope.spawn(|| producer.abort_transaction(timeout));
                while !aborting.is_finished() {
                    producer.poll(Duration::from_millis(1));
                }
                aborting.join().expect("invariant: aborting does not panic")
            })
        });
        self.producer.context().take_failure();
        match done {
            Ok(()) => Ok(self.ended()),
            Err(KafkaError::Transaction(error)) if error.code() == Code::InvalidTransactionalState => Ok(Ended::Never),
            Err(error) => Err(match errors::of_end("aborting a transaction", &error) {
                // An abort that failed is never answered with "abort it": only a new epoch helps.
                BrokerError { reaction: Reaction::Abort, what } => BrokerError::new(Reaction::Unknown, what),
                other => other,
            }),
        }
    }

    /// Refuses what the topic would refuse later, when the whole transaction would fail with it, again and again.
    fn check_size(&self, record: &Outgoing<'_>) -> Result<()> {
        let Some(limit) = self.limits[usize::from(record.to.topic.0)] else { return Ok(()) };
        let headers: usize = record.headers.iter().map(|h| HEADER_OVERHEAD + h.name.len() + h.value.map_or(0, <[u8]>::len)).sum();
        let size = RECORD_OVERHEAD + headers + record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        if size <= limit as usize { Ok(()) } else { Err(self.too_large(record.to, &format!("{size} bytes, limit {limit}"))) }
    }

    fn too_large(&self, to: TopicPartition, why: &str) -> BrokerError {
        BrokerError::new(Reaction::TooLarge, format!("a record is larger than topic {} takes: {why}", self.topics.name(to.topic)))
    }

    fn prepare(&mut self, topic: TopicId) -> Result<()> {
        let slot = &mut self.handles[usize::from(topic.0)];
        if slot.is_none() {
            let owner: Arc<dyn Any + Send + Sync> = self.producer.clone();
            let name = self.topics.name(topic);
            *slot = Some(Topic::new(self.producer.client(), owner, name).map_err(|code| errors::of_delivery(name, code))?);
        }
        Ok(())
    }

    fn refusal(&self, to: TopicPartition, code: Code) -> BrokerError {
        if errors::is_too_large(code) {
            return self.too_large(to, &code.to_string());
        }
        self.fatal("writing").unwrap_or_else(|| errors::of_delivery(self.topics.name(to.topic), code))
    }

    /// The error that ended this producer, if one did.
    fn fatal(&self, doing: &str) -> Option<BrokerError> {
        let (code, text) = self.producer.client().fatal_error()?;
        Some(errors::of_fatal(doing, code, &text))
    }
}

/// The coordinator has a transaction to end before it gives the id to anybody.
fn is_busy(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(inner) if inner.code() == Code::ConcurrentTransactions)
}

/// The wait was over before the answer came; it goes on with the next call.
fn is_unfinished(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(inner) if inner.is_retriable() && !inner.is_fatal())
}
