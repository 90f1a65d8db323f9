//! Topics: what is there, how far partitions reach, and creating what is missing.
//!
//! The [`Desk`] is the one client that all members and readers of a broker ask; it reads uncommitted, because the end of a partition is
//! its high watermark.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use topology::broker::{Bounds, BrokerError, Cleanup, Kept, Reaction, Result, TopicInfo, TopicSpec};

use super::config::{KafkaConfig, explain};
use super::context::Plain;
use super::deadline::Deadline;
use super::errors;

/// Between two looks at whether a new topic is known.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Outputs carry the times of the input's records, whatever these are. Kafka from 4.0 on refuses times more than an hour ahead, and an
/// operator may have bounded the past: a record that the input took and an output refuses would hold the stream up for ever.
const ANY_TIME: [(&str, &str); 2] =
    [("message.timestamp.before.max.ms", "9223372036854775807"), ("message.timestamp.after.max.ms", "9223372036854775807")];

/// How long a question waits before it is looked at whether any broker can be reached.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// What happened to the connections.
#[derive(Clone, Copy, Default)]
struct News {
    /// A broker does not accept us.
    refused: bool,
    /// No broker takes a connection.
    unreachable: bool,
}

/// Asks the broker about topics and offsets; shared by all that need it.
pub(super) struct Desk {
    config: KafkaConfig,
    client: BaseConsumer<Plain>,
    /// Made when it is first needed.
    admin: Mutex<Option<Arc<Admin>>>,
}

type Admin = AdminClient<Plain>;

impl Drop for Desk {
    fn drop(&mut self) {
        // Its end takes up to 100 ms, which nobody has to wait for.
        let admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(admin) = admin {
            drop(std::thread::Builder::new().name("closing".into()).spawn(move || drop(admin)));
        }
    }
}

impl Desk {
    pub(super) fn new(config: KafkaConfig) -> Result<Self> {
        config.check()?;
        let client = config
            .asking()
            .create_with_context(Plain::default())
            .map_err(|error| BrokerError::new(Reaction::Stop, format!("Kafka: {}", explain("configuration", &error))))?;
        Ok(Self { config, client, admin: Mutex::default() })
    }

    pub(super) fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// Log start and high watermark.
    pub(super) fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds> {
        let answer = self.client.fetch_watermarks(topic, partition as i32, self.config.request_timeout());
        let (start, end) = answer.map_err(|error| self.no_offsets(topic, &error))?;
        Ok(Bounds { start: start as u64, end: end as u64 })
    }

