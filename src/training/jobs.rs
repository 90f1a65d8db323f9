//! Trainings as jobs: one at a time, a short queue, and what became of the last ones.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use models::TrainParams;
use models::validate::Report;
use schemars::JsonSchema;
use serde::Serialize;

use super::Span;

/// Jobs that wait; more are refused.
pub const QUEUE_MAX: usize = 4;
/// Jobs that are remembered once they have ended.
const KEPT_MAX: usize = 100;
/// How soon a stop is noticed.
const LOOK: Duration = Duration::from_millis(200);

/// Where rows come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The features that verdicts logged, from their topic.
    Verdicts,
    /// The same, from Postgres.
    Postgres,
    /// The same, from Postgres where that holds what the topic does, else from the topic.
    Logged,
    /// A CSV file, through the topology.
    Csv(PathBuf),
}

impl Source {
    /// Its name in a version's record.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Verdicts | Self::Logged => "verdicts",
            Self::Postgres => "postgres",
            Self::Csv(_) => "csv",
        }
    }
}

/// What becomes of the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    /// It is registered; someone promotes it.
    ByHand,
    /// It goes live where no check failed, and where no model is active: there is nothing that a failed check could keep.
    IfPassed,
    /// As [`Self::IfPassed`], but beside an active model it is in shadow for so many hours first.
    AfterShadow(u64),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Order {
    /// Where rows come from.
    pub source: Source,
    /// Which rows.
    pub span: Span,
    /// Trees.
    pub trees: usize,
    /// Rows of each tree.
    pub samples: usize,
    /// Seed.
    pub seed: u64,
    /// The share of the window taken to be anomalous.
    pub contamination: f64,
    /// What becomes of the candidate.
    pub promotion: Promotion,
    /// Why a model goes live, where it does.
    pub why: &'static str,
}

impl Order {
    /// How the forest is grown.
    #[must_use]
    pub fn params(&self) -> TrainParams {
        TrainParams { trees: self.trees, max_samples: self.samples, seed: self.seed }
    }
}

/// What a training came to.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Outcome {
    /// The candidate; it is registered.
    pub model: String,
    /// Rows read, held-out ones included.
    pub rows: u64,
    /// True where it went live.
    pub promoted: bool,
    /// True where it is in shadow first.
    pub shadow: bool,
    /// What was decided, and by which checks.
    pub why: String,
    /// Every check.
    pub report: Report,
}

/// Why there is no candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "why", rename_all = "snake_case")]
pub enum Ended {
    /// Too little to train on.
    Skipped(String),
    /// It failed.
    Failed(String),
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Phase {
    /// It waits for its turn.
    Queued,
    /// It runs.
    Running {
        /// `reading`, `growing` or `validating`.
        stage: &'static str,
        /// Rows read, or trees grown.
        done: u64,
        /// Of so many, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        of: Option<u64>,
    },
    /// There is a candidate.
    Done(Box<Outcome>),
    /// There is none: nothing was to be done.
    Skipped {
        /// Why.
        why: String,
    },
    /// There is none.
    Failed {
        /// Why.
        why: String,
    },
}

impl Phase {
    /// True once nothing more will happen.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !matches!(self, Self::Queued | Self::Running { .. })
    }
}

/// One job.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Job {
    /// Its id on this instance.
    pub job_id: String,
    /// When it was ordered, in milliseconds since the epoch.
    pub ordered_ms: i64,
    /// What is to be done.
    pub order: Order,
    /// How far it is.
    #[serde(flatten)]
    pub phase: Phase,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Told how far a job is: stage, done, of.
pub type Tell<'a> = dyn Fn(&'static str, u64, Option<u64>) + Sync + 'a;

#[derive(Default)]
struct Table {
    jobs: VecDeque<Job>,
    made: u64,
}

/// See the module's header. Clones share it.
#[derive(Clone, Default)]
pub struct Jobs(Arc<(Mutex<Table>, Condvar)>);

