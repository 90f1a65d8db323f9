//! The thread that follows the verdicts while anyone watches.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::debug;

use super::figures::Count;
use super::source::{Source, Told};
use super::{Event, IDLE, KEPT, SECONDS, Seen, Shared, State};

/// Follows until nobody watches or the broker fails.
pub(super) fn run(shared: &Shared, source: &dyn Source) {
    let mut count = Count::new(shared.clock.now_ms(), &shared.metrics);
    // Anomalies that are among the verdicts of before as well.
    let mut earlier = BTreeSet::new();
    let mut left = false;
    let ended = source.follow(&mut |told| {
        match told {
            Told::Begins(places) => shared.lock().view.places = places,
            Told::Earlier(seen) => {
                earlier.insert(seen.verdict.id.clone());
                keep(&mut shared.lock().view.anomalies, Arc::new(seen), KEPT);
            }
            Told::Verdict(seen) => take(shared, seen, &mut count, &earlier),
            Told::Warm => {
                let mut state = shared.lock();
                state.warm = true;
                count = Count::new(shared.clock.now_ms(), &shared.metrics);
                earlier.clear();
                shared.changed.notify_all();
            }
            Told::Idle => {
                left = !idle(shared, &mut count);
                return !left;
            }
        }
        true
    });
    if left {
        return; // Said under the lock already: another one may run by now.
    }
    let mut state = shared.lock();
    state.running = false;
    if let Err(why) = ended {
        debug!(%why, "the verdicts cannot be followed");
        state.failure = Some(why);
    }
    shared.changed.notify_all();
}

fn keep<T>(kept: &mut VecDeque<T>, new: T, most: usize) {
    if kept.len() == most {
        kept.pop_front();
    }
    kept.push_back(new);
}

fn take(shared: &Shared, seen: Seen, count: &mut Count, earlier: &BTreeSet<String>) {
    let seen = Arc::new(seen);
    let mut state = shared.lock();
    let State { view, warm, .. } = &mut *state;
    if let Some(place) = view.places.get_mut(seen.partition as usize) {
        *place = seen.offset + 1;
    }
    keep(&mut view.recent, Arc::clone(&seen), KEPT);
    if seen.verdict.is_anomaly && !earlier.contains(&seen.verdict.id) {
        keep(&mut view.anomalies, Arc::clone(&seen), KEPT);
    }
    if *warm {
        count.add(seen.verdict.severity, seen.verdict.score.is_some());
        // Under the lock: who subscribes gets all behind the places that it is told.
        let _nobody = shared.events.send(Event::Verdict(seen));
    }
}

/// Between two polls; false ends the follower.
fn idle(shared: &Shared, count: &mut Count) -> bool {
    let mut state = shared.lock();
    if let Some(over) = count.turn(shared.clock.now_ms(), &shared.metrics).filter(|_| state.warm) {
        let over = Arc::new(over);
        keep(&mut state.view.seconds, Arc::clone(&over), SECONDS);
        let _nobody = shared.events.send(Event::Second(over));
    }
    if shared.events.receiver_count() > 0 {
        state.watched = shared.now();
    }
    let go_on = shared.now().saturating_sub(state.watched) <= IDLE && !shared.stop.load(Ordering::Acquire);
    // Whoever comes next finds no follower, and starts one.
    state.running = go_on;
    go_on
}
