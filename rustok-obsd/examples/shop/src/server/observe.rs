//! The middleware that fills the ground truth. Installed with `--ground-truth` alone.
//!
//! Reads: every request, outside everything else, and its response to the last byte of the body. Yields: one
//! [`Record`] per request, also where the client went away. Costs: about a microsecond per request.
//!
//! `MatchedPath` of the outermost router is in the request when the layer runs (axum routes first). A service mounted
//! by `nest_service` is a router of its own, whose `MatchedPath` only its own layers see: [`inner_route`] hands it out
//! through the [`Entry`] in the request's extensions.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::net::TcpListener;

use crate::clock::now_ns;
use crate::truth::{Query, Record, Sink};

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The client's.
    pub peer: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

impl Connected<IncomingStream<'_, TcpListener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let peer = *stream.remote_addr();
        // Fails only where the connection is gone already.
        Self { peer, local: stream.io().local_addr().unwrap_or(peer) }
    }
}

/// The record of a running request, shared with what handles it.
pub struct Entry(Mutex<Option<Box<Record>>>);

impl Entry {
    /// Notes a statement. Work that outlives its request is not noted.
    pub fn query(&self, query: Query) {
        self.with(|record| record.queries.push(query));
    }

    /// Notes the tenant.
    pub fn tenant(&self, tenant: &impl ToString) {
        self.with(|record| record.tenant = Some(tenant.to_string()));
    }

    fn with(&self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.lock().as_mut() {
            change(record);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Record>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Id of the current Tokio task.
#[must_use]
pub fn task_id() -> Option<u64> {
    tokio::task::try_id().and_then(|id| id.to_string().parse().ok())
}

/// The layer for the outermost router.
pub async fn record(
    State(sink): State<Sink>,
    Extension(ConnectInfo(ends)): Extension<ConnectInfo<Ends>>,
    mut request: Request,
    next: Next,
) -> Response {
    let start_ns = now_ns();
    let entry = Arc::new(Entry(Mutex::new(Some(Box::new(Record {
        id: sink.next_id(),
        client_id: request.headers().get("x-request-id").and_then(|id| Some(id.to_str().ok()?.to_owned())),
        peer: ends.peer,
        local: ends.local,
        task: task_id(),
        method: request.method().to_string(),
        route: request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()),
        path: request.uri().path().to_owned(),
        status: None,
        start_ns,
        handler_end_ns: 0,
        end_ns: 0,
        aborted: false,
        tenant: None,
        queries: Vec::new(),
    })))));
    let head_only = request.method() == Method::HEAD;
    request.extensions_mut().insert(Arc::clone(&entry));
    // Dropped with this future where the client goes away before the answer.
    let guard = Guard { entry, sink, complete: false };
    let response = next.run(request).await;
    guard.entry.with(|record| {
        record.status = Some(response.status().as_u16());
        record.handler_end_ns = now_ns();
    });
    let (parts, body) = response.into_parts();
    let left = content_length(&parts.headers).or(body.size_hint().exact());
    let bodiless = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let left = if head_only || bodiless { Some(0) } else { left };
    Response::from_parts(parts, Body::new(Observed { body, left, guard }))
}

/// The layer for a router that is mounted by `nest_service` at `prefix`.
pub async fn inner_route(State(prefix): State<&'static str>, request: Request, next: Next) -> Response {
    note_inner_route(&request, prefix);
    next.run(request).await
}

/// Notes the route that a service nested at `prefix` sees.
pub fn note_inner_route(request: &Request, prefix: &'static str) {
    if let Some(entry) = request.extensions().get::<Arc<Entry>>() {
        let matched = request.extensions().get::<MatchedPath>();
        entry.with(|record| {
            record.route = Some(matched.map_or_else(|| format!("{prefix}/*"), |path| path.as_str().to_owned()));
        });
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Sends the record when dropped.
struct Guard {
    entry: Arc<Entry>,
    sink: Sink,
    complete: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut record) = self.entry.lock().take() {
            record.end_ns = now_ns();
            record.aborted = !self.complete;
            self.sink.send(record);
        }
    }
}

/// A response body that knows when it is through.
struct Observed {
    body: Body,
    /// Bytes that hyper will still take, where known: it drops the body after the last of them without asking on.
    left: Option<u64>,
    guard: Guard,
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.guard.complete = true,
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(left), Some(data)) = (self.left.as_mut(), frame.data_ref()) {
                    *left = left.saturating_sub(data.len() as u64);
                }
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.guard.complete |= self.left == Some(0) || self.body.is_end_stream();
    }
}
