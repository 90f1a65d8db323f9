//! Accounts come and go: which one is in a user's place at a time, and how much it is used.
//!
//! A place has one account after another, each as long as the place's own span. All follows from seed, place and time alone, so
//! another sequence of payments by the same people, at another time, meets the same accounts.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::sample::unit_of;

const DAY_MS: f64 = 86_400_000.0;
/// 2015-01-01: accounts are counted from here, and before it there is only the first.
const EPOCH_MS: f64 = 1_420_070_400_000.0;
/// An account grows into use in its first days, and fades in its last.
const YOUNG_DAYS: f64 = 30.0;
const FADING_DAYS: f64 = 20.0;
/// How much it is used on its first day, and on its last.
const FIRST: f64 = 0.3;
const LAST: f64 = 0.1;

/// An account in its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Account {
    /// How many there were before it.
    pub number: u32,
    /// How much it is used: 1 is as its owner is used to.
    pub activity: f64,
}

/// See the module's header.
pub(super) struct Accounts {
    seed: u64,
    mean_ms: f64,
}

impl Accounts {
    pub(super) fn new(seed: u64, mean_days: f64) -> Self {
        Self { seed, mean_ms: mean_days * DAY_MS }
    }

    /// Which account is in the place at this time.
    pub(super) fn at(&self, place: u32, time_ms: f64) -> Account {
        let number = u64::from(place) * 2;
        let span_ms = self.mean_ms * (0.5 + unit_of(self.seed, number));
        let since_ms = (time_ms - EPOCH_MS).max(0.0) + unit_of(self.seed, number + 1) * span_ms;
        let number = (since_ms / span_ms).floor();
        let age = (since_ms - number * span_ms) / DAY_MS;
        let left = span_ms / DAY_MS - age;
        let activity = (FIRST + (1.0 - FIRST) * age / YOUNG_DAYS).min(LAST + (1.0 - LAST) * left / FADING_DAYS).min(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "times are in this millennium, spans are months"
        )]
        let number = number as u32;
        Account { number, activity }
    }

    /// What an account's habits are drawn from.
    pub(super) fn habits(&self, place: u32, number: u32) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        // No stream of payments has this number: they are counted in 32 bits.
        rng.set_stream(1 << 63 | u64::from(number) << 32 | u64::from(place));
        rng
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_follow_each_other_grow_and_fade() {
        let accounts = Accounts::new(7, 400.0);
        for place in 0..50 {
            let days: Vec<Account> = (0..2_000).map(|day| accounts.at(place, EPOCH_MS + f64::from(day) * DAY_MS)).collect();
            for pair in days.windows(2) {
                let [before, after] = [pair[0], pair[1]];
                assert!(after.number == before.number || after.number == before.number + 1, "{place}: {before:?} {after:?}");
                if after.number != before.number {
                    assert!(before.activity < 0.2 && after.activity < 0.35, "{place}: {before:?} {after:?}");
                }
            }
            let last = days[1_999].number;
            assert!((3..=11).contains(&last), "{place}: {last} accounts in 2,000 days of 200 to 600 each");
            assert!(days.iter().filter(|account| account.activity >= 1.0).count() > 1_400, "{place} is mostly used as usual");
        }
        assert_eq!(accounts.at(3, 0.0).number, 0, "before the first there is none");
    }
}
