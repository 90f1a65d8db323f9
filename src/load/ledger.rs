//! What was sent and what became of it: each payment is to come back once, as a verdict or a dead letter.
//!
//! Payments are told apart by the number at the end of their transaction id. Only those that have not come back are remembered, with
//! the time each was meant to be sent; one that comes back and is not awaited any more is a duplicate. So memory goes by what is under
//! way, which whoever sends keeps bounded, and not by how long it goes on.

use std::collections::HashMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::report::{Found, Latency};
use crate::generator::Anomaly;

/// The longest time told apart, in microseconds: a day. Longer ones count as this.
const LONGEST_US: u64 = 86_400_000_000;
/// Digits of a time that are kept.
const DIGITS: u8 = 3;

/// A payment that is to come back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// When it was meant to be sent.
    pub(super) due: Duration,
    pub(super) label: Option<Anomaly>,
    pub(super) poison: bool,
    /// It is not known whether it was taken.
    pub(super) doubtful: bool,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A verdict, and whether it is an anomaly.
    Verdict(bool),
    /// It was put aside.
    DeadLetter,
    /// Whoever took it did not accept it.
    Refused,
}

/// Counts of what came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) poison: u64,
    pub(super) verdicts: u64,
    pub(super) dead_letters: u64,
    pub(super) refused: u64,
    pub(super) duplicates: u64,
    /// Payments that were refused though they are sound.
    pub(super) unexpected: u64,
    /// Broken records that got a verdict.
    pub(super) poison_scored: u64,
    pub(super) late: u64,
    pub(super) out_of_order: u64,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Ledger {
    prefix: String,
    pending: HashMap<u64, Sent>,
    /// One past the largest number sent.
    next: u64,
    times: Histogram<u64>,
    found: [(u64, u64); Anomaly::ALL.len()],
    pub(super) tally: Tally,
    /// When the last one came back.
    pub(super) last: Duration,
}

impl Ledger {
    /// For transaction ids that begin so.
    pub(super) fn new(prefix: String) -> Self {
        let times = Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("invariant: the bounds are sound");
        let (tally, last) = (Tally::default(), Duration::ZERO);
        Self { prefix, pending: HashMap::new(), next: 0, times, found: Default::default(), tally, last }
    }

    /// A payment is about to be sent.
    pub(super) fn send(&mut self, number: u64, sent: Sent) {
        self.tally.sent += 1;
        self.tally.poison += u64::from(sent.poison);
        if let Some(label) = sent.label {
            self.found[label as usize].0 += 1;
        }
        self.next = self.next.max(number + 1);
        self.pending.insert(number, sent);
    }

    /// Something came back under this transaction id; others' are passed over.
    pub(super) fn returned(&mut self, tx_id: &str, fate: Fate, now: Duration) {
        let Some(number) = tx_id.strip_prefix(&*self.prefix).and_then(|number| number.parse::<u64>().ok()) else { return };
        if number >= self.next {
            return; // Of another run under the same name.
        }
        self.last = now;
        let Some(sent) = self.pending.remove(&number) else {
            self.tally.duplicates += 1;
            return;
        };
        match fate {
            Fate::Verdict(anomaly) => {
                self.tally.verdicts += 1;
                self.tally.poison_scored += u64::from(sent.poison);
                let micros = u64::try_from(now.saturating_sub(sent.due).as_micros()).unwrap_or(LONGEST_US);
                self.times.saturating_record(micros.max(1));
                if let Some(label) = sent.label {
                    self.found[label as usize].1 += u64::from(anomaly);
                }
            }
            Fate::DeadLetter | Fate::Refused => {
                let count = if fate == Fate::Refused { &mut self.tally.refused } else { &mut self.tally.dead_letters };
                *count += 1;
                self.tally.unexpected += u64::from(!sent.poison);
            }
        }
    }

    /// It is not known whether it was taken: it may come back, and is not lost if it does not.
    pub(super) fn doubt(&mut self, number: u64) {
        if let Some(sent) = self.pending.get_mut(&number) {
            sent.doubtful = true;
        }
    }

    /// How many did not come back: those that were taken, and those of which that is not known.
    pub(super) fn missing(&self) -> (u64, u64) {
        let doubtful = self.pending.values().filter(|sent| sent.doubtful).count() as u64;
        (self.pending() - doubtful, doubtful)
    }

