//! The ten features: their names, their formulas' constants, and what is observed of one payment.
//!
//! `FEATURES.md` is the law; [`crate::Profile::observe`] computes them. Every formula is evaluated left to right in
//! f64 without fused multiply-add, with logarithms from crate `libm`, and cast once to f32: the same stream gives the
//! same bits on every machine.

/// Number of features: the length of the vector that the forest gets.
pub const FEATURES: usize = 10;

/// Names of the features, in vector order.
pub const FEATURE_NAMES: [&str; FEATURES] = [
    "log_amount",
    "amount_zscore",
    "amount_percentile",
    "velocity_ratio",
    "hour_deviation",
    "day_deviation",
    "time_since_last",
    "merchant_familiarity",
    "is_new_user",
    "global_amount_flag",
];

/// Position of `log_amount`: log1p of the amount.
pub const LOG_AMOUNT: usize = 0;
/// Position of `amount_zscore`: distance from the user's mean in standard deviations, within [-50, 50].
pub const AMOUNT_ZSCORE: usize = 1;
/// Position of `amount_percentile`: share of the user's payments below this amount's bucket, half of those in it.
pub const AMOUNT_PERCENTILE: usize = 2;
/// Position of `velocity_ratio`: payments in the last hour over the user's hourly rate.
pub const VELOCITY_RATIO: usize = 3;
/// Position of `hour_deviation`: 0 at the user's most usual hour of the day (UTC), towards 1 at unusual ones.
pub const HOUR_DEVIATION: usize = 4;
/// Position of `day_deviation`: 0 on the user's most usual day of the week (UTC), towards 1 on unusual ones.
pub const DAY_DEVIATION: usize = 5;
/// Position of `time_since_last`: log1p of the seconds since the user's latest payment.
pub const TIME_SINCE_LAST: usize = 6;
/// Position of `merchant_familiarity`: share of the user's payments that went to this merchant.
pub const MERCHANT_FAMILIARITY: usize = 7;
/// Position of `is_new_user`: 1 below [`NEW_USER_BELOW`] payments.
pub const IS_NEW_USER: usize = 8;
/// Position of `global_amount_flag`: 1 above the model's 99% quantile of all amounts.
pub const GLOBAL_AMOUNT_FLAG: usize = 9;

/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 3_600_000;
/// Milliseconds in a day.
pub const DAY_MS: i64 = 86_400_000;
/// First event time that is refused: 10000-01-01T00:00:00Z, in ms since the epoch.
pub const EVENT_TIME_END_MS: i64 = 253_402_300_800_000;
/// Largest amount that is accepted.
pub const AMOUNT_MAX: f64 = 1e12;
/// A user with fewer payments than this is new.
pub const NEW_USER_BELOW: u64 = 20;
/// Seconds since the last payment that are assumed for a user's first one (30 days).
pub const FIRST_PAYMENT_SECONDS: f64 = 2_592_000.0;

/// Hour of the day in UTC, 0 to 23.
///
/// `t` is ms since the epoch and not negative.
#[must_use]
pub fn hour_of(t: i64) -> u8 {
    (t / HOUR_MS).rem_euclid(24) as u8
}

/// Day of the week in UTC, Monday = 0.
///
/// `t` is ms since the epoch and not negative.
#[must_use]
pub fn day_of(t: i64) -> u8 {
    (t / DAY_MS + 3).rem_euclid(7) as u8
}

/// Column 9 of the feature vector: 1 if the amount exceeds the model's 99% quantile, 0 otherwise or without a model.
#[must_use]
pub fn global_amount_flag(amount: f64, global_amount_p99: Option<f64>) -> f32 {
    if global_amount_p99.is_some_and(|p99| amount > p99) { 1.0 } else { 0.0 }
}

/// What one payment looks like beside its user's own past: the forest's input and the explanation's material.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// The ten features, in the order of [`FEATURE_NAMES`].
    pub features: [f32; FEATURES],
    /// The user's normal before this payment.
    pub normal: Normal,
}

/// The user's own normal BEFORE a payment, and where that payment stands beside it.
///
/// Plain numbers only (no names, no ids): it is copied through the hot path and read when somebody asks why.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Normal {
    /// Payments of this user before this one.
    pub seen: u64,
    /// Mean amount; 0 with no payments.
    pub mean: f64,
    /// Sample standard deviation of the amount; 0 below two payments.
    pub sd: f64,
    /// Earlier payments in the hour up to this one (a lower bound for late events; at most 256).
    pub payments_last_hour: u32,
    /// Payments per hour since the first one was seen; 0 with no payments.
    pub hourly_rate: f64,
    /// Seconds since the user's latest payment, 0 for a late event; `None` with no payments.
    pub seconds_since_last: Option<f64>,
    /// Distinct merchants remembered (at most 64).
    pub merchants: u32,
    /// Earlier payments to this merchant, as far as remembered.
    pub merchant_payments: u64,
    /// Hour of this payment in UTC, 0 to 23.
    pub hour: u8,
    /// Day of this payment in UTC, Monday = 0.
    pub day: u8,
    /// The user's most usual hour (smoothed over its neighbours; the earliest of equals); `None` with no payments.
    pub usual_hour: Option<u8>,
    /// The user's most usual day (the earliest of equals); `None` with no payments.
    pub usual_day: Option<u8>,
    /// The model's 99% quantile of all amounts, if there was a model.
    pub global_amount_p99: Option<f64>,
}
