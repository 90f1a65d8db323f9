//! Every command of the README, in its order, as it is written there: on a broker, with payments, by a shell.
//!
//! What a reader has of his own is put in its place: the program, the interface's address, ids. A command that no row of [`ROWS`] has an
//! answer for fails the test: it gets a row, or leaves the README.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewPartitions};
use serde_json::Value;

use super::feed::Feed;
use super::ledger::Ledger;
use super::scene::Scene;
use super::service::Service;
use super::{skip, until};
use crate::world::run;

const README: &str = include_str!("../../../README.md");
/// So many of so few that habits stand still, as a promotion asks for.
const PAYMENTS: usize = 20_000;
const USERS: usize = 50;

/// What a command has to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It ends well.
    Ends,
    /// It goes on until somebody stops it.
    GoesOn,
    /// A target of the Makefile: it is there; the whole is run elsewhere, or is this very run.
    Target,
    /// Said by the scene: settings, and the instance itself.
    Scene,
    /// It ends well where there is a Postgres.
    Postgres,
}

/// How commands that begin like this are run. The longest beginning counts.
const ROWS: &[(&str, Way)] = &[
    ("make ", Way::Target),
    ("export ", Way::Scene),
    ("target/release/mangrove run", Way::Scene),
    ("target/release/mangrove tap", Way::GoesOn),
    ("target/release/mangrove ", Way::Ends),
    ("curl -sN ", Way::GoesOn),
    ("curl ", Way::Ends),
    ("curl -s 'localhost:8000/v1/anomalies", Way::Postgres),
    ("curl -s 'localhost:8000/v1/users/u1/verdicts", Way::Postgres),
];

/// Sizes for a machine that waits, and thresholds that a busy one meets.
const SMALLER: &[(&str, &str)] = &[
    ("--rate 5000 --duration 10m --max-p99-ms 100", "--rate 200 --duration 3s --max-p99-ms 60000"),
    ("--count 500000", "--count 5000 --users 60"),
];

/// The commands of the indented blocks, without what is said of them.
fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    let mut lines = README.lines();
    while let Some(line) = lines.next() {
        let Some(first) = line.strip_prefix("    ") else { continue };
        let mut command = first.to_owned();
        while command.ends_with('\\') {
            command.pop();
            command.push_str(lines.next().expect("a line goes on").trim_start());
        }
        let command = command.split(" # ").next().unwrap_or_default().trim_end().to_owned();
        if ROWS.iter().any(|(begins, _)| command.starts_with(begins)) || command.starts_with("target/") {
            commands.push(command);
        }
    }
    commands
}

fn way(command: &str) -> Way {
    let fits = ROWS.iter().filter(|(begins, _)| command.starts_with(begins));
    fits.max_by_key(|(begins, _)| begins.len()).unwrap_or_else(|| panic!("no row for `{command}`")).1
}

struct Reader {
    scene: Scene,
    service: Option<Service>,
    postgres: bool,
    /// A verdict that a model gave, and a model that is not active.
    verdict: String,
    other: String,
}

impl Reader {
    fn begin(&mut self) {
        let settings = std::env::var("MANGROVE_TEST_POSTGRES").map(|url| ("DATABASE_URL", url));
        let settings: Vec<(&str, &str)> = settings.iter().map(|(name, url)| (*name, url.as_str())).collect();
        let mut service = self.scene.start_with("a", &settings);
        service.restored(super::scene::PARTITIONS as usize);
        self.service = Some(service);
    }

