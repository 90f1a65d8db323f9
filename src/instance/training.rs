//! Training on an instance: the queue's thread, the first model (`AUTO_TRAIN`) and the daily retrain.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use models::validate::Report;
use topology::broker::Broker;
use topology::record::TopicId;
use topology::status::{Phase, Tasks};
use topology::topology::{TaskId, Topology};
use tracing::{info, warn};

use super::{InstanceError, Stop};
use crate::clock::RealClock;
use crate::config::{Role, Settings};
use crate::registry::Registry;
use crate::retraining::Retraining;
use crate::schedule;
use crate::scoring::ScoringParams;
use crate::shadow::Shadows;
use crate::threads::spawn;
use crate::tiers::ServerUrl;
use crate::training::jobs::{Ended, Jobs, Order, Outcome, Promotion, Source, Tell};
use crate::training::{self, Candidate, FromPostgres, Logs, PostgresError, ROWS_MIN, Recipe, Span, TrainingRows};

/// Between two looks at whether the first model can be trained.
const LOOK: Duration = Duration::from_millis(500);
/// Days that the daily retrain trains on.
const RETRAIN_DAYS: u32 = 7;
/// Seed of the trainings that nobody asked for.
const SEED: u64 = 42;

/// What the rest of the instance sees of training.
#[derive(Clone)]
pub struct Training {
    /// The queue.
    pub jobs: Jobs,
    /// The daily retrain.
    pub retraining: Retraining,
}

/// What a training needs.
struct Work<B> {
    broker: Arc<B>,
    logs: Logs,
    registry: Registry,
    params: ScoringParams,
    folder: PathBuf,
    /// Postgres, and the application whose schema is meant.
    cold: Option<(ServerUrl, String)>,
    stop: Stop,
}

/// Where the daily retrain reads: decision 0064.
fn retrain_source(settings: &Settings) -> Source {
    let keeps_enough = settings.database_url.is_some() && settings.history_days >= RETRAIN_DAYS;
    if keeps_enough { Source::Logged } else { Source::Verdicts }
}

/// What makes the first model of an application.
#[must_use]
pub fn first_order(settings: &Settings) -> Order {
    order(settings, Source::Verdicts, Span::All, Promotion::IfPassed, "first model")
}

/// An order with the defaults.
fn order(settings: &Settings, source: Source, span: Span, promotion: Promotion, why: &'static str) -> Order {
    let (trees, samples) = (training::TREES, training::SAMPLES);
    Order { source, span, trees, samples, seed: SEED, contamination: settings.contamination, promotion, why }
}

