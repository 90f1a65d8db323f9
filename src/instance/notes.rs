//! What people say on an instance: labels on verdicts, and who is to be left alone.

use std::sync::Arc;

use topology::broker::Broker;
use topology::topology::Topology;

use super::Stop;
use crate::clock::RealClock;
use crate::config::Settings;
use crate::labels::{LabelTopics, Labels};
use crate::scoring::{ScoringParams, snoozes_topic};
use crate::snoozes::{Erasures, Snoozes};
use crate::threads::spawn;

pub(super) struct Notes {
    pub(super) labels: Labels,
    pub(super) snoozes: Snoozes,
}

/// Follows the snoozes by a thread of its own.
pub(super) fn start<B: Broker>(
    settings: &Settings,
    broker: &Arc<B>,
    topology: &Topology,
    partitions: &[u32],
    params: &ScoringParams,
    stop: &Stop,
) -> Notes {
    let find = |name: &str| topology.topics().find(name).expect("invariant: the topology has the topic");
    let topics = LabelTopics {
        transactions: find(&settings.transactions_topic),
        verdicts: find(&settings.verdicts_topic),
        labels: find(&settings.labels_topic),
    };
    let labels = Labels::new(broker, topics, params.limits());
    let snoozes = Snoozes::new(broker, find(&snoozes_topic(topology.application())), Arc::new(RealClock));
    let erasures = Erasures::new(broker, topology, partitions);
    let (follower, stopped) = (snoozes.clone(), stop.clone());
    spawn("snoozes", move || follower.run(erasures, &|| stopped.raised()));
    Notes { labels, snoozes }
}
