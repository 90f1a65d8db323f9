//! A user's profile in people's terms: as the interface shows it, and as the warm tier keeps it for other services.

use jiff::Timestamp;
use models::Profile;
use schemars::JsonSchema;
use serde::Serialize;

use crate::scoring::ScoringParams;

/// Merchants shown.
const TOP_MERCHANTS: usize = 10;
/// Usual hours (days) are the fewest that hold this share of the payments.
const USUAL_SHARE: f64 = 0.8;
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// What is normal for a user.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "portrait")]
pub(crate) struct Portrait<'p> {
    user_id: &'p str,
    /// Payments seen.
    count: u64,
    /// Event time of the earliest and latest payment, RFC 3339; null with no payments.
    first_seen: Option<String>,
    last_seen: Option<String>,
    amount: Amount,
    velocity: Velocity,
    /// All times are UTC.
    hours: Habit<u8>,
    days: Habit<&'static str>,
    merchants: Merchants<'p>,
}

/// Amounts as they were scored.
#[derive(Serialize, JsonSchema)]
struct Amount {
    /// The currency that amounts are converted to; null where they are taken as they are.
    currency: Option<String>,
    mean: f64,
    deviation: f64,
    /// Percentiles, off by at most 10%; null with no payments.
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
}

/// How fast payments come.
#[derive(Serialize, JsonSchema)]
struct Velocity {
    /// Payments in the hour up to the last one, at most 256.
    last_hour: u32,
    /// Payments an hour from the first to the last one, over at least one hour.
    hourly_rate: f64,
}

/// When payments come.
#[derive(Serialize, JsonSchema)]
struct Habit<T> {
    /// The fewest hours (days) that together hold at least 80% of the payments, in the order of the clock (week).
    usual: Vec<T>,
    /// Payments by hour from 0 (by day from Monday).
    counts: Vec<u64>,
}

/// Where payments go.
#[derive(Serialize, JsonSchema)]
struct Merchants<'p> {
    /// Merchants remembered, at most 64.
    known: usize,
    /// Those paid most often.
    top: Vec<Merchant<'p>>,
}

/// One merchant.
#[derive(Serialize, JsonSchema)]
struct Merchant<'p> {
    merchant: &'p str,
    count: u64,
}

impl<'p> Portrait<'p> {
    /// Of a user, with amounts in this currency; none where they are taken as they are.
    pub(crate) fn of(user_id: &'p str, profile: &'p Profile, currency: Option<String>) -> Self {
        let last_ms = profile.last_seen_ms();
        let top = profile.top_merchants(TOP_MERCHANTS).into_iter();
        Self {
            user_id,
            count: profile.seen(),
            first_seen: profile.first_seen_ms().and_then(rfc3339),
            last_seen: last_ms.and_then(rfc3339),
            amount: Amount {
                currency,
                mean: profile.mean(),
                deviation: profile.deviation(),
                p50: profile.amount_quantile(0.5),
                p90: profile.amount_quantile(0.9),
                p99: profile.amount_quantile(0.99),
            },
            velocity: Velocity {
                last_hour: last_ms.map_or(0, |last| profile.payments_last_hour(last)),
                hourly_rate: last_ms.map_or(0.0, |last| profile.hourly_rate(last)),
            },
            hours: habit(&profile.hour_counts(), |hour| hour as u8),
            days: habit(&profile.day_counts(), |day| DAYS[day]),
            merchants: Merchants {
                known: profile.merchants(),
                top: top.map(|(merchant, count)| Merchant { merchant, count }).collect(),
            },
        }
    }

    /// Its JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("invariant: strings and numbers always serialise")
    }
}

/// The currency that amounts are converted to; none where they are taken as they are.
pub(crate) fn currency(params: &ScoringParams) -> Option<String> {
    params.fx.as_ref().and_then(|table| table.convert(0.0, None)).map(|fx| fx.base)
}

/// A time as people and machines read it; none for a time that no calendar has (events are bounded far within).
pub(crate) fn rfc3339(ms: i64) -> Option<String> {
    Timestamp::from_millisecond(ms).ok().map(|time| time.to_string())
}

fn habit<T>(counts: &[u64], name: impl Fn(usize) -> T) -> Habit<T> {
    Habit { usual: usual(counts).into_iter().map(name).collect(), counts: counts.to_vec() }
}

/// Places of the largest counts that together hold [`USUAL_SHARE`] of all; of equals the earlier one first.
fn usual(counts: &[u64]) -> Vec<usize> {
    let enough = USUAL_SHARE * counts.iter().map(|&count| count as f64).sum::<f64>();
    let mut places: Vec<usize> = (0..counts.len()).filter(|&at| counts[at] > 0).collect();
    places.sort_by_key(|&at| (std::cmp::Reverse(counts[at]), at));
    let mut held = 0.0;
    places.retain(|&at| {
        let needed = held < enough;
        held += counts[at] as f64;
        needed
    });
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_hours_are_the_fewest_that_hold_most_payments() {
        assert_eq!(usual(&[]), [0; 0]);
        assert_eq!(usual(&[0, 0, 0]), [0; 0]);
        assert_eq!(usual(&[0, 1, 0]), [1]);
        assert_eq!(usual(&[1, 5, 0, 4]), [1, 3]);
        assert_eq!(usual(&[1, 1, 1, 1, 1]), [0, 1, 2, 3]);
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(1_700_000_000_000).as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(rfc3339(1).as_deref(), Some("1970-01-01T00:00:00.001Z"));
        assert_eq!(rfc3339(i64::MAX), None);
    }
}
