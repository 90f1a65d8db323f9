//! One test's place on the broker: topics, a group and a folder that nothing else has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use mangrove::scoring::UserProfile;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use state::store::{decode_kept, decode_marks};
use tempfile::TempDir;

use super::records::{Seen, Writer, each, ends, read_all};
use super::run;
use super::service::Service;

/// The partitions of every topic, where a test says nothing else.
pub const PARTITIONS: u32 = 8;
const PROGRAM: &str = env!("CARGO_BIN_EXE_mangrove");

static SCENES: AtomicU32 = AtomicU32::new(0);

pub struct Scene {
    pub address: String,
    prefix: String,
    folder: TempDir,
    settings: Vec<(String, String)>,
    started: AtomicU32,
    kept: bool,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if self.kept && std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("logs and state are kept: {}", self.folder.path().display());
        }
    }
}

impl Scene {
    /// None, said loudly, where there is no broker to test with.
    pub fn new(test: &str) -> Option<Self> {
        Some(Self::at(super::address(&format!("end_to_end::{test}"))?, test))
    }

    /// A scene on a broker, or where there will be one.
    pub fn at(address: String, test: &str) -> Self {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").subsec_nanos();
        let prefix = format!("e{}-{}-{nanos}-{test}-", std::process::id(), SCENES.fetch_add(1, Ordering::Relaxed));
        let folder = TempDir::new().expect("a folder");
        let scene = Self { address, prefix, folder, settings: Vec::new(), started: AtomicU32::new(0), kept: false };
        let model = scene.path("no-model");
        scene
            .with("HTTP_ADDR", "127.0.0.1:0")
            .with("LOG_FORMAT", "json")
            .with("APPLICATION_ID", "app")
            .with("AUTO_TRAIN", "off")
            .with("REDIS_URL", "")
            .with("MODEL_PATH", model.to_str().expect("a plain path"))
            .with("WORKERS", "2")
            .with("MEMORY_LIMIT", "256MiB")
            .with("KAFKA_SESSION_TIMEOUT_MS", "6000")
    }

    /// Leaves the folder where it is, and names it, where the test fails.
    pub fn kept_on_failure(mut self) -> Self {
        self.kept = true;
        self
    }

    /// A setting for all processes from now on.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// As [`Self::with`], under way.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The full name of one of the topics.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The consumer group's id, also in front of the application's own topics.
    pub fn group(&self) -> String {
        self.topic("app")
    }

