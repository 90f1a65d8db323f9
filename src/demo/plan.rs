//! Who pays in the demo, and when: the last day up to now, and from there on as the clock goes.
//!
//! A payment is sent once its time has come. So what lies in the past goes as fast as it can, and is the history that habits and the
//! model are learned from; what comes then is of now, and every window that looks back from now has something in it. People live all over
//! the world, and the rate is theirs: more payments a second are more by each of them, and a shorter past.

use crate::generator::GeneratorParams;

/// People who pay.
const PEOPLE: u32 = 10_000;
/// Payments a second, where nothing else is said.
pub const RATE: u32 = 5;
/// The past, at most: so long, and so many payments.
const PAST_MS: i64 = 86_400_000;
const PAST: i64 = 432_000;
/// People who pay where a number of payments is asked for: few, so that each soon has a history.
const FEW: u32 = 400;
/// Payments that a first model learns from, where a number of payments is asked for: at most half of them.
const LEARN: u64 = 10_000;
/// Fewer payments than this are too few for a model to be waited for.
const FEW_PAYMENTS: u64 = 2_000;
const DAY_S: f64 = 86_400.0;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// So many payments, then an end.
    pub records: Option<u64>,
    /// So many a second.
    pub rate: Option<u32>,
}

/// See the module's header.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub people: GeneratorParams,
    pub records: Option<u64>,
    pub rate: Option<u32>,
    /// Payments after which a model is waited for; none is waited for where there are never so many.
    pub learn: u64,
}

impl Plan {
    /// `before` payments were sent before, the last one of the time `last_ms`.
    pub fn new(wish: Wish, before: u64, last_ms: Option<i64>, now_ms: i64) -> Self {
        let people =
            GeneratorParams { stream: u32::try_from(before).unwrap_or(u32::MAX), worldwide: true, ..GeneratorParams::default() };
        match wish.records {
            Some(records) => Self::counted(wish, records, people, last_ms, now_ms),
            None => Self::live(wish, people, last_ms, now_ms),
        }
    }

    fn live(wish: Wish, people: GeneratorParams, last_ms: Option<i64>, now_ms: i64) -> Self {
        let rate = wish.rate.unwrap_or(RATE);
        let past_ms = (PAST * 1_000 / i64::from(rate)).min(PAST_MS);
        let start_ms = last_ms.unwrap_or(0).clamp(now_ms - past_ms, now_ms);
        let past = u64::try_from((now_ms - start_ms) * i64::from(rate) / 1_000).unwrap_or(0);
        let payments_per_user_day = f64::from(rate) * DAY_S / f64::from(PEOPLE);
        let people = GeneratorParams { users: PEOPLE, payments_per_user_day, start_ms, ..people };
        Self { people, records: None, rate: wish.rate, learn: (past / 3).max(FEW_PAYMENTS) }
    }

    /// People with a calendar of their own that ends at about now; there is room for as many once more.
    fn counted(wish: Wish, records: u64, people: GeneratorParams, last_ms: Option<i64>, now_ms: i64) -> Self {
        let people = GeneratorParams { users: FEW, ..people };
        let days = 1.0 + 2.0 * records as f64 / (f64::from(FEW) * people.payments_per_user_day);
        #[expect(clippy::cast_possible_truncation, reason = "clamped: a time before 1970 is none")]
        let first_ms = (now_ms as f64 - days * DAY_S * 1_000.0).max(0.0) as i64;
        let start_ms = last_ms.unwrap_or(first_ms).min(now_ms);
        let learn = if records >= FEW_PAYMENTS { LEARN.min(records / 2) } else { u64::MAX };
        Self { people: GeneratorParams { start_ms, ..people }, records: Some(records), rate: wish.rate, learn }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Generator;

    const NOW_MS: i64 = 1_795_428_000_000;

    fn times(plan: &Plan, until_ms: i64) -> Vec<i64> {
        let payments = Generator::new(&plan.people).unwrap();
        payments.map(|payment| payment.timestamp_ms).take_while(|&at| at < until_ms).collect()
    }

    #[test]
    fn the_last_day_is_full_and_what_follows_comes_at_its_rate() {
        let plan = Plan::new(Wish::default(), 0, None, NOW_MS);
        let times = times(&plan, NOW_MS + 3_600_000);
        assert!(times[0] >= NOW_MS - PAST_MS && times[0] < NOW_MS - PAST_MS + 60_000);
        let past = times.iter().filter(|&&at| at < NOW_MS).count() as f64;
        assert!((past / PAST as f64 - 1.0).abs() < 0.2, "{past} of about {PAST}");
        for hour in -24..1 {
            let from = NOW_MS + hour * 3_600_000;
            let payments = times.iter().filter(|&&at| at >= from && at < from + 3_600_000).count() as f64;
            let expected = f64::from(RATE) * 3_600.0;
            assert!((payments / expected - 1.0).abs() < 0.3, "{payments} in hour {hour}, not about {expected}");
        }
        assert_eq!(plan.learn, PAST as u64 / 3);
    }

    #[test]
    fn a_higher_rate_has_a_shorter_past() {
        let plan = Plan::new(Wish { rate: Some(500), records: None }, 0, None, NOW_MS);
        assert_eq!(plan.people.start_ms, NOW_MS - 864_000);
        assert_eq!(plan.learn, PAST as u64 / 3);
    }

    #[test]
    fn it_goes_on_where_it_was_and_makes_up_for_a_day_at_most() {
        let start = |last_ms| Plan::new(Wish::default(), 7, Some(last_ms), NOW_MS).people.start_ms;
        assert_eq!(start(NOW_MS - 60_000), NOW_MS - 60_000);
        assert_eq!(start(NOW_MS - 10 * PAST_MS), NOW_MS - PAST_MS);
        assert_eq!(start(NOW_MS + 60_000), NOW_MS, "a clock that was set back");
        assert_eq!(Plan::new(Wish::default(), 7, Some(NOW_MS), NOW_MS).people.stream, 7);
    }

    #[test]
    fn so_many_payments_have_a_calendar_that_ends_by_now_twice() {
        let wish = Wish { records: Some(20_000), rate: None };
        let plan = Plan::new(wish, 0, None, NOW_MS);
        let first: Vec<i64> = Generator::new(&plan.people).unwrap().take(20_000).map(|payment| payment.timestamp_ms).collect();
        let again = Plan::new(wish, 20_000, first.last().copied(), NOW_MS);
        assert_eq!(again.people.start_ms, *first.last().unwrap());
        let last = Generator::new(&again.people).unwrap().take(20_000).last().unwrap().timestamp_ms;
        assert!(last < NOW_MS && last > NOW_MS - 5 * PAST_MS, "{} days before now", (NOW_MS - last) / PAST_MS);
        assert_eq!((plan.learn, Plan::new(Wish { records: Some(500), rate: None }, 0, None, NOW_MS).learn), (10_000, u64::MAX));
    }
}
