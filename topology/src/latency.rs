//! Where the time of slow records goes: from a record's timestamp until the transaction ended that has what came of it.
//!
//! A worker notes when each poll came back and when each partition's part of it was processed, and which timestamps there were; the commit
//! splits each record's latency into [`Stage`]s and adds it to figures by latency, so that the means of the slowest are known without
//! keeping any record. What an abort voids is forgotten: its records are measured when they are processed again.
//!
//! The first stage rests on two machines' clocks: the timestamp is the producer's, and a record from the future has waited for nothing. What
//! the client library fetched while the worker was busy waited for the worker, not in the topic: of a record's age when it came, what lies
//! between the poll before and this one is the batch's or the commit's before it. A record of more than a day ago is history that somebody
//! wrote or replays, not late: it is counted, and in none of the figures, which it would make useless for those that are on time.
//!
//! Buckets are an eighth of a power of two wide, so "the slowest 0.1 %" are up to an eighth more. Constant memory, nothing for each record
//! beyond 16 bytes until its commit, where its timestamp is another than the record's before it.

use std::fmt;
use std::time::Duration;

/// A stage of a record's way, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// In the topic and on its way: the producer's, the broker's and the fetch's time.
    Topic,
    /// Fetched or waiting while the worker processed the batch before.
    BatchBefore,
    /// The same while the worker committed.
    CommitBefore,
    /// In its own batch, until its partition's turn; a transaction's begin with it.
    Batch,
    /// Its partition's part of the batch being processed.
    Process,
    /// Processed, until the commit began.
    Wait,
    /// Changed values being encoded and handed to the producer.
    Changes,
    /// What was written being acknowledged.
    Flush,
    /// Offsets being added to the transaction.
    Offsets,
    /// The transaction being ended (at-least-once: the offsets being committed).
    End,
}

const STAGES: usize = Stage::ALL.len();

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Topic,
        Self::BatchBefore,
        Self::CommitBefore,
        Self::Batch,
        Self::Process,
        Self::Wait,
        Self::Changes,
        Self::Flush,
        Self::Offsets,
        Self::End,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::BatchBefore => "batch_before",
            Self::CommitBefore => "commit_before",
            Self::Batch => "batch",
            Self::Process => "process",
            Self::Wait => "wait",
            Self::Changes => "changes",
            Self::Flush => "flush",
            Self::Offsets => "offsets",
            Self::End => "end",
        }
    }
}

/// Microseconds by stage.
type Split = [u64; STAGES];

/// Upper bounds of the histogram's buckets, in seconds.
pub const LATENCY_BUCKETS: [f64; 14] = [0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.2, 0.5, 1.0, 5.0, 60.0, 3_600.0];

/// A window of the recent figures: they are of one to two of them.
const WINDOW_US: u64 = 60_000_000;
/// Older records are history: a day.
const AGE_MAX_US: u64 = 86_400_000_000;
/// Buckets by power of two.
const PARTS: u64 = 8;
/// One for each of the first numbers, and [`PARTS`] for each power of two up to 2^38: three days, the age and the time with us.
const BUCKETS: usize = (PARTS + (38 - 3) * PARTS) as usize;
/// The slowest are one in so many.
const SLOWEST: u64 = 1_000;

fn bucket_of(micros: u64) -> usize {
    if micros < PARTS {
        return micros as usize;
    }
    let octave = micros.ilog2() - PARTS.ilog2();
    let bucket = u64::from(octave + 1) * PARTS + ((micros >> octave) & (PARTS - 1));
    (bucket as usize).min(BUCKETS - 1)
}

fn least_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS { bucket } else { (PARTS + bucket % PARTS) << (bucket / PARTS - 1) }
}

/// Records by latency, and how long each stage took them in all.
#[derive(Clone, Debug)]
struct Tally(Vec<(u64, Split)>);

impl Default for Tally {
    fn default() -> Self {
        Self(vec![(0, [0; STAGES]); BUCKETS])
    }
}

impl Tally {
    fn add(&mut self, micros: u64, split: &Split, records: u64) {
        let (count, sums) = &mut self.0[bucket_of(micros)];
        *count += records;
        sums.iter_mut().zip(split).for_each(|(sum, micros)| *sum += micros * records);
    }

