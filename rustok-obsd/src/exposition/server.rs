//! The HTTP server: `/metrics` and its parts, `/healthz`, `/readyz`, `/status`, and an index.
//!
//! Reads: an [`Exposition`] and a [`Status`]. Yields: answers. Costs: one task per connection; a scrape is rendered on a
//! blocking thread, so that neither collectors that read files nor compression hold up the async runtime, and nothing
//! here ever takes a lock of the capture thread.
//!
//! Bounds: connections, concurrent scrapes (then 503 with `Retry-After`), the time that a request head may take, its size,
//! and the time that a client may let an answer stand still. There is no authentication: hence loopback by default.

use super::scrape::{Part, Scrape};
use super::stall::Stall;
use super::{Exposition, accepts_gzip, negotiate_format};
use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::liveness::{self, Late};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Where the daemon listens unless told otherwise: the port that OpenTelemetry's Prometheus exporters use, on loopback.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:9464";

/// A scrape that takes half as long makes `/readyz` say so: there are few at a time.
const SLOW_SCRAPE: Duration = Duration::from_secs(120);

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
    /// Open connections; more wait in the kernel's backlog.
    pub connections: usize,
    /// Scrapes being rendered; more get 503.
    pub scrapes: usize,
    /// Samples of one answer; more are left out and counted.
    pub samples: u64,
    /// Time for a request head to arrive, also the life of an idle connection.
    pub head_timeout: Duration,
    /// Time that an answer may stand still because the client does not read.
    pub stall_timeout: Duration,
    /// Bytes of a request head; more get 431.
    pub head_bytes: usize,
    /// Time for answers to finish at shutdown.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            scrapes: 4,
            samples: u64::MAX,
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(10),
            head_bytes: 16 * 1024,
            shutdown_timeout: Duration::from_secs(2),
        }
    }
}

/// What the server serves.
pub struct Server {
    exposition: Arc<Exposition>,
    status: Arc<dyn Status>,
    limits: Limits,
    scrapes: Arc<Semaphore>,
}

impl Server {
    /// Serves `exposition` and `status` within `limits`.
    #[must_use]
    pub fn new(exposition: Arc<Exposition>, status: Arc<dyn Status>, limits: Limits) -> Self {
        Self { exposition, status, limits, scrapes: Arc::new(Semaphore::new(limits.scrapes)) }
    }
}

/// Serves until `shutdown` completes, then lets answers finish within [`Limits::shutdown_timeout`]. Errors of single
/// connections, and of accepting them, end no more than that connection.
pub async fn serve(listener: TcpListener, server: Server, shutdown: impl Future<Output = ()>) {
    let limits = server.limits;
    let router = router(Arc::new(server));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_buf_size(limits.head_bytes.max(8192));
    let permits = Arc::new(Semaphore::new(limits.connections));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accept => match accepted {
                Ok((stream, _)) => {
                    let service = TowerToHyperService::new(router.clone());
                    let connection = http.serve_connection(TokioIo::new(prepare(stream, &limits)), service);
                    let mut stopped = stopped.clone();
                    connections.spawn(async move {
                        let _permit = permit;
                        let mut connection = pin!(connection);
                        let served = tokio::select! {
                            served = &mut connection => served,
                            // An error says that the server is gone: the same.
                            _ = stopped.changed() => {
                                connection.as_mut().graceful_shutdown();
                                connection.await
                            }
                        };
                        if let Err(error) = served {
                            tracing::debug!(%error, "connection to the metrics server ended");
                        }
                    });
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
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.shutdown_timeout, finish).await.is_err() {
        tracing::warn!("the metrics server closes connections whose clients do not read their answers");
        connections.shutdown().await;
    }
}

fn prepare(stream: TcpStream, limits: &Limits) -> Stall {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    Stall::new(stream, limits.stall_timeout)
}

fn router(server: Arc<Server>) -> Router {
    Part::PATHS
        .into_iter()
        .fold(Router::new(), |router, (path, part)| {
            let scrape = move |server, query, headers| metrics(part, server, query, headers);
            router.route(path, get(scrape))
        })
        .route("/", get(index))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .fallback(async || (StatusCode::NOT_FOUND, "not found; / lists what is here\n"))
        .with_state(server)
}

/// How long the scraper waits, seconds.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

async fn index() -> impl IntoResponse {
    let page = "<!doctype html><html lang=en><meta charset=utf-8><title>rustok-obsd</title><h1>rustok-obsd</h1>\
        <ul><li><a href=metrics>/metrics</a> for Prometheus; its parts:\
        <a href=metrics/node>/metrics/node</a> <a href=metrics/cadvisor>/metrics/cadvisor</a>\
        <a href=metrics/process>/metrics/process</a> <a href=metrics/app>/metrics/app</a><li><a href=status>/status</a> as JSON\
        <li><a href=readyz>/readyz</a><li><a href=healthz>/healthz</a></ul></html>\n";
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page)
}

async fn ready(State(server): State<Arc<Server>>) -> impl IntoResponse {
    match server.status.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn status(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let body = format!("{:#}\n", server.status.status());
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body)
}

async fn metrics(
    part: Option<Part>,
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let mut scrape = Scrape { part, sample_limit: server.limits.samples, ..Scrape::default() };
    scrape.set_timeout(Instant::now(), values(&headers, SCRAPE_TIMEOUT).next());
    if let Some(query) = query.filter(|query| !query.is_empty())
        && let Err(error) = scrape.set_query(&query, &server.exposition.names())
    {
        return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response();
    }
    let Ok(permit) = Arc::clone(&server.scrapes).try_acquire_owned() else {
        server.exposition.busy();
        let body = "too many scrapes at once; the next may come in a second\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response();
    };
    let format = negotiate_format(values(&headers, header::ACCEPT));
    let gzip = accepts_gzip(values(&headers, header::ACCEPT_ENCODING));
    let exposition = Arc::clone(&server.exposition);
    let rendered = tokio::task::spawn_blocking(move || {
        let beat = liveness::process().register_as("scrape", SLOW_SCRAPE, Late::Unready);
        let rendered = exposition.render(&scrape, format, gzip);
        drop((permit, beat));
        rendered
    });
    match rendered.await {
        Ok(rendered) => {
            let mut response = Response::new(Body::from(rendered.body));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
            if gzip {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        Err(error) => {
            server.exposition.failed();
            tracing::error!(%error, "a scrape failed");
            let body = "the exposition could not be rendered; the daemon's log has the reason\n";
            (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
        }
    }
}

fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}
