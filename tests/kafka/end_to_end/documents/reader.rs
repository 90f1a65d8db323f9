//! Who types a document's commands.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use mangrove::tiers::schema_name;
use serde_json::{Value, json};

use super::{Scene, Service, Way, check, skip, until, way};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mangrove");
/// What a verdict and a model are called in the documents.
const VERDICT: &str = "transactions:3:1205";
const MODEL: &str = "3f0c9a5d1e2b4c67";
/// Tiers that the tests may have: the program's setting, and where the tests' address is.
const TIERS: [(&str, &str); 2] = [("DATABASE_URL", "MANGROVE_TEST_POSTGRES"), ("REDIS_URL", "MANGROVE_TEST_REDIS")];

/// Sizes for a machine that waits, thresholds that a busy one meets, and files that are here.
const SMALLER: &[(&str, &str)] = &[
    ("--rate 5000 --duration 10m --max-p99-ms 100", "--rate 200 --duration 3s --max-p99-ms 60000"),
    ("--count 500000", "--count 5000 --users 60"),
    ("../shared/data/sparkov_400users_9months.csv.gz", "made.csv"),
    ("../shared/data/fdh_window_51d.csv.gz", "made.csv"),
    ("to200.csv", "made.csv"),
    ("--train-from 193 --train-to 200", "--train-from 0 --train-to 60"),
    ("--judge-from 200", "--judge-from 60"),
    ("--train-from 20 --train-to 27 --judge-from 27", "--train-from 0 --train-to 60 --judge-from 60"),
    ("--last-days 7", "--last-days 60"),
    ("--rows 1000000 --trees 300 --samples 1024", "--rows 2000 --trees 20 --samples 64"),
    ("bench --trees", "bench --rows 2000 --trees"),
    ("--trees T --samples S", "--trees 20 --samples 64"),
    ("--seed S", "--seed 1"),
    ("--seed N", "--seed 1"),
    ("--seeds 5", "--seeds 2"),
];

pub struct Reader {
    test: &'static str,
    pub scene: Scene,
    service: Option<Service>,
    tiers: Vec<(&'static str, String)>,
    /// Somebody who pays.
    user: String,
    /// A verdict that a model gave, a model that is not active, and a delivery that waits.
    verdict: String,
    other: String,
    delivery: String,
}

impl Reader {
    pub fn new(test: &'static str, scene: Scene, user: String) -> Self {
        let tiers = TIERS.into_iter().filter_map(|(setting, variable)| Some((setting, std::env::var(variable).ok()?)));
        // Made-up payments are of 2024.
        let tiers = tiers.chain([("HISTORY_DAYS", "3650".to_owned())]).collect();
        let (verdict, other, delivery) = Default::default();
        Self { test, scene, service: None, tiers, user, verdict, other, delivery }
    }

    pub fn begin(&mut self) {
        let tiers: Vec<(&str, &str)> = self.tiers.iter().map(|(name, url)| (*name, url.as_str())).collect();
        let mut service = self.scene.start_with("a", &tiers);
        service.restored(super::PARTITIONS as usize);
        self.service = Some(service);
    }

    pub fn end(&mut self) {
        if let Some(service) = self.service.take() {
            service.stop();
        }
    }

