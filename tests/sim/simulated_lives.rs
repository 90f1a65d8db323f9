//! Runs the simulation: `SEEDS=n` that many seeds, `SEED=n` one of them, told step by step.

use std::io::Write as _;

use crate::simulation::life::live;
use crate::simulation::soak::soak;

/// Seeds of a run that nobody asked more of; `make test` and `make sim` do.
const SEEDS: u64 = 300;
/// From so many on, every pair of step and trouble must have been.
const SEEDS_FOR_ALL: u64 = 2_000;

#[expect(clippy::disallowed_methods, reason = "the way to ask for a seed by hand")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().expect("a number"))
}

/// Past the test harness, which keeps what a test prints to itself.
fn print(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).expect("standard error is open");
}

#[test]
fn simulated_lives_keep_every_promise() {
    if let Some(seed) = number("SEED") {
        let life = live(seed);
        print(&life.trace.tail(usize::MAX));
        assert_eq!(life.failure, None, "seed {seed}");
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let report = soak(0..seeds, false);
    for (seed, what) in report.failures.iter().take(3) {
        print(&format!("\nseed {seed} (make sim SEED={seed} repeats it): {what}"));
    }
    print(&format!("\n{}", report.summary()));
    let failed: Vec<u64> = report.failures.iter().map(|(seed, _)| *seed).collect();
    assert!(failed.is_empty(), "seeds {failed:?} failed");
    let untried = report.tally.untried();
    assert!(seeds < SEEDS_FOR_ALL || untried.is_empty(), "never tried: {untried:?}");
}

#[test]
fn a_seed_repeats_itself_step_by_step() {
    for seed in [1, 3, 6] {
        let (first, second) = (live(seed), live(seed));
        assert!(first.trace == second.trace, "seed {seed} went another way the second time");
        assert_eq!((first.tally, first.commits), (second.tally, second.commits));
    }
}

/// Seeds that found a bug which has no test of its own elsewhere, or a rare one.
#[test]
fn seeds_that_once_failed_pass() {
    // Late offsets behind an erasure; a store that cannot be opened while another's restore fails.
    for seed in [1_128, 1_434] {
        assert_eq!(live(seed).failure, None, "seed {seed}");
    }
}
