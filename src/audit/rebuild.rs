//! State anew: a store from its changelog; a store from payments and decisions, as of an input position; and a changelog that is put
//! right by what payments and decisions give.
//!
//! Writing into a changelog is the task's own right (I1). So a repair joins the group as a member, goes on only once the group has given
//! it every partition, and writes in transactions that carry the unmoved input offsets under the group's generation: an instance that is
//! running keeps its partitions and the repair refuses, one that comes up meanwhile fences it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use state::backend::Backend;
use topology::broker::{Broker, BrokerError, Event, Member, MemberConfig, Reaction};
use topology::record::{Fetched, Outgoing, TopicPartition};
use topology::refill::Refill;
use topology::topology::SubTopology;

use super::cursor::Cursor;
use super::difference::{Difference, Naming};
use super::fold::Fold;
use super::player::Player;
use super::script::Script;
use super::verify::Finding;
use super::{Audit, AuditError, Result, Told};
use crate::clock::{monotonic, since};

/// Values written in one transaction.
const BATCH: usize = 5_000;
/// How long one poll of the group waits, and for how long committed offsets are asked for.
const WAIT: Duration = Duration::from_millis(200);
const ANSWER: Duration = Duration::from_secs(30);

/// A store's partition replayed from payments and decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// The partition.
    pub partition: u32,
    /// The first payment replayed, and the end: payments below it are in.
    pub payments: (u64, u64),
    /// Users in it.
    pub users: u64,
    /// Earlier payments are no longer retained: profiles that began before are in it from there on only.
    pub truncated: bool,
}

/// What a repair of one partition's changelog comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// The partition.
    pub partition: u32,
    /// Users whose value is the replayed one.
    pub same: u64,
    /// Users whose value was, or would be, replaced or erased.
    pub replaced: u64,
    /// Users whose profile began before what is retained: left as they are.
    pub left: u64,
    /// The first one replaced.
    pub first: Option<Difference>,
}

/// A user's new value; none erases.
type Change = (Box<[u8]>, Option<Vec<u8>>);

struct Plan {
    repair: Repair,
    changes: Vec<Change>,
}

