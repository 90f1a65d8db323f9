//! What is sent when: a pure state machine. Time is an argument; nothing here reads, writes or sends.
//!
//! ```text
//!  verdict -> severe enough? -> the user's window (counts) --closes--> within the rate? -> delivery -> attempts -> arrived | dead
//!                                                                            \-> flood --the minute ends--> one delivery
//! ```
//!
//! Its state is a map of records ([`super::entry`]): [`Policy::restore`] takes them, [`Policy::changes`] tells which are other than they
//! were. A delivery leaves by [`Policy::due`] only once its record is said to be durable ([`Policy::saved`]).
//!
//! Invariants: each anomaly that a target is to hear of is counted in exactly one of a window, a flood or a delivery, or was dropped while
//! the target was disabled; in a minute a target gets at most its rate of new messages; windows, floods and queues are bounded, by
//! number and by [`Rules::memory_bytes`]: each target has its share, half of it for windows and half for deliveries. Where windows or what
//! waits fill it, anomalies go into the flood; what was given up makes room for what waits, the oldest first.

use std::collections::{BTreeMap, BTreeSet};

use models::Verdict;

use super::entry::{Delivery, Disabled, Key, Order, Records, Standing, State, Window, decode, encode};
use super::message::{Message, digest};
pub use super::rules::{Counts, Outcome, Rule, Rules};
use super::schedule::{PAUSE_MAX_MS, wait_ms};

/// A target's rate is by the minute.
const MINUTE_MS: i64 = 60_000;
/// Windows that a target may have open: what comes on top goes into its flood.
const WINDOWS_MAX: usize = 10_000;
/// Deliveries that may wait for a target: what comes on top goes into its flood.
const PENDING_MAX: usize = 1_000;
/// Dead deliveries that are kept for a target, the latest ones.
const DEAD_MAX: usize = 1_000;
/// Attempts at a time to one target.
const FLYING_MAX: usize = 4;
/// What a window or a delivery takes beside its message: keys in maps, its own fields, what went wrong.
const BESIDE_BYTES: usize = 512;
/// Characters kept of what went wrong.
const TROUBLE_MAX: usize = 300;

/// Bytes that a target's parts take, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    windows: usize,
    pending: usize,
    dead: usize,
}

impl Held {
    fn of(&mut self, state: State) -> &mut usize {
        match state {
            State::Pending => &mut self.pending,
            State::Dead => &mut self.dead,
        }
    }
}

/// See the module's header.
#[derive(Debug, Default)]
pub struct Policy {
    rules: Rules,
    windows: BTreeMap<(String, String), Window>,
    /// When windows opened.
    closing: BTreeSet<(i64, String, String)>,
    /// How many windows each target has open.
    open: BTreeMap<String, usize>,
    /// Memory, by target.
    held: BTreeMap<String, Held>,
    deliveries: BTreeMap<String, Delivery>,
    /// When pending deliveries are due.
    queue: BTreeSet<(i64, String)>,
    standings: BTreeMap<String, Standing>,
    changed: BTreeSet<Key>,
    /// Deliveries under way.
    flying: BTreeSet<String>,
    counts: BTreeMap<String, Counts>,
}

impl Policy {
    /// Nothing to tell yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// From the topic's records, the last of each key. What is of targets that are none any more is given up or dropped.
    #[must_use]
    pub fn restore(rules: Rules, records: &Records, now_ms: i64) -> Self {
        let mut policy = Self::new(rules);
        let mut orders = Vec::new();
        for (key, value) in records {
            match Key::decode(key) {
                Some(Key::Delivery(id)) => {
                    if let Some(delivery) = decode::<Delivery>(value).filter(|delivery| delivery.id == id) {
                        policy.put(delivery);
                    }
                }
                Some(Key::Window(target, user)) => match decode::<Window>(value) {
                    Some(window) if policy.rules.targets.contains_key(&target) => policy.open(target, user, window, now_ms),
                    _ => _ = policy.changed.insert(Key::Window(target, user)),
                },
                Some(Key::Target(name)) => {
                    if let Some(standing) = decode::<Standing>(value) {
                        policy.standings.insert(name, standing);
                    }
                }
                Some(key @ Key::Order(_)) => orders.push((key, decode::<Order>(value))),
                None => {}
            }
        }
        policy.settle(now_ms);
        for (key, order) in orders {
            policy.carry_out(key, order, now_ms);
        }
        policy
    }

