//! What goes wrong with payments, how often, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use rand_chacha::rand_core::Rng;

use super::sample::{below, between};

const SECOND_MS: f64 = 1_000.0;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// How many payments a take-over makes.
const BURST_MIN: u32 = 6;
const BURST_MAX: u32 = 15;
/// How many payments a card test makes: small ones, and the one they were for.
const TESTS_MIN: u32 = 4;
const TESTS_MAX: u32 = 9;
/// How many payments come of a breach at a merchant.
const VICTIMS_MIN: u32 = 6;
const VICTIMS_MAX: u32 = 15;

/// What is wrong with a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// Someone else has the account: many payments within minutes, at merchants the user does not know.
    AccountTakeover,
    /// 10 to 50 times what the user pays.
    AmountSpike,
    /// At an hour when the user never pays.
    OddHour,
    /// At a merchant the user does not know, for more than usual.
    NewMerchant,
    /// Stolen card numbers are tried: a few very small payments within seconds at one unknown merchant, then a large one.
    CardTest,
    /// A merchant's customers were copied: within a day and a half many of them pay where none of them ever paid.
    MerchantCompromise,
}

impl Anomaly {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::AccountTakeover, Self::AmountSpike, Self::OddHour, Self::NewMerchant, Self::CardTest, Self::MerchantCompromise];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::AccountTakeover => "account_takeover",
            Self::AmountSpike => "amount_spike",
            Self::OddHour => "odd_hour",
            Self::NewMerchant => "new_merchant",
            Self::CardTest => "card_test",
            Self::MerchantCompromise => "merchant_compromise",
        }
    }

    /// How many payments one incident adds, on average; 0 for one that stands in an arrival's place.
    fn adds(self) -> f64 {
        match self {
            Self::AmountSpike | Self::NewMerchant => 0.0,
            Self::OddHour => 1.0,
            Self::AccountTakeover => f64::from(BURST_MIN + BURST_MAX) / 2.0,
            Self::CardTest => f64::from(TESTS_MIN + TESTS_MAX) / 2.0,
            Self::MerchantCompromise => f64::from(VICTIMS_MIN + VICTIMS_MAX) / 2.0,
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|anomaly| anomaly.name() == name)
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which anomalies: weights of anomalous payments (not of incidents: a take-over is many payments), as [`Anomaly::ALL`] has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnomalyMix(pub [f64; Anomaly::ALL.len()]);

impl AnomalyMix {
    /// Every kind there is.
    pub const EVERY_KIND: Self = Self([0.25, 0.2, 0.1, 0.15, 0.15, 0.15]);
}

impl Default for AnomalyMix {
    /// The kinds that come about on one account alone.
    fn default() -> Self {
        Self([0.4, 0.25, 0.15, 0.2, 0.0, 0.0])
    }
}

/// What becomes of an arrival.
pub(super) enum Decision {
    /// It is what the user always does.
    Habit,
    /// It is anomalous itself.
    Instead(Anomaly),
    /// It is a habit, and something is planned for later.
    Plan(Anomaly),
}

/// How likely each decision is.
pub(super) struct Chances {
    /// Upper ends within [0, 1), ascending; above the last is habit.
    ends: [(f64, Anomaly); Anomaly::ALL.len()],
}

impl Chances {
    /// Spikes and new merchants replace an arrival, the others add payments to it. With `a` the share and `e` the part of
    /// it that adds, T payments come of one arrival: T = 1 + e a T, so T = 1 / (1 - e a).
    pub(super) fn new(share: f64, mix: &AnomalyMix) -> Self {
        let total: f64 = mix.0.iter().sum();
        let part = |weight: f64| if total > 0.0 { weight / total } else { 0.0 };
        let adding: f64 =
            Anomaly::ALL.iter().zip(mix.0).filter(|(kind, _)| kind.adds() > 0.0).map(|(_, weight)| part(weight)).sum();
        let labelled_per_arrival = share / (1.0 - adding * share);
        let mut end = 0.0;
        let ends = std::array::from_fn(|at| {
            let (anomaly, weight) = (Anomaly::ALL[at], mix.0[at]);
            end += part(weight) / anomaly.adds().max(1.0) * labelled_per_arrival;
            (end, anomaly)
        });
        Self { ends }
    }

    /// `unit` is uniform in [0, 1).
    pub(super) fn decide(&self, unit: f64) -> Decision {
        match self.ends.iter().find(|(end, _)| unit < *end).map(|(_, anomaly)| *anomaly) {
            None => Decision::Habit,
            Some(anomaly) if anomaly.adds() > 0.0 => Decision::Plan(anomaly),
            Some(anomaly) => Decision::Instead(anomaly),
        }
    }
}

/// A payment that is to come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Planned {
    pub at_ms: i64,
    /// Breaks ties, in the order of planning.
    number: u64,
    pub user: u32,
    pub anomaly: Anomaly,
    pub part: Part,
}

