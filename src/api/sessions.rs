//! `/v1/session`: a page exchanges a token for a cookie that no script can read, and gives it back.
//!
//! `POST` takes `{"token": "..."}` (or `Authorization: Bearer`) and sets the cookie: HttpOnly, SameSite=Strict, and Secure under the name
//! `__Host-mangrove_session` where the server speaks TLS. `GET` says whether a token is needed and whose session it is. `DELETE` ends it.
//!
//! The cookie is a random number and nothing else. The session is in this instance's memory, for [`KEPT`] at most and never longer than
//! the process: a stolen file of settings opens none, a logout ends one at once, and a session opened here is unknown at other instances.
//! A request that changes something and comes by cookie must come from the very page's origin: see `auth`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{COOKIE, HeaderValue, SET_COOKIE};
use hyper::{HeaderMap, Request, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::auth::{self, Caller, Origin};
use super::call::{Call, Coming, read_body};
use super::document::{Declared, Given, gives, json};
use super::problem::{Kind, Problem};
use super::profile::rfc3339;
use super::reply::Reply;
use crate::config::Scope;
use crate::random::secret;

/// The longest that a session lasts.
const KEPT: Duration = Duration::from_secs(12 * 3_600);
/// Sessions at once; the one that ends first gives way.
const SESSIONS_MAX: usize = 1_000;
const NAME: &str = "mangrove_session";
/// Browsers take a cookie of this name only with Secure, without Domain and for the whole site: nobody else can have set it.
const NAME_TLS: &str = "__Host-mangrove_session";

/// Somebody's session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The token's name.
    pub(crate) name: String,
    /// What other instances are shown of it.
    pub(crate) authorization: HeaderValue,
    ends_ms: i64,
}

/// See the module's header. Kept by the digest of the cookie: looking one up tells nothing by the time it takes.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<[u8; 32], Session>>);

impl Sessions {
    /// The session of a request's cookie.
    pub(crate) fn find(&self, headers: &HeaderMap, secure: bool, now_ms: i64) -> Option<Session> {
        let cookie = cookie(headers, secure)?;
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&digest(cookie)).filter(|session| now_ms < session.ends_ms).cloned()
    }

    fn open(&self, name: &str, authorization: HeaderValue, now_ms: i64) -> String {
        let cookie: String = secret().iter().map(|byte| format!("{byte:02x}")).collect();
        let ends_ms = now_ms.saturating_add(KEPT.as_millis() as i64);
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| now_ms < session.ends_ms);
        if sessions.len() >= SESSIONS_MAX
            && let Some(first) = sessions.iter().min_by_key(|(_, session)| session.ends_ms).map(|(of, _)| *of)
        {
            sessions.remove(&first);
        }
        sessions.insert(digest(&cookie), Session { name: name.to_owned(), authorization, ends_ms });
        cookie
    }

    fn close(&self, headers: &HeaderMap, secure: bool) {
        if let Some(cookie) = cookie(headers, secure) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest(cookie));
        }
    }
}

fn digest(cookie: &str) -> [u8; 32] {
    Sha256::digest(cookie).into()
}

/// The session's cookie; none where there are several, since somebody else may have set one of them.
fn cookie(headers: &HeaderMap, secure: bool) -> Option<&str> {
    let wanted = name(secure);
    let pairs = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
    let mut values =
        pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == wanted).map(|(_, value)| value);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

fn name(secure: bool) -> &'static str {
    if secure { NAME_TLS } else { NAME }
}

fn set_cookie(secure: bool, value: &str, seconds: u64) -> HeaderValue {
    let flag = if secure { "; Secure" } else { "" };
    let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{flag}", name(secure));
    HeaderValue::from_str(&text).expect("invariant: made of plain words and hexadecimal digits")
}

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
        let now_ms = site.api.clock.now_ms();
        let cookie = site.sessions.open(&token.name, authorization.clone(), now_ms);
        let session =
            Session { name: token.name.clone(), authorization, ends_ms: now_ms.saturating_add(KEPT.as_millis() as i64) };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cookies: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in cookies {
            headers.append(COOKIE, HeaderValue::from_str(line).expect("a header"));
        }
        headers
    }

    #[test]
    fn one_cookie_of_the_name_is_taken_and_no_other() {
        assert_eq!(cookie(&with(&["a=1; mangrove_session=x; b=2"]), false), Some("x"));
        assert_eq!(cookie(&with(&["a=1", "mangrove_session=x"]), false), Some("x"));
        for none in
            [&["a=1"][..], &["mangrove_session=x; mangrove_session=y"], &["mangrove_session=x", "mangrove_session=x"], &[]]
        {
            assert_eq!(cookie(&with(none), false), None, "{none:?}");
        }
        assert_eq!(cookie(&with(&["mangrove_session=x"]), true), None, "under TLS only the name that nobody else can set");
        assert_eq!(cookie(&with(&["__Host-mangrove_session=x"]), true), Some("x"));
    }

    #[test]
    fn sessions_end_and_make_way() {
        let (sessions, authorization) = (Sessions::default(), HeaderValue::from_static("Bearer t"));
        let of = |cookie: &str| with(&[&format!("mangrove_session={cookie}")]);
        let first = sessions.open("a", authorization.clone(), 0);
        assert_eq!(first.len(), 64);
        assert_eq!(sessions.find(&of(&first), false, 1).map(|session| session.name), Some("a".to_owned()));
        assert!(sessions.find(&of(&first), false, KEPT.as_millis() as i64).is_none(), "its time is over");
        let others: Vec<String> = (0..SESSIONS_MAX).map(|n| sessions.open("b", authorization.clone(), n as i64 + 1)).collect();
        assert!(sessions.find(&of(&first), false, 2).is_none(), "the oldest made way");
        assert!(sessions.find(&of(&others[0]), false, 2).is_some());
        sessions.close(&of(&others[0]), false);
        assert!(sessions.find(&of(&others[0]), false, 2).is_none());
    }
}
