//! The running registry of one instance: follows the topic, keeps the slot on the active model, writes what is asked for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use models::Model;
use models::validate::Report;
use schemars::JsonSchema;
use serde::Serialize;
use topology::broker::{Broker, BrokerError};
use topology::clock::Clock;
use topology::record::TopicId;
use tracing::{error, info, warn};

use super::artifacts::{ArtifactFault, Artifacts};
use super::log::{BrokerLog, ModelsLog, Write, writer};
use super::record::{Activation, Entry, LastRetrain, Request, Shadowing, Tally, Version};
use super::view::View;
use crate::scoring::ModelSlot;
use crate::trouble::Trouble;

/// For a change to take effect here after it is in the topic.
const EFFECT: Duration = Duration::from_secs(3);
/// The longest that one look at the topic waits for news.
const LOOK: Duration = Duration::from_millis(100);
/// Shadows that run at once.
pub const SHADOWS_MAX: usize = 4;
/// Between two attempts at an active model whose artifact was refused: it may be on its way.
const AGAIN: Duration = Duration::from_secs(2);

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No version has this id.
    #[error("no model has this id")]
    Unknown,
    /// There is no version before the active one.
    #[error("no earlier model is known to roll back to")]
    NoEarlier,
    /// It scores already: there is nothing to compare it with.
    #[error("this model is the active one")]
    IsActive,
    /// As many as there may be.
    #[error("{SHADOWS_MAX} models are in shadow already: end one first")]
    TooManyShadows,
    /// It is not in shadow.
    #[error("this model is not in shadow")]
    NoShadow,
    /// The artifact cannot be used: nothing has changed.
    #[error(transparent)]
    Unusable(#[from] ArtifactFault),
    /// The broker did not take the record, or not surely.
    #[error("the models topic cannot be written: {0}")]
    Broker(#[from] BrokerError),
    /// It is in the topic, and this instance has not followed yet.
    #[error("written to the models topic, but this instance has not read it back yet")]
    Pending,
}

/// An active model that this instance could not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Refusal {
    /// The model.
    pub model: String,
    /// Why.
    pub why: String,
}

struct Inner {
    slot: ModelSlot,
    artifacts: Artifacts,
    clock: Arc<dyn Clock>,
    instance: String,
    view: Mutex<View>,
    /// Told after each look at the topic.
    looked: Condvar,
    refusal: Mutex<Option<Refusal>>,
    /// When a refused model is to be tried again, by the monotonic clock in microseconds.
    again_us: AtomicU64,
    log: Mutex<Box<dyn ModelsLog>>,
    write: Mutex<Box<Write>>,
}

