//! `GET /v1/users/{id}/profile`: a user's profile in people's terms.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::anywhere::Handler;
use super::call::{Answer, Call};
use super::committed::Committed;
use super::declare::{Declared, USER, gives};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::standing::Standing;
use crate::portrait::{Portrait, currency};

/// The answer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "profile")]
struct Shown<'p> {
    #[serde(flatten)]
    portrait: Portrait<'p>,
    #[serde(flatten)]
    standing: &'p Standing,
}

/// What the route says of itself.
pub(crate) const PROFILE: Declared = Declared::new(
    "Users",
    "A user's profile in people's terms",
    &[gives::<Shown<'_>>(200, "The committed profile, and where it stands.")],
)
.about(USER)
.problems(&[Kind::NoSuchUser]);

/// The route.
pub(crate) const HANDLER: Handler = Handler { user: |call| Ok(call.name.clone()), answer: profile };

fn profile(call: &Call, Committed { profile, standing }: Committed) -> Answer {
    let Some(profile) = profile else {
        return Err(Problem::new(Kind::NoSuchUser, "the user's partition has no such user").about(standing));
    };
    let portrait = Portrait::of(&call.name, &profile.0, currency(&call.site.api.params));
    Ok(Reply::json(StatusCode::OK, &Shown { portrait, standing: &standing }))
}
