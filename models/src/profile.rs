//! What a user's payments have looked like so far: the state that the ten features are computed from.
//!
//! Score first, then update: a payment never sees itself in its own profile. However late an event is, it is scored
//! and counted in everything. The update is a pure fold, so a profile is a function of the user's payments in order.
//!
//! Preconditions (a [`crate::Transaction`] keeps them): 0 <= amount <= 1e12, 0 <= t < [`EVENT_TIME_END_MS`], merchant
//! of 1 to [`MERCHANT_BYTES_MAX`] bytes. Numbers beyond them are a caller's bug: debug builds assert.
//!
//! Limits per user: [`MERCHANTS_MAX`] merchants, [`RECENT_MAX`] recent times, 341 amount buckets, 2^48 payments. With 20
//! payments at 16 merchants a profile takes below 1 KiB of memory and below 250 bytes encoded (`wire`).
//!
//! Mean and variance follow B. P. Welford, "Note on a method for calculating corrected sums of squares and products",
//! Technometrics 4(3), 1962.

mod habits;
mod merchants;
mod sketch;
mod velocity;
mod wire;

use crate::features::{
    AMOUNT_MAX, EVENT_TIME_END_MS, FEATURES, FIRST_PAYMENT_SECONDS, HOUR_MS, NEW_USER_BELOW, Normal, Observation, day_of,
    global_amount_flag, hour_of,
};
use alloc::vec::Vec;
use habits::Habits;
pub use merchants::{MERCHANT_BYTES_MAX, MERCHANTS_MAX};
use merchants::{Merchants, Place};
use sketch::Sketch;
pub use velocity::RECENT_MAX;
use velocity::Recent;

/// One user's past payments, folded. `Default` is a user never seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    seen: u64,
    mean: f64,
    /// Sum of squared differences from the mean.
    m2: f64,
    /// Smallest and largest event time seen, in ms; 0 with no payments.
    first_t: i64,
    last_t: i64,
    habits: Habits,
    sketch: Sketch,
    recent: Recent,
    merchants: Merchants,
}

/// What both scoring and updating need to know of a payment, looked up once.
#[derive(Clone, Copy)]
struct Touch {
    bucket: u16,
    hour: u8,
    day: u8,
    place: Place,
}

impl Profile {
    /// Computes the ten features of a payment and the normal they were judged by, changing nothing.
    ///
    /// `t` is the event time in ms since the epoch; `global_amount_p99` is the model's, `None` with no model.
    #[must_use]
    pub fn observe(&self, amount: f64, t: i64, merchant: &str, global_amount_p99: Option<f64>) -> Observation {
        self.observe_touch(amount, t, global_amount_p99, self.touch(amount, t, merchant))
    }

    /// Learns a payment: see the preconditions in the module's header.
    ///
    /// # Panics
    /// If `merchant` is longer than [`MERCHANT_BYTES_MAX`]: names are kept in a bounded arena.
    pub fn update(&mut self, amount: f64, t: i64, merchant: &str) {
        let touch = self.touch(amount, t, merchant);
        self.update_touch(amount, t, merchant, touch);
    }

    /// [`Self::observe`], then [`Self::update`], looking bucket and merchant up only once.
    ///
    /// # Panics
    /// As [`Self::update`].
    pub fn score_then_update(&mut self, amount: f64, t: i64, merchant: &str, global_amount_p99: Option<f64>) -> Observation {
        let touch = self.touch(amount, t, merchant);
        let observation = self.observe_touch(amount, t, global_amount_p99, touch);
        self.update_touch(amount, t, merchant, touch);
        observation
    }

    fn touch(&self, amount: f64, t: i64, merchant: &str) -> Touch {
        debug_assert!((0.0..=AMOUNT_MAX).contains(&amount), "the decoder bounds the amount");
        debug_assert!((0..EVENT_TIME_END_MS).contains(&t), "the decoder bounds the event time");
        Touch { bucket: sketch::bucket_of(amount), hour: hour_of(t), day: day_of(t), place: self.merchants.find(merchant) }
    }