    /// Fits what was restored to the targets there are now.
    fn settle(&mut self, now_ms: i64) {
        for (name, standing) in &mut self.standings {
            let address = self.rules.targets.get(name).map(|rule| &rule.address);
            if standing.disabled.as_ref().is_some_and(|disabled| address.is_some_and(|now| *now != disabled.address)) {
                standing.disabled = None;
                self.changed.insert(Key::Target(name.clone()));
            }
        }
        let pending = self.queue.iter().filter_map(|(_, id)| self.deliveries.get(id));
        let lost: Vec<String> = pending
            .filter(|delivery| !self.rules.targets.contains_key(&delivery.target))
            .map(|delivery| delivery.id.clone())
            .collect();
        for id in lost {
            self.give_up(&id, "no target has this name any more", now_ms);
        }
    }

    /// Goes on counting from here: what an earlier policy of this process counted.
    pub fn count_on(&mut self, counts: BTreeMap<String, Counts>) {
        self.counts = counts;
    }

    /// Takes a verdict of the anomalies topic. `snoozed` says that nobody wants to hear of it.
    pub fn observe(&mut self, verdict: &Verdict, snoozed: bool, now_ms: i64) {
        let wanting: Vec<(String, bool)> = self
            .rules
            .targets
            .iter()
            .filter(|(_, rule)| verdict.severity >= rule.min_severity)
            .map(|(name, rule)| (name.clone(), rule.include_user))
            .collect();
        for (target, include_user) in wanting {
            if snoozed {
                self.count(&target).snoozed += 1;
            } else if self.is_disabled(&target) {
                self.count(&target).dropped += 1;
            } else {
                self.tell(target, verdict, include_user, now_ms);
            }
        }
    }

    fn tell(&mut self, target: String, verdict: &Verdict, include_user: bool, now_ms: i64) {
        if self.rules.window_ms == 0 {
            return self.issue(target, Message::new(verdict, include_user), now_ms);
        }
        let at = (target, digest(&[&verdict.user_id]));
        if let Some(window) = self.windows.get_mut(&at) {
            let before = window.message.bytes();
            if window.message.add(verdict) {
                let grown = window.message.bytes();
                let held = &mut self.held.entry(at.0.clone()).or_default().windows;
                *held = *held + grown - before;
                self.changed.insert(Key::Window(at.0, at.1));
            }
            return;
        }
        let message = Message::new(verdict, include_user);
        let (target, user) = at;
        let full = self.held.get(&target).is_some_and(|held| held.windows >= self.half());
        if full || self.open.get(&target).is_some_and(|open| *open >= WINDOWS_MAX) {
            return self.issue(target, message, now_ms);
        }
        self.changed.insert(Key::Window(target.clone(), user.clone()));
        self.open(target, user, Window { opened_ms: now_ms, message }, now_ms);
    }

    fn open(&mut self, target: String, user: String, mut window: Window, now_ms: i64) {
        // Another machine's clock may have been ahead.
        window.opened_ms = window.opened_ms.min(now_ms);
        self.closing.insert((window.opened_ms, target.clone(), user.clone()));
        *self.open.entry(target.clone()).or_default() += 1;
        self.held.entry(target.clone()).or_default().windows += window.message.bytes() + BESIDE_BYTES;
        self.windows.insert((target, user), window);
    }

