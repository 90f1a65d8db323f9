//! The dashboard's files. They hold no data, so they are open; what they show comes from routes that are not.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue};

use super::call::{Answer, Call};
use super::declare::{Declared, Takes, gives_other, parameter};
use super::problem::{Kind, Problem};
use super::reply::Reply;
use crate::dashboard::{FILES, INDEX};

/// What the page may do: load its own files and ask its own server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// What the page says of itself.
pub(crate) const INDEX_PAGE: Declared =
    Declared::new("Interface", "The dashboard", &[gives_other(200, "text/html; charset=utf-8", "The page: it holds no data.")]);

/// What its files say of themselves.
pub(crate) const ASSET: Declared = Declared::new(
    "Interface",
    "A file of the dashboard",
    &[
        gives_other(200, "text/javascript; charset=utf-8", "The file."),
        gives_other(200, "text/css; charset=utf-8", "The file."),
        gives_other(200, "image/svg+xml", "The file."),
    ],
)
.about(parameter("file", Takes::Text(64), "The file's name."))
.problems(&[Kind::NoSuchRoute]);

/// `GET /`.
pub(crate) fn index(_: &Call) -> Answer {
    let policy = HeaderValue::from_static(POLICY);
    Ok(Reply::new(StatusCode::OK, "text/html; charset=utf-8", INDEX).with(CONTENT_SECURITY_POLICY, policy))
}

/// `GET /assets/{}`.
pub(crate) fn asset(call: &Call) -> Answer {
    let file = FILES.iter().find(|file| file.name == call.name);
    let file = file.ok_or_else(|| Problem::new(Kind::NoSuchRoute, "the dashboard has no such file"))?;
    Ok(Reply::new(StatusCode::OK, file.content_type, file.bytes).with(CACHE_CONTROL, HeaderValue::from_static("no-cache")))
}
