//! The first model: trained from the stream itself once enough payments are logged (`AUTO_TRAIN`).
//!
//! It runs where partition 0 of the payments is owned, so once in a group, and writes MODEL_PATH; the other instances take the model from
//! there when it appears (a folder that instances don't share needs the model copied by hand).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use models::{Model, TrainParams};
use topology::broker::Broker;
use topology::record::TopicId;
use topology::status::{Phase, Tasks};
use topology::topology::{TaskId, Topology};
use tracing::{info, warn};

use super::parts::{load_model, save_model};
use super::workers::Stop;
use crate::config::Settings;
use crate::scoring::ModelSlot;
use crate::training::{TrainingRows, from_verdicts};

/// Payments to be logged before the first training.
const ROWS_MIN: usize = 1_000;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

struct Job<B> {
    broker: Arc<B>,
    verdicts: TopicId,
    tasks: Arc<Tasks>,
    owner_of: TaskId,
    model: ModelSlot,
    path: PathBuf,
    contamination: f64,
    stop: Stop,
}

/// Starts the thread that waits, trains and ends.
pub(super) fn start<B: Broker>(
    settings: &Settings,
    broker: Arc<B>,
    topology: &Topology,
    tasks: &Arc<Tasks>,
    model: &ModelSlot,
    stop: Stop,
) {
    let sub = topology.subs().len() - 1;
    let job = Job {
        broker,
        verdicts: topology.topics().find(&settings.verdicts_topic).expect("invariant: the topology writes verdicts"),
        tasks: Arc::clone(tasks),
        owner_of: TaskId { sub: sub as u16, partition: 0 },
        model: model.clone(),
        path: settings.model_path.clone(),
        contamination: settings.contamination,
        stop,
    };
    let thread = std::thread::Builder::new().name("first-training".into());
    thread.spawn(move || job.run()).expect("invariant: the system has threads at start");
}

impl<B: Broker> Job<B> {
    fn run(&self) {
        while !self.stop.raised() && self.model.get().is_none() {
            std::thread::park_timeout(LOOK);
            if self.path.exists() {
                match load_model(&self.path) {
                    Ok(model) => self.take(model),
                    Err(why) => warn!(%why, "the model that appeared cannot be used"),
                }
                continue;
            }
            let owns = self.tasks.get(self.owner_of).is_some_and(|task| task.phase == Phase::Running);
            if !owns {
                continue;
            }
            match from_verdicts(&*self.broker, self.verdicts, ROWS_MIN as u64, &|| self.stop.raised()) {
                Ok(rows) if rows.len() >= ROWS_MIN => self.train(&rows),
                Ok(_) => {}
                Err(why) => warn!(%why, "the logged payments cannot be read yet"),
            }
        }
    }

    fn train(&self, rows: &TrainingRows) {
        let params = TrainParams { seed: 42, ..TrainParams::default() };
        match rows.train(params, self.contamination, None, &|| {}) {
            Ok(model) => {
                info!(model = model.id, rows = rows.len(), "first model trained from the stream");
                if let Err(why) = save_model(&self.path, &model) {
                    warn!(%why, "the first model could not be kept; a restart trains it again");
                }
                self.take(model);
            }
            Err(why) => warn!(%why, rows = rows.len(), "the first model could not be trained; trying again"),
        }
    }

    fn take(&self, model: Model) {
        self.model.set(Some(Arc::new(model)));
    }
}
