//! One worker's membership, consumer and producer.
//!
//! A transaction: none -begin-> open -commit or abort-> none. A refused commit leaves it open. Fencing: a commit carries the producer's epoch,
//! which the next holder of the transactional id has raised, and a token of the group's generation; both are looked at in the same breath
//! in which its offsets are reserved, and whoever asks for committed offsets or takes over the id waits until it is written.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use topology::broker::{Bounds, BrokerError, CommitStep, Event, Member, MemberConfig, Reaction, Result};
use topology::record::{Fetched, Outgoing, TopicPartition};

use super::core::{Core, Offsets};
use super::fetch::{Cursor, Cursors};
use super::group::{Gone, Group, MemberId};
use super::outbox::Outbox;
use super::publisher::LINGER_BYTES;
use super::store::key;
use super::{Shared, stop};

/// A member of the embedded broker.
pub struct EmbeddedMember {
    shared: Arc<Shared>,
    config: MemberConfig,
    id: MemberId,
    epoch: u64,
    /// What it acknowledged.
    owned: BTreeSet<TopicPartition>,
    /// The event that waits for its acknowledgement.
    pending: Option<Event>,
    cursors: Cursors,
    outbox: Outbox,
    /// When the open transaction began.
    began_ms: Option<i64>,
    left: bool,
}

/// Proof of a member's generation.
#[derive(Debug)]
pub struct EmbeddedToken {
    group: String,
    member: MemberId,
    generation: u64,
}

impl EmbeddedMember {
    /// Takes the producer's identity first, then the place in the group.
    pub(super) fn join(shared: Arc<Shared>, config: &MemberConfig) -> Result<Self> {
        for name in [&config.group, &config.instance].into_iter().chain(&config.transactional_id) {
            if name.is_empty() || name.contains('\0') {
                return Err(stop(format!("{name:?} can't be the name of a group, an instance or a producer")));
            }
        }
        let epoch = take_over(&shared, config)?;
        let id = enter(&shared, config)?;
        Ok(Self {
            shared,
            config: config.clone(),
            id,
            epoch,
            owned: BTreeSet::new(),
            pending: None,
            cursors: Cursors::default(),
            outbox: Outbox::default(),
            began_ms: None,
            left: false,
        })
    }

