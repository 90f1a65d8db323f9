//! Sends at the pace asked for, whatever comes back.
//!
//! The schedule is open: a payment is due when its rate says so and not when the one before it came back. Where sending falls behind
//! (too much under way, a target that stalls) what was due meanwhile goes out at once, and its latency counts from when it was due.

use std::time::Duration;

use super::ledger::Sent;
use super::pace::{Bursts, Pace};
use super::report::Report;
use super::session::Shared;
use super::traffic::{Event, Traffic, TrafficParams};
use crate::clock::{monotonic, now_ms, since};
use crate::failure::Failure;

/// A wait that is shorter is not worth a system call.
const SHORTEST_WAIT: Duration = Duration::from_micros(50);
/// A wait that is longer lets out what the target's client gathers.
const PAUSE: Duration = Duration::from_millis(1);
/// The longest wait without a look at whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What to send, how fast, for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadParams {
    /// What is sent.
    pub traffic: TrafficParams,
    /// Payments a second; none is as fast as they go.
    pub rate: Option<f64>,
    /// Times of a higher rate.
    pub bursts: Option<Bursts>,
    /// How many payments; none is no bound.
    pub count: Option<u64>,
    /// For how long; none is no bound.
    pub duration: Option<Duration>,
    /// How many may be under way before sending waits. Memory goes by it: some 60 bytes each.
    pub max_pending: u64,
    /// How long the last ones are waited for while none comes back.
    pub patience: Duration,
    /// Whether verdicts and dead letters are read back.
    pub read_back: bool,
}

impl Default for LoadParams {
    fn default() -> Self {
        Self {
            traffic: TrafficParams::default(),
            rate: None,
            bursts: None,
            count: None,
            duration: None,
            max_pending: 1_000_000,
            patience: Duration::from_secs(30),
            read_back: true,
        }
    }
}

impl LoadParams {
    /// Checks them, without making people.
    ///
    /// # Errors
    /// What is wrong, as a failure of usage.
    pub fn check(&self) -> Result<(), Failure> {
        self.traffic.generator.check().map_err(|why| Failure::usage(why.to_string()))?;
        self.pace().map(|_| ())
    }

    fn pace(&self) -> Result<Option<Pace>, Failure> {
        if self.rate.is_none() && self.bursts.is_some() {
            return Err(Failure::usage("bursts are times of a higher rate: give the rate, too"));
        }
        self.rate.map(|rate| Pace::new(rate, self.bursts)).transpose().map_err(Failure::usage)
    }

    /// The traffic and the pace that these make.
    ///
    /// # Errors
    /// What is wrong, as a failure of usage.
    pub fn open(&self) -> Result<(Traffic, Option<Pace>), Failure> {
        let traffic = Traffic::new(&self.traffic, self.count).map_err(|why| Failure::usage(why.to_string()))?;
        Ok((traffic, self.pace()?))
    }
}

/// Where records go.
pub(super) trait Sink {
    /// Hands a record over; it may be gathered with others.
    fn send(&mut self, event: &Event, value: &[u8], timestamp_ms: i64) -> Result<(), Failure>;

    /// Nothing follows for a moment: what was gathered goes out.
    fn pause(&mut self) -> Result<(), Failure>;

    /// Waits until everything is taken.
    fn finish(&mut self) -> Result<(), Failure>;
}

/// How the sending went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Driven {
    pub(super) began: Duration,
    pub(super) took: Duration,
    pub(super) held_back: Duration,
    pub(super) stopped: bool,
}

/// Sends all of it.
pub(super) fn drive(params: &LoadParams, sink: &mut dyn Sink, shared: &Shared) -> Result<Driven, Failure> {
    let (traffic, mut pace) = params.open()?;
    let mut driven = Driven { began: monotonic(), ..Driven::default() };
    let began_ms = now_ms();
    let mut value = Vec::new();
    for event in traffic {
        let mut offset = pace.as_mut().and_then(Iterator::next).unwrap_or_else(|| since(driven.began));
        if params.duration.is_some_and(|duration| offset >= duration) {
            break;
        }
        let due = driven.began + offset;
        if !wait_until(due, sink, shared)? || !wait_for_room(params, sink, shared, &mut driven.held_back)? {
            driven.stopped = true;
            break;
        }
        if pace.is_none() {
            // What was held back was not due meanwhile: nothing says when it would have been.
            offset = since(driven.began);
        }
        let now = began_ms + i64::try_from(offset.as_millis()).unwrap_or(i64::MAX / 2);
        value.clear();
        event.write(now, &mut value);
        {
            let mut ledger = shared.ledger();
            let (label, poison) = (event.label(), event.poison.is_some());
            ledger.send(event.number, Sent { due: driven.began + offset, label, poison, doubtful: false });
            ledger.tally.late += u64::from(event.late_ms > 0);
            ledger.tally.out_of_order += u64::from(event.out_of_order);
            if !params.read_back {
                ledger.forget(event.number);
            }
        }
        sink.send(&event, &value, now)?;
    }
    sink.finish()?;
    driven.took = since(driven.began);
    Ok(driven)
}

/// False where it is to stop.
fn wait_until(due: Duration, sink: &mut dyn Sink, shared: &Shared) -> Result<bool, Failure> {
    let mut paused = false;
    loop {
        if shared.is_stopped() || shared.has_failed() {
            return Ok(false);
        }
        let early = due.saturating_sub(monotonic());
        if early < SHORTEST_WAIT {
            return Ok(true);
        }
        if early >= PAUSE && !paused {
            sink.pause()?;
            paused = true;
        } else {
            std::thread::park_timeout(early.min(LOOK));
        }
    }
}

/// Waits while too much is under way; false where it is to stop.
fn wait_for_room(params: &LoadParams, sink: &mut dyn Sink, shared: &Shared, held_back: &mut Duration) -> Result<bool, Failure> {
    let began = monotonic();
    let mut waited = false;
    while shared.ledger().pending() >= params.max_pending {
        if !waited {
            sink.pause()?;
            waited = true;
        }
        if shared.is_stopped() || shared.has_failed() {
            return Ok(false);
        }
        std::thread::park_timeout(PAUSE);
    }
    if waited {
        *held_back += since(began);
    }
    Ok(true)
}

/// What came of it, once nothing more is awaited.
pub(super) fn report(params: &LoadParams, target: String, driven: Driven, shared: &Shared) -> Report {
    let ledger = shared.ledger();
    let tally = ledger.tally;
    let (lost, unanswered) = ledger.missing();
    let seconds = driven.took.as_secs_f64();
    let answered = tally.verdicts + tally.dead_letters + tally.refused;
    let until = ledger.last.saturating_sub(driven.began).as_secs_f64();
    let per_second = |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    Report {
        target,
        seed: params.traffic.generator.seed,
        run: params.traffic.generator.id_prefix.clone().unwrap_or_default(),
        sent: tally.sent,
        poison: tally.poison,
        late: tally.late,
        out_of_order: tally.out_of_order,
        verdicts: tally.verdicts,
        dead_letters: tally.dead_letters,
        refused: tally.refused,
        unanswered,
        lost,
        duplicates: tally.duplicates,
        unexpected_dead_letters: tally.unexpected,
        poison_scored: tally.poison_scored,
        seconds,
        sent_per_second: per_second(tally.sent, seconds),
        answered_per_second: per_second(answered, until),
        held_back_seconds: driven.held_back.as_secs_f64(),
        latency_from: if params.rate.is_some() { "intended" } else { "sent" },
        latency_ms: ledger.latency(),
        anomalies: ledger.found(),
        stopped: driven.stopped,
        missed: Vec::new(),
    }
}
