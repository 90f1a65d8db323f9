//! An instance: the one place where parts are put together, started and stopped.
//!
//! ```text
//!  identity (locked folder) -> topics -> store (RocksDB) -> models -> workers (a thread each) -> ready ... draining -> last commits -> closed
//! ```

mod ends;
mod evicting;
mod gate;
mod identity;
mod ingestion;
mod models;
mod notes;
mod notify;
mod opening;
mod parts;
mod plans;
mod restore_view;
mod slot;
mod standbys;
mod steps;
mod store;
mod topics;
mod training;
mod workers;

#[cfg(test)]
mod failing_workers;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use state::backend::Backend;
use state::rocks::RocksOptions;
use state::tiered::Tiered;
use topology::broker::Broker;
use topology::clock::Clock;
use topology::metrics::Metrics;
use topology::record::{TopicId, Topics};
use topology::standby::Standbys;
use topology::status::Tasks;
use topology::topology::Topology;
use topology::worker::Parts;
use tracing::info;

use crate::clock::RealClock;
use crate::config::{Budget, Role, Settings};
use crate::ingest::Ingest;
use crate::labels::Labels;
use crate::live::{Live, Places};
use crate::membership::{Directory, Herald};
use crate::orders::Orders;
use crate::projection::{self, Projection};
use crate::redrive;
use crate::registry::Registry;
use crate::scoring::{ModelSlot, ScoringParams, scoring_topology};
use crate::snoozes::Snoozes;
use crate::tiers::{Tiers, Unreachable};

use ends::Ends;
pub use identity::Identity;
pub use notify::{sender as notification_sender, targets as notification_targets, topic as notifications_topic};
use opening::State;
pub use parts::{application, load_model, save_model, scoring_params, topic_names};
use plans::{introduction, plan, session_ms, standby};
pub use restore_view::RestoreView;
pub use topics::{Creation, Found, TOMBSTONE_RETENTION_MS, check_partitions, ensure};
pub use training::first_order;
pub use workers::Workers;

pub use crate::stop::Stop;

/// The end of the announcements may take this long: it is a hint for the others.
const GOODBYE: Duration = Duration::from_millis(1000);

/// Why an instance cannot start or go on; for a person, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InstanceError(pub String);

impl From<Unreachable> for InstanceError {
    fn from(why: Unreachable) -> Self {
        Self(why.0)
    }
}

impl From<InstanceError> for crate::failure::Failure {
    fn from(error: InstanceError) -> Self {
        Self::new(error.0)
    }
}

/// What an instance is made of before it has a broker.
#[derive(Debug)]
pub struct Blueprint {
    /// The topology to run.
    pub topology: Arc<Topology>,
    /// The model that scores.
    pub model: ModelSlot,
    /// What scoring depends on.
    pub params: ScoringParams,
}

impl Blueprint {
    /// From settings: the topology, with no model yet.
    ///
    /// # Errors
    /// Names that collide; a table of rates that cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, InstanceError> {
        let params = scoring_params(settings, None)?;
        let model = ModelSlot::default();
        let topology = scoring_topology(&application(settings), &topic_names(settings), &params, &model);
        let topology = Arc::new(topology.map_err(|why| InstanceError(why.to_string()))?);
        Ok(Self { topology, model, params })
    }

    /// The table of topics that the broker needs: the topology's, and behind them what redriving takes.
    #[must_use]
    pub fn topics(&self) -> Topics {
        redrive::Places::of(&self.topology).map_or_else(|| self.topology.topics().clone(), |places| places.topics())
    }
}

/// A running instance.
pub struct Instance {
    /// Its name.
    pub name: String,
    /// The topology it runs.
    pub topology: Arc<Topology>,
    /// The model that scores.
    pub model: ModelSlot,
    /// The models there are.
    pub registry: Registry,
    /// Resets and erasures.
    pub orders: Orders,
    /// Trainings under way and past.
    pub training: training::Training,
    /// What people found out.
    pub labels: Labels,
    /// Who is left alone.
    pub snoozes: Snoozes,
    /// Profiles and history outside of this machine.
    pub tiers: Tiers,
    /// The store where profiles leave this machine; none where they all stay.
    pub tiered: Option<Arc<Tiered>>,
    evicting: Option<evicting::Evicting>,
    /// What scoring depends on.
    pub params: ScoringParams,
    /// Partitions of each topic.
    pub partitions: Vec<u32>,
    /// Where state is kept.
    pub backend: Arc<dyn Backend>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What the tasks are doing.
    pub tasks: Arc<Tasks>,
    /// What people look at and send back, whichever instance has it.
    pub shared: Shared,
    /// Health, as probes see it.
    pub health: Arc<crate::api::Health>,
    /// Where a demo puts what starts and stops its synthetic load.
    pub load: Arc<OnceLock<crate::load::Control>>,
    started_at_ms: i64,
    projecting: Arc<projection::Status>,
    projection: Projection,
    ends: Ends,
    notifying: Option<notify::Notifying>,
    workers: Workers,
    herald: Herald,
    /// Where HTTP is served.
    ingest: Ingest,
    /// None without the role `stream`.
    copying: Option<standbys::Copying>,
    leave_for_good: bool,
    _identity: Identity,
}

