//! How to reach Kafka, and the settings of each kind of client.
//!
//! Three layers, later ones win: defaults that measured fast, the operator's own properties (`KAFKA_*`), and the properties that the
//! guarantees rest on. The last kind cannot be set from outside: trying to is an error that names the property.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use topology::broker::{BrokerError, MemberConfig, Reaction, Result};

/// How to reach Kafka.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `bootstrap.servers`: addresses, separated by commas.
    pub bootstrap_servers: String,
    /// Any other property of librdkafka, given to all clients (`security.protocol`, `sasl.*`, `ssl.*`, ...).
    pub properties: BTreeMap<String, String>,
    /// How long the group waits for a silent member before it hands its partitions to others.
    pub session_timeout_ms: u64,
    /// `compression.type` of what is written.
    pub compression: String,
    /// How long a producer waits for a batch to fill. Flushes and commits do not wait for it, nor do members without transactions.
    pub linger_ms: u64,
    /// How long the broker holds a fetch for which it has nothing.
    pub fetch_wait_ms: u64,
    /// How long to wait for an answer to a question (metadata, offsets, topic creation).
    pub request_timeout_ms: u64,
    /// Memory of each client.
    pub buffers: Buffers,
}

/// Memory of each client, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// A member's input: fetched and not yet polled, librdkafka's own bookkeeping with it.
    pub fetch: usize,
    /// A reader's: the same, and again what one poll returns at most.
    pub restore: usize,
    /// Written and not yet acknowledged. A topic that takes larger records gets room for two of them.
    pub produce: usize,
    /// What one poll of a member returns at most, beyond the first record.
    pub poll: usize,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { fetch: 16 << 20, restore: 16 << 20, produce: 16 << 20, poll: 16 << 20 }
    }
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "localhost:9092".to_owned(),
            properties: BTreeMap::new(),
            session_timeout_ms: 15_000,
            compression: "lz4".to_owned(),
            linger_ms: 5,
            fetch_wait_ms: 100,
            request_timeout_ms: 10_000,
            buffers: Buffers::default(),
        }
    }
}

/// The smallest and the largest record that any of the topics takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extremes {
    pub(super) smallest: u32,
    pub(super) largest: u32,
}

/// Shows the names of extra properties and no value: any of them may be a secret.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("session_timeout_ms", &self.session_timeout_ms)
            .field("compression", &self.compression)
            .field("linger_ms", &self.linger_ms)
            .field("fetch_wait_ms", &self.fetch_wait_ms)
            .field("request_timeout_ms", &self.request_timeout_ms)
            .field("buffers", &self.buffers)
            .finish()
    }
}

/// Properties that exactly-once and the group protocol rest on.
const OURS: [&str; 20] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "partition.assignment.strategy",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "enable.partition.eof",
    "transactional.id",
    "transaction.timeout.ms",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "delivery.report.only.error",
    "allow.auto.create.topics",
    "retry.backoff.ms",
    "retry.backoff.max.ms",
];

/// The largest batch. Below the broker's default `max.message.bytes` of 1,048,588: librdkafka does not split a refused batch.
const BATCH_BYTES: u32 = 1_000_000;
/// What a batch's own header takes, generously.
const BATCH_OVERHEAD: u32 = 1024;
/// When a transactional producer repeats a request whose connection broke: after 400 ms, a fifth more or less, and later ones after 1 s
/// at most. Offsets librdkafka repeats after 500 ms, whatever is set here.
const RETRIES: [(&str, &str); 2] = [("retry.backoff.ms", "400"), ("retry.backoff.max.ms", "1000")];
/// A request that was answered within this time was not repeated.
pub(super) const SENT_ONCE: Duration = Duration::from_millis(300);
/// The most that one partition's share of a fetch holds, compressed.
const FETCH_BYTES: usize = 1 << 20;
/// What librdkafka keeps for each message in its queue beside the message, and does not count.
const MESSAGE_OVERHEAD: usize = 512;
/// The largest record that the client itself lets through; the topic's own limit is checked before.
const MESSAGE_MAX_BYTES: u32 = 100_000_000;