    fn merge(&mut self, other: &Self) {
        for ((count, sums), (others, splits)) in self.0.iter_mut().zip(&other.0) {
            *count += others;
            sums.iter_mut().zip(splits).for_each(|(sum, micros)| *sum += micros);
        }
    }

    fn records(&self) -> u64 {
        self.0.iter().map(|(count, _)| count).sum()
    }

    /// The latency that all but one in `SLOWEST`, or another share, stay below, to within a bucket.
    fn quantile(&self, of: f64) -> Duration {
        let (mut passed, rank) = (0, self.records() as f64 * of);
        let reached = self.0.iter().position(|(count, _)| {
            passed += count;
            passed as f64 >= rank
        });
        Duration::from_micros(reached.map_or(0, least_of))
    }

    fn report(&self) -> Option<Slowest> {
        let of = self.records();
        let (mut records, mut sums, mut least) = (0, [0; STAGES], 0);
        for (bucket, (count, split)) in self.0.iter().enumerate().rev().filter(|(_, (count, _))| *count > 0) {
            if records >= of.div_ceil(SLOWEST) {
                break;
            }
            records += count;
            least = least_of(bucket);
            sums.iter_mut().zip(split).for_each(|(sum, micros)| *sum += micros);
        }
        let mean = |at: usize| Duration::from_micros(sums[at] / records);
        (records > 0).then(|| Slowest {
            records,
            of,
            least: Duration::from_micros(least),
            p50: self.quantile(0.5),
            p99: self.quantile(0.99),
            stages: std::array::from_fn(|at| (Stage::ALL[at], mean(at))),
        })
    }
}

/// The slowest 0.1 % of records, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowest {
    /// How many they are.
    pub records: u64,
    /// Of how many.
    pub of: u64,
    /// The least latency among them, to within an eighth.
    pub least: Duration,
    /// Of all records: half took less, to within an eighth.
    pub p50: Duration,
    /// The same of 99 %.
    pub p99: Duration,
    /// By stage, what it took them on average.
    pub stages: [(Stage, Duration); STAGES],
}

/// One line for a person: what most records took, and where the time of the slowest went, from the stage that took most of it down.
impl fmt::Display for Slowest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |of: Duration| of.as_secs_f64() * 1e3;
        write!(
            f,
            "p50 {:.1} ms, p99 {:.1} ms; {} of {} took {:.1} ms or more:",
            ms(self.p50),
            ms(self.p99),
            self.records,
            self.of,
            ms(self.least)
        )?;
        let mut stages = self.stages;
        stages.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        stages
            .iter()
            .filter(|(_, took)| !took.is_zero())
            .try_for_each(|(stage, took)| write!(f, " {} {:.1},", stage.as_str(), ms(*took)))?;
        f.write_str(" in ms on average")
    }
}

/// Latencies of all workers of an instance.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [u64; LATENCY_BUCKETS.len() + 1],
    micros: u64,
    all: Tally,
    now: Tally,
    before: Tally,
    since_us: u64,
    historical: u64,
}

impl Latency {
    /// Windows end by the time of those who add to them.
    fn turn(&mut self, now_us: u64) {
        let windows = now_us.saturating_sub(self.since_us) / WINDOW_US;
        if windows > 0 {
            std::mem::swap(&mut self.now, &mut self.before);
            self.now.0.fill((0, [0; STAGES]));
            if windows > 1 {
                self.before.0.fill((0, [0; STAGES]));
            }
            self.since_us = now_us;
        }
    }

    fn add(&mut self, split: &Split, records: u64) {
        let micros = split.iter().sum();
        self.micros += micros * records;
        let seconds = micros as f64 / 1e6;
        self.buckets[LATENCY_BUCKETS.partition_point(|&bound| bound < seconds)] += records;
        self.all.add(micros, split, records);
        self.now.add(micros, split, records);
    }

    /// Records by the bucket of [`LATENCY_BUCKETS`] they fall in (the last one is above all bounds), and microseconds in all.
    #[must_use]
    pub fn histogram(&self) -> (&[u64], u64) {
        (&self.buckets, self.micros)
    }

