//! A worker's membership, consumer and producer: the client's side of the group protocol and of transactions.
//!
//! What the member owns changes by its own acknowledgements only; what the group wants it to own (`target`) changes with each
//! generation. The difference between the two is the next event. It rejoins a rebalance only with no event unacknowledged, so a
//! partition is handed over after its old owner acknowledged, and not before.
//!
//! Dropping a member is what a crash is: nobody is told. Its transaction stays open until its timeout or its successor, its membership
//! until the session timeout or the same instance joins again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::caller::Caller;
use super::cluster::{Cluster, Request, stop};
use super::faults::{Fault, Op, injected};
use super::group::{Gone, MemberId, Seat};
use super::producer::Producer;
use super::reader::{Cursor, Cursors};
use super::transactions::Credentials;
use crate::broker::{Bounds, BrokerError, CommitStep, Event, Member, MemberConfig, Reaction, Result};
use crate::record::{Fetched, Outgoing, TopicPartition};

/// Where the client's transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transaction {
    None,
    Open,
    /// Its end got no answer. A client that does not reopen may still ask for it again or begin another: that this is wrong is for
    /// the simulation to show, as it is with Kafka.
    Unknown,
}

/// A member of the simulated broker.
pub struct SimMember {
    caller: Caller,
    config: MemberConfig,
    id: MemberId,
    generation: Option<u64>,
    target: BTreeSet<TopicPartition>,
    owned: BTreeSet<TopicPartition>,
    /// The event that waits for its acknowledgement.
    pending: Option<Event>,
    cursors: Cursors,
    producer: Producer,
    transaction: Transaction,
}

/// Proof of a member's generation.
#[derive(Debug)]
pub struct SimToken(Seat);

impl SimMember {
    /// Takes the producer's identity first: what a dead predecessor left open is over before its partitions move.
    pub(super) fn join(caller: Caller, config: &MemberConfig) -> Result<Self> {
        let mut caller = caller;
        let producer = initialise(&mut caller, config)?;
        let id = caller.call(Op::Join, |cluster| {
            let now_ms = cluster.now_ms;
            let group = cluster.groups.entry(config.group.clone()).or_default();
            let id = group.join(&config.instance, &config.leads, now_ms);
            cluster.settle_group(&config.group);
            Ok(id)
        })?;
        Ok(Self {
            caller,
            config: config.clone(),
            id,
            generation: None,
            target: BTreeSet::new(),
            owned: BTreeSet::new(),
            pending: None,
            cursors: Cursors::default(),
            producer,
            transaction: Transaction::None,
        })
    }

    fn seat(&self) -> Result<Seat> {
        let no_generation = || BrokerError::new(Reaction::Retry, "the group has not taken this member in yet");
        Ok(Seat {
            group: self.config.group.clone(),
            instance: self.config.instance.clone(),
            member: self.id,
            generation: self.generation.ok_or_else(no_generation)?,
        })
    }

    /// Hears the newest generation; joins a rebalance where `join` says so and no event is in the way.
    fn heartbeat(&mut self, join: bool) -> std::result::Result<(), Gone> {
        let shared = Arc::clone(&self.caller.shared);
        let mut cluster = shared.cluster();
        let asked_to_rejoin = self.hear(&mut cluster)?;
        // A generation's losses and gains are events first: what is not acknowledged yet must not be left out of what it joins with.
        if join && asked_to_rejoin && self.pending.is_none() && self.owned == self.target {
            self.join_rebalance(&mut cluster);
            self.hear(&mut cluster)?;
        }
        Ok(())
    }

    /// Learns the newest generation that this member is part of; returns whether the group asks it to rejoin.
    fn hear(&mut self, cluster: &mut Cluster) -> std::result::Result<bool, Gone> {
        let now_ms = cluster.now_ms;
        let Some(group) = cluster.groups.get_mut(&self.config.group) else { return Err(Gone::Dropped) };
        let standing = group.heartbeat(self.id, &self.config.instance, now_ms)?;
        if standing.generation != self.generation {
            self.generation = standing.generation;
            self.target = group.assigned(self.id);
        }
        Ok(standing.asked_to_rejoin)
    }

    fn join_rebalance(&self, cluster: &mut Cluster) {
        if let Some(group) = cluster.groups.get_mut(&self.config.group) {
            group.rejoin(self.id, &self.owned);
        }
        cluster.settle_group(&self.config.group);
    }

