//! Kafka as the engine's log, through librdkafka.
//!
//! | file | role |
//! |---|---|
//! | `config` | where the broker is, and the settings of each kind of client |
//! | `admin` | topics and the bounds of partitions |
//! | `fetcher` | reading partitions by offset; members and readers share it |
//! | `sender` | writing and transactions; members and publishers share it |
//! | `groups` | groups seen from outside |
//! | `member`, `reader`, `publisher` | the ports |
//! | `orphans` | partitions that the group gave to nobody |
//! | `context` | what librdkafka calls back |
//! | `errors` | from Kafka's codes to the caller's reaction |
//! | `deadline` | how long to wait |
//! | `native` | all unsafe code: calls that crate `rdkafka` lacks |
//!
//! Works with every Kafka from 2.5 on (transactions that the group fences) and with Redpanda: a classic consumer group,
//! cooperative-sticky, static members.

mod admin;
mod config;
mod context;
mod deadline;
mod errors;
mod fetcher;
mod groups;
mod member;
mod native;
mod orphans;
mod publisher;
mod reader;
mod sender;

use std::sync::Arc;

use topology::broker::{Broker, MemberConfig, Result, TopicInfo, TopicSpec};
use topology::record::{TopicId, Topics};

pub use config::{Buffers, KafkaConfig};
pub use member::{KafkaMember, KafkaToken};
pub use publisher::KafkaPublisher;
pub use reader::KafkaReader;

use admin::Desk;
use sender::{Limits, limits_of};

/// A Kafka cluster, with the topics of one application.
#[derive(Clone)]
pub struct KafkaBroker {
    topics: Topics,
    desk: Arc<Desk>,
}

impl KafkaBroker {
    /// Prepares clients; connects to nothing yet.
    ///
    /// # Errors
    /// [`topology::broker::Reaction::Stop`] where a setting is wrong, naming it.
    pub fn new(config: KafkaConfig, topics: Topics) -> Result<Self> {
        Ok(Self { topics, desk: Arc::new(Desk::new(config)?) })
    }

    /// The limits of all topics that exist, asked anew: they are what a producer's batches must fit.
    fn limits(&self) -> Result<Limits> {
        let all: Vec<TopicId> = self.topics.iter().map(|(topic, _)| topic).collect();
        Ok(limits_of(&self.describe(&all)?))
    }
}

impl Broker for KafkaBroker {
    type Member = KafkaMember;
    type Reader = KafkaReader;
    type Publisher = KafkaPublisher;

    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn describe(&self, topics: &[TopicId]) -> Result<Vec<Option<TopicInfo>>> {
        let names: Vec<&str> = topics.iter().map(|&topic| self.topics.name(topic)).collect();
        self.desk.describe(&names)
    }

    fn create(&self, spec: &TopicSpec) -> Result<()> {
        self.desk.create(spec)
    }

    fn join(&self, config: &MemberConfig) -> Result<KafkaMember> {
        KafkaMember::join(self.desk.clone(), self.topics.clone(), self.limits()?, config)
    }

    fn end_transactions_of(&self, transactional_id: &str) -> Result<()> {
        sender::end_transactions_of(&self.desk, &self.topics, transactional_id)
    }

    fn reader(&self) -> Result<KafkaReader> {
        KafkaReader::new(self.desk.clone(), self.topics.clone())
    }

    fn publisher(&self) -> Result<KafkaPublisher> {
        KafkaPublisher::new(&self.desk, self.topics.clone(), self.limits()?)
    }
}