    /// Log starts and high watermarks of many partitions, by two questions to each of their leaders.
    pub(super) fn bounds_of(&self, partitions: &[(&str, u32)]) -> Result<Vec<Bounds>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let (starts, ends) = (self.offsets_at(partitions, Offset::Beginning)?, self.offsets_at(partitions, Offset::End)?);
        Ok(starts.into_iter().zip(ends).map(|(start, end)| Bounds { start, end }).collect())
    }

    fn offsets_at(&self, partitions: &[(&str, u32)], at: Offset) -> Result<Vec<u64>> {
        let doing = "asking for offsets";
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            let added = list.add_partition_offset(topic, *partition as i32, at);
            added.map_err(|error| self.failed(doing, &error))?;
        }
        let answer = self.client.offsets_for_times(list, self.config.request_timeout());
        let answer = answer.map_err(|error| {
            let mut topics: Vec<&str> = partitions.iter().map(|(topic, _)| *topic).collect();
            topics.sort_unstable();
            topics.dedup();
            let failed = topics.into_iter().map(|topic| self.no_offsets(topic, &error)).last();
            failed.expect("invariant: the caller asks for some")
        })?;
        let found = partitions.iter().map(|(topic, partition)| {
            let missing = || BrokerError::new(Reaction::Retry, format!("{doing}: no answer for topic {topic}"));
            let found = answer.find_partition(topic, *partition as i32).ok_or_else(missing)?;
            found.error().map_err(|error| self.no_offsets(topic, &error))?;
            found.offset().to_raw().and_then(|offset| u64::try_from(offset).ok()).ok_or_else(missing)
        });
        found.collect()
    }

    fn no_offsets(&self, topic: &str, error: &KafkaError) -> BrokerError {
        if error.rdkafka_error_code() == Some(Code::UnknownPartition) {
            // A broker that is starting may name a topic without all of its partitions, and librdkafka keeps that for minutes.
            drop(self.metadata(topic));
        }
        self.failed(&format!("asking for offsets of topic {topic}"), error)
    }

    /// What the broker knows of these topics.
    pub(super) fn describe(&self, names: &[&str]) -> Result<Vec<Option<TopicInfo>>> {
        let mut found = self.partitions_of(names)?;
        let there: Vec<usize> = (0..names.len()).filter(|&at| found[at].is_some()).collect();
        if there.is_empty() {
            return Ok(found);
        }
        let resources: Vec<_> = there.iter().map(|&at| ResourceSpecifier::Topic(names[at])).collect();
        let answer = block_on(self.admin()?.describe_configs(&resources, &self.options()));
        // Describing needs a grant of its own; without it everything works and limits are unknown.
        let resources = answer.unwrap_or_default();
        for (&at, resource) in there.iter().zip(resources) {
            if let (Some(info), Ok(resource)) = (&mut found[at], resource) {
                info.max_message_bytes = property(&resource, "max.message.bytes").and_then(|limit| limit.parse().ok());
                info.kept = kept(&resource);
            }
        }
        Ok(found)
    }

    /// Creates a topic and waits until its partitions have leaders.
    pub(super) fn create(&self, spec: &TopicSpec) -> Result<()> {
        let doing = format!("creating topic {}", spec.name);
        let mut refusal = self.try_create(spec, &ANY_TIME, &doing)?;
        if refusal == Some(Code::InvalidConfig) {
            // A Kafka before 3.6, which takes any time unless someone configured otherwise.
            refusal = self.try_create(spec, &[], &doing)?;
        }
        match refusal {
            None | Some(Code::TopicAlreadyExists) => self.wait_for(&spec.name, &doing),
            Some(code) => {
                let retry = matches!(
                    code,
                    Code::RequestTimedOut | Code::NotController | Code::OperationTimedOut | Code::ThrottlingQuotaExceeded
                );
                let reaction = if retry { Reaction::Retry } else { Reaction::Stop };
                Err(BrokerError::new(reaction, format!("{doing}: {code}")))
            }
        }
    }

    /// What the broker has against the topic, if anything.
    fn try_create(&self, spec: &TopicSpec, more: &[(&'static str, &str)], doing: &str) -> Result<Option<Code>> {
        let properties = properties_of(spec);
        // -1: the broker's own default replication, and its own min.insync.replicas with it.
        let mut topic = NewTopic::new(&spec.name, spec.partitions as i32, TopicReplication::Fixed(-1));
        for (name, value) in properties.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()) {
            topic = topic.set(name, value);
        }
        let answer = block_on(self.admin()?.create_topics([&topic], &self.options()));
        let answer = answer.map_err(|error| self.failed(doing, &error))?;
        Ok(answer.into_iter().find_map(|result| result.err().map(|(_, code)| code)))
    }

    /// The partitions of each topic. The first question connects, where that was not done; the others go out together.
    fn partitions_of(&self, names: &[&str]) -> Result<Vec<Option<TopicInfo>>> {
        let info = |name: &str| {
            let partitions = self.partitions(name)?;
            Ok(partitions.map(|partitions| TopicInfo { partitions, max_message_bytes: None, kept: None }))
        };
        let Some((first, others)) = names.split_first() else { return Ok(Vec::new()) };
        let mut found = vec![info(first)?];
        let others = std::thread::scope(|scope| {
            let asking: Vec<_> = others.iter().map(|name| scope.spawn(move || info(name))).collect();
            let answers = asking.into_iter().map(|asked| asked.join().expect("invariant: asking does not panic"));
            answers.collect::<Result<Vec<_>>>()
        });
        found.extend(others?);
        Ok(found)
    }

    fn wait_for(&self, name: &str, doing: &str) -> Result<()> {
        let deadline = Deadline::after(self.config.request_timeout());
        while !self.is_led(name)? {
            if !deadline.pass(LOOK_AGAIN) {
                return Err(BrokerError::new(
                    Reaction::Retry,
                    format!("{doing}: created, but its partitions have no leader yet"),
                ));
            }
        }
        Ok(())
    }

    fn is_led(&self, name: &str) -> Result<bool> {
        let metadata = self.metadata(name)?;
        Ok(metadata.topics().iter().any(|topic| {
            topic.error().is_none() && !topic.partitions().is_empty() && topic.partitions().iter().all(|p| p.leader() >= 0)
        }))
    }

    pub(super) fn partitions(&self, name: &str) -> Result<Option<u32>> {
        let metadata = self.metadata(name)?;
        let Some(topic) = metadata.topics().first() else { return Ok(None) };
        match topic.error().map(Code::from) {
            None => Ok(Some(topic.partitions().len() as u32)),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
            Some(code) if errors::is_refused(code) || code == Code::InvalidTopic => {
                Err(BrokerError::new(Reaction::Stop, format!("topic {name}: {code}")))
            }
            Some(code) => Err(BrokerError::new(Reaction::Retry, format!("topic {name}: {code}"))),
        }
    }

    fn metadata(&self, name: &str) -> Result<rdkafka::metadata::Metadata> {
        let doing = format!("asking for topic {name}");
        let all = self.config.request_timeout();
        let first = FIRST_WAIT.min(all);
        let mut answer = self.client.fetch_metadata(Some(name), first);
        let mut news = News::default();
        if answer.is_err() {
            // A broker that is slow gets all of its time; where none can be reached, it is said at once.
            news = self.news();
            if !news.unreachable && !news.refused {
                answer = self.client.fetch_metadata(Some(name), all.saturating_sub(first));
            }
        }
        answer.map_err(|error| self.explain_failure(&doing, &error, news))
    }

    fn admin(&self) -> Result<Arc<Admin>> {
        let mut kept = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(admin) = &*kept {
            return Ok(Arc::clone(admin));
        }
        let made: Admin = self
            .config
            .administering()
            .create_with_context(Plain::default())
            .map_err(|error| errors::of_read("creating an admin client", &error))?;
        Ok(Arc::clone(kept.insert(Arc::new(made))))
    }

    fn options(&self) -> AdminOptions {
        let timeout = self.config.request_timeout();
        AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout))
    }

    /// What the client has noted about its connections since it was last asked.
    fn news(&self) -> News {
        let mut news = News::default();
        // Not without any wait: that would end at the first log line, and the line comes before its event.
        while let Some(Err(event)) = self.client.poll(Duration::from_millis(1)) {
            let code = event.rdkafka_error_code();
            news.refused |= code.is_some_and(errors::is_refused);
            news.unreachable |= matches!(code, Some(Code::AllBrokersDown | Code::Resolve));
        }
        news
    }

    fn failed(&self, doing: &str, error: &KafkaError) -> BrokerError {
        self.explain_failure(doing, error, News::default())
    }

    /// Explains a question that got no answer: a broker that is not there is the usual cause, and a refused login the next.
    fn explain_failure(&self, doing: &str, error: &KafkaError, before: News) -> BrokerError {
        let refused = before.refused || self.news().refused;
        let address = &self.config.bootstrap_servers;
        let last = self.client.context().diary.last().map_or_else(String::new, |text| format!(" Last seen: {text}"));
        if refused {
            return BrokerError::new(
                Reaction::Stop,
                format!("{doing}: Kafka at {address} refuses us: check sasl.* and ssl.*.{last}"),
            );
        }
        match error.rdkafka_error_code() {
            Some(
                Code::BrokerTransportFailure
                | Code::OperationTimedOut
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::RequestTimedOut,
            ) => {
                let what = format!(
                    "{doing}: no answer from Kafka at {address}. Is it running, does it listen (and advertise) there, and do \
                     security.protocol, TLS and SASL settings fit?{last}"
                );
                BrokerError::new(Reaction::Retry, what)
            }
            _ => errors::of_read(doing, error),
        }
    }
}

