//! What people watch live: one reader of the verdicts for all who watch an instance, and looks back into the topics.
//!
//! ```text
//! verdicts -> follower (one thread, while anyone watches) -> recent ones, figures by second (bounded) -> broadcast -> watchers
//! ```
//!
//! The topics are the memory: nothing is read while nobody watches, and whoever comes first is given what the topics' ends hold. A
//! watcher that cannot keep up loses its place in the broadcast, and comes back to where it was by reading the topic from there.
//! Verdicts are those of all instances, committed ones only; the time of commits is this instance's own.
//! Limits: see the constants; partitions that the topic gets later are seen once nobody has watched for a while.

mod figures;
mod follower;
mod source;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use models::Verdict;
use serde_json::value::RawValue;
use tokio::sync::broadcast;
use topology::broker::{Broker, BrokerError, Reaction, Result};
use topology::clock::Clock;
use topology::metrics::Metrics;
use topology::partitioner::partition_of;
use topology::record::TopicId;

use crate::tap::Filter;

pub use figures::Second;
pub use source::Look;

use source::{OnBroker, Source};

/// Verdicts kept, and as many anomalies.
pub const KEPT: usize = 2_000;
/// Seconds of figures kept.
pub const SECONDS: usize = 900;
/// Events that a watcher may be behind.
const BEHIND_MAX: usize = 4_096;
/// The follower ends when nobody has watched for so long.
const IDLE: Duration = Duration::from_secs(120);
/// For the follower to have read what was there before.
const WARM_MAX: Duration = Duration::from_secs(3);

/// A verdict and where it lies in the verdicts topic.
#[derive(Debug)]
pub struct Seen {
    /// Its partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// What was said.
    pub verdict: Verdict,
    /// The same, as on the wire.
    pub json: Box<RawValue>,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A verdict.
    Verdict(Arc<Seen>),
    /// A second is over.
    Second(Arc<Second>),
}

/// A view of what was seen.
#[derive(Debug, Default)]
pub struct View {
    /// By partition of the verdicts topic, the offset behind the last verdict seen.
    pub places: Vec<u64>,
    /// The newest verdicts, oldest first.
    pub recent: VecDeque<Arc<Seen>>,
    /// The newest anomalies, oldest first: those that are in the anomalies topic already, and those seen since.
    pub anomalies: VecDeque<Arc<Seen>>,
    /// Figures of the last seconds, oldest first.
    pub seconds: VecDeque<Arc<Second>>,
}

#[derive(Default)]
struct State {
    view: View,
    running: bool,
    warm: bool,
    watched: Duration,
    failure: Option<BrokerError>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    events: broadcast::Sender<Event>,
    stop: AtomicBool,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.clock.monotonic_us())
    }
}

/// See the module's header. Clones are the same.
#[derive(Clone)]
pub struct Live {
    shared: Arc<Shared>,
    source: Arc<dyn Source>,
}

/// The topics that are watched.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Where verdicts are.
    pub verdicts: TopicId,
    /// Where those that are anomalies are again.
    pub anomalies: TopicId,
}

impl Live {
    /// Over these topics; reads nothing yet.
    #[must_use]
    pub fn new<B: Broker>(broker: &Arc<B>, places: Places, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let (events, _) = broadcast::channel(BEHIND_MAX);
        let (state, changed, stop) = Default::default();
        let shared = Arc::new(Shared { state, changed, events, stop, clock, metrics });
        Self { shared, source: Arc::new(OnBroker { broker: Arc::clone(broker), places }) }
    }

    /// Shows what was seen. The follower is started where it does not run, and waited for until it has read what was there before:
    /// this call may block.
    ///
    /// # Errors
    /// The broker's.
    pub fn view<T>(&self, show: impl FnOnce(&View) -> T) -> Result<T> {
        Ok(show(&self.warm()?.view))
    }

    /// Events from now on, and for each partition the place that they begin at. May block as [`Self::view`].
    ///
    /// # Errors
    /// The broker's.
    pub fn watch(&self) -> Result<(broadcast::Receiver<Event>, Vec<u64>)> {
        let state = self.warm()?;
        Ok((self.shared.events.subscribe(), state.view.places.clone()))
    }

    /// Reads a user's latest verdicts from the topic, those that `filter` takes.
    ///
    /// # Errors
    /// The broker's.
    pub fn of_user(&self, user: &str, filter: &Filter, most: usize) -> Result<Look> {
        let own = |partition, count| partition == partition_of(user.as_bytes(), count);
        self.source.look_back(&own, &|verdict| verdict.user_id == user && filter.takes(verdict), most)
    }

    /// Reads the verdict of this id from the topic, where it is among the last ones of that partition.
    ///
    /// # Errors
    /// The broker's.
    pub fn find(&self, id: &str, partition: u32) -> Result<Look> {
        self.source.look_back(&|of, _| of == partition, &|verdict| verdict.id == id, 1)
    }

    /// Reads the verdicts from these places up to `to`, those that `filter` takes: what a watcher has missed.
    ///
    /// # Errors
    /// The broker's.
    pub fn missed(&self, from: &[u64], to: &[u64], filter: &Filter) -> Result<Look> {
        self.source.between(from, to, &|verdict| filter.takes(verdict))
    }

    /// Ends the follower, soon.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    fn warm(&self) -> Result<MutexGuard<'_, State>> {
        let shared = &self.shared;
        let mut state = shared.lock();
        state.watched = shared.now();
        if !state.running && !shared.stop.load(Ordering::Acquire) {
            *state = State { running: true, watched: state.watched, ..State::default() };
            let (theirs, source) = (Arc::clone(shared), Arc::clone(&self.source));
            let thread = std::thread::Builder::new().name("live".to_owned()).spawn(move || follower::run(&theirs, &*source));
            if let Err(why) = thread {
                state.running = false;
                return Err(BrokerError::new(Reaction::Retry, format!("cannot start a thread: {why}")));
            }
        }
        let cold = |state: &mut State| !state.warm && state.failure.is_none();
        let (state, _) = shared.changed.wait_timeout_while(state, WARM_MAX, cold).unwrap_or_else(PoisonError::into_inner);
        match &state.failure {
            Some(why) => Err(why.clone()),
            None if state.warm => Ok(state),
            None => Err(BrokerError::new(Reaction::Retry, "the ends of the topics are not read yet")),
        }
    }

    /// False where the verdicts are no longer followed: who watches must begin again.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.shared.lock().running
    }
}
