//! Who may ask: bearer tokens with scopes, compared by digest in constant time, or the cookie of a session that a token opened.
//!
//! A browser sends a cookie along with whatever page asks. So a request that changes something and comes by cookie must say that it comes
//! from this very origin (`Sec-Fetch-Site`, or `Origin` beside `Host`); SameSite=Strict keeps the cookie from all others' in the first place.
//! Without tokens there is no cookie, yet a browser on this machine would do: there, what says that it comes from elsewhere is refused.
//!
//! Without tokens the interface answers this machine only. The settings see to it that the server listens on loopback then; the
//! peer's address is checked all the same, and so is the name the request was sent to: a web page could point its own name at
//! 127.0.0.1 (DNS rebinding) and read answers through a person's browser.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::{Kind, Problem};
use super::sessions::Sessions;
use crate::config::{ApiToken, Scope};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: for probes, which have no token, and for explanations.
    Open,
    /// A token of this scope.
    Needs(Scope),
}

/// What is known of a caller before it has shown a token.
pub(crate) struct Caller<'r> {
    /// Its address.
    pub(crate) peer: IpAddr,
    /// The host in the request's target, where that is a whole URL.
    pub(crate) target_host: Option<&'r str>,
    /// The request's headers.
    pub(crate) headers: &'r HeaderMap,
}

/// Where a request says that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A page of this very server.
    Same,
    /// Somebody else's page.
    Other,
    /// It does not say: no browser of today.
    Unsaid,
}

impl Caller<'_> {
    /// Where the request says that it comes from. No page can make its browser say otherwise.
    pub(crate) fn origin(&self) -> Origin {
        let is_same = |same| if same { Origin::Same } else { Origin::Other };
        if let Some(site) = self.headers.get("sec-fetch-site") {
            return is_same(site == "same-origin");
        }
        let Some(origin) = self.headers.get(ORIGIN) else { return Origin::Unsaid };
        let host = self.headers.get(HOST).and_then(|host| host.to_str().ok());
        let of = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        is_same(of.is_some() && of == host)
    }
}

/// A page of another origin asks.
pub(crate) fn cross_site() -> Problem {
    Problem::new(Kind::CrossSite, "the request does not come from a page of this server")
}

/// Who was let in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Actor {
    /// The token's name; none where no token is asked for.
    pub(crate) name: Option<String>,
    /// What other instances are shown instead of a cookie.
    pub(crate) authorization: Option<HeaderValue>,
}

/// What callers are held against.
pub(crate) struct Gate<'g> {
    pub(crate) tokens: &'g [ApiToken],
    pub(crate) sessions: &'g Sessions,
    /// The server speaks TLS.
    pub(crate) secure: bool,
    pub(crate) now_ms: i64,
}

/// Lets the caller in, under its token's name where it has one, or says why not.
pub(crate) fn authorise(gate: &Gate<'_>, access: Access, method: &Method, caller: &Caller<'_>) -> Result<Actor, Problem> {
    let Access::Needs(scope) = access else { return Ok(Actor::default()) };
    let (tokens, changes) = (gate.tokens, !method.is_safe());
    if tokens.is_empty() {
        if !is_local(caller) {
            return Err(Problem::new(Kind::NotLocal, "the request is not from this machine to this machine"));
        }
        return if changes && caller.origin() == Origin::Other { Err(cross_site()) } else { Ok(Actor::default()) };
    }
    if !caller.headers.contains_key(AUTHORIZATION)
        && let Some(session) = gate.sessions.find(caller.headers, gate.secure, gate.now_ms)
    {
        if changes && caller.origin() != Origin::Same {
            return Err(cross_site());
        }
        let token = tokens.iter().find(|token| token.name == session.name);
        let token = token.ok_or_else(|| Problem::new(Kind::Unauthorized, "the session's token is gone"))?;
        admit(token, scope)?;
        return Ok(Actor { name: Some(session.name), authorization: Some(session.authorization) });
    }
    let challenge = |detail, challenge: &'static str| {
        Problem::new(Kind::Unauthorized, detail).with(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    };
    let Some(shown) = bearer(caller.headers) else {
        return Err(challenge("the request has no bearer token", "Bearer realm=\"mangrove\""));
    };
    let Some(token) = find(tokens, shown) else {
        return Err(challenge("the token is not known", "Bearer realm=\"mangrove\", error=\"invalid_token\""));
    };
    admit(token, scope)?;
    Ok(Actor { name: Some(token.name.clone()), authorization: None })
}

/// Whether the token opens what needs this scope.
fn admit(token: &ApiToken, scope: Scope) -> Result<(), Problem> {
    if token.scopes.contains(&scope) {
        return Ok(());
    }
    let challenge = format!("Bearer realm=\"mangrove\", error=\"insufficient_scope\", scope=\"{scope}\"");
    let challenge = HeaderValue::from_str(&challenge).expect("invariant: made of plain words");
    Err(Problem::new(Kind::Forbidden, format!("the route needs the scope `{scope}`")).with(WWW_AUTHENTICATE, challenge))
}

/// The token in the one `Authorization` header; none where there are several, since parties in between could read another one.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (all.next()?.as_bytes(), all.next()) else { return None };
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

/// The token with this text. Looks at all of them in the same time, whichever it is.
pub(crate) fn find<'t>(tokens: &'t [ApiToken], shown: &[u8]) -> Option<&'t ApiToken> {
    let digest: [u8; 32] = Sha256::digest(shown).into();
    let mut found = None;
    for token in tokens {
        if bool::from(token.sha256.ct_eq(&digest)) {
            found = Some(token);
        }
    }
    found
}

fn is_local(caller: &Caller<'_>) -> bool {
    let host = match caller.target_host {
        Some(host) => Some(host),
        // A Host that is no text is not this machine's name.
        None => caller.headers.get(HOST).map(|host| host.to_str().map_or("", without_port)),
    };
    caller.peer.to_canonical().is_loopback() && host.is_none_or(names_this_machine)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn names_this_machine(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000", "127.9.9.9"] {
            assert!(names_this_machine(without_port(host)), "{host}");
        }
        for host in ["", "example.com", "localhost.example.com", "10.0.0.1:8000", "127.0.0.1.nip.io", "[::2]:1", "0.0.0.0"] {
            assert!(!names_this_machine(without_port(host)), "{host}");
        }
    }

    #[test]
    fn a_bearer_token_is_read_strictly() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a header"));
            }
            bearer(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(read(&["Bearer abc"]), Some(b"abc".to_vec()));
        assert_eq!(read(&["bearer  abc "]), Some(b"abc".to_vec()));
        for none in [&[][..], &["Bearer"], &["Bearer "], &["Basic abc"], &["abc"], &["Bearer a", "Bearer b"]] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }
}
