//! What is in the notifications topic: one compacted partition that is the notifier's whole memory.
//!
//! | key | value |
//! |---|---|
//! | `delivery/ID` | a message on its way to a target, or given up; a tombstone once it has arrived |
//! | `window/TARGET/USER` | what will be told of a user when the window closes; USER is a digest of the id |
//! | `target/NAME` | what holds for a target: rate, flood, disabled or not |
//! | `order/ID` | what an operator wants of the notifier; a tombstone once it is done |
//!
//! Format: JSON. Only the member that owns the partition writes the first three.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::message::{Message, digest};

/// The last value of each key, as bytes.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A record's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Of a [`Delivery`].
    Delivery(String),
    /// Of a [`Window`]: target, and digest of the user's id.
    Window(String, String),
    /// Of a [`Standing`].
    Target(String),
    /// Of an [`Order`].
    Order(String),
}

impl Key {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Delivery(id) => format!("delivery/{id}"),
            Self::Window(target, user) => format!("window/{target}/{user}"),
            Self::Target(name) => format!("target/{name}"),
            Self::Order(id) => format!("order/{id}"),
        }
        .into_bytes()
    }

    /// From its bytes; none where this version does not know it.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = std::str::from_utf8(bytes).ok()?.split_once('/')?;
        match kind {
            "delivery" => Some(Self::Delivery(rest.to_owned())),
            "window" => rest.split_once('/').map(|(target, user)| Self::Window(target.to_owned(), user.to_owned())),
            "target" => Some(Self::Target(rest.to_owned())),
            "order" => Some(Self::Order(rest.to_owned())),
            _ => None,
        }
    }
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It will be tried at its time.
    Pending,
    /// Given up; kept so that it can be sent again.
    Dead,
}

/// A message on its way to one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Delivery {
    /// Its id: see [`Message::id_for`].
    pub id: String,
    /// To whom.
    pub target: String,
    /// Where it stands.
    pub state: State,
    /// When it was made, in milliseconds since the epoch.
    pub made_ms: i64,
    /// When it is to be tried next; when it was given up.
    pub next_ms: i64,
    /// How often it was tried.
    pub attempts: u32,
    /// What went wrong last.
    pub trouble: Option<String>,
    /// What it says.
    pub message: Message,
}

/// What will be told of a user when the window closes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// When it began, in milliseconds since the epoch.
    pub opened_ms: i64,
    /// What will be told.
    pub message: Message,
}

/// Why a target gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Disabled {
    /// Since when, in milliseconds since the epoch.
    pub at_ms: i64,
    /// What it said.
    pub why: String,
    /// The address that said so: another one is another chance.
    pub address: String,
}

/// What holds for a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The target asked for nothing more.
    pub disabled: Option<Disabled>,
    /// When the minute began in which messages are counted, in milliseconds since the epoch.
    pub minute_ms: i64,
    /// Messages made in that minute.
    pub made: u32,
    /// Not before this time: the target asked for a pause.
    pub held_until_ms: i64,
    /// What the rate did not let through.
    pub flood: Option<Message>,
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    /// Try this delivery now, and by its whole schedule again.
    Resend {
        /// Its id.
        delivery: String,
    },
    /// Send to this target again, and all that was given up.
    Enable {
        /// Its name.
        target: String,
    },
}

impl Order {
    /// Its key: the same order given twice is one.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::Order(match self {
            Self::Resend { delivery } => format!("resend/{delivery}"),
            Self::Enable { target } => format!("enable/{target}"),
        })
    }
}

/// True where a record holds a user's id, or its digest. A target that is not to know the user has deliveries that name verdicts only.
#[must_use]
pub fn names_user(key: &[u8], value: &[u8], user: &str) -> bool {
    match Key::decode(key) {
        Some(Key::Delivery(_)) => {
            decode::<Delivery>(value).is_some_and(|delivery| delivery.message.user_id.as_deref() == Some(user))
        }
        Some(Key::Window(_, of)) => of == digest(&[user]),
        _ => false,
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("invariant: our own shapes have text keys and plain values")
}

/// None where the bytes are no such value: it is left out.
pub(super) fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_come_back(target in "[a-z0-9_-]{1,20}", rest in "[a-z0-9_/]{1,20}", of in 0..4_u8) {
            let key = match of {
                0 => Key::Delivery(rest),
                1 => Key::Window(target, rest),
                2 => Key::Target(target),
                _ => Key::Order(rest),
            };
            prop_assert_eq!(Key::decode(&key.encode()), Some(key));
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(key) = Key::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes.clone());
            }
            prop_assert!(decode::<Delivery>(&bytes).is_none());
        }
    }
}
