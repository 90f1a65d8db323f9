//! What must hold between settings, each of which is right by itself.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::fault::Fault;
use super::origin::Origin;
use super::parse::TOPIC_NAME_MAX;
use super::table::Settings;
use super::values::{BrokerKind, InputPartitioning, ProcessingGuarantee};
use crate::notify::targets::Targets;

/// The longest ending that we put behind `APPLICATION_ID` for a topic of our own (`-profiles-changelog` and the like).
const OWN_TOPIC_ENDING_MAX: usize = 32;

pub(super) fn check(settings: &Settings, faults: &mut Vec<Fault>) {
    check_http(settings, faults);
    check_eviction(settings, faults);
    check_tls(settings, faults);
    check_advertised(settings, faults);
    check_times(settings, faults);
    check_topics(settings, faults);
    check_folders(settings, faults);
    check_guarantee(settings, faults);
    check_memory(settings, faults);
    check_notifications(settings, faults);
}

/// Each wrong target by its name; no value of the file is repeated, since it may be a secret.
fn check_notifications(settings: &Settings, faults: &mut Vec<Fault>) {
    let Some(path) = &settings.notify_targets else { return };
    let wrong = Targets::read(path, settings.notify_allow_private).err().unwrap_or_default();
    let origin = origin(settings, "NOTIFY_TARGETS");
    faults.extend(wrong.into_iter().map(|why| {
        let problem = format!("{}: {why}", path.display());
        Fault::hidden("NOTIFY_TARGETS", origin.clone(), problem, "a file as docs/operations.md shows it")
    }));
}

/// Shares that are too small to work with would not keep to the limit either.
fn check_memory(settings: &Settings, faults: &mut Vec<Fault>) {
    if let Err(least) = settings.budget() {
        let (workers, mib) = (settings.workers, least.div_ceil(1 << 20));
        faults.push(Fault::of_value(
            "MEMORY_LIMIT",
            origin(settings, "MEMORY_LIMIT"),
            &format!("{}MiB", settings.memory_limit >> 20),
            format!("is too small for {workers} workers and the model: together they need {mib} MiB"),
            format!("{mib}MiB or more, or fewer WORKERS"),
        ));
    }
}

/// Without transactions a replayed first stage would write a payment into the repartition topic twice, and nothing would know it again.
fn check_guarantee(settings: &Settings, faults: &mut Vec<Fault>) {
    let replays = settings.processing_guarantee == ProcessingGuarantee::AtLeastOnce;
    if replays && settings.input_partitioning == InputPartitioning::Any {
        faults.push(Fault::of_value(
            "INPUT_PARTITIONING",
            origin(settings, "INPUT_PARTITIONING"),
            "any",
            "needs PROCESSING_GUARANTEE=exactly_once: a crash would count payments twice on their way through the repartition topic",
            "murmur2, or exactly_once",
        ));
    }
}

/// What leaves this machine must be kept somewhere, byte for byte.
fn check_eviction(settings: &Settings, faults: &mut Vec<Fault>) {
    let mut fault = |problem: &str, expected: &str| {
        let value = settings.state_ttl_s.to_string();
        faults.push(Fault::of_value("STATE_TTL", origin(settings, "STATE_TTL"), &value, problem, expected));
    };
    if settings.state_ttl_s > 0 && settings.database_url.is_none() {
        fault("lets profiles leave this machine, and no DATABASE_URL is set to keep them", "0, or DATABASE_URL");
    }
    if settings.state_ttl_s > 0 && settings.processing_guarantee == ProcessingGuarantee::AtLeastOnce {
        let problem =
            "needs PROCESSING_GUARANTEE=exactly_once: nothing keeps a zombie's late profile from the place of the evicted one";
        fault(problem, "0, or exactly_once");
    }
}

fn origin(settings: &Settings, variable: &str) -> Origin {
    settings.origin(variable).cloned().unwrap_or(Origin::Default)
}

/// A profile is personal data: nothing serves it to other machines without a token.
fn check_http(settings: &Settings, faults: &mut Vec<Fault>) {
    let open = !settings.http_addr.ip().is_loopback() && settings.api_tokens.is_empty();
    if open && settings.roles.is_asked() {
        faults.push(Fault::of_value(
            "HTTP_ADDR",
            origin(settings, "HTTP_ADDR"),
            &settings.http_addr.to_string(),
            "can be reached from other machines, and no API_TOKENS are set",
            "a loopback address such as 127.0.0.1:8000, or API_TOKENS",
        ));
    }
}