impl KafkaConfig {
    /// Reads `KAFKA_*` variables: `KAFKA_BOOTSTRAP_SERVERS`, `KAFKA_SASL_PASSWORD` (`sasl.password`), ... Others are ignored.
    #[must_use]
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut config = Self::default();
        for (name, value) in variables {
            let Some(name) = name.strip_prefix("KAFKA_") else { continue };
            match name.to_ascii_lowercase().replace('_', ".").as_str() {
                "bootstrap.servers" => config.bootstrap_servers = value,
                property => {
                    config.properties.insert(property.to_owned(), value);
                }
            }
        }
        config
    }

    /// Checks every property: unknown names, wrong values, and those that are not the operator's to set.
    ///
    /// # Errors
    /// [`Reaction::Stop`], naming all wrong properties at once, and never a value: it may be a secret.
    pub fn check(&self) -> Result<()> {
        let mut wrong: Vec<String> = Vec::new();
        for (name, value) in &self.properties {
            if OURS.contains(&name.as_str()) {
                wrong.push(format!("{name} is set by Mangrove itself"));
            } else if let Err(error) = ClientConfig::new().set(name, value).create_native_config() {
                wrong.push(explain(name, &error));
            }
        }
        // What no single property shows, and our own fields.
        if wrong.is_empty()
            && let Err(error) = self.base().set("compression.type", &self.compression).create_native_config()
        {
            wrong.push(explain("compression", &error));
        }
        if wrong.is_empty() { Ok(()) } else { Err(BrokerError::new(Reaction::Stop, format!("Kafka: {}", wrong.join("; ")))) }
    }

    /// [`Self::request_timeout_ms`] as a duration.
    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers).set("client.id", "mangrove");
        // A broker that restarts is found again within a second, not ten. The first wait is the time between a client's first
        // connections as well: half of it, where each worker makes a dozen before its first record.
        config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "1000");
        // How soon a topic whose leader is not known is asked for again; a producer's would follow retry.backoff.ms.
        config.set("topic.metadata.refresh.fast.interval.ms", "100");
        // A broker that stalls or starts may name a topic without its partitions; librdkafka takes that for the truth until it asks again,
        // by default after five minutes, and a restore or a copy that reads there waits as long.
        config.set("topic.metadata.refresh.interval.ms", "5000");
        config
    }

    fn finish(&self, mut config: ClientConfig, ours: &[(&str, &str)]) -> ClientConfig {
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        for (name, value) in ours {
            config.set(*name, *value);
        }
        config
    }

    /// The settings of all consumers. The session's time-out goes to those without a group too: librdkafka checks an operator's
    /// `max.poll.interval.ms` against it.
    fn consuming(&self) -> ClientConfig {
        let mut config = self.base();
        config
            .set("session.timeout.ms", self.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (self.session_timeout_ms / 10).clamp(100, 3_000).to_string());
        config
    }

    /// Asks about topics and offsets. Uncommitted reads: the end of a partition is then its high watermark, not the last stable offset.
    pub(super) fn asking(&self) -> ClientConfig {
        let ours =
            [("isolation.level", "read_uncommitted"), ("allow.auto.create.topics", "false"), ("enable.auto.commit", "false")];
        self.finish(self.consuming(), &ours)
    }

    /// Administers topics.
    pub(super) fn administering(&self) -> ClientConfig {
        self.finish(self.base(), &[])
    }

    /// Fetches from partitions that it is told, outside of any group, within `buffer` bytes of memory: a quarter is for what waits in the
    /// queue, a quarter for its bookkeeping, and half for what is on its way while the queue fills (compressed on the wire, so it grows).
    pub(super) fn fetching(&self, buffer: usize) -> ClientConfig {
        let mut config = self.consuming();
        config
            .set("fetch.message.max.bytes", FETCH_BYTES.min(buffer / 8).to_string())
            .set("fetch.max.bytes", (buffer / 4).max(FETCH_BYTES).to_string())
            .set("queued.max.messages.kbytes", (buffer / 4 / 1024).max(1).to_string())
            .set("queued.min.messages", (buffer / 4 / MESSAGE_OVERHEAD).clamp(1_000, 100_000).to_string())
            // When the buffer is full librdkafka waits this long before it looks again. Its default of 1 s starves a fast reader.
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.wait.max.ms", self.fetch_wait_ms.to_string())
            .set("check.crcs", "false");
        let ours = [
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("allow.auto.create.topics", "false"),
        ];
        self.finish(config, &ours)
    }

    /// Is a member of a group; fetches nothing itself.
    pub(super) fn joining(&self, member: &MemberConfig) -> ClientConfig {
        let mut ours = vec![
            ("group.id", member.group.as_str()),
            ("partition.assignment.strategy", "cooperative-sticky"),
            // Committed offsets are then answered only when no open transaction is about to change them.
            ("isolation.level", "read_committed"),
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("allow.auto.create.topics", "false"),
        ];
        if !member.instance.is_empty() {
            ours.push(("group.instance.id", &member.instance));
        }
        self.finish(self.consuming(), &ours)
    }

    fn producing(&self, limits: Extremes) -> ClientConfig {
        let mut config = self.base();
        let batch = BATCH_BYTES.min(limits.smallest.saturating_sub(BATCH_OVERHEAD).max(1));
        // A record that never fits would wait for ever.
        let queue = self.buffers.produce.max(2 * limits.largest as usize);
        config
            .set("compression.type", &self.compression)
            .set("linger.ms", self.linger_ms.to_string())
            .set("batch.size", batch.to_string())
            .set("batch.num.messages", "10000")
            .set("queue.buffering.max.messages", "20000")
            .set("queue.buffering.max.kbytes", queue.div_ceil(1024).to_string())
            .set("message.max.bytes", MESSAGE_MAX_BYTES.to_string());
        config
    }

    /// Writes for a member: in transactions where it has a transactional id, else idempotently.
    pub(super) fn writing(&self, member: &MemberConfig, limits: Extremes) -> ClientConfig {
        let mut config = self.producing(limits);
        let timeout = member.transaction_timeout_ms;
        // A record that outlives its transaction is of no use. librdkafka wants the socket's time-out below the transaction's.
        config.set("message.timeout.ms", timeout.to_string());
        config.set("socket.timeout.ms", timeout.saturating_sub(100).clamp(900, 30_000).to_string());
        let timeout = timeout.to_string();
        let mut ours = vec![("enable.idempotence", "true"), ("acks", "all"), ("delivery.report.only.error", "true")];
        match &member.transactional_id {
            Some(id) => {
                ours.push(("transactional.id", id));
                ours.push(("transaction.timeout.ms", &timeout));
                ours.extend(RETRIES);
            }
            // Nothing flushes before the commit: verdicts are not to wait for company, and under load they find it in the queue.
            None => {
                config.set("linger.ms", "0");
            }
        }
        self.finish(config, &ours)
    }

    /// Writes outside of transactions and learns each record's offset.
    pub(super) fn publishing(&self, limits: Extremes) -> ClientConfig {
        let ours = [("enable.idempotence", "true"), ("acks", "all")];
        self.finish(self.producing(limits), &ours)
    }
}

