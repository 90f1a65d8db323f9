//! Made-up payments that look like people's: endless, in the order of their times, the same for the same parameters.
//!
//! Each user has a few favourite merchants, hours of the day in which they pay, amounts of their own size and a rhythm of
//! weekdays and weekends; few users pay often and many seldom; accounts open, grow, fade and close, where that is asked for. Anomalies are put in with the truth beside them
//! ([`Payment::label`]), so that verdicts can be judged.
//!
//! The stream is a Poisson process whose rate changes by the hour of the week. A step draws the time of the next payment,
//! then a rhythm by its share in that hour, then a user of that rhythm: constant work, whatever the number of users. What
//! anomalies plan for later waits in a heap.
//!
//! Invariants: times never go back; one generator is one sequence of ChaCha8, drawn in one order, with logarithms and
//! powers from `libm`, so a seed gives the same bytes on every machine; about [`AnomalyMix`]'s share of payments is
//! labelled. Limits: memory is about 120 bytes a user and 60 a merchant, plus what is planned.

mod accounts;
mod anomaly;
mod params;
mod payment;
mod population;
pub(crate) mod sample;
mod week;

use std::fmt::Write as _;
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

pub use anomaly::{Anomaly, AnomalyMix};
pub use params::{GeneratorParams, InvalidParams};
pub use payment::Payment;

use anomaly::{Chances, Decision, Part, Planned, Plans};
use population::Population;
use sample::{exponential, unit};
use week::HOUR_MS;

/// ChaCha's streams: the people are drawn from the first, so that they are the same in every sequence of payments.
const POPULATION_STREAM: u64 = 0;

/// An endless sequence of payments.
///
/// ```
/// use mangrove::generator::{Generator, GeneratorParams};
///
/// let params = GeneratorParams { users: 100, seed: 7, ..GeneratorParams::default() };
/// let mut json = Vec::new();
/// for payment in Generator::new(&params)?.take(3) {
///     payment.write_json(&mut json);
///     json.push(b'\n');
/// }
/// assert_eq!(json.split(|byte| *byte == b'\n').count(), 4);
/// # Ok::<(), mangrove::generator::InvalidParams>(())
/// ```
pub struct Generator {
    rng: ChaCha8Rng,
    population: Population,
    chances: Chances,
    plans: Plans,
    /// The time of the next payment that nothing planned, in milliseconds since the epoch. A double holds it to a
    /// four-thousandth of a millisecond.
    arrival_ms: f64,
    currency: Arc<str>,
    tx_id_prefix: String,
    sequence: u64,
}

impl Generator {
    /// Makes the people and stands before the first payment.
    ///
    /// # Errors
    /// When a parameter is out of its bounds.
    pub fn new(params: &GeneratorParams) -> Result<Self, InvalidParams> {
        params.check()?;
        let mut people = ChaCha8Rng::seed_from_u64(params.seed);
        people.set_stream(POPULATION_STREAM);
        let population = Population::new(params, &mut people);
        let mut rng = ChaCha8Rng::seed_from_u64(params.seed);
        rng.set_stream(POPULATION_STREAM + 1 + u64::from(params.stream));
        #[expect(clippy::cast_precision_loss, reason = "a time within the bounds is exact in a double")]
        let mut generator = Self {
            rng,
            population,
            chances: Chances::new(params.anomaly_share, &params.anomaly_mix),
            plans: Plans::default(),
            arrival_ms: params.start_ms as f64,
            currency: Arc::from(params.currency.as_str()),
            tx_id_prefix: params.id_prefix.clone().unwrap_or_else(|| format!("{:x}-{:x}-", params.seed, params.stream)),
            sequence: 0,
        };
        generator.advance();
        Ok(generator)
    }

    /// Draws the time of the next arrival. Within an hour the rate is constant; a wait that reaches beyond it is drawn anew
    /// from the next hour's beginning, which changes nothing for a process without memory.
    fn advance(&mut self) {
        loop {
            let hour = (self.arrival_ms / HOUR_MS).floor();
            let hour_end_ms = (hour + 1.0) * HOUR_MS;
            let rate_per_ms = self.population.rate_per_ms(week::hour_of_week(self.arrival_ms));
            if rate_per_ms > 0.0 {
                let next_ms = self.arrival_ms + exponential(&mut self.rng) / rate_per_ms;
                if next_ms < hour_end_ms {
                    self.arrival_ms = next_ms;
                    return;
                }
            }
            self.arrival_ms = hour_end_ms;
        }
    }

    /// A payment that nothing planned: a habit, or an anomaly in its place. It may plan more.
    fn arrive(&mut self) -> Payment {
        let mut user = self.population.pick_user(week::hour_of_week(self.arrival_ms), &mut self.rng);
        while !self.population.is_active(user, self.arrival_ms, &mut self.rng) {
            self.advance();
            user = self.population.pick_user(week::hour_of_week(self.arrival_ms), &mut self.rng);
        }
        let timestamp_ms = whole_ms(self.arrival_ms);
        let decision = self.chances.decide(unit(&mut self.rng));
        let label = match decision {
            Decision::Instead(anomaly) => Some(anomaly),
            Decision::Habit => None,
            Decision::Plan(anomaly) => {
                self.plan(anomaly, user, timestamp_ms);
                None
            }
        };
        self.advance();
        self.payment(user, timestamp_ms, label, Part::Plain)
    }

    /// Plans what an anomaly adds to a payment of this user.
    fn plan(&mut self, anomaly: Anomaly, user: u32, now_ms: i64) {
        match anomaly {
            Anomaly::CardTest => {
                let merchant = self.population.stranger_to(user, &mut self.rng);
                self.plans.add_card_test(user, merchant, now_ms, &mut self.rng);
            }
            Anomaly::MerchantCompromise => {
                let payments = anomaly::victims(&mut self.rng);
                let customers = self.population.customers_beside(user, payments, self.arrival_ms, &mut self.rng);
                self.plans.add_compromise(&customers, payments, now_ms, &mut self.rng);
            }
            _ => self.plans.add(anomaly, user, now_ms, self.population.quiet_hour(user), &mut self.rng),
        }
    }

    fn payment(&mut self, user: u32, timestamp_ms: i64, label: Option<Anomaly>, part: Part) -> Payment {
        let (merchant, amount) = self.population.purchase(user, label, part, &mut self.rng);
        let mut tx_id = String::with_capacity(self.tx_id_prefix.len() + 10);
        tx_id.push_str(&self.tx_id_prefix);
        write!(tx_id, "{}", self.sequence).expect("invariant: writing to a String cannot fail");
        self.sequence += 1;
        Payment {
            user_id: self.population.user_name(user),
            tx_id,
            amount,
            currency: Arc::clone(&self.currency),
            merchant: self.population.merchant_name(merchant),
            timestamp_ms,
            label,
        }
    }
}

impl Iterator for Generator {
    type Item = Payment;

    /// Never none.
    fn next(&mut self) -> Option<Payment> {
        let planned = self.plans.due(whole_ms(self.arrival_ms));
        Some(match planned {
            Some(Planned { at_ms, user, anomaly, part, .. }) => {
                self.population.renew(user, self.arrival_ms);
                self.payment(user, at_ms, Some(anomaly), part)
            }
            None => self.arrive(),
        })
    }
}

/// The whole millisecond that a time falls in.
fn whole_ms(time_ms: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding down is meant; times are far below 2^63")]
    let whole = time_ms.floor() as i64;
    whole
}

#[cfg(test)]
mod tests;
