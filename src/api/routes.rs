//! From a request to its answer: the table of routes, and the steps that every request goes through.
//!
//! 1. route: the path's pattern, then the method (404, 405)
//! 2. access: token and scope (401, 403), before anything of the body is read
//! 3. body: only for routes that take one; type (415), size (413), time (408)
//! 4. the handler: from memory on the event loop, or beside it where it reads the store, within a bound on such work (429);
//!    what is about one user is answered by whoever has that user's partition (`anywhere`)
//! 5. what changes something is recorded (`trail`)
//! 6. the answer is counted by route and logged under the request's id
//!
//! A new route is a row of [`ROUTES`], a handler, and what the route says of itself: a constant [`Declared`] beside the handler, joined to
//! the row by `.says(&...)`. `/openapi.json` is made of these; a row without one fails a test, and so does an answer in any test of the
//! interface that its route's declaration does not have (`tests::contract`). A declaration names what is the route's own:
//!
//! ```text
//! const PROFILE: Declared = Declared::new("Users", "A user's profile in people's terms", &[gives::<Shown<'_>>(200, "The profile.")])
//!     .about(USER)                        // what `{}` of the path stands for
//!     .query(&[parameter("limit", Takes::Number(1, 1000), "Users of one page.")])
//!     .body(&[json::<Body>()])            // the types derive schemars::JsonSchema; their doc comments are the descriptions
//!     .problems(&[Kind::NoSuchUser]);     // those of tokens, paths, bodies, time and other instances are added by the kind of route
//! ```
//!
//! A handler of another kind (a stream, say) is a variant of [`Run`]. Nothing but the server imports the table: what reads a row takes
//! a [`Route`].

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;
use tracing::debug;

use super::auth::{Access, Actor, Caller, Gate, authorise};
use super::call::{Answer, Call, NO_ROUTE, READ_MAX, decode, read_body, run_aside};
use super::declare::{Declared, Takes, gives, gives_other, parameter};
use super::problem::{Explanation, Kind, Problem};
use super::rates::Key;
use super::reply::{Content, Reply};
use super::route::{Route, Run, call, delete, get, post};
use super::site::Site;
use super::{
    anywhere, dead_letters, demo, document, erasure, exposition, graph, history, inference, labels, login, models, notifications,
    orders, pages, payments, probes, profile, recent, shadow, stores, stream, trail, train, users,
};
use crate::config::Scope;
use crate::query::ANSWERED_BY;

const QUERY: Access = Access::Needs(Scope::Query);
const WRITE: Access = Access::Needs(Scope::Write);
const ERASE: Access = Access::Needs(Scope::Erase);
const ADMIN: Access = Access::Needs(Scope::Admin);

