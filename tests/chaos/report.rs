//! What a run did, as a table and as JSON.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use serde_json::json;

use crate::Plan;
use crate::arena::{Arena, folder};
use crate::oracle::Outcome;
use crate::schedule::Kind;

pub struct Report {
    pub begun: Instant,
    name: &'static str,
    seed: u64,
    rate: u32,
    standbys: u32,
    injected: BTreeMap<Kind, u64>,
}

impl Report {
    pub fn new(plan: &Plan) -> Self {
        let Plan { seed, rate, standbys, ref kinds, .. } = *plan;
        let injected = kinds.iter().map(|&kind| (kind, 0)).collect();
        Self { begun: Instant::now(), name: plan.name(), seed, rate, standbys, injected }
    }

    /// A fault was injected, whole.
    pub fn injected(&mut self, kind: Kind) {
        *self.injected.entry(kind).or_default() += 1;
    }

    /// Prints and keeps the figures; a kind of fault that did not come fails.
    pub fn finish(&self, arena: &Arena, outcome: &Outcome) {
        let seconds = self.begun.elapsed().as_secs();
        let longest = arena.watch.longest();
        let gap_ms = |kind| longest.get(&Some(kind)).map_or(0, |gap| gap.as_millis() as u64);
        println!("{:<14} {:>8}  {:>26}", "fault", "injected", "longest without verdicts");
        for (&kind, count) in &self.injected {
            println!("{:<14} {count:>8}  {:>23} ms", kind.name(), gap_ms(kind));
        }
        let came = arena.watch.outcomes.lock().unwrap();
        let (refused, unanswered) = (arena.queries.refused.load(Relaxed), arena.queries.unanswered.load(Relaxed));
        let lines = [
            ("seconds", seconds),
            ("records in", outcome.records),
            ("verdicts", came.verdicts),
            ("dead letters", came.dead),
            ("lost", outcome.lost),
            (if self.name == "exactly_once" { "doubled" } else { "repeated" }, outcome.doubled),
            ("different", outcome.different),
            ("commands decided", outcome.decisions),
            ("profiles compared", outcome.profiles),
            ("queries answered and compared", outcome.queries),
            ("queries refused", refused),
            ("queries without an answer", unanswered),
            ("answers of before a sleep", arena.queries.slept.load(Relaxed)),
        ];
        for (what, count) in lines {
            println!("{what:<30} {count:>10}");
        }
        let faults: BTreeMap<&str, serde_json::Value> = self
            .injected
            .iter()
            .map(|(&kind, count)| (kind.name(), json!({"injected": count, "longest_gap_ms": gap_ms(kind)})))
            .collect();
        let counts: BTreeMap<&str, u64> = lines.into_iter().collect();
        let report = json!({
            "guarantee": self.name, "seed": self.seed, "rate": self.rate, "standbys": self.standbys, "faults": faults,
            "counts": counts, "wrong": outcome.faults,
        });
        let path = folder().join(format!("{}.json", self.name));
        std::fs::write(&path, format!("{report:#}\n")).expect("the report");
        println!("report: {}", path.display());
        let missing: Vec<&str> = self.injected.iter().filter(|(_, count)| **count == 0).map(|(kind, _)| kind.name()).collect();
        assert_eq!(missing, [""; 0], "faults that did not come");
        assert!(outcome.queries > 0, "no query was answered");
    }
}
