//! The simulation sees: each bug planted in a copy of the sources is found by its ordinary checker.
//!
//! A bug is a patch under `tests/sim/planted`. The copy holds what the simulation drives (models, state, topology, scoring), without brokers
//! and without RocksDB, so a bug costs seconds to build. Its dependencies compile once, under `target/planted`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Within so many seeds a bug must be found, and none in the copy without one: what fails there too proves nothing.
const SEEDS: u64 = 300;
const BUGS_AT_LEAST: usize = 12;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Copy(PathBuf);

impl Copy {
    fn make() -> Self {
        let copy = Self(here().join("target/planted"));
        for member in ["models", "state", "topology"] {
            copy.take(&format!("{member}/Cargo.toml"), &format!("{member}/Cargo.toml"));
            copy.take_all(&format!("{member}/src"), &format!("{member}/src"));
        }
        copy.take_all("src/scoring", "src/scoring");
        copy.take_all("tests/sim/simulation", "src/simulation");
        copy.take("tests/sim/planted/main.rs", "src/main.rs");
        copy.take("Cargo.lock", "Cargo.lock");
        copy.put("src/lib.rs", "pub mod scoring;\n");
        let whole = std::fs::read_to_string(here().join("Cargo.toml")).unwrap();
        let (workspace, _) = whole.split_once("\n[package]").expect("the workspace comes first");
        copy.put("Cargo.toml", &format!("{workspace}\n{MANIFEST}"));
        copy
    }

    /// Writes a file only where it differs: cargo goes by its time.
    fn put(&self, to: &str, text: &str) {
        let to = self.0.join(to);
        if std::fs::read_to_string(&to).is_ok_and(|before| before == text) {
            return;
        }
        std::fs::create_dir_all(to.parent().expect("it lies in the copy")).unwrap();
        std::fs::write(to, text).unwrap();
    }

    fn take(&self, from: &str, to: &str) {
        self.put(to, &std::fs::read_to_string(here().join(from)).unwrap());
    }

    fn take_all(&self, from: &str, to: &str) {
        for entry in std::fs::read_dir(here().join(from)).unwrap() {
            let (entry, name) = entry.map(|entry| (entry.file_type(), entry.file_name())).unwrap();
            let name = name.to_str().expect("our files have plain names");
            let (from, to) = (format!("{from}/{name}"), format!("{to}/{name}"));
            if entry.unwrap().is_dir() { self.take_all(&from, &to) } else { self.take(&from, &to) }
        }
    }

    fn patch(&self, bug: &Path) {
        let input = std::fs::File::open(bug).unwrap();
        let patched = Command::new("patch")
            .args(["-p1", "--batch", "--forward", "--no-backup-if-mismatch", "-r", "-"])
            .current_dir(&self.0)
            .stdin(input)
            .output();
        let patched = patched.expect("`patch` can be run: it comes with build-essential");
        assert!(patched.status.success(), "{} no longer applies: {}", bug.display(), text(&patched));
    }

    fn build(&self, what: &str) {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--offline", "--release", "--quiet", "--bin", "simulate", "--target-dir"])
            .arg(self.0.join("target"))
            .current_dir(&self.0)
            .output()
            .unwrap();
        assert!(built.status.success(), "{what} does not build: {}", text(&built));
    }

    /// Runs seeds on all cores until one fails.
    fn run(&self) -> Output {
        Command::new(self.0.join("target/release/simulate")).args(["0", &SEEDS.to_string()]).output().unwrap()
    }
}

const MANIFEST: &str = r#"
[package]
name = "mangrove"
version.workspace = true
edition.workspace = true

[[bin]]
name = "simulate"
path = "src/main.rs"

[dependencies]
models.workspace = true
state.workspace = true
topology.workspace = true
serde = { workspace = true, features = ["std"] }
serde_json.workspace = true
thiserror.workspace = true
ndarray.workspace = true
schemars.workspace = true

[profile.release]
opt-level = 1
incremental = true
codegen-units = 64

[profile.release.package."*"]
opt-level = 3
codegen-units = 16
"#;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[expect(clippy::disallowed_methods, reason = "the way to ask for one bug by hand")]
fn only() -> String {
    std::env::var("BUG").ok().filter(|name| name != "all").unwrap_or_default()
}

#[test]
fn every_planted_bug_is_found() {
    let copy = Copy::make();
    copy.build("the copy without a bug");
    let clean = copy.run();
    assert!(clean.status.success(), "a bug that nobody planted: {}", text(&clean));
    let mut bugs: Vec<PathBuf> =
        std::fs::read_dir(here().join("tests/sim/planted")).unwrap().map(|bug| bug.unwrap().path()).collect();
    bugs.retain(|bug| bug.extension().is_some_and(|it| it == "patch") && bug.to_string_lossy().contains(&only()));
    bugs.sort();
    assert!(bugs.len() >= BUGS_AT_LEAST || !only().is_empty(), "only {} bugs", bugs.len());
    let mut missed = Vec::new();
    for bug in &bugs {
        let name = bug.file_stem().expect("patches have names").to_string_lossy();
        Copy::make();
        copy.patch(bug);
        copy.build(&name);
        let ran = copy.run();
        let said = text(&ran);
        let found = said.lines().next().filter(|_| ran.status.code() == Some(1));
        writeln!(std::io::stderr(), "planted {name}: {}", found.unwrap_or("NOT FOUND")).unwrap();
        if found.is_none() {
            missed.push(name);
        }
    }
    Copy::make();
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
}
