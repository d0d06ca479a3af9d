//! The HTTP server: `/metrics` and its parts, `/healthz`, `/readyz`, `/status`, and an index.
//!
//! Reads: an [`Exposition`] and a [`Status`]. Yields: answers. Costs: one task per connection; a scrape is rendered on a
//! blocking thread, so that neither collectors that read files nor compression hold up the async runtime, and nothing
//! here ever takes a lock of the capture thread.
//!
//! Bounds: connections in all and per peer ([`super::peers`]), how often a peer may connect ([`super::rates`]), concurrent
//! scrapes and answers per peer (who has to wait too long gets 503 with `Retry-After`), bytes of answers that nobody has
//! read yet, the time that a request head may take, its size, and the time that a client may let an answer stand still.
//! What is refused or made to end is counted.
//! There is no authentication: hence loopback by default, and the check of [`super::hosts`].

use super::Exposition;
use super::answers;
use super::hosts::{Hosts, Unanswered};
use super::peers::{Connection, Connections, Peer, Places};
use super::rates::{Rate, Rates};
use super::stall::Stall;
use crate::contract::server::{ConnectionEnd, Refusal, ServerMetrics};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

/// Where the daemon listens unless told otherwise: the port that OpenTelemetry's Prometheus exporters use, on loopback.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:9464";

/// What the daemon says about its health.
pub trait Status: Send + Sync {
    /// Whether metrics are complete from now on; the error is the reason why not yet.
    ///
    /// # Errors
    /// The reason, one line.
    fn ready(&self) -> Result<(), String>;
    /// The body of `/status`.
    fn status(&self) -> serde_json::Value;
}

/// Bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections; for more, others have to make room.
    pub connections: usize,
    /// Of these for peers on this host alone.
    pub local_connections: usize,
    /// Connections that a peer may open at once, however short they are.
    pub burst: u32,
    /// Connections that it may open a second beyond that.
    pub per_second: u32,
    /// Scrapes being rendered; more wait.
    pub scrapes: usize,
    /// Scrapes of one peer that are rendered or not read yet; more wait.
    pub peer_scrapes: usize,
    /// How long a scrape waits for its turn; then it gets 503.
    pub scrape_wait: Duration,
    /// Bytes of answers that their clients have not read yet; a quarter is for peers on this host alone.
    pub answer_bytes: u64,
    /// Samples of one answer; more are left out and counted.
    pub samples: u64,
    /// Time for a connection's first request head to arrive.
    pub first_head_timeout: Duration,
    /// Time for a further request head to arrive, also the life of an idle connection.
    pub head_timeout: Duration,
    /// Time that an answer may stand still because the client does not read.
    pub stall_timeout: Duration,
    /// Time for an answer to be read, once the kernel's buffers are full.
    pub answer_timeout: Duration,
    /// Bytes of a request head; more get 431.
    pub head_bytes: usize,
    /// Time for answers to finish at shutdown.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            local_connections: 16,
            burst: 512,
            per_second: 200,
            scrapes: 4,
            peer_scrapes: 4,
            scrape_wait: Duration::from_secs(5),
            answer_bytes: 64 << 20,
            samples: u64::MAX,
            first_head_timeout: Duration::from_secs(3),
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
            head_bytes: 16 * 1024,
            shutdown_timeout: Duration::from_secs(2),
        }
    }
}

/// Says whose the peer of a connection within this host is: its address and ours, then the user.
pub type Owners = Box<dyn Fn(SocketAddr, SocketAddr) -> Option<u32> + Send + Sync>;

/// What the server serves.
pub struct Server {
    pub(super) exposition: Arc<Exposition>,
    pub(super) status: Arc<dyn Status>,
    pub(super) limits: Limits,
    pub(super) scrapes: Arc<Semaphore>,
    /// Bytes of answers that are not read yet.
    pub(super) unread: Arc<AtomicU64>,
    allowed: Vec<String>,
    owners: Option<Owners>,
}

impl Server {
    /// Serves `exposition` and `status` within `limits`.
    #[must_use]
    pub fn new(exposition: Arc<Exposition>, status: Arc<dyn Status>, limits: Limits) -> Self {
        let scrapes = Arc::new(Semaphore::new(limits.scrapes));
        Self { exposition, status, limits, scrapes, unread: Arc::default(), allowed: Vec::new(), owners: None }
    }

    /// Answers requests for these names too (`web.allowed_hosts`).
    #[must_use]
    pub fn with_hosts(mut self, allowed: Vec<String>) -> Self {
        self.allowed = allowed;
        self
    }

    /// Tells users of this host apart; without it they are one peer.
    #[must_use]
    pub fn with_owners(mut self, owners: Owners) -> Self {
        self.owners = Some(owners);
        self
    }
}

