//! Routes that exercise causality: statements in other tasks, on blocking threads, in transactions, cancelled, failing,
//! and after the answer. What each is due to do is in `example_common::causal`.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::Path;
use axum::http::StatusCode;
use example_common::bodies;
use example_common::causal::N;
use example_common::seed::{self, DEFAULT_TENANT};
use example_common::sql;
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use sqlx::{PgExecutor, Row as _};
use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::db::{Answer, ApiError, Db, sqlstate};
use crate::routes::{Product, find};
use crate::statement::{borrowed, boxed, owned, shared, shared_string};

async fn count(db: &Db, on: impl PgExecutor<'_>, sql: &'static str) -> Answer<i64> {
    Ok(db.one(sql, sqlx::query_scalar(sql).bind(DEFAULT_TENANT).fetch_one(on)).await?)
}

async fn price(db: &Db, id: Uuid) -> Answer<i64> {
    let row = db.one(sql::PRICE, sqlx::query(owned(sql::PRICE)).bind(id).fetch_one(&db.pool)).await?;
    Ok(row.try_get("price")?)
}

async fn stock(db: &Db, on: impl PgExecutor<'_>, id: Uuid) -> Answer<i32> {
    Ok(db.one(sql::STOCK, sqlx::query_scalar(shared(sql::STOCK)).bind(id).fetch_one(on)).await?)
}

async fn take(db: &Db, on: impl PgExecutor<'_>, id: Uuid) -> Answer<()> {
    db.execute(sql::TAKE, sqlx::query(shared_string(sql::TAKE)).bind(id).execute(on)).await?;
    Ok(())
}

async fn outbox(db: &Db, on: impl PgExecutor<'_>, id: Uuid) -> Answer<()> {
    let query = sqlx::query(boxed(sql::OUTBOX)).bind(Uuid::new_v4()).bind(id.to_string());
    db.execute(sql::OUTBOX, query.execute(on)).await?;
    Ok(())
}

async fn sleep_in_database(db: &Db, on: impl PgExecutor<'_>, time: Duration) -> Answer<()> {
    db.one(sql::SLEEP, sqlx::query(sql::SLEEP).bind(time.as_secs_f64()).fetch_one(on)).await?;
    Ok(())
}

/// `GET /api/causal/spawn/{id}`: the second statement in a task of its own.
pub async fn spawn(db: Db, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let product = find(&db, id).await?;
    let stock = tokio::spawn(async move { stock(&db, &db.pool, id).await }).await??;
    Ok(Json(json!({ "title": product.3, "stock": stock })))
}

/// `GET /api/causal/join-set`: one statement in four tasks, then another in our own.
pub async fn join_set(db: Db) -> Answer<Json<Value>> {
    let mut tasks = JoinSet::new();
    for n in 0..4 {
        let db = db.clone();
        tasks.spawn(async move { price(&db, seed::product_id(0, n)).await });
    }
    let mut sum = 0;
    while let Some(price) = tasks.join_next().await {
        sum += price??;
    }
    let products = count(&db, &db.pool, sql::COUNT_PRODUCTS).await?;
    Ok(Json(json!({ "sum": sum, "products": products })))
}

/// `GET /api/causal/join/{id}`: four statements at once in our own task, two of them alike.
pub async fn join(db: Db, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let (price, nodes, posts, again) = tokio::join!(
        price(&db, id),
        count(&db, &db.pool, sql::COUNT_NODES),
        count(&db, &db.pool, sql::COUNT_POSTS),
        count(&db, &db.pool, sql::COUNT_POSTS),
    );
    Ok(Json(json!({ "price": price?, "nodes": nodes?, "posts": [posts?, again?] })))
}

/// `GET /api/causal/blocking/{id}`: the second statement on a blocking thread that waits for it.
pub async fn blocking(db: Db, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let product = find(&db, id).await?;
    let stock = spawn_blocking(move || Handle::current().block_on(stock(&db, &db.pool, id))).await??;
    Ok(Json(json!({ "title": product.3, "stock": stock })))
}

