//! A request as a handler gets it, and what handlers do with it: read its body, work beside the event loop.

use std::borrow::Cow;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request};
use tokio::time::timeout;
use tracing::error;

use super::problem::{Kind, Problem};
use super::reply::Reply;
use super::site::Site;
use crate::query::HOP;

/// Bytes of a body.
const BODY_BYTES_MAX: usize = 1 << 20;
/// For a body to arrive.
const BODY_MAX: Duration = Duration::from_secs(5);
/// For a place among the requests that read the store.
const TURN_MAX: Duration = Duration::from_secs(1);
/// For a request that reads the store, once it has its place.
pub(crate) const READ_MAX: Duration = Duration::from_secs(5);
/// Bytes of a request's id that another instance gave it.
const REQUEST_ID_MAX: usize = 40;
/// When to come again after one of these ran out, in seconds.
const RETRY_S: u16 = 1;
/// The route's name in metrics where there was none.
pub(super) const NO_ROUTE: &str = "none";
/// Names the last event seen.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a handler gives.
pub(crate) type Answer = Result<Reply, Problem>;

/// A request as a handler gets it.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) site: Arc<Site>,
    /// The request's id.
    pub(crate) request: String,
    pub(crate) method: Method,
    /// Its path, as it came.
    pub(crate) path: String,
    /// Its query, as it came; empty where it has none.
    pub(crate) query: String,
    /// What stood for the placeholder of the route's path, decoded; empty where it has none.
    pub(crate) name: String,
    /// True where another instance passed it on: it goes no further.
    pub(crate) hop: bool,
    /// Where it comes from.
    pub(crate) peer: IpAddr,
    /// The route's pattern.
    pub(crate) route: &'static str,
    /// Its record is written, or another instance's affair.
    pub(crate) recorded: Recorded,
    /// The token's name; none where no token is asked for.
    pub(crate) actor: Option<String>,
    /// What other instances are shown of the caller.
    pub(crate) authorization: Option<HeaderValue>,
    /// The last event that a reader of a stream has seen.
    pub(crate) last_event: Option<HeaderValue>,
    /// True where the caller would rather have CSV than JSON.
    pub(crate) wants_csv: bool,
    /// The body; empty for routes that take none.
    pub(crate) body: Bytes,
}

impl Call {
    pub(super) fn new(site: &Arc<Site>, request: &Request<Incoming>, peer: IpAddr) -> Self {
        let hop = request.headers().get(HOP);
        let given = hop.and_then(|id| id.to_str().ok()).filter(|id| is_request_id(id));
        Self {
            site: Arc::clone(site),
            request: given.map_or_else(|| site.next_request(), str::to_owned),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            name: String::new(),
            hop: hop.is_some(),
            peer,
            route: NO_ROUTE,
            recorded: Recorded::default(),
            actor: None,
            authorization: request.headers().get(AUTHORIZATION).cloned(),
            last_event: request.headers().get(LAST_EVENT_ID).cloned(),
            wants_csv: wants_csv(request.headers()),
            body: Bytes::new(),
        }
    }
}

/// True where CSV stands before whatever JSON would do for, in `Accept`.
fn wants_csv(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut named = ranges.map(|range| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let first = named.find(|range| matches!(&**range, "text/csv" | "application/json" | "application/*" | "*/*"));
    first.as_deref() == Some("text/csv")
}

/// Whether a request's record is written. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded(Arc<AtomicBool>);

impl Recorded {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// As [`Site::next_request`] makes them: nothing else comes into log lines.
fn is_request_id(id: &str) -> bool {
    (1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// An answer to come.
pub(crate) type Coming = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Percent-decodes a segment of a path. A plus sign is a plus sign there.
pub(crate) fn decode(segment: &str) -> Result<Cow<'_, str>, Problem> {
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    let bad = || Problem::new(Kind::BadPath, "an escape in the path is broken or does not spell UTF-8");
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(bad);
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => (digit(bytes.next())? * 16 + digit(bytes.next())?) as u8,
            plain => plain,
        };
        decoded.push(byte);
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| bad())
}

/// A whole body of JSON.
pub(crate) async fn read_body(request: Request<Incoming>) -> Result<Bytes, Problem> {
    if !is_of_type(request.headers(), "application/json") {
        return Err(Problem::new(Kind::UnsupportedMediaType, "the body's type is not application/json"));
    }
    // What is left of the body may be endless: such a connection is not used again.
    let cut = |kind, detail| Problem::new(kind, detail).with(CONNECTION, HeaderValue::from_static("close"));
    let too_large = || cut(Kind::BodyTooLarge, format!("the body has more than {BODY_BYTES_MAX} bytes"));
    if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match timeout(BODY_MAX, Limited::new(request.into_body(), BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(why)) if why.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(cut(Kind::BrokenBody, "the body broke off".to_owned())),
        Err(_) => Err(cut(Kind::RequestTimeout, format!("the body took longer than {} s", BODY_MAX.as_secs()))),
    }
}

/// True where the body is of this type.
pub(crate) fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}

/// Runs something that reads the store beside the event loop.
pub(crate) async fn run_aside<T: Send + 'static>(
    call: Call,
    limit: Duration,
    work: impl FnOnce(&Call) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let Ok(Ok(place)) = timeout(TURN_MAX, Arc::clone(&call.site.work).acquire_owned()).await else {
        return Err(Problem::new(Kind::TooManyRequests, "no place became free in time").retry_after(RETRY_S));
    };
    let request = call.request.clone();
    let work = tokio::task::spawn_blocking(move || {
        let answer = work(&call);
        // Held to the end, given up on or not: it bounds what is really at work.
        drop(place);
        answer
    });
    match timeout(limit, work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => {
            error!(request, panicked = why.is_panic(), "a request's handler did not come to its end");
            Err(Problem::new(Kind::Internal, "the request's handler failed"))
        }
        Err(_) => Err(Problem::new(Kind::TooSlow, format!("no answer within {} ms", limit.as_millis())).retry_after(RETRY_S)),
    }
}
