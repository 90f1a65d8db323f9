//! The group coordinator: static members, generations, cooperative rebalances, and the group's offsets.
//!
//! ```text
//! stable --(someone joins, leaves, is dropped, gave something up)--> rebalancing --(every member rejoined)--> stable, generation + 1
//! ```
//!
//! A member rejoins with what it owns. A partition that another member still owns is withheld from its new owner: the old one is
//! told to give it up, says so by rejoining without it, and the rebalance that this starts hands it over. So no partition is two
//! members' at once, except that one who was dropped does not know it yet; its seat is refused.

use std::collections::{BTreeMap, BTreeSet};

use super::assignor::{Claim, assign};
use super::log::ProducerId;
use crate::broker::{BrokerError, Reaction, Result};
use crate::record::{TopicId, TopicPartition};

/// A member's number, given by the coordinator; a restart gets a new one.
pub(super) type MemberId = u64;

/// A member's place in a generation: what a commit token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub group: String,
    pub instance: String,
    pub member: MemberId,
    pub generation: u64,
}

#[derive(Debug)]
struct Membership {
    instance: String,
    leads: Vec<TopicId>,
    seen_ms: u64,
    /// It has joined the rebalance under way; false while there is none.
    joined: bool,
    /// What it said it owned when it joined last.
    owned: BTreeSet<TopicPartition>,
    /// What the newest generation gives it.
    assigned: BTreeSet<TopicPartition>,
    /// That generation, once it is part of one.
    generation: Option<u64>,
}

impl Membership {
    /// It holds what another is to get. Nobody would hand that over if it were replaced without a rebalance.
    fn is_giving_up(&self) -> bool {
        self.owned.difference(&self.assigned).next().is_some()
    }
}

/// What the coordinator tells a member that asks.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// None before the member's first rebalance is complete.
    pub generation: Option<u64>,
    /// It is to rejoin.
    pub asked_to_rejoin: bool,
}

/// Why the coordinator does not know a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It was dropped for its silence.
    Dropped,
    /// Another incarnation of the same static identity took its place.
    Replaced,
}

/// One consumer group.
#[derive(Debug, Default)]
pub(super) struct Group {
    generation: u64,
    rebalancing: bool,
    members: BTreeMap<MemberId, Membership>,
    members_ever: MemberId,
    offsets: BTreeMap<TopicPartition, u64>,
    pending: BTreeMap<ProducerId, BTreeMap<TopicPartition, u64>>,
}

impl Group {
    /// A new member, or a new incarnation of a static one, which takes over without a rebalance where nothing is under way.
    pub fn join(&mut self, instance: &str, leads: &[TopicId], now_ms: u64) -> MemberId {
        self.members_ever += 1;
        let id = self.members_ever;
        let mut new = Membership {
            instance: instance.to_owned(),
            leads: leads.to_vec(),
            seen_ms: now_ms,
            joined: true,
            owned: BTreeSet::new(),
            assigned: BTreeSet::new(),
            generation: None,
        };
        let old = self.members.iter().find(|(_, member)| member.instance == instance).map(|(id, _)| *id);
        let old = old.and_then(|old| self.members.remove(&old));
        match old.filter(|old| !self.rebalancing && old.leads == new.leads && !old.is_giving_up()) {
            Some(old) => {
                new.assigned = old.assigned;
                new.generation = old.generation;
                new.joined = false;
            }
            None => self.rebalance(),
        }
        self.members.insert(id, new);
        id
    }

    /// Starts a rebalance: everyone is to join anew.
    pub fn rebalance(&mut self) {
        self.rebalancing = true;
    }

    /// Joins the rebalance with what the member owns, starting one if none is under way.
    pub fn rejoin(&mut self, id: MemberId, owned: &BTreeSet<TopicPartition>) {
        self.rebalance();
        if let Some(member) = self.members.get_mut(&id) {
            member.joined = true;
            member.owned.clone_from(owned);
        }
    }

    pub fn leave(&mut self, id: MemberId) {
        if self.members.remove(&id).is_some() {
            self.rebalance();
        }
    }

    /// True where the rebalance under way waits for nobody.
    pub fn is_complete(&self) -> bool {
        self.rebalancing && self.members.values().all(|member| member.joined)
    }

    pub fn topics(&self) -> BTreeSet<TopicId> {
        self.members.values().flat_map(|member| member.leads.iter().copied()).collect()
    }

    pub fn takes(&self, topic: TopicId) -> bool {
        self.members.values().any(|member| member.leads.contains(&topic))
    }