    fn group<'a>(&self, core: &'a Core) -> &'a Group {
        core.groups.get(&self.config.group).expect("invariant: joining made it, and groups stay")
    }

    fn group_mut<'a>(&self, core: &'a mut Core) -> &'a mut Group {
        core.groups.get_mut(&self.config.group).expect("invariant: joining made it, and groups stay")
    }

    fn standing(&self, core: &Core) -> std::result::Result<(), Gone> {
        if self.left { Err(Gone::Replaced) } else { self.group(core).standing(self.id, &self.config.instance) }
    }

    /// Refuses a member that is none any more.
    fn check_member(&self, core: &Core) -> Result<()> {
        core.check()?;
        self.standing(core).map_err(|gone| self.fenced(gone))
    }

    fn fenced(&self, gone: Gone) -> BrokerError {
        let MemberConfig { group, instance, .. } = &self.config;
        let why = match gone {
            _ if self.left => format!("{instance} has left group {group}"),
            Gone::Replaced => format!("another member of group {group} took the identity {instance}"),
            Gone::Dropped => format!("group {group} dropped {instance}, which was silent for too long"),
        };
        BrokerError::new(Reaction::Fenced, why)
    }

    /// True for partitions about to be given up: nothing more is delivered of those.
    fn is_going(pending: Option<&Event>, partition: TopicPartition) -> bool {
        matches!(pending, Some(Event::Revoked(gone) | Event::Lost(gone)) if gone.contains(&partition))
    }

    /// True where a poll has nothing to say yet.
    fn is_idle(&self, core: &Core) -> bool {
        let quiet = || self.pending.is_some() || self.group(core).next_event(self.id).is_none();
        let wanted = |partition| !Self::is_going(self.pending.as_ref(), partition);
        // One that was dropped and knows it reads on what it holds until it acknowledges.
        let in_place = self.standing(core).is_ok() || matches!(self.pending, Some(Event::Lost(_)));
        !core.is_poisoned() && in_place && quiet() && !self.cursors.is_ready(core, wanted)
    }

    /// The group's part of a poll.
    fn listen(&mut self, core: &mut Core) -> Result<Option<Event>> {
        core.check()?;
        match self.standing(core) {
            Ok(()) if self.pending.is_none() => self.pending = self.group_mut(core).offer(self.id),
            Ok(()) => return Ok(None),
            Err(Gone::Replaced) => return Err(self.fenced(Gone::Replaced)),
            Err(Gone::Dropped) if matches!(self.pending, Some(Event::Lost(_))) => return Ok(None),
            Err(Gone::Dropped) if self.owned.is_empty() => {
                // It holds nothing, so there is nothing to be told: it takes a new place.
                self.id = seat(core, &self.config, self.shared.now_ms());
                self.pending = self.group_mut(core).offer(self.id);
            }
            Err(Gone::Dropped) => self.pending = Some(Event::Lost(self.owned.iter().copied().collect())),
        }
        Ok(self.pending.clone())
    }

    fn give_up(&mut self, partitions: &[TopicPartition]) {
        self.owned.retain(|partition| !partitions.contains(partition));
        let (leads, owned) = (&self.config.leads, &self.owned);
        self.cursors.at.retain(|partition, _| may_read(leads, owned, *partition));
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) -> Result<()> {
        for partition in partitions {
            self.cursors.at.entry(*partition).and_modify(|cursor| cursor.paused = paused);
        }
        Ok(())
    }

    /// Why this commit can't be: looked at under the lock, together with the reservation of its offsets.
    fn admit(&self, core: &Core, offsets: &[(TopicPartition, u64)], token: &EmbeddedToken) -> Result<()> {
        self.check_member(core)?;
        self.check_epoch(core)?;
        let group = self.group(core);
        let refused = |why: &str| Err(BrokerError::new(Reaction::Abort, format!("{} {why}", self.config.instance)));
        if (&token.group, token.member) != (&self.config.group, self.id) {
            return refused("shows a token of another member");
        }
        if token.generation != group.generation() {
            return refused("speaks for an earlier generation");
        }
        if offsets.iter().any(|(partition, _)| group.is_others(self.id, *partition)) {
            return refused("commits offsets of a partition that another member owns");
        }
        Ok(())
    }

    fn check_epoch(&self, core: &Core) -> Result<()> {
        let Some(id) = &self.config.transactional_id else { return Ok(()) };
        if core.producers.get(id).is_some_and(|producer| producer.epoch == self.epoch) {
            return Ok(());
        }
        Err(BrokerError::new(Reaction::Fenced, format!("a newer producer took the identity {id}")))
    }

    fn check_open(&self) -> Result<()> {
        let Some(began_ms) = self.began_ms else { return Err(stop("there is no open transaction to commit")) };
        let limit_ms = i64::try_from(self.config.transaction_timeout_ms).unwrap_or(i64::MAX);
        let open_ms = self.shared.now_ms().saturating_sub(began_ms);
        if open_ms <= limit_ms {
            return Ok(());
        }
        let what = format!("the transaction was open for {open_ms} ms, more than its timeout of {limit_ms} ms");
        Err(BrokerError::new(Reaction::Abort, what))
    }

    fn deliver(&mut self) -> Result<()> {
        self.shared.append(&mut self.outbox, None, None, |_| Ok(()), None)
    }
}

/// Takes a place in the group.
fn enter(shared: &Shared, config: &MemberConfig) -> Result<MemberId> {
    let mut core = shared.lock();
    core.check()?;
    let id = seat(&mut core, config, shared.now_ms());
    shared.changed.notify_all();
    Ok(id)
}

fn seat(core: &mut Core, config: &MemberConfig, now_ms: i64) -> MemberId {
    let partitions = core.partitions_for(&config.group, &config.leads);
    let group = core.groups.entry(config.group.clone()).or_default();
    group.join(&config.instance, &config.leads, &partitions, now_ms)
}

