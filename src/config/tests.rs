//! Precedence, faults, masks, and that documents and flags follow the declarations.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::parse::{self, Parser};
use super::*;

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(variable, value)| (variable.into(), value.into())).collect()
}

fn load(pairs: &[(&str, &str)]) -> Result<Settings, Vec<Fault>> {
    Settings::load(&Sources { environment: environment(pairs), ..Sources::default() })
}

fn texts(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

#[test]
fn the_defaults_are_right_and_come_from_nowhere() {
    let settings = load(&[]).unwrap();
    assert_eq!(settings.broker, BrokerKind::Kafka);
    assert_eq!(settings.kafka_bootstrap_servers, "localhost:9092");
    assert_eq!(settings.anomaly_threshold.to_bits(), 0.5f64.to_bits());
    assert_eq!(settings.dead_letters_topic, "dead-letters");
    assert_eq!(settings.fx_rates_path, None);
    assert_eq!(settings.start_from, StartFrom::Refuse);
    assert!(settings.api_tokens.is_empty());
    assert!(settings.workers >= 1 && settings.memory_limit >= 64 << 20);
    assert!(settings.describe().iter().all(|row| row.origin == Origin::Default));
    assert_eq!(settings.describe().len(), DECLARATIONS.len());
}

#[test]
fn each_declaration_is_told_apart_and_explained() {
    let mut seen = std::collections::BTreeSet::new();
    for declaration in DECLARATIONS {
        assert!(seen.insert(declaration.variable), "{} is declared twice", declaration.variable);
        assert!(declaration.help().ends_with('.'), "{} is not explained in sentences", declaration.variable);
        assert!(!(declaration.expected)().is_empty());
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    std::fs::write(&path, "# comment\nWORKERS=2\nLOG=debug\nREASONS=all\n").unwrap();
    let command = CommandDefaults {
        command: "demo",
        values: vec![("WORKERS", "1".into()), ("REASONS", "anomalies".into()), ("BROKER", "embedded".into())],
    };
    let sources = Sources {
        flags: vec![("WORKERS".into(), "4".into())],
        environment: environment(&[("WORKERS", "3"), ("LOG", "warn")]),
        dotenv: Dotenv::Required(path.clone()),
        command: Some(command),
    };
    let settings = Settings::load(&sources).unwrap();
    assert_eq!((settings.workers, settings.log.as_str()), (4, "warn"));
    assert_eq!((settings.reasons, settings.broker), (Reasons::All, BrokerKind::Embedded));
    assert_eq!(settings.origin("WORKERS"), Some(&Origin::Flag("--workers".into())));
    assert_eq!(settings.origin("LOG"), Some(&Origin::Environment));
    assert_eq!(settings.origin("REASONS"), Some(&Origin::Dotenv { path, line: 4 }));
    assert_eq!(settings.origin("BROKER"), Some(&Origin::Command("demo")));
    assert_eq!(settings.origin("NO_SUCH_VARIABLE"), None);
}

#[test]
fn repartitioning_needs_transactions() {
    let any = ("INPUT_PARTITIONING", "any");
    assert!(load(&[any]).is_ok());
    let faults = load(&[any, ("PROCESSING_GUARANTEE", "at_least_once")]).unwrap_err();
    assert!(texts(&faults).contains("PROCESSING_GUARANTEE=exactly_once"), "{}", texts(&faults));
}

/// What leaves this machine must be kept, and by who keeps it byte for byte.
#[test]
fn eviction_needs_transactions_and_a_cold_tier_and_says_so_at_once() {
    let (ttl, database) = (("STATE_TTL", "60"), ("DATABASE_URL", "postgres://scorer@db/mangrove"));
    assert_eq!(load(&[ttl, database]).unwrap().state_ttl_s, 60);
    let faults = load(&[ttl, ("PROCESSING_GUARANTEE", "at_least_once"), ("COMMIT_INTERVAL_MS", "6000")]).unwrap_err();
    let all = texts(&faults);
    assert_eq!(faults.len(), 3, "{all}");
    assert!(
        all.contains("STATE_TTL (from environment): `60` lets profiles leave this machine, and no DATABASE_URL is set"),
        "{all}"
    );
    assert!(all.contains("STATE_TTL (from environment): `60` needs PROCESSING_GUARANTEE=exactly_once"), "{all}");
    assert_eq!(load(&[ttl]).unwrap_err().len(), 1, "Redis alone keeps nothing");
    assert_eq!(load(&[ttl, database, ("PROCESSING_GUARANTEE", "at_least_once")]).unwrap_err().len(), 1);
    for off in [&[("STATE_TTL", "0")][..], &[("STATE_TTL", "0"), ("PROCESSING_GUARANTEE", "at_least_once")]] {
        assert!(load(off).is_ok(), "{off:?}");
    }
    for wrong in ["-1", "1h", "60s", "1.5", "1e3", "316224001", "99999999999999999999"] {
        let faults = load(&[("STATE_TTL", wrong), database]).unwrap_err();
        assert!(faults.len() == 1 && texts(&faults).contains("STATE_TTL (from environment)"), "{wrong}: {}", texts(&faults));
    }
    assert!(load(&[("STATE_TTL", "316224000"), database]).is_ok(), "ten years");
}

#[test]
fn all_that_is_wrong_is_named_at_once() {
    let long = "x".repeat(100);
    let faults = load(&[
        ("BROKER", "rabbit"),
        ("ANOMALY_THRESHOLD", "1.5"),
        ("WORKERS", "0"),
        ("COMMIT_INTERVAL_MS", &long),
        ("HTTP_ADDR", "localhost"),
        ("KAFKA_GROUP_ID", "other"),
        ("TOPIC_PREFIX", "a b"),
        ("NOT_OURS", "\u{0}"),
    ])
    .unwrap_err();
    let all = texts(&faults);
    assert_eq!(faults.len(), 7, "{all}");
    assert!(all.contains("BROKER (from environment): `rabbit` is not known; expected kafka or embedded"), "{all}");
    assert!(all.contains("KAFKA_GROUP_ID (from environment): sets `group.id`"), "{all}");
    assert!(all.contains("expected APPLICATION_ID"), "{all}");
    assert!(!all.contains(&long), "a long value is cut: {all}");
}

#[test]
fn the_file_s_faults_have_lines_and_show_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings");
    std::fs::write(&path, "API_TOKENS=\"half a secret\nBROKER=kafka\n9=x\nBROKER='embedded' # ok\n").unwrap();
    let faults = Settings::load(&Sources { dotenv: Dotenv::Required(path), ..Sources::default() }).unwrap_err();
    let all = texts(&faults);
    assert_eq!(faults.len(), 2, "{all}");
    assert!(all.contains("settings:1)") && all.contains("settings:3)"), "{all}");
    assert!(!all.contains("half a secret"), "{all}");
}

#[test]
fn a_missing_file_matters_only_when_it_was_asked_for() {
    let path = PathBuf::from("/nonexistent/.env");
    let load = |dotenv| Settings::load(&Sources { dotenv, ..Sources::default() });
    assert!(load(Dotenv::IfPresent(path.clone())).is_ok());
    assert!(texts(&load(Dotenv::Required(path)).unwrap_err()).contains("/nonexistent/.env"));
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf_8_is_a_fault_of_ours_only() {
    use std::os::unix::ffi::OsStringExt;
    let broken = || OsString::from_vec(vec![0xff]);
    let environment = vec![("LOG".into(), broken()), ("OTHER".into(), broken()), (broken(), "x".into())];
    let faults = Settings::load(&Sources { environment, ..Sources::default() }).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].to_string().contains("LOG (from environment): is not valid UTF-8"));
}