    /// Begins the next generation, once [`Self::is_complete`].
    pub fn complete(&mut self, partitions: &[TopicPartition]) {
        self.generation += 1;
        self.rebalancing = false;
        let claims: Vec<Claim<'_>> =
            self.members.values().map(|member| Claim { leads: &member.leads, owned: &member.owned }).collect();
        let mut targets = assign(&claims, partitions);
        for (at, target) in targets.iter_mut().enumerate() {
            let withheld = |partition: &TopicPartition| {
                claims.iter().enumerate().any(|(other, claim)| other != at && claim.owned.contains(partition))
            };
            target.retain(|partition| !withheld(partition));
        }
        for (member, target) in self.members.values_mut().zip(targets) {
            member.assigned = target;
            member.generation = Some(self.generation);
            member.joined = false;
        }
    }

    /// A member's sign of life, and what it is told.
    pub fn heartbeat(&mut self, id: MemberId, instance: &str, now_ms: u64) -> std::result::Result<Standing, Gone> {
        if let Some(member) = self.members.get_mut(&id) {
            member.seen_ms = now_ms;
            let asked_to_rejoin = self.rebalancing && !member.joined;
            return Ok(Standing { generation: member.generation, asked_to_rejoin });
        }
        let replaced = self.members.values().any(|member| member.instance == instance);
        Err(if replaced { Gone::Replaced } else { Gone::Dropped })
    }

    /// What the newest generation gives a member.
    pub fn assigned(&self, id: MemberId) -> BTreeSet<TopicPartition> {
        self.members.get(&id).map(|member| member.assigned.clone()).unwrap_or_default()
    }

    /// Refuses a seat that is not of the current generation. As in Kafka, which partitions the offsets are of is not looked at.
    pub fn admit(&mut self, seat: &Seat, now_ms: u64) -> Result<()> {
        let refused =
            |why: &str| Err(BrokerError::new(Reaction::Abort, format!("{} of group {} {why}", seat.instance, seat.group)));
        let generation = self.generation;
        match self.members.get_mut(&seat.member) {
            None => refused("is no longer a member"),
            Some(_) if seat.generation != generation => refused("speaks for an earlier generation"),
            Some(member) => {
                member.seen_ms = now_ms;
                Ok(())
            }
        }
    }

    /// When the next member is dropped if none is heard of.
    pub fn next_deadline(&self, session_timeout_ms: u64) -> Option<u64> {
        self.members.values().map(|member| member.seen_ms.saturating_add(session_timeout_ms)).min()
    }

    /// Drops members not heard of for as long as the session timeout.
    pub fn drop_silent(&mut self, now_ms: u64, session_timeout_ms: u64) -> bool {
        let before = self.members.len();
        self.members.retain(|_, member| member.seen_ms.saturating_add(session_timeout_ms) > now_ms);
        let dropped = self.members.len() < before;
        if dropped {
            self.rebalance();
        }
        dropped
    }

    pub fn commit(&mut self, offsets: &[(TopicPartition, u64)]) {
        self.offsets.extend(offsets.iter().copied());
    }

    /// Keeps a transaction's offsets until it is decided.
    pub fn hold(&mut self, producer: ProducerId, offsets: &[(TopicPartition, u64)]) {
        self.pending.entry(producer).or_default().extend(offsets.iter().copied());
    }

    /// Applies or forgets a transaction's offsets.
    pub fn settle(&mut self, producer: ProducerId, commit: bool) {
        if let Some(offsets) = self.pending.remove(&producer)
            && commit
        {
            self.offsets.extend(offsets);
        }
    }

    /// A committed offset; an error where an undecided transaction holds a newer one.
    pub fn committed(&self, partition: TopicPartition) -> Result<Option<u64>> {
        if self.pending.values().any(|offsets| offsets.contains_key(&partition)) {
            return Err(BrokerError::new(Reaction::Retry, "an undecided transaction holds offsets of these partitions"));
        }
        Ok(self.offsets.get(&partition).copied())
    }

    pub fn offsets(&self) -> &BTreeMap<TopicPartition, u64> {
        &self.offsets
    }

    pub fn forget_offsets(&mut self, which: impl Fn(&TopicPartition) -> bool) {
        self.offsets.retain(|partition, _| !which(partition));
        self.pending.values_mut().for_each(|pending| pending.retain(|partition, _| !which(partition)));
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Each member's identity and what the newest generation gives it.
    pub fn assignments(&self) -> BTreeMap<String, Vec<TopicPartition>> {
        self.members.values().map(|it| (it.instance.clone(), it.assigned.iter().copied().collect())).collect()
    }
}
