//! The member that reads anomalies, owns the policy and keeps it in the topic.
//!
//! All instances join one group whose only partition is that of the notifications topic: whoever has it reads every partition of the
//! anomalies, so that rates and floods hold for the application and not for each instance. It restores the policy from the topic,
//! reads anomalies from the group's committed offsets on, and commits offsets and changed records in one transaction that the group's
//! generation fences. What fails is done anew: the member is dropped, joins again and restores.
//!
//! A group without offsets begins with the oldest anomaly retained; of what was there before it, anomalies of records older than a day are
//! not told of: they are history, not news.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use models::Verdict;
use topology::broker::{Broker, BrokerError, Event, Member, MemberConfig, Reaction, Reader, Result};
use topology::clock::Clock;
use topology::record::{Fetched, Outgoing, TopicId, TopicPartition};
use tracing::{info, warn};

use super::entry::{Key, Records, State, decode};
use super::policy::{Counts, Policy, Rules};
use super::send::Courier;
use crate::registry::{BrokerLog, ModelsLog as _};

/// Records of one read.
const CHUNK: usize = 2_000;
/// Deliveries handed out at once.
const AT_ONCE: usize = 64;
/// Between two commits, in microseconds.
const SAVE_US: u64 = 200_000;
/// Between two looks at the figures, in microseconds.
const SHOW_US: u64 = 1_000_000;
/// What a new group finds and is older is not told of.
const NEWS_MS: i64 = 24 * 3_600_000;
/// For the group's offsets while a predecessor's transaction is undecided.
const OFFSETS_MAX: Duration = Duration::from_secs(15);
/// For reading the topic back; then it is begun anew.
const RESTORE_US: u64 = 120_000_000;
/// The longest that one look at the topic waits.
const LOOK: Duration = Duration::from_millis(100);

/// Whether somebody has snoozed this verdict.
pub type Snoozed = dyn Fn(&Verdict) -> bool + Send;

/// What a notifier works with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The application's full name.
    pub application: String,
    /// The instance's name.
    pub instance: String,
    /// Verdicts to tell of.
    pub anomalies: TopicId,
    /// The notifier's memory.
    pub notifications: TopicId,
    /// Milliseconds after which the broker aborts a transaction left open.
    pub transaction_timeout_ms: u64,
    /// Who wants what.
    pub rules: Rules,
}

/// Figures of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// What has happened since this process began.
    pub counts: Counts,
    /// Deliveries that wait.
    pub pending: usize,
    /// Deliveries given up and kept.
    pub dead: usize,
    /// When the oldest one that waits was made, in milliseconds since the epoch.
    pub oldest_ms: Option<i64>,
    /// The target asked for nothing more.
    pub disabled: bool,
}

/// The figures of a running notifier; none while another instance has the work.
#[derive(Debug, Default)]
pub struct Status(Mutex<BTreeMap<String, Figures>>);

impl Status {
    /// By target.
    #[must_use]
    pub fn figures(&self) -> BTreeMap<String, Figures> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Figures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the owner of the partition has.
struct Desk<B: Broker> {
    policy: Policy,
    reader: B::Reader,
    /// The next anomaly to read.
    next: BTreeMap<TopicPartition, u64>,
    /// Where the group had no offsets: the end of what was there before it.
    history: BTreeMap<TopicPartition, u64>,
    /// Something was read since the last commit.
    moved: bool,
}

/// See the module's header.
pub struct Notifier<B: Broker> {
    broker: Arc<B>,
    plan: Plan,
    clock: Arc<dyn Clock>,
    courier: Box<dyn Courier>,
    snoozed: Box<Snoozed>,
    status: Arc<Status>,
    member: Option<B::Member>,
    /// The partition is ours.
    owner: bool,
    desk: Option<Desk<B>>,
    fetched: Fetched,
    counts: BTreeMap<String, Counts>,
    saved_us: u64,
    shown_us: u64,
}

impl<B: Broker> Notifier<B> {
    /// One that has joined nothing yet.
    #[must_use]
    pub fn new(broker: &Arc<B>, plan: Plan, clock: Arc<dyn Clock>, courier: Box<dyn Courier>, snoozed: Box<Snoozed>) -> Self {
        Self {
            broker: Arc::clone(broker),
            plan,
            clock,
            courier,
            snoozed,
            status: Arc::default(),
            member: None,
            owner: false,
            desk: None,
            fetched: Fetched::default(),
            counts: BTreeMap::new(),
            saved_us: 0,
            shown_us: 0,
        }
    }

    /// What metrics show.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Does what there is to do, waiting for it at most about so long.
    ///
    /// # Errors
    /// The broker's; the next step begins anew where that is needed.
    pub fn step(&mut self, wait: Duration, stopped: &dyn Fn() -> bool) -> Result<()> {
        let done = self.try_step(wait, stopped);
        if let Err(why) = &done
            && why.reaction != Reaction::Retry
        {
            self.start_anew();
        }
        done
    }

