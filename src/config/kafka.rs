//! `KAFKA_*`: every other property of librdkafka, by its own name in capitals with underscores for dots.
//!
//! `KAFKA_SECURITY_PROTOCOL` is `security.protocol`. Properties on which the guarantees rest are ours to set: giving one
//! is a fault that says which setting to use instead. Variables that scripts of Apache Kafka and Kubernetes leave in the
//! environment are not properties and are passed over.

use std::collections::BTreeMap;

use super::fault::Fault;
use super::origin::Origin;
use super::source::Texts;

/// In front of every such variable.
pub(super) const PREFIX: &str = "KAFKA_";

/// Properties that Mangrove sets, and what to do instead.
const OURS: &[(&str, &str)] = &[
    ("acks", "nothing: all replicas in sync must acknowledge"),
    ("auto.offset.reset", "START_FROM"),
    ("enable.auto.commit", "nothing: offsets are committed with the verdicts"),
    ("enable.auto.offset.store", "nothing: offsets are committed with the verdicts"),
    ("enable.idempotence", "nothing: it is always on"),
    ("enable.partition.eof", "nothing: positions are read from the broker"),
    ("group.id", "APPLICATION_ID"),
    ("group.instance.id", "nothing: it comes from the state folder's own id"),
    ("group.protocol", "nothing: the classic protocol is used"),
    ("isolation.level", "nothing: only committed records are read"),
    ("metadata.broker.list", "KAFKA_BOOTSTRAP_SERVERS"),
    ("partition.assignment.strategy", "nothing: it is cooperative-sticky"),
    ("partitioner", "INPUT_PARTITIONING"),
    ("retry.backoff.max.ms", "nothing: repeated commits are told by when they are repeated"),
    ("retry.backoff.ms", "nothing: repeated commits are told by when they are repeated"),
    ("transaction.timeout.ms", "TRANSACTION_TIMEOUT_MS"),
    ("transactional.id", "APPLICATION_ID"),
];

/// Variables of other programs that begin with `KAFKA_`: Kafka's start scripts, and the addresses of a service named
/// `kafka` that Kubernetes puts into every container.
const NOT_PROPERTIES: &[&str] = &[
    "KAFKA_CLUSTERS_",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_HOME",
    "KAFKA_JMX_",
    "KAFKA_JVM_",
    "KAFKA_LOG4J_",
    "KAFKA_OPTS",
    "KAFKA_PORT",
    "KAFKA_SERVICE_",
];

/// Properties for librdkafka, by their own names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaProperties(BTreeMap<String, KafkaProperty>);

/// One property with its source.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaProperty {
    /// The variable that it came from.
    pub variable: String,
    /// Its value; may be a secret.
    pub value: String,
    /// Where the variable was found.
    pub origin: Origin,
}

/// Shows no value: it may be a password.
impl std::fmt::Debug for KafkaProperty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaProperty").field("variable", &self.variable).field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl KafkaProperties {
    pub(super) fn read(texts: &Texts, declared: impl Fn(&str) -> bool, faults: &mut Vec<Fault>) -> Self {
        let mut properties = BTreeMap::new();
        for (variable, value, origin) in texts.with_prefix(PREFIX) {
            if declared(variable) || NOT_PROPERTIES.iter().any(|other| variable.starts_with(other)) {
                continue;
            }
            let name = property_name(variable);
            if let Some((_, instead)) = OURS.iter().find(|(ours, _)| *ours == name) {
                let problem = format!("sets `{name}`, on which the guarantees rest");
                faults.push(Fault::hidden(variable, origin.clone(), problem, *instead));
                continue;
            }
            let property = KafkaProperty { variable: variable.to_owned(), value: value.to_owned(), origin: origin.clone() };
            properties.insert(name, property);
        }
        Self(properties)
    }

    /// (property, value), in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, property)| (name.as_str(), property.value.as_str()))
    }

    /// The properties with their sources.
    pub fn details(&self) -> impl Iterator<Item = &KafkaProperty> {
        self.0.values()
    }
}

/// `KAFKA_SASL_MECHANISM` is `sasl.mechanism`.
fn property_name(variable: &str) -> String {
    variable[PREFIX.len()..].to_ascii_lowercase().replace('_', ".")
}

/// Whether a property's value must not be shown: passwords, secrets, keys and the JAAS-like configuration that may hold
/// any of them. The names of files (`ssl.key.location`) are no secrets.
pub(super) fn is_secret(variable: &str) -> bool {
    let name = variable.to_ascii_uppercase();
    let names_a_file = name.ends_with("_LOCATION");
    let words = ["PASSWORD", "SECRET", "KEY", "PEM", "TOKEN", "OAUTHBEARER_CONFIG", "ASSERTION", "JAAS"];
    !names_a_file && words.iter().any(|word| name.contains(word))
}
