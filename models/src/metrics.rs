//! How good a ranking is: against labels, in the measures that fraud papers report.
//!
//! All take parallel slices of equal length; scores are not NaN (NaN sorts above everything, by `total_cmp`).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Groups of equal score, highest first: (positives, negatives) in each.
fn groups(labels: &[bool], scores: &[f64]) -> Vec<(u64, u64)> {
    assert_eq!(labels.len(), scores.len(), "one score per label");
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut groups: Vec<(u64, u64)> = Vec::new();
    let mut last = None;
    for i in order {
        if last != Some(scores[i]) {
            groups.push((0, 0));
            last = Some(scores[i]);
        }
        let group = groups.last_mut().expect("invariant: pushed above");
        if labels[i] { group.0 += 1 } else { group.1 += 1 }
    }
    groups
}

/// Area under the ROC curve: the chance that a positive scores above a negative, ties counting half (midranks).
///
/// `None` without both positives and negatives.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn auroc(labels: &[bool], scores: &[f64]) -> Option<f64> {
    let groups = groups(labels, scores);
    let negatives: u64 = groups.iter().map(|group| group.1).sum();
    let positives: u64 = groups.iter().map(|group| group.0).sum();
    if negatives == 0 || positives == 0 {
        return None;
    }
    let mut below = negatives;
    let mut wins = 0.0;
    for (hits, misses) in groups {
        below -= misses;
        wins += hits as f64 * (below as f64 + misses as f64 / 2.0);
    }
    Some(wins / (positives as f64 * negatives as f64))
}

/// Average precision as scikit-learn defines it: sum over thresholds of (recall step) x precision, ties in one step.
///
/// `None` without positives.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn average_precision(labels: &[bool], scores: &[f64]) -> Option<f64> {
    let groups = groups(labels, scores);
    let positives: u64 = groups.iter().map(|group| group.0).sum();
    if positives == 0 {
        return None;
    }
    let (mut hits, mut all) = (0u64, 0u64);
    let mut sum = 0.0;
    for (group_hits, group_misses) in groups {
        hits += group_hits;
        all += group_hits + group_misses;
        sum += group_hits as f64 * (hits as f64 / all as f64);
    }
    Some(sum / positives as f64)
}

/// Card precision top-k of the Fraud Detection Handbook (Le Borgne, Siblini, Lebichot, Bontempi, 2022, chapter 4).
///
/// Per day: each card gets its highest score of that day, the `k` highest cards are investigated, and the precision is
/// the number of those with a fraud that day over `k` (not over the cards looked at, as in the Handbook). The answer is the
/// mean over the days. A card found compromised on one day leaves the following ones, as the Handbook does by default
/// (`remove_detected_compromised_cards=True`). Of cards with equal scores the lower id goes first. `None` without days
/// or with `k` = 0.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn card_precision(days: &[i64], cards: &[u32], scores: &[f64], labels: &[bool], k: usize) -> Option<f64> {
    card_precision_of(days, cards, scores, labels, k, true)
}

/// [`card_precision`] with the choice whether a card detected on one day leaves the following ones.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn card_precision_of(
    days: &[i64],
    cards: &[u32],
    scores: &[f64],
    labels: &[bool],
    k: usize,
    remove_detected: bool,
) -> Option<f64> {
    let lengths_fit = days.len() == cards.len() && days.len() == scores.len() && days.len() == labels.len();
    assert!(lengths_fit, "parallel slices");
    // Day -> card -> (highest score, any fraud).
    let mut by_day: BTreeMap<i64, BTreeMap<u32, (f64, bool)>> = BTreeMap::new();
    for i in 0..days.len() {
        let card = by_day.entry(days[i]).or_default().entry(cards[i]).or_insert((f64::NEG_INFINITY, false));
        *card = (card.0.max(scores[i]), card.1 | labels[i]);
    }
    if by_day.is_empty() || k == 0 {
        return None;
    }
    let mut detected = BTreeSet::new();
    let mut sum = 0.0;
    for cards in by_day.values() {
        let mut ranked: Vec<(u32, f64, bool)> =
            cards.iter().filter(|(card, _)| !detected.contains(*card)).map(|(&c, &(s, f))| (c, s, f)).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked.truncate(k);
        let found: Vec<u32> = ranked.iter().filter(|card| card.2).map(|card| card.0).collect();
        sum += found.len() as f64 / k as f64;
        if remove_detected {
            detected.extend(found);
        }
    }
    Some(sum / by_day.len() as f64)
}
