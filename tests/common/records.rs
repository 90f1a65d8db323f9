//! What is in a topic, and writing to one: by plain librdkafka clients, which share no code with the adapter under test.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, Timestamp, TopicPartitionList};

use super::{PATIENCE, until};

const ANSWER: Duration = Duration::from_secs(10);

/// A record as a read-committed reader sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub partition: u32,
    pub offset: u64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp: i64,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Seen {
    /// A header's text; empty where there is none.
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(other, _)| other == name);
        let value = found.and_then(|(_, value)| value.clone()).unwrap_or_default();
        String::from_utf8(value).expect("text")
    }

    /// The value as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.value.as_deref().unwrap_or_default()).expect("JSON")
    }
}

/// Reads a topic from its beginning on, committed records only.
pub struct Tail {
    consumer: BaseConsumer,
    topic: String,
    /// By partition: at the end of what was there when it was last looked.
    at_end: Vec<bool>,
}

fn reading(address: &str, isolation: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", "tests-read-only").set("enable.auto.commit", "false");
    config.set("isolation.level", isolation).set("enable.partition.eof", "true").set("auto.offset.reset", "error");
    config.set("fetch.wait.max.ms", "20").set("fetch.queue.backoff.ms", "10").set("receive.message.max.bytes", "100000000");
    config.create().expect("a consumer")
}

impl Tail {
    pub fn new(address: &str, topic: &str) -> Self {
        let consumer = reading(address, "read_committed");
        let partitions = partitions_of(&consumer, topic);
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition as i32, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&list).expect("assigned");
        Self { consumer, topic: topic.to_owned(), at_end: vec![false; partitions as usize] }
    }

    /// The next record, if one comes in time.
    pub fn next(&mut self, wait: Duration) -> Option<Seen> {
        match self.consumer.poll(wait)? {
            Ok(message) => {
                self.at_end[message.partition() as usize] = false;
                Some(Seen {
                    partition: message.partition() as u32,
                    offset: message.offset() as u64,
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    timestamp: message.timestamp().to_millis().unwrap_or(-1),
                    headers: message.headers().map(headers_of).unwrap_or_default(),
                })
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                self.at_end[partition as usize] = true;
                None
            }
            // A broker that is away for a while.
            Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure)) => {
                None
            }
            Err(error) => panic!("reading {}: {error}", self.topic),
        }
    }
}

fn headers_of(headers: &rdkafka::message::BorrowedHeaders) -> Vec<(String, Option<Vec<u8>>)> {
    headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
}

fn partitions_of(consumer: &BaseConsumer, topic: &str) -> u32 {
    until(&format!("partitions of {topic}"), || {
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER).ok()?;
        let found = metadata.topics().first().filter(|topic| topic.error().is_none())?;
        (!found.partitions().is_empty()).then(|| found.partitions().len() as u32)
    })
}

/// The end of each partition: of all that was written, or (`read_committed`) of what no open transaction can change any more.
pub fn ends(address: &str, topic: &str, isolation: &str) -> Vec<u64> {
    let consumer = reading(address, isolation);
    // A topic that is being made is known before its partitions answer.
    let bounds =
        |partition| until(&format!("offsets of {topic}"), || consumer.fetch_watermarks(topic, partition as i32, ANSWER).ok());
    (0..partitions_of(&consumer, topic)).map(|partition| bounds(partition).1 as u64).collect()
}

/// All committed records of a topic, once no transaction is open on it: what any reader will ever see of what is there now.
pub fn read_all(address: &str, topic: &str) -> Vec<Seen> {
    let mut all = Vec::new();
    each(address, topic, |seen| all.push(seen));
    all
}

/// As [`read_all`], one after the other; those of a partition in order.
pub fn each(address: &str, topic: &str, mut take: impl FnMut(Seen)) {
    until(&format!("no transaction is open on {topic}"), || {
        (ends(address, topic, "read_committed") == ends(address, topic, "read_uncommitted")).then_some(())
    });
    let mut tail = Tail::new(address, topic);
    let mut progressed = std::time::Instant::now();
    while tail.at_end.iter().any(|at_end| !at_end) {
        if let Some(seen) = tail.next(Duration::from_millis(100)) {
            progressed = std::time::Instant::now();
            take(seen);
        }
        assert!(progressed.elapsed() < PATIENCE, "nothing more of {topic} came within {PATIENCE:?}, and that was not its end");
    }
}

/// A record to write. Its default is one without key, value, timestamp and headers, in partition 0.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    pub partition: u32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp: Option<i64>,
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

/// Writes in order, idempotently; nothing is lost or doubled on the way in.
pub struct Writer {
    producer: BaseProducer,
}

impl Writer {
    pub fn new(address: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address).set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        config.set("message.max.bytes", "20000000").set("queue.buffering.max.messages", "1000000").set("linger.ms", "2");
        Self { producer: config.create().expect("a producer") }
    }

    /// A keyed record, to the partition that librdkafka's murmur2 gives.
    pub fn keyed(&self, topic: &str, key: &[u8], value: &[u8], timestamp: i64) {
        self.send(BaseRecord::to(topic).key(key).payload(value).timestamp(timestamp));
    }

    /// Any record, to the partition that it names.
    pub fn raw(&self, topic: &str, raw: &Raw) {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(raw.partition as i32);
        record.key = raw.key.as_deref();
        record.payload = raw.value.as_deref();
        record.timestamp = raw.timestamp;
        if !raw.headers.is_empty() {
            let headers = raw
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (name, value)| headers.insert(Header { key: name, value: Some(value) }));
            record = record.headers(headers);
        }
        self.send(record);
    }

    fn send(&self, record: BaseRecord<'_, [u8], [u8]>) {
        let mut record = Some(record);
        until("room in the producer", || match self.producer.send(record.take().expect("the record came back")) {
            Ok(()) => Some(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = Some(back);
                self.producer.poll(Duration::from_millis(10));
                None
            }
            Err((error, _)) => panic!("writing: {error}"),
        });
    }

    /// Waits until the broker has everything.
    pub fn flush(&self) {
        until("the broker has what was written", || {
            self.producer.poll(Duration::from_millis(5));
            (self.producer.in_flight_count() == 0).then_some(())
        });
    }

    /// Serves what goes on in the background.
    pub fn serve(&self) {
        self.producer.poll(Duration::ZERO);
    }
}

/// When a record without a time of its own is written: the time that the broker sees.
pub fn now_ms() -> i64 {
    let Timestamp::CreateTime(now) = Timestamp::now() else { unreachable!("rdkafka's now is a create time") };
    now
}