impl Instance {
    /// Starts the workers on a broker. Waits for the broker as long as `stop` is not raised; none where it was raised first.
    ///
    /// # Errors
    /// [`InstanceError`] says what is missing or wrong.
    pub fn start<B: Broker>(
        settings: &Settings,
        blueprint: Blueprint,
        identity: Identity,
        broker: &Arc<B>,
        stop: &Stop,
    ) -> Result<Option<Self>, InstanceError> {
        let Blueprint { topology, model, params } = blueprint;
        let creation = Creation { allowed: settings.create_topics, partitions: settings.topic_partitions };
        let Some(found) = ensure(broker, &topology, creation, &|| stop.raised())? else { return Ok(None) };
        let Found { partitions, dead_letter_max_bytes } = found;
        let budget = budget(settings)?;
        let tiers = Tiers::open(settings, topology.application())?;
        let metrics: Arc<Metrics> = Arc::default();
        let lead_partitions = partitions[usize::from(topology.subs().last().map_or(TopicId(0), |sub| sub.lead()).0)];
        let plan = plan(settings, &topology, &identity.name, &budget, lead_partitions, dead_letter_max_bytes);
        (0..plan.count).for_each(|index| broker.prepare(&plan.member(index)));
        let stores = RocksOptions { memory_bytes: budget.state, partitions: lead_partitions as usize, ..RocksOptions::default() };
        // Before any worker: a restart goes on with the active model, not with none.
        let models = || models::start(settings, broker, &topology, &model, &identity.name, stop);
        let state = opening::open(settings, &identity, &topology, stores, &metrics, stop, models)?;
        let Some(State { backend, registry, outside }) = state else { return Ok(None) };
        let clock = Arc::new(RealClock);
        let health = Arc::new(crate::api::Health::new(plan.count, clock.monotonic_us() / 1000, settings.stall_ms));
        let parts = Parts {
            topology: Arc::clone(&topology),
            partitions: partitions.clone(),
            backend: Arc::clone(&backend),
            clock,
            metrics: Arc::clone(&metrics),
            tasks: Arc::default(),
        };
        let tasks = Arc::clone(&parts.tasks);
        let herald = Herald::start(broker, introduction(&plan, &topology, settings), &tasks, &parts.clock);
        let copying = settings.roles.plays(Role::Stream).then(|| copying(settings, broker, &parts, &plan, &herald));
        let workers = Workers::start(broker, &parts, &plan, &herald.predecessors(), &health);
        let tiered = outside.as_ref().map(|outside| Arc::clone(&outside.tiered));
        let evicting = outside.map(|outside| evicting::Evicting::start(outside, &tasks, settings.state_ttl_s));
        let training = training::start(settings, broker, &topology, &tasks, &registry, &params, stop)?;
        let notes::Notes { labels, snoozes } = notes::start(settings, broker, &topology, &partitions, &params, stop);
        let orders = Orders::new(broker, &topology);
        let notifying = notify::start(settings, broker, &topology, &identity.name, &snoozes)?;
        let ingest = ingestion::start(settings, broker, &topology, &partitions, &params, herald.directory(), budget.ids);
        let projecting = Arc::default();
        let projection = Projection::start(settings, broker, &topology, &params, &identity.name, &projecting)?;
        let ends = Ends::follow(broker, &tasks, &health);
        Ok(Some(Self {
            shared: Shared::new(settings, broker, &parts),
            projecting,
            projection,
            ends,
            notifying,
            name: identity.name.clone(),
            topology,
            model,
            registry,
            orders,
            training,
            labels,
            snoozes,
            tiers,
            tiered,
            evicting,
            params,
            partitions,
            backend,
            metrics,
            tasks,
            health,
            load: Arc::default(),
            started_at_ms: crate::clock::now_ms(),
            workers,
            herald,
            ingest,
            copying,
            leave_for_good: settings.leave_on_stop,
            _identity: identity,
        }))
    }

