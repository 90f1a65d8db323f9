//! Fetching from partitions that it is told, from offsets that it is told: the part that members and readers share.
//!
//! Group membership lives in a client of its own ([`super::member`]). In one and the same client a seek is
//! `incremental_unassign` + `incremental_assign`, and librdkafka takes an unassign that comes while a revocation waits in its queue for
//! the answer to it: the partition would go to another member before this one has committed. Apart, the two cannot touch.
//!
//! Invariants
//! - a record is delivered only from a started partition, and at most once per start: `stop` returns when the partition's fetcher has
//!   stopped; what it had queued is outdated then and librdkafka drops it;
//! - offsets only grow between two starts of a partition;
//! - pausing is stopping and remembering: librdkafka's own pause goes on at ITS idea of the position, which a start at a lower offset
//!   does not take back.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use topology::broker::{BrokerError, Reaction, Result};
use topology::record::{Fetched, TopicId, TopicPartition, Topics};

use super::admin::Desk;
use super::context::Plain;
use super::errors;
use super::native::{self, Batch, Message, Queue, Topic};

/// Messages taken from the queue at once: bounds the pointers kept, not what a poll returns.
const CHUNK: usize = 1024;

/// One started partition.
struct Place {
    /// The next offset to deliver.
    next: u64,
    /// True once the broker answered: a record or the end was seen.
    known: bool,
    paused: bool,
}

/// A client that fetches.
pub(super) struct Fetcher {
    topics: Topics,
    places: BTreeMap<TopicPartition, Place>,
    /// What went wrong behind records that were delivered: for the next poll.
    failed: Option<BrokerError>,
    batch: Batch,
    handles: Vec<Option<Topic>>,
    queue: Arc<Queue>,
    client: Arc<BaseConsumer<Plain>>,
    desk: Arc<Desk>,
    /// A poll ends when the arena holds this much, whatever the number of records.
    poll_bytes: usize,
}

impl Fetcher {
    /// A client that holds about `buffer` bytes and hands over about `poll_bytes` at once.
    pub(super) fn new(desk: Arc<Desk>, topics: Topics, buffer: usize, poll_bytes: usize) -> Result<Self> {
        let client: BaseConsumer<Plain> = desk
            .config()
            .fetching(buffer)
            .create_with_context(Plain::default())
            .map_err(|error| errors::of_read("creating a consumer", &error))?;
        let client = Arc::new(client);
        let owner: Arc<dyn Any + Send + Sync> = client.clone();
        let queue = Arc::new(Queue::new(client.client(), owner));
        let handles = topics.iter().map(|_| None).collect();
        Ok(Self {
            topics,
            places: BTreeMap::new(),
            failed: None,
            batch: Batch::default(),
            handles,
            queue,
            client,
            desk,
            poll_bytes,
        })
    }

    /// Connects, and looks up topics that will be fetched; to be called from any thread.
    pub(super) fn connecting(&self, topics: &[TopicId], wait: Duration) -> impl FnOnce() + Send + use<> {
        let client = Arc::clone(&self.client);
        let handle = |topic: &TopicId| {
            let owner: Arc<dyn Any + Send + Sync> = self.client.clone();
            Topic::new(self.client.client(), owner, self.topics.name(*topic)).ok()
        };
        let handles: Vec<_> = topics.iter().map(handle).collect();
        // What does not work now is tried again, and told, when a partition is started.
        move || {
            let _unconnected = native::connect(client.client(), wait);
            drop(handles);
        }
    }

    /// Ends a wait in [`Self::fill`], from any thread.
    pub(super) fn waker(&self) -> Arc<Queue> {
        self.queue.clone()
    }

    /// Fetches from `offset` on; a seek where the partition was started before.
    pub(super) fn start(&mut self, partition: TopicPartition, offset: u64) -> Result<()> {
        self.stop(partition)?;
        self.fetch(partition, offset)?;
        self.places.insert(partition, Place { next: offset, known: false, paused: false });
        Ok(())
    }

    /// Fetches no more, and delivers nothing of what was fetched.
    pub(super) fn stop(&mut self, partition: TopicPartition) -> Result<()> {
        match self.places.remove(&partition) {
            Some(place) if !place.paused => self.halt(partition),
            _ => Ok(()),
        }
    }

