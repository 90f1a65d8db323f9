//! What a second brought.

use std::sync::atomic::Ordering;

use models::Severity;
use serde::Serialize;
use topology::metrics::{COMMIT_BUCKETS, Metrics};

/// Figures of one second of people's clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Second {
    /// When it began, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Verdicts seen in it, of all instances.
    pub verdicts: u64,
    /// Those with a score.
    pub scored: u64,
    /// Anomalies by severity: low, medium, high, critical.
    pub severities: [u64; 4],
    /// Commits of this instance.
    pub commits: u64,
    /// Half of them took at most so many milliseconds, as the buckets of the histogram have it; null with no commit.
    pub commit_p50_ms: Option<f64>,
    /// As before, of 99 in 100.
    pub commit_p99_ms: Option<f64>,
}

/// Counts one second after the other.
pub(super) struct Count {
    second: Second,
    commits: Vec<u64>,
}

impl Count {
    pub(super) fn new(now_ms: i64, metrics: &Metrics) -> Self {
        Self { second: Second { at_ms: whole(now_ms), ..Second::default() }, commits: commits(metrics) }
    }

    pub(super) fn add(&mut self, severity: Severity, scored: bool) {
        self.second.verdicts += 1;
        self.second.scored += u64::from(scored);
        if let Some(at) = (severity as usize).checked_sub(1) {
            self.second.severities[at] += 1;
        }
    }

    /// The second before, once it is over.
    pub(super) fn turn(&mut self, now_ms: i64, metrics: &Metrics) -> Option<Second> {
        let now = whole(now_ms);
        if now == self.second.at_ms {
            return None;
        }
        let commits = commits(metrics);
        let these: Vec<u64> = commits.iter().zip(&self.commits).map(|(now, then)| now.saturating_sub(*then)).collect();
        self.commits = commits;
        let mut over = std::mem::replace(&mut self.second, Second { at_ms: now, ..Second::default() });
        over.commits = these.iter().sum();
        over.commit_p50_ms = quantile(&these, 0.5);
        over.commit_p99_ms = quantile(&these, 0.99);
        Some(over)
    }
}

fn whole(ms: i64) -> i64 {
    ms - ms.rem_euclid(1000)
}

fn commits(metrics: &Metrics) -> Vec<u64> {
    metrics.commit_buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect()
}

/// The value below which this share lies, in milliseconds: even within a bucket, the highest bound above all of them.
fn quantile(buckets: &[u64], share: f64) -> Option<f64> {
    let all: u64 = buckets.iter().sum();
    let wanted = share * all as f64;
    let mut below = 0.0;
    let mut from = 0.0;
    for (at, &count) in buckets.iter().enumerate() {
        let to = COMMIT_BUCKETS.get(at).copied().unwrap_or(from);
        let count = count as f64;
        if count > 0.0 && below + count >= wanted {
            return Some(1e3 * (from + (to - from) * (wanted - below) / count));
        }
        below += count;
        from = to;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut buckets = [0; COMMIT_BUCKETS.len() + 1];
        assert_eq!(quantile(&buckets, 0.5), None);
        buckets[1] = 10; // 1 to 2.5 ms
        assert_eq!(quantile(&buckets, 0.5), Some(1.75));
        buckets[COMMIT_BUCKETS.len()] = 1;
        assert_eq!(quantile(&buckets, 0.99), Some(5000.0), "above every bound the highest one is all that is known");
    }

    #[test]
    fn a_second_holds_what_came_in_it() {
        let metrics = Metrics::default();
        let mut count = Count::new(10_250, &metrics);
        count.add(Severity::None, true);
        count.add(Severity::Critical, true);
        count.add(Severity::None, false);
        assert_eq!(count.turn(10_999, &metrics), None);
        let over = count.turn(12_001, &metrics).expect("it is over");
        assert_eq!((over.at_ms, over.verdicts, over.scored, over.severities), (10_000, 3, 2, [0, 0, 0, 1]));
        assert_eq!(count.turn(13_000, &metrics).map(|next| (next.at_ms, next.verdicts)), Some((12_000, 0)));
    }
}
