//! Threads with a name, and waiting for their end.

use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::monotonic;

/// Between two looks at a thread that is to end.
const LOOK: Duration = Duration::from_millis(5);

/// Starts a thread. Only for use while the program starts, or where going on without it makes no sense.
///
/// # Panics
/// Where the system gives none.
pub(crate) fn spawn<T: Send + 'static>(name: impl Into<String>, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().name(name.into()).spawn(work).expect("invariant: the system has threads at start")
}

/// Waits for the thread's end until that moment of the process. True where it came.
pub(crate) fn ended_by<T>(thread: &JoinHandle<T>, until: Duration) -> bool {
    while !thread.is_finished() && monotonic() < until {
        std::thread::park_timeout(LOOK);
    }
    thread.is_finished()
}
