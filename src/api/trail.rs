//! The audit trail: who asked for a change, of what, and what came of it; one record of JSON on `<app>-audit` for each request that
//! changes something, durable before the request is answered.
//!
//! ```text
//! {at, request, instance, actor, address, method, route, status, user?, payments?}
//! ```
//! `at` is milliseconds since the epoch, `actor` the token's name (null where no token is asked for), `route` the pattern, `user` a keyed
//! hash (USER_HASH_KEY), `payments` how many the request held. Of a payment, `status` 202 says that it was taken: its record and this
//! one are written together, and acknowledged together.
//!
//! Requests that were let in are recorded, whatever came of them; those that were not are logged only, so that strangers cannot fill the
//! topic. Where the record of something that was done cannot be written the answer is `audit-unavailable`; a refusal stays as it is.

use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use tokio::time::timeout;
use tracing::error;

use super::auth::Access;
use super::call::{Answer, Call};
use super::problem::{Kind, Problem};
use super::route::Route;
use crate::config::Scope;

/// For the broker to acknowledge a record.
const ACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
const RETRY_S: u16 = 1;

/// One record.
#[derive(Serialize)]
struct Record<'r> {
    at: i64,
    request: &'r str,
    instance: &'r str,
    actor: Option<&'r str>,
    address: String,
    method: &'r str,
    route: &'r str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payments: Option<usize>,
}

/// What is particular to a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About<'a> {
    pub(super) status: u16,
    pub(super) user: Option<&'a str>,
    pub(super) payments: Option<usize>,
}

/// True where requests to the route are recorded.
pub(super) fn is_recorded(route: &Route) -> bool {
    let changes = matches!(route.access, Access::Needs(Scope::Write | Scope::Erase | Scope::Admin));
    changes && route.method != Method::GET
}

/// The bytes of a request's record.
pub(super) fn record(call: &Call, about: About<'_>) -> Vec<u8> {
    let site = &*call.site;
    let record = Record {
        at: site.api.clock.now_ms(),
        request: &call.request,
        instance: &site.api.instance,
        actor: call.actor.as_deref(),
        address: call.peer.to_string(),
        method: call.method.as_str(),
        route: call.route,
        status: about.status,
        user: about.user.map(|user| site.hash_of(user)),
        payments: about.payments,
    };
    serde_json::to_vec(&record).expect("invariant: our own shapes have text keys and plain values")
}

/// Writes the record of a request that has one, unless its handler did or another instance does.
pub(super) async fn close(route: &Route, call: &Call, answer: Answer) -> Answer {
    if call.recorded.get() {
        return answer;
    }
    let status = match &answer {
        Ok(reply) => reply.status(),
        Err(problem) => problem.kind().status(),
    };
    let of_user = route.path.starts_with("/v1/users/{}").then_some(call.name.as_str());
    let about = About { status: status.as_u16(), user: of_user, payments: None };
    match write(call, about).await {
        Err(unrecorded) if answer.is_ok() => Err(unrecorded),
        _ => answer,
    }
}

/// Writes a record and waits until it is durable.
pub(super) async fn write(call: &Call, about: About<'_>) -> Result<(), Problem> {
    call.recorded.set();
    let unavailable = |why: &'static str| {
        error!(request = call.request, route = call.route, status = about.status, why, "a change could not be recorded");
        Problem::new(Kind::AuditUnavailable, "the request's record could not be written").retry_after(RETRY_S)
    };
    let submitted = call.site.api.ingest.record(record(call, about)).map_err(|_| unavailable("the broker does not keep up"))?;
    match timeout(ACKNOWLEDGED_MAX, submitted).await {
        Ok(Ok(answer)) if answer.recorded => Ok(()),
        _ => Err(unavailable("the broker does not acknowledge it")),
    }
}