    fn end(&mut self) {
        if let Some(service) = self.service.take() {
            service.stop();
        }
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("set -euo pipefail; {command}")]).current_dir(self.scene.path("."));
        for (name, value) in self.scene.command("a", &[]).get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        shell.stdin(Stdio::null());
        shell
    }

    /// The command as this reader has to write it.
    fn own(&mut self, command: &str) -> String {
        let mut own = command.replace("target/release/mangrove", env!("CARGO_BIN_EXE_mangrove"));
        if let Some(service) = &mut self.service {
            own = own.replace("localhost:8000", &service.address());
        }
        own = own.replace("curl -s", "curl --fail-with-body -s");
        own = own.replace("transactions:3:1205", &self.verdict).replace("3f0c9a5d1e2b4c67", &self.other);
        own = own.replace("--embedded-dir data/demo/broker", "--topic-prefix '' --embedded-dir data/demo/broker");
        SMALLER.iter().fold(own, |own, (theirs, ours)| own.replace(theirs, ours))
    }

    /// What has to be there before.
    fn prepare(&mut self, command: &str) {
        let says = |part: &str| command.contains(part);
        if says("transactions:3:1205") {
            self.verdict = until("a verdict of the model", || judged(&self.scene));
        } else if says("models promote") {
            self.ends(&format!("{} train --from verdicts --seed 7 --register", env!("CARGO_BIN_EXE_mangrove")));
            self.learn_models();
        } else if says("models shadow") {
            // After the rollback the other one is not active any more.
            self.learn_models();
        } else if says("rebuild --from changelog") {
            self.end();
        } else if says("load --rate") {
            self.begin();
        } else if says("migrate --to 16") && !says("--execute") {
            self.end();
            self.grow(16);
        } else if says("backup --broker embedded") {
            self.ends(&format!("TOPIC_PREFIX= {} demo --records 2000", env!("CARGO_BIN_EXE_mangrove")));
        }
    }

    fn grow(&self, partitions: usize) {
        for topic in ["transactions", "commands"] {
            let name = self.scene.topic(topic);
            let wanted = NewPartitions::new(&name, partitions);
            let answer = run(self.scene.admin().create_partitions([&wanted], &AdminOptions::new())).expect("an answer");
            answer[0].as_ref().unwrap_or_else(|(_, why)| panic!("{topic}: {why}"));
        }
    }

    /// A model that is not active, if there is one, and a verdict that a model gave.
    fn learn_models(&mut self) {
        let service = self.service.as_mut().expect("it runs");
        let mut ask = |path: &str| serde_json::from_str::<Value>(&service.get(path).1).expect("JSON");
        let models = ask("/v1/models");
        let active = models["active"]["model"].as_str().expect("one is active").to_owned();
        let all = models["models"].as_array().expect("a list").iter().map(|model| model["id"].as_str().expect("an id"));
        self.other = all.into_iter().find(|id| *id != active).expect("another one").to_owned();
    }

    fn ends(&self, command: &str) -> String {
        let output = self.shell(command).output().expect("a shell");
        let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command}\n{}\n{out}\n{errors}", output.status);
        out.into_owned()
    }

    /// It is there after a moment, and ends when it is told to.
    fn goes_on(&self, command: &str) {
        let mut child = self.shell(&format!("exec {command}")).stdout(Stdio::null()).spawn().expect("a shell");
        for _ in 0..20 {
            std::thread::park_timeout(Duration::from_millis(50));
            assert_eq!(child.try_wait().expect("its status"), None, "{command} ended by itself");
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
}

/// A verdict that a model gave.
fn judged(scene: &Scene) -> Option<String> {
    let verdicts = scene.read(&scene.topic("verdicts")).into_iter().map(|seen| seen.json());
    verdicts
        .into_iter()
        .find(|verdict| !verdict["model_id"].is_null())
        .map(|verdict| verdict["id"].as_str().expect("an id").to_owned())
}

/// The generator's file under the names that the README's file of the reader's own has.
fn own_past(folder: &Path) {
    let ours = std::fs::read_to_string(folder.join("made.csv")).expect("a file");
    let (head, rows) = ours.split_once('\n').expect("a head");
    let head = head.replace("timestamp", "when").replace("merchant", "shop");
    std::fs::write(folder.join("past.csv"), format!("{head}\n{rows}")).expect("written");
}

#[test]
fn every_command_of_the_readme_works_as_written() {
    const TEST: &str = "every_command_of_the_readme_works_as_written";
    let Some(scene) = Scene::new("readme") else { return };
    let scene = scene.with("MODEL_PATH", "model.bin").with("MODEL_STORE", "models").with("TOPIC_PARTITIONS", "8");
    for file in ["made.csv", "payments.csv.gz"] {
        let made = scene.call(&["load", "--to", file, "--count", &PAYMENTS.to_string(), "--users", &USERS.to_string()]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    own_past(&scene.path("."));
    let ledger = Ledger::read(&scene.path("made.csv"));
    scene.create("transactions", super::scene::PARTITIONS, &[]);
    let lines: Vec<String> =
        ledger.payments.iter().take(50).map(|payment| String::from_utf8(payment.json.clone()).expect("text")).collect();
    std::fs::write(scene.path("payments.ndjson"), lines.join("\n")).expect("written");
    let postgres = std::env::var("MANGROVE_TEST_POSTGRES").is_ok();
    let mut reader = Reader { scene, service: None, postgres, verdict: String::new(), other: String::new() };
    reader.begin();
    let mut feed = Feed::new(&reader.scene, &ledger.payments);
    feed.finish(PAYMENTS);

    for command in commands() {
        reader.prepare(&command);
        let own = reader.own(&command);
        match way(&command) {
            Way::Ends => drop(reader.ends(&own)),
            Way::GoesOn => reader.goes_on(&own),
            Way::Target => {
                let target = command.split_whitespace().nth(1).expect("a target");
                let makefile = Path::new(env!("CARGO_MANIFEST_DIR"));
                let known = Command::new("make").args(["-n", target]).current_dir(makefile).output().expect("make runs");
                assert!(known.status.success(), "{command}");
            }
            Way::Scene => {}
            Way::Postgres if reader.postgres => drop(reader.ends(&own)),
            Way::Postgres => skip(TEST, &format!("MANGROVE_TEST_POSTGRES is not set: {command}")),
        }
    }
    reader.end();
}
