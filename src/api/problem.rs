//! Everything that can be wrong with a request, as RFC 9457 has it.
//!
//! A closed set: each problem has a stable name, and its `type` is `/problems/{name}`, where a person finds what it means and
//! what to do. `detail` is made of our own words and of numbers, never of what the caller sent nor of an inner part's error
//! text.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Serialize;

use super::reply::Reply;
use super::standing::Standing;

/// Declares the kinds with their texts, so that none can lack one.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal, $status:ident, $title:literal, $explanation:literal;)+) => {
        /// What is wrong, in kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($(#[doc = $doc])+ $kind,)+ }

        impl Kind {
            /// Every kind.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// The last part of its `type`: stable.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// The status it is answered with.
            pub(crate) const fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)+ }
            }

            /// What it is, in a few words; the same every time.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)+ }
            }

            /// What it means and what to do about it.
            const fn explanation(self) -> &'static str {
                match self { $(Self::$kind => $explanation,)+ }
            }
        }
    };
}

kinds! {
    /// The path's escapes are broken.
    BadPath = "bad-path", BAD_REQUEST, "The path cannot be read",
        "A percent sign in a path must be followed by two hexadecimal digits, and what they spell must be UTF-8.";
    /// A user id that no payment can have.
    InvalidUserId = "invalid-user-id", BAD_REQUEST, "This cannot be a user's id",
        "A user's id has 1 to 256 bytes of UTF-8. In a path it is percent-encoded.";
    /// A parameter of the query that is none.
    InvalidParameter = "invalid-parameter", BAD_REQUEST, "A parameter of the query is wrong",
        "The answer names the parameter and what is expected. Parameters that a route does not know are refused, so that a \
         misspelled one is not passed over.";
    /// The body is not JSON.
    NotJson = "not-json", BAD_REQUEST, "The body is not JSON",
        "The body must be one JSON value in UTF-8.";
    /// The body broke off.
    BrokenBody = "broken-body", BAD_REQUEST, "The body did not arrive whole",
        "The connection or the encoding broke off within the body. Send the request again.";
    /// No token, or an unknown one.
    Unauthorized = "unauthorized", UNAUTHORIZED, "A valid token is needed",
        "Send a token of API_TOKENS as `Authorization: Bearer ...`. `mangrove token new` makes one.";
    /// The token does not open this.
    Forbidden = "forbidden", FORBIDDEN, "The token does not open this route",
        "The token is known but lacks the scope that the answer names. Give it the scope in API_TOKENS, or use another token.";
    /// A page of another origin asks.
    CrossSite = "cross-site", FORBIDDEN, "Another site's page cannot do this",
        "A request that changes something and comes with a session's cookie must come from a page of this very server, and say so by \
         Sec-Fetch-Site or Origin, as browsers do. Programs send a token instead: `Authorization: Bearer ...`.";
    /// Without tokens only this machine is answered.
    NotLocal = "not-local", FORBIDDEN, "Without tokens, only this machine is answered",
        "No API_TOKENS are set, so requests must come from this machine and name it: localhost or a loopback address as Host. \
         This keeps web pages from reaching the interface under a name of their own. Set API_TOKENS to serve others.";
    /// No such path.
    NoSuchRoute = "no-such-route", NOT_FOUND, "There is nothing at this path",
        "Check the path for typing errors and trailing slashes. An instance whose ROLES lack `api` answers probes and metrics only: ask \
         another one.";
    /// The user is unknown.
    NoSuchUser = "no-such-user", NOT_FOUND, "This user has no profile",
        "No payment of this user is committed, or the user was erased. The instance that answers holds the user's partition, and \
         `position` says up to where.";
    /// The partition that a cursor points into has left.
    CursorGone = "cursor-gone", GONE, "The list cannot be continued here",
        "The partition that the cursor points into is no longer on this instance. Begin again without `after`, or ask the \
         instance that has it now: /v1/topology shows which.";
    /// The model is unknown.
    NoSuchModel = "no-such-model", NOT_FOUND, "There is no such model",
        "No version of this id is in the models topic. `GET /v1/models` lists all.";
    /// A topic cannot be read.
    TopicUnreadable = "topic-unreadable", SERVICE_UNAVAILABLE, "The topic cannot be read",
        "The broker does not answer, or refuses. The log has the cause under the request's id; try again.";
    /// The job is unknown.
    NoSuchJob = "no-such-job", NOT_FOUND, "There is no such job",
        "A training is known to the instance that took the order, one of its last hundred, until it ends. A reset or an erasure is known to \
         all, as long as the topics keep its records.";
    /// The verdict is unknown.
    NoSuchVerdict = "no-such-verdict", NOT_FOUND, "There is no such verdict",
        "A verdict's id is the place of its payment: topic, partition and offset. No payment that is still retained lies there; or, of \
         /v1/recent, it is not among the last 20,000 of its partition, and `mangrove tap --from beginning` finds it. A label may name \
         the payment by `tx_id` and `user_id` instead.";
    /// The snooze is unknown.
    NoSuchSnooze = "no-such-snooze", NOT_FOUND, "There is no such snooze",
        "It was never there, or is over. `GET /v1/snoozes` lists those in force.";
    /// The model is not in shadow.
    NoShadow = "no-shadow", NOT_FOUND, "The model is not in shadow",
        "It was never compared with the active model, or that has ended already. `POST /v1/models/{id}/shadow` begins it.";
    /// The model cannot be in shadow now.
    ShadowRefused = "shadow-refused", CONFLICT, "The model cannot go into shadow",
        "The active model has nothing to be compared with, and only a few models are in shadow at once. `detail` says which it is;          `DELETE /v1/models/{id}/shadow` ends one.";
    /// The delivery is unknown.
    NoSuchDelivery = "no-such-delivery", NOT_FOUND, "There is no such delivery",
        "It has arrived, was forgotten, or never was; or nobody is told of anomalies here (NOTIFY_TARGETS). `GET /v1/notifications` lists \
         those that wait and those that were given up.";
    /// Nothing to go back to.
    NoEarlierModel = "no-earlier-model", CONFLICT, "There is no earlier model",
        "Only models that were active can be rolled back to. Promote the one you want.";
    /// An artifact that cannot be used.
    ArtifactUnusable = "artifact-unusable", CONFLICT, "The model's artifact cannot be used",
        "It is missing in MODEL_STORE, damaged, truncated, too large or another model's; `detail` says which. Nothing was changed: the \
         model that was active goes on.";
    /// A load is under way.
    LoadRuns = "load-runs", CONFLICT, "A synthetic load is under way",
        "The demo makes one load at a time. DELETE /v1/demo/load stops the one under way; its status is `stopped` once its last payments \
         came back.";
    /// There is no history to ask.
    NoColdTier = "no-cold-tier", CONFLICT, "No cold tier is set up",
        "What was said of payments is kept in Postgres, and DATABASE_URL names none. Set it, and give an instance the role `projection`: what \
         the topics still hold is written then. The latest verdicts are at /v1/recent/verdicts.";
    /// Postgres does not answer.
    ColdTierUnavailable = "cold-tier-unavailable", SERVICE_UNAVAILABLE, "The cold tier does not answer",
        "Postgres cannot be reached, refuses, or took longer than a question may. Nothing is known of what was asked for. Try again after \
         Retry-After, where a question took too long with a shorter window of time.";
    /// The broker did not take it.
    BrokerUnavailable = "broker-unavailable", SERVICE_UNAVAILABLE, "The broker did not take the record",
        "What was asked for is written to a topic first, and that did not succeed, or not surely. The log has the cause under the \
         request's id. Ask for the present state before trying again.";
    /// One redrive at a time.
    RedriveRuns = "redrive-runs", CONFLICT, "A redrive runs already",
        "Dead letters are redriven by one run at a time: `GET /v1/dead-letters` says when it is over.";
    /// The trail cannot be written.
    AuditUnavailable = "audit-unavailable", SERVICE_UNAVAILABLE, "The request could not be recorded",
        "Each request that changes something is recorded on a topic before it is answered, and the broker did not take this record. What \
         was asked for may be done: ask for the present state before trying again.";
    /// The path is there, the method is not.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "The path does not take this method",
        "The header Allow names the methods it takes.";
    /// The body came too slowly.
    RequestTimeout = "request-timeout", REQUEST_TIMEOUT, "The body did not arrive in time",
        "The body must arrive within a few seconds. Send the request again over a better connection.";
    /// The body is too large.
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large",
        "A body may have 1 MiB, and so may a line of one that is sent in lines; a topic may take less.";
    /// The body is of another type.
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body must be JSON",
        "Send the body with `Content-Type: application/json`; where a route takes lines, with `application/x-ndjson`.";
    /// JSON, but not what is expected.
    InvalidRequest = "invalid-request", UNPROCESSABLE_ENTITY, "The body is not what this route expects",
        "`errors` says what is wrong where: each has a JSON pointer into the body and a detail. The bounds are those of payments \
         in the stream.";
    /// Too much at once.
    TooManyRequests = "too-many-requests", TOO_MANY_REQUESTS, "Too many requests at once",
        "The instance is working on as many requests as it takes. Wait for as long as Retry-After says.";
    /// Too many in a second.
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, "Too many requests in a second",
        "Each token, and each address without one, has HTTP_RATE_LIMIT requests a second. Wait for as long as Retry-After says; many \
         payments go in one request, as an array or in lines.";
    /// A fault of ours.
    Internal = "internal", INTERNAL_SERVER_ERROR, "The request failed",
        "A fault in the program. The log has it under the request's id, which is the problem's `instance`: please report it.";
    /// Another instance passed the request on, and the partition is not here.
    NotHere = "not-here", SERVICE_UNAVAILABLE, "This instance does not hold the user's partition",
        "Another instance passed the request on to this one, which does not have the partition, and a request is passed on only \
         once. Callers see `moving` instead.";
    /// Nobody has the partition.
    Moving = "moving", SERVICE_UNAVAILABLE, "The user's partition is on its way",
        "Each user belongs to one partition, and each partition to one instance at a time. At the moment none is known to have \
         this one: instances came or went, and the group is handing it out. Try again after Retry-After; with `consistency=any` a \
         standby may answer meanwhile.";
    /// The owner of the partition does not answer.
    OwnerUnreachable = "owner-unreachable", SERVICE_UNAVAILABLE, "The owner of the user's partition does not answer",
        "The instance that is known to have the partition gave no answer in time. If it is gone, the group gives the partition to \
         another one once its session times out. Try again after Retry-After; with `consistency=any` a standby may answer meanwhile. If \
         it persists: HTTP_ADVERTISED_ADDR must be an address that the other instances can call.";
    /// Committed state has not reached `min_position`.
    PositionNotReached = "position-not-reached", SERVICE_UNAVAILABLE, "The position that was asked for is not reached yet",
        "`position` says how far committed state is. The offset of `min_position` is a next offset: to read what the record at \
         offset 41 did, ask for 42. Try again after Retry-After, or with a longer `timeout`.";
    /// Transaction ids are being read back.
    IdsNotKnown = "ids-not-known", SERVICE_UNAVAILABLE, "The partition's transaction ids are being read",
        "The instance that remembers which tx_ids came lately is reading them from the topic: it has just started, taken the partition \
         over, or had no answer from the broker. Nothing was written. Try again after Retry-After; payments without a tx_id are taken \
         meanwhile.";
    /// The partition is being brought up to date.
    Restoring = "restoring", SERVICE_UNAVAILABLE, "The user's partition is being restored",
        "The instance is reading the partition's changelog and answers once it is through. Try again after Retry-After; /readyz \
         shows how far it is.";
    /// The store does not answer.
    StateUnavailable = "state-unavailable", SERVICE_UNAVAILABLE, "The state could not be read",
        "The store failed, or the partition was taken away in the middle of the request. Whether the user exists is not known. \
         The log has the cause under the request's id.";
    /// The answer took too long.
    TooSlow = "too-slow", SERVICE_UNAVAILABLE, "The answer took too long",
        "The request was given up after its time limit, most likely for a slow disk. Try again after Retry-After.";
}