    /// Closes windows and floods whose time is over.
    pub fn tick(&mut self, now_ms: i64) {
        while let Some((opened_ms, target, user)) = self.closing.first().cloned() {
            if now_ms - opened_ms < self.rules.window_ms {
                break;
            }
            self.closing.pop_first();
            self.changed.insert(Key::Window(target.clone(), user.clone()));
            self.open.entry(target.clone()).and_modify(|open| *open -= 1);
            if let Some(window) = self.windows.remove(&(target.clone(), user)) {
                self.held.entry(target.clone()).or_default().windows -= window.message.bytes() + BESIDE_BYTES;
                self.issue(target, window.message, now_ms);
            }
        }
        let flooded: Vec<String> =
            self.standings.iter().filter(|(_, standing)| standing.flood.is_some()).map(|(name, _)| name.clone()).collect();
        for target in flooded {
            self.end_flood(&target, now_ms);
        }
    }

    /// A flood ends with the minute in which it began, as soon as there is room for its message.
    fn end_flood(&mut self, target: &str, now_ms: i64) {
        let Some(standing) = self.standings.get(target).filter(|standing| standing.flood.is_some()) else { return };
        let gone = standing.disabled.is_some() || !self.rules.targets.contains_key(target);
        if !gone && (!is_over(standing, now_ms) || !self.has_room(target)) {
            return;
        }
        let standing = self.standing(target);
        let Some(flood) = standing.flood.take() else { return };
        if gone {
            self.count(target).dropped += flood.count;
        } else {
            (standing.minute_ms, standing.made) = (now_ms, 1);
            self.deliver(target.to_owned(), flood, now_ms);
        }
    }

    /// A message is ready: on its way, or into the flood.
    fn issue(&mut self, target: String, message: Message, now_ms: i64) {
        if self.is_disabled(&target) {
            self.count(&target).dropped += message.count;
            return;
        }
        let Some(rate) = self.rules.targets.get(&target).map(|rule| rule.rate_per_minute) else { return };
        self.end_flood(&target, now_ms);
        let room = self.has_room(&target);
        let standing = self.standing(&target);
        if is_over(standing, now_ms) {
            (standing.minute_ms, standing.made) = (now_ms, 0);
        }
        // Behind a flood that waits for room nothing overtakes.
        if room && standing.flood.is_none() && standing.made < rate {
            standing.made += 1;
            self.deliver(target, message, now_ms);
        } else {
            let folded = message.count;
            match &mut standing.flood {
                Some(flood) => flood.fold(message),
                empty => *empty = Some(message.into_flood()),
            }
            self.count(&target).folded += folded;
        }
    }

    fn deliver(&mut self, target: String, message: Message, now_ms: i64) {
        let id = message.id_for(&target);
        if self.deliveries.contains_key(&id) {
            return; // The same verdict again, while its message waits.
        }
        self.changed.insert(Key::Delivery(id.clone()));
        let (state, trouble) = (State::Pending, None);
        self.put(Delivery { id, target, state, made_ms: now_ms, next_ms: now_ms, attempts: 0, trouble, message });
    }

    fn put(&mut self, delivery: Delivery) {
        if delivery.state == State::Pending {
            self.queue.insert((delivery.next_ms, delivery.id.clone()));
        }
        let target = delivery.target.clone();
        *self.held.entry(target.clone()).or_default().of(delivery.state) += delivery.message.bytes() + BESIDE_BYTES;
        self.deliveries.insert(delivery.id.clone(), delivery);
        while self.held.get(&target).is_some_and(|held| held.dead > 0 && held.pending + held.dead > self.half()) {
            self.forget_oldest(&target);
        }
    }

    /// What windows, and what deliveries of one target may take.
    fn half(&self) -> usize {
        self.rules.memory_bytes / self.rules.targets.len().max(1) / 2
    }

