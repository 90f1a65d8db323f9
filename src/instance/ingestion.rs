//! The way of payments that come over HTTP into the topic.

use std::sync::Arc;

use topology::broker::Broker;
use topology::topology::Topology;

use crate::clock::RealClock;
use crate::config::{BrokerKind, Settings};
use crate::ingest::{Config, Ingest};
use crate::membership::Directory;
use crate::scoring::{ScoringParams, audit_topic};

pub(super) fn start<B: Broker>(
    settings: &Settings,
    broker: &Arc<B>,
    topology: &Topology,
    partitions: &[u32],
    params: &ScoringParams,
    directory: Arc<dyn Directory>,
    dedup_entries: usize,
) -> Ingest {
    let find = |name: &str| topology.topics().find(name).expect("invariant: the topology has its topics");
    let of = |topic: topology::record::TopicId| partitions[usize::from(topic.0)];
    let transactions = find(&settings.transactions_topic);
    let users = topology.subs().last().expect("invariant: a topology has a sub-topology").lead();
    let config = Config {
        transactions,
        partitions: of(transactions),
        trail: find(&audit_topic(topology.application())),
        verdicts: find(&settings.verdicts_topic),
        user_partitions: of(users),
        params: params.clone(),
        dedup_ms: settings.dedup_s * 1000,
        dedup_entries,
        alone: settings.broker == BrokerKind::Embedded,
    };
    Ingest::start(broker, config, directory, Arc::new(RealClock))
}
