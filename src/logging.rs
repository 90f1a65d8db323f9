//! Log lines: for people on a terminal, JSON elsewhere, always to standard error (standard output is for results).
//!
//! `LOG` filters, `LOG_FORMAT` overrides the choice. User ids never appear in a log line; that is the callers' duty.

use std::io::{self, IsTerminal};

use sha2::{Digest, Sha256};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, Settings};

/// Whatever `LOG` asks for: Postgres' client logs each statement's parameters at level debug, which are users and payments; the scheduler
/// says at info that it was made.
const QUIET: [&str; 3] = ["tokio_postgres=warn", "tokio_postgres::query=warn", "tokio_cron_scheduler=warn"];

/// Starts logging for the whole process. Has no effect where logging was started before (a test's subscriber).
pub fn start(settings: &Settings) {
    let terminal = io::stderr().is_terminal();
    let json = match settings.log_format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // Checked when the settings were read; lossy here only spares a second error path.
    let filter = EnvFilter::builder().parse_lossy(&settings.log);
    let filter = QUIET.iter().filter_map(|quiet| quiet.parse().ok()).fold(filter, EnvFilter::add_directive);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Starting twice is not worth a failure: the first subscriber stays.
    let _first_stays = if json {
        lines.json().flatten_event(true).with_current_span(false).finish().try_init()
    } else {
        lines.with_ansi(terminal).with_target(false).finish().try_init()
    };
}

/// Stands for a user where ids must not appear: the same for the same user, and of no use without the key.
pub(crate) fn keyed_hash(key: &[u8; 32], user_id: &[u8]) -> String {
    // The key comes first and the digest is cut short, so that no longer text's hash can be made from it.
    let digest = Sha256::new().chain_update(key).chain_update(user_id).finalize();
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