/// Every route there is.
pub(crate) static ROUTES: &[Route] = &[
    get("/", Access::Open, Run::Here(pages::index)).says(&pages::INDEX_PAGE),
    get("/assets/{}", Access::Open, Run::Here(pages::asset)).says(&pages::ASSET),
    get("/livez", Access::Open, Run::Here(probes::livez)).says(&probes::LIVEZ),
    get("/readyz", Access::Open, Run::Here(probes::readyz)).says(&probes::READYZ),
    get("/startupz", Access::Open, Run::Here(probes::startupz)).says(&probes::STARTUPZ),
    get("/problems/{}", Access::Open, Run::Here(explain_problem)).says(&EXPLAIN_PROBLEM),
    get("/openapi.json", Access::Open, Run::Here(openapi)).says(&OPENAPI),
    get("/schemas/{}", Access::Open, Run::Here(document::schema)).says(&document::SCHEMA),
    get("/docs", Access::Open, Run::Here(document::page)).says(&document::PAGE),
    get("/docs/{}", Access::Open, Run::Here(document::asset)).says(&document::ASSET),
    get("/v1/session", Access::Open, Run::Unread(login::whose)).says(&login::WHOSE),
    post("/v1/session", Access::Open, Run::Unread(login::open)).says(&login::OPEN),
    delete("/v1/session", Access::Open, Run::Unread(login::close)).says(&login::CLOSE),
    get("/metrics", QUERY, Run::Aside(exposition::metrics)).says(&exposition::METRICS),
    get("/v1/health", QUERY, Run::Here(probes::health)).says(&probes::HEALTH),
    get("/v1/topology", QUERY, Run::Waiting(graph::topology)).says(&graph::TOPOLOGY),
    get("/v1/state", QUERY, Run::Aside(stores::state)).says(&stores::STATE),
    get("/v1/state/users", ADMIN, Run::Aside(users::list)).says(&users::LIST),
    get("/v1/users/{}/profile", QUERY, Run::Anywhere(profile::HANDLER)).says(&profile::PROFILE),
    delete("/v1/users/{}/profile", WRITE, Run::Aside(orders::reset)).says(&orders::RESET),
    call("/v1/users/{}/erase", ERASE, Run::Aside(orders::erase)).says(&orders::ERASE),
    get("/v1/jobs/{}", QUERY, Run::AnywhereOf(orders::HANDLER)).says(&orders::JOB),
    get("/v1/erasures/{}", ERASE, Run::AnywhereOf(erasure::HANDLER)).says(&erasure::RECEIPT),
    post("/v1/inference", QUERY, Run::Anywhere(inference::HANDLER)).says(&inference::INFERENCE),
    get("/v1/live", QUERY, Run::Aside(recent::figures)).says(&recent::FIGURES),
    get("/v1/stream/verdicts", QUERY, Run::Waiting(stream::verdicts)).says(&stream::VERDICTS),
    get("/v1/recent/verdicts", QUERY, Run::Aside(recent::list)).says(&recent::LIST),
    get("/v1/recent/verdicts/{}", QUERY, Run::Aside(recent::show)).says(&recent::SHOW),
    get("/v1/verdicts", QUERY, Run::Waiting(history::verdicts)).says(&history::VERDICTS),
    get("/v1/verdicts/{}", QUERY, Run::Waiting(history::show)).says(&history::SHOW),
    get("/v1/anomalies", QUERY, Run::Waiting(history::anomalies)).says(&history::ANOMALIES),
    get("/v1/users/{}/verdicts", QUERY, Run::Waiting(history::of_user)).says(&history::OF_ONE),
    get("/v1/dead-letters", QUERY, Run::Aside(dead_letters::show)).says(&dead_letters::SHOW),
    call("/v1/dead-letters/redrive", ADMIN, Run::Aside(dead_letters::redrive)).says(&dead_letters::REDRIVE),
    post("/v1/transactions", WRITE, Run::Unread(payments::take)).says(&payments::TAKE),
    post("/tx", WRITE, Run::Unread(payments::take)).says(&payments::TAKE),
    get("/v1/models", QUERY, Run::Here(models::list)).says(&models::LIST),
    get("/v1/models/{}", QUERY, Run::Here(models::show)).says(&models::SHOW),
    call("/v1/models/{}/promote", ADMIN, Run::Aside(models::promote)).says(&models::PROMOTE),
    get("/v1/models/{}/shadow", QUERY, Run::Here(shadow::show)).says(&shadow::SHOW),
    call("/v1/models/{}/shadow", ADMIN, Run::Aside(shadow::begin)).says(&shadow::BEGIN),
    delete("/v1/models/{}/shadow", ADMIN, Run::Aside(shadow::end)).says(&shadow::END),
    call("/v1/models/rollback", ADMIN, Run::Aside(models::roll_back)).says(&models::ROLL_BACK),
    call("/v1/train", ADMIN, Run::Here(train::order)).says(&train::ORDER),
    get("/v1/train/{}", QUERY, Run::Here(train::job)).says(&train::JOB),
    get("/v1/retrain/status", QUERY, Run::Here(train::retrain_status)).says(&train::RETRAIN_STATUS),
    call("/v1/retrain/trigger", ADMIN, Run::Aside(train::trigger)).says(&train::TRIGGER),
    post("/v1/labels", WRITE, Run::Aside(labels::label)).says(&labels::LABEL),
    get("/v1/quality", QUERY, Run::Aside(labels::quality)).says(&labels::QUALITY),
    post("/v1/snoozes", WRITE, Run::Aside(labels::snooze)).says(&labels::SNOOZE),
    get("/v1/snoozes", QUERY, Run::Here(labels::list_snoozes)).says(&labels::LIST_SNOOZES),
    delete("/v1/snoozes/{}", WRITE, Run::Aside(labels::end_snooze)).says(&labels::END_SNOOZE),
    get("/v1/demo/load", QUERY, Run::Here(demo::status)).says(&demo::STATUS),
    call("/v1/demo/load", ADMIN, Run::Aside(demo::start)).says(&demo::START),
    delete("/v1/demo/load", ADMIN, Run::Here(demo::stop)).says(&demo::STOP),
    get("/v1/notifications", QUERY, Run::Here(notifications::list)).says(&notifications::LIST),
    call("/v1/notifications/{}/resend", ADMIN, Run::Aside(notifications::resend)).says(&notifications::RESEND),
];

