//! The middleware that fills the ground truth, and what notes each statement. Installed with `--ground-truth` alone.
//!
//! Reads: every request, outside everything else, and its response to the last byte of the body; every statement made
//! in its name. Yields: one [`Record`] per request, also where the client went away; a statement that ends later goes
//! in alone. Costs: about a microsecond per request.
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
use axum::http::{Extensions, HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use bytes::Bytes;
use futures_util::{Stream, TryStream};
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

/// The record of a running request, shared with what handles it, and with work that outlives it.
pub struct Entry {
    id: u64,
    sink: Sink,
    /// None after the request's end.
    record: Mutex<Option<Box<Record>>>,
}

impl Entry {
    fn new(sink: Sink, record: Box<Record>) -> Self {
        sink.opened();
        Self { id: record.id, sink, record: Mutex::new(Some(record)) }
    }

    /// Notes a statement, also after the request's end.
    pub fn query(&self, query: Query) {
        match self.lock().as_mut() {
            Some(record) => record.queries.push(query),
            None => self.sink.send_late(self.id, query),
        }
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
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.sink.closed();
    }
}

/// Where one request's statements are noted; nowhere without a ground truth. Cheap to clone.
#[derive(Clone, Default)]
pub struct Notes(Option<Arc<Entry>>);

impl Notes {
    /// Those of the request with these extensions.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
        Self(extensions.get::<Arc<Entry>>().cloned())
    }

    /// Whether somebody wants to know.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Runs a statement and notes it, also where the returned future is dropped half-way.
    ///
    /// # Errors
    /// Those of `call`; `sqlstate` tells what the database said.
    pub async fn query<T, E>(
        &self,
        sql: &str,
        rows: impl FnOnce(&T) -> u64,
        sqlstate: impl FnOnce(&E) -> Option<String>,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(mut running) = self.start(sql) else {
            return call.await;
        };
        let result = call.await;
        match &result {
            Ok(value) => running.query.rows = rows(value),
            Err(error) => running.failed(sqlstate(error)),
        }
        running.query.cancelled = false;
        result
    }

    /// Notes a statement whose rows are streamed: from now to the stream's end, or to its drop.
    pub fn stream<S>(&self, sql: &str, sqlstate: fn(&S::Error) -> Option<String>, stream: S) -> NotedStream<S>
    where
        S: TryStream + Unpin,
    {
        NotedStream { stream, running: self.start(sql), sqlstate }
    }

    /// To be kept beside a transaction, behind it: notes its `ROLLBACK` where it is dropped before its end.
    #[must_use]
    pub fn transaction(&self) -> OpenTransaction {
        OpenTransaction(self.clone())
    }

    fn start(&self, sql: &str) -> Option<Running> {
        let entry = Arc::clone(self.0.as_ref()?);
        let (sql, task) = (sql.to_owned(), task_id());
        // Cancelled until it turns out otherwise.
        Some(Running { entry, query: Query { sql, task, start_ns: now_ns(), cancelled: true, ..Query::default() } })
    }
}

/// A statement under way; noted when dropped.
struct Running {
    entry: Arc<Entry>,
    query: Query,
}

impl Running {
    fn failed(&mut self, sqlstate: Option<String>) {
        self.query.error = true;
        self.query.sqlstate = sqlstate;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.query.end_ns = now_ns();
        self.entry.query(std::mem::take(&mut self.query));
    }
}

/// See [`Notes::transaction`].
pub struct OpenTransaction(Notes);

impl OpenTransaction {
    /// It was committed or rolled back by a call.
    pub fn ended(mut self) {
        self.0 = Notes::default();
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        if let Some(mut running) = self.0.start("ROLLBACK") {
            running.query.cancelled = false;
            running.query.by_pool = true;
        }
    }
}

/// Rows under way; see [`Notes::stream`].
pub struct NotedStream<S: TryStream> {
    // Before the note: fields are dropped in order.
    stream: S,
    running: Option<Running>,
    sqlstate: fn(&S::Error) -> Option<String>,
}

