//! Who may ask: bearer tokens with scopes, compared by digest in constant time.
//!
//! Without tokens the interface answers this machine only. The settings see to it that the server listens on loopback then; the
//! peer's address is checked all the same, and so is the name the request was sent to: a web page could point its own name at
//! 127.0.0.1 (DNS rebinding) and read answers through a person's browser.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, WWW_AUTHENTICATE};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::{Kind, Problem};
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

/// Lets the caller in, under its token's name where it has one, or says why not.
pub(crate) fn authorise<'t>(tokens: &'t [ApiToken], access: Access, caller: &Caller<'_>) -> Result<Option<&'t str>, Problem> {
    let Access::Needs(scope) = access else { return Ok(None) };
    if tokens.is_empty() {
        return if is_local(caller) {
            Ok(None)
        } else {
            Err(Problem::new(Kind::NotLocal, "the request is not from this machine to this machine"))
        };
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
    if token.scopes.contains(&scope) {
        return Ok(Some(&token.name));
    }
    let challenge = format!("Bearer realm=\"mangrove\", error=\"insufficient_scope\", scope=\"{scope}\"");
    let challenge = HeaderValue::from_str(&challenge).expect("invariant: made of plain words");
    Err(Problem::new(Kind::Forbidden, format!("the route needs the scope `{scope}`")).with(WWW_AUTHENTICATE, challenge))
}

/// The token in the one `Authorization` header; none where there are several, since parties in between could read another one.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (all.next()?.as_bytes(), all.next()) else { return None };
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

/// The token with this text. Looks at all of them in the same time, whichever it is.
fn find<'t>(tokens: &'t [ApiToken], shown: &[u8]) -> Option<&'t ApiToken> {
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
