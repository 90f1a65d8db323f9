//! The projection: topics into tiers, beside scoring and never in its way.
//!
//! ```text
//! changelog             -> Warm (Redis)       group <app>-projection-redis      a thread each, and a group each, so that
//! all of them           -> Cold (Postgres)    group <app>-projection-postgres   one that is down holds up only itself
//! ```
//!
//! All of them: changelog, decisions (of which erasures reach the rows), verdicts, labels, models, notifications, audit.
//!
//! The group only shares out partitions. How far a partition has come lies in the tier itself, written with the rows: `follower` reads it
//! before it reads the topic, again after every trouble, and now and then. So there is one way back from anything: outages of either
//! side, a rebalance, a tier that was restarted empty or from an old backup, a topic that was created anew.
//!
//! | file | role |
//! |---|---|
//! | `mod` | threads |
//! | `follower` | the loop of one tier |
//! | `place` | where to go on, decided from what tier and topic say; pure |
//! | `records` | what a record of the registry, the notifier or the trail has for a row |
//! | `sink` | a batch of records into rows of Redis or Postgres |
//! | `status` | how it is, for metrics and people |
//!
//! The offsets that the groups commit are for people's tools; nothing reads them.

mod follower;
mod place;
mod records;
mod sink;
mod status;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use topology::broker::{Broker, MemberConfig};
use topology::topology::Topology;
use tracing::warn;

use crate::clock::monotonic;
use crate::config::{Role, Settings};
use crate::scoring::ScoringParams;
use crate::stop::Stop;
use crate::threads::{ended_by, spawn};
use crate::tiers::{Cold, ColdOptions, Unreachable, WRITE_TIMEOUT, Warm, WarmOptions, Writer};

use follower::Follower;
pub use follower::FollowerConfig;
pub use sink::{ColdSink, Sink, Sources, WarmSink};
pub use status::{Lag, Status, TierState, TierView};

/// Running threads, one for each tier.
pub struct Projection {
    threads: Vec<JoinHandle<()>>,
    stop: Stop,
}

impl Projection {
    /// Starts a thread for each tier that the settings name, where the instance has the role; `instance` names this one among those of the application.
    ///
    /// # Errors
    /// An address that a client cannot use.
    pub fn start<B: Broker>(
        settings: &Settings,
        broker: &Arc<B>,
        topology: &Topology,
        params: &ScoringParams,
        instance: &str,
        status: &Arc<Status>,
    ) -> Result<Self, Unreachable> {
        let application = topology.application();
        let sources = Sources::of(topology, &settings.verdicts_topic, &settings.labels_topic, &settings.models_topic);
        let currency = crate::portrait::currency(params);
        let mut running = Self::none();
        if !settings.roles.plays(Role::Projection) {
            return Ok(running);
        }
        let config = |tier: &str| FollowerConfig {
            member: MemberConfig {
                group: format!("{application}-projection-{tier}"),
                instance: format!("{application}-{instance}-projection-{tier}"),
                transactional_id: None,
                transaction_timeout_ms: settings.transaction_timeout_ms,
                leads: Vec::new(),
            },
            ..FollowerConfig::default()
        };
        if let Some(url) = &settings.redis_url {
            let options = WarmOptions { timeout: WRITE_TIMEOUT, ..WarmOptions::default() };
            let warm = Warm::open(url, application, options)?;
            let sink = WarmSink::new(warm, sources.clone(), currency.clone());
            running.spawn(broker, sink, config("redis"), status.tier("redis"));
        }
        if let Some(url) = &settings.database_url {
            let options = ColdOptions { connections: 1, statement_timeout: WRITE_TIMEOUT, ..ColdOptions::default() };
            let writer = Writer::new(Cold::open(url, application, &options)?, settings.history_days);
            let sink = ColdSink::new(writer, sources, currency);
            running.spawn(broker, sink, config("postgres"), status.tier("postgres"));
        }
        Ok(running)
    }

    /// Runs a sink of the caller's own: what [`Self::start`] does for each tier.
    pub fn spawn<B: Broker>(&mut self, broker: &Arc<B>, sink: impl Sink, config: FollowerConfig, state: Arc<TierState>) {
        let (broker, stop) = (Arc::clone(broker), self.stop.clone());
        let name = format!("projection-{}", state.name());
        let run = move || Follower::new(broker, sink, config, state).run(&stop);
        self.threads.push(spawn(name, run));
    }

    /// None that runs yet.
    #[must_use]
    pub fn none() -> Self {
        Self { threads: Vec::new(), stop: Stop::default() }
    }

    /// Tells the threads to end.
    pub fn tell(&self) {
        self.stop.raise();
        for thread in &self.threads {
            thread.thread().unpark();
        }
    }

    /// Waits for their end, as long as given: what was not written is written after the next start.
    pub fn wait(self, within: Duration) {
        let until = monotonic() + within;
        for thread in self.threads {
            if ended_by(&thread, until) && thread.join().is_err() {
                warn!("a thread of the projection panicked");
            }
        }
    }
}
