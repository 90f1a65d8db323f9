//! Rows to train on, as verdicts logged them.

use std::cmp::Ordering;
use std::collections::HashMap;

use models::validate::{Labels, Rows};
use models::{FEATURES, Model, TrainError, TrainParams, Verdict, Window};
use ndarray::ArrayView2;
use sha2::{Digest as _, Sha256};

use crate::parallel;

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// One part in so many of the window is held out.
const HELD_OUT: i64 = 7;

/// What is known of a row: whether it was a fraud, and whose card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Known {
    fraud: bool,
    /// Of the user's id: the same number wherever rows come from, in whatever order.
    card: u64,
}

impl Known {
    pub(super) fn new(fraud: bool, user_id: &str) -> Self {
        let digest = Sha256::digest(user_id.as_bytes());
        let first = digest.first_chunk::<8>().expect("invariant: SHA-256 has 32 bytes");
        Self { fraud, card: u64::from_be_bytes(*first) }
    }
}

/// Rows to train on, as verdicts log them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingRows {
    features: Vec<f32>,
    amounts: Vec<f64>,
    times: Vec<i64>,
    /// Of the rows that somebody labelled, by their place and in its order.
    known: Vec<(usize, Known)>,
}

impl TrainingRows {
    /// Adds what one verdict logged.
    pub fn push(&mut self, verdict: &Verdict) {
        self.push_known(verdict, None);
    }

    /// As [`Self::push`], with what people found out.
    pub(super) fn push_known(&mut self, verdict: &Verdict, known: Option<Known>) {
        // The amount that was scored: after conversion, where there was one.
        let amount = verdict.fx.as_ref().map_or(verdict.amount, |fx| fx.amount);
        self.push_row(&verdict.features, amount, verdict.event_time, known);
    }

    /// A row by its parts; `amount` is what was scored.
    pub(super) fn push_row(&mut self, features: &[f32; FEATURES], amount: f64, event_time: i64, known: Option<Known>) {
        self.known.extend(known.map(|known| (self.len(), known)));
        self.features.extend_from_slice(features);
        self.amounts.push(amount);
        self.times.push(event_time);
    }

    /// Adds all of the other's rows behind these.
    pub fn append(&mut self, mut other: Self) {
        let before = self.len();
        self.known.extend(other.known.drain(..).map(|(at, known)| (before + at, known)));
        self.features.append(&mut other.features);
        self.amounts.append(&mut other.amounts);
        self.times.append(&mut other.times);
    }

    /// Forgets all but the last `count` rows.
    pub fn keep_last(&mut self, count: usize) {
        let drop = self.len().saturating_sub(count);
        self.amounts.drain(..drop);
        self.times.drain(..drop);
        self.known.retain_mut(|(at, _)| {
            let stays = *at >= drop;
            *at = at.wrapping_sub(drop);
            stays
        });
        self.features.drain(..drop * FEATURES);
    }

