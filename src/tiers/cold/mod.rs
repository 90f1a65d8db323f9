//! Postgres: what outlives topics. Profiles by user, verdicts with the features they were scored with, labels, audit and more.
//!
//! | file | role |
//! |---|---|
//! | `mod` | connections: [`Cold::get`] hands one out, on a schema that is up to date |
//! | `schema` | one schema for each application, migrated under an advisory lock |
//! | `profiles` | the Tier port |
//! | `rows` | what a record says, and what is left out |
//! | `write` | what the projection writes: rows and progress in one transaction |
//! | `days` | verdicts are kept by day: partitions are made when needed and dropped after `HISTORY_DAYS` |
//! | `documents` | models, notifications, the trail |
//! | `erasures` | who was erased: rows go, and do not come back |
//! | `logged` | what training reads |
//! | `errors` | what an error says, without what it might repeat |
//!
//! Limits: needs a connection of its own for each session (a pooler in between must pool sessions, not transactions).

mod days;
mod documents;
mod erasures;
mod errors;
mod logged;
mod profiles;
mod rows;
mod schema;
mod write;

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{READ_TIMEOUT, ServerUrl, Unreachable};

pub use documents::{AuditRow, ModelRow, NotificationRow, Told};
pub use erasures::{Erasure, Remains};
pub use logged::LoggedRow;
pub use profiles::{postgres_text, postgres_time};
pub use rows::{LabelRow, VerdictRow, severity_rank};
pub use schema::{SCHEMA_VERSION, name as schema_name};
pub use write::{Outcome, Part, Writer};

/// How connections are made and used.
#[derive(Clone, Copy, Debug)]
pub struct ColdOptions {
    /// Connections at most.
    pub connections: usize,
    /// The longest that one statement may take; the server ends it then.
    pub statement_timeout: Duration,
    /// The longest wait for a connection, be it a free one or a new one.
    pub connect_timeout: Duration,
}

impl Default for ColdOptions {
    fn default() -> Self {
        Self { connections: 8, statement_timeout: Duration::from_secs(5), connect_timeout: READ_TIMEOUT }
    }
}

/// Pooled connections to one application's schema. Cheap to clone; connects when it is first used.
#[derive(Clone)]
pub struct Cold(Arc<Inner>);

struct Inner {
    pool: Pool,
    address: String,
    schema: String,
    migrated: OnceCell<()>,
}

impl std::fmt::Debug for Cold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cold").field("address", &self.0.address).field("schema", &self.0.schema).finish_non_exhaustive()
    }
}

impl Cold {
    /// A tier of this application. Opens no connection.
    ///
    /// # Errors
    /// A URL that the client cannot use.
    pub fn open(url: &ServerUrl, application: &str, options: &ColdOptions) -> Result<Self, Unreachable> {
        // The library's text may repeat a part of the URL.
        let config = tokio_postgres::Config::from_str(url.expose());
        let mut config = config.map_err(|_| Unreachable("DATABASE_URL is no URL of a Postgres database".to_owned()))?;
        config.application_name(application).connect_timeout(options.connect_timeout).keepalives_idle(Duration::from_secs(60));
        if !url.expose().contains("sslmode") && config.get_hosts().iter().all(is_here) {
            // Debian's Postgres offers TLS with a certificate that nobody signed.
            config.ssl_mode(SslMode::Disable);
        }
        let schema = schema::name(application);
        let manager = Manager::from_config(config, tls(), ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let session = format!(
            "SET search_path TO {}; SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}; SET TIME ZONE 'UTC'; SET client_min_messages = warning",
            schema::quoted(&schema),
            options.statement_timeout.as_millis(),
            options.statement_timeout.as_millis(),
        );
        let prepare = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let session = session.clone();
            Box::pin(async move { client.batch_execute(&session).await.map_err(HookError::Backend) })
        });
        let pool = Pool::builder(manager)
            .max_size(options.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(options.connect_timeout))
            .create_timeout(Some(options.connect_timeout))
            .recycle_timeout(Some(options.connect_timeout))
            .post_create(prepare)
            .build()
            .map_err(|why| Unreachable(format!("Postgres: {why}")))?;
        Ok(Self(Arc::new(Inner { pool, address: url.to_string(), schema, migrated: OnceCell::new() })))
    }

    /// Where it is, without a password.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// The schema that everything is in.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.0.schema
    }

    /// A connection whose search path is the application's schema, migrated. It goes back to the pool when dropped.
    ///
    /// # Errors
    /// No connection in time, or a schema that cannot be brought up to date.
    pub async fn get(&self) -> Result<Object, Unreachable> {
        self.0.migrated.get_or_try_init(|| async { schema::migrate(self).await }).await?;
        self.connection().await
    }

    /// A connection, whatever the schema is like.
    async fn connection(&self) -> Result<Object, Unreachable> {
        self.0.pool.get().await.map_err(|why| errors::no_connection(&self.0.address, &why))
    }

    /// What an error of one of its connections means, in a text fit for logs.
    #[must_use]
    pub fn unreachable(&self, why: &tokio_postgres::Error) -> Unreachable {
        errors::unreachable(&self.0.address, why)
    }

    /// How many connections are open, and how many of these are free.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        let status = self.0.pool.status();
        (status.size, status.available)
    }
}

/// True for this very machine, where TLS protects nothing.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
        Host::Unix(_) => true,
    }
}

/// TLS that trusts what the system trusts.
fn tls() -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    super::use_tls();
    MakeRustlsConnect::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