    pub(super) fn pause(&mut self, partition: TopicPartition) -> Result<()> {
        match self.places.get_mut(&partition) {
            Some(place) if !place.paused => {
                place.paused = true;
                self.halt(partition)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn resume(&mut self, partition: TopicPartition) -> Result<()> {
        match self.places.get_mut(&partition) {
            Some(place) if place.paused => {
                place.paused = false;
                let next = place.next;
                self.fetch(partition, next)
            }
            _ => Ok(()),
        }
    }

    /// The next offset to deliver, once the broker answered.
    pub(super) fn position(&self, partition: TopicPartition) -> Option<u64> {
        self.places.get(&partition).filter(|place| place.known).map(|place| place.next)
    }

    /// Appends what is there, at most about `max_records`; waits up to `wait` where there is nothing.
    pub(super) fn fill(&mut self, into: &mut Fetched, max_records: usize, wait: Duration) -> Result<()> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        self.serve_events()?;
        let before = into.len();
        let mut taken = self.take(into, max_records.min(CHUNK), Duration::ZERO);
        if taken == 0 && max_records > 0 {
            // The wait is for one message: with more, librdkafka would wait until all of them are there.
            taken = self.take(into, 1, wait);
        }
        while taken > 0 && self.failed.is_none() && into.bytes() < self.poll_bytes {
            let left = max_records.saturating_sub(into.len() - before);
            if left == 0 {
                break;
            }
            taken = self.take(into, left.min(CHUNK), Duration::ZERO);
        }
        match self.failed.take_if(|_| into.len() == before) {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }

    fn take(&mut self, into: &mut Fetched, max: usize, wait: Duration) -> usize {
        let messages = self.queue.take(&mut self.batch, max, wait);
        let mut run: Option<(TopicPartition, &mut Place)> = None;
        for message in messages.iter() {
            let same = run
                .as_ref()
                .is_some_and(|(at, _)| at.partition == message.partition() && is_topic(&self.handles, at.topic, &message));
            if !same {
                let Some(topic) = find_topic(&self.handles, &message) else { continue };
                let at = TopicPartition { topic, partition: message.partition() };
                run = self.places.get_mut(&at).map(|place| (at, place));
            }
            let Some((at, place)) = &mut run else { continue };
            if let Some(code) = message.error() {
                if let Err(failed) = note_event(&self.desk, &self.topics, *at, place, code, &message) {
                    self.failed.get_or_insert(failed);
                }
            } else if message.offset() >= place.next as i64 {
                let offset = message.offset() as u64;
                into.push(*at, offset, message.timestamp(), message.key(), message.value(), message.headers());
                place.next = offset + 1;
                place.known = true;
            }
        }
        messages.len()
    }

    /// Client-wide errors come through the client's own queue. Connections mend themselves; a refusal does not.
    fn serve_events(&self) -> Result<()> {
        match self.client.poll(Duration::ZERO) {
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(errors::is_refused) => {
                let last = self.client.context().diary.last().unwrap_or_default();
                Err(BrokerError::new(
                    Reaction::Stop,
                    format!("reading from {}: {error}: {last}", self.desk.config().bootstrap_servers),
                ))
            }
            _ => Ok(()),
        }
    }

    fn fetch(&mut self, partition: TopicPartition, offset: u64) -> Result<()> {
        let at = usize::from(partition.topic.0);
        let name = self.topics.name(partition.topic);
        let failed = |code: Code| BrokerError::new(errors::reaction_of_read(Some(code)), format!("reading topic {name}: {code}"));
        if self.handles[at].is_none() {
            let owner: Arc<dyn Any + Send + Sync> = self.client.clone();
            self.handles[at] = Some(Topic::new(self.client.client(), owner, name).map_err(failed)?);
        }
        let handle = self.handles[at].as_ref().expect("invariant: made above");
        handle.start(partition.partition, offset, &self.queue).map_err(failed)
    }

    fn halt(&self, partition: TopicPartition) -> Result<()> {
        let handle =
            self.handles[usize::from(partition.topic.0)].as_ref().expect("invariant: a started partition's topic has a handle");
        handle.stop(partition.partition).map_err(|code| {
            let name = self.topics.name(partition.topic);
            BrokerError::new(errors::reaction_of_read(Some(code)), format!("stopping topic {name}: {code}"))
        })
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        // librdkafka wants its legacy consumers stopped before their client goes.
        for partition in std::mem::take(&mut self.places).into_iter().filter(|(_, place)| !place.paused).map(|(at, _)| at) {
            if let Err(error) = self.halt(partition) {
                tracing::debug!(%error, "closing a fetcher");
            }
        }
    }
}

fn is_topic(handles: &[Option<Topic>], topic: TopicId, message: &Message<'_>) -> bool {
    handles[usize::from(topic.0)].as_ref().is_some_and(|handle| handle.is(message))
}

fn find_topic(handles: &[Option<Topic>], message: &Message<'_>) -> Option<TopicId> {
    let at = handles.iter().position(|handle| handle.as_ref().is_some_and(|handle| handle.is(message)))?;
    Some(TopicId(at as u16))
}

/// Notes the end of a partition; tells errors that do not mend themselves.
fn note_event(
    desk: &Desk,
    topics: &Topics,
    at: TopicPartition,
    place: &mut Place,
    code: Code,
    message: &Message<'_>,
) -> Result<()> {
    let (name, partition) = (topics.name(at.topic), at.partition);
    match code {
        Code::PartitionEOF => {
            // The last stable offset, when everything below has been passed: control records, aborted ones and compacted gaps too.
            place.next = place.next.max(message.offset().max(0) as u64);
            place.known = true;
            Ok(())
        }
        Code::AutoOffsetReset | Code::OffsetOutOfRange => {
            let next = place.next;
            let what = match desk.bounds(name, partition) {
                Ok(bounds) => format!(
                    "topic {name}, partition {partition}: offset {next} does not exist (log start {}, end {})",
                    bounds.start, bounds.end
                ),
                Err(error) => format!("topic {name}, partition {partition}: offset {next} does not exist ({error})"),
            };
            Err(BrokerError::new(Reaction::Stop, what))
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            Err(BrokerError::new(Reaction::Retry, format!("topic {name}, partition {partition} does not exist")))
        }
        code if errors::is_refused(code) => Err(BrokerError::new(Reaction::Stop, format!("reading topic {name}: {code}"))),
        // Leader changes, lost connections: librdkafka goes on by itself.
        code => {
            tracing::debug!(topic = name, partition, %code, text = message.error_text(), "fetching");
            Ok(())
        }
    }
}
