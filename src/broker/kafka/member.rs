//! One worker's place in the group: a group client, a fetcher and a producer.
//!
//! The group client subscribes to the lead topics and is never given a partition to fetch; it holds membership, generation and
//! committed offsets. What the group decides waits as an [`Event`] until the worker acknowledges it, and only the acknowledgement lets
//! the group go on: until then a revoked partition is given to nobody else. The fetcher reads whatever the worker starts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use topology::broker::{Bounds, BrokerError, CommitStep, Event, Member, MemberConfig, Reaction, Result};
use topology::record::{Fetched, Outgoing, TopicId, TopicPartition, Topics};

use super::admin::Desk;
use super::config::Buffers;
use super::context::Rebalances;
use super::deadline::Deadline;
use super::errors;
use super::fetcher::Fetcher;
use super::groups::next_offsets;
use super::native::{self, GroupMetadata};
use super::orphans::Watch;
use super::sender::{Ended, Limits, Sender, extremes};

/// Group events served in one poll: they are rare, and one rebalance makes two.
const EVENTS_PER_POLL: usize = 4;
/// How long one wait for a request to leave lasts before it is looked at.
const SLICE: Duration = Duration::from_millis(10);
/// For the first connections. Those that take longer are waited for where they are needed.
const CONNECTING: Duration = Duration::from_secs(1);
/// A producer is opened, and a transaction ended, within this time, however long transactions may last.
const PATIENCE: Duration = Duration::from_secs(30);

/// Proof of (group, member, generation) at the moment it was made; without a proof where there was no membership. That one commits
/// no offsets, only what a producer alone may commit.
pub struct KafkaToken(Option<GroupMetadata>);

impl KafkaToken {
    fn proof(&self) -> Result<&GroupMetadata> {
        let missing = || BrokerError::new(Reaction::Abort, "not a member of the group: no offset can be committed");
        self.0.as_ref().ok_or_else(missing)
    }
}

/// A member of a classic consumer group, and its producer.
pub struct KafkaMember {
    topics: Topics,
    desk: Arc<Desk>,
    config: MemberConfig,
    limits: Limits,
    /// None after leaving.
    group: Option<BaseConsumer<Rebalances>>,
    watch: Watch,
    /// What the group gave us and we have not given up.
    owned: BTreeSet<TopicPartition>,
    fetcher: Fetcher,
    /// None after a reopening that failed half way.
    sender: Option<Sender>,
}

impl KafkaMember {
    /// Everything that joining takes and the group does not notice: connections, and a producer that ends what a predecessor under this
    /// identity left open. Nobody hears of an assignment, and asks for committed offsets, before that is done.
    pub(super) fn prepare(desk: Arc<Desk>, topics: Topics, limits: Limits, config: &MemberConfig) -> Result<Self> {
        let Buffers { fetch, poll, .. } = desk.config().buffers;
        let fetcher = Fetcher::new(desk.clone(), topics.clone(), fetch, poll)?;
        let mut member = Self {
            topics,
            desk,
            config: config.clone(),
            limits,
            group: None,
            watch: Watch::new(0),
            owned: BTreeSet::new(),
            fetcher,
            sender: None,
        };
        let group = member.group_client()?;
        let opened = std::thread::scope(|scope| {
            // Where a client does not connect now, it goes on trying, and whoever needs it says why it cannot.
            scope.spawn(|| native::connect(group.client(), CONNECTING));
            scope.spawn(member.fetcher.connecting(&member.config.leads, CONNECTING));
            member.open_producer()
        });
        member.sender = Some(opened?);
        member.group = Some(group);
        Ok(member)
    }

    /// True where it was prepared for this.
    pub(super) fn is_of(&self, config: &MemberConfig) -> bool {
        self.config == *config
    }

    /// Joins the group.
    pub(super) fn join(self) -> Result<Self> {
        self.enter(self.group()?)?;
        Ok(self)
    }

