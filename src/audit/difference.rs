//! How a difference is named: whose, which field, both values, the offsets concerned.

use std::fmt;

use models::Profile;
use serde::Serialize;
use state::store::Marks;

use super::Place;
use crate::scoring::UserProfile;

/// How users are named in what is printed.
#[derive(Clone, Debug)]
pub enum Naming {
    /// By a hash under this key: reports may go where ids may not.
    Hash([u8; 32]),
    /// By their ids.
    Id,
}

impl Naming {
    /// A user, named.
    #[must_use]
    pub fn of(&self, key: &[u8]) -> String {
        match self {
            Self::Hash(secret) => crate::logging::keyed_hash(secret, key),
            Self::Id => String::from_utf8_lossy(key).into_owned(),
        }
    }
}

/// Two places that say different things of the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What was compared, as in "changelog and transactions".
    pub between: &'static str,
    /// The partition.
    pub partition: u32,
    /// The user, named as asked; none where it is not about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What differs.
    pub field: String,
    /// What the first one says.
    pub left: String,
    /// What the second one says.
    pub right: String,
    /// The records concerned.
    pub at: Vec<Place>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} differ in partition {}", self.between, self.partition)?;
        if let Some(user) = &self.user {
            write!(f, ", user {user}")?;
        }
        write!(f, ": {}: {} and {}", self.field, self.left, self.right)?;
        if let Some((first, rest)) = self.at.split_first() {
            write!(f, " (see {first}")?;
            rest.iter().try_for_each(|place| write!(f, ", {place}"))?;
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// The first field in which two kept values differ, and what each says; none where they are equal.
pub(super) fn first_field(left: &(Marks, UserProfile), right: &(Marks, UserProfile)) -> Option<(String, String, String)> {
    let told = |field: &str, a: String, b: String| (a != b).then(|| (field.to_owned(), a, b));
    let (a, b) = (&left.1.0, &right.1.0);
    let float = |value: f64| format!("{value:?}");
    let list = |counts: &[u64]| counts.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let merchants = |profile: &Profile| format!("{:?}", profile.top_merchants(usize::MAX));
    let number = |field: &str, of: fn(&(Marks, UserProfile)) -> u64| told(field, of(left).to_string(), of(right).to_string());
    number("payments included below offset", |kept| kept.0.0[0])
        .or_else(|| number("commands included below offset", |kept| kept.0.0[1]))
        .or_else(|| number("payments seen", |kept| kept.1.0.seen()))
        .or_else(|| told("mean amount", float(a.mean()), float(b.mean())))
        .or_else(|| told("deviation of the amount", float(a.deviation()), float(b.deviation())))
        .or_else(|| told("first payment at (ms)", format!("{:?}", a.first_seen_ms()), format!("{:?}", b.first_seen_ms())))
        .or_else(|| told("last payment at (ms)", format!("{:?}", a.last_seen_ms()), format!("{:?}", b.last_seen_ms())))
        .or_else(|| told("payments by hour", list(&a.hour_counts()), list(&b.hour_counts())))
        .or_else(|| told("payments by day", list(&a.day_counts()), list(&b.day_counts())))
        .or_else(|| told("merchants", merchants(a), merchants(b)))
        .or_else(|| (left != right).then(|| ("recent payments or amounts' distribution".into(), "one".into(), "another".into())))
}