    fn try_step(&mut self, wait: Duration, stopped: &dyn Fn() -> bool) -> Result<()> {
        if self.member.is_none() {
            self.member = Some(self.broker.join(&self.config())?);
        }
        let member = self.member.as_mut().expect("invariant: made above");
        self.fetched.clear(1 << 20);
        let rest = if self.owner { Duration::ZERO } else { wait };
        if let Some(event) = member.poll(&mut self.fetched, CHUNK, rest)? {
            return self.follow(&event);
        }
        if self.owner && self.desk.is_none() {
            self.desk = Some(self.take_over(stopped)?);
        }
        if self.desk.is_some() { self.work(wait) } else { Ok(()) }
    }

    fn config(&self) -> MemberConfig {
        let Plan { application, instance, notifications, transaction_timeout_ms, .. } = &self.plan;
        let identity = format!("{application}-notify-{instance}");
        MemberConfig {
            group: format!("{application}-notify"),
            instance: identity.clone(),
            transactional_id: Some(identity),
            transaction_timeout_ms: *transaction_timeout_ms,
            leads: vec![*notifications],
        }
    }

    /// Forgets everything that is not in the topic.
    fn start_anew(&mut self) {
        self.let_go();
        self.member = None;
    }

    fn let_go(&mut self) {
        self.owner = false;
        if let Some(desk) = self.desk.take() {
            self.counts.clone_from(desk.policy.counts());
        }
        self.status.lock().clear();
    }

    fn memory(&self) -> TopicPartition {
        TopicPartition { topic: self.plan.notifications, partition: 0 }
    }

    fn follow(&mut self, event: &Event) -> Result<()> {
        let memory = self.memory();
        match event {
            Event::Assigned(partitions) => self.owner |= partitions.contains(&memory),
            Event::Revoked(partitions) if partitions.contains(&memory) => {
                self.save()?;
                self.let_go();
            }
            Event::Lost(partitions) if partitions.contains(&memory) => self.let_go(),
            Event::Revoked(_) | Event::Lost(_) => {}
        }
        self.member.as_mut().map_or(Ok(()), |member| member.acknowledge(event))
    }

    fn take_over(&mut self, stopped: &dyn Fn() -> bool) -> Result<Desk<B>> {
        // What came of attempts of an earlier time is not ours to judge any more.
        drop(self.courier.outcomes());
        let (records, next) = self.read_back(stopped)?;
        let anomalies = self.plan.anomalies;
        let info = self.broker.describe(&[anomalies])?.pop().flatten();
        let info = info.ok_or_else(|| BrokerError::new(Reaction::Retry, "the anomalies topic does not exist"))?;
        let places: Vec<_> = (0..info.partitions).map(|partition| TopicPartition { topic: anomalies, partition }).collect();
        let memory = self.memory();
        let member = self.member.as_mut().expect("invariant: a member took over");
        let committed = member.committed(&places, OFFSETS_MAX)?;
        member.start(&[(memory, next)])?;
        let mut reader = self.broker.reader()?;
        let (mut positions, mut history) = (BTreeMap::new(), BTreeMap::new());
        for (place, committed) in places.into_iter().zip(committed) {
            let bounds = reader.bounds(place)?;
            if committed.is_none() {
                history.insert(place, bounds.end);
            }
            // An offset beyond the end is of a topic that was since created anew.
            let from = committed.filter(|from| (bounds.start..=bounds.end).contains(from)).unwrap_or(bounds.start);
            reader.assign(place, from)?;
            positions.insert(place, from);
        }
        let mut policy = Policy::restore(self.plan.rules.clone(), &records, self.clock.now_ms());
        policy.count_on(std::mem::take(&mut self.counts));
        info!(deliveries = policy.deliveries().len(), partitions = positions.len(), "this instance notifies from now on");
        Ok(Desk { policy, reader, next: positions, history, moved: true })
    }

    /// The last value of each key, and the offset behind them.
    fn read_back(&self, stopped: &dyn Fn() -> bool) -> Result<(Records, u64)> {
        let mut log = BrokerLog::new(Arc::clone(&self.broker), self.plan.notifications);
        let (mut records, mut next) = (Records::new(), 0);
        let (end, began_us) = (log.end()?, self.clock.monotonic_us());
        while next < end {
            if stopped() || self.clock.monotonic_us() - began_us > RESTORE_US {
                return Err(BrokerError::new(Reaction::Retry, "the notifications topic was not read to its end"));
            }
            next = log.read(LOOK, &mut |_, key, value| match value {
                Some(value) => drop(records.insert(key.to_vec(), value.to_vec())),
                None => drop(records.remove(key)),
            })?;
        }
        Ok((records, next))
    }