    /// Deliveries whose time has come, at most so many; each is under way until its [`Self::outcome`].
    pub fn due(&mut self, now_ms: i64, most: usize) -> Vec<Delivery> {
        let mut flying: BTreeMap<&str, usize> = BTreeMap::new();
        for delivery in self.flying.iter().filter_map(|id| self.deliveries.get(id)) {
            *flying.entry(&delivery.target).or_default() += 1;
        }
        let mut due = Vec::new();
        for (_, id) in self.queue.iter().take_while(|(next_ms, _)| *next_ms <= now_ms) {
            let Some(delivery) = self.deliveries.get(id) else { continue };
            let held = self.standings.get(&delivery.target).is_some_and(|s| s.held_until_ms > now_ms || s.disabled.is_some());
            let at_once = flying.entry(&delivery.target).or_default();
            let durable = !self.changed.contains(&Key::Delivery(id.clone()));
            if due.len() < most && durable && !held && *at_once < FLYING_MAX && !self.flying.contains(id) {
                *at_once += 1;
                due.push(delivery.clone());
            }
        }
        self.flying.extend(due.iter().map(|delivery| delivery.id.clone()));
        due
    }

    /// What came of an attempt.
    pub fn outcome(&mut self, id: &str, outcome: Outcome, now_ms: i64) {
        self.flying.remove(id);
        let Some(delivery) = self.deliveries.get(id).filter(|delivery| delivery.state == State::Pending) else { return };
        let target = delivery.target.clone();
        match outcome {
            Outcome::Arrived => {
                self.take(id);
                self.count(&target).sent += 1;
            }
            Outcome::Failed { why, pause_ms } => self.failed(id, &target, &why, pause_ms, now_ms),
            Outcome::Gone { why } => self.disable(&target, why, now_ms),
        }
    }

    fn failed(&mut self, id: &str, target: &str, why: &str, pause_ms: Option<i64>, now_ms: i64) {
        let pause_ms = pause_ms.map(|pause_ms| pause_ms.clamp(0, PAUSE_MAX_MS));
        if let Some(pause_ms) = pause_ms {
            let standing = self.standing(target);
            standing.held_until_ms = standing.held_until_ms.max(now_ms + pause_ms);
        }
        let Some(mut delivery) = self.take(id) else { return };
        delivery.attempts += 1;
        delivery.trouble = Some(why.chars().take(TROUBLE_MAX).collect());
        let wait_ms = wait_ms(id, delivery.attempts);
        delivery.next_ms = now_ms + wait_ms.unwrap_or(0).max(pause_ms.unwrap_or(0));
        self.put(delivery);
        match wait_ms {
            Some(_) => self.count(target).retried += 1,
            None => self.give_up(id, why, now_ms),
        }
    }

    fn disable(&mut self, target: &str, why: String, now_ms: i64) {
        let address = self.rules.targets.get(target).map(|rule| rule.address.clone()).unwrap_or_default();
        let pending: Vec<String> =
            self.deliveries.values().filter(|d| d.target == target && d.state == State::Pending).map(|d| d.id.clone()).collect();
        for id in pending {
            self.give_up(&id, &why, now_ms);
        }
        self.standing(target).disabled = Some(Disabled { at_ms: now_ms, why, address });
    }

    fn give_up(&mut self, id: &str, why: &str, now_ms: i64) {
        let Some(mut delivery) = self.take(id) else { return };
        let target = delivery.target.clone();
        delivery.state = State::Dead;
        delivery.next_ms = now_ms;
        delivery.trouble = Some(why.chars().take(TROUBLE_MAX).collect());
        self.count(&target).failed += 1;
        self.put(delivery);
        if self.deliveries.values().filter(|d| d.target == target && d.state == State::Dead).count() > DEAD_MAX {
            self.forget_oldest(&target);
        }
    }

    fn forget_oldest(&mut self, target: &str) {
        let dead = self.deliveries.values().filter(|d| d.target == target && d.state == State::Dead);
        if let Some(oldest) = dead.min_by_key(|delivery| delivery.next_ms).map(|delivery| delivery.id.clone()) {
            self.take(&oldest);
        }
    }