/// Under at-least-once there is nothing to take over.
fn take_over(shared: &Shared, config: &MemberConfig) -> Result<u64> {
    config.transactional_id.as_ref().map_or(Ok(0), |id| raise_epoch(shared, id))
}

/// A new epoch of the transactional id, on disk before anyone uses it: commits of earlier ones are over, or refused.
pub(super) fn raise_epoch(shared: &Shared, id: &str) -> Result<u64> {
    let mut core = shared.lock();
    core.check()?;
    while core.producers.get(id).is_some_and(|producer| producer.committing) {
        core = shared.wait(core);
        core.check()?;
    }
    let producer = core.producers.entry(id.to_owned()).or_default();
    let epoch = producer.epoch + 1;
    shared.store.put_synced(&key::epoch(id), &epoch)?;
    producer.epoch = epoch;
    Ok(epoch)
}

/// A partition of a lead topic that is owned, or the same partition of another topic.
fn may_read(leads: &[topology::record::TopicId], owned: &BTreeSet<TopicPartition>, partition: TopicPartition) -> bool {
    let beside = |lead: &TopicPartition| lead.partition == partition.partition;
    owned.contains(&partition) || (!leads.contains(&partition.topic) && owned.iter().any(beside))
}

impl Member for EmbeddedMember {
    type Token = EmbeddedToken;