#[test]
fn nothing_is_served_beyond_loopback_without_a_token() {
    let faults = load(&[("HTTP_ADDR", "0.0.0.0:8000")]).unwrap_err();
    assert!(texts(&faults).contains("no API_TOKENS are set"));
    let tokens = format!("ops:query+admin:{}", "0f".repeat(32));
    let all = ("HTTP_ADDR", "0.0.0.0:8000");
    let faults = load(&[all, ("API_TOKENS", &tokens)]).unwrap_err();
    assert!(texts(&faults).contains("HTTP_ADVERTISED_ADDR"), "{}", texts(&faults));
    assert!(load(&[all, ("API_TOKENS", &tokens), ("BROKER", "embedded")]).is_ok(), "there is no other instance");
    let settings = load(&[all, ("API_TOKENS", &tokens), ("HTTP_ADVERTISED_ADDR", "scorer-1:8000")]).unwrap();
    assert_eq!(settings.http_advertised_addr.as_deref(), Some("scorer-1:8000"));
    assert_eq!(settings.api_tokens[0].name, "ops");
    assert_eq!(settings.api_tokens[0].sha256, [0x0f; 32]);
    assert!(settings.api_tokens[0].scopes.contains(&Scope::Admin));
    assert!(load(&[("HTTP_ADDR", "0.0.0.0:8000"), ("ROLES", "projection")]).is_ok(), "probes are open");
}