    /// Records that were more than a day old when they came; no other figure has them.
    #[must_use]
    pub fn historical(&self) -> u64 {
        self.historical
    }

    /// The slowest of the last one to two minutes with records; none with no record.
    #[must_use]
    pub fn recent(&self) -> Option<Slowest> {
        let mut both = self.before.clone();
        both.merge(&self.now);
        both.report()
    }

    /// The slowest since the start.
    #[must_use]
    pub fn all(&self) -> Option<Slowest> {
        self.all.report()
    }
}

/// Moments on the monotonic clock, in microseconds: a span from one to another.
#[derive(Clone, Copy, Debug, Default)]
struct Span(u64, u64);

impl Span {
    fn micros(self) -> u64 {
        self.1.saturating_sub(self.0)
    }
}

/// A poll that brought records.
#[derive(Clone, Copy, Debug)]
struct Poll {
    came_ms: i64,
    came_us: u64,
    /// Between the poll before and this one.
    busy: Span,
    /// The last commit before it.
    commit: Span,
}

/// A partition's part of a poll.
#[derive(Clone, Copy, Debug)]
struct Part {
    poll: usize,
    processed: Span,
}

/// Neighbours of one part with the same timestamp.
#[derive(Clone, Copy, Debug)]
struct Run {
    timestamp_ms: i64,
    part: u32,
    records: u32,
}

/// When the steps of a commit were done, in microseconds: begun, changes sent, flushed, offsets added, ended.
pub(crate) type Steps = [u64; 5];

/// What a worker notes between commits.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    polls: Vec<Poll>,
    parts: Vec<Part>,
    runs: Vec<Run>,
    last_came_us: u64,
    last_was_empty: bool,
    last_commit: Span,
}

impl Journal {
    /// A poll that was begun at `asked_us` came back, with records or without.
    pub(crate) fn polled(&mut self, asked_us: u64, came_us: u64, came_ms: i64, is_empty: bool) {
        if !is_empty {
            // After a poll without records a commit is all that the worker was busy with.
            let since_us = match self.last_was_empty {
                false => self.last_came_us,
                true if self.last_commit.1 > self.last_came_us => self.last_commit.0,
                true => asked_us,
            };
            self.polls.push(Poll { came_ms, came_us, busy: Span(since_us, asked_us), commit: self.last_commit });
        }
        self.last_came_us = came_us;
        self.last_was_empty = is_empty;
    }

    /// A part of the last poll was processed: the records with these timestamps.
    pub(crate) fn processed(&mut self, from_us: u64, to_us: u64, timestamps_ms: impl Iterator<Item = i64>) {
        let Some(poll) = self.polls.len().checked_sub(1) else { return };
        let part = self.parts.len() as u32;
        self.parts.push(Part { poll, processed: Span(from_us, to_us) });
        for timestamp_ms in timestamps_ms {
            match self.runs.last_mut() {
                Some(run) if (run.part, run.timestamp_ms) == (part, timestamp_ms) => run.records += 1,
                _ => self.runs.push(Run { timestamp_ms, part, records: 1 }),
            }
        }
    }

    /// What was processed is committed.
    pub(crate) fn committed(&mut self, steps: &Steps, latency: &mut Latency) {
        latency.turn(steps[4]);
        for run in &self.runs {
            let (part, records) = (&self.parts[run.part as usize], u64::from(run.records));
            match split(run.timestamp_ms, &self.polls[part.poll], part.processed, steps) {
                Some(split) => latency.add(&split, records),
                None => latency.historical += records,
            }
        }
        self.last_commit = Span(steps[0], steps[4]);
        self.forget();
    }

    /// What was processed is void.
    pub(crate) fn forget(&mut self) {
        self.polls.clear();
        self.parts.clear();
        self.runs.clear();
    }
}

