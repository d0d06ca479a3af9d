//! What each path of the server answers.
//!
//! Reads: requests. Yields: responses. Costs: see [`super::server`]; the memory of an exposition is held until it is sent, and
//! counted meanwhile.

use super::hosts::Unanswered;
use super::peers::Busy;
use super::scrape::{Part, Scrape};
use super::server::Server;
use super::{accepts_gzip, negotiate_format};
use crate::contract::server::Refusal;
use crate::escape;
use crate::liveness::{self, Late};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout_at;

pub(super) fn router(server: Arc<Server>) -> Router {
    Part::PATHS
        .into_iter()
        .fold(Router::new(), |router, (path, part)| {
            let scrape = move |server, busy, query, headers| metrics(part, server, busy, query, headers);
            router.route(path, get(scrape))
        })
        .route("/", get(index))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .fallback(async || (StatusCode::NOT_FOUND, "not found; / lists what is here\n"))
        .with_state(server)
}

/// A scrape that takes half as long makes `/readyz` say so: there are few at a time.
const SLOW_SCRAPE: Duration = Duration::from_secs(120);
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
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", escape::line(&reason))),
    }
}

async fn status(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let body = escape::json(&format!("{:#}\n", server.status.status())).into_owned();
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body)
}

async fn metrics(
    part: Option<Part>,
    State(server): State<Arc<Server>>,
    Extension(busy): Extension<Arc<Busy>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let now = Instant::now();
    let mut scrape = Scrape { part, sample_limit: server.limits.samples, ..Scrape::default() };
    scrape.set_timeout(now, values(&headers, SCRAPE_TIMEOUT).next());
    if let Some(query) = query.filter(|query| !query.is_empty())
        && let Err(error) = scrape.set_query(&query, &server.exposition.names())
    {
        return (StatusCode::BAD_REQUEST, format!("{}\n", escape::line(&error.to_string()))).into_response();
    }
    // First the peer's own turn: so it cannot take all of everybody's.
    let until = (now + server.limits.scrape_wait.min(scrape.left() / 2)).into();
    let own = Arc::clone(&busy.connection().answers).acquire_owned();
    let Ok(Ok(own)) = timeout_at(until, own).await else { return too_many(&server) };
    let turn = Arc::clone(&server.scrapes).acquire_owned();
    let Ok(Ok(turn)) = timeout_at(until, turn).await else { return too_many(&server) };
    let format = negotiate_format(values(&headers, header::ACCEPT));
    let gzip = accepts_gzip(values(&headers, header::ACCEPT_ENCODING));
    let exposition = Arc::clone(&server.exposition);
    let rendered = tokio::task::spawn_blocking(move || {
        let beat = liveness::process().register_as("scrape", SLOW_SCRAPE, Late::Unready);
        let rendered = exposition.render(&scrape, format, gzip);
        drop((turn, beat));
        // Also where the client is gone meanwhile: its share is in use until here.
        (rendered, own)
    });
    match rendered.await {
        Ok((rendered, own)) => {
            let Some(unread) = Unread::take(&server, rendered.body.len() as u64, busy.connection().peer.is_local())
            else {
                server.exposition.server.refused.add(Refusal::AnswerBytes, 1);
                let body =
                    "answers that their clients do not read fill the memory for them; the next may come in a second\n";
                return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response();
            };
            let body = Bytes::from_owner(Sent { body: rendered.body, _unread: unread, _own: own, _busy: busy });
            let mut response = Response::new(Body::from(body));
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

fn too_many(server: &Server) -> Response {
    server.exposition.busy();
    let body = "too many scrapes at once; the next may come in a second\n";
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response()
}

/// The answer to a request by a name that is not this server's.
pub(super) fn unanswered(reason: &Unanswered) -> Response {
    let (status, what, remedy) = match reason {
        Unanswered::Missing => (StatusCode::BAD_REQUEST, "the request names no Host".to_owned(), String::new()),
        Unanswered::Several => (StatusCode::BAD_REQUEST, "the request names several Hosts".to_owned(), String::new()),
        Unanswered::Foreign(name) => {
            let shown =
                if name.is_empty() { "what its Host says, which is no name".to_owned() } else { format!("`{name}`") };
            let name = if name.is_empty() { "NAME" } else { name };
            let remedy = format!(
                "\nIf that is a name of this host that you gave it (a proxy, host.docker.internal), allow it: \
                 web.allowed_hosts = [\"{name}\"], or --web.allowed-hosts {name}."
            );
            (StatusCode::MISDIRECTED_REQUEST, format!("the request is for {shown}"), remedy)
        }
    };
    let body = format!(
        "not answered: {what}. This server answers to localhost, to loopback addresses, to its own address and to \
         web.allowed_hosts, so that no web page can make a browser read it under a name of the page's own (DNS \
         rebinding).{remedy}\n"
    );
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], body)
        .into_response()
}

/// An answer until hyper has sent it.
struct Sent {
    body: Bytes,
    _unread: Unread,
    _own: OwnedSemaphorePermit,
    _busy: Arc<Busy>,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Bytes of an answer in the budget of those that nobody has read yet.
struct Unread(Arc<AtomicU64>, u64);

impl Unread {
    /// `None` where they do not fit. One answer alone always does, however long it is.
    fn take(server: &Server, bytes: u64, local: bool) -> Option<Self> {
        let most = if local { server.limits.answer_bytes } else { server.limits.answer_bytes / 4 * 3 };
        let fits = |unread: u64| (unread == 0 || unread + bytes <= most).then_some(unread + bytes);
        server.unread.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Self(Arc::clone(&server.unread), bytes))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::super::Exposition;
    use super::super::server::{Limits, Status};
    use super::*;
    use axum::http::Request;
    use tower::ServiceExt as _;

    const HOSTILE: &str = "shop\nready\u{9b}2J\u{202e}";

    struct Hostile;

    impl Status for Hostile {
        fn ready(&self) -> Result<(), String> {
            Err(HOSTILE.into())
        }

        fn status(&self) -> serde_json::Value {
            serde_json::json!({ "exe": HOSTILE })
        }
    }

    #[test]
    fn a_hostile_name_forges_nothing_in_status_and_readiness() {
        let server = Server::new(Arc::new(Exposition::new()), Arc::new(Hostile), Limits::default());
        let router = router(Arc::new(server));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let get = |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = runtime.block_on(async {
                let answer = router.clone().oneshot(request).await.unwrap();
                axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap()
            });
            let text = String::from_utf8(answer.to_vec()).unwrap();
            assert!(!text.contains(|letter| letter != '\n' && escape::forges(letter)), "{text:?}");
            text
        };
        let status: serde_json::Value = serde_json::from_str(&get("/status")).unwrap();
        assert_eq!(status["exe"], HOSTILE);
        assert_eq!(get("/readyz").lines().count(), 1);
    }
}
