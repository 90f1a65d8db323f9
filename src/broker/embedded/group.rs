//! A consumer group: who is in it, who owns which partition, and up to where input is committed. Pure: no I/O, no clock.
//!
//! Each member has a target (where the assignment wants to be) and what it owns (where things are). The difference is its next event:
//!
//! ```text
//! owned - target   -> Revoked: stays owned until the member acknowledges
//! target - owned   -> Assigned: owned from the offer on, and offered only once no other member owns it
//! ```
//!
//! So a partition has one owner at any time, and moves only after the old owner acknowledged or is out of the group. A membership
//! change raises the generation; a token of an earlier one is refused. A restart under the same static identity takes its predecessor's
//! place without a new generation, unless there is something else to move.

use std::collections::{BTreeMap, BTreeSet};

use topology::broker::Event;
use topology::record::{TopicId, TopicPartition};

/// A member's number; a restart gets a new one.
pub(super) type MemberId = u64;

/// Milliseconds until the group gives up on a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// On one that does not call.
    pub silent_ms: i64,
    /// On one that left and said it would come back.
    pub away_ms: i64,
}

/// Why a member isn't one any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It was silent for too long, or left.
    Dropped,
    /// Another one took its static identity.
    Replaced,
}

#[derive(Debug)]
struct Seat {
    instance: String,
    leads: Vec<TopicId>,
    seen_ms: i64,
    away: bool,
    owned: BTreeSet<TopicPartition>,
    target: BTreeSet<TopicPartition>,
}

/// One group.
#[derive(Debug, Default)]
pub(super) struct Group {
    generation: u64,
    members: BTreeMap<MemberId, Seat>,
    members_ever: MemberId,
    /// By partition, the next offset to read.
    pub offsets: BTreeMap<TopicPartition, u64>,
    /// Offsets in commits that are being written, by ticket.
    pub undecided: BTreeMap<u64, Vec<TopicPartition>>,
}

impl Group {
    /// The instances that are in it, those among them that are away for a restart left out.
    pub fn instances(&self) -> Vec<String> {
        self.members.values().filter(|seat| !seat.away).map(|seat| seat.instance.clone()).collect()
    }

    /// A new member, or the next incarnation of a static one, which takes over what its predecessor owned.
    pub fn join(&mut self, instance: &str, leads: &[TopicId], partitions: &[TopicPartition], now_ms: i64) -> MemberId {
        self.members_ever += 1;
        let id = self.members_ever;
        let before = self.members.iter().find(|(_, seat)| seat.instance == instance).map(|(id, _)| *id);
        let predecessor = before.and_then(|id| self.members.remove(&id));
        let target = predecessor.as_ref().map(|seat| seat.target.clone()).unwrap_or_default();
        let same_place = predecessor.is_some_and(|seat| seat.leads == leads);
        let (instance, leads) = (instance.to_owned(), leads.to_vec());
        self.members.insert(id, Seat { instance, leads, seen_ms: now_ms, away: false, owned: BTreeSet::new(), target });
        if !same_place {
            self.rebalance(partitions);
        }
        id
    }

    /// Takes a member out for good.
    pub fn leave(&mut self, id: MemberId, partitions: &[TopicPartition]) {
        if self.members.remove(&id).is_some() {
            self.rebalance(partitions);
        }
    }

    /// Keeps a member's place for the next one with its identity.
    pub fn step_away(&mut self, id: MemberId, now_ms: i64) {
        if let Some(seat) = self.members.get_mut(&id) {
            seat.away = true;
            seat.seen_ms = now_ms;
        }
    }

    /// Notes that a member is alive, and drops those that are not. True where someone was dropped: [`Self::rebalance`] then.
    pub fn tick(&mut self, alive: Option<MemberId>, now_ms: i64, patience: Patience) -> bool {
        if let Some(seat) = alive.and_then(|id| self.members.get_mut(&id)) {
            seat.seen_ms = now_ms;
        }
        let before = self.members.len();
        self.members.retain(|_, seat| {
            let limit_ms = if seat.away { patience.away_ms } else { patience.silent_ms };
            now_ms.saturating_sub(seat.seen_ms) < limit_ms
        });
        self.members.len() < before
    }

    /// Whether this is still a member.
    pub fn standing(&self, id: MemberId, instance: &str) -> Result<(), Gone> {
        match self.members.get(&id) {
            Some(_) => Ok(()),
            None if self.members.values().any(|seat| seat.instance == instance) => Err(Gone::Replaced),
            None => Err(Gone::Dropped),
        }
    }