    fn work(&mut self, wait: Duration) -> Result<()> {
        let now_ms = self.clock.now_ms();
        let desk = self.desk.as_mut().expect("invariant: looked at before");
        for record in self.fetched.iter() {
            let order = record.key.and_then(Key::decode).filter(|key| matches!(key, Key::Order(_)));
            if let (Some(key), Some(value)) = (order, record.value) {
                desk.policy.carry_out(key, decode(value), now_ms);
            }
        }
        for (id, outcome) in self.courier.outcomes() {
            desk.policy.outcome(&id, outcome, now_ms);
        }
        self.read(wait)?;
        let now_us = self.clock.monotonic_us();
        if now_us - self.saved_us >= SAVE_US {
            self.save()?;
            self.saved_us = now_us;
        }
        let desk = self.desk.as_mut().expect("invariant: saving keeps it");
        let now_ms = self.clock.now_ms();
        for delivery in desk.policy.due(now_ms, AT_ONCE) {
            self.courier.send(delivery, now_ms);
        }
        if now_us - self.shown_us >= SHOW_US {
            self.show();
            self.shown_us = now_us;
        }
        Ok(())
    }

    fn read(&mut self, wait: Duration) -> Result<()> {
        let desk = self.desk.as_mut().expect("invariant: looked at before");
        self.fetched.clear(1 << 20);
        match desk.reader.poll(&mut self.fetched, CHUNK, wait) {
            Err(BrokerError { reaction: Reaction::Retry, .. }) => {}
            polled => polled?,
        }
        let now_ms = self.clock.now_ms();
        for record in self.fetched.iter() {
            desk.next.insert(record.from, record.offset + 1);
            desk.moved = true;
            let history = desk.history.get(&record.from).is_some_and(|end| record.offset < *end);
            if history && now_ms.saturating_sub(record.timestamp) > NEWS_MS {
                continue;
            }
            match serde_json::from_slice::<Verdict>(record.value.unwrap_or_default()) {
                Ok(verdict) => desk.policy.observe(&verdict, (self.snoozed)(&verdict), now_ms),
                Err(_) => {
                    warn!(partition = record.from.partition, offset = record.offset, "an anomaly is no verdict: it is left out")
                }
            }
        }
        // Past control records too, so that the group's lag comes to nothing.
        for (place, next) in &mut desk.next {
            *next = desk.reader.position(*place).unwrap_or(0).max(*next);
        }
        desk.policy.tick(now_ms);
        Ok(())
    }

    /// Commits what has changed and how far anomalies were read. The offsets are in every commit: they bind it to the group's generation.
    fn save(&mut self) -> Result<()> {
        let (Some(desk), Some(member)) = (&mut self.desk, &mut self.member) else { return Ok(()) };
        if !desk.moved && !desk.policy.is_changed() {
            return Ok(());
        }
        let to = TopicPartition { topic: self.plan.notifications, partition: 0 };
        let timestamp = self.clock.now_ms();
        let committed = (|| {
            member.begin()?;
            for (key, value) in desk.policy.changes() {
                let key = key.encode();
                member.send(&Outgoing { to, key: Some(&key), value: value.as_deref(), timestamp, headers: &[] })?;
            }
            let token = member.token()?;
            let next: Vec<_> = desk.next.iter().map(|(place, next)| (*place, *next)).collect();
            member.commit(&next, token)
        })();
        match committed {
            Ok(()) => {
                desk.policy.saved();
                desk.moved = false;
                Ok(())
            }
            // A transaction is open, or may have ended either way: the topic knows.
            Err(why) => {
                self.start_anew();
                Err(why)
            }
        }
    }

    fn show(&self) {
        let Some(desk) = &self.desk else { return };
        let mut figures: BTreeMap<String, Figures> = BTreeMap::new();
        for name in self.plan.rules.targets.keys() {
            let counts = desk.policy.counts().get(name).copied().unwrap_or_default();
            let disabled = desk.policy.is_disabled(name);
            figures.insert(name.clone(), Figures { counts, disabled, ..Figures::default() });
        }
        for delivery in desk.policy.deliveries().values() {
            let Some(of) = figures.get_mut(&delivery.target) else { continue };
            if delivery.state == State::Dead {
                of.dead += 1;
            } else {
                of.pending += 1;
                of.oldest_ms = Some(of.oldest_ms.map_or(delivery.made_ms, |oldest| oldest.min(delivery.made_ms)));
            }
        }
        *self.status.lock() = figures;
    }

    /// Commits what is done and gives the partition to another instance.
    ///
    /// # Errors
    /// The broker's: what was not committed is done again by whoever comes next.
    pub fn close(mut self) -> Result<()> {
        if let Some(desk) = &mut self.desk {
            for (id, outcome) in self.courier.outcomes() {
                desk.policy.outcome(&id, outcome, self.clock.now_ms());
            }
        }
        self.save()?;
        self.member.as_mut().map_or(Ok(()), |member| member.leave(true))
    }
}

#[cfg(test)]
#[path = "notifier_tests.rs"]
mod tests;