    fn group_client(&self) -> Result<BaseConsumer<Rebalances>> {
        let context = Rebalances::new(self.topics.clone());
        let mut group: BaseConsumer<Rebalances> =
            self.desk.config().joining(&self.config).create_with_context(context).map_err(|error| {
                BrokerError::new(
                    Reaction::Stop,
                    format!("joining the group: {}", super::config::explain("configuration", &error)),
                )
            })?;
        // The worker waits in the fetcher's queue; a decision of the group ends that wait.
        let waker = self.fetcher.waker();
        group.set_nonempty_callback(move || waker.wake());
        Ok(group)
    }

    fn enter(&self, group: &BaseConsumer<Rebalances>) -> Result<()> {
        let leads: Vec<&str> = self.leads().collect();
        group.subscribe(&leads).map_err(|error| errors::of_read("joining the group", &error))
    }

    fn leads(&self) -> impl Iterator<Item = &str> {
        self.config.leads.iter().map(|&topic| self.topics.name(topic))
    }

    /// Makes the group assign everything anew where it left partitions to nobody.
    fn mend_group(&mut self) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        match self.watch {
            Watch::Done => {}
            Watch::Looking(_) => {
                let mut watch = std::mem::replace(&mut self.watch, Watch::Done);
                let counts = || self.leads().map(|lead| Some((lead.to_owned(), self.desk.partitions(lead).ok()??))).collect();
                watch.look(group, &self.config.group, counts);
                self.watch = watch;
                if matches!(self.watch, Watch::Leaving { .. }) {
                    // What is owned is revoked first, as in any rebalance.
                    group.unsubscribe();
                }
            }
            Watch::Leaving { tried } => {
                // librdkafka forgets the member's id when the request has left.
                if GroupMetadata::of(group.client()).is_none() {
                    self.enter(group)?;
                    self.watch = Watch::new(tried);
                }
            }
        }
        Ok(())
    }

    fn group(&self) -> Result<&BaseConsumer<Rebalances>> {
        self.group.as_ref().ok_or_else(|| BrokerError::new(Reaction::Fenced, "this member has left the group"))
    }

    fn sender(&mut self) -> Result<&mut Sender> {
        self.sender.as_mut().ok_or_else(|| BrokerError::new(Reaction::Unknown, "the producer is closed: open it again"))
    }

    /// Serves the group's queue and gives the next decision.
    fn next_event(&mut self) -> Result<Option<Event>> {
        let (mut event, mut dropped) = (None, false);
        for _ in 0..EVENTS_PER_POLL {
            let group = self.group()?;
            match group.poll(Duration::ZERO) {
                Some(Err(error)) if error.rdkafka_error_code() == Some(Code::PollExceeded) => dropped = true,
                Some(Err(error)) => check_group_error(&self.config.group, &error)?,
                _ => {}
            }
            if event.is_none() {
                event = group.context().next();
            }
        }
        self.judge(event, dropped)
    }

    /// What a decision means for what we own. A member that was dropped for not polling may find an older revocation before the news:
    /// everything is lost then. librdkafka names the rest again when it joins anew: what is not owned any more is answered here.
    fn judge(&self, event: Option<Event>, dropped: bool) -> Result<Option<Event>> {
        let owned =
            |partitions: Vec<TopicPartition>| partitions.into_iter().filter(|p| self.owned.contains(p)).collect::<Vec<_>>();
        let event = match event {
            Some(Event::Revoked(_)) if dropped => Event::Lost(self.owned.iter().copied().collect()),
            Some(Event::Revoked(partitions)) => Event::Revoked(owned(partitions)),
            Some(Event::Lost(partitions)) => Event::Lost(owned(partitions)),
            other => return Ok(other),
        };
        if let Event::Revoked(partitions) | Event::Lost(partitions) = &event
            && partitions.is_empty()
        {
            self.answer()?;
            return Ok(None);
        }
        Ok(Some(event))
    }

    fn open_producer(&self) -> Result<Sender> {
        let config = self.desk.config().writing(&self.config, extremes(&self.limits));
        let timeout = Duration::from_millis(self.config.transaction_timeout_ms).min(PATIENCE);
        if self.config.transactional_id.is_none() {
            return Sender::new(&config, self.topics.clone(), self.limits.clone(), timeout);
        }
        // A topic whose limit is known is there.
        let is_output = |topic: &TopicId| !self.config.leads.contains(topic) && self.limits[usize::from(topic.0)].is_some();
        let outputs: Vec<TopicId> = self.topics.iter().map(|(topic, _)| topic).filter(is_output).collect();
        Sender::open(&config, &self.topics, &self.limits, &outputs, timeout)
    }

    fn answer(&self) -> Result<()> {
        let group = self.group()?;
        group.context().answer(group).map_err(|error| errors::of_read("answering a rebalance", &error))
    }

    fn list(&self, partitions: impl IntoIterator<Item = (TopicPartition, Offset)>) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in partitions {
            list.add_partition_offset(self.topics.name(partition.topic), partition.partition as i32, offset)
                .map_err(|error| BrokerError::new(Reaction::Stop, format!("an offset that Kafka cannot express: {error}")))?;
        }
        Ok(list)
    }

    fn offsets(&self, offsets: &[(TopicPartition, u64)]) -> Result<TopicPartitionList> {
        self.list(offsets.iter().map(|&(partition, offset)| (partition, Offset::Offset(offset as i64))))
    }
}

