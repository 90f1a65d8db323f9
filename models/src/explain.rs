//! Why a payment was called anomalous, in words that name the user's own normal.
//!
//! The forest says which features shortened the path ([`crate::Forest::contributions`], signed so that positive means
//! more anomalous); the [`Normal`] says what the user usually does. Texts hold numbers, never a name: neither the user nor
//! the merchant appears in them, so they may go where those may not.

use crate::features::{
    AMOUNT_PERCENTILE, AMOUNT_ZSCORE, DAY_DEVIATION, FEATURE_NAMES, FEATURES, FIRST_PAYMENT_SECONDS, GLOBAL_AMOUNT_FLAG,
    HOUR_DEVIATION, IS_NEW_USER, LOG_AMOUNT, MERCHANT_FAMILIARITY, Normal, Observation, TIME_SINCE_LAST, VELOCITY_RATIO,
};
use crate::model::Model;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Most reasons of one verdict.
pub const REASONS_MAX: usize = 5;
/// Most reasons that the one-line explanation names.
pub const EXPLAINED_MAX: usize = 3;

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// One feature that made a payment more anomalous.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// Name of the feature.
    pub feature: &'static str,
    /// Its value, as people read it: seconds for `time_since_last`, the feature itself otherwise.
    pub value: f64,
    /// By how many steps it shortened the mean path; positive.
    pub contribution: f64,
    /// A phrase for a person.
    pub text: String,
}

/// The features that shortened the path, strongest first, at most [`REASONS_MAX`].
///
/// `amount` is the one that was scored; `observation` must come from the same profile and this model's quantile.
#[must_use]
pub fn explain(model: &Model, observation: &Observation, amount: f64) -> Vec<Reason> {
    let mut contributions = [0.0; FEATURES];
    model.forest.contributions(&observation.features, &mut contributions);
    let mut order: [usize; FEATURES] = core::array::from_fn(|i| i);
    // Stable: of equal contributions the earlier feature comes first.
    order.sort_by(|&a, &b| contributions[b].total_cmp(&contributions[a]));
    let mut reasons = Vec::with_capacity(REASONS_MAX);
    for feature in order.into_iter().filter(|&i| contributions[i] > 0.0).take(REASONS_MAX) {
        reasons.push(Reason {
            feature: FEATURE_NAMES[feature],
            value: value_of(feature, observation),
            contribution: contributions[feature],
            text: text_of(feature, observation, amount),
        });
    }
    reasons
}

/// The strongest reasons in one line, at most [`EXPLAINED_MAX`], joined by "; ".
///
/// What says nothing new to a person stays out: the bare amount beside its distance from the average, and that the user is known.
#[must_use]
pub fn explanation(reasons: &[Reason]) -> String {
    let has = |feature: usize| reasons.iter().any(|reason| reason.feature == FEATURE_NAMES[feature]);
    let beside_average = has(AMOUNT_ZSCORE);
    let telling = |reason: &&Reason| {
        let bare_amount = reason.feature == FEATURE_NAMES[LOG_AMOUNT] && beside_average;
        let known_user = reason.feature == FEATURE_NAMES[IS_NEW_USER] && reason.value == 0.0;
        !bare_amount && !known_user
    };
    let texts: Vec<&str> = reasons.iter().filter(telling).take(EXPLAINED_MAX).map(|reason| reason.text.as_str()).collect();
    texts.join("; ")
}

/// A feature's value as people read it.
fn value_of(feature: usize, observation: &Observation) -> f64 {
    match (feature, observation.normal.seconds_since_last) {
        (TIME_SINCE_LAST, Some(seconds)) => seconds,
        (TIME_SINCE_LAST, None) => FIRST_PAYMENT_SECONDS,
        _ => f64::from(observation.features[feature]),
    }
}