/// Serves until `shutdown` completes, then lets answers finish within [`Limits::shutdown_timeout`]. Errors of single
/// connections, and of accepting them, end no more than that connection.
pub async fn serve(listener: TcpListener, mut server: Server, shutdown: impl Future<Output = ()>) {
    let limits = server.limits;
    let owners = server.owners.take();
    let metrics = Arc::clone(&server.exposition.server);
    let loopback = listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_buf_size(limits.head_bytes.max(8192));
    let shared = Arc::new(Shared {
        hosts: Hosts::new(loopback, &server.allowed),
        router: answers::router(Arc::new(server)),
        http,
        limits,
        metrics: Arc::clone(&metrics),
        said: AtomicBool::new(false),
    });
    let places =
        Places { all: limits.connections, local: limits.local_connections, answers: limits.peer_scrapes.max(1) };
    let mut door = Door {
        connections: Connections::new(places, Arc::clone(&metrics)),
        rates: Rates::new(Rate { burst: limits.burst, every: Duration::from_secs(1) / limits.per_second.max(1) }),
        owners,
        metrics,
    };
    let (stop, stopped) = watch::channel(());
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Some((connection, local)) = door.open(&stream, peer) else { continue };
                    tasks.spawn(attend(Arc::clone(&shared), connection, stream, local, stopped.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the metrics server cannot accept a connection; next try in 100 ms");
                    // Out of descriptors, most likely: the connection stays in the backlog, do not spin on it.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    drop(stop);
    let finish = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.shutdown_timeout, finish).await.is_err() {
        tracing::warn!("the metrics server closes connections whose clients do not read their answers");
        tasks.shutdown().await;
    }
}

/// Who comes in.
struct Door {
    connections: Arc<Connections>,
    rates: Rates,
    owners: Option<Owners>,
    metrics: Arc<ServerMetrics>,
}

impl Door {
    /// A place for a connection, and our address; `None` where it is turned away, or gone already.
    fn open(&mut self, stream: &TcpStream, from: SocketAddr) -> Option<(Arc<Connection>, IpAddr)> {
        let local = stream.local_addr().ok()?;
        let peer = Peer::of(from, local, || self.owners.as_ref().and_then(|owner| owner(from, local)));
        if !self.rates.admit(peer, Instant::now()) {
            self.metrics.ended.add(ConnectionEnd::TooOften, 1);
            return None;
        }
        Some((self.connections.admit(peer)?, local.ip()))
    }
}

/// What all connections need.
struct Shared {
    http: http1::Builder,
    router: Router,
    hosts: Hosts,
    limits: Limits,
    metrics: Arc<ServerMetrics>,
    /// A refused name was logged: once is enough, whoever sends many.
    said: AtomicBool,
}

/// One connection, to its end.
async fn attend(
    shared: Arc<Shared>,
    place: Arc<Connection>,
    stream: TcpStream,
    local: IpAddr,
    mut stopped: watch::Receiver<()>,
) {
    let limits = &shared.limits;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let stream = TokioIo::new(Stall::new(stream, limits.stall_timeout, limits.answer_timeout));
    let service = service_fn(|request| shared.answer(&place, local, request));
    let mut served = pin!(shared.http.serve_connection(stream, service));
    let mut first_head = pin!(tokio::time::sleep(limits.first_head_timeout));
    let (mut waits, mut stopping) = (true, false);
    let end = loop {
        tokio::select! {
            served = &mut served => break end_of(served),
            // It was counted when the place was taken.
            () = place.evicted() => return,
            () = &mut first_head, if waits => {
                if place.is_headless() {
                    break ConnectionEnd::HeadTimeout;
                }
                waits = false;
            }
            // An error says that the server is gone: the same.
            _ = stopped.changed(), if !stopping => {
                if place.is_headless() {
                    break ConnectionEnd::Shutdown;
                }
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    };
    shared.metrics.ended.add(end, 1);
}

fn end_of(served: hyper::Result<()>) -> ConnectionEnd {
    let Err(error) = served else { return ConnectionEnd::Closed };
    tracing::debug!(%error, "connection to the metrics server ended");
    let stalled = || {
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        source.is_some_and(|source| source.kind() == io::ErrorKind::TimedOut)
    };
    if error.is_timeout() {
        ConnectionEnd::IdleTimeout
    } else if error.is_parse() || error.is_parse_too_large() {
        ConnectionEnd::Malformed
    } else if stalled() {
        ConnectionEnd::Stalled
    } else {
        ConnectionEnd::Broken
    }
}

impl Shared {
    async fn answer(
        &self,
        place: &Arc<Connection>,
        local: IpAddr,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        // Until the answer is sent: whoever holds on to a part of it holds the guard too.
        let busy = Arc::new(place.busy());
        if let Err(reason) = self.hosts.check(request.version(), request.uri(), request.headers(), local) {
            let refusal = if matches!(reason, Unanswered::Foreign(_)) { Refusal::Host } else { Refusal::NoHost };
            self.metrics.refused.add(refusal, 1);
            if let Unanswered::Foreign(name) = &reason
                && !self.said.swap(true, Ordering::Relaxed)
            {
                tracing::warn!(
                    "a request for another name than this server's was refused, `{name}`; further ones are counted only. \
                     If the name is this host's, because a proxy passes it on, add it to web.allowed_hosts"
                );
            }
            return Ok(answers::unanswered(&reason));
        }
        request.extensions_mut().insert(Arc::clone(&busy));
        self.router.clone().oneshot(request.map(Body::new)).await
    }
}
