//! `mangrove bundle`: nothing planted comes out.

use std::io::Read as _;
use std::process::Command;

use tempfile::TempDir;

/// Planted where an archive might pick them up.
const SECRETS: [&str; 4] = ["pLanted-sasl-pw", "pLanted-keyfile-pw", "pLanted-log-token", "pLanted-url-pw"];
const USERS: [&str; 5] = ["user-000", "planted-person", "Jane Planted", "planted@example.org", "4111111111111111"];

fn mangrove(root: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mangrove"));
    command.env_clear().current_dir(root.path()).args(arguments).env("STATE_DIR", root.path().join("demo/state"));
    command.env("AUTO_TRAIN", "off").env("MEMORY_LIMIT", "128MiB").env("HTTP_ADDR", "127.0.0.1:0");
    command
}

#[test]
fn a_bundle_holds_what_helps_and_nobody_s_secrets_or_ids() {
    let root = TempDir::new().expect("a folder");
    // A store with real users in it.
    let demo = mangrove(&root, &["demo", "--dir", "demo", "--records", "4000"]).output().expect("it runs");
    assert!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stderr));
    let digest = "ab".repeat(32);
    let log = format!(
        "{}\n{}\n{}\n{}\n{}\n",
        r#"{"level":"INFO","message":"started","user_id":"planted-person","note":"for Jane"}"#,
        r#"{"level":"WARN","message":"bad","user":"Jane Planted","key":"planted-person"}"#,
        format_args!("ERROR authorization: Bearer {} for user planted-person from planted@example.org", SECRETS[2]),
        "INFO profile of user-000001 card 4111111111111111 went to user-000002.",
        format_args!("connecting to redis://me:{}@host, sasl {} token {digest}", SECRETS[3], SECRETS[0]),
    );
    std::fs::write(root.path().join("log"), log).expect("written");
    let output = mangrove(&root, &["bundle", "support.tar.gz", "--log-file", "log"])
        .env("API_TOKENS", format!("ops:query+admin:{digest}"))
        .env("KAFKA_SASL_PASSWORD", SECRETS[0])
        .env("KAFKA_SSL_KEY_PASSWORD", SECRETS[1])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = std::fs::File::open(root.path().join("support.tar.gz")).expect("an archive");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let (mut names, mut all) = (Vec::new(), String::new());
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").to_string_lossy().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        for planted in SECRETS.iter().chain(&USERS).copied().chain([digest.as_str()]) {
            assert!(!text.contains(planted), "{planted} in {name}:\n{text}");
        }
        all.push_str(&text);
        names.push(name);
    }
    for part in ["version", "settings", "check", "topology", "state", "log", "http-metrics", "http-v1-health"] {
        assert!(names.contains(&format!("mangrove-bundle/{part}.txt")), "{part} in {names:?}");
    }
    // What helps is there: settings with sources, positions, and the log's own words.
    for helps in
        ["KAFKA_SASL_PASSWORD", "environment", "mangrove-profiles-changelog", "profiles-0: changelog", "\"message\":\"started\""]
    {
        assert!(all.contains(helps), "{helps}");
    }
}
