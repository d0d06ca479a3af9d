//! Routes that make HTTP interesting: slow, failing, large, chunked, uploaded, upgraded, relayed.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use example_common::sql;
use futures_util::stream;
use http_body_util::{BodyExt as _, Empty};
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use super::App;
use super::db::Db;
use super::error::{Answer, ApiError, NOT_FOUND};
use super::observe::note_inner_route;

/// Largest `/api/export`.
const MAX_EXPORT: u64 = 64 << 20;
const FRAME: usize = 64 << 10;
static ZEROES: [u8; FRAME] = [0; FRAME];

/// `GET /hello`: nothing but HTTP, for measuring saturation.
pub async fn hello() -> &'static str {
    "Hello, World!"
}

/// `GET /health`
pub async fn health(State(app): State<App>) -> Json<Value> {
    let [published, processed, dropped] = app.events.counts();
    Json(json!({
        "status": "ok",
        "event_bus": { "published": published, "processed": processed, "dropped": dropped },
        "circuit_breaker": { "relay": format!("{:?}", app.breaker.state()) },
    }))
}

/// `GET /health/ready`: `SELECT 1`.
pub async fn ready(db: Db) -> Answer<Json<Value>> {
    db.execute_unprepared(sql::READY).await?;
    Ok(Json(json!({ "status": "ok" })))
}

/// `GET /api/slow/{ms}`: sleeps, 30 s at most.
pub async fn slow(Path(ms): Path<u64>) -> Json<Value> {
    let ms = ms.min(30_000);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Json(json!({ "slept_ms": ms }))
}

/// `GET /api/fail/internal`
pub async fn internal() -> ApiError {
    ApiError(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
}

/// `GET /api/fail/unavailable`
pub async fn unavailable() -> ApiError {
    ApiError(StatusCode::SERVICE_UNAVAILABLE, "try later")
}

/// `GET /api/fail/sql`: the database refuses the statement.
pub async fn sql_error(db: Db) -> Answer<StatusCode> {
    db.execute_unprepared("SELECT missing FROM shop.no_such_table").await?;
    Ok(StatusCode::OK)
}

/// `GET /api/empty`
pub async fn empty() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// `GET /api/export/{kib}`: so many KiB with `Content-Length`, in frames, 64 MiB at most.
pub async fn export(Path(kib): Path<u64>) -> Answer<Response> {
    let size = kib.checked_mul(1024).filter(|size| *size <= MAX_EXPORT);
    let size = size.ok_or(ApiError(StatusCode::BAD_REQUEST, "64 MiB is the most"))?;
    let frames = stream::unfold(size, |left| async move {
        // `left` is smaller than the frame where the conversion matters.
        let next = usize::try_from(left).unwrap_or(FRAME).min(FRAME);
        (next > 0).then(|| (Ok::<_, Infallible>(Bytes::from_static(&ZEROES[..next])), left - next as u64))
    });
    let headers =
        [(header::CONTENT_LENGTH, size.to_string()), (header::CONTENT_TYPE, "application/octet-stream".into())];
    Ok((headers, Body::from_stream(frames)).into_response())
}

/// `GET /api/stream/{chunks}`: so many chunks, a millisecond apart, without a length; 10 000 at most.
pub async fn chunks(Path(chunks): Path<u32>) -> Response {
    let lines = stream::unfold(0, move |n| async move {
        if n == chunks.min(10_000) {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        Some((Ok::<_, Infallible>(Bytes::from(format!("line {n}\n"))), n + 1))
    });
    Body::from_stream(lines).into_response()
}

/// `POST /api/upload`: reads the body, of any size and coding, and says how long it was.
pub async fn upload(request: Request) -> Answer<Json<Value>> {
    let mut body = request.into_body();
    let mut bytes = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError(StatusCode::BAD_REQUEST, "the body ended early"))?;
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(Json(json!({ "bytes": bytes })))
}

/// `GET /api/graphql/ws`: sends back what it gets.
pub async fn web_socket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|mut socket: WebSocket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            let echo = matches!(message, Message::Text(_) | Message::Binary(_));
            if echo && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// `GET /api/relay/{id}`: asks the shop itself for a product, over a kept connection, behind a circuit breaker.
pub async fn relay(State(app): State<App>, Path(id): Path<String>, headers: HeaderMap) -> Answer<Response> {
    if !app.breaker.admits(Instant::now()) {
        return Err(ApiError(StatusCode::SERVICE_UNAVAILABLE, "circuit open"));
    }
    let mut request = Request::get(format!("http://{}/api/commerce/products/{id}", app.addr));
    if let Some(tenant) = headers.get("x-tenant-id") {
        request = request.header("x-tenant-id", tenant);
    }
    if let Some(client_id) = headers.get("x-request-id").and_then(|client_id| client_id.to_str().ok()) {
        request = request.header("x-request-id", format!("{client_id}.relay"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| NOT_FOUND)?;
    let answer = app.client.request(request).await;
    app.breaker.note(answer.is_ok(), Instant::now());
    let answer = answer.map_err(|_| ApiError(StatusCode::BAD_GATEWAY, "no answer"))?;
    let (status, body) = (answer.status(), answer.into_body().collect().await);
    let body = body.map_err(|_| ApiError(StatusCode::BAD_GATEWAY, "the answer ended early"))?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body.to_bytes()).into_response())
}

/// Static files below `/assets`: a service that is no router, as `tower_http`'s `ServeDir` is none.
pub async fn asset(request: Request) -> Result<Response, Infallible> {
    note_inner_route(&request, "/assets");
    let (kind, text) = match request.uri().path() {
        "/app.js" => ("text/javascript", "console.log('shop');\n"),
        "/css/site.css" => ("text/css", "body { margin: 0 }\n"),
        "/" => ("text/html", "<!doctype html><title>assets</title>\n"),
        _ => return Ok(StatusCode::NOT_FOUND.into_response()),
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Where nothing matched.
pub async fn fallback() -> ApiError {
    NOT_FOUND
}