/// Partitions under the names of their topics.
pub(super) fn named<'t>(topics: &'t Topics, partitions: &[TopicPartition]) -> Vec<(&'t str, u32)> {
    partitions.iter().map(|partition| (topics.name(partition.topic), partition.partition)).collect()
}

/// Tells errors of the group client that it does not mend itself.
fn check_group_error(group: &str, error: &KafkaError) -> Result<()> {
    let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
    let failed = |reaction| Err(BrokerError::new(reaction, format!("group {group}: {error}")));
    match error.rdkafka_error_code() {
        Some(code) if errors::is_refused(code) => failed(Reaction::Stop),
        Some(Code::FencedInstanceId | Code::Fenced) => failed(Reaction::Fenced),
        Some(
            Code::InvalidSessionTimeout | Code::InconsistentGroupProtocol | Code::InvalidGroupId | Code::GroupMaxSizeReached,
        ) => failed(Reaction::Stop),
        _ if fatal => failed(Reaction::Fenced),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => failed(Reaction::Retry),
        // Lost connections and coordinator moves mend themselves; exceeding max.poll.interval.ms comes as an event of its own.
        _ => {
            tracing::debug!(group, %error, "group member");
            Ok(())
        }
    }
}

impl Member for KafkaMember {
    type Token = KafkaToken;

    fn poll(&mut self, into: &mut Fetched, max_records: usize, wait: Duration) -> Result<Option<Event>> {
        if let Some(sender) = &self.sender {
            sender.serve();
        }
        self.mend_group()?;
        if let Some(event) = self.next_event()? {
            return Ok(Some(event));
        }
        let before = into.len();
        self.fetcher.fill(into, max_records, wait)?;
        // Nothing came: the wait may have ended because the group decided something.
        if into.len() == before { self.next_event() } else { Ok(None) }
    }