    fn observe_touch(&self, amount: f64, t: i64, global_amount_p99: Option<f64>, touch: Touch) -> Observation {
        let flag = global_amount_flag(amount, global_amount_p99);
        let log_amount = libm::log1p(amount) as f32;
        let is_new = if self.seen < NEW_USER_BELOW { 1.0 } else { 0.0 };
        let mut normal = Normal {
            seen: self.seen,
            mean: self.mean,
            sd: self.deviation(),
            payments_last_hour: 0,
            hourly_rate: 0.0,
            seconds_since_last: None,
            merchants: self.merchants.len() as u32,
            merchant_payments: self.merchants.count_at(touch.place),
            hour: touch.hour,
            day: touch.day,
            usual_hour: None,
            usual_day: None,
            global_amount_p99,
        };
        if self.seen == 0 {
            let since_last = libm::log1p(FIRST_PAYMENT_SECONDS) as f32;
            let features = [log_amount, 0.0, 0.5, 1.0, 0.0, 0.0, since_last, 0.0, is_new, flag];
            return Observation { features, normal };
        }
        let n = self.seen as f64;
        let span_hours = self.span_hours(t);
        let since_last = (t - self.last_t).max(0) as f64 / 1000.0;
        let (hour_deviation, usual_hour) = self.hour_deviation(touch.hour);
        let (day_deviation, usual_day) = self.day_deviation(touch.day);
        normal.payments_last_hour = self.recent.in_last_hour(t);
        normal.hourly_rate = n / span_hours;
        normal.seconds_since_last = Some(since_last);
        normal.usual_hour = Some(usual_hour);
        normal.usual_day = Some(usual_day);
        let features: [f32; FEATURES] = [
            log_amount,
            self.zscore(amount, normal.sd) as f32,
            self.percentile(touch.bucket) as f32,
            ((f64::from(normal.payments_last_hour) + 1.0) / (1.0 + n / span_hours)) as f32,
            hour_deviation as f32,
            day_deviation as f32,
            libm::log1p(since_last) as f32,
            (normal.merchant_payments as f64 / n) as f32,
            is_new,
            flag,
        ];
        Observation { features, normal }
    }

    fn update_touch(&mut self, amount: f64, t: i64, merchant: &str, touch: Touch) {
        assert!(merchant.len() <= MERCHANT_BYTES_MAX, "the decoder bounds the merchant's name");
        self.seen += 1;
        let d = amount - self.mean;
        self.mean += d / self.seen as f64;
        self.m2 += d * (amount - self.mean);
        self.sketch.add(touch.bucket);
        self.habits.add(touch.hour, touch.day);
        if self.seen == 1 {
            (self.first_t, self.last_t) = (t, t);
        } else {
            (self.first_t, self.last_t) = (self.first_t.min(t), self.last_t.max(t));
        }
        self.recent.add(t, self.last_t);
        self.merchants.add(merchant, touch.place, self.seen);
    }

    fn zscore(&self, amount: f64, sd: f64) -> f64 {
        if self.seen < 2 {
            return 0.0;
        }
        let scale = sd.max(0.01 * self.mean.abs()).max(0.01);
        ((amount - self.mean) / scale).clamp(-50.0, 50.0)
    }

    /// Only called with payments seen.
    fn percentile(&self, bucket: u16) -> f64 {
        let (below, same) = self.sketch.below_and_same(bucket);
        (below as f64 + same as f64 / 2.0) / self.seen as f64
    }

    /// Hours since the first payment, at least 1.
    fn span_hours(&self, t: i64) -> f64 {
        ((t - self.first_t) as f64 / HOUR_MS as f64).max(1.0)
    }

