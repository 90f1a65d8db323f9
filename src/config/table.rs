//! The settings themselves: one declaration each. See [`Declaration`] for what is made of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::budget::{Budget, Load};
use super::declare::Declaration;
use super::declare::Fallback::{Found, Prefixed, Text, Unset};
use super::describe::Row;
use super::kafka::{self, KafkaProperties};
use super::machine;
use super::origin::Origin;
use super::parse::{
    Bytes, Contamination, Count, Cron, Currency, LogFilter, NamePart, OneOf, Optional, Parser, Passphrase, RoleList, Score,
    Switch, TopicName, Whole,
};
use super::places::{Address, FilePath, HostPort, PostgresUrl, RedisUrl, Servers, StorePlace};
use super::reader::Reader;
use super::tokens::Tokens;
use super::url::ServerUrl;
use super::values::{
    ApiToken, BrokerKind, EmbeddedSync, InputPartitioning, LogFormat, ProcessingGuarantee, Reasons, Role, Roles, StartFrom,
};

/// The most milliseconds of any waiting or tolerance: a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// The least memory that RocksDB, the caches and the broker's buffers can share.
const MEMORY_LIMIT_MIN: u64 = 64 << 20;

settings! {
    /// All settings in force, each checked, each with the source it came from.

    ["Broker"]
    /// Which broker holds the topics: Kafka (or Redpanda), or the embedded one in a folder of this machine.
    BROKER => broker: BrokerKind as OneOf<BrokerKind> = Text("kafka");
    /// The Kafka brokers to ask first. Any other KAFKA_* variable is passed on to librdkafka:
    /// KAFKA_SECURITY_PROTOCOL is its property security.protocol.
    KAFKA_BOOTSTRAP_SERVERS => kafka_bootstrap_servers: String as Servers = Text("localhost:9092");
    /// The embedded broker's folder. One process holds it at a time.
    EMBEDDED_DIR => embedded_dir: PathBuf as FilePath = Text("./data/broker");
    /// When a commit of the embedded broker is on disk: before it is acknowledged (commit), or when the operating
    /// system sees fit (os), which a crash of the process survives and a loss of power does not.
    EMBEDDED_SYNC => embedded_sync: EmbeddedSync as OneOf<EmbeddedSync> = Text("commit");

    ["Instance"]
    /// The name of the application: its consumer group's id, and in front of its own topics. Instances that share the
    /// work share it.
    APPLICATION_ID => application_id: String as NamePart<1> = Text("mangrove");
    /// The folder of the local state. One process holds it at a time; its id gives a restart its partitions back.
    STATE_DIR => state_dir: PathBuf as FilePath = Text("./data/state");
    /// The instance's name within the group: under the same name a restart gets its partitions back at once, even with its
    /// folder lost. A pod's or host's name does; two running instances must not share one.
    INSTANCE_ID => instance_id: Option<String> as Optional<NamePart<1>> =
        Unset { means: "a random name, kept in STATE_DIR" };
    /// What this instance does: `stream` scores, alone has state, and is what `schedule` needs too (the daily retrain runs where
    /// partition 0 is); `api` answers requests and takes payments, asking those who stream; `projection` writes Redis and Postgres;
    /// `notify` sends notifications. Without `api` an instance answers probes, `/metrics`, `/v1/health` and other instances only.
    ROLES => roles: Roles as RoleList = Text("stream,api,projection,schedule,notify");
    /// How many threads score, each with a group membership and a transaction of its own.
    WORKERS => workers: u32 as Count<1, 1024> = Found { words: "the number of cores", find: machine::cores };
    /// The memory to use for the program, its state, caches and buffers together. docs/architecture.md says how it is
    /// divided; one that is too small for the workers is refused.
    MEMORY_LIMIT => memory_limit: u64 as Bytes<MEMORY_LIMIT_MIN> =
        Found { words: "half of the machine or container", find: machine::half_of_memory };

    ["Processing"]
    /// What a crash may cost: nothing (exactly_once), or verdicts that appear twice under one id (at_least_once).
    PROCESSING_GUARANTEE => processing_guarantee: ProcessingGuarantee as OneOf<ProcessingGuarantee> =
        Text("exactly_once");
    /// The longest time between commits, in milliseconds. Transactions end sooner under little load.
    COMMIT_INTERVAL_MS => commit_interval_ms: u64 as Whole<1, 60_000> = Text("100");
    /// Milliseconds after which the broker ends a transaction that its owner left open. A broker takes at most its own
    /// transaction.max.timeout.ms, 15 minutes as Kafka comes.
    TRANSACTION_TIMEOUT_MS => transaction_timeout_ms: u64 as Whole<1_000, 900_000> = Text("10000");
    /// Where to begin when the group has no committed offsets although there is a changelog: none refuses to start.
    START_FROM => start_from: StartFrom as OneOf<StartFrom> = Text("none");
    /// Whether the input topic is keyed by murmur2 of the user id, which is checked, or by anything, which costs a
    /// repartition topic.
    INPUT_PARTITIONING => input_partitioning: InputPartitioning as OneOf<InputPartitioning> = Text("murmur2");
    /// How far a payment's time may lie ahead of its record's, in milliseconds. Later ones are dead letters.
    MAX_FUTURE_MS => max_future_ms: u64 as Whole<0, { 365 * DAY_MS }> = Text("3600000");
    /// Milliseconds in one step after which a worker is taken to be stuck: its partitions go to others, and /livez fails. Below the
    /// broker's own time-outs (a commit may wait for 30 s) healthy workers would be given up.
    STALL_MS => stall_ms: u64 as Whole<1_000, 3_600_000> = Text("90000");
    /// How many other instances keep a copy of each partition's state, so that one that takes over restores only what is missing. Whoever
    /// is to take over is chosen by the group: with one copy less than instances it always has one.
    STANDBY_REPLICAS => standby_replicas: u32 as Count<0, 16> = Text("0");
    /// Seconds of a partition's event time after which the profile of a user without payments leaves this machine, once Postgres holds it;
    /// the next payment brings it back. 0 keeps all here. Needs DATABASE_URL, exactly_once, and `projection` among some instance's ROLES.
    STATE_TTL => state_ttl_s: u64 as Whole<0, { 10 * 366 * 24 * 3_600 }> = Text("0");
    /// Seconds after which state on disk goes that is neither of a partition this instance has nor a copy.
    STATE_CLEANUP_DELAY => state_cleanup_delay_s: u64 as Whole<1, { 30 * 24 * 3_600 }> = Text("600");
    /// The longest time between two announcements on the members topic, in milliseconds. An instance that misses three counts as gone
    /// for queries and standbys; who owns what, the group decides.
    MEMBER_BEAT_MS => member_beat_ms: u64 as Whole<100, 60_000> = Text("3000");
    /// Leave the group for good on SIGTERM, instead of keeping the place for a restart.
    LEAVE_ON_STOP => leave_on_stop: bool as Switch = Text("false");

    /// For how many seconds a user's tx_id is known again when a payment comes by HTTP: its first id is answered, and nothing is
    /// written. 0 is never.
    DEDUP_SECONDS => dedup_s: u64 as Whole<0, { 7 * 24 * 3_600 }> = Text("3600");
    /// How many tx_ids are remembered at most, the latest ones; each takes about 100 bytes, a twentieth of MEMORY_LIMIT at most. They are
    /// read back from the topic when the first payment with one comes by HTTP.
    DEDUP_ENTRIES => dedup_entries: u64 as Whole<1_000, 100_000_000> = Text("1000000");

    ["Topics"]
    /// In front of every topic's default name.
    TOPIC_PREFIX => topic_prefix: String as NamePart<0> = Text("");
    /// Payments, in.
    TRANSACTIONS_TOPIC => transactions_topic: String as TopicName = Prefixed("transactions");
    /// A verdict on every payment, out.
    VERDICTS_TOPIC => verdicts_topic: String as TopicName = Prefixed("verdicts");
    /// Verdicts from ANOMALY_THRESHOLD up, out.
    ANOMALIES_TOPIC => anomalies_topic: String as TopicName = Prefixed("anomalies");
    /// Resets and erasures, in.
    COMMANDS_TOPIC => commands_topic: String as TopicName = Prefixed("commands");
    /// What people found out about verdicts, in.
    LABELS_TOPIC => labels_topic: String as TopicName = Prefixed("labels");
    /// Which model is active.
    MODELS_TOPIC => models_topic: String as TopicName = Prefixed("models");
    /// Records that could not be scored, with the cause in their headers, out.
    DEAD_LETTERS_TOPIC => dead_letters_topic: String as TopicName = Prefixed("dead-letters");
    /// Create topics that are missing.
    CREATE_TOPICS => create_topics: bool as Switch = Text("true");
    /// How many partitions a created topic gets.
    TOPIC_PARTITIONS => topic_partitions: u32 as Count<1, 10_000> = Text("8");

    ["Tiers"]
    /// The Redis that profiles are copied to for reads from anywhere; empty is none. One that does not answer costs a warning.
    REDIS_URL => redis_url: Option<ServerUrl> as Optional<RedisUrl> = Text("redis://localhost:6379/0");
    /// The Postgres that keeps profiles, verdicts, labels and more, as postgres://user:password@host:port/database. Everything is in
    /// a schema named after the application. Has no flag, since a command line is no place for secrets.
    DATABASE_URL => database_url: Option<ServerUrl> as Optional<PostgresUrl> =
        Unset { means: "nothing is kept beyond the topics" }, secret;
    /// How many connections to Postgres queries may hold at once; the projection has one of its own.
    DATABASE_CONNECTIONS => database_connections: u32 as Count<1, 1_000> = Text("8");
    /// How many days of verdicts Postgres keeps, by their event time.
    HISTORY_DAYS => history_days: u32 as Count<1, 3_650> = Text("90");

    ["Model"]
    /// The model's file. Imported as the first version where the models topic is empty; after that the topic decides.
    MODEL_PATH => model_path: PathBuf as FilePath = Text("./data/models/current.forest");
    /// Where the versions of models are kept: a folder that all instances share, or a bucket (R2 is s3:// with AWS_ENDPOINT;
    /// credentials come from AWS_* and GOOGLE_* variables).
    MODEL_STORE => model_store: String as StorePlace = Text("./data/models");
    /// The score from which a payment is an anomaly. The default keeps its meaning across models.
    ANOMALY_THRESHOLD => anomaly_threshold: f64 as Score = Text("0.5");
    /// The share of the training window that is taken to be anomalous.
    CONTAMINATION => contamination: f64 as Contamination = Text("0.01");
    /// Train the first model from the stream itself, once 1,000 payments are logged.
    AUTO_TRAIN => auto_train: bool as Switch = Text("true");
    /// When to train anew on the last seven days, in UTC.
    RETRAIN_CRON => retrain_cron: String as Cron = Text("0 3 * * *");
    /// Hours that a model of the daily training scores beside the active one, without effect, before it may take its place. 0: it goes live
    /// as soon as it has passed its checks.
    RETRAIN_SHADOW_HOURS => retrain_shadow_hours: u64 as Whole<0, 720> = Text("0");
    /// The folder whose CSV files may be trained on over HTTP.
    TRAINING_DIR => training_dir: PathBuf as FilePath = Text("./data/training");
    /// Which verdicts say why: those of anomalies, or all.
    REASONS => reasons: Reasons as OneOf<Reasons> = Text("anomalies");

    ["Money"]
    /// A JSON file of exchange rates: currency's code to units of the base currency.
    FX_RATES_PATH => fx_rates_path: Option<PathBuf> as Optional<FilePath> =
        Unset { means: "amounts are taken as they are" };
    /// The currency that amounts are converted to.
    BASE_CURRENCY => base_currency: String as Currency = Text("USD");

    ["HTTP"]
    /// Where to listen. Anything but loopback needs API_TOKENS: a profile is personal data.
    HTTP_ADDR => http_addr: SocketAddr as Address = Text("127.0.0.1:8000");
    /// What other instances call: a host or address that they reach, and the port. Needed where HTTP_ADDR is on all interfaces.
    HTTP_ADVERTISED_ADDR => http_advertised_addr: Option<String> as Optional<HostPort> =
        Unset { means: "the address of HTTP_ADDR" };
    /// Who may use the interface: `name:scope+scope:sha256`, with commas between; scopes are query, write, erase and
    /// admin. Has no flag, since a command line is no place for secrets.
    API_TOKENS => api_tokens: Vec<ApiToken> as Tokens =
        Unset { means: "anyone on this machine, and nobody from elsewhere" }, secret;

    /// The key of the hashes that stand for users in log lines and in the audit trail: with the same key on all instances the trail can be
    /// searched for a user.
    USER_HASH_KEY => user_hash_key: Option<String> as Optional<Passphrase> =
        Unset { means: "a random key for each start of an instance" }, secret;
    /// The certificate's file (PEM, those between it and its root behind it), for TLS. A new one is taken up within seconds.
    HTTP_TLS_CERT => http_tls_cert: Option<PathBuf> as Optional<FilePath> =
        Unset { means: "plain HTTP" };
    /// The file of the certificate's key (PEM).
    HTTP_TLS_KEY => http_tls_key: Option<PathBuf> as Optional<FilePath> =
        Unset { means: "plain HTTP" };
    /// Whom other instances' certificates must come from (PEM). Each instance is called by the host of its HTTP_ADVERTISED_ADDR, which its
    /// certificate must name.
    HTTP_TLS_CA => http_tls_ca: Option<PathBuf> as Optional<FilePath> =
        Unset { means: "the certificates in HTTP_TLS_CERT" };
    /// Requests a second that each token may make, and each address without one; 0 is no limit. Payments in one request are one request.
    HTTP_RATE_LIMIT => http_rate_limit: u32 as Count<0, 10_000_000> = Text("50000");

    ["Notifications"]
    /// The JSON file of those who are told of anomalies: see docs/operations.md. It holds secrets: keep it from other users. All
    /// instances with the role notify have the same.
    NOTIFY_TARGETS => notify_targets: Option<PathBuf> as Optional<FilePath> = Unset { means: "nobody is told" };
    /// Seconds in which anomalies of one user are counted together, to be told of in one message; 0 tells of each at once.
    NOTIFY_WINDOW => notify_window_s: u64 as Whole<0, { 24 * 3_600 }> = Text("60");
    /// Whether targets may have private addresses (loopback, local networks, link-local) and plain http.
    NOTIFY_ALLOW_PRIVATE => notify_allow_private: bool as Switch = Text("false");

    ["Logging"]
    /// Which lines to log: a level, or `target=level` pairs with commas between.
    LOG => log: String as LogFilter = Text("info");
    /// How they look. auto is for people on a terminal and JSON elsewhere.
    LOG_FORMAT => log_format: LogFormat as OneOf<LogFormat> = Text("auto");
}