    /// The group's part of a poll.
    fn listen(&mut self) -> Result<Option<Event>> {
        match self.caller.ask(Op::Heartbeat)? {
            Fault::Error(reaction) => return Err(injected(Op::Heartbeat, reaction)),
            Fault::Crash { .. } => return Err(self.caller.crash()),
            Fault::LostRequest | Fault::Late(_) => return Ok(None),
            Fault::LostAnswer => {
                // The group heard from the member; what it answered comes again with the next heartbeat.
                let mut cluster = self.caller.shared.cluster();
                let now_ms = cluster.now_ms;
                if let Some(group) = cluster.groups.get_mut(&self.config.group) {
                    let _unheard = group.heartbeat(self.id, &self.config.instance, now_ms);
                }
                return Ok(None);
            }
            Fault::None | Fault::SlowMarkers(_) => {}
        }
        match self.heartbeat(true) {
            Ok(()) => Ok(self.next_event()),
            Err(Gone::Replaced) => Err(self.replaced()),
            Err(Gone::Dropped) => Ok(self.lose_all()),
        }
    }

    fn next_event(&mut self) -> Option<Event> {
        if self.pending.is_some() {
            return None;
        }
        let revoked: Vec<TopicPartition> = self.owned.difference(&self.target).copied().collect();
        let assigned: Vec<TopicPartition> = self.target.difference(&self.owned).copied().collect();
        self.pending = match (revoked.is_empty(), assigned.is_empty()) {
            (false, _) => Some(Event::Revoked(revoked)),
            (true, false) => Some(Event::Assigned(assigned)),
            (true, true) => None,
        };
        self.pending.clone()
    }

    fn lose_all(&mut self) -> Option<Event> {
        // Events come one by one: what was just assigned is lost after its acknowledgement.
        if self.pending.is_some() {
            return None;
        }
        if self.owned.is_empty() {
            self.join_anew();
            return None;
        }
        self.pending = Some(Event::Lost(self.owned.iter().copied().collect()));
        self.pending.clone()
    }

    fn join_anew(&mut self) {
        let mut cluster = self.caller.shared.cluster();
        let now_ms = cluster.now_ms;
        let group = cluster.groups.entry(self.config.group.clone()).or_default();
        self.id = group.join(&self.config.instance, &self.config.leads, now_ms);
        self.generation = None;
        self.target.clear();
        cluster.settle_group(&self.config.group);
    }

    fn replaced(&self) -> BrokerError {
        let what = format!("another member of group {} took the identity {}", self.config.group, self.config.instance);
        BrokerError::new(Reaction::Fenced, what)
    }

    /// Gives partitions up and rejoins without them, so that the group can hand them on.
    fn give_up(&mut self, partitions: &[TopicPartition]) {
        partitions.iter().for_each(|partition| {
            self.owned.remove(partition);
        });
        let (owned, leads) = (&self.owned, &self.config.leads);
        self.cursors.at.retain(|partition, _| may_read(leads, owned, *partition));
    }

    /// Says what it owns now. One that was dropped meanwhile hears of it at its next poll.
    fn rejoin(&mut self) {
        let shared = Arc::clone(&self.caller.shared);
        let mut cluster = shared.cluster();
        if self.hear(&mut cluster).is_ok() {
            self.join_rebalance(&mut cluster);
        }
    }

    fn require(&self, transaction: Transaction, what: &str) -> Result<()> {
        if self.config.transactional_id.is_some() && self.transaction == transaction {
            return Ok(());
        }
        Err(stop(format!("{what}: the transaction is {:?}", self.transaction)))
    }

    /// The commit's third step, and the whole of an abort.
    fn end_transaction(&mut self, commit: bool) -> Result<()> {
        let Some(who) = self.producer.credentials.clone().filter(|_| self.producer.has_something()) else {
            // Nothing reached the broker, so there is nothing for it to end.
            self.transaction = Transaction::None;
            return Ok(());
        };
        let op = if commit { Op::EndTxnCommit } else { Op::EndTxnAbort };
        let late = || Some(Request::EndTransaction { who: who.clone(), commit });
        let ended = self.caller.call_or_hold(op, late, |cluster| cluster.end_transaction(&who, commit));
        match &ended {
            Ok(()) => {
                self.transaction = Transaction::None;
                self.producer.forget_transaction();
            }
            Err(error) if error.reaction == Reaction::Unknown => self.transaction = Transaction::Unknown,
            Err(_) => {}
        }
        ended
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) -> Result<()> {
        self.caller.check_alive()?;
        for partition in partitions {
            if let Some(cursor) = self.cursors.at.get_mut(partition) {
                cursor.paused = paused;
            }
        }
        Ok(())
    }
}

