//! `/v1/session`: a page exchanges a token for a cookie that no script can read, and gives it back.
//!
//! `POST` takes `{"token": "..."}` (or `Authorization: Bearer`) and sets the cookie: HttpOnly, SameSite=Strict, and Secure under the name
//! `__Host-mangrove_session` where the server speaks TLS. `GET` says whether a token is needed and whose session it is. `DELETE` ends it.

use hyper::body::Incoming;
use hyper::header::{HeaderValue, SET_COOKIE};
use hyper::{Request, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::{self, Caller, Origin};
use super::call::{Call, Coming, read_body};
use super::declare::{Declared, Given, gives, json};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::sessions::{KEPT, Session, set_cookie};
use crate::config::Scope;
use crate::portrait::rfc3339;

/// Whose session it is, and what it may do.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "session")]
struct Shown<'s> {
    /// Whether the server asks for a token at all.
    token_needed: bool,
    /// The token's name; null where there is no session.
    name: Option<&'s str>,
    scopes: Vec<String>,
    ends_at: Option<String>,
}

fn show(call: &Call, session: Option<&Session>) -> Reply {
    let tokens = &call.site.tokens;
    let token = session.and_then(|session| tokens.iter().find(|token| token.name == session.name));
    let all: Vec<Scope> = match token {
        Some(token) => token.scopes.iter().copied().collect(),
        None if tokens.is_empty() => vec![Scope::Query, Scope::Write, Scope::Erase, Scope::Admin],
        None => Vec::new(),
    };
    let shown = Shown {
        token_needed: !tokens.is_empty(),
        name: session.map(|session| session.name.as_str()),
        scopes: all.iter().map(ToString::to_string).collect(),
        ends_at: session.and_then(|session| rfc3339(session.ends_ms)),
    };
    Reply::json(StatusCode::OK, &shown)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "session_order")]
struct Body {
    /// A token of API_TOKENS.
    token: String,
}

const SESSION: [Given; 1] = [gives::<Shown<'_>>(200, "Whose session it is, and what it may do.")];

/// What the route says of itself.
pub(crate) const WHOSE: Declared = Declared::new("Sessions", "Whose session this is", &SESSION);

/// What the route says of itself.
pub(crate) const OPEN: Declared = Declared::new("Sessions", "Exchanges a token for a cookie", &SESSION)
    .details("For pages: the cookie is HttpOnly and SameSite=Strict. The token may come as `Authorization` instead.")
    .body(&[json::<Body>()])
    .problems(&[Kind::Unauthorized]);

/// What the route says of itself.
pub(crate) const CLOSE: Declared = Declared::new("Sessions", "Ends the session", &SESSION);

/// Says whose session it is.
pub(crate) fn whose(call: Call, request: Request<Incoming>) -> Coming {
    Box::pin(async move {
        let session = call.site.sessions.find(request.headers(), call.site.secure(), call.site.api.clock.now_ms());
        Ok(show(&call, session.as_ref()))
    })
}

/// Exchanges a token for a cookie.
pub(crate) fn open(call: Call, request: Request<Incoming>) -> Coming {
    Box::pin(async move {
        refuse_other_sites(&call, &request)?;
        let site = &call.site;
        if site.tokens.is_empty() {
            return Ok(show(&call, None));
        }
        let shown = match auth::bearer(request.headers()).map(<[u8]>::to_vec) {
            Some(shown) => shown,
            None => {
                let body = read_body(request).await?;
                let expected = || Problem::invalid("/token", "an object with the token, a string, is expected");
                // A sequence would pass for it.
                let object = body.trim_ascii_start().first() == Some(&b'{');
                let body = serde_json::from_slice::<Body>(&body).ok().filter(|_| object).ok_or_else(expected)?;
                body.token.trim().as_bytes().to_vec()
            }
        };
        let unknown = || Problem::new(Kind::Unauthorized, "the token is not known");
        let token = auth::find(&site.tokens, &shown).ok_or_else(unknown)?;
        let mut authorization = HeaderValue::from_bytes(&[b"Bearer ", shown.as_slice()].concat()).map_err(|_| unknown())?;
        authorization.set_sensitive(true);
        let (cookie, session) = site.sessions.open(&token.name, authorization, site.api.clock.now_ms());
        Ok(show(&call, Some(&session)).with(SET_COOKIE, set_cookie(site.secure(), &cookie, KEPT.as_secs())))
    })
}

/// Ends the session.
pub(crate) fn close(call: Call, request: Request<Incoming>) -> Coming {
    Box::pin(async move {
        refuse_other_sites(&call, &request)?;
        call.site.sessions.close(request.headers(), call.site.secure());
        Ok(show(&call, None).with(SET_COOKIE, set_cookie(call.site.secure(), "", 0)))
    })
}

/// Nobody is logged in or out by a page of somebody else's.
fn refuse_other_sites(call: &Call, request: &Request<Incoming>) -> Result<(), Problem> {
    let caller = Caller { peer: call.peer, target_host: request.uri().host(), headers: request.headers() };
    if caller.origin() == Origin::Other { Err(auth::cross_site()) } else { Ok(()) }
}