    /// Takes a delivery out; its record is another then, or none.
    fn take(&mut self, id: &str) -> Option<Delivery> {
        let delivery = self.deliveries.remove(id)?;
        self.queue.remove(&(delivery.next_ms, id.to_owned()));
        *self.held.entry(delivery.target.clone()).or_default().of(delivery.state) -= delivery.message.bytes() + BESIDE_BYTES;
        self.changed.insert(Key::Delivery(id.to_owned()));
        Some(delivery)
    }

    /// Does what an operator wants. An order that cannot be done, or not be read, is done with.
    pub fn carry_out(&mut self, key: Key, order: Option<Order>, now_ms: i64) {
        self.changed.insert(key);
        match order {
            Some(Order::Resend { delivery }) => {
                let Some(target) = self.deliveries.get(&delivery).map(|delivery| delivery.target.clone()) else { return };
                // Who asks for this means that the target will take it.
                if self.enable(&target) {
                    self.again(&delivery, now_ms);
                }
            }
            Some(Order::Enable { target }) if self.enable(&target) => {
                let dead = self.deliveries.values().filter(|d| d.target == target && d.state == State::Dead);
                for id in dead.map(|delivery| delivery.id.clone()).collect::<Vec<_>>() {
                    self.again(&id, now_ms);
                }
            }
            _ => {}
        }
    }

    /// False where there is no such target.
    fn enable(&mut self, target: &str) -> bool {
        let known = self.rules.targets.contains_key(target);
        if known {
            let standing = self.standing(target);
            (standing.disabled, standing.held_until_ms) = (None, 0);
        }
        known
    }

    fn again(&mut self, id: &str, now_ms: i64) {
        if let Some(delivery) = self.take(id) {
            self.put(Delivery { state: State::Pending, next_ms: now_ms, attempts: 0, ..delivery });
        }
    }

    /// The records that are other than what was last saved: a value, or none where there is to be none.
    #[must_use]
    pub fn changes(&self) -> Vec<(Key, Option<Vec<u8>>)> {
        let value = |key: &Key| match key {
            Key::Delivery(id) => self.deliveries.get(id).map(encode),
            Key::Window(target, user) => self.windows.get(&(target.clone(), user.clone())).map(encode),
            Key::Target(name) => self.standings.get(name).map(encode),
            Key::Order(_) => None,
        };
        self.changed.iter().map(|key| (key.clone(), value(key))).collect()
    }

    /// True where something is to be saved.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// All changes are durable.
    pub fn saved(&mut self) {
        self.changed.clear();
    }

    /// What has happened, by target.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<String, Counts> {
        &self.counts
    }

    /// Every delivery that has not arrived, by id.
    #[must_use]
    pub fn deliveries(&self) -> &BTreeMap<String, Delivery> {
        &self.deliveries
    }

    /// Whether a target asked for nothing more.
    #[must_use]
    pub fn is_disabled(&self, target: &str) -> bool {
        self.standings.get(target).is_some_and(|standing| standing.disabled.is_some())
    }

    fn has_room(&self, target: &str) -> bool {
        let pending = || self.deliveries.values().filter(|d| d.target == target && d.state == State::Pending).count();
        let fits = self.held.get(target).is_none_or(|held| held.pending < self.half());
        fits && (self.queue.len() < PENDING_MAX || pending() < PENDING_MAX)
    }

    fn standing(&mut self, target: &str) -> &mut Standing {
        self.changed.insert(Key::Target(target.to_owned()));
        self.standings.entry(target.to_owned()).or_default()
    }

    fn count(&mut self, target: &str) -> &mut Counts {
        self.counts.entry(target.to_owned()).or_default()
    }
}

/// Whether the minute is over in which messages were counted. A clock that went back (another machine's) begins a new one.
fn is_over(standing: &Standing, now_ms: i64) -> bool {
    now_ms < standing.minute_ms || now_ms - standing.minute_ms >= MINUTE_MS
}

#[cfg(test)]
#[path = "policy_tests.rs"]
pub(super) mod tests;