impl<S: TryStream + Unpin> Stream for NotedStream<S> {
    type Item = Result<S::Ok, S::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).try_poll_next(context);
        if let Some(running) = &mut this.running {
            match &polled {
                Poll::Pending => {}
                Poll::Ready(Some(Ok(_))) => running.query.rows += 1,
                Poll::Ready(Some(Err(error))) => running.failed((this.sqlstate)(error)),
                Poll::Ready(None) => running.query.cancelled = false,
            }
        }
        if matches!(polled, Poll::Ready(None)) {
            this.running = None;
        }
        polled
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
    let record = Box::new(Record {
        id: sink.next_id(),
        client_id: header(&request, "x-request-id").map(str::to_owned),
        trace_id: header(&request, "traceparent").and_then(trace_id),
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
        late: Vec::new(),
    });
    let entry = Arc::new(Entry::new(sink, record));
    let head_only = request.method() == Method::HEAD;
    request.extensions_mut().insert(Arc::clone(&entry));
    // Dropped with this future where the client goes away before the answer.
    let guard = Guard { entry, complete: false };
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

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

/// The trace id of a `traceparent`: `00-TRACE-SPAN-FLAGS`.
fn trace_id(parent: &str) -> Option<String> {
    let id = parent.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_ascii_lowercase())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Sends the record when dropped.
struct Guard {
    entry: Arc<Entry>,
    complete: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Sent under the lock, so that no late statement is ahead of its record.
        let mut open = self.entry.lock();
        if let Some(mut record) = open.take() {
            record.end_ns = now_ns();
            record.aborted = !self.complete;
            self.entry.sink.send(record);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::{End, Writer, read};
    use futures_util::{StreamExt as _, stream};

    fn no_sqlstate(error: &&str) -> Option<String> {
        Some((*error).to_owned())
    }

    #[tokio::test]
    async fn a_statement_is_noted_whether_it_ends_fails_or_is_dropped_even_after_its_request() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("truth.jsonl");
        let writer = Writer::create(&path).expect("create");
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let record = serde_json::json!({
            "id": 0, "peer": addr, "local": addr, "method": "GET", "path": "/", "start_ns": 0, "handler_end_ns": 0,
            "end_ns": 0, "aborted": false, "queries": [],
        });
        let record = serde_json::from_value(record).expect("a record");
        let entry = Arc::new(Entry::new(writer.sink(), record));
        let notes = Notes(Some(Arc::clone(&entry)));
        let guard = Guard { entry, complete: true };

        let done = notes.query("done", |rows| *rows, no_sqlstate, async { Ok(3) }).await;
        assert_eq!(done, Ok(3));
        let failed = notes.query("failed", |()| 0, no_sqlstate, async { Err("23505") }).await;
        assert_eq!(failed, Err("23505"));
        let never = notes.query("never", |()| 0, no_sqlstate, std::future::pending());
        tokio::time::timeout(std::time::Duration::from_millis(5), never).await.expect_err("cancelled");
        // Never polled: nothing happened.
        drop(notes.query("nothing", |()| 0, no_sqlstate, std::future::pending()));
        let rows = || stream::iter([Ok(1), Ok(2), Err("57014")]);
        assert_eq!(notes.stream("all", no_sqlstate, rows()).count().await, 3);
        let mut some = notes.stream("some", no_sqlstate, rows());
        assert_eq!(some.next().await, Some(Ok(1)));
        drop(some);
        notes.transaction().ended();
        drop(notes.transaction());
        drop(guard);
        notes.query("late", |()| 0, no_sqlstate, async { Ok(()) }).await.expect("late");
        assert_eq!(writer.sink().open(), 1);
        drop(notes);
        assert_eq!(writer.sink().open(), 0);

        assert_eq!(writer.finish().expect("finish"), End { records: 1, late: 1, dropped: 0 });
        let (records, _) = read(&path).expect("read");
        let seen: Vec<_> = records[0]
            .all_queries()
            .map(|query| (&*query.sql, query.rows, query.sqlstate.as_deref(), query.cancelled, query.by_pool))
            .collect();
        assert_eq!(
            seen,
            [
                ("done", 3, None, false, false),
                ("failed", 0, Some("23505"), false, false),
                ("never", 0, None, true, false),
                ("all", 2, Some("57014"), false, false),
                ("some", 1, None, true, false),
                ("ROLLBACK", 0, None, false, true),
                ("late", 0, None, false, false),
            ]
        );
        assert_eq!((records[0].queries.len(), records[0].late.len()), (6, 1));
    }

    #[test]
    fn a_trace_id_is_taken_from_a_whole_traceparent_alone() {
        let id = "4BF92F3577B34DA6A3CE929D0E0E4736";
        assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")), Some(id.to_ascii_lowercase()));
        for bad in ["", "00", "00-abc-00f067aa0ba902b7-01", "00-zzf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"] {
            assert_eq!(trace_id(bad), None);
        }
    }
}
