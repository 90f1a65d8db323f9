//! What the cases are written with: topics, members, readers and patience.

use super::{FILLER_KEY, Harness};
use crate::broker::{Broker, BrokerError, Cleanup, Event, Member, MemberConfig, Publisher, Reaction, Reader, Result, TopicSpec};
use crate::record::{Fetched, Header, Outgoing, Record, TopicId, TopicPartition};

/// The topic that most cases read from, and the lead of their groups.
pub(super) const INPUT: TopicId = TopicId(0);
/// The topic that most cases write to.
pub(super) const OUTPUT: TopicId = TopicId(1);
/// Longer than any harness's patience, so that what ends a transaction is never its timeout.
const LONG_TIMEOUT_MS: u64 = 600_000;
/// Enough for every case that does not test the limit itself.
pub(super) const MAX_RECORDS: usize = 1000;

pub(super) type MemberOf<H> = <<H as Harness>::Broker as Broker>::Member;
pub(super) type ReaderOf<H> = <<H as Harness>::Broker as Broker>::Reader;

/// A partition, briefly.
pub(super) fn at(topic: TopicId, partition: u32) -> TopicPartition {
    TopicPartition { topic, partition }
}

/// A record without headers, briefly.
pub(super) fn record<'a>(to: TopicPartition, key: &'a str, value: &'a str) -> Outgoing<'a> {
    Outgoing { to, key: Some(key.as_bytes()), value: Some(value.as_bytes()), timestamp: 1_700_000_000_000, headers: &[] }
}

/// A record that came, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub from: TopicPartition,
    pub offset: u64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Seen {
    pub fn of(record: &Record<'_>) -> Self {
        let header = |header: Header<'_>| (header.name.to_owned(), header.value.map(<[u8]>::to_vec));
        Self {
            from: record.from,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers().map(header).collect(),
        }
    }

    /// The value as text; "-" is a tombstone.
    pub fn text(&self) -> String {
        self.value.as_ref().map_or_else(|| "-".to_owned(), |value| String::from_utf8_lossy(value).into_owned())
    }
}

/// The values of records, as text.
pub(super) fn texts(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(Seen::text).collect()
}

/// Tries until there is an answer, or patience is over.
pub(super) fn until<H: Harness, T>(harness: &mut H, what: &str, mut attempt: impl FnMut(&mut H) -> Option<T>) -> T {
    harness.begin_waiting();
    loop {
        if let Some(answer) = attempt(harness) {
            return answer;
        }
        assert!(harness.keep_waiting(), "waited in vain for this: {what}");
    }
}

/// Tries for as long as a call asks to be tried again.
pub(super) fn patiently<H: Harness, T>(harness: &mut H, what: &str, mut call: impl FnMut() -> Result<T>) -> T {
    until(harness, what, |_| match call() {
        Ok(answer) => Some(answer),
        Err(error) if error.reaction == Reaction::Retry => None,
        Err(error) => panic!("{what}: {error} ({:?})", error.reaction),
    })
}

/// The error of a call that must fail, tried for as long as it only asks to be tried again.
pub(super) fn refused<H: Harness, T>(harness: &mut H, what: &str, mut call: impl FnMut() -> Result<T>) -> BrokerError {
    until(harness, what, |_| match call() {
        Ok(_) => panic!("{what}: went through, but must be refused"),
        Err(error) if error.reaction == Reaction::Retry => None,
        Err(error) => Some(error),
    })
}

/// A call that must go through at once.
pub(super) fn good<T>(what: &str, result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error} ({:?})", error.reaction))
}

/// Asserts that a call was refused by this reaction.
pub(super) fn assert_reaction(what: &str, error: &BrokerError, allowed: &[Reaction]) {
    assert!(allowed.contains(&error.reaction), "{what}: asked for {:?} ({error}), not one of {allowed:?}", error.reaction);
}

/// A broker with an input and an output topic, and a group on the input.
pub(super) struct Stage<H: Harness> {
    pub broker: H::Broker,
    pub group: String,
}

