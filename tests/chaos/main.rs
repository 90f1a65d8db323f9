//! Chaos: three instances as processes on a real Kafka under a continuous load, while they are killed, frozen, stopped, cut off and
//! lied to, and while everything that they write and answer is checked.
//!
//! | file | role |
//! |---|---|
//! | `schedule` | which fault comes when to whom: the same seed gives the same schedule |
//! | `arena` | the broker, the proxy, the instances, and what is done to them |
//! | `load` | payments, bad records and resets |
//! | `watch` | verdicts and dead letters as they are committed: doubled ones, and gaps |
//! | `queries` | profiles asked for all the time: positions never go back |
//! | `oracle` | what must have come of every record, folded by one thread from the topics |
//! | `report` | the table, and `target/chaos/*.json` |
//!
//! Variables: `MANGROVE_CHAOS_MINUTES` (4), `MANGROVE_CHAOS_RATE` (payments a second, 1000), `MANGROVE_CHAOS_FAULTS` (names of
//! faults, separated by commas; all), `MANGROVE_SEED` (from the clock, and printed). A standby count for the instances:
//! `MANGROVE_CHAOS_STANDBYS`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests of real time against a real broker, whose settings the environment names")]

mod arena;
#[path = "../common/mod.rs"]
mod common;
mod load;
mod oracle;
mod queries;
mod report;
mod schedule;
mod watch;

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arena::Arena;
use report::Report;
use schedule::{Kind, Schedule};

/// One run at a time: each needs the machine.
static ALONE: Mutex<()> = Mutex::new(());
/// At-least-once gets this part of the time.
const AT_LEAST_ONCE_PART: u32 = 4;

/// How a run is made.
struct Plan {
    exactly_once: bool,
    lasts: Duration,
    rate: u32,
    seed: u64,
    kinds: Vec<Kind>,
    standbys: u32,
}

fn number<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    match std::env::var(name) {
        Err(_) => otherwise,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
    }
}

impl Plan {
    /// As the environment has it; none, said loudly, where there is no Kafka to start.
    fn new(test: &str, exactly_once: bool) -> Option<Self> {
        // The other tests' broker is not used, but where there is none there is nothing to start one with.
        common::address(test)?;
        let minutes: f64 = number("MANGROVE_CHAOS_MINUTES", 4.0);
        let all = Duration::from_secs_f64(minutes * 60.0);
        let least = all / AT_LEAST_ONCE_PART;
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").subsec_nanos();
        let only = std::env::var("MANGROVE_CHAOS_FAULTS").unwrap_or_default();
        let wanted = |kind: &Kind| only.is_empty() || only.split(',').any(|name| name == kind.name());
        Some(Self {
            exactly_once,
            lasts: if exactly_once { all - least } else { least },
            rate: number("MANGROVE_CHAOS_RATE", 1_000),
            seed: number("MANGROVE_SEED", u64::from(clock)),
            kinds: Kind::all(exactly_once).into_iter().filter(wanted).collect(),
            standbys: number("MANGROVE_CHAOS_STANDBYS", 0),
        })
    }

    fn name(&self) -> &'static str {
        if self.exactly_once { "exactly_once" } else { "at_least_once" }
    }

    /// Runs the schedule until the time is over and each kind of fault has come, then checks everything.
    fn run(&self) {
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        println!("MANGROVE_SEED={} ({})", self.seed, self.name());
        let mut arena = Arena::build(self);
        let mut report = Report::new(self);
        arena.run(|arena, watch| {
            for (number, fault) in Schedule::new(self.seed, &self.kinds).enumerate() {
                // A round has each kind once.
                if report.begun.elapsed() >= self.lasts && number >= self.kinds.len() {
                    break;
                }
                let at = report.begun.elapsed();
                watch.fault(fault.kind);
                arena.inject(&fault);
                report.injected(fault.kind);
                let done = report.begun.elapsed();
                arena.recovered(watch);
                let [at, took, recovery] = [at, done - at, report.begun.elapsed() - done].map(|time| time.as_secs_f64());
                println!("{at:6.1} s: {fault}; took {took:.1} s, then verdicts of all partitions within {recovery:.1} s");
            }
        });
        let outcome = oracle::check(&arena, self.exactly_once);
        report.finish(&arena, &outcome);
        assert_eq!(outcome.faults, "", "seed {}", self.seed);
    }
}

#[test]
fn chaos_under_exactly_once_loses_and_doubles_nothing() {
    if let Some(plan) = Plan::new("exactly_once", true) {
        plan.run();
    }
}

#[test]
fn chaos_under_at_least_once_loses_nothing_and_repeats_only_the_same() {
    if let Some(plan) = Plan::new("at_least_once", false) {
        plan.run();
    }
}
