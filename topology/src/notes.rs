//! What a processor counts and times by name, until a commit makes it known.
//!
//! A task gathers its own notes, and shared figures are touched once a commit. What an abort voids is forgotten with the rest, so a
//! count is that of committed records. Limit: names are the program's own; [`NAMES_MAX`] of them, and all others as one.

use std::collections::BTreeMap;

use crate::clock::Clock;
use crate::metrics::{Metrics, Times};

/// Names of one family that are told apart.
const NAMES_MAX: usize = 64;
/// Stands for all beyond.
const OTHERS: &str = "other";

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    counts: BTreeMap<&'static str, BTreeMap<String, u64>>,
    times: BTreeMap<&'static str, Times>,
    lap_began_us: u64,
}

impl Notes {
    pub(crate) fn count(&mut self, family: &'static str, name: &str, by: u64) {
        let names = self.counts.entry(family).or_default();
        let is_room = names.len() < NAMES_MAX;
        match names.get_mut(name) {
            Some(count) => *count += by,
            None if is_room => drop(names.insert(name.to_owned(), by)),
            None => *names.entry(OTHERS.to_owned()).or_default() += by,
        }
    }

    /// A batch begins.
    pub(crate) fn begin(&mut self, clock: &dyn Clock) {
        self.lap_began_us = clock.monotonic_us();
    }

    /// A stage of the batch ends, and the next one begins.
    pub(crate) fn lap(&mut self, stage: &'static str, clock: &dyn Clock) {
        let now_us = clock.monotonic_us();
        self.times.entry(stage).or_default().add(now_us.saturating_sub(self.lap_began_us));
        self.lap_began_us = now_us;
    }

    /// Adds what was noted to the shared figures, and forgets it.
    pub(crate) fn publish(&mut self, metrics: &Metrics) {
        if !self.counts.is_empty() || !self.times.is_empty() {
            metrics.note(&self.counts, &self.times);
            self.forget();
        }
    }

    /// What was noted is void.
    pub(crate) fn forget(&mut self) {
        self.counts.clear();
        self.times.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MockClock;

    #[test]
    fn counts_and_times_are_known_once_they_are_published() {
        let (mut notes, metrics, clock) = (Notes::default(), Metrics::default(), MockClock::at(1_000));
        notes.count("colour", "red", 2);
        notes.count("colour", "red", 3);
        notes.begin(&clock);
        clock.advance(20);
        notes.lap("mix", &clock);
        assert_eq!(metrics.counted("colour"), BTreeMap::new());
        notes.publish(&metrics);
        notes.publish(&metrics);
        assert_eq!(metrics.counted("colour"), BTreeMap::from([("red".to_owned(), 5)]));
        let mix = metrics.stages()["mix"];
        assert_eq!((mix.micros, mix.buckets.iter().sum::<u64>()), (20_000, 1));
        notes.count("colour", "red", 1);
        notes.forget();
        notes.publish(&metrics);
        assert_eq!(metrics.counted("colour")["red"], 5, "what is void is not counted");
    }

    #[test]
    fn names_are_bounded() {
        let (mut notes, metrics) = (Notes::default(), Metrics::default());
        (0..1_000).for_each(|name| notes.count("colour", &name.to_string(), 1));
        notes.publish(&metrics);
        let counted = metrics.counted("colour");
        assert_eq!((counted.len(), counted[OTHERS]), (NAMES_MAX + 1, 1_000 - NAMES_MAX as u64));
    }
}
