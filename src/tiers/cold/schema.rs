//! The schema in Postgres: one for each application, so that tenants of a database are apart, brought up to date by migrations.
//!
//! Migrations run under an advisory lock, once for each process that needs them: instances that start together do not collide. Who finds
//! the schema up to date, or newer, writes nothing, so a role without the right to create, and a read-only server, will do then.
//! Migrations only add: an older program works on a newer schema.

use deadpool_postgres::Object;
use sha2::{Digest as _, Sha256};
use tracing::info;

use super::super::Unreachable;
use super::Cold;

mod embedded {
    refinery::embed_migrations!("src/tiers/migrations");
}

/// The version that this program brings the schema to.
pub const SCHEMA_VERSION: i32 = 4;

/// Bytes of a Postgres identifier.
const NAME_BYTES_MAX: usize = 63;
/// Hexadecimal digits that stand for the rest of a name that is too long.
const DIGEST_DIGITS: usize = 16;
/// The table that lists what ran.
const HISTORY: &str = "schema_history";
/// Where our lock lies among a database's advisory locks: "MANG".
const LOCK_CLASS: i32 = 0x4d41_4e47;

/// The schema of an application: its name, shortened where Postgres would cut it.
#[must_use]
pub fn name(application: &str) -> String {
    if application.len() <= NAME_BYTES_MAX {
        return application.to_owned();
    }
    let digest: String = Sha256::digest(application).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut end = NAME_BYTES_MAX - DIGEST_DIGITS - 1;
    while !application.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{}", &application[..end], &digest[..DIGEST_DIGITS])
}

/// As an identifier in a statement.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Brings the schema up to date, or finds it so.
pub(super) async fn migrate(cold: &Cold) -> Result<(), Unreachable> {
    let mut client = cold.connection().await?;
    if is_current(cold, &client).await? {
        return Ok(());
    }
    // Another process may be at it: it takes as long as it takes.
    let wait = "SET statement_timeout = 0; SET lock_timeout = '60s'";
    client.batch_execute(wait).await.map_err(|why| cold.unreachable(&why))?;
    let lock = client.execute("SELECT pg_advisory_lock($1, hashtext($2))", &[&LOCK_CLASS, &cold.schema()]).await;
    lock.map_err(|why| cold.unreachable(&why))?;
    let outcome = run(cold, &mut client).await;
    // Its settings, and the lock, end with the session.
    drop(Object::take(client));
    outcome
}

async fn run(cold: &Cold, client: &mut Object) -> Result<(), Unreachable> {
    if is_current(cold, client).await? {
        return Ok(());
    }
    let exists = client.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&cold.schema()]).await;
    if exists.map_err(|why| cold.unreachable(&why))?.is_none() {
        let create = format!("CREATE SCHEMA {}", quoted(cold.schema()));
        client.batch_execute(&create).await.map_err(|why| cold.unreachable(&why))?;
    }
    let mut runner = embedded::migrations::runner().set_abort_missing(false);
    runner.set_migration_table_name(HISTORY);
    let migrated = runner.run_async(&mut ***client).await;
    let report = migrated.map_err(|why| {
        let cause = std::error::Error::source(&why).and_then(|cause| cause.downcast_ref::<tokio_postgres::Error>());
        cause.map_or_else(|| Unreachable(format!("Postgres at {}: {why}", cold.address())), |why| cold.unreachable(why))
    })?;
    for migration in report.applied_migrations() {
        info!(
            schema = cold.schema(),
            version = migration.version(),
            name = migration.name(),
            "the database's schema was migrated"
        );
    }
    Ok(())
}

/// True where the schema has our version or a later one.
async fn is_current(cold: &Cold, client: &Object) -> Result<bool, Unreachable> {
    let history = format!("{}.{HISTORY}", quoted(cold.schema()));
    let exists = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&history]).await;
    if !exists.map_err(|why| cold.unreachable(&why))?.get::<_, bool>(0) {
        return Ok(false);
    }
    let version = client.query_one(&format!("SELECT coalesce(max(version), 0) FROM {HISTORY}"), &[]).await;
    Ok(version.map_err(|why| cold.unreachable(&why))?.get::<_, i32>(0) >= SCHEMA_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_stay_apart() {
        assert_eq!(name("mangrove"), "mangrove");
        let (one, other) = (name(&"x".repeat(200)), name(&"x".repeat(201)));
        assert_ne!(one, other);
        assert!(one.len() <= NAME_BYTES_MAX && other.len() <= NAME_BYTES_MAX, "{one}");
        assert!(name(&"ü".repeat(100)).len() <= NAME_BYTES_MAX);
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn the_version_is_that_of_the_last_migration() {
        let versions = embedded::migrations::runner();
        assert_eq!(versions.get_migrations().iter().map(refinery::Migration::version).max(), Some(SCHEMA_VERSION));
    }
}
