//! Every command of the README and of `docs/*.md`, as it is written there: on a broker, with payments, by a shell.
//!
//! | file | role |
//! |---|---|
//! | `commands` | what is a command in a document |
//! | `reader` | who types them: the instance, and what a reader has of his own (the program's place, the interface's address, ids) |
//! | `checks` | what can be said of a command that cannot be run here |
//!
//! An entry of a block that no row of [`ROWS`] has an answer for fails the tests: it gets a row, or leaves its document. A command within
//! the text is checked, and the tests of commands run most of them.

mod checks;
mod commands;
mod reader;

use std::path::{Path, PathBuf};

use self::checks::check;
use self::commands::{Simple, entries, mentioned};
use self::reader::Reader;
use super::feed::Feed;
use super::ledger::Ledger;
use super::scene::{PARTITIONS, Scene};
use super::service::Service;
use super::{skip, until};

/// So many of so few that habits stand still, as a promotion asks for.
const PAYMENTS: usize = 20_000;
const USERS: usize = 50;

/// What is done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It ends well.
    Ends,
    /// It goes on until somebody stops it.
    GoesOn,
    /// It ends well and says something, once the server that the tests have at this variable holds what topics do.
    Copied(&'static str),
    /// Statements for Postgres: all of a document in one transaction, which is taken back.
    Sql,
    /// Said by the scene: settings, and the instance itself.
    Scene,
    /// Checked and not run, for this reason.
    Checked(&'static str),
    /// No command: what one prints, a formula, a map.
    Shown,
}

const POSTGRES: Way = Way::Copied("MANGROVE_TEST_POSTGRES");
const REDIS: Way = Way::Copied("MANGROVE_TEST_REDIS");

/// What is done with entries that begin like this, without their variables and quotes. The longest beginning counts.
const ROWS: &[(&str, Way)] = &[
    ("make ", Way::Checked("whole suites, and measurements of many minutes; or this very run")),
    ("benches/", Way::Checked("measurements of many minutes")),
    ("scripts/", Way::Checked("builds, or starts servers that these tests were given")),
    (
        "target/release/mangrove forest eval",
        Way::Checked("reads a set of ADBench, of which the repository has none: `forest::eval`"),
    ),
    ("export ", Way::Scene),
    ("target/release/mangrove run", Way::Scene),
    ("target/release/mangrove tap", Way::GoesOn),
    ("target/release/mangrove ", Way::Ends),
    ("target/release/mangrove train --from postgres", POSTGRES),
    ("curl -sN ", Way::GoesOn),
    ("curl ", Way::Ends),
    ("curl -s localhost:8000/v1/anomalies", POSTGRES),
    ("curl -s localhost:8000/v1/users/u1/verdicts", POSTGRES),
    ("curl -s -X POST localhost:8000/v1/train", POSTGRES),
    ("redis-cli ", REDIS),
    ("CREATE ROLE ", Way::Sql),
    ("GRANT ", Way::Sql),
    ("ALTER TABLE ", Way::Sql),
    ("{user_id:", Way::Shown),
    ("{tx_id:", Way::Shown),
    ("{note:", Way::Shown),
    ("train_seconds:", Way::Shown),
    ("rolling ", Way::Shown),
    ("HIGH ", Way::Shown),
    ("L(v) - L(w)", Way::Shown),
    ("E[h(x)] = ", Way::Shown),
    ("models/ ", Way::Shown),
    ("state/ ", Way::Shown),
    ("topology/ ", Way::Shown),
    ("src/ ", Way::Shown),
];

fn way(entry: &str) -> Way {
    let text = Simple::of(entry).text();
    let fits = ROWS.iter().filter(|(begins, _)| text.starts_with(begins));
    fits.max_by_key(|(begins, _)| begins.len()).unwrap_or_else(|| panic!("no row for `{entry}`")).1
}

/// All documents that the README links, in the order of their names.
fn documents() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    let text = |path: &PathBuf| std::fs::read_to_string(path).expect("text");
    found.into_iter().map(|path| (path.clone(), text(&path))).collect()
}

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("text")
}

/// An instance with payments, and a reader in front of it. None, said loudly, where there is no broker.
fn reader(test: &'static str) -> Option<Reader> {
    let scene = Scene::new(test)?;
    let scene = scene.with("MODEL_PATH", "model.bin").with("MODEL_STORE", "models").with("TOPIC_PARTITIONS", "8");
    for file in ["made.csv", "payments.csv.gz"] {
        let made = scene.call(&["load", "--to", file, "--count", &PAYMENTS.to_string(), "--users", &USERS.to_string()]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    own_past(&scene.path("."));
    let ledger = Ledger::read(&scene.path("made.csv"));
    scene.create("transactions", PARTITIONS, &[]);
    let lines: Vec<String> =
        ledger.payments.iter().take(50).map(|payment| String::from_utf8(payment.json.clone()).expect("text")).collect();
    std::fs::write(scene.path("payments.ndjson"), lines.join("\n")).expect("written");
    let user = ledger.payments[0].user.clone();
    let mut reader = Reader::new(test, scene, user);
    reader.begin();
    Feed::new(&reader.scene, &ledger.payments).finish(PAYMENTS);
    Some(reader)
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
    let Some(mut reader) = reader("every_command_of_the_readme_works_as_written") else { return };
    reader.types(&entries(&readme()));
    reader.end();
}

#[test]
fn every_command_of_the_documents_works_as_written() {
    let Some(mut reader) = reader("every_command_of_the_documents_works_as_written") else { return };
    reader.alarm();
    for (_, text) in documents() {
        reader.types(&entries(&text));
    }
    reader.end();
}

#[test]
fn every_command_within_the_documents_texts_is_there() {
    let mut texts = documents();
    texts.push(("README.md".into(), readme()));
    let mut seen = 0;
    for (path, text) in texts {
        for command in mentioned(&text) {
            eprintln!("{}: {command}", path.display());
            let beside = !command.contains(' ') && ["txt", "xml", "toml"].iter().any(|extension| command.ends_with(extension));
            if beside {
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(&command).is_file(), "{command}");
            } else if command.starts_with("echo ") {
                let said = std::process::Command::new("bash").args(["-c", &format!("set -euo pipefail; {command}")]).output();
                let said = String::from_utf8(said.expect("a shell").stdout).expect("text");
                assert!(said.starts_with("whsec_") && said.len() > 40, "{command}: {said}");
            } else {
                check(&command);
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} commands within texts: they are looked for in the wrong way");
}