    fn poll(&mut self, into: &mut Fetched, max_records: usize, wait: Duration) -> Result<Option<Event>> {
        let shared = Arc::clone(&self.shared);
        let tick = |core: &mut MutexGuard<'_, Core>| {
            if self.group_mut(core).tick(Some(self.id), shared.now_ms(), shared.patience()) {
                let partitions = core.partitions_for(&self.config.group, &[]);
                self.group_mut(core).rebalance(&partitions);
                shared.changed.notify_all();
            }
        };
        let mut core = shared.lock();
        tick(&mut core);
        let waited = shared.changed.wait_timeout_while(core, wait, |core| self.is_idle(core));
        let (mut core, _) = waited.unwrap_or_else(PoisonError::into_inner);
        tick(&mut core);
        let event = self.listen(&mut core)?;
        drop(core);
        if event.is_none() {
            let pending = self.pending.clone();
            self.cursors.fetch(&shared, into, max_records, |partition| !Self::is_going(pending.as_ref(), partition))?;
        }
        Ok(event)
    }

    fn acknowledge(&mut self, event: &Event) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        if self.pending.as_ref() == Some(event) {
            self.pending = None;
        }
        match event {
            Event::Assigned(partitions) => self.owned.extend(partitions),
            Event::Revoked(partitions) => {
                self.give_up(partitions);
                self.group_mut(&mut shared.lock()).release(self.id, partitions);
            }
            Event::Lost(partitions) => {
                self.give_up(partitions);
                self.id = enter(&shared, &self.config)?;
            }
        }
        shared.changed.notify_all();
        Ok(())
    }

    fn start(&mut self, at: &[(TopicPartition, u64)]) -> Result<()> {
        for (partition, offset) in at {
            if !may_read(&self.config.leads, &self.owned, *partition) {
                let name = self.shared.topics.name(partition.topic);
                return Err(stop(format!("{name}:{} is not this member's to read", partition.partition)));
            }
            let cursor = self.cursors.at.entry(*partition).or_insert_with(|| Cursor::at(*offset));
            // A seek leaves a paused partition paused.
            *cursor = Cursor { paused: cursor.paused, ..Cursor::at(*offset) };
        }
        Ok(())
    }

    fn stop(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.cursors.at.retain(|partition, _| !partitions.contains(partition));
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, true)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, false)
    }

    fn committed(&mut self, partitions: &[TopicPartition], wait: Duration) -> Result<Vec<Option<u64>>> {
        let undecided = |core: &mut Core| {
            let held = &self.group(core).undecided;
            !core.is_poisoned() && held.values().flatten().any(|partition| partitions.contains(partition))
        };
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), wait, undecided);
        let (core, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        core.check()?;
        if timeout.timed_out() {
            return Err(BrokerError::new(Reaction::Retry, "a commit of these offsets is being written"));
        }
        let offsets = &self.group(&core).offsets;
        Ok(partitions.iter().map(|partition| offsets.get(partition).copied()).collect())
    }

    fn bounds(&mut self, partition: TopicPartition) -> Result<Bounds> {
        self.shared.bounds(partition)
    }

    fn token(&mut self) -> Result<EmbeddedToken> {
        let core = self.shared.lock();
        self.check_member(&core)?;
        let generation = self.group(&core).generation();
        Ok(EmbeddedToken { group: self.config.group.clone(), member: self.id, generation })
    }

    fn begin(&mut self) -> Result<()> {
        if self.config.transactional_id.is_none() || self.began_ms.is_some() {
            return Err(stop("begin: there is a transaction already, or this member has no transactional id"));
        }
        self.check_epoch(&self.shared.lock())?;
        self.began_ms = Some(self.shared.now_ms());
        Ok(())
    }

    fn send(&mut self, record: &Outgoing<'_>) -> Result<()> {
        let transactional = self.config.transactional_id.is_some();
        if transactional && self.began_ms.is_none() {
            return Err(stop("send: begin a transaction first"));
        }
        self.outbox.push(&self.shared, record)?;
        if !transactional && self.outbox.bytes() >= LINGER_BYTES { self.deliver() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.config.transactional_id.is_some() { Ok(()) } else { self.deliver() }
    }

    /// One write, so there are no steps to tell.
    fn commit_in_steps(
        &mut self,
        offsets: &[(TopicPartition, u64)],
        token: EmbeddedToken,
        _done: &mut dyn FnMut(CommitStep),
    ) -> Result<()> {
        self.check_open()?;
        let mut outbox = std::mem::take(&mut self.outbox);
        let with = Offsets { group: &self.config.group, next: offsets };
        let producer = self.config.transactional_id.as_deref();
        let committed = self.shared.append(&mut outbox, Some(with), producer, |core| self.admit(core, offsets, &token), None);
        self.outbox = outbox;
        if committed.is_ok() {
            self.began_ms = None;
        }
        committed
    }

    fn abort(&mut self) -> Result<()> {
        if self.began_ms.take().is_none() {
            return Err(stop("abort: there is no open transaction"));
        }
        self.outbox.clear();
        self.check_epoch(&self.shared.lock())
    }

    fn reopen(&mut self) -> Result<()> {
        self.began_ms = None;
        self.outbox.clear();
        self.epoch = take_over(&self.shared, &self.config)?;
        Ok(())
    }

    fn commit_offsets(&mut self, offsets: &[(TopicPartition, u64)], token: EmbeddedToken) -> Result<()> {
        let with = Offsets { group: &self.config.group, next: offsets };
        self.shared.append(&mut Outbox::default(), Some(with), None, |core| self.admit(core, offsets, &token), None)
    }

    fn markers_per_commit(&self) -> u64 {
        0
    }

    fn leave(&mut self, for_good: bool) -> Result<()> {
        self.outbox.clear();
        self.began_ms = None;
        self.cursors = Cursors::default();
        self.owned.clear();
        if !std::mem::replace(&mut self.left, true) {
            let mut core = self.shared.lock();
            if for_good {
                let partitions = core.partitions_for(&self.config.group, &[]);
                self.group_mut(&mut core).leave(self.id, &partitions);
            } else {
                self.group_mut(&mut core).step_away(self.id, self.shared.now_ms());
            }
            self.shared.changed.notify_all();
        }
        Ok(())
    }
}

/// A member whose thread ends without leaving (a panic) left to come back: whoever starts the thread again gets its partitions, and if nobody
/// does, others get them soon. Its open transaction is nowhere.
impl Drop for EmbeddedMember {
    fn drop(&mut self) {
        // It can't fail, and nobody could be told if it did.
        let _ = self.leave(false);
    }
}
