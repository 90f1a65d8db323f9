//! Many seeds, on as many threads as there are cores, and what they came to.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::life::{Life, live};
use super::steps::Tally;

/// Steps of the trace that a failure shows.
const TAIL: usize = 60;

#[derive(Debug, Default)]
pub struct Report {
    pub seeds: u64,
    pub exactly_once: u64,
    pub calm: u64,
    pub records: u64,
    pub commits: u64,
    pub tally: Tally,
    /// Seeds and what was wrong, with the end of the trace.
    pub failures: Vec<(u64, String)>,
}

impl Report {
    fn add(&mut self, life: &Life) {
        self.seeds += 1;
        self.exactly_once += u64::from(life.exactly_once);
        self.calm += u64::from(!life.wild);
        self.records += life.records;
        self.commits += life.commits;
        self.tally.add(&life.tally);
        if let Some(what) = &life.failure {
            self.failures.push((life.seed, format!("{what}\n{}", life.trace.tail(TAIL))));
        }
    }

    pub fn summary(&self) -> String {
        let Self { seeds, exactly_once, calm, records, commits, .. } = self;
        let mut out = self.tally.table();
        let wild = seeds - exactly_once - calm;
        let _ = writeln!(
            out,
            "{seeds} seeds ({exactly_once} exactly_once; at_least_once: {calm} without zombies, {wild} with), {records} records, \
             {commits} commits, {} troubles, {} seeds failed",
            self.tally.total(),
            self.failures.len()
        );
        out
    }
}

/// Runs the seeds; after the first failure no new one begins where `stop` says so.
pub fn soak(seeds: Range<u64>, stop: bool) -> Report {
    let (next, failed, report) = (AtomicU64::new(seeds.start), AtomicBool::new(false), Mutex::new(Report::default()));
    let work = || {
        while !(stop && failed.load(Ordering::Relaxed)) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let life = live(seed);
            failed.fetch_or(life.failure.is_some(), Ordering::Relaxed);
            report.lock().unwrap_or_else(PoisonError::into_inner).add(&life);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.failures.sort();
    report
}
