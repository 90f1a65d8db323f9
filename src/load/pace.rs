//! When each payment is meant to be sent.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Times of a higher rate, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bursts {
    /// Seconds from the beginning of one to that of the next.
    pub every_s: f64,
    /// How long each lasts, in seconds.
    pub for_s: f64,
    /// How many times the rate it has.
    pub factor: f64,
}

impl Bursts {
    fn are_sound(&self) -> bool {
        self.every_s > 0.0
            && self.for_s > 0.0
            && self.for_s <= self.every_s
            && (1.0..=1e4).contains(&self.factor)
            && self.every_s < 1e9
    }
}

/// An endless sequence of times since the beginning; a burst ends each of its rounds.
#[derive(Clone, Debug)]
pub struct Pace {
    rate: f64,
    bursts: Option<Bursts>,
    next_s: f64,
}

impl Pace {
    /// So many a second.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn new(rate: f64, bursts: Option<Bursts>) -> Result<Self, String> {
        if !(rate > 0.0 && rate <= 1e8) {
            return Err("the rate must be above 0".to_owned());
        }
        if bursts.is_some_and(|bursts| !bursts.are_sound()) {
            return Err("a burst must last no longer than the time from one to the next, and its factor be 1 or more".to_owned());
        }
        Ok(Self { rate, bursts, next_s: 0.0 })
    }

    fn rate_at(&self, second: f64) -> f64 {
        match self.bursts {
            Some(bursts) if second % bursts.every_s >= bursts.every_s - bursts.for_s => self.rate * bursts.factor,
            _ => self.rate,
        }
    }
}

impl Iterator for Pace {
    type Item = Duration;

    /// Never none.
    fn next(&mut self) -> Option<Duration> {
        let due = Duration::from_secs_f64(self.next_s);
        self.next_s += 1.0 / self.rate_at(self.next_s);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(pace: Pace, from_s: f64, to_s: f64) -> usize {
        pace.map(|due| due.as_secs_f64()).take_while(|due| *due < to_s).filter(|due| *due >= from_s).count()
    }

    #[test]
    fn the_rate_is_kept_and_bursts_lie_on_top() {
        let steady = Pace::new(200.0, None).unwrap();
        assert!(within(steady, 10.0, 20.0).abs_diff(2_000) <= 1);
        let bursts = Bursts { every_s: 10.0, for_s: 2.0, factor: 5.0 };
        let bursty = || Pace::new(200.0, Some(bursts)).unwrap();
        assert!(within(bursty(), 20.0, 28.0).abs_diff(1_600) <= 2);
        assert!(within(bursty(), 28.0, 30.0).abs_diff(2_000) <= 2);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Pace::new(0.0, None).is_err() && Pace::new(f64::NAN, None).is_err());
        for (every_s, for_s, factor) in [(1.0, 2.0, 2.0), (1.0, 0.0, 2.0), (10.0, 1.0, 0.5), (f64::NAN, 1.0, 2.0)] {
            assert!(Pace::new(1.0, Some(Bursts { every_s, for_s, factor })).is_err(), "{every_s} {for_s} {factor}");
        }
    }
}
