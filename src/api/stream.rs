//! `GET /v1/stream/verdicts`: verdicts as they come, as Server-Sent Events (WHATWG HTML, 9.2).
//!
//! Events: `verdict` (its data is the verdict as on the wire), `second` (with `figures=true`: see [`crate::live::Second`]), `missed`
//! (verdicts were left out: some lie too far back, or the reader was too slow). The id of an event is the place up to which its
//! reader has seen everything: the next offset of each partition of the verdicts topic, with commas between. Who comes back with it as
//! `Last-Event-ID` is first given what it missed, read from the topic.
//! Limits: 64 streams an instance; of what was missed 20,000 records are read and 2,000 verdicts given; a reader that is 4,096 events behind
//! is sent away, and told when to come again.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use topology::broker::BrokerError;
use tracing::warn;

use super::call::{Call, Coming, READ_MAX, run_aside};
use super::declare::{Declared, Parameter, Takes, gives_other, parameter};
use super::parameters::{self, invalid};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use crate::live::{Event, Live, Look};
use crate::tap::{Filter, severity};

/// What to leave out: of the stream, and of lists of the latest.
pub(super) const SEVERITY: Parameter =
    parameter("severity", Takes::OneOf(&["none", "low", "medium", "high", "critical"]), "From this severity up.");
/// See [`SEVERITY`].
pub(super) const OF_USER: Parameter = parameter("user", Takes::Text(256), "Of this user.");
/// See [`SEVERITY`].
pub(super) const MIN_SCORE: Parameter = parameter("min_score", Takes::Pattern("^(0([.][0-9]{1,9})?|1)$"), "From this score up.");

/// What the stream says of itself.
pub(crate) const VERDICTS: Declared = Declared::new(
    "Live",
    "Verdicts as they come, as Server-Sent Events",
    &[gives_other(200, "text/event-stream", "Events `verdict`, `second` and `missed`; it does not end by itself.")],
)
.details("Who comes back with an event's id as `Last-Event-ID` is first given what it missed.")
.query(&[SEVERITY, OF_USER, MIN_SCORE, parameter("figures", Takes::OneOf(&["true", "false"]), "Figures by second, too.")])
.problems(&[Kind::TopicUnreadable]);

/// When to come again, in milliseconds.
const RETRY_MS: u64 = 2_000;
/// A sign of life where there is nothing to say.
const BEAT: Duration = Duration::from_secs(15);
/// Pieces that wait for the connection.
const PIECES: usize = 64;
/// A piece is at most about this long.
const PIECE_BYTES: usize = 32 << 10;
/// Partitions that a place may name.
const PARTITIONS_MAX: usize = 10_000;