/// What every instance answers to anyone, whatever its roles.
const EVERYWHERE: [&str; 6] = ["/livez", "/readyz", "/startupz", "/problems/{}", "/metrics", "/v1/health"];

/// Answers a request, whatever it is.
pub(crate) async fn answer(site: Arc<Site>, request: Request<Incoming>, peer: IpAddr) -> Response<Content> {
    let began_us = site.api.clock.monotonic_us();
    let call = Call::new(&site, &request, peer);
    let (id, method, hop) = (call.request.clone(), call.method.clone(), call.hop);
    let found = find(&call.method, request.uri().path());
    let (route, answer) = match found.and_then(|found| serves(&site, found.0.path, hop).map(|()| found)) {
        Err(problem) => (NO_ROUTE, Err(problem)),
        Ok((route, name)) => {
            let name = decode(name).map(Cow::into_owned);
            let answer = match name {
                Ok(name) => handle(route, request, Call { name, route: route.path, ..call }).await,
                Err(problem) => Err(problem),
            };
            (route.path, answer)
        }
    };
    let reply = answer.unwrap_or_else(|problem| problem.into_reply(&id));
    let micros = site.api.clock.monotonic_us().saturating_sub(began_us);
    let status = reply.status().as_u16();
    site.tally.add(route, status, micros);
    debug!(request = id, method = method.as_str(), route, status, micros, hop, "answered");
    let mut response = reply.into_response(&id);
    if site.secure() {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    if hop && let Ok(instance) = HeaderValue::from_str(&site.api.instance) {
        response.headers_mut().insert(ANSWERED_BY, instance);
    }
    response
}

/// Whether the instance's roles have it answer this route.
fn serves(site: &Site, route: &str, hop: bool) -> Result<(), Problem> {
    if !site.peers_only || hop || EVERYWHERE.contains(&route) {
        return Ok(());
    }
    let detail =
        "this instance does not play the role `api`: besides probes, /metrics and /v1/health it answers other instances only";
    Err(Problem::new(Kind::NoSuchRoute, detail))
}

/// The route of a request, with what stands for its placeholder as it came.
pub(crate) fn find<'p>(method: &Method, path: &'p str) -> Result<(&'static Route, &'p str), Problem> {
    // The server cuts the body off an answer to HEAD; all else is as for GET.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut allowed: Vec<&str> = Vec::new();
    // A path that is spelled out is not what a placeholder stands for.
    let is_spelled_out = ROUTES.iter().any(|route| route.path == path);
    for route in ROUTES.iter().filter(|route| !is_spelled_out || route.path == path) {
        let Some(name) = matched(route.path, path) else { continue };
        if route.method == *method {
            return Ok((route, name));
        }
        allowed.push(route.method.as_str());
        if route.method == Method::GET {
            allowed.push("HEAD");
        }
    }
    if allowed.is_empty() {
        return Err(Problem::new(Kind::NoSuchRoute, "no route has this path"));
    }
    let allow = HeaderValue::from_str(&allowed.join(", ")).expect("invariant: methods are plain words");
    Err(Problem::new(Kind::MethodNotAllowed, "the path takes other methods: see the header Allow").with(ALLOW, allow))
}

/// What stands for the placeholder where the path is of this pattern; empty where the pattern has none.
fn matched<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, after)) = pattern.split_once("{}") else {
        return (pattern == path).then_some("");
    };
    let name = path.strip_prefix(before)?.strip_suffix(after)?;
    (!name.contains('/')).then_some(name)
}

/// Steps 2 to 4.
async fn handle(route: &'static Route, request: Request<Incoming>, mut call: Call) -> Answer {
    enter(route, &request, &mut call)?;
    let recorded = trail::is_recorded(route).then(|| call.clone());
    let answer = run(route, request, call).await;
    match recorded {
        Some(call) => trail::close(route, &call, answer).await,
        None => answer,
    }
}

