//! The registry's start: read to its end before anything is scored, followed by a thread of its own from then on.

use std::sync::Arc;

use topology::broker::Broker;
use topology::topology::Topology;
use tracing::info;

use super::parts::load_model;
use super::{InstanceError, Stop};
use crate::clock::RealClock;
use crate::config::Settings;
use crate::registry::{Artifacts, Registry, RegistryError};
use crate::scoring::ModelSlot;
use crate::threads::spawn;

/// None where `stop` was raised before the topic was read.
pub(super) fn start<B: Broker>(
    settings: &Settings,
    broker: &Arc<B>,
    topology: &Topology,
    slot: &ModelSlot,
    instance: &str,
    stop: &Stop,
) -> Result<Option<Registry>, InstanceError> {
    let topic = topology.topics().find(&settings.models_topic).expect("invariant: the topology has the models topic");
    let artifacts = Artifacts::open(&settings.model_store).map_err(|why| InstanceError(why.to_string()))?;
    let registry = Registry::new(broker, topic, artifacts, slot.clone(), Arc::new(RealClock), instance);
    if !registry.catch_up(&|| stop.raised()) {
        return Ok(None);
    }
    if registry.view().is_empty() && settings.model_path.exists() {
        import(&registry, settings)?;
    }
    let (follower, stopped) = (registry.clone(), stop.clone());
    spawn("models", move || follower.run(&|| stopped.raised()));
    Ok(Some(registry))
}

/// MODEL_PATH as the first version.
fn import(registry: &Registry, settings: &Settings) -> Result<(), InstanceError> {
    let model = load_model(&settings.model_path)?;
    let path = settings.model_path.display();
    let imported = registry.register(&model, "import", None, None).and_then(|_| registry.promote(&model.id, "imported"));
    match imported {
        Ok(_) => info!(model = model.id, path = %path, "model imported"),
        // Another instance may have promoted its own meanwhile: the topic decides.
        Err(RegistryError::Pending) => {}
        Err(why) => return Err(InstanceError(format!("the model {path} cannot be imported: {why}"))),
    }
    Ok(())
}