/// Reads `severity`, `user` or `min_score` into the filter; false for another parameter.
pub(super) fn narrow(filter: &mut Filter, name: &str, value: &str) -> Result<bool, Problem> {
    match name {
        "severity" => {
            let wanted = severity(value).ok_or_else(|| invalid("`severity`: expected none, low, medium, high or critical"));
            filter.severity = wanted?;
        }
        "user" => filter.user = Some(value.to_owned()),
        "min_score" => {
            let least = value.parse().ok().filter(|least| (0.0..=1.0).contains(least));
            filter.min_score = Some(least.ok_or_else(|| invalid("`min_score`: expected a number from 0 to 1"))?);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A yes or no.
fn flag(name: &str, value: &str) -> Result<bool, Problem> {
    value.parse().map_err(|_| invalid(format!("`{name}`: expected true or false")))
}

/// Says that a topic could not be read; the log has the cause.
pub(super) fn unreadable(call: &Call, why: &BrokerError) -> Problem {
    warn!(request = call.request, %why, "the verdicts cannot be read");
    Problem::new(Kind::TopicUnreadable, "the verdicts cannot be read for now").retry_after(1)
}

/// What is asked for.
struct Wish {
    filter: Filter,
    figures: bool,
    /// Where the reader was.
    place: Option<Vec<u64>>,
}

impl Wish {
    fn read(call: &Call) -> Result<Self, Problem> {
        let mut wish = Self { filter: Filter::default(), figures: false, place: None };
        for (name, value) in parameters::read(&call.query, &["severity", "user", "min_score", "figures"])? {
            if !narrow(&mut wish.filter, name, &value)? {
                wish.figures = flag(name, &value)?;
            }
        }
        if let Some(last) = &call.last_event {
            let place = last.to_str().ok().and_then(read_place);
            wish.place = Some(place.ok_or_else(|| invalid("the header Last-Event-ID is no id of an event of this stream"))?);
        }
        Ok(wish)
    }
}

/// Reads the id of an event.
fn read_place(text: &str) -> Option<Vec<u64>> {
    let place: Option<Vec<u64>> = text.split(',').map(|offset| offset.parse().ok()).collect();
    place.filter(|place| place.len() <= PARTITIONS_MAX)
}

/// Answers the route.
pub(crate) fn verdicts(call: Call) -> Coming {
    Box::pin(async move {
        let wish = Wish::read(&call)?;
        let site = Arc::clone(&call.site);
        let Ok(seat) = Arc::clone(&site.streams).try_acquire_owned() else {
            return Err(Problem::new(Kind::TooManyRequests, "all places for streams are taken").retry_after(5));
        };
        let (wish, begun) = run_aside(call, READ_MAX, move |call| {
            let begun = begin(&call.site.api.live, &wish).map_err(|why| unreadable(call, &why))?;
            Ok((wish, begun))
        })
        .await?;
        Ok(open(site.api.live.clone(), wish, begun, site.closing.subscribe(), seat))
    })
}

/// What a stream begins with.
struct Begun {
    events: broadcast::Receiver<Event>,
    place: Vec<u64>,
    missed: Look,
}

fn begin(live: &Live, wish: &Wish) -> Result<Begun, BrokerError> {
    let (events, place) = live.watch()?;
    let missed = match &wish.place {
        Some(from) => live.missed(from, &place, &wish.filter)?,
        None => Look::default(),
    };
    Ok(Begun { events, place, missed })
}

fn open(live: Live, wish: Wish, begun: Begun, closing: watch::Receiver<bool>, seat: OwnedSemaphorePermit) -> Reply {
    let (pieces, body) = mpsc::channel(PIECES);
    let writer = Writer { pieces, piece: String::new(), place: begun.place, wish };
    tokio::spawn(async move {
        // An error means that the reader has left.
        let _gone = writer.write(&live, begun.events, begun.missed, closing).await;
        drop(seat);
    });
    Reply::pieces("text/event-stream", body)
}

/// The reader has left.
struct Gone;

struct Writer {
    pieces: mpsc::Sender<Bytes>,
    piece: String,
    place: Vec<u64>,
    wish: Wish,
}

impl Writer {
    async fn write(
        mut self,
        live: &Live,
        mut events: broadcast::Receiver<Event>,
        missed: Look,
        mut closing: watch::Receiver<bool>,
    ) -> Result<(), Gone> {
        let _ = write!(self.piece, "retry: {RETRY_MS}\n\n");
        if missed.more {
            self.missed();
        }
        for seen in &missed.found {
            self.add("verdict", false, seen.json.get());
            self.send_if_long().await?;
        }
        // A reader that is cut off before the first verdict comes back to here.
        let _ = write!(self.piece, "id: {}\nevent: place\ndata: {{}}\n\n", join(&self.place));
        self.send().await?;
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => self.take(event),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.missed();
                        return self.send().await;
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                _ = beat.tick() => {
                    if !live.goes_on() {
                        return Ok(());
                    }
                    self.piece.push_str(": \n\n");
                }
                () = told_to_close(&mut closing) => return Ok(()),
                () = self.pieces.closed() => return Err(Gone),
            }
            while let (true, Ok(event)) = (self.piece.len() < PIECE_BYTES, events.try_recv()) {
                self.take(event);
            }
            self.send().await?;
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Verdict(seen) => {
                if let Some(place) = self.place.get_mut(seen.partition as usize) {
                    *place = seen.offset + 1;
                }
                if self.wish.filter.takes(&seen.verdict) {
                    self.add("verdict", true, seen.json.get());
                }
            }
            Event::Second(second) if self.wish.figures => {
                let json = serde_json::to_string(&*second).expect("invariant: our own shapes have text keys and plain values");
                self.add("second", true, &json);
            }
            Event::Second(_) => {}
        }
    }

    /// Some verdicts were left out. Without an id: who comes back is given them, as far as they can be read.
    fn missed(&mut self) {
        self.add("missed", false, "{}");
    }

    fn add(&mut self, event: &str, placed: bool, data: &str) {
        let id = if placed { format!("id: {}\n", join(&self.place)) } else { String::new() };
        let _ = write!(self.piece, "{id}event: {event}\ndata: {data}\n\n");
    }

    async fn send_if_long(&mut self) -> Result<(), Gone> {
        if self.piece.len() < PIECE_BYTES { Ok(()) } else { self.send().await }
    }

    async fn send(&mut self) -> Result<(), Gone> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.pieces.send(Bytes::from(std::mem::take(&mut self.piece))).await.map_err(|_| Gone)
    }
}

async fn told_to_close(closing: &mut watch::Receiver<bool>) {
    // An error means that the server is gone.
    let _ = closing.wait_for(|closing| *closing).await;
}

fn join(place: &[u64]) -> String {
    place.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        assert_eq!(read_place(&join(&[1, 0, u64::MAX])), Some(vec![1, 0, u64::MAX]));
        for bad in ["", "a", "1,", "-1", "1;2", "18446744073709551616"] {
            assert_eq!(read_place(bad), None, "{bad}");
        }
    }
}