fn property<'r>(of: &'r ConfigResource, name: &str) -> Option<&'r str> {
    of.get(name)?.value.as_deref()
}

/// What a topic keeps by its properties; none where they are not all told.
fn kept(of: &ConfigResource) -> Option<Kept> {
    let policy = property(of, "cleanup.policy")?;
    let retention_ms = property(of, "retention.ms")?.parse::<i64>().ok()?;
    // -1 keeps all.
    let retention_ms = u64::try_from(retention_ms).ok().filter(|_| policy.contains("delete"));
    let roll_ms = property(of, "segment.ms")?.parse().ok()?;
    Some(Kept { compacted: policy.contains("compact"), retention_ms, roll_ms })
}

/// The properties of a topic to be created.
fn properties_of(spec: &TopicSpec) -> Vec<(&'static str, String)> {
    let mut properties = match spec.cleanup {
        Cleanup::Compact { tombstone_retention_ms } => {
            vec![("cleanup.policy", "compact".to_owned()), ("delete.retention.ms", tombstone_retention_ms.to_string())]
        }
        Cleanup::Delete { retention_ms } => {
            let retention = retention_ms.map_or_else(|| "-1".to_owned(), |ms| ms.to_string());
            vec![("cleanup.policy", "delete".to_owned()), ("retention.ms", retention)]
        }
    };
    if let Some(limit) = spec.max_message_bytes {
        properties.push(("max.message.bytes", limit.to_string()));
    }
    properties
}

/// Wakes the thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread. The admin client completes its futures from a thread of its own, so nothing needs a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
