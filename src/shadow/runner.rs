//! Begins and ends walks as the models topic has it, writes down what they found, and judges those that are to be promoted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use models::compare::COMPARED_MIN;
use topology::broker::{Broker, BrokerError};
use topology::clock::Clock;
use topology::record::TopicId;
use tracing::{info, warn};

use super::walk::Walk;
use crate::registry::{LastRetrain, Registry, RegistryError, Retrained, Shadowing};
use crate::trouble::Trouble;

/// How soon a new shadow, or a partition 0 that came here, is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// The longest that one poll waits.
const WAIT: Duration = Duration::from_millis(20);
/// Between two records of one tally.
const WRITE_US: u64 = 2_000_000;

/// Why a step failed; the walk it happened in begins anew from what is written down.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the verdicts cannot be read: {0}")]
    Log(#[from] BrokerError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Every shadow of the application.
pub struct Shadows<B: Broker> {
    broker: Arc<B>,
    verdicts: TopicId,
    registry: Registry,
    clock: Arc<dyn Clock>,
    threshold: f64,
    owns: Box<dyn Fn() -> bool + Send>,
    walks: BTreeMap<String, Walk<B>>,
}

impl<B: Broker> Shadows<B> {
    /// `owns` tells whether this instance holds partition 0 of the payments; `threshold` is the score of an alert.
    #[must_use]
    pub fn new(
        broker: &Arc<B>,
        verdicts: TopicId,
        registry: Registry,
        clock: Arc<dyn Clock>,
        threshold: f64,
        owns: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        let (broker, owns, walks) = (Arc::clone(broker), Box::new(owns), BTreeMap::new());
        Self { broker, verdicts, registry, clock, threshold, owns, walks }
    }

    /// Does it until `stopped`.
    pub fn run(mut self, stopped: &dyn Fn() -> bool) {
        let mut trouble = Trouble::default();
        while !stopped() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => {
                    trouble.is_over();
                    std::thread::park_timeout(LOOK);
                }
                Err(why) => {
                    if trouble.is_news(&why) {
                        warn!(%why, "shadow scores wait");
                    }
                    std::thread::park_timeout(LOOK);
                }
            }
        }
        // The next one goes on here; without it, it would score a few seconds again.
        let last: Result<(), Fault> = self.walks.values_mut().try_for_each(|walk| write(&self.registry, &*self.clock, walk));
        if let Err(why) = last {
            info!(%why, "the last shadow scores are not written down: they are made again");
        }
    }

    /// One look at everything. True where there may be more at once.
    pub(super) fn step(&mut self) -> Result<bool, Fault> {
        let view = self.registry.view();
        if !(self.owns)() {
            self.walks.clear();
            return Ok(false);
        }
        let running: Vec<Shadowing> = view.running_shadows().cloned().collect();
        let runs = |walk: &Walk<B>| running.contains(&walk.shadow);
        for ended in self.walks.values_mut().filter(|walk| !runs(walk)) {
            write(&self.registry, &*self.clock, ended)?;
        }
        self.walks.retain(|_, walk| runs(walk));
        let mut moved = false;
        for shadow in running {
            if view.active().is_some_and(|active| active.model == shadow.model) {
                self.settle(&shadow.model, Retrained::Promoted, "promoted while in shadow")?;
                continue;
            }
            let stepped = self.walk(&shadow);
            if stepped.is_err() {
                self.walks.remove(&shadow.model);
            }
            moved |= stepped?;
        }
        Ok(moved)
    }

    /// One shadow's part of a step.
    fn walk(&mut self, shadow: &Shadowing) -> Result<bool, Fault> {
        let id = &shadow.model;
        if !self.walks.contains_key(id) {
            let model = match self.registry.load(id) {
                Ok(model) => model,
                Err(why) => {
                    self.settle(id, Retrained::Failed, &format!("the model cannot be used: {why}"))?;
                    return Ok(false);
                }
            };
            let view = self.registry.view();
            let walk = Walk::begin(&*self.broker, self.verdicts, model, shadow.clone(), view.tally(shadow))?;
            self.walks.insert(id.clone(), walk);
        }
        let walk = self.walks.get_mut(id).expect("invariant: put there above");
        let moved = walk.step(WAIT, self.threshold, self.registry.scoring().as_ref(), &*self.clock)?;
        // The first record says where it began.
        if walk.changed && (walk.written_us == 0 || self.clock.monotonic_us() - walk.written_us >= WRITE_US) {
            write(&self.registry, &*self.clock, walk)?;
        }
        if shadow.promote_at_ms.is_some_and(|due_ms| self.clock.now_ms() >= due_ms) {
            self.judge(id)?;
        }
        Ok(moved)
    }

    /// Promotes or ends one that is due, once it has compared enough.
    fn judge(&mut self, id: &str) -> Result<(), Fault> {
        let walk = self.walks.get_mut(id).expect("invariant: only those that walk are judged");
        let active = self.registry.view().active().map(|active| active.model.clone());
        if active != walk.shadow.beside {
            return self.settle(id, Retrained::Kept, "not promoted: another model went live meanwhile");
        }
        if walk.tally.comparison.compared < COMPARED_MIN || !walk.has_reached_its_goal()? {
            return Ok(());
        }
        write(&self.registry, &*self.clock, walk)?;
        let report = walk.tally.comparison.verdict();
        let failed: Vec<String> = report
            .checks
            .iter()
            .filter(|check| report.failed().any(|name| name == check.name))
            .map(|check| format!("{} ({})", check.name, check.note))
            .collect();
        if failed.is_empty() {
            self.registry.promote(id, "retrained, and passed in shadow")?;
            self.settle(id, Retrained::Promoted, "passed in shadow")
        } else {
            self.settle(id, Retrained::Kept, &format!("the old model goes on; failed in shadow: {}", failed.join(", ")))
        }
    }

    /// Ends a shadow, and says so in the status of the retraining that it came from.
    fn settle(&mut self, id: &str, outcome: Retrained, why: &str) -> Result<(), Fault> {
        self.registry.end_shadow(id, why)?;
        let (_, last) = self.registry.retrains();
        let of_this = |last: &LastRetrain| last.outcome == Retrained::Shadow && last.model.as_deref() == Some(id);
        if let Some(last) = last.filter(of_this) {
            let ended_ms = Some(self.clock.now_ms());
            self.registry.report_retrain(LastRetrain { outcome, why: why.to_owned(), ended_ms, ..last })?;
        }
        Ok(())
    }
}

fn write<B: Broker>(registry: &Registry, clock: &dyn Clock, walk: &mut Walk<B>) -> Result<(), Fault> {
    if walk.changed {
        walk.tally.at_ms = clock.now_ms();
        registry.report_shadow(walk.tally.clone())?;
        walk.changed = false;
        walk.written_us = clock.monotonic_us().max(1);
    }
    Ok(())
}
