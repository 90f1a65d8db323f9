//! Topics at start: what exists is checked, what is missing is created where allowed.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use topology::broker::{Broker, BrokerError, Cleanup, Reaction, TopicInfo, TopicSpec};
use topology::record::TopicId;
use topology::topology::Topology;
use tracing::{info, warn};

use super::InstanceError;
use crate::threads::spawn;
use crate::trouble::Trouble;

/// Milliseconds that a changelog keeps tombstones: a store on disk that is older is rebuilt.
pub const TOMBSTONE_RETENTION_MS: u64 = 7 * 24 * 3_600_000;
/// What a dead letter or a repartitioned record may be larger than the input's record: our headers.
const WRAPPED_EXTRA: u32 = 16 << 10;
/// Kafka's own default for `max.message.bytes`.
const DEFAULT_MESSAGE_BYTES: u32 = 1_048_588;
/// Between two attempts to reach a broker that does not answer.
const RETRY: Duration = Duration::from_secs(2);
/// How soon a stop is noticed.
const LOOK: Duration = Duration::from_millis(50);

/// What the broker has, as the engine needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Partitions of each topic of the topology's table.
    pub partitions: Vec<u32>,
    /// The largest record that the dead letters take.
    pub dead_letter_max_bytes: usize,
}

/// What may be created.
#[derive(Clone, Copy, Debug)]
pub struct Creation {
    /// Whether anything may.
    pub allowed: bool,
    /// Partitions of an input that does not exist yet.
    pub partitions: u32,
}

/// Describes, creates and checks all topics of a topology. While the broker does not answer, says so and tries again; none once
/// `stopped`.
///
/// # Errors
/// Missing topics that may not be created, partition counts that do not match, a refusal of the broker.
pub fn ensure<B: Broker>(
    broker: &Arc<B>,
    topology: &Topology,
    creation: Creation,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Found>, InstanceError> {
    let Some(mut infos) = describe(broker, topology, stopped)? else { return Ok(None) };
    let missing: Vec<TopicId> =
        topology.topics().iter().map(|(topic, _)| topic).filter(|topic| infos[usize::from(topic.0)].is_none()).collect();
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|&topic| topology.topics().name(topic)).collect();
        if !creation.allowed {
            return Err(InstanceError(format!(
                "these topics do not exist: {}. Create them, or set CREATE_TOPICS=true",
                names.join(", ")
            )));
        }
        for spec in specs(topology, &infos, creation.partitions) {
            info!(topic = spec.name, partitions = spec.partitions, "creating a topic");
            if retry(broker, stopped, move |broker| broker.create(&spec))?.is_none() {
                return Ok(None);
            }
        }
        let Some(all) = await_all(broker, topology, stopped)? else { return Ok(None) };
        infos = all;
    }
    let infos: Vec<TopicInfo> = infos.into_iter().flatten().collect();
    let partitions: Vec<u32> = infos.iter().map(|info| info.partitions).collect();
    check_partitions(topology, &partitions)?;
    let dead = topology.dead_letters().and_then(|topic| infos[usize::from(topic.0)].max_message_bytes);
    Ok(Some(Found { partitions, dead_letter_max_bytes: dead.unwrap_or(DEFAULT_MESSAGE_BYTES) as usize }))
}

/// A created topic shows up in the metadata a little later.
fn await_all<B: Broker>(
    broker: &Arc<B>,
    topology: &Topology,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Vec<Option<TopicInfo>>>, InstanceError> {
    for _ in 0..100 {
        let Some(infos) = describe(broker, topology, stopped)? else { return Ok(None) };
        if infos.iter().all(Option::is_some) {
            return Ok(Some(infos));
        }
        pause(Duration::from_millis(100));
    }
    Err(InstanceError("topics that were created do not show up in the broker's metadata".into()))
}

fn describe<B: Broker>(
    broker: &Arc<B>,
    topology: &Topology,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Vec<Option<TopicInfo>>>, InstanceError> {
    let topics: Vec<TopicId> = topology.topics().iter().map(|(topic, _)| topic).collect();
    retry(broker, stopped, move |broker| broker.describe(&topics))
}

/// None where `stopped` came before an answer.
fn retry<B: Broker, T: Send + 'static>(
    broker: &Arc<B>,
    stopped: &dyn Fn() -> bool,
    question: impl Fn(&B) -> Result<T, BrokerError> + Clone + Send + 'static,
) -> Result<Option<T>, InstanceError> {
    let mut trouble = Trouble::default();
    loop {
        match ask(broker, stopped, question.clone()) {
            None => return Ok(None),
            Some(Ok(answer)) => return Ok(Some(answer)),
            Some(Err(BrokerError { reaction: Reaction::Retry, what })) => {
                if trouble.is_news(&what) {
                    warn!(what, "the broker does not answer; trying again");
                }
                let until = crate::clock::monotonic() + RETRY;
                while !stopped() && crate::clock::monotonic() < until {
                    pause(LOOK);
                }
            }
            Some(Err(why)) => return Err(InstanceError(why.to_string())),
        }
    }
}

/// Asks beside this thread: an answer may take as long as the broker's time-outs, and who is told to stop waits for none of them.
fn ask<B: Broker, T: Send + 'static>(
    broker: &Arc<B>,
    stopped: &dyn Fn() -> bool,
    question: impl FnOnce(&B) -> Result<T, BrokerError> + Send + 'static,
) -> Option<Result<T, BrokerError>> {
    let (answer, answered) = sync_channel(1);
    let broker = Arc::clone(broker);
    // An answer that nobody waits for any more is dropped.
    spawn("asking", move || drop(answer.send(question(&broker))));
    loop {
        match answered.recv_timeout(LOOK) {
            Ok(answer) => return Some(answer),
            Err(RecvTimeoutError::Timeout) if stopped() => return None,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("invariant: asking does not panic"),
        }
    }
}

