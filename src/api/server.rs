//! Connections: accepted within bounds, by TLS where there is a certificate, served by HTTP/1.1 with keep-alive, drained at the end.
//!
//! A connection is closed when it sends no whole head within [`HEAD_MAX`] (idle ones count: a client that keeps a connection
//! must be ready to open another), or when its peer takes none of an answer for [`UNREAD_MAX`]. While all places
//! of the site are taken, others wait in the listener's queue.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::parts::{Api, Doors};
use super::patience::Patience;
use super::routes;
use super::site::Site;
use crate::tls::Tls;

/// For a request's head to arrive.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// For the peer to take some of an answer.
const UNREAD_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// For requests in work when the server is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Between two looks at whether the certificate's files have changed.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(10);
/// After a failed accept: most likely the process is out of file descriptors, and asking at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is done, then lets requests in work finish (5 s at most). With no tokens only this machine is
/// answered.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] where the topology keeps no profiles. A failing connection is no error of the server.
pub async fn serve(api: Arc<Api>, listener: TcpListener, doors: Doors, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let site = Arc::new(Site::new(api, doors)?);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut look = interval(CERTIFICATE_LOOK);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            _ = look.tick(), if site.secure() => {
                site.tls.iter().for_each(Tls::refresh);
                continue;
            }
            accepted = accept(&listener, &site) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let connection = connection(Arc::clone(&site), stream, peer, graceful.watcher(), place);
                connections.spawn(connection);
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who connects from now on is refused at once instead of waiting for nothing.
    drop(listener);
    site.closing.send_replace(true);
    let open = graceful.count();
    if timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        warn!(open, "connections were cut off at the end");
    }
    Ok(())
}

/// A connection, once there is a place for it.
async fn accept(listener: &TcpListener, site: &Site) -> io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(&site.connections).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer.ip(), place))
}

async fn connection(site: Arc<Site>, stream: TcpStream, peer: IpAddr, watcher: Watcher, place: OwnedSemaphorePermit) {
    // Answers are small and whole: waiting to fill a packet only costs time. A socket that refuses works all the same.
    let _ = stream.set_nodelay(true);
    let stream = Patience::new(stream, UNREAD_MAX);
    match site.tls.clone() {
        None => serve_on(site, stream, peer, watcher).await,
        Some(tls) => match timeout(HEAD_MAX, TlsAcceptor::from(tls.server()).accept(stream)).await {
            Ok(Ok(stream)) => serve_on(site, stream, peer, watcher).await,
            Ok(Err(error)) => debug!(%error, "a TLS handshake failed"),
            Err(_) => debug!("a TLS handshake took too long"),
        },
    }
    drop(place);
}

async fn serve_on<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    site: Arc<Site>,
    stream: S,
    peer: IpAddr,
    watcher: Watcher,
) {
    let service = service_fn(|request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(routes::answer(site, request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "a connection ended early");
    }
}
