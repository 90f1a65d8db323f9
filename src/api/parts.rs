//! What the interface is put together from.

use std::sync::{Arc, OnceLock};

use state::backend::Backend;
use state::tiered::Tiered;
use topology::clock::Clock;
use topology::metrics::Metrics;
use topology::status::Tasks;
use topology::topology::Topology;

use super::health::Health;
use crate::config::{ApiToken, ProcessingGuarantee};
use crate::ingest::Ingest;
use crate::labels::Labels;
use crate::live::Live;
use crate::membership::Directory;
use crate::notify::Notifications;
use crate::orders::Orders;
use crate::projection;
use crate::redrive::Desk;
use crate::registry::Registry;
use crate::retraining::Retraining;
use crate::scoring::{ModelSlot, ScoringParams};
use crate::snoozes::Snoozes;
use crate::tiers::Tiers;
use crate::tls::Tls;
use crate::training::jobs::Jobs;

/// Who may come in, and how often.
#[derive(Clone, Debug, Default)]
pub struct Doors {
    /// Without any, only this machine is answered.
    pub tokens: Vec<ApiToken>,
    /// Requests a second of each token, and of each address without one; 0 is no limit.
    pub requests_per_second: u32,
    /// Without it, plain HTTP.
    pub tls: Option<Tls>,
    /// The instance does not play the role `api`: besides probes and metrics it answers other instances only.
    pub peers_only: bool,
}

/// What the interface shows of an instance: shared parts of it, made once by whoever puts the instance together.
pub struct Api {
    /// The instance's id, as in its state folder.
    pub instance: String,
    /// The guarantee it runs under.
    pub guarantee: ProcessingGuarantee,
    /// What it runs.
    pub topology: Arc<Topology>,
    /// How many partitions each topic has, in the order of the topology's table: as [`topology::worker::Parts`] has it.
    pub partitions: Vec<u32>,
    /// What its tasks are doing.
    pub tasks: Arc<Tasks>,
    /// What its workers count.
    pub metrics: Arc<Metrics>,
    /// Where committed state is.
    pub backend: Arc<dyn Backend>,
    /// The model that the stream scores with.
    pub model: ModelSlot,
    /// The models there are.
    pub registry: Registry,
    /// Resets and erasures.
    pub orders: Orders,
    /// Trainings.
    pub jobs: Jobs,
    /// The daily retrain.
    pub retraining: Retraining,
    /// What people found out.
    pub labels: Labels,
    /// Who is left alone.
    pub snoozes: Snoozes,
    /// Who is told of anomalies, and what waits; none where nobody is.
    pub notifications: Option<Notifications>,
    /// Profiles and history outside of this machine, where there are any.
    pub tiers: Tiers,
    /// The store where profiles leave this machine (`STATE_TTL`); none where they all stay.
    pub tiered: Option<Arc<Tiered>>,
    /// How far the tiers are behind.
    pub projection: Arc<projection::Status>,
    /// How the stream scores.
    pub params: ScoringParams,
    /// Synthetic load, where this is a demo.
    pub load: Arc<OnceLock<crate::load::Control>>,
    /// The way into the transactions topic.
    pub ingest: Ingest,
    /// Who has the partitions that this instance has not.
    pub directory: Arc<dyn Directory>,
    /// After so many milliseconds without a step of its worker a task may have been given to another instance unheard: it is not read
    /// as the owner's any more. The group's session time-out; no end where there is no group to be dropped from.
    pub session_ms: u64,
    /// How it is, for probes.
    pub health: Arc<Health>,
    /// The verdicts as they come.
    pub live: Live,
    /// The dead letters; none where the topology has none.
    pub dead_letters: Option<Desk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// When the instance started, in milliseconds since the epoch.
    pub started_at_ms: i64,
    /// Keys the hash that stands for a user's id in log lines. Keep it as secret as a token: ids are guessable.
    pub log_key: [u8; 32],
}