    /// The features, ten for each row, in the order pushed.
    #[must_use]
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.amounts.len()
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.amounts.is_empty()
    }

    /// Forgets what lies before this event time.
    pub(super) fn keep_since(&mut self, from_ms: i64) {
        self.keep_between(from_ms, i64::MAX);
    }

    /// Forgets what lies before the first of these event times, or not before the second.
    pub(super) fn keep_between(&mut self, from_ms: i64, to_ms: i64) {
        if !self.times.iter().all(|time| (from_ms..to_ms).contains(time)) {
            *self = self.between(from_ms, to_ms);
        }
    }

    fn known(&self, at: usize) -> Option<Known> {
        self.known.binary_search_by_key(&at, |(at, _)| *at).ok().map(|found| self.known[found].1)
    }

    /// Puts the rows into an order that is theirs alone: by time, then by all else that they hold. What a source gives is then the same
    /// rows in the same order, however its partitions were mixed. In place but for twelve bytes a row.
    ///
    /// # Panics
    /// Of more than 2^32 rows.
    pub(super) fn arrange(&mut self) {
        let count = u32::try_from(self.len()).expect("invariant: ROWS_MAX is far below 2^32");
        let mut order: Vec<(i64, u32)> = self.times.iter().copied().zip(0..count).collect();
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| self.compare(a.1 as usize, b.1 as usize)));
        let mut order: Vec<u32> = order.into_iter().map(|(_, at)| at).collect();
        let mut known: Vec<(usize, Known)> = Vec::with_capacity(self.known.len());
        known.extend(order.iter().enumerate().filter_map(|(to, &from)| Some((to, self.known(from as usize)?))));
        self.known = known;
        // Each cycle of the permutation by swaps: place `to` gets the row from `order[to]`.
        for first in 0..order.len() {
            let mut to = first;
            while order[to] as usize != first {
                let from = order[to] as usize;
                self.swap(to, from);
                order[to] = to as u32;
                to = from;
            }
            order[to] = to as u32;
        }
    }

    /// Adds, to rows that are arranged, those of `again` that are not among them.
    pub(super) fn add_missing(&mut self, again: &Self) {
        let before = self.len();
        for at in 0..again.len() {
            let first = self.times[..before].partition_point(|&time| time < again.times[at]);
            let same = |of: usize| self.amounts[of].to_bits() == again.amounts[at].to_bits() && self.row(of) == again.row(at);
            if !(first..before).take_while(|&of| self.times[of] == again.times[at]).any(same) {
                self.take_row(again, at);
            }
        }
        if self.len() > before {
            self.arrange();
        }
    }

    fn row(&self, at: usize) -> &[f32] {
        &self.features[at * FEATURES..(at + 1) * FEATURES]
    }

    /// Of two rows of one time. Equal ones are the same for every purpose.
    fn compare(&self, a: usize, b: usize) -> Ordering {
        let features = || self.row(a).iter().zip(self.row(b)).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
        self.amounts[a]
            .total_cmp(&self.amounts[b])
            .then_with(|| features().unwrap_or(Ordering::Equal))
            .then_with(|| self.known(a).cmp(&self.known(b)))
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.times.swap(a, b);
        self.amounts.swap(a, b);
        for column in 0..FEATURES {
            self.features.swap(a * FEATURES + column, b * FEATURES + column);
        }
    }

    fn take_row(&mut self, of: &Self, at: usize) {
        self.known.extend(of.known(at).map(|known| (self.times.len(), known)));
        self.features.extend_from_slice(&of.features[at * FEATURES..(at + 1) * FEATURES]);
        self.amounts.push(of.amounts[at]);
        self.times.push(of.times[at]);
    }

    /// The last event time; none of no rows.
    pub(super) fn latest_ms(&self) -> Option<i64> {
        self.times.iter().copied().max()
    }

    /// From the first event time to the last.
    #[must_use]
    pub fn window(&self) -> Window {
        let from_ms = self.times.iter().copied().min().unwrap_or_default();
        Window { from_ms, to_ms: self.times.iter().copied().max().unwrap_or_default() }
    }

    /// Splits the rows by event time: the last seventh of the window, whole days where it has two or more, is held out.
    ///
    /// Both parts keep the order of the rows.
    #[must_use]
    pub fn hold_out(self) -> (Self, Self) {
        let Window { from_ms, to_ms } = self.window();
        let span = to_ms - from_ms;
        let cut = if span >= 2 * DAY_MS {
            to_ms - (span / HELD_OUT).max(DAY_MS)
        } else {
            // Of a short time, the last seventh of the rows: payments come unevenly.
            let mut times = self.times.clone();
            times.sort_unstable();
            times.get(times.len() - times.len() / HELD_OUT as usize).copied().unwrap_or(i64::MAX) - 1
        };
        let (mut before, mut after) = (Self::default(), Self::default());
        for (at, &time) in self.times.iter().enumerate() {
            let part = if time <= cut { &mut before } else { &mut after };
            part.take_row(&self, at);
        }
        (before, after)
    }

    /// Trains a model; calls `grown` after each tree, from any thread.
    ///
    /// # Errors
    /// [`TrainError`] where the rows or the parameters don't fit.
    pub fn train(
        &self,
        params: TrainParams,
        contamination: f64,
        fixed_p99: Option<f64>,
        grown: &(dyn Fn() + Sync),
    ) -> Result<Model, TrainError> {
        let rows = ArrayView2::from_shape((self.len(), FEATURES), &self.features)
            .expect("invariant: ten features were pushed for each row");
        let set = Model::prepare(rows, &self.amounts, params, contamination, fixed_p99, self.window())?;
        let trees = parallel::map(set.trees(), grown, |at| set.train_tree(at));
        let forest = set.forest(trees)?;
        let raw_scores = parallel::raw_scores(&forest, set.features());
        set.finish(forest, &raw_scores)
    }

    /// The rows from the first of these event times on and before the second.
    #[must_use]
    pub fn between(&self, from_ms: i64, to_ms: i64) -> Self {
        let mut kept = Self::default();
        for at in (0..self.len()).filter(|&at| (from_ms..to_ms).contains(&self.times[at])) {
            kept.take_row(self, at);
        }
        kept
    }

    /// The features as a model sees them: with its own bound in column 9.
    #[must_use]
    pub fn seen_by(&self, model: &Model) -> Vec<f32> {
        self.view().seen_by(model)
    }

    /// As validation takes them.
    pub(super) fn view(&self) -> Rows<'_> {
        Rows { features: &self.features, amounts: &self.amounts }
    }

    /// What is known of rows, where anything is.
    pub(crate) fn labels(&self) -> Option<OwnedLabels> {
        let mut cards: HashMap<u64, u32> = HashMap::new();
        let mut number = |card: u64| {
            let next = cards.len() as u32;
            *cards.entry(card).or_insert(next)
        };
        (!self.known.is_empty()).then(|| OwnedLabels {
            rows: self.known.iter().map(|(at, _)| *at).collect(),
            fraud: self.known.iter().map(|(_, known)| known.fraud).collect(),
            day: self.known.iter().map(|(at, _)| self.times[*at].div_euclid(DAY_MS)).collect(),
            card: self.known.iter().map(|(_, known)| number(known.card)).collect(),
        })
    }
}

