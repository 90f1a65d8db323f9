//! What is in force and from where, for `mangrove config`.
//!
//! Invariant: no secret leaves this module; passwords inside of URLs are masked whatever the variable is called.

use super::declare::{Declaration, Fallback};
use super::kafka::{self, KafkaProperty};
use super::origin::Origin;
use super::url::{MASK, mask_passwords};

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
