//! `mangrove backup`, `restore` and `tap` on the embedded broker, by the program itself.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: TempDir::new().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mangrove"));
        command.env_clear().current_dir(self.root.path()).args(arguments);
        command.env("BROKER", "embedded").env("EMBEDDED_DIR", self.path("demo/broker")).env("STATE_DIR", self.path("demo/state"));
        command.env("HTTP_ADDR", "127.0.0.1:0").env("AUTO_TRAIN", "off").env("LOG_FORMAT", "json").env("MEMORY_LIMIT", "128MiB");
        command
    }

    fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    fn good(&self, arguments: &[&str]) -> Output {
        let output = self.call(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        text
    }

    /// More payments through the demo's instance; its log.
    fn demo(&self, records: &str) -> String {
        let output = self.good(&["demo", "--dir", "demo", "--records", records]);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// All verdicts that are committed, as the wire has them.
    fn verdicts(&self, count: usize) -> Vec<Value> {
        let output = self.good(&["tap", "--from", "beginning", "--json", "--count", &count.to_string()]);
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn offsets(&self, backup: &str, topic: &str) -> u64 {
        let manifest = std::fs::read(self.path(backup).join("manifest.json")).expect("a manifest");
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        let topics = manifest["topics"].as_array().expect("topics").iter();
        topics.filter(|saved| saved["name"] == topic).map(|saved| saved["offsets"].as_u64().expect("a number")).sum()
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp runs").success());
}

#[test]
fn a_restored_log_is_gone_on_with_and_a_store_ahead_of_it_is_rebuilt() {
    let place = Place::new();
    place.demo("3000");
    place.good(&["backup", "saved"]);
    assert_eq!(place.offsets("saved", "verdicts"), 3000);
    place.demo("4000");
    assert!(place.refused(&["backup", "saved"]).contains("not empty"));
    place.good(&["backup", "later"]);
    assert_eq!(place.offsets("later", "verdicts"), 7000);
    assert!(place.refused(&["restore", "saved"]).contains("--force"));
    place.good(&["restore", "saved", "--check"]);
    place.good(&["restore", "saved", "--force"]);
    // The state folder stays: its stores are ahead of the log that came back.
    let log = place.demo("2000");
    assert!(log.contains("store dropped: it is rebuilt from its changelog"), "{log}");
    let verdicts = place.verdicts(5000);
    place.good(&["backup", "after"]);
    assert_eq!(place.offsets("after", "verdicts"), 5000, "nothing of the lost 4000 is left, nothing is doubled");
    // An instance that never saw anything else says the same of the same payments.
    let fresh = Place::new();
    std::fs::create_dir_all(fresh.path("demo")).expect("made");
    copy(&place.path("saved"), &fresh.path("saved"));
    fresh.good(&["restore", "saved"]);
    fresh.demo("2000");
    let mut others = fresh.verdicts(5000);
    let mut verdicts = verdicts;
    let by_id = |verdict: &Value| verdict["id"].as_str().expect("an id").to_owned();
    verdicts.sort_by_key(by_id);
    others.sort_by_key(by_id);
    assert!(verdicts == others, "features differ after a store was rebuilt");
}

#[test]
fn a_backup_that_is_not_whole_is_refused_with_the_reason() {
    let place = Place::new();
    place.demo("500");
    place.good(&["backup", "saved"]);
    let manifest = std::fs::read_to_string(place.path("saved/manifest.json")).expect("a manifest");
    let table = std::fs::read_dir(place.path("saved/broker")).expect("files").flatten().map(|entry| entry.path());
    let table = table.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "sst")).expect("a table");
    let name = table.file_name().expect("a name").to_string_lossy().into_owned();
    let damaged = |kind: &str, damage: &dyn Fn(&Path)| {
        let folder = place.path(kind);
        copy(&place.path("saved"), &folder);
        damage(&folder);
        place.refused(&["restore", kind, "--embedded-dir", "elsewhere"])
    };
    let said = damaged("flipped", &|folder| {
        let path = folder.join("broker").join(&name);
        let mut bytes = std::fs::read(&path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).expect("written");
    });
    assert!(said.contains(&format!("{name} is not what was saved")), "{said}");
    let said = damaged("lost", &|folder| std::fs::remove_file(folder.join("broker").join(&name)).expect("removed"));
    assert!(said.contains(&format!("{name} is missing")), "{said}");
    let said = damaged("more", &|folder| std::fs::write(folder.join("broker/000999.sst"), "x").expect("written"));
    assert!(said.contains("000999.sst was not saved"), "{said}");
    let said = damaged("unfinished", &|folder| std::fs::remove_file(folder.join("manifest.json")).expect("removed"));
    assert!(said.contains("no manifest.json"), "{said}");
    let said = damaged("foreign", &|folder| {
        let other = manifest.replace(r#""program": "mangrove""#, r#""program": "other""#);
        std::fs::write(folder.join("manifest.json"), other).expect("written");
    });
    assert!(said.contains("was made by other"), "{said}");
    let said = damaged("newer", &|folder| {
        std::fs::write(folder.join("manifest.json"), manifest.replace(r#""format": 1"#, r#""format": 2"#)).expect("written");
    });
    assert!(said.contains("in format 2"), "{said}");
    let said = damaged("leading", &|folder| {
        let other = manifest.replace(&format!(r#""name": "{name}""#), r#""name": "../../escaped""#);
        std::fs::write(folder.join("manifest.json"), other).expect("written");
    });
    assert!(said.contains("is not a file of a backup"), "{said}");
    assert!(!place.path("elsewhere").exists(), "nothing was put anywhere");
    place.good(&["restore", "saved", "--embedded-dir", "elsewhere"]);
}

/// A demo that runs until it is killed.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_broker_in_use_is_neither_backed_up_nor_replaced() {
    let place = Place::new();
    place.demo("300");
    place.good(&["backup", "saved"]);
    let log = std::fs::File::create(place.path("log")).expect("a file");
    let mut command = place.command(&["demo", "--dir", "demo"]);
    let running = Running(command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts"));
    loop {
        let said = std::fs::read_to_string(place.path("log")).expect("the log");
        if said.contains("instance runs") {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    for arguments in [&["backup", "again"][..], &["restore", "saved", "--force"]] {
        let said = place.refused(arguments);
        assert!(said.contains("another process holds it"), "{said}");
    }
    assert!(!place.path("again/manifest.json").exists());
    drop(running);
    place.demo("300");
}

#[test]
fn a_tap_filters_and_ends_with_its_reader() {
    let place = Place::new();
    place.demo("2000");
    let all = place.verdicts(2000);
    let user = all[0]["user_id"].as_str().expect("a user").to_owned();
    let of_user = all.iter().filter(|verdict| verdict["user_id"] == user.as_str()).count();
    let tapped = place.good(&["tap", "--from", "beginning", "--user", &user, "--count", &of_user.to_string()]);
    let text = String::from_utf8_lossy(&tapped.stdout).into_owned();
    assert_eq!(text.lines().count(), of_user);
    assert!(text.lines().all(|line| line.contains(&format!("{user} pays"))) && !text.contains('\u{1b}'), "{text}");
    let mut times: Vec<i64> = all.iter().map(|verdict| verdict["event_time"].as_i64().expect("a time")).collect();
    times.sort_unstable();
    let late = times[1500];
    let count = times.iter().filter(|&&at| at >= late).count().to_string();
    let tapped = place.good(&["tap", "--json", "--from", &late.to_string(), "--count", &count]);
    let mut found = String::from_utf8_lossy(&tapped.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect::<Vec<Value>>();
    assert!(found.iter().all(|verdict| verdict["event_time"].as_i64() >= Some(late)));
    found.dedup();
    assert_eq!(found.len().to_string(), count);
    // A reader that goes away, and a signal, are good ends.
    let mut child = place.command(&["tap", "--from", "beginning"]).stdout(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success(), "a closed pipe");
    let mut child = place.command(&["tap", "--from", "beginning"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut first = [0_u8; 1];
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut first).expect("a verdict");
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success(), "an interrupt");
}
