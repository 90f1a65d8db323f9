//! Settings: refused with their names, never with their values. These need no broker.

use std::time::Instant;

use mangrove::broker::kafka::{KafkaBroker, KafkaConfig};
use topology::broker::{Broker, Reaction};
use topology::record::{TopicId, Topics};

fn variables(pairs: &[(&str, &str)]) -> KafkaConfig {
    KafkaConfig::from_variables(pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())))
}

#[test]
fn all_wrong_properties_are_named_at_once() {
    let config = variables(&[
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost:1"),
        ("KAFKA_SASL_PASWORD", "hunter2"),
        ("KAFKA_SECURITY_PROTOCOL", "hunter3"),
        ("KAFKA_ENABLE_IDEMPOTENCE", "false"),
        ("KAFKA_SOCKET_KEEPALIVE_ENABLE", "true"),
        ("PATH", "/bin"),
    ]);
    let error = config.check().unwrap_err();
    assert_eq!(error.reaction, Reaction::Stop);
    for name in ["sasl.pasword", "security.protocol", "enable.idempotence"] {
        assert!(error.what.contains(name), "{name} in: {error}");
    }
    assert!(!error.what.contains("hunter") && !error.what.contains("keepalive"), "{error}");
}

#[test]
fn secrets_are_not_shown() {
    let config = variables(&[("KAFKA_SASL_PASSWORD", "hunter2"), ("KAFKA_SSL_KEY_PEM", "hunter3")]);
    let shown = format!("{config:?}");
    assert!(shown.contains("sasl.password") && !shown.contains("hunter"), "{shown}");
}

#[test]
fn settings_of_our_own_are_checked_too() {
    let config = KafkaConfig { compression: "brotli".to_owned(), ..KafkaConfig::default() };
    assert!(config.check().unwrap_err().what.contains("compression"));
    assert_eq!(KafkaConfig::default().check(), Ok(()));
}

#[test]
fn an_absent_broker_is_named_with_what_to_check() {
    let config = KafkaConfig { bootstrap_servers: "127.0.0.1:1".to_owned(), request_timeout_ms: 3_000, ..KafkaConfig::default() };
    let broker = KafkaBroker::new(config, Topics::new(vec!["t".to_owned()])).expect("connects to nothing yet");
    let begun = Instant::now();
    let error = broker.describe(&[TopicId(0)]).unwrap_err();
    assert_eq!(error.reaction, Reaction::Retry);
    for part in ["127.0.0.1:1", "running", "security.protocol", "Connection refused"] {
        assert!(error.what.contains(part), "{part} in: {error}");
    }
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}
