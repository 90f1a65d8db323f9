//! The tiers outside of this machine: Redis, the warm one, and Postgres, the cold one.
//!
//! [`Warm`] and [`Cold`] implement the port [`state::tier::Tier`] for profiles; Postgres also keeps verdicts, labels and more
//! (docs/tiers.md has the schema). The projection writes them; queries read them. Both are optional, opened without a connection, and
//! connect when they are first used: a tier that is down keeps nothing from starting.
//!
//! Invariants: an outage is [`Unreachable`], never "not found" (I5); no password and nothing that a payment says is in an error's text:
//! those are made anew from codes.

mod cold;
mod recall;
mod warm;

use std::time::Duration;

use crate::config::Settings;

pub use crate::config::ServerUrl;
pub use cold::{
    AuditRow, Cold, ColdOptions, Erasure, LabelRow, LoggedRow, ModelRow, NotificationRow, Outcome, Part, Remains, SCHEMA_VERSION,
    Told, VerdictRow, Writer, postgres_text, postgres_time, schema_name, severity_rank,
};
pub use recall::Ladder;
pub use state::tier::Unreachable;
pub use warm::{Warm, WarmOptions};

/// The longest that a read of a tier may take, connecting included.
pub const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest that a batch of the projection may take.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the guard of a deleted profile is kept.
pub const TOMBSTONES_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Chooses the library that does TLS's arithmetic, once in a process.
fn use_tls() {
    // Refused where one was chosen already: that one does.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
}

/// The tiers that the settings name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tiers {
    /// Redis, where there is one.
    pub warm: Option<Warm>,
    /// Postgres, where there is one.
    pub cold: Option<Cold>,
}

impl Tiers {
    /// For reading: connections are shared by all requests. Nothing is connected yet.
    ///
    /// # Errors
    /// An address that the clients cannot use.
    pub fn open(settings: &Settings, application: &str) -> Result<Self, Unreachable> {
        let warm = settings.redis_url.as_ref().map(|url| Warm::open(url, application, WarmOptions::default()));
        let options = ColdOptions { connections: settings.database_connections as usize, ..ColdOptions::default() };
        let cold = settings.database_url.as_ref().map(|url| Cold::open(url, application, &options));
        Ok(Self { warm: warm.transpose()?, cold: cold.transpose()? })
    }
}