    /// It is not awaited.
    pub(super) fn forget(&mut self, number: u64) {
        self.pending.remove(&number);
    }

    /// How many are to come back.
    pub(super) fn pending(&self) -> u64 {
        self.pending.len() as u64
    }

    /// The times from when each was meant to be sent to its verdict; none where there is none yet.
    pub(super) fn latency(&self) -> Option<Latency> {
        let ms = |micros: u64| micros as f64 / 1e3;
        let at = |quantile: f64| ms(self.times.value_at_quantile(quantile));
        (!self.times.is_empty()).then(|| Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(self.times.max()),
            mean: self.times.mean() / 1e3,
        })
    }

    /// Of each kind of anomaly how many were sent, and how many of them were found.
    pub(super) fn found(&self) -> Vec<Found> {
        let kinds = Anomaly::ALL.into_iter().zip(self.found).filter(|(_, (sent, _))| *sent > 0);
        kinds.map(|(kind, (sent, flagged))| Found { kind: kind.name(), sent, flagged }).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sound(due_ms: u64) -> Sent {
        Sent { due: Duration::from_millis(due_ms), label: None, poison: false, doubtful: false }
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn each_comes_back_once_and_others_are_passed_over() {
        let mut ledger = Ledger::new("r-".into());
        ledger.send(0, sound(0));
        ledger.send(1, Sent { poison: true, ..sound(1) });
        ledger.send(2, Sent { label: Some(Anomaly::CardTest), ..sound(2) });
        ledger.send(3, sound(3));
        for id in ["x-0", "r-9", "r-", "r-1x", "0"] {
            ledger.returned(id, Fate::Verdict(false), ms(5));
        }
        assert_eq!((ledger.pending(), ledger.tally.verdicts), (4, 0), "none of these is one of ours");
        ledger.returned("r-0", Fate::Verdict(false), ms(5));
        ledger.returned("r-1", Fate::DeadLetter, ms(5));
        ledger.returned("r-2", Fate::Verdict(true), ms(5));
        ledger.returned("r-0", Fate::Verdict(false), ms(6));
        ledger.returned("r-1", Fate::Verdict(false), ms(6));
        let Tally { sent, verdicts, dead_letters, duplicates, unexpected, .. } = ledger.tally;
        assert_eq!((sent, verdicts, dead_letters, duplicates, unexpected, ledger.pending()), (4, 2, 1, 2, 0, 1));
        assert_eq!(ledger.found(), [Found { kind: "card_test", sent: 1, flagged: 1 }]);
        ledger.returned("r-3", Fate::DeadLetter, ms(6));
        assert_eq!((ledger.tally.unexpected, ledger.pending()), (1, 0), "a sound payment in the dead letters");
    }

    /// A service that stands still for a second answers all that came meanwhile at once. Who sends one by one sees one slow answer;
    /// counted from when each was due, all that waited were slow.
    #[test]
    fn what_waited_behind_a_stall_counts_as_slow() {
        let mut ledger = Ledger::new(String::new());
        for number in 0..1_000 {
            ledger.send(number, sound(number * 10));
            let stalled = (5_000..6_000).contains(&(number * 10));
            ledger.returned(&number.to_string(), Fate::Verdict(false), ms(if stalled { 6_001 } else { number * 10 + 1 }));
        }
        let latency = ledger.latency().unwrap();
        assert!(latency.p50 < 1.1, "{latency:?}");
        assert!((900.0..1_002.0).contains(&latency.p99), "a tenth of the time stood still: {latency:?}");
        assert!((latency.max - 1_001.0).abs() < 2.0, "{latency:?}");
    }

    proptest! {
        #[test]
        fn whatever_comes_back_adds_up(fates in proptest::collection::vec((0u64..60, 0u8..3), 0..200)) {
            let mut ledger = Ledger::new("p".into());
            (0..50).for_each(|number| ledger.send(number, sound(number)));
            for (number, fate) in &fates {
                let fate = [Fate::Verdict(true), Fate::DeadLetter, Fate::Refused][usize::from(*fate)];
                ledger.returned(&format!("p{number}"), fate, ms(100));
            }
            let tally = ledger.tally;
            prop_assert_eq!(tally.verdicts + tally.dead_letters + tally.refused + ledger.pending(), 50);
            let ours = fates.iter().filter(|(number, _)| *number < 50).count() as u64;
            prop_assert_eq!(tally.duplicates + 50 - ledger.pending(), ours);
        }
    }
}
