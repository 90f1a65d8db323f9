//! Kafka as the engine's log, through librdkafka.
//!
//! | file | role |
//! |---|---|
//! | `config` | where the broker is, and the settings of each kind of client |
//! | `admin` | topics and the bounds of partitions |
//! | `fetcher` | reading partitions by offset; members and readers share it |
//! | `sender` | writing and transactions; members and publishers share it |
//! | `reports` | what a producer hears of its records |
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
mod reports;
mod sender;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use topology::broker::{Broker, MemberConfig, Result, TopicInfo, TopicSpec};
use topology::record::{TopicId, Topics};

pub use config::{Buffers, KafkaConfig};
pub use member::{KafkaMember, KafkaToken};
pub use publisher::KafkaPublisher;
pub use reader::KafkaReader;

use admin::Desk;
use deadline::Deadline;
use sender::{Limits, limits_of};

/// A Kafka cluster, with the topics of one application.
#[derive(Clone)]
pub struct KafkaBroker {
    topics: Topics,
    desk: Arc<Desk>,
    /// What the topics take, as they were described last.
    known: Arc<Mutex<Option<(Deadline, Limits)>>>,
    /// Members under way, by their static identity.
    prepared: Arc<Mutex<BTreeMap<String, Preparing>>>,
}

/// A member that is being prepared.
type Preparing = JoinHandle<Result<KafkaMember>>;

/// Limits that were asked for so long ago are asked for anew.
const FRESH: Duration = Duration::from_secs(10);

impl KafkaBroker {
    /// Prepares clients; connects to nothing yet.
    ///
    /// # Errors
    /// [`topology::broker::Reaction::Stop`] where a setting is wrong, naming it.
    pub fn new(config: KafkaConfig, topics: Topics) -> Result<Self> {
        Ok(Self { topics, desk: Arc::new(Desk::new(config)?), known: Arc::default(), prepared: Arc::default() })
    }

    /// The limits of all topics that exist, which are what a producer's batches must fit. Instances describe all topics and then open
    /// several producers at once.
    fn limits(&self) -> Result<Limits> {
        if let Some((until, limits)) = &*self.known.lock().unwrap_or_else(PoisonError::into_inner)
            && !until.is_over()
        {
            return Ok(Arc::clone(limits));
        }
        let all: Vec<TopicId> = self.topics.iter().map(|(topic, _)| topic).collect();
        Ok(limits_of(&self.describe(&all)?))
    }

    fn prepare_now(&self, config: &MemberConfig) -> Result<KafkaMember> {
        KafkaMember::prepare(self.desk.clone(), self.topics.clone(), self.limits()?, config)
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
        let found = self.desk.describe(&names)?;
        let all = self.topics.iter().map(|(topic, _)| topic).eq(topics.iter().copied());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if found.iter().any(Option::is_none) {
            // One that is gone may come back with other limits, and the client has to hear of that.
            *known = None;
        } else if all {
            *known = Some((Deadline::after(FRESH), limits_of(&found)));
        }
        drop(known);
        Ok(found)
    }

    fn create(&self, spec: &TopicSpec) -> Result<()> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.desk.create(spec)
    }

    fn prepare(&self, config: &MemberConfig) {
        let (broker, member) = (self.clone(), config.clone());
        let preparing = std::thread::Builder::new().name("preparing".into()).spawn(move || broker.prepare_now(&member));
        // Without a thread it is done when it joins.
        if let Ok(preparing) = preparing {
            self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(config.instance.clone(), preparing);
        }
    }

    fn join(&self, config: &MemberConfig) -> Result<KafkaMember> {
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).remove(&config.instance);
        match prepared.map(JoinHandle::join) {
            Some(Ok(Ok(member))) if member.is_of(config) => member.join(),
            _ => self.prepare_now(config)?.join(),
        }
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