impl<H: Harness> Stage<H> {
    pub fn new(harness: &mut H, partitions: u32) -> Self {
        Self::with_cleanup(harness, partitions, Cleanup::Delete { retention_ms: None })
    }

    /// The output topic is cleaned up like this.
    pub fn with_cleanup(harness: &mut H, partitions: u32, cleanup: Cleanup) -> Self {
        let broker = harness.open(&["input", "output"]);
        let keep = Cleanup::Delete { retention_ms: None };
        for (topic, cleanup) in [(INPUT, keep), (OUTPUT, cleanup)] {
            let name = broker.topics().name(topic).to_owned();
            let spec = TopicSpec { name, partitions, cleanup, max_message_bytes: None };
            patiently(harness, "create a topic", || broker.create(&spec));
        }
        let group = harness.fresh("group");
        Self { broker, group }
    }

    /// How an instance joins; under exactly-once its identity is also its producer's.
    pub fn config(&self, instance: &str, exactly_once: bool) -> MemberConfig {
        MemberConfig {
            group: self.group.clone(),
            instance: format!("{}-{instance}", self.group),
            transactional_id: exactly_once.then(|| format!("{}-{instance}", self.group)),
            transaction_timeout_ms: LONG_TIMEOUT_MS,
            leads: vec![INPUT],
        }
    }

    pub fn join(&self, harness: &mut H, instance: &str) -> MemberOf<H> {
        let config = self.config(instance, true);
        self.join_as(harness, &config)
    }

    pub fn join_as(&self, harness: &mut H, config: &MemberConfig) -> MemberOf<H> {
        patiently(harness, "join", || self.broker.join(config))
    }

    /// Joins alone and takes whatever the group gives: all partitions of the input.
    pub fn join_alone(&self, harness: &mut H, instance: &str, partitions: usize) -> MemberOf<H> {
        let mut member = self.join(harness, instance);
        take_all(harness, &mut member, partitions);
        member
    }

    /// Publishes values, all under one key, and waits until they are durable.
    pub fn publish(&self, harness: &mut H, to: TopicPartition, values: &[&str]) {
        let mut publisher = good("open a publisher", self.broker.publisher());
        for value in values {
            good("publish", publisher.send(&record(to, "key", value)));
        }
        patiently(harness, "flush the publisher", || publisher.flush());
    }

    pub fn reader(&self, harness: &mut H) -> ReaderOf<H> {
        patiently(harness, "open a reader", || self.broker.reader())
    }

    /// All committed records of a partition from its start, once the position has reached the end.
    pub fn read_all(&self, harness: &mut H, partition: TopicPartition) -> Vec<Seen> {
        let mut reader = self.reader(harness);
        let start = patiently(harness, "bounds", || reader.bounds(partition)).start;
        good("assign", reader.assign(partition, start));
        let mut seen = Vec::new();
        read_to_end::<H>(harness, &mut reader, partition, &mut seen);
        seen
    }
}

/// Reads on until the position has reached the partition's end.
pub(super) fn read_to_end<H: Harness>(
    harness: &mut H,
    reader: &mut ReaderOf<H>,
    partition: TopicPartition,
    seen: &mut Vec<Seen>,
) {
    until(harness, "the reader's position reaches the partition's end", |harness| {
        poll_reader::<H>(harness, reader, seen);
        let end = reader.bounds(partition).ok()?.end;
        reader.position(partition).filter(|position| *position >= end)
    });
}

/// One poll of a reader; records of the harness's own making are passed over.
pub(super) fn poll_reader<H: Harness>(harness: &mut H, reader: &mut ReaderOf<H>, seen: &mut Vec<Seen>) {
    if let Err(error) = try_poll_reader::<H>(harness, reader, seen) {
        assert_eq!(error.reaction, Reaction::Retry, "a reader's poll: {error}");
    }
}

