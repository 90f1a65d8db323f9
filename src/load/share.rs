//! A share of a sequence, met exactly.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const WHOLE: u64 = 1_000_000;

/// A share in millionths: of any first n of a sequence exactly the n-th part is chosen, rounded down, evenly spaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(with = "f64")]
pub struct Share(u32);

impl Share {
    /// None of it.
    pub const NONE: Self = Self(0);

    /// True where the element of this number, from 0, is among the chosen. `phase`, below a million, says where within a step the
    /// choice falls, so that two shares of one sequence do not choose the same elements.
    pub(super) fn takes(self, number: u64, phase: u64) -> bool {
        let chosen = |first: u64| (u128::from(first) * u128::from(self.0) + u128::from(phase)) / u128::from(WHOLE);
        chosen(number + 1) > chosen(number)
    }

    /// The share as a number from 0 to 1.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from(self.0) / WHOLE as f64
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(share: f64) -> Result<Self, String> {
        if !(0.0..=1.0).contains(&share) {
            return Err("expected a share from 0 to 1, such as 0.001".to_owned());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a million")]
        let millionths = (share * WHOLE as f64).round() as u32;
        Ok(Self(millionths))
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        share.get()
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<f64>().map_or_else(|_| Self::try_from(f64::NAN), Self::try_from)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn of_any_first_n_exactly_the_share_is_chosen(millionths in 0u32..=1_000_000, count in 0u64..5_000, phase in 0u64..1_000_000) {
            let share = Share(millionths);
            let chosen = (0..count).filter(|&number| share.takes(number, phase)).count() as u64;
            prop_assert_eq!(chosen, (count * u64::from(millionths) + phase) / WHOLE);
        }
    }

    #[test]
    fn shares_are_read_strictly() {
        assert_eq!("0.001".parse(), Ok(Share(1_000)));
        assert_eq!("1".parse(), Ok(Share(1_000_000)));
        for wrong in ["-0.1", "1.1", "nan", "half", ""] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
        assert_eq!((0..100_u64).filter(|&n| "0.29".parse::<Share>().unwrap().takes(n, 0)).count(), 29, "no rounding of doubles");
    }
}
