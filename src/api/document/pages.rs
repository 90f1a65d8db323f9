//! `GET /docs`: a page that shows `/openapi.json`, from the binary, with nothing of any other host in it.

use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};

use crate::api::call::{Answer, Call};
use crate::api::declare::{Declared, Takes, gives_other, parameter};
use crate::api::problem::{Kind, Problem};
use crate::api::reply::Reply;

/// Scripts and styles come from files of this server, none is in line; it asks this server only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The page's declaration.
pub(crate) const PAGE: Declared =
    Declared::new("Interface", "This interface as a page", &[gives_other(200, "text/html; charset=utf-8", "The page.")]);

/// Its parts' declaration.
pub(crate) const ASSET: Declared = Declared::new(
    "Interface",
    "A part of the page",
    &[gives_other(200, "text/javascript; charset=utf-8", "The part."), gives_other(200, "text/css; charset=utf-8", "The part.")],
)
.about(parameter("part", Takes::OneOf(&["docs.js", "docs.css"]), "The part's name."))
.problems(&[Kind::NoSuchRoute]);

/// Answers `/docs`.
pub(crate) fn page(_: &Call) -> Answer {
    let page = Reply::new(StatusCode::OK, "text/html; charset=utf-8", include_bytes!("docs.html").to_vec());
    Ok(page.with(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)))
}

/// Answers `/docs/{part}`.
pub(crate) fn asset(call: &Call) -> Answer {
    let (content_type, bytes): (_, &[u8]) = match call.name.as_str() {
        "docs.js" => ("text/javascript; charset=utf-8", include_bytes!("docs.js")),
        "docs.css" => ("text/css; charset=utf-8", include_bytes!("docs.css")),
        _ => return Err(Problem::new(Kind::NoSuchRoute, "the page has no such part")),
    };
    Ok(Reply::new(StatusCode::OK, content_type, bytes.to_vec()))
}
