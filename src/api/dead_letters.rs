//! `/v1/dead-letters`: what could not be scored, by cause and origin, and sending it back.

use hyper::StatusCode;
use serde::Serialize;

use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::routes::{Answer, Call};
use super::stream::unreadable;
use crate::redrive::{Desk, Done, Report};

#[derive(Serialize)]
struct Shown {
    /// All there are, and what a redrive would send back.
    letters: Report,
    /// How the last redrive from this instance went.
    redrive: Done,
}

fn desk(call: &Call) -> Result<&Desk, Problem> {
    call.site.api.dead_letters.as_ref().ok_or_else(|| Problem::new(Kind::NoSuchRoute, "this topology has no dead letters"))
}

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