/// `GET /api/causal/nested/{id}`: one statement in our own task, one in a task of ours, one in a task of that.
pub async fn nested(db: Db, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let price = price(&db, id).await?;
    let outer = tokio::spawn(async move {
        let stock = stock(&db, &db.pool, id).await?;
        let product = tokio::spawn(async move { find(&db, id).await }).await??;
        Ok::<_, ApiError>((stock, product.3))
    });
    let (stock, title) = outer.await??;
    Ok(Json(json!({ "price": price, "stock": stock, "title": title })))
}

/// `GET /api/causal/session`: three statements on one connection.
pub async fn session(db: Db) -> Answer<Json<Value>> {
    let mut connection = db.pool.acquire().await?;
    let nodes = count(&db, &mut *connection, sql::COUNT_NODES).await?;
    let posts = count(&db, &mut *connection, sql::COUNT_POSTS).await?;
    let query = sqlx::query_as::<_, Product>(sql::PRODUCTS).bind(DEFAULT_TENANT).bind(5_i64);
    let products = db.all(sql::PRODUCTS, query.fetch_all(&mut *connection)).await?;
    Ok(Json(json!({ "nodes": nodes, "posts": posts, "products": products })))
}

/// `GET /api/causal/unprepared`: by the simple query protocol.
pub async fn unprepared(db: Db) -> Answer<StatusCode> {
    db.one(sql::COUNT_TENANTS, sqlx::raw_sql(sql::COUNT_TENANTS).fetch_one(&db.pool)).await?;
    Ok(StatusCode::OK)
}

/// `GET /api/causal/stream`: rows one by one, to the last.
pub async fn stream_all(db: Db) -> Answer<Json<Value>> {
    stream(&db, usize::MAX).await
}

/// `GET /api/causal/stream/{rows}`: so many rows, then the stream is dropped.
pub async fn stream_some(db: Db, Path(rows): Path<usize>) -> Answer<Json<Value>> {
    stream(&db, rows).await
}

async fn stream(db: &Db, most: usize) -> Answer<Json<Value>> {
    let query = sqlx::query_as::<_, (Uuid, String)>(sql::STREAM).bind(DEFAULT_TENANT);
    let mut rows = db.notes.stream(sql::STREAM, sqlstate, query.fetch(&db.pool));
    let mut bytes = 0;
    let mut count = 0;
    while count < most
        && let Some((_, title)) = rows.try_next().await?
    {
        bytes += title.len();
        count += 1;
    }
    Ok(Json(json!({ "rows": count, "bytes": bytes })))
}

/// `GET /api/causal/n-plus-one`: a list, then one statement for each of its rows.
pub async fn n_plus_one(db: Db) -> Answer<Json<Value>> {
    let query = sqlx::query_scalar(borrowed(sql::PRODUCT_IDS)).bind(DEFAULT_TENANT).bind(N as i64);
    let list: Vec<Uuid> = db.all(sql::PRODUCT_IDS, query.fetch_all(&db.pool)).await?;
    let mut stocks = Vec::new();
    for id in list {
        stocks.push(stock(&db, &db.pool, id).await?);
    }
    Ok(Json(json!({ "stocks": stocks })))
}

/// `GET /api/causal/pieces/{count}`: an answer of many small chunks.
pub async fn pieces(db: Db, Path(pieces): Path<u32>) -> Answer<Body> {
    count(&db, &db.pool, sql::COUNT_POSTS).await?;
    Ok(bodies::pieces(pieces))
}

