//! A job's id: `{kind}-{partition}-{commands}-{decisions}-{changelog}-{number}`, numbers in hexadecimal.

use std::fmt;
use std::str::FromStr;

use crate::scoring::CommandKind;

/// See the module's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobId {
    /// What was asked for.
    pub kind: CommandKind,
    /// The user's partition.
    pub partition: u32,
    /// Its command lies at this offset or behind it.
    pub commands_from: u64,
    /// Its decision lies at this offset or behind it.
    pub decisions_from: u64,
    /// What it does to the changelog lies at this offset or behind it.
    pub changelog_from: u64,
    /// Makes the id unique, and hard to guess.
    pub number: u64,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, partition, commands_from, decisions_from, changelog_from, number } = self;
        write!(f, "{}-{partition:x}-{commands_from:x}-{decisions_from:x}-{changelog_from:x}-{number:016x}", kind.as_str())
    }
}

/// A text that is no job's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoJobId;

impl FromStr for JobId {
    type Err = NoJobId;

    fn from_str(text: &str) -> Result<Self, NoJobId> {
        let parts: Vec<&str> = text.split('-').collect();
        let [kind, partition, commands, decisions, changelog, number] = parts[..] else { return Err(NoJobId) };
        let kind = match kind {
            "reset" => CommandKind::Reset,
            "erase" => CommandKind::Erase,
            _ => return Err(NoJobId),
        };
        let hex = |digits| u64::from_str_radix(digits, 16).map_err(|_| NoJobId);
        let id = Self {
            kind,
            partition: hex(partition)?.try_into().map_err(|_| NoJobId)?,
            commands_from: hex(commands)?,
            decisions_from: hex(decisions)?,
            changelog_from: hex(changelog)?,
            number: hex(number)?,
        };
        // One spelling only: it is compared as text with what the command says.
        if id.to_string() == text { Ok(id) } else { Err(NoJobId) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_read_back(
            erase in any::<bool>(), partition in any::<u32>(), from in any::<[u64; 3]>(), number in any::<u64>(),
        ) {
            let kind = if erase { CommandKind::Erase } else { CommandKind::Reset };
            let [commands_from, decisions_from, changelog_from] = from;
            let id = JobId { kind, partition, commands_from, decisions_from, changelog_from, number };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert!(id.to_string().len() <= 256, "a command takes it as its job");
        }

        #[test]
        fn other_texts_are_none(text in "(reset|erase|other)?(-[0-9a-fA-F+]{0,17}){0,7}|\\PC{0,40}") {
            if let Ok(id) = text.parse::<JobId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