impl Jobs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job into the queue; its id.
    ///
    /// # Errors
    /// [`Full`].
    pub fn submit(&self, order: Order, now_ms: i64) -> Result<String, Full> {
        let mut table = self.table();
        if table.jobs.iter().filter(|job| job.phase == Phase::Queued).count() >= QUEUE_MAX {
            return Err(Full);
        }
        table.made += 1;
        let job_id = format!("{now_ms:x}-{:x}", table.made);
        while table.jobs.len() >= KEPT_MAX {
            let Some(oldest) = table.jobs.iter().position(|job| job.phase.has_ended()) else { break };
            table.jobs.remove(oldest);
        }
        table.jobs.push_back(Job { job_id: job_id.clone(), ordered_ms: now_ms, order, phase: Phase::Queued });
        self.0.1.notify_all();
        Ok(job_id)
    }

    /// A job by its id, while it is remembered.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Job> {
        self.table().jobs.iter().find(|job| job.job_id == id).cloned()
    }

    fn set(&self, id: &str, phase: Phase) {
        if let Some(job) = self.table().jobs.iter_mut().find(|job| job.job_id == id) {
            job.phase = phase;
        }
    }

    /// Does the queue's jobs in turn, by `work`, until `stopped`.
    pub fn run(&self, stopped: &dyn Fn() -> bool, work: &dyn Fn(&Order, &Tell<'_>) -> Result<Outcome, Ended>) {
        while !stopped() {
            let next = self.table().jobs.iter().find(|job| job.phase == Phase::Queued).cloned();
            let Some(job) = next else {
                drop(self.0.1.wait_timeout(self.table(), LOOK).unwrap_or_else(PoisonError::into_inner));
                continue;
            };
            let tell =
                |stage: &'static str, done: u64, of: Option<u64>| self.set(&job.job_id, Phase::Running { stage, done, of });
            tell("reading", 0, None);
            // A fault of ours in one training must not end the others.
            let work = std::panic::AssertUnwindSafe(|| work(&job.order, &tell));
            let phase = match std::panic::catch_unwind(work) {
                Ok(Ok(outcome)) => Phase::Done(Box::new(outcome)),
                Ok(Err(Ended::Skipped(why))) => Phase::Skipped { why },
                Ok(Err(Ended::Failed(why))) => Phase::Failed { why },
                Err(_) => Phase::Failed { why: "a fault in the program; the log has more".to_owned() },
            };
            self.set(&job.job_id, phase);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn order(seed: u64) -> Order {
        Order {
            source: Source::Verdicts,
            span: Span::All,
            trees: 10,
            samples: 64,
            seed,
            contamination: 0.01,
            promotion: Promotion::ByHand,
            why: "promoted",
        }
    }

    fn ended(jobs: &Jobs, id: &str) -> Phase {
        for _ in 0..6_000 {
            let phase = jobs.get(id).expect("remembered").phase;
            if phase.has_ended() {
                return phase;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("the job does not end");
    }

    #[test]
    fn one_at_a_time_in_order_and_the_queue_is_bounded() {
        let jobs = Jobs::default();
        let (began, beginnings) = sync_channel(16);
        let (go, going) = sync_channel::<()>(16);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let going = Mutex::new(going);
        std::thread::scope(|scope| {
            let work = |order: &Order, tell: &Tell<'_>| {
                tell("growing", order.seed, Some(10));
                began.send(order.seed).expect("the test listens");
                going.lock().expect("one at a time").recv().expect("the test lets it go");
                match order.seed {
                    2 => panic!("as the test asked"),
                    3 => Err(Ended::Skipped("too few".to_owned())),
                    seed => Err(Ended::Failed(format!("seed {seed}"))),
                }
            };
            let running = &jobs;
            let stop = &stop;
            scope.spawn(move || running.run(&|| stop.load(std::sync::atomic::Ordering::SeqCst), &work));
            let first = jobs.submit(order(1), 7).expect("room");
            assert_eq!(beginnings.recv().expect("it begins"), 1);
            assert_eq!(jobs.get(&first).expect("known").phase, Phase::Running { stage: "growing", done: 1, of: Some(10) });
            let queued: Vec<String> = (2..6).map(|seed| jobs.submit(order(seed), 7).expect("room")).collect();
            assert_eq!(jobs.submit(order(9), 7), Err(Full));
            assert_eq!(jobs.get(&queued[0]).expect("known").phase, Phase::Queued);
            assert!(beginnings.try_recv().is_err(), "one at a time");
            for _ in 0..5 {
                go.send(()).expect("it waits");
            }
            assert_eq!(ended(&jobs, &first), Phase::Failed { why: "seed 1".to_owned() });
            assert!(matches!(ended(&jobs, &queued[0]), Phase::Failed { why } if why.contains("fault")), "a panic ends one job");
            assert_eq!(ended(&jobs, &queued[1]), Phase::Skipped { why: "too few".to_owned() });
            assert_eq!(ended(&jobs, &queued[3]), Phase::Failed { why: "seed 5".to_owned() });
            assert_eq!(beginnings.try_iter().collect::<Vec<_>>(), [2, 3, 4, 5]);
            assert_eq!(jobs.get("nothing"), None);
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }
}
