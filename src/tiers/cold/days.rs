//! Verdicts by day of their event time (UTC): a partition is made when its first verdict comes, and dropped when it is too old.
//!
//! Too old is `HISTORY_DAYS` before the newest day kept or today, whichever is earlier. So a stream of past years keeps its last days as
//! a live one does, a payment of the future cannot push history out, and the outcome is the same in whatever order partitions come in.

use std::collections::BTreeSet;

use deadpool_postgres::{Object, Transaction};
use jiff::civil::Date;
use tokio_postgres::Error;

/// Days since 1970-01-01.
pub(super) type Day = i64;

/// Milliseconds of a day.
pub(super) const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// A day further ahead of today than this has no verdict: no setting lets payments be so early.
const AHEAD: Day = 1;

/// The day of a time in milliseconds since the epoch.
pub(super) fn day_of(ms: i64) -> Day {
    ms.div_euclid(DAY_MS)
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) first: Day,
    pub(super) last: Day,
}

impl Window {
    /// Pure. `days` are those that have a partition or are about to get one.
    pub(super) fn new(days: impl Iterator<Item = Day>, today: Day, kept: u32) -> Self {
        let last = today + AHEAD;
        let newest = days.filter(|&day| day <= last).max().unwrap_or(today).min(today);
        Self { first: newest - Day::from(kept) + 1, last }
    }

    pub(super) fn holds(self, day: Day) -> bool {
        (self.first..=self.last).contains(&day)
    }
}

fn date(day: Day) -> Option<Date> {
    let midnight = jiff::Timestamp::from_millisecond(day.checked_mul(DAY_MS)?).ok()?;
    Some(midnight.to_zoned(jiff::tz::TimeZone::UTC).date())
}

fn partition(date: Date) -> String {
    format!("verdicts_{}", date.strftime("%Y%m%d"))
}

fn day_of_partition(name: &str) -> Option<Day> {
    let date = Date::strptime("%Y%m%d", name.strip_prefix("verdicts_")?).ok()?;
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(day_of(midnight.timestamp().as_millisecond()))
}

/// The days that have a partition.
pub(super) async fn existing(client: &Object) -> Result<BTreeSet<Day>, Error> {
    let list = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'verdicts'::regclass";
    let rows = client.query(list, &[]).await?;
    Ok(rows.iter().filter_map(|row| day_of_partition(row.get(0))).collect())
}

/// Makes the partition of a day, unless another process was quicker. Readers and writers go on meanwhile: it is made apart, then
/// attached.
pub(super) async fn make(transaction: &Transaction<'_>, day: Day) -> Result<(), Error> {
    let (Some(date), Some(next)) = (date(day), date(day + 1)) else { return Ok(()) };
    let name = partition(date);
    transaction.execute("SELECT pg_advisory_xact_lock('verdicts'::regclass::oid::bigint)", &[]).await?;
    if transaction.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]).await?.get(0) {
        return Ok(());
    }
    let make = format!(
        "CREATE TABLE {name} (LIKE verdicts INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
         ALTER TABLE verdicts ATTACH PARTITION {name} FOR VALUES FROM ('{date} 00:00+00') TO ('{next} 00:00+00')"
    );
    transaction.batch_execute(&make).await
}

/// Drops the partition of a day. It waits for readers of `verdicts`, but not for long: who comes behind it waits, too.
pub(super) async fn remove(client: &mut Object, day: Day) -> Result<(), Error> {
    let Some(date) = date(day) else { return Ok(()) };
    let transaction = client.transaction().await?;
    let remove = format!("SET LOCAL lock_timeout = '2s'; DROP TABLE IF EXISTS {}", partition(date));
    transaction.batch_execute(&remove).await?;
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_stream_and_never_the_future() {
        let window = |days: &[Day], today, kept| Window::new(days.iter().copied(), today, kept);
        assert_eq!(window(&[], 100, 90), Window { first: 11, last: 101 });
        assert_eq!(window(&[50], 100, 90), Window { first: -39, last: 101 }, "a stream of the past keeps its last days");
        assert_eq!(window(&[50, 100], 100, 90), Window { first: 11, last: 101 });
        assert_eq!(window(&[101], 100, 90), Window { first: 11, last: 101 }, "tomorrow pushes nothing out");
        assert_eq!(window(&[50, 999], 100, 1), Window { first: 50, last: 101 }, "nor does a day that cannot be");
        assert!(window(&[100], 100, 1).holds(100) && window(&[100], 100, 1).holds(101) && !window(&[100], 100, 1).holds(99));
    }

    #[test]
    fn partitions_are_named_by_their_day() {
        for day in [0, 20_780, -1, 2_000_000] {
            let name = partition(date(day).expect("a date"));
            assert_eq!(day_of_partition(&name), Some(day), "{name}");
        }
        assert_eq!(partition(date(20_780).expect("a date")), "verdicts_20261123");
        assert_eq!(day_of_partition("verdicts_default"), None);
        assert_eq!((day_of(-1), day_of(0), day_of(DAY_MS - 1), day_of(DAY_MS)), (-1, 0, 0, 1));
        assert_eq!(date(i64::MAX), None);
    }
}
