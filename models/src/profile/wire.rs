//! How a profile is written: a serde form that is compact under bincode 2 with variable-length integers.
//!
//! In order: payments seen; mean, m2 (f64); first_t; last_t - first_t; amount buckets as (step from the bucket before,
//! count); 24 hour counts; 7 day counts; recent times as (last_t - time), in arrival order; merchants in order of name
//! as (length of name, count, payments since the last one to it); all names without separators.
//!
//! The form is deterministic: equal profiles give equal bytes. Reading trusts nothing: each length is checked against
//! its limit before anything is allocated, order and bounds are checked after, counts must add up to the payments seen.
//! Names are written byte by byte because bincode allocates the announced length of a string before it looks at it.

use super::Profile;
use super::habits::Habits;
use super::merchants::{MERCHANT_BYTES_MAX, MERCHANTS_MAX, Merchants};
use super::sketch::{BUCKET_MAX, COUNT_MAX, Sketch};
use super::velocity::{RECENT_MAX, Recent};
use crate::features::{AMOUNT_MAX, EVENT_TIME_END_MS, HOUR_MS};
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const BINS_MAX: usize = BUCKET_MAX as usize + 1;
const NAMES_MAX: usize = MERCHANTS_MAX * MERCHANT_BYTES_MAX;

/// Bytes in one go: in bincode they are what a sequence of `u8` is.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// An iterator of exactly known length that serialises as a sequence, so that writing allocates nothing.
struct Seq<I>(I);

impl<I> Serialize for Seq<I>
where
    I: Iterator<Item: Serialize> + Clone,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone())
    }
}

impl Serialize for Profile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let buckets_before = core::iter::once(0).chain(self.sketch.bins().map(|(bucket, _)| bucket));
        let bins = self.sketch.bins().zip(buckets_before).map(|((bucket, count), before)| (bucket - before, count));
        let merchants = self.merchants.iter().map(|(name, count, last)| (name.len() as u16, count, self.seen - last));
        let ages = self.recent.times().iter().map(|t| (self.last_t - t) as u32);
        let mut out = serializer.serialize_struct("Profile", 11)?;
        out.serialize_field("seen", &self.seen)?;
        out.serialize_field("mean", &self.mean)?;
        out.serialize_field("m2", &self.m2)?;
        out.serialize_field("first_t", &(self.first_t as u64))?;
        out.serialize_field("span", &((self.last_t - self.first_t) as u64))?;
        out.serialize_field("bins", &Seq(bins))?;
        out.serialize_field("hours", &self.habits.hours())?;
        out.serialize_field("days", &self.habits.days())?;
        out.serialize_field("recent", &Seq(ages))?;
        out.serialize_field("merchants", &Seq(merchants))?;
        out.serialize_field("names", &Bytes(self.merchants.names().as_bytes()))?;
        out.end()
    }
}

/// A vector that refuses to grow beyond `MAX`, whatever length its input announces.
struct Bounded<T, const MAX: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedVisitor<T, MAX> {
    type Value = Bounded<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a sequence of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let announced = seq.size_hint().unwrap_or(0);
        if announced > MAX {
            return Err(A::Error::invalid_length(announced, &self));
        }
        let mut items = Vec::with_capacity(announced);
        while let Some(item) = seq.next_element()? {
            if items.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            items.push(item);
        }
        Ok(Bounded(items))
    }
}

#[derive(Deserialize)]
#[serde(rename = "Profile")]
struct Wire {
    seen: u64,
    mean: f64,
    m2: f64,
    first_t: u64,
    span: u64,
    bins: Bounded<(u16, u64), BINS_MAX>,
    hours: [u64; 24],
    days: [u64; 7],
    recent: Bounded<u32, RECENT_MAX>,
    merchants: Bounded<(u16, u64, u64), MERCHANTS_MAX>,
    names: Bounded<u8, NAMES_MAX>,
}

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wire::deserialize(deserializer)?.check().map_err(D::Error::custom)
    }
}

impl Wire {
    /// Every invariant that `Profile` relies on; the error names the part, never a value.
    fn check(self) -> Result<Profile, &'static str> {
        if self.seen > COUNT_MAX {
            return Err("profile: too many payments");
        }
        let numbers_fit = (0.0..=AMOUNT_MAX * 1.01).contains(&self.mean) && self.m2.is_finite() && self.m2 >= 0.0;
        if !numbers_fit {
            return Err("profile: mean or variance out of range");
        }
        let end = EVENT_TIME_END_MS as u64;
        if self.first_t >= end || self.span >= end - self.first_t {
            return Err("profile: event time out of range");
        }
        if total(self.hours.iter().copied()) != Some(self.seen) || total(self.days.iter().copied()) != Some(self.seen) {
            return Err("profile: hour or day counts do not add up");
        }
        let (first_t, last_t) = (self.first_t as i64, (self.first_t + self.span) as i64);
        if self.recent.0.iter().any(|&age| i64::from(age) >= HOUR_MS) || self.recent.0.len() as u64 > self.seen {
            return Err("profile: recent times out of range");
        }
        let recent: Vec<i64> = self.recent.0.iter().map(|&age| last_t - i64::from(age)).collect();
        let profile = Profile {
            seen: self.seen,
            mean: self.mean,
            m2: self.m2,
            first_t,
            last_t,
            habits: Habits::new(&self.hours, &self.days),
            sketch: sketch(&self.bins.0, self.seen)?,
            recent: Recent::from_times(recent),
            merchants: merchants(&self.merchants.0, &self.names.0, self.seen)?,
        };
        if profile.seen == 0 && profile != Profile::default() { Err("profile: not empty") } else { Ok(profile) }
    }
}

/// Sum of counts; `None` if it overflows.
fn total(mut counts: impl Iterator<Item = u64>) -> Option<u64> {
    counts.try_fold(0u64, u64::checked_add)
}

fn sketch(bins: &[(u16, u64)], seen: u64) -> Result<Sketch, &'static str> {
    let mut bucket = 0u16;
    for (i, &(step, count)) in bins.iter().enumerate() {
        bucket = bucket.checked_add(step).filter(|&b| b <= BUCKET_MAX).ok_or("profile: amount bucket out of range")?;
        if count == 0 || (step == 0 && i > 0) {
            return Err("profile: amount buckets not in order");
        }
    }
    if total(bins.iter().map(|bin| bin.1)) != Some(seen) {
        return Err("profile: amount counts do not add up");
    }
    let mut bucket = 0;
    Ok(Sketch::from_bins(bins.iter().map(|&(step, count)| {
        bucket += step;
        (bucket, count)
    })))
}

fn merchants(table: &[(u16, u64, u64)], names: &[u8], seen: u64) -> Result<Merchants, &'static str> {
    let mut merchants = Merchants::with_capacity(table.len(), names.len());
    let mut rest = names;
    let mut before = "";
    for &(length, count, age) in table {
        let length = usize::from(length);
        if length == 0 || length > MERCHANT_BYTES_MAX || length > rest.len() {
            return Err("profile: merchant's name out of range");
        }
        let (name, tail) = rest.split_at(length);
        let name = core::str::from_utf8(name).map_err(|_| "profile: merchant's name is not UTF-8")?;
        if name <= before || count == 0 || age >= seen {
            return Err("profile: merchants not in order");
        }
        merchants.push(name, count, seen - age);
        (before, rest) = (name, tail);
    }
    let counted = total(table.iter().map(|entry| entry.1));
    if !rest.is_empty() || counted.is_none_or(|sum| sum > seen) {
        return Err("profile: merchant counts do not add up");
    }
    Ok(merchants)
}
