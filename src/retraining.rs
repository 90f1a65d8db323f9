//! The daily retrain: when it is due, who does it, and what becomes of it.
//!
//! Every instance has the schedule; the one that holds partition 0 of the payments acts. It first writes into the models topic that it
//! has begun, with the time that was due, and an instance that takes partition 0 over meanwhile reads there that it is done. A request
//! (`POST /v1/retrain/trigger`) goes through the same topic, so it may be made anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use croner::Cron;
use schemars::JsonSchema;
use serde::Serialize;
use topology::clock::Clock;
use tracing::{info, warn};

use crate::registry::{LastRetrain, Registry, RegistryError, Retrained};
use crate::schedule;
use crate::training::jobs::{Job, Jobs, Order, Phase};

/// How soon something due is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// A time that passed while nobody held partition 0 is made up for until then.
const LATE_MS: i64 = 600_000;
/// No time is due.
const NONE: i64 = i64::MIN;

/// What the status route shows.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Status {
    /// The schedule, in UTC; none where it is off here.
    pub schedule: Option<String>,
    /// When it is due next, in milliseconds since the epoch.
    pub next_run_ms: Option<i64>,
    /// True where this instance would do it.
    pub here: bool,
    /// The id of a request that nothing has answered yet.
    pub requested: Option<String>,
    /// The last one, wherever it ran.
    pub last: Option<LastRetrain>,
}

struct Inner {
    registry: Registry,
    jobs: Jobs,
    clock: Arc<dyn Clock>,
    cron: Option<Cron>,
    order: Order,
    owns: Box<dyn Fn() -> bool + Send + Sync>,
    due_ms: AtomicI64,
}

/// See the module's header. Clones share it.
#[derive(Clone)]
pub struct Retraining(Arc<Inner>);

