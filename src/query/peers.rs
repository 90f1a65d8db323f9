//! Asks another instance, once, within bounds: over pooled HTTP/1.1 connections, so many requests at a time, with a limit to time and to
//! the answer's size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::membership::Peer;

/// On a request that one instance passes on to another: the request's id. Whoever gets it answers from what it has.
pub const HOP: HeaderName = HeaderName::from_static("mangrove-hop");
/// On the answer to such a request: the id of the instance that gives it.
pub const ANSWERED_BY: HeaderName = HeaderName::from_static("mangrove-instance");

/// Requests to others at once.
const ASKING_MAX: usize = 64;
/// Connections kept open to each.
const KEPT_MAX: usize = 8;
/// For how long an unused one is kept: shorter than a server keeps it, so that none dies under a request.
const KEPT_FOR: Duration = Duration::from_secs(3);
/// For a connection to come about.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A request to pass on.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Path and query, as they go on the wire.
    pub target: String,
    /// Its id, which the other instance logs it under.
    pub id: String,
    /// What the caller showed of itself, passed on as it came.
    pub authorization: Option<HeaderValue>,
    /// The body, JSON; empty where there is none.
    pub body: Bytes,
}

/// What another instance said.
#[derive(Clone, Debug)]
pub struct Got {
    /// The answer's status.
    pub status: StatusCode,
    /// Of its headers those that mean something to the caller.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// All places for requests to others are taken.
    #[error("too many requests are being passed on")]
    Busy,
    /// It has no endpoint, or none that can be called.
    #[error("it serves no HTTP at an address that can be called")]
    NoEndpoint,
    /// No connection, or it broke.
    #[error("it does not answer")]
    Unreachable,
    /// No whole answer in time.
    #[error("it does not answer in time")]
    TooLate,
    /// Someone else answers at its endpoint.
    #[error("something else answers at its endpoint")]
    Stranger,
}

/// The way to all other instances. Clones share connections and counts.
#[derive(Clone, Debug)]
pub struct Peers {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    scheme: &'static str,
    places: Arc<Semaphore>,
    counts: Arc<[AtomicU64; 6]>,
}

/// What can come of asking, as metrics have it; the order is that of [`Peers::counts`].
const OUTCOMES: [&str; 6] = ["answered", "busy", "no_endpoint", "unreachable", "too_late", "stranger"];

impl Peers {
    /// The way to instances that speak TLS, where there is a configuration for it, and plain HTTP otherwise: all of one application do the
    /// same.
    #[must_use]
    pub fn new(tls: Option<ClientConfig>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_MAX));
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(KEPT_FOR).pool_max_idle_per_host(KEPT_MAX);
        let trust =
            tls.unwrap_or_else(|| crate::tls::client(RootCertStore::empty()).expect("invariant: the provider has protocols"));
        let builder = HttpsConnectorBuilder::new().with_tls_config(trust).https_or_http().enable_http1();
        let client = client.build(builder.wrap_connector(connector));
        Self { client, scheme, places: Arc::new(Semaphore::new(ASKING_MAX)), counts: Arc::default() }
    }

    /// Asks; within `limit` there is an answer or none.
    ///
    /// # Errors
    /// [`Failed`] says why there is none. Whether the other instance did something is not known then: ask only what changes nothing.
    pub async fn ask(&self, peer: &Peer, asked: &Asked, limit: Duration) -> Result<Got, Failed> {
        let got = self.try_to_ask(peer, asked, limit).await;
        let outcome = match &got {
            Ok(_) => 0,
            Err(Failed::Busy) => 1,
            Err(Failed::NoEndpoint) => 2,
            Err(Failed::Unreachable) => 3,
            Err(Failed::TooLate) => 4,
            Err(Failed::Stranger) => 5,
        };
        self.counts[outcome].fetch_add(1, Ordering::Relaxed);
        got
    }

    /// Requests to others by what came of them.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.into_iter().zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    async fn try_to_ask(&self, peer: &Peer, asked: &Asked, limit: Duration) -> Result<Got, Failed> {
        let Ok(_place) = self.places.try_acquire() else { return Err(Failed::Busy) };
        let request = request(self.scheme, peer, asked)?;
        let got = timeout(limit, self.fetch(request)).await.map_err(|_| Failed::TooLate)??;
        // Another process may have the address by now: its "not found" says nothing about our users.
        let by = got.headers.get(ANSWERED_BY).map(HeaderValue::as_bytes);
        if by == Some(peer.instance.as_bytes()) { Ok(got) } else { Err(Failed::Stranger) }
    }

    async fn fetch(&self, request: Request<Full<Bytes>>) -> Result<Got, Failed> {
        let response = self.client.request(request).await.map_err(|_| Failed::Unreachable)?;
        let (mut head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|_| Failed::Unreachable)?.to_bytes();
        let mut headers = HeaderMap::new();
        for name in [ANSWERED_BY, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE] {
            if let Some(value) = head.headers.remove(&name) {
                headers.insert(name, value);
            }
        }
        Ok(Got { status: head.status, headers, body })
    }
}

fn request(scheme: &str, peer: &Peer, asked: &Asked) -> Result<Request<Full<Bytes>>, Failed> {
    let mut request = Request::builder()
        .method(&asked.method)
        .uri(format!("{scheme}://{}{}", peer.endpoint, asked.target))
        .header(HOP, &asked.id);
    if let Some(authorization) = &asked.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    if !asked.body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(asked.body.clone())).map_err(|_| Failed::NoEndpoint)?;
    // An endpoint such as "a:1/x?" would move the path.
    let authority = request.uri().authority().is_some_and(|authority| authority.as_str() == peer.endpoint);
    if authority { Ok(request) } else { Err(Failed::NoEndpoint) }
}