/// What a short-lived producer's transactions may last: it never has one.
const SHORT_TIMEOUT_MS: u64 = 10_000;

/// Takes an identity over for no other purpose than to end what it left open.
pub(super) fn end_transactions_of(mut caller: Caller, id: &str) -> Result<()> {
    initialise_as(&mut caller, id, SHORT_TIMEOUT_MS).map(drop)
}

/// Initialises the producer; under at-least-once there is nothing that the broker would have to know.
fn initialise(caller: &mut Caller, config: &MemberConfig) -> Result<Producer> {
    let Some(id) = &config.transactional_id else { return Ok(Producer::default()) };
    initialise_as(caller, id, config.transaction_timeout_ms).map(|credentials| Producer::new(Some(credentials)))
}

fn initialise_as(caller: &mut Caller, id: &str, timeout_ms: u64) -> Result<Credentials> {
    let late = || Some(Request::InitProducer { id: id.to_owned(), timeout_ms });
    caller.call_or_hold(Op::InitProducer, late, |cluster| Ok(cluster.init_producer(id, timeout_ms)))
}

/// A partition of a lead topic that is owned, or the same partition of another topic.
fn may_read(leads: &[crate::record::TopicId], owned: &BTreeSet<TopicPartition>, partition: TopicPartition) -> bool {
    let co_partition = |lead: &TopicPartition| lead.partition == partition.partition;
    owned.contains(&partition) || (!leads.contains(&partition.topic) && owned.iter().any(co_partition))
}

impl Member for SimMember {
    type Token = SimToken;

    fn poll(&mut self, into: &mut Fetched, max_records: usize, _wait: Duration) -> Result<Option<Event>> {
        if let Some(event) = self.listen()? {
            return Ok(Some(event));
        }
        let (cursors, pending) = (&mut self.cursors, &self.pending);
        let going = |partition: &TopicPartition| match pending {
            Some(Event::Revoked(gone) | Event::Lost(gone)) => gone.contains(partition),
            Some(Event::Assigned(_)) | None => false,
        };
        self.caller.fetch(Op::Poll, |cluster| cursors.fetch(cluster, into, max_records, |partition| !going(partition)))?;
        Ok(None)
    }

    fn acknowledge(&mut self, event: &Event) -> Result<()> {
        let fault = self.caller.ask(Op::Acknowledge)?;
        match fault {
            Fault::Error(reaction) => return Err(injected(Op::Acknowledge, reaction)),
            Fault::Crash { done: false } => return Err(self.caller.crash()),
            _ => {}
        }
        if self.pending.as_ref() != Some(event) {
            return Err(stop(format!("{event:?} is acknowledged, but {:?} is what waits", self.pending)));
        }
        self.pending = None;
        match event {
            Event::Assigned(partitions) => self.owned.extend(partitions),
            Event::Revoked(partitions) => {
                self.give_up(partitions);
                self.rejoin();
            }
            Event::Lost(partitions) => {
                self.give_up(partitions);
                self.join_anew();
            }
        }
        if fault == (Fault::Crash { done: true }) { Err(self.caller.crash()) } else { Ok(()) }
    }

    fn start(&mut self, at: &[(TopicPartition, u64)]) -> Result<()> {
        self.caller.check_alive()?;
        for (partition, offset) in at {
            if !may_read(&self.config.leads, &self.owned, *partition) {
                let name = self.caller.shared.topics.name(partition.topic);
                return Err(stop(format!("{name}:{} is not this member's to read", partition.partition)));
            }
            let mut cursor = Cursor::at(*offset);
            // A seek, as Kafka's, leaves a paused partition paused.
            cursor.paused = self.cursors.at.get(partition).is_some_and(|before| before.paused);
            self.cursors.at.insert(*partition, cursor);
        }
        Ok(())
    }