impl<B: Broker> Audit<B> {
    /// Drops a store's partition and reads it anew from its changelog. Returns the records applied.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn refill(&self, partition: u32, backend: &dyn Backend, now_ms: i64, told: &mut Told<'_>) -> Result<u64> {
        let refill = Refill {
            store: self.store(partition),
            changelog: self.changelog(partition),
            lead: self.name(self.sub().lead()).to_owned(),
            exactly_once: self.exactly_once,
            now_ms,
        };
        let mut stalled = Stalled::default();
        let applied = refill.run(&mut self.broker.reader()?, backend, &mut |position, until| {
            told("changelog", position, until);
            stalled.moves(position)
        })?;
        Ok(applied)
    }

    /// Replays a partition's payments below `to` (all, where none is given) with its decisions into a store. The partition is dropped first;
    /// nothing else is written.
    ///
    /// # Errors
    /// What cannot be read or written; a position beyond the topic's end or before its beginning.
    pub fn replay(&self, partition: u32, to: Option<u64>, backend: &Arc<dyn Backend>, told: &mut Told<'_>) -> Result<Replayed> {
        let bounds = self.bounds(self.lead(partition))?;
        let to = to.unwrap_or(bounds.end);
        if to > bounds.end || to < bounds.start {
            let name = self.name(self.sub().lead());
            let what = format!("--to {partition}={to}: {name}:{partition} holds offsets {} to {}", bounds.start, bounds.end);
            return Err(AuditError(what));
        }
        let script = self.script(partition)?;
        backend.drop_partition(&self.store(partition))?;
        let mut player = Player::above(self, partition, &script, Arc::clone(backend))?;
        self.play(&mut player, partition, bounds.start, to, told)?;
        let mut users = 0;
        player.scan(&mut |_, _| users += 1)?;
        Ok(Replayed { partition, payments: (bounds.start, to), users, truncated: bounds.start > script.begins })
    }

    /// Plays `from..to` and what was decided up to there.
    fn play(&self, player: &mut Player<'_>, partition: u32, from: u64, to: u64, told: &mut Told<'_>) -> Result<()> {
        let mut cursor = Cursor::open(self.broker.reader()?, self.lead(partition), from, to)?;
        while cursor.fill()? {
            let (fetched, order) = cursor.batch();
            player.lead(fetched, order, &mut |_| {})?;
            told("transactions", player.position().saturating_sub(from), to - from);
            cursor.pass();
        }
        player.rule(to, &mut |_| {})?;
        player.settle()
    }

    /// What a repair would replace, while nothing else writes: to the payments' position `to`.
    fn plan(&self, partition: u32, to: u64, naming: &Naming, told: &mut Told<'_>) -> Result<Plan> {
        let fold = self.fold(partition, None, told)?;
        if fold.furthest > to {
            return Err(AuditError(format!(
                "the changelog of partition {partition} includes payments below {}, but only those below {to} are processed: `mangrove \
                 verify` says more",
                fold.furthest
            )));
        }
        let script = self.script(partition)?;
        let start = self.bounds(self.lead(partition))?.start;
        let mut player = Player::new(self, partition, &script)?;
        self.play(&mut player, partition, start.min(to), to, told)?;
        self.compare(partition, &fold, &script, &player, start, naming)
    }

    fn compare(
        &self,
        partition: u32,
        fold: &Fold,
        script: &Script,
        player: &Player<'_>,
        start: u64,
        naming: &Naming,
    ) -> Result<Plan> {
        let mut keys: BTreeSet<Box<[u8]>> = fold.users.keys().cloned().collect();
        player.scan(&mut |key, _| {
            keys.insert(key.into());
        })?;
        let mut plan = Plan { repair: Repair { partition, ..Repair::default() }, changes: Vec::new() };
        for key in keys {
            let (kept, value) = (fold.users.get(&key), player.value(&key)?);
            match (kept.and_then(|kept| kept.value.as_deref()), value.as_deref()) {
                (None, None) => continue,
                (a, b) if a == b => plan.repair.same += 1,
                _ => match self.judge(partition, &key, kept, value.as_deref(), script, start, naming)? {
                    Finding::Same => plan.repair.same += 1,
                    Finding::BeganBefore => plan.repair.left += 1,
                    Finding::Differ(difference) => {
                        plan.repair.replaced += 1;
                        plan.repair.first = plan.repair.first.take().or(difference);
                        plan.changes.push((key, value));
                    }
                },
            }
        }
        Ok(plan)
    }

    /// Puts right the changelogs of these partitions by what payments and decisions give, up to the group's committed offsets. `write` false only says
    /// what would be replaced; the group is joined all the same, because nothing may move meanwhile.
    ///
    /// # Errors
    /// Where instances run (the group did not give this member every partition within `patience`), and what cannot be read or written.
    #[expect(clippy::too_many_arguments, reason = "each is a choice of the caller's")]
    pub fn repair(
        &self,
        partitions: &[u32],
        write: bool,
        instance: &str,
        patience: Duration,
        now_ms: i64,
        naming: &Naming,
        told: &mut Told<'_>,
    ) -> Result<Vec<Repair>> {
        if !self.exactly_once {
            return Err(AuditError(
                "a changelog is only repaired under PROCESSING_GUARANTEE=exactly_once: I4 is promised there".into(),
            ));
        }
        let config = MemberConfig {
            group: self.topology.application().to_owned(),
            instance: instance.to_owned(),
            transactional_id: Some(instance.to_owned()),
            transaction_timeout_ms: 10_000,
            leads: self.topology.subs().iter().map(SubTopology::lead).collect(),
        };
        let mut member = self.broker.join(&config)?;
        let done = self.take_all(&mut member, patience).and_then(|()| {
            let each = |&partition: &u32| self.repair_one(&mut member, partition, write, now_ms, naming, told);
            partitions.iter().map(each).collect()
        });
        // Whatever came of it, the partitions are given back at once.
        let left = member.leave(true);
        let repairs = done?;
        left?;
        Ok(repairs)
    }

    fn take_all(&self, member: &mut B::Member, patience: Duration) -> Result<()> {
        let lead = self.sub().lead();
        let wanted: BTreeSet<u32> = (0..self.partitions()).collect();
        let mut held = BTreeSet::new();
        let began = monotonic();
        let mut fetched = Fetched::default();
        while held != wanted {
            if since(began) > patience {
                let missing: Vec<String> = wanted.difference(&held).map(u32::to_string).collect();
                return Err(AuditError(format!(
                    "within {} s the group did not give away the partitions {}: an instance runs, or died and its session has not ended. \
                     Stop all instances of this application first",
                    patience.as_secs(),
                    missing.join(", ")
                )));
            }
            let event = match member.poll(&mut fetched, 1, WAIT) {
                Err(BrokerError { reaction: Reaction::Retry, .. }) => continue,
                event => event?,
            };
            let Some(event) = event else { continue };
            member.acknowledge(&event)?;
            let of = |partitions: &[TopicPartition]| {
                partitions.iter().filter(|at| at.topic == lead).map(|at| at.partition).collect::<BTreeSet<u32>>()
            };
            match &event {
                Event::Assigned(partitions) => held.extend(of(partitions)),
                Event::Revoked(partitions) | Event::Lost(partitions) => {
                    let gone = of(partitions);
                    held.retain(|partition| !gone.contains(partition));
                }
            }
        }
        Ok(())
    }

    fn repair_one(
        &self,
        member: &mut B::Member,
        partition: u32,
        write: bool,
        now_ms: i64,
        naming: &Naming,
        told: &mut Told<'_>,
    ) -> Result<Repair> {
        let lead = self.lead(partition);
        let began = monotonic();
        let committed = loop {
            match member.committed(&[lead], WAIT) {
                Err(BrokerError { reaction: Reaction::Retry, .. }) if since(began) < ANSWER => {}
                committed => break committed?[0],
            }
        };
        let Some(committed) = committed else {
            return Err(AuditError(format!(
                "the group has no committed offset for partition {partition}: nothing says how far the state goes"
            )));
        };
        let mut fetched = Fetched::default();
        let mut lost = false;
        // The group takes a member for dead that does not poll.
        let mut alive = |what: &str, done: u64, all: u64| {
            lost |= !matches!(member.poll(&mut fetched, 1, Duration::ZERO), Ok(None));
            told(what, done, all);
        };
        let Plan { repair, changes } = self.plan(partition, committed, naming, &mut alive)?;
        if lost {
            return Err(AuditError("an instance joined the group: stop all instances of this application first".into()));
        }
        if write {
            let to = self.changelog(partition);
            for batch in changes.chunks(BATCH) {
                member.begin()?;
                for (key, value) in batch {
                    let record = Outgoing { to, key: Some(key), value: value.as_deref(), timestamp: now_ms, headers: &[] };
                    member.send(&record)?;
                }
                // The unmoved offset is what lets the group's generation fence the transaction.
                let token = member.token()?;
                member.commit(&[(lead, committed)], token)?;
            }
        }
        Ok(repair)
    }
}

/// Notices where a position no longer moves.
#[derive(Default)]
struct Stalled {
    position: u64,
    moved: Option<Duration>,
}

impl Stalled {
    fn moves(&mut self, position: u64) -> bool {
        if position != self.position || self.moved.is_none() {
            self.position = position;
            self.moved = Some(monotonic());
        }
        self.moved.is_some_and(|moved| since(moved) < Duration::from_secs(60))
    }
}