/// What a person finds at a problem's `type`.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Explanation {
    #[serde(rename = "type")]
    uri: String,
    title: &'static str,
    status: u16,
    explanation: &'static str,
}

impl Kind {
    /// The kind of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// True where the partition left, or fell back, between the decision to read it and the reading.
    pub(crate) fn is_passing(self) -> bool {
        matches!(self, Self::NotHere | Self::Restoring | Self::PositionNotReached)
    }

    /// `/problems/{name}`.
    pub(crate) fn uri(self) -> String {
        format!("/problems/{}", self.name())
    }

    /// What a person finds at its `type`.
    pub(crate) fn explain(self) -> Reply {
        let (title, status, explanation) = (self.title(), self.status().as_u16(), self.explanation());
        Reply::json(StatusCode::OK, &Explanation { uri: self.uri(), title, status, explanation })
    }
}

/// What is wrong with one part of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct FieldError {
    /// JSON pointer (RFC 6901) into the body.
    pub(crate) pointer: &'static str,
    /// What is wrong there and what is expected.
    pub(crate) detail: Cow<'static, str>,
}

/// One thing wrong with one request.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    /// Boxed, so that a `Result` of something small stays small.
    more: Box<More>,
}

/// What not every problem has.
#[derive(Debug, Default)]
struct More {
    errors: Vec<FieldError>,
    standing: Option<Standing>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What is wrong with one request, as RFC 9457 has it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "problem")]