/// Labels that own what [`Labels`] borrows.
pub(crate) struct OwnedLabels {
    rows: Vec<usize>,
    fraud: Vec<bool>,
    day: Vec<i64>,
    card: Vec<u32>,
}

impl OwnedLabels {
    pub(crate) fn view(&self) -> Labels<'_> {
        Labels { rows: &self.rows, fraud: &self.fraud, day: &self.day, card: &self.card }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows an hour apart, the first at `from`.
    fn hourly(from: i64, count: usize) -> TrainingRows {
        let mut x = 1u32;
        let mut next = || {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            x >> 8
        };
        TrainingRows {
            features: (0..count * FEATURES).map(|_| next() as f32 / 16_777_216.0).collect(),
            amounts: (0..count).map(|_| f64::from(next())).collect(),
            times: (0..count as i64).map(|at| from + at * DAY_MS / 24).collect(),
            known: Vec::new(),
        }
    }

    #[test]
    fn threads_change_nothing() {
        let rows = hourly(0, 600);
        let params = TrainParams { trees: 20, max_samples: 64, seed: 9 };
        let here = rows.train(params, 0.01, None, &|| {}).expect("trains");
        let view = ArrayView2::from_shape((600, FEATURES), &rows.features).expect("fits");
        let alone = Model::train(view, &rows.amounts, params, 0.01, None, rows.window()).expect("trains");
        assert_eq!(here.to_bytes(), alone.to_bytes());
    }

    #[test]
    fn the_last_days_are_held_out() {
        let week = hourly(1_000, 7 * 24);
        let (before, after) = week.clone().hold_out();
        assert_eq!((before.len(), after.len()), (6 * 24, 24));
        assert!(before.window().to_ms < after.window().from_ms);
        let mut both = before;
        both.append(after);
        assert_eq!(both, week);
        let (before, after) = hourly(0, 70).hold_out();
        assert_eq!((before.len(), after.len()), (46, 24), "two days and more hold out a whole one");
        let (before, after) = hourly(0, 14).hold_out();
        assert_eq!((before.len(), after.len()), (12, 2));
        let (before, after) = TrainingRows::default().hold_out();
        assert!(before.is_empty() && after.is_empty());
    }

    #[test]
    fn rows_have_one_order_whatever_they_came_in() {
        // Of one time each three rows, two of them the same but for what is known.
        let mut rows = hourly(0, 90);
        for at in 0..90 {
            rows.times[at] = (at / 3) as i64;
        }
        let mut pushed = Vec::from_iter(0..90);
        let in_order = |pushed: &[usize]| {
            let mut given = TrainingRows::default();
            for &at in pushed {
                let twin = if at % 3 == 2 { at - 1 } else { at };
                let known = (at % 3 > 0).then(|| Known::new(at % 3 == 1, &format!("user {at}")));
                let features = rows.row(twin).first_chunk::<FEATURES>().expect("ten");
                given.push_row(features, rows.amounts[twin], rows.times[at], known);
            }
            given.arrange();
            given
        };
        let expected = in_order(&pushed);
        assert!(expected.times.is_sorted());
        assert_eq!(expected.labels().map(|labels| labels.rows.len()), Some(60));
        for step in [7, 11, 89] {
            pushed.sort_by_key(|at| (at * step) % 91);
            assert_eq!(in_order(&pushed), expected);
        }
        let mut none = TrainingRows::default();
        none.arrange();
        assert!(none.is_empty());
    }

    #[test]
    fn labels_stay_with_their_rows() {
        let fraud = |at: usize| at.is_multiple_of(3);
        let known =
            |count: usize| (0..count).step_by(2).map(|at| (at, Known { fraud: fraud(at), card: at as u64 })).collect::<Vec<_>>();
        let labelled = TrainingRows { known: known(96), ..hourly(0, 96) };
        // The amount of a row names it, the card of a label the row it was given for.
        let all = labelled.clone();
        let check = |part: &TrainingRows, count: usize| {
            let labels = part.labels().expect("some are known");
            let view = labels.view();
            assert_eq!(view.rows.len(), count);
            for (at, &row) in view.rows.iter().enumerate() {
                let origin = part.known[at].1.card as usize;
                assert_eq!((part.amounts[row], view.fraud[at]), (all.amounts[origin], fraud(origin)));
                assert_eq!(view.card[at] as usize, at, "each is of another card");
                assert_eq!(view.day[at], all.times[origin].div_euclid(DAY_MS));
            }
        };
        check(&labelled, 48);
        let (before, after) = labelled.clone().hold_out();
        check(&before, before.len() / 2);
        check(&after, after.len() / 2);
        let mut mixed = before;
        mixed.append(hourly(0, 3));
        mixed.append(after);
        check(&mixed, 48);
        let mut last = labelled;
        last.keep_last(31);
        check(&last, 15);
        assert!(hourly(0, 48).labels().is_none());
    }
}
