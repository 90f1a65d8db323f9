//! A worker's loop, and what it tells about how it goes.

use std::time::Duration;

use topology::broker::Broker;
use topology::worker::{Step, Worker};

use crate::api::Health;
use crate::clock::{monotonic, since};
use crate::stop::Stop;

/// The longest a worker waits for records before it looks at the stop flag.
const STEP_WAIT: Duration = Duration::from_millis(100);
/// How long a worker waits while the broker is in trouble.
const BACKOFF: Duration = Duration::from_millis(100);
/// A worker that the group has given nothing for this long counts as started.
const SPARE: Duration = Duration::from_secs(10);

/// Steps a worker until it is told to stop, or was given up.
pub(super) fn run<B: Broker>(
    mut worker: Worker<B>,
    index: usize,
    health: &Health,
    stop: &Stop,
    for_good: bool,
    given_up: &dyn Fn() -> bool,
) -> Result<(), String> {
    let mut progress = 0;
    let mut troubled = false;
    let began = monotonic();
    while !stop.raised() {
        let step = worker.step(STEP_WAIT).map_err(|halt| halt.0)?;
        if given_up() {
            return Ok(());
        }
        let resting = step == Step::Idle && !worker.is_restoring();
        let progressed = resting || worker.progress() != progress;
        progress = worker.progress();
        health.stepped(index, monotonic_ms(), progressed);
        // With more workers than partitions some never get any.
        if (worker.is_settled() || worker.waits_for_tiers()) && (worker.has_tasks() || since(began) > SPARE) {
            health.started();
        }
        if troubled || step == Step::Backoff {
            troubled = worker.trouble_text().is_some();
            health.trouble(index, worker.trouble_text());
        }
        health.paused(index, worker.is_paused());
        if step == Step::Backoff {
            std::thread::park_timeout(BACKOFF);
        }
    }
    worker.close(for_good).map_err(|halt| halt.0)
}

pub(super) fn monotonic_ms() -> u64 {
    u64::try_from(monotonic().as_millis()).unwrap_or(u64::MAX)
}
