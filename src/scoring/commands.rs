//! What `commands` may ask: that a user's profile begins anew, or is erased.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandKind {
    /// The profile begins anew; that the user was seen up to here is kept.
    Reset,
    /// Nothing of the user is kept: a tombstone.
    Erase,
}

impl CommandKind {
    /// As on the wire and in decisions.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Erase => "erase",
        }
    }
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "command")]
pub struct Command {
    /// What to do.
    pub kind: CommandKind,
    /// To whom.
    pub user_id: String,
    /// The job that asked; the decision answers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

/// Longest user id and job, in bytes.
const NAME_BYTES_MAX: usize = 256;

impl Command {
    /// From the wire. The message is fit for a dead letter: it holds no part of the value.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let command: Self = serde_json::from_slice(bytes)
            .map_err(|_| "not a command: a JSON object with kind (reset or erase), user_id and optionally job is expected")?;
        let fits = |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len());
        if !fits(&command.user_id) {
            return Err("`user_id` must have 1 to 256 bytes");
        }
        if !command.job.as_deref().is_none_or(fits) {
            return Err("`job` must have 1 to 256 bytes");
        }
        Ok(command)
    }
}
