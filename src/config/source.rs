//! Where values come from, and which source wins: flag, then environment, then `.env` file, then the command's own
//! default, then the declared default.
//!
//! Invariant: reading the sources never looks at what a value means; that is the parsers' work.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::dotenv;
use super::fault::Fault;
use super::origin::{Origin, flag_name};

/// Which `.env` file to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Dotenv {
    /// None at all.
    #[default]
    Ignore,
    /// This one where it exists.
    IfPresent(PathBuf),
    /// This one; its absence is a fault.
    Required(PathBuf),
}

/// Everything that [`Settings::load`](super::Settings::load) reads. The caller hands the environment over, so a test
/// needs no process of its own.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Flags that were given: (variable, value).
    pub flags: Vec<(String, String)>,
    /// The environment, usually [`std::env::vars_os`].
    pub environment: Vec<(OsString, OsString)>,
    /// The `.env` file.
    pub dotenv: Dotenv,
    /// Defaults of the command that runs: its name and (variable, value).
    pub command: Option<CommandDefaults>,
}

/// The defaults that a command has of its own.
#[derive(Clone, Debug)]
pub struct CommandDefaults {
    /// The command's name.
    pub command: &'static str,
    /// (variable, value).
    pub values: Vec<(&'static str, String)>,
}

/// All texts found, the highest source of each variable only.
pub(super) struct Texts(BTreeMap<String, (String, Origin)>);

impl Texts {
    /// Collects the sources. `known` says which variables are ours: of others nothing is kept and nothing is a fault,
    /// since the environment and a shared `.env` file hold much that is none of our business.
    pub(super) fn collect(sources: &Sources, known: impl Fn(&str) -> bool, faults: &mut Vec<Fault>) -> Self {
        let mut found = BTreeMap::new();
        // From the lowest source to the highest: each insert overrides what was there.
        if let Some(defaults) = &sources.command {
            for (variable, value) in &defaults.values {
                found.insert((*variable).to_owned(), (value.clone(), Origin::Command(defaults.command)));
            }
        }
        for (variable, value, origin) in read_dotenv(&sources.dotenv, faults) {
            if known(&variable) {
                found.insert(variable, (value, origin));
            }
        }
        for (variable, value) in &sources.environment {
            let Some(variable) = variable.to_str().filter(|variable| known(variable)) else { continue };
            match value.to_str() {
                Some(value) => {
                    found.insert(variable.to_owned(), (value.to_owned(), Origin::Environment));
                }
                None => faults.push(Fault::hidden(variable, Origin::Environment, "is not valid UTF-8", "text in UTF-8")),
            }
        }
        for (variable, value) in &sources.flags {
            found.insert(variable.clone(), (value.clone(), Origin::Flag(flag_name(variable))));
        }
        Self(found)
    }

    /// The text in force and its origin.
    pub(super) fn get(&self, variable: &str) -> Option<&(String, Origin)> {
        self.0.get(variable)
    }

    /// All variables found that begin with `prefix`.
    pub(super) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str, &'a Origin)> {
        self.0
            .range(prefix.to_owned()..)
            .take_while(move |(variable, _)| variable.starts_with(prefix))
            .map(|(variable, (value, origin))| (variable.as_str(), value.as_str(), origin))
    }
}

fn read_dotenv(dotenv: &Dotenv, faults: &mut Vec<Fault>) -> Vec<(String, String, Origin)> {
    let (path, required) = match dotenv {
        Dotenv::Ignore => return Vec::new(),
        Dotenv::IfPresent(path) => (path, false),
        Dotenv::Required(path) => (path, true),
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => return Vec::new(),
        Err(error) => {
            faults.push(unreadable(path, &error));
            return Vec::new();
        }
    };
    let mut entries = Vec::new();
    for line in dotenv::parse(&text) {
        let origin = Origin::Dotenv { path: path.clone(), line: line.number };
        match line.content {
            Ok((variable, value)) => entries.push((variable, value, origin)),
            // The line is not shown: it may hold half of a secret.
            Err(problem) => faults.push(Fault::hidden("a line", origin, problem, dotenv::EXPECTED)),
        }
    }
    entries
}

fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    Fault {
        variable: format!("the settings file {}", path.display()),
        origin: None,
        found: None,
        problem: format!("cannot be read: {error}"),
        expected: "a readable text file in UTF-8, or no --env-file".to_owned(),
    }
}