/// Starts the threads.
pub(super) fn start<B: Broker>(
    settings: &Settings,
    broker: &Arc<B>,
    topology: &Topology,
    tasks: &Arc<Tasks>,
    registry: &Registry,
    params: &ScoringParams,
    stop: &Stop,
) -> Result<Training, InstanceError> {
    let logs = Logs::of(topology, &settings.verdicts_topic, &settings.labels_topic);
    let verdicts = logs.verdicts;
    let work = Work {
        broker: Arc::clone(broker),
        logs,
        registry: registry.clone(),
        params: params.clone(),
        folder: settings.training_dir.clone(),
        cold: settings.database_url.clone().map(|url| (url, topology.application().to_owned())),
        stop: stop.clone(),
    };
    let jobs = Jobs::default();
    let queue = jobs.clone();
    spawn("training", move || queue.run(&|| work.stop.raised(), &|order, tell| work.train(order, tell)));

    // Of the payments themselves, also where they are repartitioned first.
    let payments = topology.topics().find(&settings.transactions_topic).and_then(|topic| topology.led_by(topic));
    let lead = TaskId { sub: payments.expect("invariant: a sub-topology reads the payments"), partition: 0 };
    let tasks = Arc::clone(tasks);
    let owns = move || tasks.get(lead).is_some_and(|task| task.phase == Phase::Running);
    // What runs once in a group runs where partition 0 is held: nowhere that does not stream.
    let streams = settings.roles.plays(Role::Stream);
    let schedules = settings.roles.plays(Role::Schedule) && streams;
    if settings.roles.plays(Role::Schedule) && !streams {
        warn!("the role `schedule` does nothing without `stream`: the retrain runs on the instance that has partition 0");
    }
    let scheduled = schedules && settings.retrain_cron != "off";
    let cron = scheduled.then(|| schedule::parse(&settings.retrain_cron)).transpose().map_err(InstanceError)?;
    let promotion = match settings.retrain_shadow_hours {
        0 => Promotion::IfPassed,
        hours => Promotion::AfterShadow(hours),
    };
    let retrain = order(settings, retrain_source(settings), Span::LastDays(RETRAIN_DAYS), promotion, "retrained");
    let retraining = Retraining::new(registry.clone(), jobs.clone(), Arc::new(RealClock), cron, retrain, owns.clone());
    if scheduled {
        let (due, stopped) = (retraining.clone(), stop.clone());
        schedule::start(&settings.retrain_cron, move || due.due(), move || stopped.raised());
        let (runner, stopped) = (retraining.clone(), stop.clone());
        spawn("retraining", move || runner.run(&|| stopped.raised()));
    }
    if schedules {
        let shadows = Shadows::new(broker, verdicts, registry.clone(), Arc::new(RealClock), params.threshold, owns.clone());
        let stopped = stop.clone();
        spawn("shadows", move || shadows.run(&|| stopped.raised()));
    }
    if settings.auto_train && streams && registry.view().active().is_none() {
        let first = first_order(settings);
        let (broker, registry, jobs, stop) = (Arc::clone(broker), registry.clone(), jobs.clone(), stop.clone());
        spawn("first-training", move || {
            let mut reader = None;
            let mut enough = || owns() && logged(&*broker, verdicts, &mut reader).is_some_and(|logged| logged >= ROWS_MIN as u64);
            first_model(&registry, &jobs, &first, &mut enough, &stop);
        });
    }
    Ok(Training { jobs, retraining })
}

/// How many records the verdicts topic holds, about; none while the broker does not tell.
fn logged<B: Broker>(broker: &B, verdicts: TopicId, reader: &mut Option<B::Reader>) -> Option<u64> {
    training::logged(broker, verdicts, reader).inspect_err(|why| warn!(%why, "the logged payments cannot be counted yet")).ok()
}

/// Orders the first training once there is enough to train on; it runs where partition 0 of the payments is held, so once in a group.
fn first_model(registry: &Registry, jobs: &Jobs, order: &Order, enough: &mut dyn FnMut() -> bool, stop: &Stop) {
    let mut job: Option<String> = None;
    while !stop.raised() && registry.view().active().is_none() {
        std::thread::park_timeout(LOOK);
        let waits = job.as_ref().and_then(|id| jobs.get(id)).is_some_and(|job| !job.phase.has_ended());
        if !waits && enough() {
            job = jobs.submit(order.clone(), crate::clock::now_ms()).ok();
        }
    }
}

