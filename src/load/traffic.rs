//! What is sent: the generator's payments, some of them late, out of order or broken.
//!
//! The generator's sequence stays what its seed makes it; which of it is late, held back or broken follows from its number, so
//! shares are met exactly and the same parameters give the same traffic.

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::share::Share;
use crate::generator::{Anomaly, Generator, GeneratorParams, InvalidParams, Payment, sample};

/// A payment out of order comes up to so many others later.
const BEHIND_MAX: u32 = 64;
/// Where within their steps shares choose (see [`Share::takes`]); poison's is 0, so that it is the share rounded down.
const LATE_PHASE: u64 = 333_333;
const UNORDERED_PHASE: u64 = 666_666;
const YEAR_MS: i64 = 365 * 86_400_000;

/// What is sent, beside the payments themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficParams {
    /// The people and what they do.
    pub generator: GeneratorParams,
    /// Payments whose time lies further back than their place in the stream.
    pub late: Share,
    /// By how much at most, in milliseconds.
    pub late_by_ms: i64,
    /// Payments that come behind others that were made after them.
    pub out_of_order: Share,
    /// Records that are no payment.
    pub poison: Share,
    /// Payments bear the time at which they are meant to be sent, not that of the generator's calendar.
    pub real_time: bool,
}

impl Default for TrafficParams {
    fn default() -> Self {
        Self {
            generator: GeneratorParams::default(),
            late: Share::NONE,
            late_by_ms: 600_000,
            out_of_order: Share::NONE,
            poison: Share::NONE,
            real_time: false,
        }
    }
}

/// How a record is broken. Each is refused by the stream, and by the HTTP interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// It breaks off.
    BrokenJson,
    /// Not UTF-8.
    NotUtf8,
    /// No amount.
    NoAmount,
    /// An amount below 0.
    NegativeAmount,
    /// No merchant's name.
    EmptyMerchant,
    /// A year ahead.
    FarFuture,
}

impl Poison {
    const ALL: [Self; 6] =
        [Self::BrokenJson, Self::NotUtf8, Self::NoAmount, Self::NegativeAmount, Self::EmptyMerchant, Self::FarFuture];
}

/// One record to send.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number in the generator's sequence, from 0; its transaction id ends with it.
    pub number: u64,
    /// The payment.
    pub payment: Payment,
    /// By how much it is late, in milliseconds; 0 where it is not.
    pub late_ms: i64,
    /// It was held back.
    pub out_of_order: bool,
    /// It is broken.
    pub poison: Option<Poison>,
}

impl Event {
    /// What is wrong with the payment, where it is one.
    #[must_use]
    pub fn label(&self) -> Option<Anomaly> {
        self.payment.label.filter(|_| self.poison.is_none())
    }

    /// Appends the record's value. A payment's time is never later than `latest_ms`.
    pub fn write(&self, latest_ms: i64, into: &mut Vec<u8>) {
        let mut payment = self.payment.clone();
        payment.timestamp_ms = payment.timestamp_ms.min(latest_ms - self.late_ms);
        match self.poison {
            None => payment.write_json(into),
            Some(Poison::BrokenJson) => {
                let begin = into.len();
                payment.write_json(into);
                into.truncate(begin + (into.len() - begin) / 2);
            }
            Some(Poison::NotUtf8) => into.extend_from_slice(b"{\"user_id\":\"\xff\xfe\",\"amount\":1,\"merchant\":\"m\"}"),
            Some(Poison::NoAmount) => into.extend_from_slice(b"{\"user_id\":\"u\",\"merchant\":\"m\"}"),
            Some(Poison::NegativeAmount) => {
                payment.amount = -payment.amount;
                payment.write_json(into);
            }
            Some(Poison::EmptyMerchant) => {
                payment.merchant = "".into();
                payment.write_json(into);
            }
            Some(Poison::FarFuture) => {
                payment.timestamp_ms = latest_ms + YEAR_MS;
                payment.write_json(into);
            }
        }
    }
}

/// The records in the order in which they are sent.
pub struct Traffic {
    params: TrafficParams,
    generator: Generator,
    rng: ChaCha8Rng,
    /// How many the generator still gives.
    left: u64,
    drawn: u64,
    given: u64,
    poisoned: usize,
    /// Held back, with the place at which each comes, ascending.
    held: VecDeque<(u64, Event)>,
}

impl Traffic {
    /// So many records; none is endless.
    ///
    /// # Errors
    /// When a parameter is out of its bounds.
    pub fn new(params: &TrafficParams, count: Option<u64>) -> Result<Self, InvalidParams> {
        let mut rng = ChaCha8Rng::seed_from_u64(params.generator.seed);
        // Beyond the streams of payments, which are counted in 32 bits, and below the accounts'.
        rng.set_stream(1 << 40 | u64::from(params.generator.stream));
        Ok(Self {
            generator: Generator::new(&params.generator)?,
            rng,
            left: count.unwrap_or(u64::MAX),
            drawn: 0,
            given: 0,
            poisoned: 0,
            held: VecDeque::new(),
            params: params.clone(),
        })
    }

