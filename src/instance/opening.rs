//! Where state is kept: the store of this application's, opened while the models' topic is read.

use std::path::Path;
use std::sync::Arc;

use state::backend::Backend;
use state::memory::MemoryBackend;
use state::rocks::RocksOptions;
use topology::metrics::Metrics;
use topology::topology::Topology;
use tracing::warn;

use super::{Identity, InstanceError, Stop, evicting, store};
use crate::config::{Role, Settings};
use crate::registry::Registry;

/// A store is a copy of one application's changelog. Under another application id its positions would name offsets of other topics, and
/// be caught up into a mixture.
fn keep_for(folder: &Path, application: &str, store: &Path) -> Result<(), InstanceError> {
    mark(folder, application, store)
        .map_err(|why| InstanceError(format!("cannot write into {}: {why}. Check STATE_DIR", folder.display())))
}

fn mark(folder: &Path, application: &str, store: &Path) -> std::io::Result<()> {
    let marker = folder.join("application");
    match std::fs::read_to_string(&marker) {
        Ok(other) if other == application => return Ok(()),
        Ok(other) if store.exists() => {
            warn!(path = %store.display(), other, "the store is another application's: it is dropped and restored from the changelog");
            std::fs::remove_dir_all(store)?;
        }
        // A folder of before there was a marker is this application's.
        _ => {}
    }
    let fresh = folder.join("application.new");
    std::fs::write(&fresh, application)?;
    std::fs::rename(fresh, marker)
}

/// Where state is kept, and the models.
pub(super) struct State {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) registry: Registry,
    /// Where users who are idle may go.
    pub(super) outside: Option<evicting::Outside>,
}

/// Opens the store while the models' topic is read; none where it was told to stop.
pub(super) fn open(
    settings: &Settings,
    identity: &Identity,
    topology: &Arc<Topology>,
    stores: RocksOptions,
    metrics: &Arc<Metrics>,
    stop: &Stop,
    models: impl FnOnce() -> Result<Option<Registry>, InstanceError>,
) -> Result<Option<State>, InstanceError> {
    if !settings.roles.plays(Role::Stream) {
        // Nothing is ever written there: other instances have the state.
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        return Ok(models()?.map(|registry| State { backend, registry, outside: None }));
    }
    let evicts = settings.state_ttl_s > 0;
    keep_for(&identity.folder, topology.application(), &identity.folder.join("rocksdb"))?;
    evicting::expect(&identity.folder, evicts)?;
    let no_models = Stop::default();
    let (opened, registry) = std::thread::scope(|scope| {
        let opening = scope.spawn(|| store::open(&identity.folder, stores, metrics, &|| stop.raised() || no_models.raised()));
        let registry = models();
        if !matches!(registry, Ok(Some(_))) {
            no_models.raise();
        }
        (opening.join().expect("invariant: opening a store does not panic"), registry)
    });
    let (Some(registry), Some(backend)) = (registry?, opened?) else { return Ok(None) };
    let outside = evicts.then(|| evicting::Outside::new(settings, topology, &backend)).transpose()?;
    let backend = outside.as_ref().map_or(backend, evicting::Outside::backend);
    Ok(Some(State { backend, registry, outside }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_kept_for_its_application_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("rocksdb");
        std::fs::create_dir(&store).expect("a store of before there was a marker");
        for (application, kept) in [("one", true), ("one", true), ("two", false)] {
            keep_for(folder.path(), application, &store).expect("written");
            assert_eq!(store.exists(), kept, "{application}");
        }
    }
}
