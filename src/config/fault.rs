//! What is wrong with a setting: which one, where it came from, what was found and what is expected.
//!
//! Invariant: a fault never holds the value of a secret, and no more than [`FOUND_MAX`] characters of any other.

use std::fmt;

use super::origin::Origin;
use super::url::mask_passwords;

/// How many characters of a wrong value are repeated to the user.
pub const FOUND_MAX: usize = 40;

/// One thing that is wrong with the settings. All of them are collected before the program gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The variable, as in the environment.
    pub variable: String,
    /// Where the wrong value came from; none where no source could be read at all.
    pub origin: Option<Origin>,
    /// The start of the wrong value; none for secrets.
    pub found: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What would be right.
    pub expected: String,
}

impl Fault {
    /// A fault of a value that may be shown.
    pub fn of_value(
        variable: &str,
        origin: Origin,
        value: &str,
        problem: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self { found: Some(shorten(&mask_passwords(value))), ..Self::hidden(variable, origin, problem, expected) }
    }

    /// A fault of a value that must not be shown, or whose text says nothing.
    pub fn hidden(variable: &str, origin: Origin, problem: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            variable: variable.to_owned(),
            origin: Some(origin),
            found: None,
            problem: problem.into(),
            expected: expected.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.variable)?;
        if let Some(origin) = &self.origin {
            write!(f, " (from {origin})")?;
        }
        f.write_str(": ")?;
        if let Some(found) = &self.found {
            write!(f, "`{found}` ")?;
        }
        write!(f, "{}; expected {}", self.problem, self.expected)
    }
}

impl std::error::Error for Fault {}

/// The start of a text, cut at a character, control characters made visible.
pub(crate) fn shorten(text: &str) -> String {
    let mut shown: String = text.chars().take(FOUND_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(FOUND_MAX).is_some() {
        shown.push('…');
    }
    shown
}