/// A certificate and its key go together.
fn check_tls(settings: &Settings, faults: &mut Vec<Fault>) {
    let lacking = |variable: &str, problem: &str| {
        Fault::of_value(variable, origin(settings, variable), "", problem, "the path of a PEM file")
    };
    match (&settings.http_tls_cert, &settings.http_tls_key) {
        (Some(_), None) => faults.push(lacking("HTTP_TLS_KEY", "is not set, and HTTP_TLS_CERT is")),
        (None, Some(_)) => faults.push(lacking("HTTP_TLS_CERT", "is not set, and HTTP_TLS_KEY is")),
        (None, None) if settings.http_tls_ca.is_some() => {
            faults.push(lacking("HTTP_TLS_CERT", "is not set, and HTTP_TLS_CA is"));
        }
        _ => {}
    }
}

/// Other instances pass queries on to the address that this one announces. The embedded broker has one instance.
fn check_advertised(settings: &Settings, faults: &mut Vec<Fault>) {
    let nowhere = settings.http_addr.ip().is_unspecified() && settings.http_advertised_addr.is_none();
    if nowhere && settings.roles.is_asked() && settings.broker == BrokerKind::Kafka {
        faults.push(Fault::of_value(
            "HTTP_ADVERTISED_ADDR",
            origin(settings, "HTTP_ADVERTISED_ADDR"),
            &settings.http_addr.to_string(),
            "is what HTTP_ADDR listens on, and no address that other instances can call",
            "`host:port` as they reach this instance",
        ));
    }
}

/// A commit that comes later than the broker's patience finds its transaction aborted, every time.
fn check_times(settings: &Settings, faults: &mut Vec<Fault>) {
    let (commit, timeout) = (settings.commit_interval_ms, settings.transaction_timeout_ms);
    if commit.saturating_mul(2) > timeout {
        faults.push(Fault::of_value(
            "COMMIT_INTERVAL_MS",
            origin(settings, "COMMIT_INTERVAL_MS"),
            &commit.to_string(),
            format!("is more than half of TRANSACTION_TIMEOUT_MS ({timeout})"),
            format!("at most {}, or a longer TRANSACTION_TIMEOUT_MS", timeout / 2),
        ));
    }
}

/// Two streams in one topic would each be read as the other.
fn check_topics(settings: &Settings, faults: &mut Vec<Fault>) {
    let topics = [
        ("TRANSACTIONS_TOPIC", &settings.transactions_topic),
        ("VERDICTS_TOPIC", &settings.verdicts_topic),
        ("ANOMALIES_TOPIC", &settings.anomalies_topic),
        ("COMMANDS_TOPIC", &settings.commands_topic),
        ("LABELS_TOPIC", &settings.labels_topic),
        ("MODELS_TOPIC", &settings.models_topic),
        ("DEAD_LETTERS_TOPIC", &settings.dead_letters_topic),
    ];
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (variable, name) in topics {
        if let Some(other) = owners.insert(name, variable) {
            let problem = format!("is the topic of {other} too");
            faults.push(Fault::of_value(variable, origin(settings, variable), name, problem, "a topic of its own"));
        }
    }
    let own_prefix = settings.topic_prefix.len() + settings.application_id.len();
    if own_prefix + OWN_TOPIC_ENDING_MAX > TOPIC_NAME_MAX {
        faults.push(Fault::of_value(
            "APPLICATION_ID",
            origin(settings, "APPLICATION_ID"),
            &settings.application_id,
            "is, together with TOPIC_PREFIX, too long for topics of its own",
            format!("both together at most {} characters", TOPIC_NAME_MAX - OWN_TOPIC_ENDING_MAX),
        ));
    }
}

/// Two RocksDBs cannot share a folder, and dropping the state must not take the broker with it.
fn check_folders(settings: &Settings, faults: &mut Vec<Fault>) {
    if settings.broker != BrokerKind::Embedded {
        return;
    }
    let (state, broker) = (plain(&settings.state_dir), plain(&settings.embedded_dir));
    if state.starts_with(&broker) || broker.starts_with(&state) {
        faults.push(Fault::of_value(
            "EMBEDDED_DIR",
            origin(settings, "EMBEDDED_DIR"),
            &settings.embedded_dir.display().to_string(),
            "overlaps with STATE_DIR",
            "two folders of which neither holds the other",
        ));
    }
}

/// The path without `.` parts. Links are not followed: neither folder need exist yet.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}