    fn stop(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.caller.check_alive()?;
        partitions.iter().for_each(|partition| {
            self.cursors.at.remove(partition);
        });
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, true)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, false)
    }

    fn committed(&mut self, partitions: &[TopicPartition], _wait: Duration) -> Result<Vec<Option<u64>>> {
        let group = &self.config.group;
        self.caller.call(Op::Committed, |cluster| {
            let group = cluster.groups.entry(group.clone()).or_default();
            partitions.iter().map(|partition| group.committed(*partition)).collect()
        })
    }

    fn bounds(&mut self, partition: TopicPartition) -> Result<Bounds> {
        self.caller.call(Op::Bounds, |cluster| cluster.bounds(partition))
    }

    fn token(&mut self) -> Result<SimToken> {
        match self.caller.ask(Op::Token)? {
            Fault::Error(reaction) => return Err(injected(Op::Token, reaction)),
            Fault::Crash { .. } => return Err(self.caller.crash()),
            Fault::LostRequest | Fault::LostAnswer | Fault::Late(_) => {}
            // A member that is gone is told so by its next poll; what it still commits is refused.
            Fault::None | Fault::SlowMarkers(_) => drop(self.heartbeat(false)),
        }
        self.seat().map(SimToken)
    }

    fn begin(&mut self) -> Result<()> {
        self.caller.check_alive()?;
        if self.config.transactional_id.is_none() || self.transaction == Transaction::Open {
            return Err(stop(format!("begin: the transaction is {:?}", self.transaction)));
        }
        self.transaction = Transaction::Open;
        self.producer.forget_transaction();
        Ok(())
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<()> {
        if self.config.transactional_id.is_some() {
            self.require(Transaction::Open, "send")?;
        }
        self.producer.send(&mut self.caller, Op::Send, record)
    }

    fn flush(&mut self) -> Result<()> {
        let producer = &mut self.producer;
        self.caller.call(Op::Flush, |cluster| producer.flush(cluster))
    }

    fn commit_in_steps(
        &mut self,
        offsets: &[(TopicPartition, u64)],
        token: SimToken,
        done: &mut dyn FnMut(CommitStep),
    ) -> Result<()> {
        if self.transaction == Transaction::Unknown {
            return self.end_transaction(true);
        }
        self.require(Transaction::Open, "commit")?;
        self.flush()?;
        done(CommitStep::Flushed);
        if let Some(who) = self.producer.credentials.as_ref().filter(|_| !offsets.is_empty()) {
            self.producer.has_offsets = true;
            let SimToken(seat) = token;
            let late = || Some(Request::AddOffsets { who: who.clone(), seat: seat.clone(), offsets: offsets.to_vec() });
            self.caller.call_or_hold(Op::AddOffsets, late, |cluster| cluster.add_offsets(who, &seat, offsets, true))?;
        }
        done(CommitStep::OffsetsAdded);
        self.end_transaction(true)
    }

    fn abort(&mut self) -> Result<()> {
        self.caller.check_alive()?;
        if self.transaction == Transaction::None {
            return Err(stop("abort: no transaction is open"));
        }
        self.producer.purge(&mut self.caller.shared.cluster());
        self.end_transaction(false)
    }

    fn reopen(&mut self) -> Result<()> {
        self.caller.check_alive()?;
        self.producer = initialise(&mut self.caller, &self.config)?;
        self.transaction = Transaction::None;
        Ok(())
    }

    fn commit_offsets(&mut self, offsets: &[(TopicPartition, u64)], token: SimToken) -> Result<()> {
        let SimToken(seat) = token;
        let late = || Some(Request::CommitOffsets { seat: seat.clone(), offsets: offsets.to_vec() });
        self.caller.call_or_hold(Op::CommitOffsets, late, |cluster| cluster.commit_offsets(&seat, offsets))
    }

    fn markers_per_commit(&self) -> u64 {
        1
    }

    fn leave(&mut self, for_good: bool) -> Result<()> {
        let (id, name) = (self.id, &self.config.group);
        self.caller.call(Op::Leave, |cluster| {
            if for_good && let Some(group) = cluster.groups.get_mut(name) {
                group.leave(id);
                cluster.settle_group(name);
            }
            Ok(())
        })
    }
}
