//! What settings mean for how the instance works: its workers, its copies, what it says of itself.

use topology::standby::StandbyConfig;
use topology::topology::{SubTopology, Topology};

use super::{TOMBSTONE_RETENTION_MS, workers};
use crate::broker::kafka::KafkaConfig;
use crate::config::{BrokerKind, Budget, ProcessingGuarantee, Settings, StartFrom};
use crate::membership::Introduction;

/// How long the group waits for a silent member.
pub(super) fn session_ms(settings: &Settings) -> u64 {
    if settings.broker == BrokerKind::Embedded {
        return u64::MAX;
    }
    let set = settings.kafka.iter().find(|(property, _)| *property == "session.timeout.ms");
    set.and_then(|(_, value)| value.parse().ok()).unwrap_or(KafkaConfig::default().session_timeout_ms)
}

/// How the workers work.
pub(super) fn plan(
    settings: &Settings,
    topology: &Topology,
    name: &str,
    budget: &Budget,
    lead_partitions: u32,
    dead_letter_max_bytes: usize,
) -> workers::Plan {
    workers::Plan {
        application: topology.application().to_owned(),
        instance: name.to_owned(),
        count: settings.worker_count() as usize,
        exactly_once: settings.processing_guarantee == ProcessingGuarantee::ExactlyOnce,
        commit_interval_ms: settings.commit_interval_ms,
        transaction_timeout_ms: settings.transaction_timeout_ms,
        // One instance may have to hold all partitions.
        cache_bytes: budget.profiles / lead_partitions.max(1) as usize,
        poll_bytes: budget.poll,
        start_from: match settings.start_from {
            StartFrom::Refuse => topology::restore::StartFrom::Refuse,
            StartFrom::Changelog => topology::restore::StartFrom::Changelog,
            StartFrom::Earliest => topology::restore::StartFrom::Earliest,
        },
        dead_letter_max_bytes,
        leave_for_good: settings.leave_on_stop,
        leads: topology.subs().iter().map(SubTopology::lead).collect(),
    }
}

/// How copies are kept.
pub(super) fn standby(plan: &workers::Plan, settings: &Settings) -> StandbyConfig {
    StandbyConfig {
        exactly_once: plan.exactly_once,
        tombstone_retention_ms: TOMBSTONE_RETENTION_MS,
        cleanup_delay_ms: settings.state_cleanup_delay_s.saturating_mul(1000),
    }
}

/// What this instance says of itself on the members topic.
pub(super) fn introduction(plan: &workers::Plan, topology: &Topology, settings: &Settings) -> Introduction {
    Introduction {
        instance: plan.instance.clone(),
        workers: (0..plan.count).map(|index| plan.transactional_id(index)).collect(),
        beat_ms: settings.member_beat_ms,
        topic: topology.members().expect("invariant: the scoring topology has a members topic"),
        users: (topology.subs().len() - 1) as u16,
    }
}
