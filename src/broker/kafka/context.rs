//! What librdkafka calls back: its log, rebalances, and failed or finished deliveries.
//!
//! A callback only notes what happened; the worker's thread acts on it when its call into the client has returned.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use topology::broker::Event;
use topology::record::{TopicPartition, Topics};

use super::deadline::Deadline;

/// How long a closing group client has to end before it is answered again.
const CLOSING_GRACE: Duration = Duration::from_millis(500);

/// The last words of a client's connections: what a person needs to know when no broker answers.
#[derive(Default)]
pub(super) struct Diary(Mutex<Option<String>>);

impl Diary {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if matches!(facility, "FAIL" | "ERROR") {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
        }
        match level {
            // All properties are given to all clients; librdkafka warns of each that is not of the client's kind.
            _ if facility == "CONFWARN" => tracing::debug!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(target: "librdkafka", facility, "{text}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::info!(target: "librdkafka", facility, "{text}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{text}"),
        }
    }

    fn error(&self, error: &KafkaError, reason: &str) {
        // Why each of them is down was said before, and is what a person needs.
        let known = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        let facility = if known { "DOWN" } else { "ERROR" };
        self.log(RDKafkaLogLevel::Info, facility, &format!("{error}: {reason}"));
    }

    /// The last failure of a connection, without librdkafka's thread names.
    pub(super) fn last(&self) -> Option<String> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(text.rsplit_once("]: ").map_or(text.clone(), |(_, tail)| tail.to_owned()))
    }
}

/// The context of clients that only ask (metadata, watermarks) or fetch.
#[derive(Default)]
pub(super) struct Plain {
    pub(super) diary: Diary,
}

impl ClientContext for Plain {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.diary.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.diary.error(&error, reason);
    }
}

impl ConsumerContext for Plain {}

/// The context of a group member: notes what the group decided.
pub(super) struct Rebalances {
    topics: Topics,
    events: Mutex<VecDeque<Event>>,
    /// The answer that librdkafka waits for: true to an assignment, false to a revocation or loss.
    unanswered: Mutex<Option<bool>>,
    closing: AtomicBool,
    /// True once a decision was answered while closing.
    closed_one: AtomicBool,
    diary: Diary,
}

impl Rebalances {
    pub(super) fn new(topics: Topics) -> Self {
        let (events, unanswered) = (Mutex::default(), Mutex::default());
        let (closing, closed_one) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { topics, events, unanswered, closing, closed_one, diary: Diary::default() }
    }

    /// The next decision, in order.
    pub(super) fn next(&self) -> Option<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From here on decisions are answered at once, and the one that still waits for its answer first: the consumer is being closed,
    /// which would wait for ever.
    pub(super) fn close(&self, consumer: &BaseConsumer<Self>) {
        self.closing.store(true, Ordering::Relaxed);
        if let Err(error) = self.answer(consumer) {
            tracing::debug!(%error, "closing a group member");
        }
    }

    /// Completes the decision that waits for it; the group goes on. The list is empty always: this client fetches nothing.
    pub(super) fn answer(&self, consumer: &BaseConsumer<Self>) -> KafkaResult<()> {
        let none = TopicPartitionList::new();
        let unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).take();
        match unanswered {
            Some(true) => consumer.incremental_assign(&none),
            Some(false) => consumer.incremental_unassign(&none),
            None => Ok(()),
        }
    }

    /// Answers while the client is being closed.
    ///
    /// Closing in the middle of a rebalance makes librdkafka (2.12.1) ask twice, and the answer to the first question may end the
    /// group client: it then drops the second answer without a reply, and the caller waits for ever. So a second answer is given only
    /// when the client has plainly not ended.
    fn answer_while_closing(&self, consumer: &BaseConsumer<Self>) -> KafkaResult<()> {
        if self.closed_one.swap(true, Ordering::Relaxed) {
            let deadline = Deadline::after(CLOSING_GRACE);
            while deadline.pass(CLOSING_GRACE / 100) {
                if consumer.closed() {
                    return Ok(());
                }
            }
        }
        self.answer(consumer)
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        let mut partitions: Vec<_> = list
            .elements()
            .iter()
            .filter_map(|e| Some(TopicPartition { topic: self.topics.find(e.topic())?, partition: e.partition() as u32 }))
            .collect();
        partitions.sort_unstable();
        partitions
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.diary.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.diary.error(&error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: rd_kafka_resp_err_t, list: &mut TopicPartitionList) {
        let assigned = kind == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let partitions = self.partitions(list);
        *self.unanswered.lock().unwrap_or_else(PoisonError::into_inner) = Some(assigned);
        // The cooperative protocol ends each rebalance with an assignment, which is mostly empty: nothing for the worker to do.
        let closing = self.closing.load(Ordering::Relaxed);
        if closing || partitions.is_empty() {
            let answered = if closing { self.answer_while_closing(consumer) } else { self.answer(consumer) };
            if let Err(error) = answered {
                tracing::warn!(%error, "answering a rebalance");
            }
            return;
        }
        let event = match assigned {
            true => Event::Assigned(partitions),
            false if consumer.assignment_lost() => Event::Lost(partitions),
            false => Event::Revoked(partitions),
        };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
    }
}

/// Where one record went: what [`Deliveries`] notes for a publisher.
pub(super) type Delivered = (usize, u64);

/// The context of a producer: notes the first failure since it was last asked, and offsets where they are wanted.
pub(super) struct Deliveries {
    first_failure: Mutex<Option<(String, RDKafkaErrorCode)>>,
    delivered: Mutex<Vec<Delivered>>,
    diary: Diary,
}

impl Deliveries {
    pub(super) fn new() -> Self {
        Self { first_failure: Mutex::default(), delivered: Mutex::default(), diary: Diary::default() }
    }

    /// The topic and cause of the first record that failed since the last call.
    pub(super) fn take_failure(&self) -> Option<(String, RDKafkaErrorCode)> {
        self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Moves what was delivered, as (number given at send, offset), to the end of `into`.
    pub(super) fn take_delivered(&self, into: &mut Vec<Delivered>) {
        into.append(&mut self.delivered.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.diary.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.diary.error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(message) => {
                let mut delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner);
                delivered.push((number, message.offset() as u64));
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| (message.topic().to_owned(), code));
            }
        }
    }
}
