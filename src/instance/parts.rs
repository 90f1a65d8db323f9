//! What settings mean for the parts: names, parameters, the model's file.

use std::path::Path;
use std::sync::Arc;

use models::Model;

use super::InstanceError;
use crate::config::{InputPartitioning, Reasons, Settings};
use crate::scoring::{FxTable, Partitioning, ScoringParams, TopicNames};

/// A model's file is at most this large: a forest of 10,000 trees of 65,536 rows is far below.
const MODEL_BYTES_MAX: u64 = 1 << 30;

/// The application's full name: group, internal topics and producers are named after it, so prefix and id make a tenant.
#[must_use]
pub fn application(settings: &Settings) -> String {
    format!("{}{}", settings.topic_prefix, settings.application_id)
}

/// The topics' names in force.
#[must_use]
pub fn topic_names(settings: &Settings) -> TopicNames {
    TopicNames {
        transactions: settings.transactions_topic.clone(),
        commands: settings.commands_topic.clone(),
        verdicts: settings.verdicts_topic.clone(),
        anomalies: settings.anomalies_topic.clone(),
        dead_letters: settings.dead_letters_topic.clone(),
        models: settings.models_topic.clone(),
        labels: settings.labels_topic.clone(),
    }
}

/// What scoring depends on.
///
/// # Errors
/// Where the table of rates cannot be used.
pub fn scoring_params(settings: &Settings, global_amount_p99: Option<f64>) -> Result<ScoringParams, InstanceError> {
    let fx = match &settings.fx_rates_path {
        None => None,
        Some(path) => {
            let table = FxTable::read(path, &settings.base_currency);
            let table = table.map_err(|why| InstanceError(format!("FX_RATES_PATH {}: {why}", path.display())))?;
            Some(Arc::new(table))
        }
    };
    Ok(ScoringParams {
        threshold: settings.anomaly_threshold,
        reasons_for_all: settings.reasons == Reasons::All,
        max_future_ms: i64::try_from(settings.max_future_ms).unwrap_or(i64::MAX),
        global_amount_p99,
        fx,
        partitioning: match settings.input_partitioning {
            InputPartitioning::Murmur2 => Partitioning::Murmur2,
            InputPartitioning::Any => Partitioning::Any,
        },
    })
}

/// Reads a model's file.
///
/// # Errors
/// Where it cannot be read, or is no whole model.
pub fn load_model(path: &Path) -> Result<Model, InstanceError> {
    let failed = |why: &dyn std::fmt::Display| InstanceError(format!("the model {} cannot be used: {why}", path.display()));
    let size = std::fs::metadata(path).map_err(|why| failed(&why))?.len();
    if size > MODEL_BYTES_MAX {
        return Err(failed(&format!("it has {size} bytes, {MODEL_BYTES_MAX} at most")));
    }
    let bytes = std::fs::read(path).map_err(|why| failed(&why))?;
    Model::from_bytes(&bytes).map_err(|why| failed(&why))
}

/// Writes a model's file, whole or not at all.
///
/// # Errors
/// Where it cannot be written.
pub fn save_model(path: &Path, model: &Model) -> Result<(), InstanceError> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, model.to_bytes())?;
        std::fs::File::open(&fresh)?.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(|why| InstanceError(format!("the model cannot be written to {}: {why}", path.display())))
}