    pub fn changelog(&self) -> String {
        self.topic("app-profiles-changelog")
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.address).create().expect("an admin client")
    }

    /// Creates a topic that keeps everything, unless the properties say otherwise.
    pub fn create(&self, name: &str, partitions: u32, properties: &[(&str, &str)]) {
        let name = self.topic(name);
        let mut topic = NewTopic::new(&name, partitions as i32, TopicReplication::Fixed(1));
        if properties.iter().all(|(property, _)| *property != "retention.ms") {
            topic = topic.set("retention.ms", "-1");
        }
        let topic = properties.iter().fold(topic, |topic, (property, value)| topic.set(property, value));
        run(self.admin().create_topics([&topic], &AdminOptions::new())).expect("an answer")[0].as_ref().expect("created");
        // It is there for everybody once its partitions answer.
        self.ends(&name);
    }

    /// Gives topics more partitions, and waits until everybody is told of them.
    pub fn grow(&self, names: &[&str], partitions: usize) {
        let topics: Vec<String> = names.iter().map(|name| self.topic(name)).collect();
        let more: Vec<NewPartitions<'_>> = topics.iter().map(|name| NewPartitions::new(name, partitions)).collect();
        for grown in run(self.admin().create_partitions(&more, &AdminOptions::new())).expect("an answer") {
            grown.expect("grown");
        }
        super::until("the grown topics are known", || {
            topics.iter().all(|topic| self.ends(topic).len() == partitions).then_some(())
        });
    }

    /// A topic's property, as the broker tells it.
    pub fn property(&self, topic: &str, property: &str) -> String {
        let answer = run(self.admin().describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new()));
        let found = answer.expect("an answer").remove(0).unwrap_or_else(|code| panic!("{topic}: {code}"));
        found.get(property).and_then(|entry| entry.value.clone()).unwrap_or_else(|| panic!("{topic} has no {property}"))
    }

    /// Deletes the group with its offsets; it must have no members.
    pub fn delete_group(&self) {
        let group = self.group();
        super::until("the group has no members and is deleted", || {
            let answer = run(self.admin().delete_groups(&[&group], &AdminOptions::new())).expect("an answer");
            answer[0].is_ok().then_some(())
        });
    }

    /// True once the broker has this topic.
    pub fn exists(&self, topic: &str) -> bool {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.address).create().expect("a consumer");
        let all = consumer.fetch_metadata(None, super::PATIENCE).expect("metadata");
        all.topics().iter().any(|found| found.name() == topic && !found.partitions().is_empty())
    }

    /// The end of each partition of a topic.
    pub fn ends(&self, topic: &str) -> Vec<u64> {
        ends(&self.address, topic, "read_uncommitted")
    }

    /// How many partitions of a topic have an open transaction.
    pub fn open_transactions(&self, topic: &str) -> usize {
        let stable = ends(&self.address, topic, "read_committed");
        stable.iter().zip(self.ends(topic)).filter(|(stable, end)| *stable < end).count()
    }

    /// Commits offsets of all partitions of a topic, in the name of the group; it must have no members.
    pub fn commit(&self, topic: &str, offsets: &[u64]) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("group.id", self.group()).set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        for (partition, &offset) in offsets.iter().enumerate() {
            list.add_partition_offset(topic, partition as i32, Offset::Offset(offset as i64)).expect("a partition");
        }
        super::until("the group has no members and takes offsets", || consumer.commit(&list, CommitMode::Sync).ok());
    }

    /// All committed records of a topic, by its full name.
    pub fn read(&self, topic: &str) -> Vec<Seen> {
        read_all(&self.address, topic)
    }

    /// The group's committed offset of each partition of a topic.
    pub fn committed(&self, topic: &str) -> Vec<Option<u64>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("group.id", self.group()).set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, self.ends(topic).len() as i32 - 1);
        let answer = consumer.committed_offsets(list, super::PATIENCE).expect("committed offsets");
        let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset as u64) } else { None };
        answer.elements().iter().map(|element| offset(element.offset())).collect()
    }

    /// The last value of each user in the changelog.
    pub fn profiles(&self) -> BTreeMap<Vec<u8>, UserProfile> {
        self.kept_profiles(|_, _| true)
    }

    /// The value of each user that includes the most of the input, which is what restores keep without transactions: a zombie's
    /// may come late.
    pub fn newest_profiles(&self) -> BTreeMap<Vec<u8>, UserProfile> {
        let included = |value: &[u8]| decode_marks(value).expect("a kept profile").0;
        self.kept_profiles(|kept, next| included(next) >= included(kept))
    }

    fn kept_profiles(&self, replaces: impl Fn(&[u8], &[u8]) -> bool) -> BTreeMap<Vec<u8>, UserProfile> {
        let mut values: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        each(&self.address, &self.changelog(), |Seen { key, value, .. }| {
            let key = key.expect("a key");
            match value {
                Some(value) if values.get(&key).is_none_or(|kept| replaces(kept, &value)) => drop(values.insert(key, value)),
                Some(_) => {}
                None => drop(values.remove(&key)),
            }
        });
        let profile = |value: Vec<u8>| decode_kept::<UserProfile>(&value).expect("a kept profile").1;
        values.into_iter().map(|(key, value)| (key, profile(value))).collect()
    }

    pub fn writer(&self) -> Writer {
        Writer::new(&self.address)
    }

    /// A command of the program, under the scene's settings and nothing of the environment.
    pub fn command(&self, state: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env_clear().current_dir(self.folder.path());
        command.env("KAFKA_BOOTSTRAP_SERVERS", &self.address).env("TOPIC_PREFIX", &self.prefix);
        command.env("STATE_DIR", self.path(state)).envs(self.settings.iter().cloned());
        command
    }

    /// Starts an instance on a state folder of that name.
    pub fn start(&self, state: &str) -> Service {
        self.start_with(state, &[])
    }

    /// As [`Self::start`], with settings for this process alone.
    pub fn start_with(&self, state: &str, settings: &[(&str, &str)]) -> Service {
        let mut command = self.command(state, &["run"]);
        command.envs(settings.iter().copied());
        // Beside the state folders, never on a disk that a test fills.
        let (name, number) = (state.replace('/', "-"), self.started.fetch_add(1, Ordering::Relaxed));
        let log = self.path(&format!("{name}-{number}.log"));
        Service::spawn(&mut command, log)
    }

    /// Copies a state folder that no instance holds.
    pub fn copy(&self, from: &str, to: &str) {
        succeed(Command::new("cp").arg("-r").arg(self.path(from)).arg(self.path(to)));
    }

    /// Loses a state folder.
    pub fn forget(&self, state: &str) {
        std::fs::remove_dir_all(self.path(state)).expect("removed");
    }

    /// Puts a model's file into the registry, as an operator does; its id.
    pub fn register(&self, model: &Path) -> String {
        let output = self.call(&["models", "import", model.to_str().expect("a plain path"), "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let version: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        version["id"].as_str().expect("an id").to_owned()
    }

    /// Runs a command to its end.
    pub fn call(&self, arguments: &[&str]) -> Output {
        self.command("none", arguments).output().expect("it runs")
    }
}

/// Runs a command that must succeed, outside of any scene.
pub fn succeed(command: &mut Command) {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The program, without a scene.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().current_dir(folder);
    command
}
