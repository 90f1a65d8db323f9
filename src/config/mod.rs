//! Settings: what can be set, where it may be set, and what is wrong with it.
//!
//! Each setting is declared once ([`table`](DECLARATIONS)); its field, flag, documentation and row in `mangrove config`
//! are made from that. A value comes from the first source that has one: flag, environment, `.env` file, the command's
//! own default, the declared default. Every value remembers its [`Origin`].
//!
//! ```
//! use mangrove::config::{BrokerKind, Origin, Settings, Sources};
//!
//! let flags = vec![("BROKER".to_owned(), "embedded".to_owned())];
//! let settings = Settings::load(&Sources { flags, ..Sources::default() }).map_err(|faults| faults[0].clone())?;
//! assert_eq!(settings.broker, BrokerKind::Embedded);
//! assert_eq!(settings.origin("WORKERS"), Some(&Origin::Default));
//! # Ok::<(), mangrove::config::Fault>(())
//! ```
//!
//! Invariants: all faults are found before any is reported; nothing here opens a connection; no value stands for
//! "not set"; secrets are in no fault, no row and no `Debug` output of their own types.
//! Limits: a value is text in UTF-8. A misspelled variable cannot be told from someone else's; a misspelled flag is refused.

mod budget;
mod checks;
#[macro_use]
mod declare;
mod describe;
mod dotenv;
mod fault;
mod flags;
mod kafka;
mod load;
mod machine;
mod origin;
mod parse;
mod places;
mod reader;
mod reference;
mod source;
mod table;
mod tokens;
mod url;
mod values;

pub use budget::{Budget, Load};
pub use declare::{Declaration, Fallback};
pub use describe::Row;
pub(crate) use fault::shorten;
pub use fault::{FOUND_MAX, Fault};
pub use flags::SettingFlags;
pub use kafka::{KafkaProperties, KafkaProperty};
pub use origin::Origin;
pub use reference::{env_example, markdown};
pub use source::{CommandDefaults, Dotenv, Sources};
pub use table::{DECLARATIONS, Settings};
pub(crate) use tokens::token_entry;
pub(crate) use url::mask_passwords;
pub use url::{MASK, ServerUrl};
pub use values::{
    ApiToken, BrokerKind, Choice, EmbeddedSync, InputPartitioning, LogFormat, ProcessingGuarantee, Reasons, Role, Roles, Scope,
    StartFrom,
};

#[cfg(test)]
mod tests;
