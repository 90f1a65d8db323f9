//! Rows to train on, as verdicts logged them.

use std::collections::HashMap;

use models::validate::{Labels, Rows};
use models::{FEATURES, Model, TrainError, TrainParams, Verdict, Window};
use ndarray::ArrayView2;

use crate::parallel;

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// One part in so many of the window is held out.
const HELD_OUT: i64 = 7;

/// What is known of a row: whether it was a fraud, and whose card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    fraud: bool,
    card: u32,
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
        self.features.extend_from_slice(&verdict.features);
        // The amount that was scored: after conversion, where there was one.
        self.amounts.push(verdict.fx.as_ref().map_or(verdict.amount, |fx| fx.amount));
        self.times.push(verdict.event_time);
    }

    /// As [`Self::push`], with what people found out.
    pub(super) fn push_labelled(&mut self, verdict: &Verdict, fraud: bool, card: u32) {
        self.known.push((self.len(), Known { fraud, card }));
        self.push(verdict);
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

    fn take_row(&mut self, of: &Self, at: usize) {
        if let Ok(found) = of.known.binary_search_by_key(&at, |(at, _)| *at) {
            self.known.push((self.len(), of.known[found].1));
        }
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
        (!self.known.is_empty()).then(|| OwnedLabels {
            rows: self.known.iter().map(|(at, _)| *at).collect(),
            fraud: self.known.iter().map(|(_, known)| known.fraud).collect(),
            day: self.known.iter().map(|(at, _)| self.times[*at].div_euclid(DAY_MS)).collect(),
            card: self.known.iter().map(|(_, known)| known.card).collect(),
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

/// Numbers for cards, in the order in which they are met.
#[derive(Debug, Default)]
pub(super) struct Cards(HashMap<String, u32>);

impl Cards {
    pub(super) fn number(&mut self, user_id: &str) -> u32 {
        if let Some(&number) = self.0.get(user_id) {
            return number;
        }
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.insert(user_id.to_owned(), number);
        number
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
    fn labels_stay_with_their_rows() {
        let fraud = |at: usize| at.is_multiple_of(3);
        let known =
            |count: usize| (0..count).step_by(2).map(|at| (at, Known { fraud: fraud(at), card: at as u32 })).collect::<Vec<_>>();
        let labelled = TrainingRows { known: known(96), ..hourly(0, 96) };
        // The amount of a row names it, the card of a label the row it was given for.
        let all = labelled.clone();
        let check = |part: &TrainingRows, count: usize| {
            let labels = part.labels().expect("some are known");
            let view = labels.view();
            assert_eq!(view.rows.len(), count);
            for (at, &row) in view.rows.iter().enumerate() {
                let origin = view.card[at] as usize;
                assert_eq!((part.amounts[row], view.fraud[at]), (all.amounts[origin], fraud(origin)));
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