/// Steps 3 and 4.
async fn run(route: &'static Route, request: Request<Incoming>, mut call: Call) -> Answer {
    if let Run::Unread(handler) = route.run {
        return handler(call, request).await;
    }
    if route.method == Method::POST {
        let absent = route.bodiless && request.body().is_end_stream();
        if !absent {
            call.body = read_body(request).await?;
        }
    }
    match route.run {
        Run::Here(handler) => handler(&call),
        Run::Aside(handler) => run_aside(call, READ_MAX, handler).await,
        Run::Waiting(handler) => handler(call).await,
        Run::Anywhere(handler) => anywhere::answer(call, handler).await,
        Run::AnywhereOf(handler) => anywhere::answer_of_partition(call, handler).await,
        Run::Unread(_) => unreachable!("taken above, with the body"),
    }
}

/// Step 2.
fn enter(route: &'static Route, request: &Request<Incoming>, call: &mut Call) -> Result<(), Problem> {
    let site = &call.site;
    let caller = Caller { peer: call.peer, target_host: request.uri().host(), headers: request.headers() };
    let now_ms = site.api.clock.now_ms();
    let gate = Gate { tokens: &site.tokens, sessions: &site.sessions, secure: site.secure(), now_ms };
    let entered = authorise(&gate, route.access, request.method(), &caller);
    // Probes are never refused; who shows a wrong token counts by address.
    let name = entered.as_ref().ok().and_then(|actor| actor.name.clone());
    if route.access != Access::Open || !request.method().is_safe() {
        let key = name.map_or_else(|| Key::of(call.peer), Key::Token);
        site.rates.take(key, site.api.clock.monotonic_us()).map_err(|wait| {
            let seconds = u16::try_from(wait.as_secs() + 1).unwrap_or(u16::MAX);
            Problem::new(Kind::RateLimited, "this caller's requests of this second are used up").retry_after(seconds)
        })?;
    }
    let Actor { name, authorization } = entered?;
    call.actor = name;
    if authorization.is_some() {
        call.authorization = authorization;
    }
    Ok(())
}

const OPENAPI: Declared =
    Declared::new("Interface", "This document", &[gives_other(200, "application/json", "OpenAPI 3.1, made from the code.")]);

/// The document of every route: the same for every instance of this version.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document::of(ROUTES));
    &DOCUMENT
}

fn openapi(_: &Call) -> Answer {
    Ok(Reply::json(StatusCode::OK, document()))
}

const EXPLAIN_PROBLEM: Declared =
    Declared::new("Interface", "What a kind of problem means, and what to do", &[gives::<Explanation>(200, "The explanation.")])
        .about(parameter("name", Takes::Text(64), "The last part of a problem's `type`."))
        .problems(&[Kind::NoSuchRoute]);

fn explain_problem(call: &Call) -> Answer {
    let kind = Kind::named(&call.name).ok_or_else(|| Problem::new(Kind::NoSuchRoute, "no problem has this name"))?;
    Ok(kind.explain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_segments() {
        assert_eq!(matched("/v1/users/{}/profile", "/v1/users/u1/profile"), Some("u1"));
        assert_eq!(matched("/v1/users/{}/profile", "/v1/users//profile"), Some(""));
        assert_eq!(matched("/v1/users/{}/profile", "/v1/users/a%2Fb/profile"), Some("a%2Fb"));
        for path in ["/v1/users/a/b/profile", "/v1/users/profile", "/v1/users/u1/profile/", "/v1/users/u1", "", "*"] {
            assert_eq!(matched("/v1/users/{}/profile", path), None, "{path}");
        }
        assert_eq!(matched("/livez", "/livez"), Some(""));
        assert_eq!(matched("/livez", "/livez/"), None);
    }

    #[test]
    fn escapes_are_decoded_strictly() {
        let ok = |segment| decode(segment).ok().map(Cow::into_owned);
        assert_eq!(ok("a%2Fb%20c+%C3%A4"), Some("a/b c+ä".to_owned()));
        assert_eq!(ok("plain"), Some("plain".to_owned()));
        for broken in ["%", "%2", "%zz", "%+1", "a%", "%ff", "%C3"] {
            assert_eq!(ok(broken), None, "{broken}");
        }
    }
}
