//! A whole instance in this process, on the embedded broker, with the tiers that a test gives it: payments go in, and what topics and
//! tiers then hold is compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mangrove::api::Api;
use mangrove::broker::embedded::EmbeddedBroker;
use mangrove::config::{Settings, Sources};
use mangrove::instance::{Blueprint, Identity, Instance, Stop};
use mangrove::projection::TierView;
use mangrove::tiers::{Cold, ServerUrl, Warm, WarmOptions};
use mangrove::training::Logs;
use models::Verdict;
use state::tier::{Guard, Held, Lookup};
use tempfile::TempDir;
use topology::broker::{Broker as _, Publisher as _, Reader as _};
use topology::decision::Decision;
use topology::partitioner::partition_of;
use topology::record::{Fetched, Outgoing, Record, TopicId, TopicPartition};

use crate::place;

/// The longest that anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
pub const PARTITIONS: u32 = 4;
/// 2026-11-23, noon: the time of all records. Payments begin ten hours before.
const NOON_MS: i64 = 1_795_435_200_000;
pub const BEGIN_MS: i64 = NOON_MS - 10 * 3_600_000;

/// Looks until there is an answer; panics, naming what did not come, when patience is over.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// A record: partition, offset, key, value.
pub type Seen = (u32, u64, Vec<u8>, Option<Vec<u8>>);

pub struct Stage {
    pub application: String,
    folder: TempDir,
    redis: Option<ServerUrl>,
    postgres: Option<ServerUrl>,
    more: Vec<(&'static str, String)>,
    pub broker: Arc<EmbeddedBroker>,
    running: Option<Instance>,
    runtime: tokio::runtime::Runtime,
    sent: u64,
    /// How much later than by their number payments are.
    later_ms: i64,
    /// Milliseconds between two payments.
    every_ms: f64,
}

fn settings(
    folder: &Path,
    application: &str,
    redis: Option<&ServerUrl>,
    postgres: Option<&ServerUrl>,
    more: &[(&str, String)],
) -> Settings {
    let path = |name: &str| folder.join(name).display().to_string();
    let url = |url: Option<&ServerUrl>| url.map_or_else(String::new, |url| url.expose().to_owned());
    let all = [
        ("BROKER", "embedded".to_owned()),
        ("EMBEDDED_SYNC", "os".to_owned()),
        ("EMBEDDED_DIR", path("broker")),
        ("STATE_DIR", path("state")),
        ("MODEL_STORE", path("models")),
        ("MODEL_PATH", path("current.forest")),
        ("APPLICATION_ID", application.to_owned()),
        ("AUTO_TRAIN", "off".to_owned()),
        ("RETRAIN_CRON", "off".to_owned()),
        ("WORKERS", "1".to_owned()),
        ("MEMORY_LIMIT", "512MiB".to_owned()),
        ("TOPIC_PARTITIONS", PARTITIONS.to_string()),
        ("ROLES", "stream,projection,api".to_owned()),
        ("REDIS_URL", url(redis)),
        ("DATABASE_URL", url(postgres)),
    ];
    let environment = all.into_iter().chain(more.iter().map(|(name, value)| (*name, value.clone())));
    let environment = environment.map(|(name, value)| (name.into(), value.into())).collect();
    Settings::load(&Sources { environment, ..Sources::default() }).unwrap_or_else(|faults| panic!("{faults:?}"))
}

impl Stage {
    /// An instance of a new application, running.
    pub fn new(redis: Option<&ServerUrl>, postgres: Option<&ServerUrl>) -> Self {
        Self::with(redis, postgres, &[])
    }

