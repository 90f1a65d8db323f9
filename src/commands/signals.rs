//! Ctrl-C and SIGTERM, for commands that come to an end of their own.

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::instance::Stop;

/// A flag that SIGINT and SIGTERM raise.
pub(super) fn stop_on_signal() -> Result<Stop, Failure> {
    let failed = |why: std::io::Error| Failure::new("cannot listen to signals").caused_by(why);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let stop = Stop::default();
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?)
    };
    let raised = stop.clone();
    let listen = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        raised.raise();
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(failed)?;
    Ok(stop)
}