/// See the module's header. Clones share it.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// A registry that has read nothing yet: see [`Self::catch_up`].
    #[must_use]
    pub fn new<B: Broker>(
        broker: &Arc<B>,
        topic: TopicId,
        artifacts: Artifacts,
        slot: ModelSlot,
        clock: Arc<dyn Clock>,
        instance: &str,
    ) -> Self {
        Self(Arc::new(Inner {
            slot,
            artifacts,
            clock,
            instance: instance.to_owned(),
            view: Mutex::default(),
            looked: Condvar::new(),
            refusal: Mutex::default(),
            again_us: AtomicU64::new(0),
            log: Mutex::new(Box::new(BrokerLog::new(Arc::clone(broker), topic))),
            write: Mutex::new(writer(broker, topic)),
        }))
    }

    /// Reads the topic to its end, so that scoring begins with the active model. Tries again while the broker does not answer; false
    /// where `stopped` came first.
    pub fn catch_up(&self, stopped: &dyn Fn() -> bool) -> bool {
        let mut trouble = Trouble::default();
        while !stopped() {
            let end = lock(&self.0.log).end();
            let caught = end.and_then(|end| {
                while !stopped() && lock(&self.0.view).position() < end {
                    self.look(LOOK)?;
                }
                Ok(())
            });
            match caught {
                Ok(()) => {
                    self.follow_active();
                    return !stopped();
                }
                Err(why) => {
                    if trouble.is_news(&why) {
                        warn!(%why, "the models topic cannot be read yet; trying again");
                    }
                    std::thread::park_timeout(LOOK);
                }
            }
        }
        false
    }

    /// Follows the topic until `stopped`.
    pub fn run(&self, stopped: &dyn Fn() -> bool) {
        let mut trouble = Trouble::default();
        while !stopped() {
            match self.look(LOOK) {
                Ok(()) => trouble.is_over(),
                Err(why) => {
                    if trouble.is_news(&why) {
                        warn!(%why, "the models topic cannot be read; the model stays as it is");
                    }
                    std::thread::park_timeout(LOOK);
                }
            }
        }
    }

    /// Takes in what is new in the topic, waiting for it at most so long, and goes over to the active model.
    fn look(&self, wait: Duration) -> Result<(), BrokerError> {
        let inner = &self.0;
        let mut log = match inner.log.try_lock() {
            Ok(log) => log,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                // Somebody else is looking: what it finds is ours too.
                drop(inner.looked.wait_timeout(lock(&inner.view), wait).unwrap_or_else(PoisonError::into_inner));
                return Ok(());
            }
        };
        let mut news = Vec::new();
        let position = log.read(wait, &mut |offset, key, value| news.push((offset, key.to_vec(), value.map(<[u8]>::to_vec))))?;
        let changed = !news.is_empty();
        {
            let mut view = lock(&inner.view);
            for (offset, key, value) in news {
                if let Some(why) = view.apply(offset, &key, value.as_deref()) {
                    warn!(offset, why, "a record of the models topic cannot be used: it is left out");
                }
            }
        }
        let due = lock(&inner.refusal).is_some() && inner.clock.monotonic_us() >= inner.again_us.load(Ordering::Relaxed);
        if changed || due {
            self.follow_active();
        }
        // Only now: whoever waits for a position waits for its effect.
        lock(&inner.view).advance(position);
        inner.looked.notify_all();
        Ok(())
    }

    /// Puts the active model into the slot. Where it cannot be used the old one stays; with none in place, the latest of its
    /// predecessors that can be used is better than none.
    fn follow_active(&self) {
        let inner = &self.0;
        let Some(active) = lock(&inner.view).active().cloned() else { return };
        let scoring = inner.slot.get().map(|model| model.id.clone());
        if scoring.as_deref() == Some(&active.model) {
            *lock(&inner.refusal) = None;
            return;
        }
        match self.load(&active.model) {
            Ok(model) => {
                info!(model = model.id, why = active.why, before = scoring, "model goes live");
                inner.slot.set(Some(Arc::new(model)));
                *lock(&inner.refusal) = None;
            }
            Err(fault) => {
                let fault = Refusal { model: active.model.clone(), why: fault.to_string() };
                inner.again_us.store(inner.clock.monotonic_us() + AGAIN.as_micros() as u64, Ordering::Relaxed);
                if lock(&inner.refusal).replace(fault.clone()).as_ref() != Some(&fault) {
                    error!(model = fault.model, why = fault.why, scoring, "the active model is refused: the old one goes on");
                }
                if scoring.is_none() {
                    let earlier = active.previous.iter().find_map(|id| self.load(id).ok());
                    if let Some(earlier) = earlier {
                        warn!(model = earlier.id, "an earlier model scores meanwhile");
                        inner.slot.set(Some(Arc::new(earlier)));
                    }
                }
            }
        }
    }

    /// Reads and checks a version's artifact.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(&self, id: &str) -> Result<Model, ArtifactFault> {
        let digest = self.view().version(id).map(|version| version.digest.clone());
        self.0.artifacts.load(id, digest.as_deref())
    }

    /// What the topic says, as far as it was read.
    #[must_use]
    pub fn view(&self) -> View {
        lock(&self.0.view).clone()
    }

    /// The active model that this instance could not take, if there is one.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        lock(&self.0.refusal).clone()
    }

    /// The model that scores here.
    #[must_use]
    pub fn scoring(&self) -> Option<Arc<Model>> {
        self.0.slot.get()
    }

    /// Keeps a model and makes it known. It scores only once it is promoted. Registering it again changes nothing.
    ///
    /// # Errors
    /// The store's or the broker's.
    pub fn register(
        &self,
        model: &Model,
        source: &str,
        parent: Option<&str>,
        report: Option<Report>,
    ) -> Result<Version, RegistryError> {
        if let Some(known) = self.view().version(&model.id) {
            return Ok(known.clone());
        }
        let artifact = model.to_bytes();
        let version = Version::of(model, &artifact, source, self.0.clock.now_ms());
        let version = Version { parent: parent.map(str::to_owned), report, ..version };
        self.0.artifacts.put(&model.id, artifact)?;
        self.publish(&Entry::Version(Box::new(version.clone())))?;
        info!(model = version.id, rows = version.rows, source, "model registered");
        Ok(version)
    }

    /// Makes a version the active one, on every instance.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing has changed, but for [`RegistryError::Pending`].
    pub fn promote(&self, id: &str, why: &str) -> Result<Activation, RegistryError> {
        let view = self.view();
        if view.version(id).is_none() {
            return Err(RegistryError::Unknown);
        }
        self.activate(view.promotion(id, why, &self.0.instance, self.0.clock.now_ms()))
    }

    /// Goes back to the version that was active before.
    ///
    /// # Errors
    /// As [`Self::promote`].
    pub fn roll_back(&self) -> Result<Activation, RegistryError> {
        let activation = self.view().rollback(&self.0.instance, self.0.clock.now_ms());
        self.activate(activation.ok_or(RegistryError::NoEarlier)?)
    }

    /// Has a version score beside the active one from now on, or over the whole log; where it does already, it begins anew.
    /// With `promote_at_ms` it is judged at that time, and goes live if it passes.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing has changed, but for [`RegistryError::Pending`].
    pub fn begin_shadow(
        &self,
        id: &str,
        whole_log: bool,
        promote_at_ms: Option<i64>,
        why: &str,
    ) -> Result<Shadowing, RegistryError> {
        let view = self.view();
        if view.version(id).is_none() {
            return Err(RegistryError::Unknown);
        }
        let beside = view.active().map(|active| active.model.clone());
        if beside.as_deref() == Some(id) {
            return Err(RegistryError::IsActive);
        }
        if view.running_shadows().filter(|shadow| shadow.model != id).count() >= SHADOWS_MAX {
            return Err(RegistryError::TooManyShadows);
        }
        self.load(id)?;
        let began_ms = self.0.clock.now_ms();
        // Two that begin in one millisecond are not the same.
        let began_ms = view.shadow(id).map_or(began_ms, |earlier| began_ms.max(earlier.began_ms + 1));
        let (model, why, instance) = (id.to_owned(), why.to_owned(), self.0.instance.clone());
        let shadow = Shadowing { model, beside, began_ms, whole_log, promote_at_ms, ended_ms: None, why, instance };
        self.publish(&Entry::Shadow(shadow.clone()))?;
        info!(model = id, whole_log, promote_at_ms, "model is in shadow");
        Ok(shadow)
    }

    /// Ends a shadow; what it was found to do stays known.
    ///
    /// # Errors
    /// As [`Self::begin_shadow`].
    pub fn end_shadow(&self, id: &str, why: &str) -> Result<Shadowing, RegistryError> {
        let running = self.view().shadow(id).filter(|shadow| shadow.is_running()).cloned();
        let (ended_ms, why, instance) = (Some(self.0.clock.now_ms()), why.to_owned(), self.0.instance.clone());
        let shadow = Shadowing { ended_ms, why, instance, ..running.ok_or(RegistryError::NoShadow)? };
        self.publish(&Entry::Shadow(shadow.clone()))?;
        info!(model = id, why = shadow.why, "shadow has ended");
        Ok(shadow)
    }

    /// Writes down what a shadow was found to do, for every instance to answer with.
    ///
    /// # Errors
    /// The broker's.
    pub fn report_shadow(&self, tally: Tally) -> Result<(), RegistryError> {
        self.publish(&Entry::Tally(Box::new(tally)))
    }

    /// Asks for a retraining, wherever partition 0 of the payments is; the request's id.
    ///
    /// # Errors
    /// The broker's.
    pub fn request_retrain(&self) -> Result<String, RegistryError> {
        let at_ms = self.0.clock.now_ms();
        let id = format!("{}-{at_ms:x}-{:x}", self.0.instance, self.view().position());
        self.publish(&Entry::Request(Request { id: id.clone(), at_ms }))?;
        Ok(id)
    }

    /// Writes down how a retraining goes, for every instance's status.
    ///
    /// # Errors
    /// The broker's.
    pub fn report_retrain(&self, last: LastRetrain) -> Result<(), RegistryError> {
        self.publish(&Entry::Last(last))
    }

    /// The open request for a retraining, and the last one.
    #[must_use]
    pub fn retrains(&self) -> (Option<Request>, Option<LastRetrain>) {
        let view = lock(&self.0.view);
        (view.open_request().cloned(), view.last_retrain().cloned())
    }

    /// The instance that this is.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.0.instance
    }

    fn activate(&self, activation: Activation) -> Result<Activation, RegistryError> {
        // An artifact that is no model must not get into the topic: every instance would refuse it.
        self.load(&activation.model)?;
        self.publish(&Entry::Active(activation.clone()))?;
        // The thread that follows the topic may have read the record and still be loading: who asked is told of what scores.
        self.follow_active();
        Ok(activation)
    }

    /// Writes a record and waits until it has taken effect here.
    fn publish(&self, entry: &Entry) -> Result<(), RegistryError> {
        let value = entry.value();
        let offset = {
            let mut write = lock(&self.0.write);
            (*write)(&entry.key(), value.as_deref(), self.0.clock.now_ms())?
        };
        let clock = &self.0.clock;
        let until_us = clock.monotonic_us() + EFFECT.as_micros() as u64;
        let mut looks = 0;
        while lock(&self.0.view).position() <= offset {
            // A clock that stands still (a test's) must not keep this going for ever.
            looks += 1;
            if clock.monotonic_us() > until_us || looks > 1_000 {
                return Err(RegistryError::Pending);
            }
            self.look(Duration::from_millis(10))?;
        }
        Ok(())
    }
}
