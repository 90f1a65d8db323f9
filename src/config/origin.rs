//! Where a value came from.

use std::fmt;
use std::path::PathBuf;

/// Where the value in force came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag on the command line.
    Flag(String),
    /// An environment variable.
    Environment,
    /// A line of the `.env` file.
    Dotenv {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// The command has a default of its own (`demo` uses the embedded broker).
    Command(&'static str),
    /// The declared default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Environment => f.write_str("environment"),
            Self::Dotenv { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Command(name) => write!(f, "default of `{name}`"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The flag of a variable: `COMMIT_INTERVAL_MS` is `--commit-interval-ms`.
pub(super) fn flag_name(variable: &str) -> String {
    format!("--{}", variable.to_ascii_lowercase().replace('_', "-"))
}