    /// The generation that a token of now is of.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// True where another member owns the partition: its offset is not this one's to commit.
    pub fn is_others(&self, id: MemberId, partition: TopicPartition) -> bool {
        self.members.iter().any(|(other, seat)| *other != id && seat.owned.contains(&partition))
    }

    /// The member's next event, if there is one. Offered partitions count as owned.
    pub fn offer(&mut self, id: MemberId) -> Option<Event> {
        let event = self.next_event(id)?;
        if let (Event::Assigned(gained), Some(seat)) = (&event, self.members.get_mut(&id)) {
            seat.owned.extend(gained);
        }
        Some(event)
    }

    /// What [`Self::offer`] would say.
    pub fn next_event(&self, id: MemberId) -> Option<Event> {
        let seat = self.members.get(&id)?;
        let revoked: Vec<TopicPartition> = seat.owned.difference(&seat.target).copied().collect();
        if !revoked.is_empty() {
            return Some(Event::Revoked(revoked));
        }
        let free = |partition: &&TopicPartition| !self.is_others(id, **partition);
        let gained: Vec<TopicPartition> = seat.target.difference(&seat.owned).filter(free).copied().collect();
        (!gained.is_empty()).then_some(Event::Assigned(gained))
    }

    /// The member has given these up.
    pub fn release(&mut self, id: MemberId, partitions: &[TopicPartition]) {
        if let Some(seat) = self.members.get_mut(&id) {
            seat.owned.retain(|partition| !partitions.contains(partition));
        }
    }

    /// The topics that the group hands out.
    pub fn leads(&self) -> BTreeSet<TopicId> {
        self.members.values().flat_map(|seat| seat.leads.iter().copied()).collect()
    }

    /// Decides anew who should have what.
    pub fn rebalance(&mut self, partitions: &[TopicPartition]) {
        self.generation += 1;
        let claims: Vec<Claim<'_>> = self.members.values().map(|seat| Claim { leads: &seat.leads, held: seat.held() }).collect();
        let targets = assign(&claims, partitions);
        for (seat, target) in self.members.values_mut().zip(targets) {
            seat.target = target;
        }
    }
}

impl Seat {
    /// What it should keep if it can: what it owns, or was about to get.
    fn held(&self) -> BTreeSet<TopicPartition> {
        self.owned.union(&self.target).copied().collect()
    }
}

struct Claim<'a> {
    leads: &'a [TopicId],
    held: BTreeSet<TopicPartition>,
}

/// The partitions that each member should have, in the order of the claims: balanced to within one, and whoever holds one keeps it as
/// long as that allows.
fn assign(claims: &[Claim<'_>], partitions: &[TopicPartition]) -> Vec<BTreeSet<TopicPartition>> {
    let mut targets = vec![BTreeSet::new(); claims.len()];
    let takers = |partition: TopicPartition| (0..claims.len()).filter(move |&at| claims[at].leads.contains(&partition.topic));
    let mut free = Vec::new();
    for &partition in partitions {
        match takers(partition).find(|&at| claims[at].held.contains(&partition)) {
            Some(at) => _ = targets[at].insert(partition),
            None => free.push(partition),
        }
    }
    for partition in free {
        if let Some(least) = takers(partition).min_by_key(|&at| targets[at].len()) {
            targets[least].insert(partition);
        }
    }
    // Each move evens two members out, so this ends.
    while let Some((from, to, partition)) = uneven(claims, &targets) {
        targets[from].remove(&partition);
        targets[to].insert(partition);
    }
    targets
}

/// A partition that should move: from the fullest member that has one to spare, to the emptiest that takes it.
fn uneven(claims: &[Claim<'_>], targets: &[BTreeSet<TopicPartition>]) -> Option<(usize, usize, TopicPartition)> {
    let mut by_load: Vec<usize> = (0..claims.len()).collect();
    by_load.sort_by_key(|&at| targets[at].len());
    for &to in &by_load {
        for &from in by_load.iter().rev().take_while(|&&from| targets[from].len() >= targets[to].len() + 2) {
            // Latecomers' last ones first: what it never held costs nothing to move.
            let spare = |held: bool| {
                let mut last_first = targets[from].iter().rev();
                last_first.find(|p| claims[to].leads.contains(&p.topic) && claims[from].held.contains(p) == held)
            };
            if let Some(&partition) = spare(false).or_else(|| spare(true)) {
                return Some((from, to, partition));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