/// What is wrong with a property, without its value.
pub(super) fn explain(name: &str, error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, text, name, value) => {
            let text = if value.is_empty() { text.clone() } else { text.replace(value.as_str(), "***") };
            format!("{name}: {text}")
        }
        // librdkafka's remaining complaints name properties, not values.
        other => format!("{name}: {other}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const LIMITS: Extremes = Extremes { smallest: 1 << 20, largest: 1 << 20 };

    /// A member that writes in transactions, or not.
    pub(in super::super) fn member(transactional_id: Option<&str>) -> MemberConfig {
        MemberConfig {
            group: "app".into(),
            instance: "app-0".into(),
            transactional_id: transactional_id.map(str::to_owned),
            transaction_timeout_ms: 10_000,
            leads: Vec::new(),
        }
    }

    #[test]
    fn without_transactions_nothing_waits_for_company_unless_the_operator_says_so() {
        let linger = |config: &KafkaConfig, transactional_id: Option<&str>| {
            config.writing(&member(transactional_id), LIMITS).get("linger.ms").map(str::to_owned)
        };
        let mut config = KafkaConfig::default();
        assert_eq!([None, Some("app-0")].map(|id| linger(&config, id)), [Some("0".to_owned()), Some("5".to_owned())]);
        config.properties.insert("linger.ms".to_owned(), "20".to_owned());
        assert_eq!([None, Some("app-0")].map(|id| linger(&config, id)), [Some("20".to_owned()), Some("20".to_owned())]);
    }
}
