//! The accept loop: connections, their limits, and how they end.
//!
//! HTTP/1.1 and HTTP/2 (with prior knowledge) on each listener; they share the slots, and end together. A connection is
//! accepted here and begins in a task of its own, also its handshake, so that a slow client keeps no other waiting.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::FutureExt as _;
use http::Request;
use http::uri::Scheme;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::body::{DrainLimits, Received};
use super::client_io::{ClientIo, Crowd};
use super::forwarded::{Peer, Trusted};
use super::interim::{InterimIo, InterimQueue};
use super::listener::{Accepted, Listener, accept};
use super::observe::HeadLimits;

/// How much of a body one HTTP/2 stream may send ahead of being read: enough to fill a fast link over a long distance.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// How many requests one HTTP/2 connection may have at a time.
const STREAMS: u32 = 100;
/// How often a silent HTTP/2 peer is asked whether it is still there, and how long it has to answer.
const PING: Duration = Duration::from_secs(20);
/// What hyper gathers of a head at most. More than a head may have, so that somewhat too large heads are refused with a
/// problem of ours.
const BUFFER_BYTES: usize = 512 << 10;
/// How much larger than a head the buffer is at least.
const BUFFER_BEYOND_HEAD_BYTES: usize = 8 << 10;
/// How many header fields more than allowed hyper takes in, for the same reason. Beyond that its answer has no body.
const SPARE_FIELDS: usize = 1024;
/// How long accepting pauses when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a request's head may take.
    pub head_timeout: Duration,
    /// What a request's head may have.
    pub head: HeadLimits,
    /// How many connections are served at a time.
    pub connections: usize,
    /// What is read of bodies that nobody wants.
    pub refused_body: DrainLimits,
}

/// The connections that are left when accepting has ended. Dropping it cuts them.
pub struct Connections {
    ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _tasks: JoinSet<()>,
}

impl Connections {
    /// Waits for the requests that are running; connections without one are closed. Whether all ended in time. May be called
    /// again to wait longer.
    pub async fn finish(&mut self, within: Duration) -> bool {
        if let Some(ended) = &mut self.ended {
            if tokio::time::timeout(within, ended).await.is_err() {
                return false;
            }
            self.ended = None;
        }
        true
    }
}

/// Serves until `stop`, then gives back what is still running. The sockets are closed by then.
pub async fn serve(
    mut listeners: Vec<Listener>,
    router: Router,
    trusted: Trusted,
    limits: Limits,
    stop: CancellationToken,
) -> Connections {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(limits.connections));
    let serving = Arc::new(Serving {
        builder: builder(&limits),
        router,
        trusted: Arc::new(trusted),
        crowd: Crowd {
            slots: Arc::clone(&slots),
            limit: limits.connections,
        },
        limits,
    });
    let mut tasks = JoinSet::new();
    loop {
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&mut listeners) => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection =
            Arc::clone(&serving).connection(accepted, graceful.watcher(), stop.clone());
        tasks.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    drop(listeners);
    Connections {
        ended: Some(Box::pin(graceful.shutdown())),
        _tasks: tasks,
    }
}

/// What all connections share.
struct Serving {
    builder: auto::Builder<TokioExecutor>,
    router: Router,
    trusted: Arc<Trusted>,
    crowd: Crowd,
    limits: Limits,
}

impl Serving {
    /// A connection from its first byte to its last. Boxed, so that the plain ones are not as large as those with TLS.
    fn connection(
        self: Arc<Self>,
        accepted: Accepted,
        watcher: Watcher,
        stop: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match accepted {
            Accepted::Unix(stream) => {
                let wire = Wire(Peer::Unix, Scheme::HTTP);
                Box::pin(self.requests(stream, wire, watcher))
            }
            Accepted::Tcp(stream, address, None) => {
                let wire = Wire(Peer::Address(address.ip()), Scheme::HTTP);
                Box::pin(self.requests(stream, wire, watcher))
            }
            Accepted::Tcp(stream, address, Some(tls)) => Box::pin(async move {
                let wire = Wire(Peer::Address(address.ip()), Scheme::HTTPS);
                // Nothing is asked for in a handshake, so `stop` ends it.
                match stop.run_until_cancelled(tls.handshake(stream)).await {
                    Some(Ok(stream)) => self.requests(stream, wire, watcher).await,
                    Some(Err(error)) => tracing::debug!(%error, %address, "no TLS"),
                    None => {}
                }
            }),
        }
    }

    fn requests<I>(
        &self,
        stream: I,
        wire: Wire,
        watcher: Watcher,
    ) -> impl Future<Output = ()> + Send + use<I>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let interim = InterimQueue::default();
        let io = ClientIo::new(stream, self.limits.head_timeout, self.crowd.clone());
        let io = InterimIo::new(io, interim.clone());
        let router = self.router.clone();
        let trusted = Arc::clone(&self.trusted);
        let limits = self.limits.refused_body;
        let service = service_fn(move |request: Request<Incoming>| {
            let request = receive(request, &wire, &trusted, limits);
            interim.clone().answer(request, router.clone())
        });
        let connection = self.builder.serve_connection(TokioIo::new(io), service);
        // Mapped, as an async block would hold the connection twice.
        watcher.watch(connection.into_owned()).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(error, "a connection broke");
            }
        })
    }
}

/// The other end of a connection, and the scheme that is spoken with it.
struct Wire(Peer, Scheme);

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let buffer = BUFFER_BYTES.max(limits.head.bytes + BUFFER_BEYOND_HEAD_BYTES);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // A client that has said all it wants to say may still be told something.
        .half_close(true)
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(buffer)
        .max_headers(limits.head.fields.saturating_add(SPARE_FIELDS));
    builder
        .http2()
        .timer(TokioTimer::new())
        // Fixed windows: the adaptive ones begin small and are measured by pings that an upload's own bytes delay.
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(buffer).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

/// Says who is asking, and puts our own body around hyper's.
fn receive(
    request: Request<Incoming>,
    wire: &Wire,
    trusted: &Trusted,
    limits: DrainLimits,
) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let body = Received::new(body, &parts.headers, limits);
    let Wire(peer, scheme) = wire;
    let client = trusted.client(*peer, scheme.clone(), &parts.headers);
    parts.extensions.insert(body.arrived());
    parts.extensions.insert(*peer);
    parts.extensions.insert(client);
    Request::from_parts(parts, Body::new(body))
}