/// A phrase on one feature, whatever its contribution.
pub(crate) fn text_of(feature: usize, observation: &Observation, amount: f64) -> String {
    let (normal, value) = (&observation.normal, f64::from(observation.features[feature]));
    let first = normal.seen == 0;
    match feature {
        LOG_AMOUNT if first => format!("Amount {amount:.2}"),
        LOG_AMOUNT => format!("Amount {amount:.2}, this user's average is {:.2}", normal.mean),
        AMOUNT_ZSCORE => beside_average(value, amount, normal),
        AMOUNT_PERCENTILE if first => "No earlier amount of this user to compare with".to_owned(),
        AMOUNT_PERCENTILE => percentile(value),
        VELOCITY_RATIO => velocity(normal),
        HOUR_DEVIATION => hour(normal),
        DAY_DEVIATION => day(normal),
        TIME_SINCE_LAST => since_last(normal),
        MERCHANT_FAMILIARITY => merchant(normal),
        IS_NEW_USER if first => "First payment of this user".to_owned(),
        IS_NEW_USER if value > 0.0 => {
            format!("New user: {}", plural(normal.seen, "earlier payment"))
        }
        IS_NEW_USER => format!("Known user: {}", plural(normal.seen, "earlier payment")),
        GLOBAL_AMOUNT_FLAG => beside_everyone(amount, normal),
        _ => FEATURE_NAMES[feature].to_owned(),
    }
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// "37" or "2.4": no more digits than a person weighs.
fn short(x: f64) -> String {
    if x >= 9.95 { format!("{x:.0}") } else { format!("{x:.1}") }
}

fn beside_average(zscore: f64, amount: f64, normal: &Normal) -> String {
    if normal.seen < 2 {
        return "Too few earlier amounts of this user to compare with".to_owned();
    }
    let ratio = amount / normal.mean;
    if normal.mean > 0.0 && ratio >= 1.5 {
        return format!("Amount {}x above this user's average of {:.2}", short(ratio), normal.mean);
    }
    let side = if zscore >= 0.0 { "above" } else { "below" };
    format!("Amount {} deviations {side} this user's average of {:.2}", short(zscore.abs()), normal.mean)
}

fn percentile(share: f64) -> String {
    // 0.5 is the middle: neither side would read as unusual.
    if share > 0.995 {
        "Amount higher than all of this user's payments".to_owned()
    } else if share >= 0.5 {
        format!("Amount higher than {:.0}% of this user's payments", share * 100.0)
    } else {
        format!("Amount lower than {:.0}% of this user's payments", (1.0 - share) * 100.0)
    }
}

fn velocity(normal: &Normal) -> String {
    // The payment itself belongs to the hour that a person would count.
    let payments = plural(u64::from(normal.payments_last_hour) + 1, "payment");
    if normal.seen == 0 {
        return format!("{payments} in the last hour, none before");
    }
    let usual = normal.hourly_rate;
    if usual < 0.05 {
        return format!("{payments} in the last hour (usually less than 0.1)");
    }
    format!("{payments} in the last hour (usually {})", short(usual))
}

fn hour(normal: &Normal) -> String {
    match normal.usual_hour {
        Some(usual) if usual != normal.hour => {
            format!("At {:02}:00 UTC, usually around {usual:02}:00", normal.hour)
        }
        Some(_) => format!("At {:02}:00 UTC, this user's usual hour", normal.hour),
        None => format!("At {:02}:00 UTC, no earlier payment to compare with", normal.hour),
    }
}

fn day(normal: &Normal) -> String {
    let today = DAYS[usize::from(normal.day) % 7];
    match normal.usual_day {
        Some(usual) if usual != normal.day => format!("On a {today}, most often on a {}", DAYS[usize::from(usual) % 7]),
        Some(_) => format!("On a {today}, this user's most usual day"),
        None => format!("On a {today}, no earlier payment to compare with"),
    }
}

fn since_last(normal: &Normal) -> String {
    let Some(seconds) = normal.seconds_since_last else {
        return "No earlier payment of this user".to_owned();
    };
    let (count, unit) = match seconds {
        s if s < 120.0 => (s, "second"),
        s if s < 7200.0 => (s / 60.0, "minute"),
        s if s < 172_800.0 => (s / 3600.0, "hour"),
        s => (s / 86_400.0, "day"),
    };
    let since = plural(libm::floor(count) as u64, unit);
    if normal.hourly_rate <= 0.0 {
        return format!("{since} since the last payment");
    }
    let usual_hours = 1.0 / normal.hourly_rate;
    let usual = match usual_hours {
        h if h < 2.0 => format!("{} minutes", short(h * 60.0)),
        h if h < 48.0 => format!("{} hours", short(h)),
        h => format!("{} days", short(h / 24.0)),
    };
    format!("{since} since the last payment (on average {usual})")
}

fn merchant(normal: &Normal) -> String {
    let known = plural(u64::from(normal.merchants), "merchant");
    match normal.merchant_payments {
        0 if normal.seen == 0 => "First time at this merchant".to_owned(),
        0 => format!("First time at this merchant ({known} known)"),
        count => format!("{} at this merchant among {}", plural(count, "earlier payment"), normal.seen),
    }
}

fn beside_everyone(amount: f64, normal: &Normal) -> String {
    match normal.global_amount_p99 {
        Some(p99) if amount > p99 => {
            format!("Amount above {p99:.2}, the 99% mark of all users' payments")
        }
        Some(p99) => format!("Amount within {p99:.2}, the 99% mark of all users' payments"),
        None => "Amount not compared with other users' (no model yet)".to_owned(),
    }
}
