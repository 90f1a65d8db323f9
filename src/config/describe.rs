//! What is in force and from where, for `mangrove config`.
//!
//! Invariant: no secret leaves this module; passwords inside of URLs are masked whatever the variable is called.

use super::declare::{Declaration, Fallback};
use super::kafka::{self, KafkaProperty};
use super::source::Origin;
use super::table::Settings;

/// Stands in for a secret.
pub const MASK: &str = "********";

/// One setting as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The variable.
    pub variable: String,
    /// The value in force, secrets masked; none where nothing is set.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
    /// What else there is to know about the value.
    pub note: Option<String>,
}

impl Row {
    pub(super) fn of_setting(declaration: &Declaration, text: &str, origin: Origin) -> Self {
        let unset = match declaration.fallback {
            Fallback::Unset { means } if text.is_empty() => Some(means.to_owned()),
            _ => None,
        };
        let value = if unset.is_some() {
            None
        } else if declaration.secret {
            Some(MASK.to_owned())
        } else {
            Some(mask_passwords(text))
        };
        let note = match declaration.fallback {
            _ if unset.is_some() => unset,
            Fallback::Found { words, .. } if origin == Origin::Default => Some(words.to_owned()),
            _ => None,
        };
        Self { variable: declaration.variable.to_owned(), value, origin, note }
    }

    pub(super) fn of_kafka(property: &KafkaProperty) -> Self {
        let secret = kafka::is_secret(&property.variable);
        Self {
            variable: property.variable.clone(),
            value: Some(if secret { MASK.to_owned() } else { mask_passwords(&property.value) }),
            origin: property.origin.clone(),
            note: None,
        }
    }
}

impl Settings {
    /// Every secret in force, to be taken out of texts that leave this machine.
    pub fn secrets(&self) -> Vec<String> {
        let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let tokens = self.api_tokens.iter().map(|token| hex(&token.sha256));
        let kafka = self.kafka.details().filter(|property| kafka::is_secret(&property.variable));
        let urls = self.redis_url.iter().chain(&self.database_url);
        let passwords = urls.filter_map(|url| url.password()).chain(self.database_url.iter().map(|url| url.expose().to_owned()));
        tokens.chain(kafka.map(|property| property.value.clone())).chain(passwords).collect()
    }
}

/// Masks the password of every `scheme://user:password@host` in a text.
pub(crate) fn mask_passwords(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked.push_str(before);
        // A password may hold any character that ought to have been escaped, so all up to the last `@` before a blank
        // counts as user and password: better to mask too much than too little.
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (authority, remainder) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((user_info, host)) => {
                let user = user_info.split_once(':').map_or(user_info, |(user, _)| user);
                masked.push_str(user);
                if user.len() < user_info.len() {
                    masked.push(':');
                    masked.push_str(MASK);
                }
                masked.push('@');
                masked.push_str(host);
            }
            None => masked.push_str(authority),
        }
        rest = remainder;
    }
    masked.push_str(rest);
    masked
}
