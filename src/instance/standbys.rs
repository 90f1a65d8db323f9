//! The thread that keeps copies of other instances' state, and drops state that nobody wants any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use topology::broker::Broker;
use topology::standby::{StandbyConfig, Standbys};
use topology::topology::TaskId;
use topology::worker::Parts;
use tracing::warn;

use crate::clock::{monotonic, since};
use crate::stop::Stop;
use crate::threads::{ended_by, spawn};
use crate::trouble::Trouble;

/// How long a round waits for changelog records.
const WAIT: Duration = Duration::from_millis(50);
/// How often it is looked at who is to keep what, and how long a round without copies rests.
const LOOK: Duration = Duration::from_millis(250);
/// After a failure.
const RETRY: Duration = Duration::from_millis(1000);

/// A running thread.
pub(super) struct Copying {
    thread: JoinHandle<()>,
    stop: Stop,
}

impl Copying {
    /// `wanted` tells which copies to keep; where it knows nothing, those of before.
    pub(super) fn start<B: Broker>(
        broker: &Arc<B>,
        parts: &Parts,
        config: StandbyConfig,
        wanted: impl Fn() -> Option<BTreeSet<TaskId>> + Send + 'static,
    ) -> Self {
        let stop = Stop::default();
        let (standbys, stopped) = (Standbys::new(Arc::clone(broker), parts.clone(), config), stop.clone());
        Self { thread: spawn("standbys", move || run(standbys, &wanted, &stopped)), stop }
    }

    /// Ends it; gives up after `within`.
    pub(super) fn stop(self, within: Duration) {
        self.stop.raise();
        self.thread.thread().unpark();
        ended_by(&self.thread, monotonic() + within);
    }
}

fn run<B: Broker>(mut standbys: Standbys<B>, wanted: &dyn Fn() -> Option<BTreeSet<TaskId>>, stop: &Stop) {
    let (mut keep, mut looked, mut trouble) = (BTreeSet::new(), None, Trouble::default());
    while !stop.raised() {
        if looked.is_none_or(|looked| since(looked) >= LOOK) {
            keep = wanted().unwrap_or(keep);
            looked = Some(monotonic());
        }
        match standbys.step(&keep, WAIT) {
            Ok(_) if keep.is_empty() => std::thread::park_timeout(LOOK),
            Ok(_) => trouble.is_over(),
            Err(why) => {
                if trouble.is_news(&why) {
                    warn!(%why, "copies cannot be kept; trying again");
                }
                std::thread::park_timeout(RETRY);
            }
        }
    }
}