impl<B: Broker> Work<B> {
    fn train(&self, order: &Order, tell: &Tell<'_>) -> Result<Outcome, Ended> {
        let failed = |why: &dyn std::fmt::Display| Ended::Failed(why.to_string());
        if let (Promotion::AfterShadow(_), Some(waiting)) = (order.promotion, self.waiting()) {
            return Err(Ended::Skipped(format!("model {waiting} of an earlier training is in shadow: it is judged first")));
        }
        let (rows, source) = self.rows(order, tell)?;
        let count = rows.len();
        if self.stop.raised() {
            return Err(Ended::Failed("the instance is stopping".to_owned()));
        }
        if count < ROWS_MIN {
            return Err(Ended::Skipped(format!("{count} payments are too few to train on: {ROWS_MIN} are needed")));
        }
        let active = self.registry.scoring();
        let grown = std::sync::atomic::AtomicU64::new(0);
        let of = order.trees as u64;
        tell("growing", 0, Some(of));
        let told = || {
            let done = grown.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            if done == of { tell("validating", 0, None) } else { tell("growing", done, Some(of)) }
        };
        let recipe = Recipe {
            params: order.params(),
            contamination: order.contamination,
            threshold: self.params.threshold,
            fixed_p99: self.params.global_amount_p99,
        };
        let Candidate { model, report } =
            training::candidate(rows, &recipe, active.as_deref(), &told).map_err(|why| failed(&why))?;
        if let Some(active) = active.as_ref().filter(|active| active.id == model.id) {
            let why = format!("nothing changed: the same rows gave the active model {} again", active.id);
            info!(model = model.id, rows = count, why, "model trained");
            return Ok(Outcome { model: model.id, rows: count as u64, promoted: false, shadow: false, why, report });
        }
        let parent = active.as_ref().map(|active| active.id.as_str());
        let registered = self.registry.register(&model, source, parent, Some(report.clone()));
        registered.map_err(|why| failed(&why))?;
        let (promotes, mut why) = decide(order.promotion, active.is_some(), &report);
        let shadow_hours = match order.promotion {
            Promotion::AfterShadow(hours) if promotes && active.is_some() => Some(hours),
            _ => None,
        };
        if let Some(hours) = shadow_hours {
            let until_ms = crate::clock::now_ms() + hours as i64 * 3_600_000;
            self.registry.begin_shadow(&model.id, false, Some(until_ms), order.why).map_err(|why| failed(&why))?;
            why = format!("{why}; in shadow for {hours} h");
        } else if promotes {
            self.registry.promote(&model.id, order.why).map_err(|why| failed(&why))?;
        }
        let (promoted, shadow) = (promotes && shadow_hours.is_none(), shadow_hours.is_some());
        info!(model = model.id, rows = count, promoted, shadow, why, "model trained");
        Ok(Outcome { model: model.id, rows: count as u64, promoted, shadow, why, report })
    }

    /// The model of an earlier training that is still to be judged.
    fn waiting(&self) -> Option<String> {
        let view = self.registry.view();
        view.running_shadows().find(|shadow| shadow.promote_at_ms.is_some()).map(|shadow| shadow.model.clone())
    }

    /// The rows, and the name of where they came from.
    fn rows(&self, order: &Order, tell: &Tell<'_>) -> Result<(TrainingRows, &'static str), Ended> {
        let progress = |rows| tell("reading", rows, None);
        let topic = || Ok((self.topic_rows(order.span, &progress)?, Source::Verdicts.name()));
        match &order.source {
            Source::Verdicts => topic(),
            Source::Postgres => {
                let read = self.postgres_rows(order.span, &progress);
                let read = read.map_err(|why| Ended::Failed(format!("the verdicts in Postgres cannot be read: {why}")))?;
                Ok((read.rows, Source::Postgres.name()))
            }
            Source::Logged => match self.postgres_rows(order.span, &progress) {
                Ok(read) if read.is_complete() => Ok((read.rows, Source::Postgres.name())),
                Ok(FromPostgres { lacks, .. }) => {
                    warn!(lacks, "Postgres lacks too many verdicts: training reads the topic");
                    topic()
                }
                Err(why) => {
                    warn!(%why, "the verdicts in Postgres cannot be read: training reads the topic");
                    topic()
                }
            },
            Source::Csv(name) => {
                let path = inside(&self.folder, name).map_err(Ended::Failed)?;
                let read = training::from_file(&path, &[], &self.params, order.span, &progress);
                let read = read.map_err(|why| Ended::Failed(format!("{}: {why}", name.display())))?;
                Ok((read, order.source.name()))
            }
        }
    }