    /// From here on there is a model, another one, and somebody to be told of anomalies who is never there.
    pub fn alarm(&mut self) {
        let target = json!({"name": "ops", "kind": "webhook", "url": "http://127.0.0.1:9/", "min_severity": "low",
            "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]});
        let file = self.scene.path("targets.json");
        std::fs::write(&file, json!({"targets": [target]}).to_string()).expect("written");
        self.end();
        for (name, value) in [("NOTIFY_TARGETS", "targets.json"), ("NOTIFY_WINDOW", "0"), ("NOTIFY_ALLOW_PRIVATE", "true")] {
            self.scene.set(name, value);
        }
        self.begin();
        self.ends(&format!("{PROGRAM} train --from verdicts --promote"));
        self.verdict = until("a verdict of the model", || {
            self.ends(&format!("{PROGRAM} load --count 500 --users 50 --anomalies 0.2 --json"));
            judged(&self.scene)
        });
    }

    /// Types these, in this order.
    pub fn types(&mut self, entries: &[String]) {
        let mut statements = String::new();
        for entry in entries {
            let way = way(entry);
            eprintln!("{way:?}: {entry}");
            if matches!(way, Way::Ends | Way::GoesOn | Way::Copied(_)) {
                self.prepare(entry);
            }
            match way {
                Way::Ends => drop(self.ends(&self.own(entry))),
                Way::GoesOn => self.goes_on(&self.own(entry)),
                Way::Copied(tier) => match std::env::var(tier) {
                    Ok(url) => self.copied(&self.own(entry).replace("redis-cli ", &format!("redis-cli -u {url} "))),
                    Err(_) => skip(self.test, &format!("{tier} is not set: {entry}")),
                },
                Way::Sql => statements = format!("{statements}{entry}\n"),
                Way::Checked(_) => check(entry),
                Way::Scene | Way::Shown => {}
            }
        }
        if !statements.is_empty() {
            self.sql(&statements);
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
    fn own(&self, command: &str) -> String {
        let short = command.strip_prefix("mangrove ").map(|rest| format!("{PROGRAM} {rest}"));
        let mut own = short.unwrap_or_else(|| command.replace("target/release/mangrove", PROGRAM));
        if let Some(service) = &self.service {
            own = own.replace("localhost:8000", &service.find_address().expect("it serves"));
        }
        own = own.replace("curl -s", "curl --fail-with-body -s");
        own = own.replace(VERDICT, &self.verdict).replace(MODEL, &self.other).replace("msg_...", &self.delivery);
        own = own.replace("{mangrove}:profile:alice", &format!("{{{}}}:profile:{}", self.scene.group(), self.user));
        own = own.replace("--embedded-dir data/demo/broker", "--topic-prefix '' --embedded-dir data/demo/broker");
        SMALLER.iter().fold(own, |own, (theirs, ours)| own.replace(theirs, ours))
    }

    /// What has to be there before.
    fn prepare(&mut self, command: &str) {
        let says = |part: &str| command.contains(part);
        if says(VERDICT) {
            self.verdict = until("a verdict of the model", || judged(&self.scene));
        } else if says("models promote") {
            self.ends(&format!("{PROGRAM} train --from verdicts --seed 7 --register"));
            self.learn_models();
        } else if says(MODEL) {
            // After a rollback the other one is not active any more.
            self.learn_models();
        } else if says("msg_...") {
            self.delivery = until("a delivery that waits", || self.waiting());
        } else if says("rebuild --from changelog") {
            self.end();
        } else if says("load --rate") {
            self.begin();
        } else if says("migrate --to 16") && !says("--execute") {
            self.end();
            self.scene.grow(&["transactions", "commands"], 16);
        } else if says("backup --broker embedded") {
            self.ends(&format!("TOPIC_PREFIX= {PROGRAM} demo --records 2000"));
        }
    }

    /// A model that is not active.
    fn learn_models(&mut self) {
        let service = self.service.as_mut().expect("it runs");
        // A command has made it known; the instance reads of it.
        self.other = until("another model", || {
            let models: Value = serde_json::from_str(&service.get("/v1/models").1).expect("JSON");
            let active = models["active"]["model"].as_str()?;
            let mut all = models["models"].as_array()?.iter().filter_map(|model| model["id"].as_str());
            all.find(|id| *id != active).map(str::to_owned)
        });
    }

    fn waiting(&self) -> Option<String> {
        let listed: Value = serde_json::from_str(&self.ends(&format!("{PROGRAM} notify list --json"))).expect("JSON");
        listed["deliveries"][0]["id"].as_str().map(str::to_owned)
    }

    fn ends(&self, command: &str) -> String {
        self.tries(command).unwrap_or_else(|why| panic!("{why}"))
    }

    fn tries(&self, command: &str) -> Result<String, String> {
        let output = self.shell(command).output().expect("a shell");
        said(command, &output)
    }

    /// It says something once a tier has it.
    fn copied(&self, command: &str) {
        let mut last = String::new();
        until("what the tier has", || {
            let output = self.shell(command).envs(self.tiers.iter().cloned()).output().expect("a shell");
            last = said(command, &output).unwrap_or_else(|why| {
                eprintln!("{why}");
                String::new()
            });
            (!last.trim().is_empty()).then_some(())
        });
    }

    /// Statements for the schema of this application, all of them taken back.
    fn sql(&self, statements: &str) {
        let Ok(url) = std::env::var("MANGROVE_TEST_POSTGRES") else {
            return skip(self.test, "MANGROVE_TEST_POSTGRES is not set: statements");
        };
        let schema = format!("\"{}\"", schema_name(&self.scene.group()));
        let own =
            statements.replace("SCHEMA mangrove ", &format!("SCHEMA {schema} ")).replace(" mangrove.", &format!(" {schema}."));
        let own = own.replace("\nmangrove.", &format!("\n{schema}."));
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = psql.spawn().expect("psql is beside Postgres");
        let all = format!("BEGIN;\n{own}ROLLBACK;\n");
        child.stdin.take().expect("a pipe").write_all(all.as_bytes()).expect("read");
        let output = child.wait_with_output().expect("its end");
        said(&all, &output).unwrap_or_else(|why| panic!("{why}"));
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

/// What it printed, where it ended well.
fn said(command: &str, output: &std::process::Output) -> Result<String, String> {
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{command}\n{}\n{out}\n{errors}", output.status)) }
}

/// A verdict that a model gave.
fn judged(scene: &Scene) -> Option<String> {
    let verdicts = scene.read(&scene.topic("verdicts")).into_iter().map(|seen| seen.json());
    verdicts
        .into_iter()
        .find(|verdict| !verdict["model_id"].is_null())
        .map(|verdict| verdict["id"].as_str().expect("an id").to_owned())
}
