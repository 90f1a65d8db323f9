//! Audits: whether what the log has is what the very same code makes of it again (I4, I6), for whoever asks afterwards.
//!
//! | file | role |
//! |---|---|
//! | `cursor` | reads a partition between two offsets, committed records only |
//! | `fold` | the last value of each key of a changelog, and up to which input position it is complete |
//! | `script` | decisions and the commands they name: the order in which the inputs took effect |
//! | `player` | one task's inputs through the same processor, in that order |
//! | `verify`, `outcomes`, `local` | the comparisons: profiles; verdicts and dead letters; the store on disk |
//! | `compared` | what came of a comparison |
//! | `difference` | how a difference is named |
//! | `find`, `explain` | one past record: its verdict, the score again, the state it met |
//! | `rebuild` | state anew from its changelog, or from payments and decisions |
//!
//! What is compared with what, and why no difference is seen where a running system is merely behind: docs/decisions/0016.

mod compared;
mod cursor;
mod difference;
mod explain;
mod find;
mod fold;
mod local;
mod outcomes;
mod player;
mod rebuild;
mod script;
mod verify;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use topology::broker::{Broker, BrokerError, Reader as _};
use topology::processor::ProcessError;
use topology::record::{TopicId, TopicPartition};
use topology::topology::{SubTopology, TaskId, Topology};

use crate::scoring::{ModelSlot, ScoringParams, TopicNames, scoring_topology};

pub use compared::Compared;
pub(crate) use cursor::Cursor;
pub use difference::{Difference, Naming};
pub use explain::{Explained, Feature, Outcome, Scored, State};
pub use rebuild::{Repair, Replayed};
pub use verify::{PartitionReport, Users};

/// Why an audit cannot be made; for a person. What an audit finds is no error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuditError(pub String);

impl From<BrokerError> for AuditError {
    fn from(error: BrokerError) -> Self {
        Self(error.to_string())
    }
}

impl From<ProcessError> for AuditError {
    fn from(error: ProcessError) -> Self {
        Self(error.to_string())
    }
}

impl From<state::backend::BackendError> for AuditError {
    fn from(error: state::backend::BackendError) -> Self {
        Self(error.to_string())
    }
}

/// `Result` of an audit's step.
pub type Result<T> = std::result::Result<T, AuditError>;

/// A record's place in the log, as people write it: `topic:partition:offset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The topic's name.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// The record's offset.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut parts = text.rsplitn(3, ':');
        let (offset, partition, topic) = (parts.next(), parts.next(), parts.next());
        let place = || {
            let topic = topic.filter(|topic| !topic.is_empty())?.to_owned();
            Some(Self { topic, partition: partition?.parse().ok()?, offset: offset?.parse().ok()? })
        };
        place().ok_or_else(|| "expected TOPIC:PARTITION:OFFSET, as in transactions:3:1205".to_owned())
    }
}

/// Hears how far a step is: its name, the records done and all of them.
pub type Told<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// What audits look at: a broker's topics under an application's settings. Reads only.
pub struct Audit<B: Broker> {
    broker: Arc<B>,
    /// Asked for bounds: making a reader is not free.
    desk: Mutex<B::Reader>,
    application: String,
    names: TopicNames,
    params: ScoringParams,
    exactly_once: bool,
    topology: Arc<Topology>,
    partitions: Vec<u32>,
}

impl<B: Broker> Audit<B> {
    /// Asks the broker for the topics; creates nothing.
    ///
    /// # Errors
    /// A broker that does not answer, topics that do not exist, names that collide.
    pub fn new(
        broker: Arc<B>,
        application: &str,
        names: &TopicNames,
        params: &ScoringParams,
        exactly_once: bool,
    ) -> Result<Self> {
        let topology = scoring_topology(application, names, params, &ModelSlot::default());
        let topology = Arc::new(topology.map_err(|why| AuditError(why.to_string()))?);
        let all: Vec<(TopicId, &str)> = topology.topics().iter().collect();
        let ids: Vec<TopicId> = all.iter().map(|(topic, _)| *topic).collect();
        let infos = broker.describe(&ids)?;
        // Who is a member is no part of what is audited.
        let needed = |topic: TopicId| Some(topic) != topology.members();
        let absent = all.iter().zip(&infos).filter(|((topic, _), info)| info.is_none() && needed(*topic));
        let missing: Vec<&str> = absent.map(|((_, name), _)| *name).collect();
        if !missing.is_empty() {
            return Err(AuditError(format!(
                "these topics do not exist: {}. Has the application run under these settings (APPLICATION_ID, TOPIC_PREFIX)?",
                missing.join(", ")
            )));
        }
        let partitions = infos.into_iter().map(|info| info.map_or(1, |info| info.partitions)).collect();
        let (application, names, params) = (application.to_owned(), names.clone(), params.clone());
        let desk = Mutex::new(broker.reader()?);
        Ok(Self { broker, desk, application, names, params, exactly_once, topology, partitions })
    }

    /// The sub-topology that scores.
    fn sub(&self) -> &SubTopology {
        self.topology.subs().last().expect("invariant: a topology has a sub-topology")
    }

    fn task(&self, partition: u32) -> TaskId {
        TaskId { sub: (self.topology.subs().len() - 1) as u16, partition }
    }

    /// How many partitions the payments have where they are scored.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.partitions_of(self.sub().lead())
    }

    fn partitions_of(&self, topic: TopicId) -> u32 {
        self.partitions[usize::from(topic.0)]
    }

    fn name(&self, topic: TopicId) -> &str {
        self.topology.topics().name(topic)
    }

    fn place(&self, at: TopicPartition, offset: u64) -> Place {
        Place { topic: self.name(at.topic).to_owned(), partition: at.partition, offset }
    }

    fn lead(&self, partition: u32) -> TopicPartition {
        TopicPartition { topic: self.sub().lead(), partition }
    }

    fn changelog(&self, partition: u32) -> TopicPartition {
        TopicPartition { topic: self.sub().stores[0].changelog, partition }
    }

    fn decisions(&self, partition: u32) -> TopicPartition {
        TopicPartition { topic: self.sub().decisions.expect("invariant: scoring writes decisions"), partition }
    }

    fn commands(&self, partition: u32) -> TopicPartition {
        TopicPartition { topic: self.sub().inputs[1], partition }
    }

    fn verdicts(&self) -> TopicId {
        self.sub().outputs[0]
    }

    fn dead_letters(&self) -> TopicId {
        self.topology.dead_letters().expect("invariant: scoring has dead letters")
    }

    fn bounds(&self, at: TopicPartition) -> Result<topology::broker::Bounds> {
        Ok(self.desk.lock().unwrap_or_else(PoisonError::into_inner).bounds(at)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_it_is_written() {
        let place: Place = "a.b-c:3:1205".parse().expect("a place");
        assert_eq!((place.to_string(), place.partition, place.offset), ("a.b-c:3:1205".to_owned(), 3, 1205));
        for text in ["", "t", "t:1", ":1:2", "t:x:1", "t:1:-1", "t:1:"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