impl Settings {
    /// Every setting in force with its source, secrets masked; `KAFKA_*` properties at the end.
    pub fn describe(&self) -> Vec<Row> {
        self.rows.iter().cloned().chain(self.kafka.details().map(Row::of_kafka)).collect()
    }

    /// How `MEMORY_LIMIT` is divided.
    ///
    /// # Errors
    /// The least number of bytes that would do.
    pub fn budget(&self) -> Result<Budget, u64> {
        let model = std::fs::metadata(&self.model_path).map_or(0, |file| file.len());
        // The projection of each tier reads as a worker does.
        let tiers = u32::from(self.redis_url.is_some()) + u32::from(self.database_url.is_some());
        let readers = if self.roles.plays(Role::Projection) { tiers } else { 0 };
        let load = Load {
            workers: self.worker_count() + readers,
            copies: self.standby_replicas > 0 && self.worker_count() > 0,
            model,
            embedded: self.broker == BrokerKind::Embedded,
            notifies: self.notify_targets.is_some(),
            ids: if self.dedup_s > 0 { self.dedup_entries } else { 0 },
        };
        Budget::new(self.memory_limit, load)
    }

    /// How many threads score: none without the role `stream`.
    pub fn worker_count(&self) -> u32 {
        if self.roles.plays(Role::Stream) { self.workers } else { 0 }
    }

    /// Where the value of a declared variable came from.
    pub fn origin(&self, variable: &str) -> Option<&Origin> {
        self.rows.iter().find(|row| row.variable == variable).map(|row| &row.origin)
    }

    /// Every secret in force, to be taken out of texts that leave this machine.
    pub fn secrets(&self) -> Vec<String> {
        let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let tokens = self.api_tokens.iter().map(|token| hex(&token.sha256));
        let kafka = self.kafka.details().filter(|property| kafka::is_secret(&property.variable));
        let urls = self.redis_url.iter().chain(&self.database_url);
        let passwords = urls.filter_map(|url| url.password()).chain(self.database_url.iter().map(|url| url.expose().to_owned()));
        tokens.chain(kafka.map(|property| property.value.clone())).chain(passwords).collect()
    }
}