    /// The deviation of an hour, and the most usual hour.
    ///
    /// `p(h) = c[h-1]/4 + c[h]/2 + c[h+1]/4 + 1/24`. Quarters of counts below 2^50 add up exactly in f64, so comparing
    /// their integer numerators and dividing once gives the very same bits as the formula does, without 24 divisions.
    fn hour_deviation(&self, hour: u8) -> (f64, u8) {
        let hours = self.habits.hours();
        let quarters = |h: usize| hours[(h + 23) % 24] + 2 * hours[h] + hours[(h + 1) % 24];
        let mut usual = 0;
        let mut most = quarters(0);
        for h in 1..24 {
            let q = quarters(h);
            if q > most {
                (usual, most) = (h, q);
            }
        }
        let p = |quarters: u64| quarters as f64 / 4.0 + 1.0 / 24.0;
        (1.0 - p(quarters(usize::from(hour))) / p(most), usual as u8)
    }

    /// The deviation of a day, `p(d) = c[d] + 1/7`, and the most usual day.
    fn day_deviation(&self, day: u8) -> (f64, u8) {
        let days = self.habits.days();
        let mut usual = 0;
        for d in 1..7 {
            if days[d] > days[usual] {
                usual = d;
            }
        }
        let p = |d: usize| days[d] as f64 + 1.0 / 7.0;
        (1.0 - p(usize::from(day)) / p(usual), usual as u8)
    }
}

/// Views of a profile, for people and for the HTTP interface.
impl Profile {
    /// Payments seen.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Mean amount; 0 with no payments.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Sample standard deviation of the amount; 0 below two payments.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        if self.seen < 2 { 0.0 } else { libm::sqrt(self.m2 / (self.seen - 1) as f64) }
    }

    /// Estimate of the p-quantile (0 to 1) of the amounts, off by at most 10%; `None` with no payments.
    #[must_use]
    pub fn amount_quantile(&self, p: f64) -> Option<f64> {
        self.sketch.quantile(p)
    }

    /// Payments by hour of the day, UTC.
    #[must_use]
    pub fn hour_counts(&self) -> [u64; 24] {
        self.habits.hours()
    }

    /// Payments by day of the week, UTC, Monday first.
    #[must_use]
    pub fn day_counts(&self) -> [u64; 7] {
        self.habits.days()
    }

    /// Smallest event time seen, in ms since the epoch.
    #[must_use]
    pub fn first_seen_ms(&self) -> Option<i64> {
        (self.seen > 0).then_some(self.first_t)
    }

    /// Largest event time seen, in ms since the epoch.
    #[must_use]
    pub fn last_seen_ms(&self) -> Option<i64> {
        (self.seen > 0).then_some(self.last_t)
    }

    /// Payments in the hour up to `t` (ms), as far as remembered: at most [`RECENT_MAX`].
    #[must_use]
    pub fn payments_last_hour(&self, t: i64) -> u32 {
        self.recent.in_last_hour(t)
    }

    /// Payments per hour from the first one to `t` (ms), over at least one hour.
    #[must_use]
    pub fn hourly_rate(&self, t: i64) -> f64 {
        self.seen as f64 / self.span_hours(t)
    }

    /// Merchants remembered.
    #[must_use]
    pub fn merchants(&self) -> usize {
        self.merchants.len()
    }

    /// The `limit` merchants paid most often with their counts; of equals the one paid last comes first.
    #[must_use]
    pub fn top_merchants(&self, limit: usize) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self.merchants.iter().collect();
        all.sort_by_key(|&(_, count, last)| core::cmp::Reverse((count, last)));
        all.truncate(limit);
        all.into_iter().map(|(name, count, _)| (name, count)).collect()
    }

    /// Bytes this profile holds on the heap, in addition to `size_of::<Profile>()`; allocator overhead not included.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.habits.heap_bytes() + self.sketch.heap_bytes() + self.recent.heap_bytes() + self.merchants.heap_bytes()
    }
}