impl Retraining {
    /// `cron` is none where this instance has no schedule; `owns` tells whether it holds partition 0 of the payments.
    #[must_use]
    pub fn new(
        registry: Registry,
        jobs: Jobs,
        clock: Arc<dyn Clock>,
        cron: Option<Cron>,
        order: Order,
        owns: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner { registry, jobs, clock, cron, order, owns: Box::new(owns), due_ms: AtomicI64::new(NONE) }))
    }

    /// The schedule says that it is time.
    pub fn due(&self) {
        // The second that the schedule names, the same on every instance, however late each was told.
        let now_ms = self.0.clock.now_ms();
        self.0.due_ms.store(now_ms - now_ms.rem_euclid(1_000), Ordering::SeqCst);
    }

    /// The share of a window that is taken to be anomalous.
    #[must_use]
    pub fn contamination(&self) -> f64 {
        self.0.order.contamination
    }

    /// How things are.
    #[must_use]
    pub fn status(&self) -> Status {
        let inner = &self.0;
        let (request, last) = inner.registry.retrains();
        Status {
            schedule: inner.cron.as_ref().map(|cron| cron.as_str().to_owned()),
            next_run_ms: inner.cron.as_ref().and_then(|cron| schedule::next(cron, inner.clock.now_ms())),
            here: self.acts(),
            requested: request.map(|request| request.id),
            last,
        }
    }

    fn acts(&self) -> bool {
        self.0.cron.is_some() && (self.0.owns)()
    }

    /// Does what is due until `stopped`.
    pub fn run(&self, stopped: &dyn Fn() -> bool) {
        while !stopped() {
            if let Err(why) = self.step(stopped) {
                warn!(%why, "the retraining could not be written down; trying again");
            }
            std::thread::park_timeout(LOOK);
        }
    }

    fn step(&self, stopped: &dyn Fn() -> bool) -> Result<(), RegistryError> {
        let inner = &self.0;
        let now_ms = inner.clock.now_ms();
        let (request, last) = inner.registry.retrains();
        let due_ms = Some(inner.due_ms.load(Ordering::SeqCst)).filter(|&due_ms| due_ms != NONE);
        let begun = last.map(|last| last.began_ms);
        // Done already, here or elsewhere, or too long ago.
        let due_ms = due_ms.filter(|&due_ms| begun.is_none_or(|begun| begun < due_ms) && now_ms - due_ms < LATE_MS);
        let request = request.map(|request| request.id);
        if due_ms.is_none() {
            inner.due_ms.store(NONE, Ordering::SeqCst);
        }
        if (due_ms.is_none() && request.is_none()) || !self.acts() {
            return Ok(());
        }
        let Ok(job) = inner.jobs.submit(inner.order.clone(), now_ms) else { return Ok(()) };
        inner.due_ms.store(NONE, Ordering::SeqCst);
        let instance = inner.registry.instance().to_owned();
        let why = if request.is_some() { "asked for" } else { "scheduled" };
        let began = LastRetrain {
            due_ms,
            request,
            began_ms: now_ms,
            ended_ms: None,
            outcome: Retrained::Running,
            why: why.to_owned(),
            model: None,
            instance,
        };
        info!(job, why, "retraining begins");
        inner.registry.report_retrain(began.clone())?;
        let Some(job) = self.ended(&job, stopped) else { return Ok(()) };
        let last = self.outcome(began, job);
        info!(outcome = ?last.outcome, why = last.why, model = last.model, "retraining has ended");
        inner.registry.report_retrain(last)
    }

    fn ended(&self, id: &str, stopped: &dyn Fn() -> bool) -> Option<Job> {
        while !stopped() {
            let job = self.0.jobs.get(id)?;
            if job.phase.has_ended() {
                return Some(job);
            }
            std::thread::park_timeout(LOOK);
        }
        None
    }

    fn outcome(&self, began: LastRetrain, job: Job) -> LastRetrain {
        let (outcome, why, model) = match job.phase {
            Phase::Done(done) if done.promoted => (Retrained::Promoted, done.why, Some(done.model)),
            Phase::Done(done) if done.shadow => (Retrained::Shadow, done.why, Some(done.model)),
            Phase::Done(done) => (Retrained::Kept, done.why, Some(done.model)),
            Phase::Skipped { why } => (Retrained::Skipped, why, None),
            Phase::Failed { why } => (Retrained::Failed, why, None),
            Phase::Queued | Phase::Running { .. } => unreachable!("the job has ended"),
        };
        LastRetrain { ended_ms: Some(self.0.clock.now_ms()), outcome, why, model, ..began }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32};

    use models::validate::Report;
    use tempfile::TempDir;
    use topology::broker::{Broker as _, Cleanup, TopicSpec};
    use topology::clock::MockClock;
    use topology::record::{TopicId, Topics};
    use topology::simulated::SimBroker;

    use super::*;
    use crate::registry::Artifacts;
    use crate::scoring::ModelSlot;
    use crate::training::Span;
    use crate::training::jobs::{Ended, Outcome, Promotion, Source, Tell};

    /// 2024-01-01T02:59:59Z.
    const BEFORE_THREE: i64 = 1_704_067_200_000 + 3 * 3_600_000 - 1_000;

    /// One instance: whether it holds partition 0, and how many trainings it did.
    struct Side {
        retraining: Retraining,
        registry: Registry,
        owns: Arc<AtomicBool>,
        trained: Arc<AtomicU32>,
    }

    struct Place {
        broker: Arc<SimBroker>,
        folder: TempDir,
        clock: MockClock,
    }

    impl Place {
        fn new() -> Self {
            let broker = SimBroker::new(Topics::new(vec!["models".to_owned()]));
            let cleanup = Cleanup::Compact { tombstone_retention_ms: 1_000 };
            broker
                .create(&TopicSpec { name: "models".into(), partitions: 1, cleanup, max_message_bytes: None })
                .expect("a topic");
            let folder = TempDir::new().expect("a folder");
            Self { broker: Arc::new(broker), folder, clock: MockClock::at(BEFORE_THREE) }
        }

        fn side(&self, name: &str, owns: bool) -> Side {
            let clock = || Arc::new(self.clock.clone()) as Arc<dyn Clock>;
            let artifacts = Artifacts::open(self.folder.path().to_str().expect("plain")).expect("a folder");
            let registry = Registry::new(&self.broker, TopicId(0), artifacts, ModelSlot::default(), clock(), name);
            let order = Order {
                source: Source::Verdicts,
                span: Span::LastDays(7),
                trees: 10,
                samples: 64,
                seed: 1,
                contamination: 0.01,
                promotion: Promotion::IfPassed,
                why: "retrained",
            };
            let owns = Arc::new(AtomicBool::new(owns));
            let asked = Arc::clone(&owns);
            let cron = schedule::parse("0 3 * * *").expect("a schedule");
            let retraining = Retraining::new(registry.clone(), Jobs::default(), clock(), Some(cron), order, move || {
                asked.load(Ordering::SeqCst)
            });
            Side { retraining, registry, owns, trained: Arc::default() }
        }
    }

    impl Side {
        /// Looks once, with a queue that answers as told.
        fn look(&self, answer: &(dyn Fn() -> Result<Outcome, Ended> + Sync)) {
            assert!(self.registry.catch_up(&|| false));
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let work = |_: &Order, _: &Tell<'_>| {
                    self.trained.fetch_add(1, Ordering::SeqCst);
                    answer()
                };
                let stop = &stop;
                scope.spawn(move || self.retraining.0.jobs.run(&|| stop.load(Ordering::SeqCst), &work));
                self.retraining.step(&|| false).expect("written down");
                stop.store(true, Ordering::SeqCst);
            });
        }

        fn trained(&self) -> u32 {
            self.trained.load(Ordering::SeqCst)
        }

        fn last(&self) -> LastRetrain {
            assert!(self.registry.catch_up(&|| false));
            self.retraining.status().last.expect("one is written down")
        }
    }

    fn skipped() -> Result<Outcome, Ended> {
        Err(Ended::Skipped("700 payments are too few to train on: 1000 are needed".to_owned()))
    }

    #[test]
    fn the_holder_of_partition_0_does_what_is_due_once_and_everyone_knows() {
        let place = Place::new();
        let (one, two) = (place.side("one", true), place.side("two", false));
        assert_eq!(one.retraining.status().next_run_ms, Some(BEFORE_THREE + 1_000));
        one.look(&skipped);
        assert_eq!(one.trained(), 0, "nothing is due yet");
        place.clock.advance(1_000);
        for side in [&one, &two] {
            side.retraining.due();
            side.look(&skipped);
        }
        assert_eq!((one.trained(), two.trained()), (1, 0));
        let last = two.last();
        assert_eq!((last.outcome, last.instance.as_str(), last.due_ms), (Retrained::Skipped, "one", Some(BEFORE_THREE + 1_000)));
        assert!(last.why.contains("700") && last.ended_ms.is_some(), "{last:?}");
        // Partition 0 moves: what was due is done already.
        one.owns.store(false, Ordering::SeqCst);
        two.owns.store(true, Ordering::SeqCst);
        two.look(&skipped);
        assert_eq!(two.trained(), 0);
    }

    #[test]
    fn a_time_that_passed_while_nobody_held_partition_0_is_made_up_for() {
        let place = Place::new();
        let (one, two) = (place.side("one", false), place.side("two", false));
        for side in [&one, &two] {
            side.retraining.due();
            side.look(&skipped);
        }
        assert_eq!((one.trained(), two.trained()), (0, 0));
        place.clock.advance(60_000);
        two.owns.store(true, Ordering::SeqCst);
        two.look(&skipped);
        assert_eq!(two.trained(), 1);
        // An hour late is too late.
        let three = place.side("three", true);
        three.retraining.due();
        place.clock.advance(3_600_000);
        three.look(&skipped);
        assert_eq!(three.trained(), 0);
    }

    #[test]
    fn a_request_is_answered_where_partition_0_is_and_outcomes_are_told() {
        let place = Place::new();
        let (one, two) = (place.side("one", true), place.side("two", false));
        let outcome = |promoted: bool| Outcome {
            model: "0123456789abcdef".to_owned(),
            rows: 5_000,
            promoted,
            shadow: false,
            why: if promoted { "all checks passed" } else { "the old model goes on; failed: psi_score" }.to_owned(),
            report: Report::default(),
        };
        for (answer, expected, words) in [
            (Ok(outcome(true)), Retrained::Promoted, "passed"),
            (Ok(outcome(false)), Retrained::Kept, "psi_score"),
            (Err(Ended::Failed("the verdicts cannot be read".to_owned())), Retrained::Failed, "cannot be read"),
        ] {
            let id = two.registry.request_retrain().expect("written");
            assert_eq!(two.retraining.status().requested, Some(id.clone()));
            two.look(&skipped);
            one.look(&|| answer.clone());
            let last = two.last();
            assert_eq!((last.outcome, last.request), (expected, Some(id)));
            assert!(last.why.contains(words), "{}", last.why);
            assert_eq!(two.retraining.status().requested, None, "answered");
            one.look(&skipped);
            place.clock.advance(1_000);
        }
        assert_eq!((one.trained(), two.trained()), (3, 0));
    }
}