    fn acknowledge(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Assigned(partitions) => self.owned.extend(partitions),
            Event::Revoked(partitions) | Event::Lost(partitions) => {
                self.stop(partitions)?;
                self.owned.retain(|partition| !partitions.contains(partition));
            }
        }
        self.answer()
    }

    fn start(&mut self, at: &[(TopicPartition, u64)]) -> Result<()> {
        at.iter().try_for_each(|&(partition, offset)| self.fetcher.start(partition, offset))
    }

    fn stop(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        partitions.iter().try_for_each(|&partition| self.fetcher.stop(partition))
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        partitions.iter().try_for_each(|&partition| self.fetcher.pause(partition))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        partitions.iter().try_for_each(|&partition| self.fetcher.resume(partition))
    }

    fn committed(&mut self, partitions: &[TopicPartition], wait: Duration) -> Result<Vec<Option<u64>>> {
        let doing = "asking for committed offsets";
        let list = self.list(partitions.iter().map(|&partition| (partition, Offset::Invalid)))?;
        let answer = self.group()?.committed_offsets(list, wait).map_err(|error| errors::of_read(doing, &error))?;
        next_offsets(&self.topics, &answer, partitions, doing)
    }

    fn bounds(&mut self, partition: TopicPartition) -> Result<Bounds> {
        self.desk.bounds(self.topics.name(partition.topic), partition.partition)
    }

    fn bounds_of(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Bounds>> {
        self.desk.bounds_of(&named(&self.topics, partitions))
    }

    fn token(&mut self) -> Result<KafkaToken> {
        Ok(KafkaToken(GroupMetadata::of(self.group()?.client())))
    }

    fn begin(&mut self) -> Result<()> {
        self.sender()?.begin()
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<()> {
        self.sender()?.send(record, 0)
    }

    fn flush(&mut self) -> Result<()> {
        self.sender()?.flush()
    }

    fn commit_in_steps(
        &mut self,
        offsets: &[(TopicPartition, u64)],
        token: KafkaToken,
        done: &mut dyn FnMut(CommitStep),
    ) -> Result<()> {
        let offsets = self.offsets(offsets)?;
        let sender = self.sender()?;
        sender.flush()?;
        done(CommitStep::Flushed);
        if offsets.count() > 0 {
            sender.add_offsets(&offsets, token.proof()?)?;
        }
        done(CommitStep::OffsetsAdded);
        if sender.commit()? != Ended::Once {
            tracing::info!("a commit took so long that its request may have been repeated: opening the producer again");
            // Committed it is in any case: where this fails, the next transaction finds the producer closed.
            if let Err(error) = self.reopen() {
                tracing::debug!(%error, "opening the producer again after a commit");
            }
        }
        Ok(())
    }

    fn abort(&mut self) -> Result<()> {
        if self.sender()?.abort()? == Ended::Once { Ok(()) } else { self.reopen() }
    }

    fn reopen(&mut self) -> Result<()> {
        // The old one goes first: two producers of one identity would fence each other.
        self.sender = None;
        self.sender = Some(self.open_producer()?);
        Ok(())
    }

    fn commit_offsets(&mut self, offsets: &[(TopicPartition, u64)], token: KafkaToken) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        // librdkafka commits under the generation it has then, not the token's. What happens between this look and that commit no
        // generation fences: at-least-once allows it.
        let (list, group) = (self.offsets(offsets)?, self.group()?);
        if GroupMetadata::of(group.client()).as_ref() != Some(token.proof()?) {
            return Err(BrokerError::new(Reaction::Abort, "committing offsets: the group has a newer generation"));
        }
        group.commit(&list, CommitMode::Sync).map_err(|error| errors::of_offset_commit(&error))
    }

    fn markers_per_commit(&self) -> u64 {
        1
    }

    fn leave(&mut self, for_good: bool) -> Result<()> {
        let Some(group) = self.group.take() else { return Ok(()) };
        group.context().close(&group);
        if for_good {
            // Closing does not send a LeaveGroup for a static member; unsubscribing does.
            group.unsubscribe();
            let deadline = Deadline::after(self.desk.config().request_timeout());
            // librdkafka forgets the member's id when it has sent the request, and waits for the answer when it closes.
            while GroupMetadata::of(group.client()).is_some() && !deadline.is_over() {
                group.poll(SLICE);
            }
        }
        // Dropping closes; a static member stays in the group until its session ends.
        drop(group);
        Ok(())
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        if let Err(error) = self.leave(false) {
            tracing::debug!(%error, "leaving");
        }
    }
}