/// One poll of a reader that may fail.
pub(super) fn try_poll_reader<H: Harness>(harness: &mut H, reader: &mut ReaderOf<H>, seen: &mut Vec<Seen>) -> Result<()> {
    let mut fetched = Fetched::default();
    let polled = reader.poll(&mut fetched, MAX_RECORDS, harness.poll_wait());
    seen.extend(fetched.iter().filter(|record| record.key != Some(FILLER_KEY)).map(|record| Seen::of(&record)));
    polled
}

/// One poll of a member.
pub(super) fn poll<H: Harness>(harness: &mut H, member: &mut MemberOf<H>, seen: &mut Vec<Seen>) -> Option<Event> {
    poll_some(harness, member, seen, MAX_RECORDS)
}

/// One poll of a member for at most about so many records.
pub(super) fn poll_some<H: Harness>(
    harness: &mut H,
    member: &mut MemberOf<H>,
    seen: &mut Vec<Seen>,
    max_records: usize,
) -> Option<Event> {
    let mut fetched = Fetched::default();
    let polled = member.poll(&mut fetched, max_records, harness.poll_wait());
    seen.extend(fetched.iter().map(|record| Seen::of(&record)));
    match polled {
        Ok(event) => event,
        Err(error) if error.reaction == Reaction::Retry => None,
        Err(error) => panic!("a member's poll: {error} ({:?})", error.reaction),
    }
}

/// Polls a member that has not started anything, and returns its event.
pub(super) fn listen<H: Harness>(harness: &mut H, member: &mut MemberOf<H>) -> Option<Event> {
    let mut seen = Vec::new();
    let event = poll(harness, member, &mut seen);
    assert!(seen.is_empty(), "records of partitions that were not started: {seen:?}");
    event
}

/// Polls a member until it has been given so many partitions, and acknowledges them.
pub(super) fn take_all<H: Harness>(harness: &mut H, member: &mut MemberOf<H>, partitions: usize) -> Vec<TopicPartition> {
    let mut owned = Vec::new();
    until(harness, "the group gives the member its partitions", |harness| {
        match listen(harness, member) {
            Some(event @ Event::Assigned(_)) => {
                good("acknowledge", member.acknowledge(&event));
                let Event::Assigned(partitions) = event else { unreachable!("matched above") };
                owned.extend(partitions);
            }
            Some(other) => panic!("a member alone in its group was told {other:?}"),
            None => {}
        }
        (owned.len() >= partitions).then_some(())
    });
    owned.sort_unstable();
    assert_eq!(owned.len(), partitions, "a partition was assigned twice: {owned:?}");
    owned
}

/// Commits a transaction that must go through.
pub(super) fn commit<H: Harness>(harness: &mut H, member: &mut MemberOf<H>, offsets: &[(TopicPartition, u64)]) {
    patiently(harness, "commit", || {
        let token = member.token()?;
        member.commit(offsets, token)
    });
}

/// Writes values in a transaction of their own and commits it.
pub(super) fn transact<H: Harness>(harness: &mut H, member: &mut MemberOf<H>, to: TopicPartition, values: &[&str]) {
    good("begin", member.begin());
    for value in values {
        good("send", member.send(&record(to, "key", value)));
    }
    commit(harness, member, &[]);
}

/// Waits until so many offsets of a partition are taken: what was sent has reached the log, committed or not. A broker without control
/// records writes nothing before the commit.
pub(super) fn written<H: Harness>(harness: &mut H, member: &mut MemberOf<H>, partition: TopicPartition, end: u64) {
    if member.markers_per_commit() == 0 {
        return;
    }
    until(harness, "what was sent reaches the log", |harness| {
        // Kafka's clients send while they are polled.
        listen(harness, member);
        member.bounds(partition).ok().filter(|bounds| bounds.end >= end)
    });
}

/// The group's committed offset of a partition.
pub(super) fn committed<H: Harness>(harness: &mut H, member: &mut MemberOf<H>, partition: TopicPartition) -> Option<u64> {
    let wait = harness.poll_wait();
    let offsets = patiently(harness, "committed offsets", || member.committed(&[partition], wait));
    assert_eq!(offsets.len(), 1, "one answer for each partition asked for");
    offsets[0]
}
