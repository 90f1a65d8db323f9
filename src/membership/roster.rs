//! All that was heard on the members topic, folded: the last word of each instance, and who claimed each task.
//!
//! An instance is live while it was heard of within three of its beats. Who hears nothing, not even itself, judges by the moment when
//! it last did: a broker that is gone does not make everybody dead.

use std::collections::{BTreeMap, BTreeSet};

use topology::topology::TaskId;

use super::announcement::{Announcement, pair};
use super::directory::Peer;
use super::placement::copies_of;

/// An instance is live for this many of its beats.
const LIVE_BEATS: i64 = 3;
/// After this long no broker keeps a transaction open (Kafka's `transaction.max.timeout.ms` as it comes), and the silent are forgotten.
const FORGET_MS: i64 = 15 * 60_000;
/// Claims that are remembered for one task, the latest ones.
const CLAIMS_MAX: usize = 4;

#[derive(Clone, Debug)]
struct Heard {
    last: Announcement,
    /// On the listener's monotonic clock, in milliseconds; negative for what is older than the process.
    at_ms: i64,
}

/// A producer that held a task and has not said that it gave it up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    instance: String,
    transactional_id: Option<String>,
    /// What it may have left open has been ended.
    ended: bool,
}

impl Claim {
    fn is_of(&self, instance: &str, transactional_id: Option<&str>) -> bool {
        self.instance == instance && self.transactional_id.as_deref() == transactional_id
    }
}

/// See the module's header. Times are milliseconds of one monotonic clock.
#[derive(Debug)]
pub struct Roster {
    me: String,
    /// The sub-topology whose partitions hold users.
    users: u16,
    heard: BTreeMap<String, Heard>,
    claims: BTreeMap<(u16, u32), Vec<Claim>>,
}

impl Roster {
    /// Nothing heard yet.
    #[must_use]
    pub fn new(me: &str, users: u16) -> Self {
        Self { me: me.to_owned(), users, heard: BTreeMap::new(), claims: BTreeMap::new() }
    }

    /// This instance's name.
    #[must_use]
    pub fn me(&self) -> &str {
        &self.me
    }

    /// Takes up what an instance said, at this moment or before.
    pub fn hear(&mut self, said: Announcement, at_ms: i64) {
        for worker in &said.workers {
            let (instance, id) = (&said.instance, worker.transactional_id.as_deref());
            self.claims.retain(|task, claims| {
                if !worker.tasks.contains(task) {
                    claims.retain(|known| !known.is_of(instance, id));
                }
                !claims.is_empty()
            });
            for &task in &worker.tasks {
                let claims = self.claims.entry(task).or_default();
                if !claims.iter().any(|known| known.is_of(instance, id)) {
                    claims.push(Claim { instance: instance.clone(), transactional_id: id.map(str::to_owned), ended: false });
                    let surplus = claims.len().saturating_sub(CLAIMS_MAX);
                    claims.drain(..surplus);
                }
            }
        }
        self.heard.insert(said.instance.clone(), Heard { last: said, at_ms });
    }

    /// An instance has left for good: nothing of it is open any more.
    pub fn forget(&mut self, instance: &str) {
        self.heard.remove(instance);
        self.claims.retain(|_, claims| {
            claims.retain(|claim| claim.instance != instance);
            !claims.is_empty()
        });
    }