#[test]
fn wrong_tokens_are_named_by_number_and_never_shown() {
    let digest = "ab".repeat(32);
    let cases = [
        "secretsecret".to_owned(),
        format!("a:root:{digest}"),
        "a:query:secretsecret".to_owned(),
        format!("a:query:{digest}, a:write:{digest}"),
        format!("a:query:{}é", "a".repeat(62)),
    ];
    for case in cases {
        let faults = load(&[("API_TOKENS", &case)]).unwrap_err();
        let text = texts(&faults);
        assert!(text.contains("is wrong in entry"), "{text}");
        assert!(!text.contains("secretsecret") && !text.contains(&digest), "{text}");
    }
}

#[test]
fn secrets_are_masked() {
    let tokens = format!("ops:query:{}", "0f".repeat(32));
    let settings = load(&[
        ("API_TOKENS", &tokens),
        ("KAFKA_SASL_PASSWORD", "hunter2"),
        ("KAFKA_SSL_KEY_LOCATION", "/etc/key.pem"),
        ("KAFKA_SSL_KEY_PEM", "hunter2"),
        ("KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", "https://me:hunter2@idp/"),
        ("KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET", "hunter2"),
        ("KAFKA_HEAP_OPTS", "-Xmx1g"),
        ("KAFKA_SERVICE_HOST", "10.0.0.1"),
        ("KAFKA_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
    ])
    .unwrap();
    let properties: Vec<&str> = settings.kafka.iter().map(|(name, _)| name).collect();
    assert_eq!(
        properties,
        [
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.token.endpoint.url",
            "sasl.password",
            "ssl.key.location",
            "ssl.key.pem",
        ]
    );
    let shown = format!("{:?} {settings:?}", settings.describe());
    assert!(!shown.contains("hunter2") && !shown.contains(&"0f".repeat(32)) && !shown.contains("[15,"), "{shown}");
    assert!(shown.contains("/etc/key.pem"), "{shown}");
}

#[test]
fn passwords_in_urls_are_masked() {
    let cases = [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:pw@host/0", "redis://:********@host/0"),
        ("postgres://me:p@ss/w:rd@host:5432/db", "postgres://me:********@host:5432/db"),
        ("postgres://me@host/db", "postgres://me@host/db"),
        ("a://b:c@d e://f:g@h", "a://b:********@d e://f:********@h"),
        ("no url, ./path", "no url, ./path"),
    ];
    for (text, masked) in cases {
        assert_eq!(mask_passwords(text), masked);
    }
}

#[test]
fn topics_follow_the_prefix_unless_named() {
    let settings = load(&[("TOPIC_PREFIX", "eu."), ("VERDICTS_TOPIC", "scores")]).unwrap();
    assert_eq!(settings.transactions_topic, "eu.transactions");
    assert_eq!(settings.verdicts_topic, "scores");
    let row = settings.describe().into_iter().find(|row| row.variable == "ANOMALIES_TOPIC").unwrap();
    assert_eq!((row.value.as_deref(), row.origin), (Some("eu.anomalies"), Origin::Default));
    let faults = load(&[("VERDICTS_TOPIC", "anomalies")]).unwrap_err();
    assert!(texts(&faults).contains("ANOMALIES_TOPIC (from default): `anomalies` is the topic of VERDICTS_TOPIC too"));
}

#[test]
fn settings_that_contradict_each_other_are_faults() {
    let cases: [&[(&str, &str)]; 3] = [
        &[("COMMIT_INTERVAL_MS", "6000")],
        &[("BROKER", "embedded"), ("EMBEDDED_DIR", "data/state/broker")],
        &[("BROKER", "embedded"), ("STATE_DIR", "data"), ("EMBEDDED_DIR", "./data")],
    ];
    for case in cases {
        assert_eq!(load(case).unwrap_err().len(), 1, "{case:?}");
    }
    let long = "x".repeat(100);
    assert!(load(&[("APPLICATION_ID", &long), ("TOPIC_PREFIX", &long)]).is_ok());
}

#[test]
fn roles_are_those_asked_for() {
    assert!(load(&[]).unwrap().roles.plays(Role::Projection));
    let few = load(&[("ROLES", "stream, notify")]).unwrap().roles;
    assert!(few.plays(Role::Stream) && few.plays(Role::Notify) && !few.plays(Role::Api));
    assert!(texts(&load(&[("ROLES", "stream,cook")]).unwrap_err()).contains("not known"));
    let workers = |roles| load(&[("ROLES", roles), ("WORKERS", "3")]).unwrap().worker_count();
    assert_eq!((workers("stream,api"), workers("api,projection")), (3, 0));
    // Who streams is asked by other instances, so it needs an address; who only projects does not.
    let listening = |roles| load(&[("ROLES", roles), ("HTTP_ADDR", "0.0.0.0:8000")]);
    assert_eq!(listening("stream").unwrap_err().len(), 2, "tokens and an address are lacking");
    assert!(listening("projection,notify").is_ok());
}

#[test]
fn values_are_read_as_people_write_them() {
    type Memory = parse::Bytes<1>;
    for (text, bytes) in [("1GiB", 1 << 30), ("2 MB", 2_000_000), ("512", 512), ("3KiB", 3072), ("7B", 7), ("1KB", 1000)] {
        assert_eq!(Memory::read(text), Ok(bytes), "{text}");
    }
    for text in ["", "GiB", "1.5GiB", "-1", "+1", "1 TB", "99999999999GiB", "1gib", "0"] {
        assert!(Memory::read(text).is_err(), "{text}");
    }
    for text in ["a:1", "a:1, b:65535", "SSL://[::1]:9093"] {
        assert!(places::Servers::read(text).is_ok(), "{text}");
    }
    for text in ["", "a", "a:", ":9092", "a:0", "a:65536", "a:1,", "a:+1", "a b:1"] {
        assert!(places::Servers::read(text).is_err(), "{text}");
    }
    for text in ["a:1", "10.0.0.7:8000", "[::1]:65535", "scorer-1.scorers:80"] {
        assert!(places::HostPort::read(text).is_ok(), "{text}");
    }
    for text in
        ["", "a", ":80", "a:0", "a:+1", "a:65536", "0.0.0.0:80", "[::]:80", "a/b:80", "u@a:80", "http://a:80", "[a]:80", "::1:80"]
    {
        assert!(places::HostPort::read(text).is_err(), "{text}");
    }
    for text in ["nan", "inf", "-0.1", "1.1", "", "1e400"] {
        assert!(parse::Score::read(text).is_err(), "{text}");
    }
    assert!(parse::Contamination::read("0").is_err() && parse::Contamination::read("0.5").is_ok());
    assert!(places::FilePath::read("s3://bucket/x").is_err());
    assert!(parse::LogFilter::read("info,mangrove=debug").is_ok() && parse::LogFilter::read("a=b=c").is_err());
    assert!(parse::Currency::read("usd").is_err());
    assert_eq!(parse::Switch::read("ON"), Ok(true));
    assert!(parse::TopicName::read("..").is_err() && parse::TopicName::read(&"x".repeat(250)).is_err());
}

#[test]
fn the_file_is_read_as_the_common_tools_read_it() {
    let line = |text| dotenv::parse(text).pop().and_then(|line| line.content.ok());
    let pair = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
    assert_eq!(line("A=b"), pair("A", "b"));
    assert_eq!(line("  export A = b c  # d"), pair("A", "b c"));
    assert_eq!(line("A=b#c"), pair("A", "b#c"));
    assert_eq!(line("A='b # $c\\n'"), pair("A", "b # $c\\n"));
    assert_eq!(line("A=\"b \\\" \\$ \\\\ \\n#\" # d"), pair("A", "b \" $ \\ \n#"));
    assert_eq!(line("A="), pair("A", ""));
    assert_eq!(line("A=#c"), pair("A", ""));
    assert_eq!(line("\u{feff}A=1\r\n"), pair("A", "1"));
    for wrong in ["A", "=b", "1A=b", "A B=c", "A='b", "A=\"b", "A='b'c", "A=\"\\x\""] {
        assert_eq!(line(wrong), None, "{wrong}");
    }
}

/// Fails where a committed file differs from what the declarations make; `UPDATE_DOCS=1` writes it.
fn follows(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    #[expect(clippy::disallowed_methods, reason = "a switch of this test, not a setting")]
    let update = std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1");
    if update {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == made, "{file} does not follow src/config/table.rs: run with UPDATE_DOCS=1");
}

#[test]
fn env_example_follows_the_declarations() {
    let made = env_example();
    follows(".env.example", &made);
    // With every default uncommented it is a file that means the same as no file.
    let uncommented: String = made
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(assignment) if !assignment.starts_with(' ') && !assignment.ends_with('=') => assignment.to_owned() + "\n",
            _ => line.to_owned() + "\n",
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    std::fs::write(&path, uncommented).unwrap();
    let settings = Settings::load(&Sources { dotenv: Dotenv::Required(path), ..Sources::default() });
    let settings = settings.map_err(|faults| texts(&faults)).unwrap();
    let values = |settings: &Settings| -> Vec<Option<String>> { settings.describe().into_iter().map(|row| row.value).collect() };
    assert_eq!(values(&settings), values(&load(&[]).unwrap()));
}

#[test]
fn the_settings_document_follows_the_declarations() {
    follows("docs/settings.md", &markdown());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Whatever a variable holds, the answer is settings or faults.
    #[test]
    fn no_text_makes_a_setting_panic(index in 0..DECLARATIONS.len(), text in any_text()) {
        let variable = DECLARATIONS[index].variable;
        let result = load(&[(variable, &text)]);
        if let Err(faults) = result {
            prop_assert!(!faults.is_empty());
            for fault in faults {
                prop_assert!(!fault.to_string().contains('\n'));
            }
        }
    }

    #[test]
    fn no_text_makes_a_file_panic(text in any_text()) {
        let _lines = dotenv::parse(&text);
        let _masked = mask_passwords(&text);
        let _cut = shorten(&text);
    }

    /// What is read is within the bounds that were promised.
    #[test]
    fn numbers_are_within_their_bounds(number in any::<u64>()) {
        let read = parse::Whole::<5, 1_000>::read(&number.to_string());
        prop_assert_eq!(read.is_ok(), (5..=1_000).contains(&number));
        let read = parse::Count::<5, 1_000>::read(&number.to_string());
        prop_assert_eq!(read.is_ok(), (5..=1_000).contains(&number));
    }

    /// A masked text holds no password that a URL had.
    #[test]
    fn no_password_survives(password in "[a-zA-Z0-9:/@?#,!]{1,20}Z9Z") {
        let masked = mask_passwords(&format!("redis://user:{password}@host/0"));
        prop_assert!(!masked.contains("Z9Z"), "{}", masked);
    }
}

/// Anything, and texts that look like what parsers take.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[0-9a-zA-Z+:,.=@/ _\"'#\\\\$é-]{0,80}",
        "([a-z]{1,3}:(query|write|x)(\\+admin)?:[0-9a-fé]{60,66},?){1,3}",
        "[0-9]{0,25}(KiB|MiB|GiB|KB|B)?",
        "((https?|SSL)://)?[a-z:@]{0,9}(:[0-9]{0,6})?(,[a-z]*:[0-9]*)*",
    ]
}

