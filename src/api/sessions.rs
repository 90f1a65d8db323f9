//! Sessions that tokens opened: who a cookie stands for.
//!
//! The cookie is a random number and nothing else. The session is in this instance's memory, for [`KEPT`] at most and never longer than
//! the process: a stolen file of settings opens none, a logout ends one at once, and a session opened here is unknown at other instances.
//! A request that changes something and comes by cookie must come from the very page's origin: see `auth`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{COOKIE, HeaderValue};
use sha2::{Digest, Sha256};

use crate::random::secret;

/// The longest that a session lasts.
pub(crate) const KEPT: Duration = Duration::from_secs(12 * 3_600);
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
    pub(crate) ends_ms: i64,
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

    /// Opens a session under that token's name: its cookie, and the session.
    pub(crate) fn open(&self, name: &str, authorization: HeaderValue, now_ms: i64) -> (String, Session) {
        let cookie: String = secret().iter().map(|byte| format!("{byte:02x}")).collect();
        let ends_ms = now_ms.saturating_add(KEPT.as_millis() as i64);
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| now_ms < session.ends_ms);
        if sessions.len() >= SESSIONS_MAX
            && let Some(first) = sessions.iter().min_by_key(|(_, session)| session.ends_ms).map(|(of, _)| *of)
        {
            sessions.remove(&first);
        }
        let session = Session { name: name.to_owned(), authorization, ends_ms };
        sessions.insert(digest(&cookie), session.clone());
        (cookie, session)
    }

    /// Ends the session of a request's cookie.
    pub(crate) fn close(&self, headers: &HeaderMap, secure: bool) {
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

/// The header that gives the cookie for so many seconds; with 0 it takes it away.
pub(crate) fn set_cookie(secure: bool, value: &str, seconds: u64) -> HeaderValue {
    let flag = if secure { "; Secure" } else { "" };
    let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{flag}", name(secure));
    HeaderValue::from_str(&text).expect("invariant: made of plain words and hexadecimal digits")
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
        let open = |name, now_ms| sessions.open(name, authorization.clone(), now_ms).0;
        let first = open("a", 0);
        assert_eq!(first.len(), 64);
        assert_eq!(sessions.find(&of(&first), false, 1).map(|session| session.name), Some("a".to_owned()));
        assert!(sessions.find(&of(&first), false, KEPT.as_millis() as i64).is_none(), "its time is over");
        let others: Vec<String> = (0..SESSIONS_MAX).map(|n| open("b", n as i64 + 1)).collect();
        assert!(sessions.find(&of(&first), false, 2).is_none(), "the oldest made way");
        assert!(sessions.find(&of(&others[0]), false, 2).is_some());
        sessions.close(&of(&others[0]), false);
        assert!(sessions.find(&of(&others[0]), false, 2).is_none());
    }
}