/// `GET /api/causal/no-content`
pub async fn no_content(db: Db) -> Answer<StatusCode> {
    count(&db, &db.pool, sql::COUNT_NODES).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/causal/not-modified`
pub async fn not_modified(db: Db) -> Answer<StatusCode> {
    count(&db, &db.pool, sql::COUNT_PRODUCTS).await?;
    count(&db, &db.pool, sql::COUNT_POSTS).await?;
    Ok(StatusCode::NOT_MODIFIED)
}

/// `POST /api/causal/transaction/{id}`: reads and writes, committed.
pub async fn transaction(db: Db, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let mut transaction = db.begin(&db.pool).await?;
    let stock = stock(&db, &mut *transaction.inner, id).await?;
    take(&db, &mut *transaction.inner, id).await?;
    outbox(&db, &mut *transaction.inner, id).await?;
    transaction.commit(&db).await?;
    Ok(Json(json!({ "stock": stock - 1 })))
}

/// `POST /api/causal/rollback/{id}`: a transaction that is dropped.
pub async fn rollback(db: Db, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let mut transaction = db.begin(&db.pool).await?;
    take(&db, &mut *transaction.inner, id).await?;
    stock(&db, &mut *transaction.inner, id).await?;
    Err(ApiError(StatusCode::CONFLICT, "not for sale"))
}

/// `GET /api/causal/timeout/running`: a statement that is given up while the database works, or while it waits for a
/// connection where there are many requests; then another instead.
pub async fn timeout_running(db: Db) -> Answer<Json<Value>> {
    let slow = timeout(Duration::from_millis(15), sleep_in_database(&db, &db.pool, Duration::from_millis(80))).await;
    let products = count(&db, &db.pool, sql::COUNT_PRODUCTS).await?;
    Ok(Json(json!({ "cancelled": slow.is_err(), "products": products })))
}

/// `GET /api/causal/timeout/pool`: a statement that is given up while it waits for a connection of a pool that has none
/// to give; then another on the usual pool.
pub async fn timeout_pool(db: Db) -> Answer<Json<Value>> {
    let holding = db.begin(&db.narrow).await?;
    let waiting = timeout(Duration::from_millis(5), sleep_in_database(&db, &db.narrow, Duration::ZERO)).await;
    holding.commit(&db).await?;
    let products = count(&db, &db.pool, sql::COUNT_PRODUCTS).await?;
    Ok(Json(json!({ "cancelled": waiting.is_err(), "products": products })))
}

/// `POST /api/causal/detached/{id}`: answers, and a task goes on with two statements.
pub async fn detached(db: Db, Path(id): Path<Uuid>) -> Answer<(StatusCode, Json<Value>)> {
    let price = price(&db, id).await?;
    tokio::spawn(async move {
        sleep(Duration::from_millis(20)).await;
        outbox(&db, &db.pool, id).await?;
        stock(&db, &db.pool, id).await
    });
    Ok((StatusCode::ACCEPTED, Json(json!({ "price": price }))))
}

/// `POST /api/causal/fail/unique`: a unique violation that the handler expects.
pub async fn unique(db: Db) -> Answer<Json<Value>> {
    let query = sqlx::query(sql::TAKEN_SLUG).bind(Uuid::new_v4());
    let taken = db.execute(sql::TAKEN_SLUG, query.execute(&db.pool)).await;
    count(&db, &db.pool, sql::COUNT_PRODUCTS).await?;
    match taken {
        Err(error) if sqlstate(&error).as_deref() == Some("23505") => {
            Err(ApiError(StatusCode::CONFLICT, "the slug is taken"))
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Json(Value::Null)),
    }
}

/// `GET /api/causal/fail/syntax`: the database does not understand.
pub async fn syntax(db: Db) -> Answer<StatusCode> {
    db.execute(sql::SYNTAX_ERROR, sqlx::raw_sql(sql::SYNTAX_ERROR).execute(&db.pool)).await?;
    Ok(StatusCode::OK)
}

/// `GET /api/causal/slow/{ms}`: the database sleeps, 30 s at most.
pub async fn slow(db: Db, Path(ms): Path<u64>) -> Answer<Json<Value>> {
    sleep_in_database(&db, &db.pool, Duration::from_millis(ms.min(30_000))).await?;
    Ok(Json(json!({ "slept_ms": ms })))
}