#[test]
fn every_wrong_notification_target_is_a_fault_that_says_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("targets.json");
    let file = path.to_str().unwrap();
    assert_eq!(load(&[("NOTIFY_TARGETS", file)]).unwrap_err().len(), 1, "there is no file");
    std::fs::write(
        &path,
        r#"{"targets": [{"name": "a", "kind": "slack", "url": "http://hush/"}, {"name": "b", "kind": "webhook", "url": "https://example.com", "secrets": ["hush"]}]}"#,
    )
    .unwrap();
    let faults = texts(&load(&[("NOTIFY_TARGETS", file)]).unwrap_err());
    assert!(faults.contains("target `a`: `url` must be https") && faults.contains("target `b`: each of `secrets`"), "{faults}");
    assert!(!faults.contains("hush"), "{faults}");
    std::fs::write(&path, r#"{"targets": [{"name": "a", "kind": "slack", "url": "http://10.0.0.1/hush"}]}"#).unwrap();
    let settings = load(&[("NOTIFY_TARGETS", file), ("NOTIFY_ALLOW_PRIVATE", "true")]).unwrap();
    assert!(!format!("{:?}", settings.describe()).contains("hush"));
}

#[test]
fn urls_of_tiers_are_checked_and_their_passwords_never_shown() {
    let urls = [("DATABASE_URL", "postgres://u:hunter2@h/db"), ("REDIS_URL", "redis://:hunter2@h:1/0")];
    let settings = load(&urls).unwrap();
    let shown = format!("{settings:?} {:?}", settings.describe());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(settings.secrets().iter().filter(|secret| *secret == "hunter2").count(), 2, "and they are known to be secrets");
    assert_eq!(load(&[("REDIS_URL", "")]).unwrap().redis_url, None);
    assert_eq!(load(&[]).unwrap().database_url, None);
    let faults = load(&[("DATABASE_URL", "mysql://u:hunter2@h/db"), ("REDIS_URL", "http://:hunter2@h")]).unwrap_err();
    let told = texts(&faults);
    assert!(faults.len() == 2 && !told.contains("hunter2"), "{told}");
}