    fn topic_rows(&self, span: Span, progress: &dyn Fn(u64)) -> Result<TrainingRows, Ended> {
        let failed = |why| Ended::Failed(format!("the verdicts and their labels cannot be read: {why}"));
        training::from_verdicts(&*self.broker, self.logs, span, 0, progress, &|| self.stop.raised()).map_err(failed)
    }

    fn postgres_rows(&self, span: Span, progress: &dyn Fn(u64)) -> Result<FromPostgres, PostgresError> {
        let (url, application) = self.cold.as_ref().ok_or(PostgresError::NotSet)?;
        training::from_postgres(&*self.broker, self.logs, (url, application), span, progress, &|| self.stop.raised())
    }
}

/// Whether the candidate goes live, and why.
fn decide(promotion: Promotion, active: bool, report: &Report) -> (bool, String) {
    let failed: Vec<&str> = report.failed().collect();
    let failed = failed.join(", ");
    match promotion {
        Promotion::ByHand if failed.is_empty() => (false, "all checks passed; promote it to make it score".to_owned()),
        Promotion::ByHand => (false, format!("not promoted; failed: {failed}")),
        _ if failed.is_empty() => (true, "all checks passed".to_owned()),
        Promotion::IfPassed | Promotion::AfterShadow(_) if !active => {
            (true, format!("the first model goes live although these failed: {failed}"))
        }
        Promotion::IfPassed | Promotion::AfterShadow(_) => (false, format!("the old model goes on; failed: {failed}")),
    }
}

/// A file of the folder: no name leads out of it.
fn inside(folder: &Path, name: &Path) -> Result<PathBuf, String> {
    let plain = name.components().all(|part| matches!(part, Component::Normal(_))) && name.components().next().is_some();
    if !plain {
        return Err("the file must be named relative to TRAINING_DIR, without `..`".to_owned());
    }
    let leads_out = || format!("{} is not in TRAINING_DIR", name.display());
    // Links are followed, and must end inside as well.
    let (folder, path) =
        folder.canonicalize().and_then(|at| Ok((at, folder.join(name).canonicalize()?))).map_err(|_| leads_out())?;
    if path.starts_with(folder) { Ok(path) } else { Err(leads_out()) }
}

#[cfg(test)]
mod tests {
    use models::validate::{Check, Outcome as Judged};

    use super::*;

    fn report(outcome: Judged) -> Report {
        let check = Check { name: "psi_score".into(), outcome, value: Some(1.0), low: None, high: None, note: String::new() };
        Report { trained_rows: 1, held_out_rows: 1, checks: vec![check] }
    }

    #[test]
    fn a_failed_check_keeps_the_old_model_and_is_named() {
        let (good, bad) = (report(Judged::Passed), report(Judged::Failed));
        assert!(decide(Promotion::IfPassed, true, &good).0);
        assert!(decide(Promotion::IfPassed, true, &report(Judged::Skipped)).0, "a check that cannot be made keeps nothing back");
        let (promotes, why) = decide(Promotion::IfPassed, true, &bad);
        assert!(!promotes && why.contains("psi_score"), "{why}");
        assert!(decide(Promotion::IfPassed, false, &bad).0, "there is no old model to keep");
        assert!(!decide(Promotion::ByHand, false, &good).0);
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("training");
        std::fs::create_dir_all(inner.join("june")).expect("a folder");
        std::fs::write(inner.join("june/a.csv"), "x").expect("a file");
        std::fs::write(folder.path().join("secret"), "x").expect("a file");
        std::os::unix::fs::symlink(folder.path().join("secret"), inner.join("link")).expect("a link");
        assert!(inside(&inner, Path::new("june/a.csv")).is_ok());
        for name in ["../secret", "/etc/passwd", "", "june/../../secret", "link", "nothing.csv", "."] {
            assert!(inside(&inner, Path::new(name)).is_err(), "{name}");
        }
    }
}