/// Start-up: nothing else is to be done until the broker answers.
fn pause(time: Duration) {
    std::thread::park_timeout(time);
}

/// How each missing topic is to be created.
fn specs(topology: &Topology, infos: &[Option<TopicInfo>], default_partitions: u32) -> Vec<TopicSpec> {
    let known = |topic: TopicId| infos[usize::from(topic.0)].as_ref();
    let changelogs: Vec<TopicId> = topology.changelogs().collect();
    let lead_partitions = |topic: TopicId| {
        let sub = topology.subs().iter().find(|sub| {
            sub.inputs.contains(&topic) || sub.decisions == Some(topic) || sub.stores.iter().any(|store| store.changelog == topic)
        });
        sub.and_then(|sub| known(sub.lead())).map(|info| info.partitions)
    };
    // Outputs follow the first input, so that a user's records are in one partition number everywhere.
    let first = known(topology.subs()[0].lead()).map(|info| info.partitions);
    let input_bytes = known(topology.subs()[0].lead()).and_then(|info| info.max_message_bytes);
    let spec = |(topic, name): (TopicId, &str)| {
        let is_global = topology.globals().contains(&topic) || Some(topic) == topology.members();
        let partitions = if is_global { 1 } else { lead_partitions(topic).or(first).unwrap_or(default_partitions) };
        let cleanup = if changelogs.contains(&topic) || is_global {
            Cleanup::Compact { tombstone_retention_ms: TOMBSTONE_RETENTION_MS }
        } else {
            Cleanup::Delete { retention_ms: None }
        };
        let wraps = Some(topic) == topology.dead_letters() || is_repartition(topology, topic);
        let max_message_bytes = wraps.then(|| input_bytes.unwrap_or(DEFAULT_MESSAGE_BYTES).saturating_add(WRAPPED_EXTRA));
        TopicSpec { name: name.to_owned(), partitions, cleanup, max_message_bytes }
    };
    topology.topics().iter().filter(|&(topic, _)| known(topic).is_none()).map(spec).collect()
}

/// A topic between two sub-topologies holds records of the input as they are, and headers of ours.
fn is_repartition(topology: &Topology, topic: TopicId) -> bool {
    let subs = topology.subs();
    subs.iter().any(|sub| sub.outputs.contains(&topic)) && subs.iter().any(|sub| sub.inputs.contains(&topic))
}

/// Co-partitioned topics must agree; a changelog and the decisions must have as many partitions as their lead.
///
/// # Errors
/// Which ones do not, and what to do.
pub fn check_partitions(topology: &Topology, partitions: &[u32]) -> Result<(), InstanceError> {
    let mut faults = Vec::new();
    let of = |topic: TopicId| partitions[usize::from(topic.0)];
    let name = |topic: TopicId| topology.topics().name(topic);
    for sub in topology.subs() {
        let lead = sub.lead();
        let internal = sub.stores.iter().map(|store| store.changelog).chain(sub.decisions);
        for topic in sub.inputs.iter().copied().chain(internal) {
            if of(topic) != of(lead) {
                faults.push(format!("`{}` has {} partitions, `{}` has {}", name(topic), of(topic), name(lead), of(lead)));
            }
        }
    }
    for &topic in topology.globals().iter().filter(|&&topic| of(topic) != 1) {
        faults.push(format!(
            "`{}` has {} partitions, and must have 1: order between its records matters",
            name(topic),
            of(topic)
        ));
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(InstanceError(format!(
        "topics that belong together have different numbers of partitions: {}. Re-create the wrong ones with the lead topic's number; if \
         the lead topic grew, keys live in other partitions now: let the co-partitioned inputs grow as well, move the state to a new \
         APPLICATION_ID by `mangrove migrate --to {} --application NEW_ID`, and start the instances under that one",
        faults.join("; "),
        of(topology.subs()[0].lead())
    )))
}
