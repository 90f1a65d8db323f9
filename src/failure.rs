//! How a command fails: what happened, what to do about it, and the status that the program ends with.

use std::error::Error;
use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use crate::config::Fault;
use crate::input::csv::InputError;

/// Whose turn it is after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Status 1: the world did not let us.
    Failed,
    /// Status 2: the settings or the command line are to be corrected.
    Usage,
    /// Status 3: all was done, and what came of it is not as good as was asked for.
    Missed,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Failed => Self::from(1),
            Ending::Usage => Self::from(2),
            Ending::Missed => Self::from(3),
        }
    }
}

/// Why a command did not do what it was told.
#[derive(Debug)]
pub struct Failure {
    what: String,
    hint: Option<String>,
    ending: Ending,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// Something failed; the message says what, with the names that let someone act.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None, ending: Ending::Failed, cause: None }
    }

    /// The command line is wrong in a way that clap does not see.
    pub fn usage(what: impl Into<String>) -> Self {
        Self { ending: Ending::Usage, ..Self::new(what) }
    }

    /// A threshold that was given is not met.
    pub fn missed(what: impl Into<String>) -> Self {
        Self { ending: Ending::Missed, ..Self::new(what) }
    }

    /// The settings are wrong.
    pub fn settings(faults: &[Fault]) -> Self {
        let count = match faults.len() {
            1 => "one setting is wrong".to_owned(),
            count => format!("{count} settings are wrong"),
        };
        let list: String = faults.iter().map(|fault| format!("\n  {fault}")).collect();
        Self::usage(count + ":" + &list).hint("`mangrove help run` explains every setting; docs/settings.md has them in a table")
    }

    /// What to try next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What it came from; printed as part of the message.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The status that the program ends with.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// Prints it to standard error.
    pub(crate) fn report(&self) {
        let mut stderr = std::io::stderr().lock();
        // Nobody is left to hear of a failed print.
        let _unheard = writeln!(stderr, "error: {self}");
        if let Some(hint) = &self.hint {
            let _unheard = writeln!(stderr, "hint: {hint}");
        }
    }
}

/// A file that cannot be read as payments; its hint says which `--map` to give.
impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        Self { hint: error.hint(), ..Self::new(error.to_string()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.what.clone();
        let mut cause = self.cause.as_deref().map(|cause| cause as &dyn Error);
        while let Some(error) = cause {
            let said = error.to_string();
            // Some errors repeat their cause in their own words.
            if !text.ends_with(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        f.write_str(&text)?;
        Ok(())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &dyn Error)
    }
}