    /// What the HTTP interface shows of this instance.
    #[must_use]
    pub fn api(&self, settings: &Settings) -> crate::api::Api {
        crate::api::Api {
            instance: self.name.clone(),
            guarantee: settings.processing_guarantee,
            topology: Arc::clone(&self.topology),
            partitions: self.partitions.clone(),
            tasks: Arc::clone(&self.tasks),
            metrics: Arc::clone(&self.metrics),
            backend: Arc::clone(&self.backend),
            model: self.model.clone(),
            registry: self.registry.clone(),
            orders: self.orders.clone(),
            jobs: self.training.jobs.clone(),
            retraining: self.training.retraining.clone(),
            labels: self.labels.clone(),
            snoozes: self.snoozes.clone(),
            notifications: self.notifying.as_ref().map(notify::Notifying::front),
            tiers: self.tiers.clone(),
            tiered: self.tiered.clone(),
            projection: Arc::clone(&self.projecting),
            params: self.params.clone(),
            load: Arc::clone(&self.load),
            ingest: self.ingest.clone(),
            directory: self.directory(),
            session_ms: session_ms(settings),
            health: Arc::clone(&self.health),
            live: self.shared.live.clone(),
            dead_letters: self.shared.dead_letters.clone(),
            clock: Arc::new(RealClock),
            started_at_ms: self.started_at_ms,
            log_key: settings.user_hash_key.as_deref().map_or_else(crate::random::secret, |key| Sha256::digest(key).into()),
        }
    }

    /// What is known of all instances of the application.
    #[must_use]
    pub fn directory(&self) -> Arc<dyn Directory> {
        self.herald.directory()
    }

    /// Others may call this instance at this `host:port` from now on.
    pub fn serves_at(&self, endpoint: &str) {
        self.herald.serves_at(endpoint);
    }

    /// The lead topic of scoring: whose partition holds a user.
    #[must_use]
    pub fn user_topic(&self) -> TopicId {
        self.topology.subs().last().expect("invariant: a topology has a sub-topology").lead()
    }

    /// Without workers the start is over once the other instances are known: an announcement of its own was read back, and so all before
    /// it. Call it now and then.
    pub fn look_around(&self) {
        if self.workers.is_empty() && !self.health.is_started() {
            let directory = self.directory();
            if directory.members().iter().any(|peer| peer.instance == self.name) {
                self.health.started();
            }
        }
    }

    /// Why a worker stopped for good, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.workers.failure()
    }

    /// Drains: not ready from now on; workers commit what is done and leave, within the time given.
    ///
    /// # Errors
    /// A worker's failure, or workers that did not end in time.
    pub fn stop(self, within: Duration) -> Result<(), InstanceError> {
        self.health.drain();
        self.ends.tell();
        self.shared.live.stop();
        self.projection.tell();
        let began = crate::clock::monotonic();
        if let Some(notifying) = &self.notifying {
            notifying.tell();
        }
        if let Some(evicting) = self.evicting {
            evicting.stop(GOODBYE);
        }
        let stopped = self.workers.stop(within);
        let latency = self.metrics.latency();
        if let Some(slowest) = latency.all() {
            info!(%slowest, historical = latency.historical(), "latency since the start");
        }
        drop(latency);
        if let Some(notifying) = self.notifying {
            notifying.wait(GOODBYE);
        }
        if let Some(copying) = self.copying {
            copying.stop(GOODBYE);
        }
        self.herald.stop(self.leave_for_good && stopped.is_ok(), GOODBYE);
        self.projection.wait(within.saturating_sub(crate::clock::since(began)));
        self.ends.wait(within.saturating_sub(crate::clock::since(began)));
        stopped
    }
}

/// What is in topics for all instances alike.
pub struct Shared {
    /// The verdicts as they come: followed while somebody watches.
    pub live: Live,
    /// The dead letters; none where the topology has none.
    pub dead_letters: Option<redrive::Desk>,
}

impl Shared {
    fn new<B: Broker>(settings: &Settings, broker: &Arc<B>, parts: &Parts) -> Self {
        let find = |name: &str| parts.topology.topics().find(name).expect("invariant: the scoring topology has its topics");
        let places = Places { verdicts: find(&settings.verdicts_topic), anomalies: find(&settings.anomalies_topic) };
        Self {
            live: Live::new(broker, places, Arc::clone(&parts.clock) as Arc<dyn Clock>, Arc::clone(&parts.metrics)),
            dead_letters: redrive::Places::of(&parts.topology).map(|places| redrive::Desk::new(broker, places)),
        }
    }
}

/// How the settings divide memory.
///
/// # Errors
/// Where the model's file has outgrown `MEMORY_LIMIT` since the settings were checked.
pub fn budget(settings: &Settings) -> Result<Budget, InstanceError> {
    settings.budget().map_err(|least| {
        InstanceError(format!(
            "MEMORY_LIMIT is too small for the workers and the model: {} MiB are needed",
            least.div_ceil(1 << 20)
        ))
    })
}

/// Begins to keep copies of what others have.
fn copying<B: Broker>(
    settings: &Settings,
    broker: &Arc<B>,
    parts: &Parts,
    plan: &workers::Plan,
    herald: &Herald,
) -> standbys::Copying {
    let wanted = herald.copies_to_keep(Standbys::<B>::candidates(parts), settings.standby_replicas as usize);
    standbys::Copying::start(broker, parts, standby(plan, settings), wanted)
}