    /// As [`Self::new`], with more settings.
    pub fn with(redis: Option<&ServerUrl>, postgres: Option<&ServerUrl>, more: &[(&'static str, String)]) -> Self {
        let (folder, application) = (tempfile::tempdir().unwrap(), place::application());
        let settings = settings(folder.path(), &application, redis, postgres, more);
        let blueprint = Blueprint::new(&settings).unwrap();
        let broker = mangrove::service::embedded(&settings, &blueprint).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (redis, postgres, more) = (redis.cloned(), postgres.cloned(), more.to_vec());
        let mut stage = Self {
            application,
            folder,
            redis,
            postgres,
            more,
            broker,
            running: None,
            runtime,
            sent: 0,
            later_ms: 0,
            every_ms: 1_000.0,
        };
        stage.start();
        stage
    }

    fn settings(&self) -> Settings {
        settings(self.folder.path(), &self.application, self.redis.as_ref(), self.postgres.as_ref(), &self.more)
    }

    pub fn start(&mut self) {
        let settings = self.settings();
        let identity = Identity::lock(&settings.state_dir, None).unwrap();
        let blueprint = Blueprint::new(&settings).unwrap();
        self.running = Instance::start(&settings, blueprint, identity, &self.broker, &Stop::default()).unwrap();
        assert!(self.running.is_some());
    }

    /// Ends the instance. A thread that was told to end may hold its store for a moment longer, and the next life needs it.
    pub fn stop(&mut self) {
        let store = Arc::downgrade(&self.api().backend);
        self.running.take().unwrap().stop(Duration::from_secs(20)).unwrap();
        until("the store is let go of", || (store.strong_count() == 0).then_some(()));
    }

    fn instance(&self) -> &Instance {
        self.running.as_ref().unwrap()
    }

    pub fn api(&self) -> Api {
        self.instance().api(&self.settings())
    }

    /// The topics that training reads.
    pub fn logs(&self) -> Logs {
        Logs::of(&self.instance().topology, "verdicts", "labels")
    }

    /// Its Postgres.
    pub fn postgres(&self) -> &ServerUrl {
        self.postgres.as_ref().unwrap()
    }

    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// How the projection finds a tier.
    pub fn tier(&self, name: &str) -> TierView {
        let all = self.api().projection.all();
        all.into_iter().find(|tier| tier.tier == name).unwrap()
    }

    pub fn topic(&self, name: &str) -> TopicId {
        self.broker.topics().find(name).unwrap_or_else(|| panic!("no topic {name}"))
    }

    pub fn changelog(&self) -> TopicId {
        self.topic(&format!("{}-profiles-changelog", self.application))
    }

    fn send(&self, topic: TopicId, records: impl Iterator<Item = (String, Option<String>)>) {
        let mut publisher = self.broker.publisher().unwrap();
        for (user, value) in records {
            let to = TopicPartition { topic, partition: partition_of(user.as_bytes(), PARTITIONS) };
            let (key, value) = (Some(user.as_bytes()), value.as_ref().map(String::as_bytes));
            publisher.send(&Outgoing { to, key, value, timestamp: NOON_MS, headers: &[] }).unwrap();
        }
        publisher.flush().unwrap();
    }

    /// Sends payments of that many users in turn.
    pub fn pay(&mut self, payments: u64, users: u64) {
        let payers = (self.sent..self.sent + payments).map(|number| number % users);
        self.pay_of(payments, payers);
    }

    /// Sends a payment of each of these users.
    pub fn pay_by(&mut self, users: &[u64]) {
        self.pay_of(users.len() as u64, users.iter().copied());
    }

    /// As [`Self::pay_by`] for millions: they come fast, and what waits for the broker is bounded.
    pub fn pay_by_many(&mut self, mut users: impl Iterator<Item = u64>) {
        self.every_ms = 0.1;
        loop {
            let chunk: Vec<u64> = users.by_ref().take(20_000).collect();
            if chunk.is_empty() {
                return;
            }
            self.pay_by(&chunk);
        }
    }

    /// Event time passes without payments.
    pub fn let_pass(&mut self, ms: i64) {
        self.later_ms += ms;
    }

    fn pay_of(&mut self, payments: u64, payers: impl Iterator<Item = u64>) {
        let begin = self.sent;
        let payment = |(number, user): (u64, u64)| {
            let user = format!("user {user}");
            let value = format!(
                r#"{{"user_id":"{user}","amount":{}.5,"merchant":"shop {}","tx_id":"tx {number}","timestamp":{}}}"#,
                number % 90 + 1,
                number % 7,
                BEGIN_MS + self.later_ms + (number as f64 * self.every_ms) as i64
            );
            (user, value)
        };
        self.pay_these((begin..begin + payments).zip(payers).map(payment).collect());
    }

    /// Sends payments: each with its user.
    pub fn pay_these(&mut self, payments: Vec<(String, String)>) {
        self.sent += payments.len() as u64;
        self.send(self.topic("transactions"), payments.into_iter().map(|(user, value)| (user, Some(value))));
    }

    /// Sends records to a topic, keyed by user.
    pub fn say(&self, topic: &str, records: &[(&str, &str)]) {
        let records = records.iter().map(|(user, value)| ((*user).to_owned(), Some((*value).to_owned())));
        self.send(self.topic(topic), records);
    }

    /// Writes one record to the first partition of a topic.
    pub fn put(&self, topic: &str, key: &str, value: Option<&str>) {
        let to = TopicPartition { topic: self.topic(topic), partition: 0 };
        let mut publisher = self.broker.publisher().unwrap();
        let (key, value) = (Some(key.as_bytes()), value.map(str::as_bytes));
        publisher.send(&Outgoing { to, key, value, timestamp: NOON_MS, headers: &[] }).unwrap();
        publisher.flush().unwrap();
    }

    /// All committed records of a topic: partition, offset, key, value.
    pub fn records(&self, topic: TopicId) -> Vec<Seen> {
        let mut records = Vec::new();
        self.each(topic, |partition, record| {
            let key = record.key.unwrap_or_default().to_vec();
            records.push((partition, record.offset, key, record.value.map(<[u8]>::to_vec)));
        });
        records
    }

    /// Shows all committed records of a topic, partition by partition.
    pub fn each(&self, topic: TopicId, mut show: impl FnMut(u32, Record<'_>)) {
        let mut reader = self.broker.reader().unwrap();
        let mut fetched = Fetched::default();
        let partitions = self.broker.describe(&[topic]).unwrap()[0].as_ref().map_or(0, |info| info.partitions);
        for partition in 0..partitions {
            let at = TopicPartition { topic, partition };
            let bounds = reader.bounds(at).unwrap();
            reader.assign(at, bounds.start).unwrap();
            while reader.position(at).is_none_or(|position| position < bounds.end) {
                fetched.clear(0);
                reader.poll(&mut fetched, 1_000, Duration::from_millis(10)).unwrap();
                fetched.iter().for_each(|record| show(partition, record));
            }
            reader.unassign(at).unwrap();
        }
    }

    /// Whether every payment has its verdict.
    pub fn is_scored(&self) -> bool {
        let (mut reader, topic) = (self.broker.reader().unwrap(), self.topic("verdicts"));
        let end = |partition| reader.bounds(TopicPartition { topic, partition }).unwrap().end;
        (0..PARTITIONS).map(end).sum::<u64>() >= self.sent
    }

    /// Waits until every payment has its verdict.
    pub fn scored(&self) {
        until("every payment has its verdict", || (self.records(self.topic("verdicts")).len() as u64 >= self.sent).then_some(()));
    }

    /// The fold of the changelog: what every tier must come to.
    pub fn profiles(&self) -> BTreeMap<String, Lookup> {
        let mut profiles = BTreeMap::new();
        for (partition, offset, key, value) in self.records(self.changelog()) {
            let guard = Guard { generation: 1, offset };
            // The time is compared elsewhere.
            let held = value.map(|value| Lookup::Found(Held { guard, partition, at_ms: 0, value }));
            profiles.insert(String::from_utf8(key).unwrap(), held.unwrap_or(Lookup::Deleted(guard)));
        }
        profiles
    }

    /// What a tier has of these users.
    async fn held(tier: &impl state::tier::Tier, users: &[&str]) -> Option<BTreeMap<String, Lookup>> {
        let answers = tier.read(users).await.ok()?;
        let timeless = |answer| match answer {
            Lookup::Found(held) => Lookup::Found(Held { at_ms: 0, ..held }),
            other => other,
        };
        Some(users.iter().map(|&user| user.to_owned()).zip(answers.into_iter().map(timeless)).collect())
    }

    pub fn warm(&self) -> Warm {
        Warm::open(self.redis.as_ref().unwrap(), &self.application, WarmOptions::default()).unwrap()
    }

    pub fn cold(&self) -> Cold {
        Cold::open(self.postgres.as_ref().unwrap(), &self.application, &place::cold_options()).unwrap()
    }

    /// Waits until Redis has the fold of the changelog.
    pub fn redis_is_right(&self) {
        let warm = self.warm();
        let expected = self.profiles();
        let users: Vec<&str> = expected.keys().map(String::as_str).collect();
        until("Redis holds the fold of the changelog", || {
            self.wait(Self::held(&warm, &users)).filter(|held| *held == expected).map(drop)
        });
    }

    /// Waits until Postgres has the fold of the changelog and every verdict, once and as it is in the topic.
    pub fn postgres_is_right(&self) {
        let cold = self.cold();
        let expected = self.profiles();
        let users: Vec<&str> = expected.keys().map(String::as_str).collect();
        until("Postgres holds the fold of the changelog", || {
            self.wait(Self::held(&cold, &users)).filter(|held| *held == expected).map(drop)
        });
        let erased = self.erased();
        let mut verdicts = BTreeMap::new();
        for (_, _, user, value) in self.records(self.topic("verdicts")) {
            let verdict: Verdict = serde_json::from_slice(&value.unwrap()).unwrap();
            let offset: u64 = verdict.id.rsplit(':').next().unwrap().parse().unwrap();
            if erased.get(&user).is_none_or(|&after| offset >= after) {
                verdicts.insert(verdict.id.clone(), verdict);
            }
        }
        until("Postgres holds every verdict, but for those of users from before their erasure", || {
            let rows = self.wait(Self::verdicts(&cold))?;
            rows.keys().eq(verdicts.keys()).then(|| assert_eq!(rows, verdicts, "each as it is in the topic"))
        });
    }

    /// Waits until Postgres has taken in every record that the projected topics have now.
    pub fn projected(&self) {
        let own =
            ["profiles-changelog", "decisions", "notifications", "audit"].map(|name| format!("{}-{name}", self.application));
        let mut ends: BTreeMap<(String, i32), i64> = BTreeMap::new();
        for name in ["verdicts", "labels", "models"].map(str::to_owned).into_iter().chain(own) {
            for (partition, offset, ..) in self.records(self.topic(&name)) {
                ends.insert((name.clone(), partition as i32), offset as i64 + 1);
            }
        }
        let cold = self.cold();
        until("Postgres has taken in every record", || {
            let taken = self.wait(async {
                let client = cold.get().await.ok()?;
                let rows = client.query("SELECT topic, partition, next_offset FROM projection", &[]).await.ok()?;
                let place = |row: &tokio_postgres::Row| ((row.get(0), row.get(1)), row.get(2));
                Some(rows.iter().map(place).collect::<BTreeMap<(String, i32), i64>>())
            })?;
            ends.iter().all(|(of, end)| taken.get(of).is_some_and(|next| next >= end)).then_some(())
        });
    }

    /// By user: the payments' next offset at the erasure.
    pub fn erased(&self) -> BTreeMap<Vec<u8>, u64> {
        let decisions = self.topic(&format!("{}-decisions", self.application));
        let erasure = |(_, _, user, value): Seen| {
            let decision = Decision::decode(&value?).ok().filter(|decision| decision.kind == "erase")?;
            Some((user, decision.after))
        };
        self.records(decisions).into_iter().filter_map(erasure).collect()
    }

    /// The verdicts as Postgres has them, by id.
    async fn verdicts(cold: &Cold) -> Option<BTreeMap<String, Verdict>> {
        let client = cold.get().await.ok()?;
        let rows = client.query("SELECT *, reasons::text AS why, fx::text AS rate FROM verdicts", &[]).await.ok()?;
        let severities = ["NONE", "LOW", "MEDIUM", "HIGH", "CRITICAL"];
        let verdict = |row: &tokio_postgres::Row| {
            let text = |name: &str| row.get::<_, Option<String>>(name);
            let json = |name: &str| text(name).map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
            let features: Vec<f32> = row.get("features");
            let time: jiff::Timestamp = row.get("event_time");
            let verdict = serde_json::json!({
                "id": text("id"), "tx_id": text("tx_id"), "user_id": text("user_id"), "event_time": time.as_millisecond(),
                "merchant": text("merchant"), "amount": row.get::<_, f64>("amount"), "currency": text("currency"),
                "score": row.get::<_, Option<f64>>("score"), "raw_score": row.get::<_, Option<f64>>("raw_score"),
                "severity": severities[row.get::<_, i16>("severity") as usize], "is_anomaly": row.get::<_, bool>("is_anomaly"),
                "explanation": text("explanation"), "reasons": json("why").unwrap_or_else(|| serde_json::json!([])),
                "features": features, "model_id": text("model_id"), "fx": json("rate"),
            });
            serde_json::from_value::<Verdict>(verdict).unwrap()
        };
        Some(rows.iter().map(|row| (row.get("id"), verdict(row))).collect())
    }

    /// Everything that the projection wrote into Postgres, but for when: to compare two times with each other.
    pub fn dump(&self) -> Vec<String> {
        let cold = self.cold();
        self.wait(async {
            let client = cold.get().await.unwrap();
            let tables = [
                "verdicts",
                "profiles",
                "labels",
                "models",
                "notifications",
                "audit",
                "(SELECT topic, partition, generation, next_offset FROM projection)",
            ];
            let mut dump = Vec::new();
            for table in tables {
                let rows = client.query(&format!("SELECT t::text FROM {table} AS t ORDER BY 1"), &[]).await.unwrap();
                dump.extend(rows.iter().map(|row| row.get::<_, String>(0)));
            }
            dump
        })
    }

    /// Runs statements in the application's schema.
    pub fn sql(&self, statements: &str) {
        let cold = self.cold();
        self.wait(async { cold.get().await.unwrap().batch_execute(statements).await.unwrap() });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(instance) = self.running.take() {
            let _ = instance.stop(Duration::from_secs(10));
        }
    }
}
