//! What a generator can be told.

use std::fmt;

use super::anomaly::AnomalyMix;

/// People beyond this are a matter of several generators.
const USERS_MAX: u32 = 50_000_000;
/// Enough that there is always a merchant that a user does not know.
const MERCHANTS_MIN: u32 = 16;
const MERCHANTS_MAX: u32 = 10_000_000;
const RATE_MAX: f64 = 1e7;
/// More than half would make the anomaly the habit.
const SHARE_MAX: f64 = 0.5;
/// Beyond this the first user pays for everyone.
const SKEW_MAX: f64 = 4.0;
/// Shorter than this an account would fade before it has grown.
const ACCOUNT_DAYS_MIN: f64 = 60.0;
/// The year 2200: room for every generator to go on within what a payment's time may be.
const START_MAX_MS: i64 = 7_258_118_400_000;

/// What to generate. The same parameters give the same payments.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorParams {
    /// How many people pay.
    pub users: u32,
    /// How many merchants there are.
    pub merchants: u32,
    /// Who the people are and what they do.
    pub seed: u64,
    /// Another sequence of payments by the same people: a program that starts again takes the next number, and its users
    /// keep their habits.
    pub stream: u32,
    /// The time before the first payment, in milliseconds since the epoch.
    pub start_ms: i64,
    /// How many payments a user makes a day, on average over users and weeks, anomalies aside.
    pub payments_per_user_day: f64,
    /// The share of payments that are anomalous.
    pub anomaly_share: f64,
    /// Which anomalies these are.
    pub anomaly_mix: AnomalyMix,
    /// The currency of all amounts.
    pub currency: String,
    /// Zipf's exponent: the user of rank r pays as often as r^-skew says, so 0 is everyone alike. None is a natural crowd: few pay often,
    /// but nobody pays for everyone.
    pub skew: Option<f64>,
    /// How long an account lives, in days, on average: it opens, grows into use, fades, and another one with habits of its own takes
    /// its place. None: all live for ever.
    pub account_days: Option<f64>,
    /// People live all over the world: their hours are spread over the day, and about as much is paid at any time of it.
    pub worldwide: bool,
    /// What transaction ids begin with; none is made of seed and stream.
    pub id_prefix: Option<String>,
}

impl Default for GeneratorParams {
    /// A thousand people, from Monday 2024-01-01 on, one payment in a hundred anomalous.
    fn default() -> Self {
        Self {
            users: 1_000,
            merchants: 2_000,
            seed: 42,
            stream: 0,
            start_ms: 1_704_067_200_000,
            payments_per_user_day: 3.0,
            anomaly_share: 0.01,
            anomaly_mix: AnomalyMix::default(),
            currency: "USD".to_owned(),
            skew: None,
            account_days: None,
            worldwide: false,
            id_prefix: None,
        }
    }
}

impl GeneratorParams {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first parameter that is out of its bounds.
    pub fn check(&self) -> Result<(), InvalidParams> {
        let weights = self.anomaly_mix.0;
        let weights_right = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
        let rate = self.payments_per_user_day;
        let checks = [
            ("users", (1..=USERS_MAX).contains(&self.users), "from 1 to 50 million"),
            ("merchants", (MERCHANTS_MIN..=MERCHANTS_MAX).contains(&self.merchants), "from 16 to 10 million"),
            ("start_ms", (0..=START_MAX_MS).contains(&self.start_ms), "between the years 1970 and 2200"),
            ("payments_per_user_day", rate > 0.0 && rate <= RATE_MAX, "above 0, up to 10 million"),
            ("anomaly_share", (0.0..=SHARE_MAX).contains(&self.anomaly_share), "from 0 to 0.5"),
            (
                "anomaly_mix",
                weights_right && (self.anomaly_share <= 0.0 || weights.iter().sum::<f64>() > 0.0),
                "weights of 0 or more, not all of them 0",
            ),
            ("skew", self.skew.is_none_or(|skew| (0.0..=SKEW_MAX).contains(&skew)), "from 0 to 4"),
            (
                "account_days",
                self.account_days.is_none_or(|days| (ACCOUNT_DAYS_MIN..=1e6).contains(&days)),
                "from 60 to a million",
            ),
        ];
        match checks.into_iter().find(|(_, right, _)| !right) {
            Some((parameter, _, expected)) => Err(InvalidParams { parameter, expected }),
            None => Ok(()),
        }
    }
}

/// A parameter out of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidParams {
    /// The field's name.
    pub parameter: &'static str,
    /// Its bounds.
    pub expected: &'static str,
}

impl fmt::Display for InvalidParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.parameter, self.expected)
    }
}

impl std::error::Error for InvalidParams {}