/// What a planned payment is within its incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// One like the others.
    Plain,
    /// A small one, at this merchant, that shows whether a card works.
    Test(u32),
    /// What the tests were for.
    Prize,
}

/// Payments that are to come, the next first.
#[derive(Default)]
pub(super) struct Plans {
    heap: BinaryHeap<Reverse<Planned>>,
    planned: u64,
}

impl Plans {
    /// Plans what an anomaly adds to a payment made at `now_ms`.
    pub(super) fn add(&mut self, anomaly: Anomaly, user: u32, now_ms: i64, quiet_hour: i64, rng: &mut impl Rng) {
        match anomaly {
            Anomaly::OddHour => {
                let today_ms = now_ms.div_euclid(DAY_MS) * DAY_MS;
                let within_ms = whole(between(rng, 0.0, 3_600.0 * SECOND_MS));
                let at_ms = today_ms + quiet_hour * HOUR_MS + within_ms;
                self.push(if at_ms > now_ms { at_ms } else { at_ms + DAY_MS }, user, anomaly, Part::Plain);
            }
            // The others happen at once when they stand in an arrival's place, or have plans of their own; planned here, they come as a
            // burst.
            _ => {
                let mut at_ms = now_ms + whole(between(rng, 60.0 * SECOND_MS, 1_800.0 * SECOND_MS));
                for _ in 0..BURST_MIN + below(rng, BURST_MAX - BURST_MIN + 1) {
                    self.push(at_ms, user, anomaly, Part::Plain);
                    at_ms += whole(between(rng, 5.0 * SECOND_MS, 60.0 * SECOND_MS));
                }
            }
        }
    }

    /// Plans a card test at a merchant that the user does not know.
    pub(super) fn add_card_test(&mut self, user: u32, merchant: u32, now_ms: i64, rng: &mut impl Rng) {
        let mut at_ms = now_ms + whole(between(rng, 600.0 * SECOND_MS, 7_200.0 * SECOND_MS));
        let tests = TESTS_MIN + below(rng, TESTS_MAX - TESTS_MIN + 1) - 1;
        for _ in 0..tests {
            self.push(at_ms, user, Anomaly::CardTest, Part::Test(merchant));
            at_ms += whole(between(rng, SECOND_MS, 8.0 * SECOND_MS));
        }
        at_ms += whole(between(rng, 30.0 * SECOND_MS, 600.0 * SECOND_MS));
        self.push(at_ms, user, Anomaly::CardTest, Part::Prize);
    }

    /// Plans what follows a breach: so many payments, by its customers in turn.
    pub(super) fn add_compromise(&mut self, customers: &[u32], payments: u32, now_ms: i64, rng: &mut impl Rng) {
        for &user in customers.iter().cycle().take(payments as usize) {
            let at_ms = now_ms + whole(between(rng, 3_600.0 * SECOND_MS, 36.0 * 3_600.0 * SECOND_MS));
            self.push(at_ms, user, Anomaly::MerchantCompromise, Part::Plain);
        }
    }

    fn push(&mut self, at_ms: i64, user: u32, anomaly: Anomaly, part: Part) {
        self.heap.push(Reverse(Planned { at_ms, number: self.planned, user, anomaly, part }));
        self.planned += 1;
    }

    /// The next payment, where it is due by then.
    pub(super) fn due(&mut self, by_ms: i64) -> Option<Planned> {
        let Reverse(next) = self.heap.peek()?;
        if next.at_ms > by_ms {
            return None;
        }
        self.heap.pop().map(|Reverse(next)| next)
    }
}

/// How many payments come of a breach.
pub(super) fn victims(rng: &mut impl Rng) -> u32 {
    VICTIMS_MIN + below(rng, VICTIMS_MAX - VICTIMS_MIN + 1)
}

fn whole(duration_ms: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "durations here are at most hours")]
    let whole = duration_ms as i64;
    whole
}