/// None of a record that is history.
fn split(timestamp_ms: i64, poll: &Poll, processed: Span, steps: &Steps) -> Option<Split> {
    let age_ms = poll.came_ms.saturating_sub(timestamp_ms).max(0).unsigned_abs();
    let age_us = age_ms.saturating_mul(1_000);
    if age_us > AGE_MAX_US {
        return None;
    }
    let since_us = poll.came_us.saturating_sub(age_us);
    let behind = Span(poll.busy.0.max(since_us), poll.busy.1).micros().min(age_us);
    let commit = Span(poll.commit.0.max(poll.busy.0).max(since_us), poll.commit.1.min(poll.busy.1)).micros().min(behind);
    let between = |from: usize| Span(steps[from], steps[from + 1]).micros();
    Some([
        age_us - behind,
        behind - commit,
        commit,
        Span(poll.came_us, processed.0).micros(),
        processed.micros(),
        Span(processed.1, steps[0]).micros(),
        between(0),
        between(1),
        between(2),
        between(3),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_an_eighth_wide_and_in_order() {
        let mut before = 0;
        for micros in
            (0..10_000).chain((14..37).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + (1 << (power - 2))]))
        {
            let bucket = bucket_of(micros);
            assert!(bucket >= before, "{micros}");
            before = bucket;
            let least = least_of(bucket);
            assert!(least <= micros && micros - least <= micros / 8, "{micros} is in the bucket from {least}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_slowest_are_one_in_a_thousand_and_told_apart() {
        let mut latency = Latency::default();
        let at = |stage: Stage, micros: u64| {
            let mut split = [0; STAGES];
            split[stage as usize] = micros;
            split
        };
        latency.add(&at(Stage::Process, 1_000), 9_990);
        latency.add(&at(Stage::End, 80_000), 10);
        let slowest = latency.recent().expect("records were added");
        assert_eq!((slowest.records, slowest.of), (10, 10_000));
        assert_eq!(slowest.stages[Stage::End as usize], (Stage::End, Duration::from_millis(80)));
        assert_eq!(slowest.stages[Stage::Process as usize].1, Duration::ZERO, "the others are not among them");
        assert!(slowest.p50 <= Duration::from_millis(1) && slowest.p99 <= Duration::from_millis(1), "{slowest:?}");
        assert!(slowest.least > Duration::from_millis(70), "{slowest:?}");
        assert_eq!(slowest.to_string(), "p50 1.0 ms, p99 1.0 ms; 10 of 10000 took 73.7 ms or more: end 80.0, in ms on average");
    }

    #[test]
    fn recent_figures_forget_what_is_older_than_two_windows() {
        let mut latency = Latency::default();
        latency.turn(WINDOW_US);
        latency.add(&[5; STAGES], 3);
        latency.turn(2 * WINDOW_US);
        assert_eq!(latency.recent().map(|slowest| slowest.of), Some(3), "the window before counts");
        latency.add(&[5; STAGES], 4);
        assert_eq!(latency.recent().map(|slowest| slowest.of), Some(7));
        latency.turn(3 * WINDOW_US);
        assert_eq!(latency.recent().map(|slowest| slowest.of), Some(4));
        latency.turn(9 * WINDOW_US);
        assert_eq!(latency.recent(), None);
        assert_eq!(latency.all().map(|slowest| slowest.of), Some(7));
        assert_eq!(latency.histogram().0.iter().sum::<u64>(), 7);
    }

    #[test]
    fn history_is_counted_and_makes_nobody_late() {
        let (mut latency, mut journal) = (Latency::default(), Journal::default());
        let now_ms = 1_800_000_000_000;
        let day_ms = 86_400_000;
        let mut process = |timestamps_ms: &[i64]| {
            journal.polled(0, 1_000, now_ms, false);
            journal.processed(1_000, 2_000, timestamps_ms.iter().copied());
            journal.committed(&[2_000, 2_500, 3_000, 3_500, 4_000], &mut latency);
            (latency.historical(), latency.all().map(|slowest| (slowest.of, slowest.least)))
        };
        assert_eq!(process(&[now_ms - 12 * day_ms, now_ms - day_ms - 1, i64::MIN]), (3, None));
        let (historical, of) = process(&[now_ms, now_ms + 5, now_ms - 2 * day_ms]);
        assert_eq!(historical, 4);
        let (of, least) = of.expect("two are on time");
        assert!(of == 2 && least < Duration::from_millis(4), "{of}, {least:?}");
        let (historical, of) = process(&[now_ms - day_ms]);
        assert_eq!((historical, of.map(|(of, _)| of)), (4, Some(3)), "a day late is late");
    }
}