    /// Forgets those who were silent for so long that nothing of theirs matters.
    pub fn sweep(&mut self, now_ms: i64) {
        let judged_at = self.judged_at(now_ms);
        let gone = self.heard.iter().filter(|(name, heard)| **name != self.me && judged_at - heard.at_ms > FORGET_MS);
        for name in gone.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.forget(&name);
        }
    }

    /// The moment at which others' silence is judged.
    fn judged_at(&self, now_ms: i64) -> i64 {
        self.heard.get(&self.me).map_or(now_ms, |own| now_ms.min(own.at_ms.saturating_add(beat_ms(&own.last))))
    }

    fn is_live(&self, heard: &Heard, now_ms: i64) -> bool {
        self.judged_at(now_ms) - heard.at_ms <= beat_ms(&heard.last).saturating_mul(LIVE_BEATS)
    }

    fn live(&self, now_ms: i64) -> impl Iterator<Item = &Heard> {
        self.heard.values().filter(move |heard| self.is_live(heard, now_ms))
    }

    fn peer(&self, heard: &Heard, now_ms: i64) -> Peer {
        let Announcement { instance, endpoint, workers, standbys, .. } = &heard.last;
        let users = |&(sub, partition): &(u16, u32)| (sub == self.users).then_some(partition);
        let mut active: Vec<u32> = workers.iter().flat_map(|worker| &worker.tasks).filter_map(users).collect();
        active.sort_unstable();
        let copies = standbys.iter().filter_map(|note| Some((users(&note.task)?, note.position)));
        let mut standby: Vec<(u32, u64)> = copies.collect();
        standby.sort_unstable();
        Peer {
            instance: instance.clone(),
            endpoint: endpoint.clone().unwrap_or_default(),
            active,
            standby,
            heard_ms: now_ms.saturating_sub(heard.at_ms).max(0).unsigned_abs(),
        }
    }

    /// The live instance that claimed a partition of users last, and has not given it up.
    #[must_use]
    pub fn owner(&self, partition: u32, now_ms: i64) -> Option<Peer> {
        self.holder((self.users, partition), now_ms).map(|heard| self.peer(heard, now_ms))
    }

    /// The copies that this instance is to keep of these tasks; none before it was heard of itself: until then it knows too little.
    #[must_use]
    pub fn copies_to_keep(&self, tasks: &[TaskId], replicas: usize, now_ms: i64) -> Option<BTreeSet<TaskId>> {
        self.heard.get(&self.me)?;
        let mine = tasks.iter().copied().filter(|&task| {
            let owner = self.holder(pair(task), now_ms).map(|heard| heard.last.instance.as_str());
            // Who has no workers has no store either.
            let streaming = self.live(now_ms).filter(|heard| !heard.last.workers.is_empty());
            let members = streaming.map(|heard| heard.last.instance.as_str());
            copies_of(members, owner, task, replicas).contains(&self.me.as_str())
        });
        Some(mine.collect())
    }

    fn holder(&self, task: (u16, u32), now_ms: i64) -> Option<&Heard> {
        let claims = self.claims.get(&task)?;
        let last = claims.iter().rev().filter_map(|claim| self.heard.get(&claim.instance));
        // A claim outlives a worker that vanished from its instance: for queries the instance's last word counts.
        let holds = |heard: &&Heard| heard.last.workers.iter().any(|worker| worker.tasks.contains(&task));
        last.filter(holds).find(|heard| self.is_live(heard, now_ms))
    }

    /// Live instances with a copy of a partition of users, the one furthest ahead first.
    #[must_use]
    pub fn standbys(&self, partition: u32, now_ms: i64) -> Vec<Peer> {
        let position = |peer: &Peer| peer.standby.iter().find(|(of, _)| *of == partition).map(|(_, position)| *position);
        let mut found: Vec<(u64, Peer)> =
            self.live(now_ms).map(|heard| self.peer(heard, now_ms)).filter_map(|peer| Some((position(&peer)?, peer))).collect();
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.instance.cmp(&b.1.instance)));
        found.into_iter().map(|(_, peer)| peer).collect()
    }

    /// All live instances, by name.
    #[must_use]
    pub fn members(&self, now_ms: i64) -> Vec<Peer> {
        self.live(now_ms).map(|heard| self.peer(heard, now_ms)).collect()
    }

    /// Transactional ids under which a task was held, and whose holders never said that they gave it up, the latest first; each with
    /// true where its instance is silent. `mine` is left out.
    #[must_use]
    pub fn claims(&self, task: TaskId, mine: &str, now_ms: i64) -> Vec<(String, bool)> {
        let claims = self.claims.get(&pair(task)).map_or(&[][..], Vec::as_slice);
        let foreign = claims.iter().rev().filter(|claim| !claim.ended).filter_map(|claim| {
            let id = claim.transactional_id.as_ref().filter(|id| *id != mine)?;
            let live = self.heard.get(&claim.instance).is_some_and(|heard| self.is_live(heard, now_ms));
            Some((id.clone(), !live))
        });
        foreign.collect()
    }

    /// What that transactional id left open has been ended.
    pub fn settle(&mut self, transactional_id: &str) {
        let claims = self.claims.values_mut().flatten();
        claims.filter(|claim| claim.transactional_id.as_deref() == Some(transactional_id)).for_each(|claim| claim.ended = true);
    }
}

fn beat_ms(said: &Announcement) -> i64 {
    i64::try_from(said.beat_ms).unwrap_or(i64::MAX / 8).min(FORGET_MS)
}
