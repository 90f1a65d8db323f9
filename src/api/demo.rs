//! `/v1/demo/load`: synthetic load, started and stopped by whoever looks at the demo. Elsewhere there is no such route.

use hyper::StatusCode;

use super::call::{Answer, Call};
use super::declare::{Declared, gives, json};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use crate::load::{Control, Order, Refusal, Status};

/// What the answer about it says of itself.
pub(crate) const STATUS: Declared =
    Declared::new("Operations", "What the demo's synthetic load is at", &[gives::<Status>(200, "What goes on.")])
        .details("Only `mangrove demo` has it.")
        .problems(&[Kind::NoSuchRoute]);

/// What starting says of itself.
pub(crate) const START: Declared = Declared::new("Operations", "Starts synthetic load", &[gives::<Status>(202, "It has begun.")])
    .details("Only `mangrove demo` has it. What is left out of the body is as in the demo.")
    .body(&[json::<Order>()])
    .problems(&[Kind::NoSuchRoute, Kind::LoadRuns, Kind::NotJson, Kind::InvalidRequest, Kind::Internal]);

/// What stopping says of itself.
pub(crate) const STOP: Declared =
    Declared::new("Operations", "Stops synthetic load", &[gives::<Status>(202, "Nothing more is sent.")])
        .details("Only `mangrove demo` has it.")
        .problems(&[Kind::NoSuchRoute]);

fn control(call: &Call) -> Result<&Control, Problem> {
    let control = call.site.api.load.get();
    control.ok_or_else(|| Problem::new(Kind::NoSuchRoute, "only `mangrove demo` makes payments of its own"))
}

/// What goes on.
pub(crate) fn status(call: &Call) -> Answer {
    Ok(Reply::json(StatusCode::OK, &control(call)?.status()))
}

/// Sends nothing more.
pub(crate) fn stop(call: &Call) -> Answer {
    Ok(Reply::json(StatusCode::ACCEPTED, &control(call)?.stop()))
}

/// Starts a load.
pub(crate) fn start(call: &Call) -> Answer {
    let control = control(call)?;
    let order = read(&call.body)?;
    match control.start(order) {
        Ok(status) => Ok(Reply::json(StatusCode::ACCEPTED, &status)),
        Err(Refusal::Running) => {
            Err(Problem::new(Kind::LoadRuns, "stop the load under way first, and let its last payments come back"))
        }
        Err(Refusal::Invalid { field, expected }) => Err(Problem::invalid(field, format!("expected {expected}"))),
        Err(Refusal::Failed(_)) => Err(Problem::new(Kind::Internal, "the load could not be started")),
    }
}

fn read(body: &[u8]) -> Result<Order, Problem> {
    if body.is_empty() {
        return Ok(Order::default());
    }
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::invalid("", "a JSON object is expected"));
    }
    serde_json::from_slice(body).map_err(|why| {
        if why.is_data() {
            let expected = "expected are rate, users, skew, seed, anomalies, late, out_of_order, poison (shares from 0 to 1), bursts \
                            {every_s, for_s, factor}, count and duration_s, each of its own type";
            Problem::invalid("", expected)
        } else {
            Problem::new(Kind::NotJson, "the body is not one well-formed JSON value")
        }
    })
}
