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
}

impl Anomaly {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::AccountTakeover, Self::AmountSpike, Self::OddHour, Self::NewMerchant];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::AccountTakeover => "account_takeover",
            Self::AmountSpike => "amount_spike",
            Self::OddHour => "odd_hour",
            Self::NewMerchant => "new_merchant",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which anomalies: weights of anomalous payments (not of incidents: a take-over is many payments).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnomalyMix {
    /// Of [`Anomaly::AccountTakeover`].
    pub account_takeover: f64,
    /// Of [`Anomaly::AmountSpike`].
    pub amount_spike: f64,
    /// Of [`Anomaly::OddHour`].
    pub odd_hour: f64,
    /// Of [`Anomaly::NewMerchant`].
    pub new_merchant: f64,
}

impl Default for AnomalyMix {
    fn default() -> Self {
        Self { account_takeover: 0.4, amount_spike: 0.25, odd_hour: 0.15, new_merchant: 0.2 }
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
    ends: [(f64, Anomaly); 4],
}

impl Chances {
    /// Spikes and new merchants replace an arrival, the others add payments to it. With `a` the share and `e` the part of
    /// it that adds, T payments come of one arrival: T = 1 + e a T, so T = 1 / (1 - e a).
    pub(super) fn new(share: f64, mix: &AnomalyMix) -> Self {
        let total = mix.account_takeover + mix.amount_spike + mix.odd_hour + mix.new_merchant;
        let part = |weight: f64| if total > 0.0 { weight / total } else { 0.0 };
        let adding = part(mix.account_takeover) + part(mix.odd_hour);
        let labelled_per_arrival = share / (1.0 - adding * share);
        let burst = f64::from(BURST_MIN + BURST_MAX) / 2.0;
        let mut end = 0.0;
        let ends = [
            (Anomaly::AccountTakeover, part(mix.account_takeover) / burst),
            (Anomaly::AmountSpike, part(mix.amount_spike)),
            (Anomaly::OddHour, part(mix.odd_hour)),
            (Anomaly::NewMerchant, part(mix.new_merchant)),
        ]
        .map(|(anomaly, part)| {
            end += part * labelled_per_arrival;
            (end, anomaly)
        });
        Self { ends }
    }

    /// `unit` is uniform in [0, 1).
    pub(super) fn decide(&self, unit: f64) -> Decision {
        match self.ends.iter().find(|(end, _)| unit < *end).map(|(_, anomaly)| *anomaly) {
            None => Decision::Habit,
            Some(anomaly @ (Anomaly::AmountSpike | Anomaly::NewMerchant)) => Decision::Instead(anomaly),
            Some(anomaly @ (Anomaly::AccountTakeover | Anomaly::OddHour)) => Decision::Plan(anomaly),
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
                self.push(if at_ms > now_ms { at_ms } else { at_ms + DAY_MS }, user, anomaly);
            }
            // The others happen at once when they stand in an arrival's place; planned, they come as a burst.
            Anomaly::AccountTakeover | Anomaly::AmountSpike | Anomaly::NewMerchant => {
                let mut at_ms = now_ms + whole(between(rng, 60.0 * SECOND_MS, 1_800.0 * SECOND_MS));
                for _ in 0..BURST_MIN + below(rng, BURST_MAX - BURST_MIN + 1) {
                    self.push(at_ms, user, anomaly);
                    at_ms += whole(between(rng, 5.0 * SECOND_MS, 60.0 * SECOND_MS));
                }
            }
        }
    }

    fn push(&mut self, at_ms: i64, user: u32, anomaly: Anomaly) {
        self.heap.push(Reverse(Planned { at_ms, number: self.planned, user, anomaly }));
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

fn whole(duration_ms: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "durations here are at most hours")]
    let whole = duration_ms as i64;
    whole
}
