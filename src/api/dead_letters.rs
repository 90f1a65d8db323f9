//! `/v1/dead-letters`: what could not be scored, by cause and origin, and sending it back.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::call::{Answer, Call};
use super::declare::{Declared, gives};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::stream::unreadable;
use crate::redrive::{Desk, Done, Report};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "dead_letters")]
struct Shown {
    /// All there are, and what a redrive would send back.
    letters: Report,
    /// How the last redrive from this instance went.
    redrive: Done,
}

fn desk(call: &Call) -> Result<&Desk, Problem> {
    call.site.api.dead_letters.as_ref().ok_or_else(|| Problem::new(Kind::NoSuchRoute, "this topology has no dead letters"))
}

/// What counting says of itself.
pub(crate) const SHOW: Declared =
    Declared::new("Operations", "What could not be scored, by cause and origin", &[gives::<Shown>(200, "All there are.")])
        .problems(&[Kind::NoSuchRoute, Kind::TopicUnreadable]);

/// What sending back says of itself.
pub(crate) const REDRIVE: Declared =
    Declared::new("Operations", "Sends dead letters back to where they came from", &[gives::<Done>(202, "It has begun.")])
        .problems(&[Kind::NoSuchRoute, Kind::RedriveRuns, Kind::TopicUnreadable]);

/// Counts them: reads the whole topic.
pub(crate) fn show(call: &Call) -> Answer {
    let desk = desk(call)?;
    let letters = desk.count().map_err(|why| unreadable(call, &why))?;
    Ok(Reply::json(StatusCode::OK, &Shown { letters, redrive: desk.done() }))
}

/// Sends back what can be, beside the request.
pub(crate) fn redrive(call: &Call) -> Answer {
    let desk = desk(call)?;
    if desk.begin().map_err(|why| unreadable(call, &why))? {
        Ok(Reply::json(StatusCode::ACCEPTED, &desk.done()))
    } else {
        Err(Problem::new(Kind::RedriveRuns, "wait until it is over"))
    }
}
