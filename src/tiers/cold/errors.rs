//! What Postgres' errors say in logs: where, and which code. Their own texts may repeat values, so only those of classes that speak of
//! the server and never of rows are passed on.

use deadpool_postgres::{HookError, PoolError};
use tokio_postgres::Error;

use super::super::Unreachable;

/// Classes of SQLSTATE whose messages hold names of roles, databases and settings at most: connection, authorisation, transaction
/// state, resources, intervention, system.
const PLAIN: [&str; 8] = ["08", "28", "25", "3D", "53", "55", "57", "58"];

/// An error of a statement or a connection.
pub(super) fn unreachable(address: &str, why: &Error) -> Unreachable {
    Unreachable(format!("Postgres at {address}: {}", text(why)))
}

/// The pool had none to give.
pub(super) fn no_connection(address: &str, why: &PoolError) -> Unreachable {
    let what = match why {
        PoolError::Backend(why) | PoolError::PostCreateHook(HookError::Backend(why)) => text(why),
        PoolError::Timeout(_) => "no connection in time".to_owned(),
        PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => "no connection".to_owned(),
    };
    Unreachable(format!("Postgres at {address}: {what}"))
}

fn text(why: &Error) -> String {
    let Some(error) = why.as_db_error() else {
        let source = std::error::Error::source(why);
        let system = source.and_then(|source| source.downcast_ref::<std::io::Error>());
        return match system {
            Some(system) => format!("the connection failed: {}", system.kind()),
            None if why.is_closed() => "the connection was closed".to_owned(),
            // Ours: a row or parameter of another type than expected. The library names types and columns.
            None => why.to_string(),
        };
    };
    let code = error.code().code();
    if PLAIN.iter().any(|class| code.starts_with(class)) {
        format!("{} ({code})", error.message())
    } else {
        format!("refused with SQLSTATE {code}{}", error.table().map_or_else(String::new, |table| format!(" on {table}")))
    }
}