    fn draw(&mut self) -> Option<Event> {
        self.left = self.left.checked_sub(1)?;
        let mut payment = self.generator.next()?;
        let number = self.drawn;
        self.drawn += 1;
        let late = self.params.late.takes(number, LATE_PHASE) && self.params.late_by_ms > 0;
        let late_ms = if late { 1 + whole(sample::unit(&mut self.rng) * self.params.late_by_ms as f64) } else { 0 };
        if self.params.real_time {
            // The bound of `Event::write` is what counts then.
            payment.timestamp_ms = i64::MAX;
        } else {
            payment.timestamp_ms = (payment.timestamp_ms - late_ms).max(0);
        }
        let poison = self.params.poison.takes(number, 0).then(|| {
            self.poisoned += 1;
            Poison::ALL[(self.poisoned - 1) % Poison::ALL.len()]
        });
        let out_of_order = self.params.out_of_order.takes(number, UNORDERED_PHASE);
        Some(Event { number, payment, late_ms, out_of_order, poison })
    }
}

impl Iterator for Traffic {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            let full = self.held.len() >= BEHIND_MAX as usize;
            if self.held.front().is_some_and(|(place, _)| *place <= self.given || full) {
                break;
            }
            match self.draw() {
                Some(event) if event.out_of_order => {
                    let place = self.given + 1 + u64::from(sample::below(&mut self.rng, BEHIND_MAX));
                    let at = self.held.partition_point(|(other, _)| *other <= place);
                    self.held.insert(at, (place, event));
                }
                Some(event) => {
                    self.given += 1;
                    return Some(event);
                }
                None => break,
            }
        }
        self.given += 1;
        self.held.pop_front().map(|(_, event)| event)
    }
}

fn whole(duration_ms: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding down is meant; a lateness is far below 2^53")]
    let whole = duration_ms as i64;
    whole
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOW_MS: i64 = 1_900_000_000_000;

    fn params(poison: f64, late: f64, out_of_order: f64) -> TrafficParams {
        let share = |share| Share::try_from(share).unwrap();
        let generator = GeneratorParams { users: 50, ..GeneratorParams::default() };
        TrafficParams {
            generator,
            poison: share(poison),
            late: share(late),
            out_of_order: share(out_of_order),
            ..TrafficParams::default()
        }
    }

    fn all(params: &TrafficParams, count: u64) -> Vec<Event> {
        Traffic::new(params, Some(count)).unwrap().collect()
    }

    #[test]
    fn shares_are_exact_and_every_payment_comes_once() {
        let events = all(&params(0.003, 0.02, 0.05), 20_000);
        let count = |what: &dyn Fn(&Event) -> bool| events.iter().filter(|event| what(event)).count();
        assert_eq!(count(&|event| event.poison.is_some()), 60);
        assert!(count(&|event| event.late_ms > 0).abs_diff(400) <= 1);
        assert!(count(&|event| event.out_of_order).abs_diff(1_000) <= 1);
        let numbers: BTreeSet<u64> = events.iter().map(|event| event.number).collect();
        assert_eq!((numbers.len(), numbers.last()), (20_000, Some(&19_999)));
        assert!(events.iter().all(|event| event.payment.tx_id.ends_with(&format!("-{}", event.number))));
        assert!(events.iter().all(|event| event.late_ms <= 600_000));
        for pair in events.windows(2).filter(|pair| pair[1].number < pair[0].number) {
            assert!(pair[1].out_of_order, "only what is held back comes later: {pair:?}");
        }
        let behind = events.iter().zip(0..).filter(|(event, _)| event.out_of_order).map(|(event, at)| at - event.number as i64);
        assert!(behind.clone().all(|behind| behind <= 70) && behind.max() > Some(30));
    }

    #[test]
    fn the_same_parameters_give_the_same_bytes_and_the_payments_are_the_generators() {
        let bytes = |params: &TrafficParams| {
            let mut bytes = Vec::new();
            all(params, 5_000).iter().for_each(|event| event.write(NOW_MS, &mut bytes));
            bytes
        };
        let mixed = params(0.01, 0.1, 0.1);
        assert_eq!(bytes(&mixed), bytes(&mixed));
        let plain = params(0.0, 0.0, 0.0);
        let mut expected = Vec::new();
        Generator::new(&plain.generator).unwrap().take(5_000).for_each(|payment| payment.write_json(&mut expected));
        assert_eq!(bytes(&plain), expected);
    }

    #[test]
    fn everything_out_of_order_still_comes() {
        let events = all(&params(0.0, 0.0, 1.0), 1_000);
        assert_eq!(events.len(), 1_000);
        assert!(!events.is_sorted_by_key(|event| event.number));
    }

    #[test]
    fn poison_is_refused_and_all_else_is_taken() {
        let mut seen = 0;
        for event in all(&params(0.5, 0.1, 0.0), 600) {
            let mut value = Vec::new();
            event.write(NOW_MS, &mut value);
            let read = models::Transaction::from_json(&value, NOW_MS, &models::Limits::default());
            assert_eq!(read.is_err(), event.poison.is_some(), "{event:?}");
            assert!(!value.contains(&b'\n'), "it is one line");
            seen += usize::from(event.poison.is_some());
        }
        assert_eq!(seen, 300);
    }

    #[test]
    fn real_time_is_the_time_of_sending_less_the_lateness() {
        let live = TrafficParams { real_time: true, ..params(0.0, 0.5, 0.0) };
        for event in all(&live, 100) {
            let mut value = Vec::new();
            event.write(NOW_MS, &mut value);
            let read = models::Transaction::from_json(&value, NOW_MS, &models::Limits::default()).unwrap();
            assert_eq!(read.event_time, NOW_MS - event.late_ms);
        }
    }
}
