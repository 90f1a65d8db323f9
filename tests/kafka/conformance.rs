//! The engine's own suite of what every broker must do ([`topology::conformance`]), on Kafka.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mangrove::broker::kafka::{KafkaBroker, KafkaConfig};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use topology::broker::{Broker, Publisher};
use topology::conformance::{Capability, FILLER_KEY, Harness, cases};
use topology::record::{Outgoing, TopicId, TopicPartition, Topics};

use crate::common::broker::{Broker as OwnBroker, free_address};
use crate::common::proxy::{Fate, Proxy};
use crate::common::scene::Scene;
use crate::world::{address, run};

/// Long enough for a dead member's session and a compaction on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many cases run at once: they mostly wait.
const AT_ONCE: usize = 4;

static NAMES: AtomicU32 = AtomicU32::new(0);

/// A broker of one case's own, with a proxy in front of it.
struct Behind {
    proxy: Proxy,
    /// Killed when dropped, before its folder goes.
    _broker: OwnBroker,
    _scene: Scene,
}

impl Behind {
    fn new() -> Self {
        let mut proxy = Proxy::new();
        let scene = Scene::at(free_address(), "conformance");
        let broker = OwnBroker::start_behind(&scene, Some(proxy.port));
        proxy.serve(broker.proxied_port());
        Self { proxy, _broker: broker, _scene: scene }
    }
}

struct Kafka {
    address: String,
    /// Only for cases that lose requests.
    behind: Option<Behind>,
    /// Members are dropped after seconds, not after the usual 45: only for cases about that, since a busy machine may be that slow.
    quick: bool,
    deadline: Instant,
}

impl Kafka {
    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.address).create().expect("an admin client")
    }

    /// Sets properties of a topic and keeps its others: Kafka's call replaces them all.
    fn alter(&self, name: &str, changes: &[(&str, &str)]) {
        let admin = self.admin();
        let answer = run(admin.describe_configs(&[ResourceSpecifier::Topic(name)], &AdminOptions::new())).expect("described");
        let found = answer[0].as_ref().expect("a topic");
        let kept = ["cleanup.policy", "delete.retention.ms", "retention.ms", "max.message.bytes"];
        let kept: Vec<_> = kept.iter().filter_map(|&name| Some((name, found.get(name)?.value.clone()?))).collect();
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(name));
        for (name, value) in kept.iter().map(|(name, value)| (*name, value.as_str())).chain(changes.iter().copied()) {
            alter = alter.set(name, value);
        }
        run(admin.alter_configs([&alter], &AdminOptions::new())).expect("altered")[0].as_ref().expect("altered");
    }

    /// Kafka tidies up closed segments only: a record with a time of its own closes the last one.
    fn roll(&self, broker: &KafkaBroker, topic: TopicId, changes: &[(&str, &str)]) {
        let name = broker.topics().name(topic);
        self.alter(name, &[&[("segment.ms", "100")], changes].concat());
        let mut publisher = broker.publisher().expect("a publisher");
        let to = TopicPartition { topic, partition: 0 };
        let filler = Outgoing { to, key: Some(FILLER_KEY), value: Some(b"filler"), timestamp: self.now_ms(), headers: &[] };
        publisher.send(&filler).expect("sent");
        publisher.flush().expect("durable");
    }
}

impl Harness for Kafka {
    type Broker = KafkaBroker;

    fn open(&mut self, topics: &[&str]) -> KafkaBroker {
        let prefix = self.fresh("conformance");
        let topics = Topics::new(topics.iter().map(|topic| format!("{prefix}-{topic}")).collect());
        let mut config = KafkaConfig { bootstrap_servers: self.address.clone(), ..KafkaConfig::default() };
        if self.quick {
            config.session_timeout_ms = 2_000;
            config.properties.insert("max.poll.interval.ms".to_owned(), "3000".to_owned());
        }
        KafkaBroker::new(config, topics).expect("a broker")
    }

    fn fresh(&mut self, name: &str) -> String {
        format!("{name}-{}-{}-{}", std::process::id(), self.now_ms(), NAMES.fetch_add(1, Ordering::Relaxed))
    }

    fn can(&self, _: Capability) -> bool {
        true
    }

    fn poll_wait(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn begin_waiting(&mut self) {
        self.deadline = Instant::now() + PATIENCE;
    }

    fn keep_waiting(&mut self) -> bool {
        Instant::now() < self.deadline
    }

    fn polls_to_be_sure(&self) -> usize {
        50
    }

    fn now_ms(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as i64
    }

    fn short_transaction_timeout_ms(&self) -> u64 {
        1_000
    }

    fn compact(&mut self, broker: &KafkaBroker, topic: TopicId) {
        self.roll(broker, topic, &[("min.cleanable.dirty.ratio", "0.0001"), ("file.delete.delay.ms", "100")]);
    }

    fn retain(&mut self, broker: &KafkaBroker, topic: TopicId) {
        self.roll(broker, topic, &[("file.delete.delay.ms", "100")]);
    }

    fn recreate(&mut self, broker: &KafkaBroker, topic: TopicId) {
        let name = broker.topics().name(topic);
        let partitions = broker.describe(&[topic]).expect("described")[0].as_ref().expect("a topic").partitions;
        run(self.admin().delete_topics(&[name], &AdminOptions::new())).expect("deleted")[0].as_ref().expect("deleted");
        self.begin_waiting();
        while broker.describe(&[topic]) != Ok(vec![None]) {
            assert!(self.keep_waiting(), "the topic is still there");
        }
        // Its records are of long ago: by the broker's default they would expire at once.
        let topic = NewTopic::new(name, partitions as i32, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
        run(self.admin().create_topics([&topic], &AdminOptions::new())).expect("created")[0].as_ref().expect("created");
    }

    fn lose_next_end(&mut self, _: &KafkaBroker) {
        self.behind.as_ref().expect("the case says what it needs").proxy.arm(Fate::Swallowed);
    }

    fn deliver_lost_end(&mut self, _: &KafkaBroker) {
        self.behind.as_ref().expect("the case says what it needs").proxy.deliver();
    }
}

#[test]
fn kafka_keeps_what_the_port_promises() {
    let Some(address) = address("conformance") else { return };
    let all = cases::<Kafka>();
    let only = std::env::var("MANGROVE_CASE").unwrap_or_default();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let quick = case.needs.contains(&Capability::SessionTimeout);
                    if !case.name.contains(&only) {
                        continue;
                    }
                    let behind = case.needs.contains(&Capability::LoseEnd).then(Behind::new);
                    let address = behind.as_ref().map_or_else(|| address.clone(), |behind| behind.proxy.address());
                    let mut harness = Kafka { address, behind, quick, deadline: Instant::now() };
                    let begun = Instant::now();
                    let done = catch_unwind(AssertUnwindSafe(|| (case.run)(&mut harness)));
                    println!("{}: {} in {:?}", case.name, if done.is_ok() { "kept" } else { "BROKEN" }, begun.elapsed());
                    if done.is_err() {
                        failed.lock().expect("not poisoned").push(case.name);
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner().expect("not poisoned"), [""; 0]);
}