pub(crate) struct Body<'p> {
    /// The kind: a stable path under which it is explained.
    #[serde(rename = "type")]
    uri: String,
    /// The kind in a few words: the same every time.
    title: &'static str,
    /// The answer's status.
    status: u16,
    /// This occurrence in words.
    detail: &'p str,
    /// The request's id, which the log has.
    instance: &'p str,
    /// What is wrong where in the body.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'p [FieldError],
    #[serde(flatten)]
    standing: Option<&'p Standing>,
}

impl Problem {
    /// A problem with words on this occurrence.
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), more: Box::default() }
    }

    /// What is wrong, in kind.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// A body of which one part is wrong.
    pub(crate) fn invalid(pointer: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut problem = Self::new(Kind::InvalidRequest, "one part of the body is wrong: see `errors`");
        problem.more.errors.push(FieldError { pointer, detail: detail.into() });
        problem
    }

    /// Says which committed state the answer is about.
    pub(crate) fn about(mut self, standing: Standing) -> Self {
        self.more.standing = Some(standing);
        self
    }

    /// With a header.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.more.headers.push((name, value));
        self
    }

    /// With advice on when to try again.
    pub(crate) fn retry_after(self, seconds: u16) -> Self {
        self.with(hyper::header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Its JSON, as part of the answer to the request of that id.
    pub(crate) fn body<'p>(&'p self, request: &'p str) -> impl Serialize + 'p {
        Body {
            uri: self.kind.uri(),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            instance: request,
            errors: &self.more.errors,
            standing: self.more.standing.as_ref(),
        }
    }

    /// The answer to the request of that id.
    pub(crate) fn into_reply(self, request: &str) -> Reply {
        let mut reply = Reply::json(self.kind.status(), &self.body(request)).of_type("application/problem+json");
        for (name, value) in self.more.headers {
            reply = reply.with(name, value);
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_uri() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name()), Some(*kind));
            assert!(kind.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", kind.name());
            assert!(kind.status().is_client_error() || kind.status().is_server_error());
        }
    }
}
