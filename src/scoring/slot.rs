//! Which model scores: one slot for all workers of an instance, switched while they run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use models::Model;

/// The active model, if there is one. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ModelSlot(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    version: AtomicU64,
    model: Mutex<Option<Arc<Model>>>,
}

impl ModelSlot {
    /// Makes a model the active one: each task goes over to it at its next batch, through a decision.
    pub fn set(&self, model: Option<Arc<Model>>) {
        let mut slot = self.0.model.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = model;
        self.0.version.fetch_add(1, Ordering::Release);
    }

    /// The active model.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Model>> {
        self.0.model.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes with each [`Self::set`]; cheap to ask at every batch.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }
}
