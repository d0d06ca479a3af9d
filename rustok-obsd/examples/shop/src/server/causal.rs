//! Routes that exercise causality: statements in other tasks, on blocking threads, in transactions, cancelled, failing,
//! and after the answer. What each is due to do is in `example_common::causal`.

use std::pin::pin;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use example_common::bodies;
use example_common::causal::N;
use example_common::{seed, sql};
use futures_util::TryStreamExt as _;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, QueryFilter as _, QueryOrder as _, QueryResult,
    QuerySelect as _, Statement, Value as Bind,
};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::App;
use super::db::{Db, sqlstate};
use super::entity::product;
use super::error::{Answer, ApiError, NOT_FOUND};
use super::orm::Calls;
use super::tenant::Tenant;

impl From<JoinError> for ApiError {
    fn from(_: JoinError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, "a task failed")
    }
}

fn statement(sql: &str, values: impl IntoIterator<Item = Bind>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, sql, values)
}

async fn one(db: &impl Calls, sql: &str, value: impl Into<Bind>) -> Answer<QueryResult> {
    db.query_one_raw(statement(sql, [value.into()])).await?.ok_or(NOT_FOUND)
}

async fn count(db: &impl Calls, sql: &str, tenant: Tenant) -> Answer<i64> {
    Ok(one(db, sql, tenant.0).await?.try_get("", "n")?)
}

async fn price(db: &impl Calls, id: Uuid) -> Answer<i64> {
    Ok(one(db, sql::PRICE, id).await?.try_get("", "price")?)
}

async fn stock(db: &impl Calls, id: Uuid) -> Answer<i32> {
    Ok(one(db, sql::STOCK, id).await?.try_get("", "stock")?)
}

async fn find(db: &Db, tenant: Tenant, id: Uuid) -> Answer<product::Model> {
    let found = product::Entity::find_by_id(id).filter(product::Column::TenantId.eq(tenant.0)).one(db).await?;
    found.ok_or(NOT_FOUND)
}

/// `GET /api/causal/spawn/{id}`: the second statement in a task of its own.
pub async fn spawn(db: Db, tenant: Tenant, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let product = find(&db, tenant, id).await?;
    let stock = tokio::spawn(async move { stock(&db, id).await }).await??;
    Ok(Json(json!({ "title": product.title, "stock": stock })))
}

/// `GET /api/causal/join-set`: one statement in four tasks, then another in our own.
pub async fn join_set(db: Db, tenant: Tenant) -> Answer<Json<Value>> {
    let mut tasks = JoinSet::new();
    for n in 0..4 {
        let db = db.clone();
        tasks.spawn(async move { price(&db, seed::product_id(0, n)).await });
    }
    let mut sum = 0;
    while let Some(price) = tasks.join_next().await {
        sum += price??;
    }
    let products = count(&db, sql::COUNT_PRODUCTS, tenant).await?;
    Ok(Json(json!({ "sum": sum, "products": products })))
}

/// `GET /api/causal/join/{id}`: four statements at once in our own task, two of them alike.
pub async fn join(db: Db, tenant: Tenant, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let (price, nodes, posts, again) = tokio::join!(
        price(&db, id),
        count(&db, sql::COUNT_NODES, tenant),
        count(&db, sql::COUNT_POSTS, tenant),
        count(&db, sql::COUNT_POSTS, tenant),
    );
    Ok(Json(json!({ "price": price?, "nodes": nodes?, "posts": [posts?, again?] })))
}

/// `GET /api/causal/blocking/{id}`: the second statement on a blocking thread that waits for it.
pub async fn blocking(db: Db, tenant: Tenant, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let product = find(&db, tenant, id).await?;
    let stock = spawn_blocking(move || Handle::current().block_on(stock(&db, id))).await??;
    Ok(Json(json!({ "title": product.title, "stock": stock })))
}

/// `GET /api/causal/nested/{id}`: one statement in our own task, one in a task of ours, one in a task of that.
pub async fn nested(db: Db, tenant: Tenant, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let price = price(&db, id).await?;
    let outer = tokio::spawn(async move {
        let stock = stock(&db, id).await?;
        let product = tokio::spawn(async move { find(&db, tenant, id).await }).await??;
        Ok::<_, ApiError>((stock, product.title))
    });
    let (stock, title) = outer.await??;
    Ok(Json(json!({ "price": price, "stock": stock, "title": title })))
}

/// `GET /api/causal/session`: three statements, one after the other.
pub async fn session(db: Db, tenant: Tenant) -> Answer<Json<Value>> {
    let nodes = count(&db, sql::COUNT_NODES, tenant).await?;
    let posts = count(&db, sql::COUNT_POSTS, tenant).await?;
    let of_tenant = product::Entity::find().filter(product::Column::TenantId.eq(tenant.0));
    let products = of_tenant.order_by_asc(product::Column::Id).limit(5).all(&db).await?;
    Ok(Json(json!({ "nodes": nodes, "posts": posts, "products": products })))
}

/// `GET /api/causal/unprepared`: by the simple query protocol.
pub async fn unprepared(db: Db) -> Answer<StatusCode> {
    db.execute_unprepared(sql::COUNT_TENANTS).await?;
    Ok(StatusCode::OK)
}

/// `GET /api/causal/stream`: rows one by one, to the last.
pub async fn stream_all(db: Db, tenant: Tenant) -> Answer<Json<Value>> {
    stream(&db, tenant, usize::MAX).await
}

/// `GET /api/causal/stream/{rows}`: so many rows, then the stream is dropped.
pub async fn stream_some(db: Db, tenant: Tenant, Path(rows): Path<usize>) -> Answer<Json<Value>> {
    stream(&db, tenant, rows).await
}

async fn stream(db: &Db, tenant: Tenant, most: usize) -> Answer<Json<Value>> {
    let mut rows = pin!(db.stream(statement(sql::STREAM, [tenant.0.into()])));
    let mut bytes = 0;
    let mut count = 0;
    while count < most
        && let Some(row) = rows.try_next().await?
    {
        bytes += row.try_get::<String>("", "title")?.len();
        count += 1;
    }
    Ok(Json(json!({ "rows": count, "bytes": bytes })))
}

/// `GET /api/causal/n-plus-one`: a list, then one statement for each of its rows.
pub async fn n_plus_one(db: Db, tenant: Tenant) -> Answer<Json<Value>> {
    let list = db.query_all_raw(statement(sql::PRODUCT_IDS, [tenant.0.into(), (N as i64).into()])).await?;
    let mut stocks = Vec::new();
    for row in list {
        stocks.push(stock(&db, row.try_get("", "id")?).await?);
    }
    Ok(Json(json!({ "stocks": stocks })))
}

/// `GET /api/causal/pieces/{count}`: an answer of many small chunks.
pub async fn pieces(db: Db, tenant: Tenant, Path(pieces): Path<u32>) -> Answer<Body> {
    count(&db, sql::COUNT_POSTS, tenant).await?;
    Ok(bodies::pieces(pieces))
}

/// `GET /api/causal/no-content`
pub async fn no_content(db: Db, tenant: Tenant) -> Answer<StatusCode> {
    count(&db, sql::COUNT_NODES, tenant).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/causal/not-modified`
pub async fn not_modified(db: Db, tenant: Tenant) -> Answer<StatusCode> {
    count(&db, sql::COUNT_PRODUCTS, tenant).await?;
    count(&db, sql::COUNT_POSTS, tenant).await?;
    Ok(StatusCode::NOT_MODIFIED)
}

/// `POST /api/causal/transaction/{id}`: reads and writes, committed.
pub async fn transaction(db: Db, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let transaction = db.begin().await?;
    let stock = stock(&transaction, id).await?;
    transaction.execute_raw(statement(sql::TAKE, [id.into()])).await?;
    transaction.execute_raw(outbox(id)).await?;
    transaction.commit().await?;
    Ok(Json(json!({ "stock": stock - 1 })))
}

fn outbox(id: Uuid) -> Statement {
    statement(sql::OUTBOX, [Uuid::new_v4().into(), id.to_string().into()])
}

/// `POST /api/causal/rollback/{id}`: a transaction that is dropped.
pub async fn rollback(db: Db, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let transaction = db.begin().await?;
    transaction.execute_raw(statement(sql::TAKE, [id.into()])).await?;
    stock(&transaction, id).await?;
    Err(ApiError(StatusCode::CONFLICT, "not for sale"))
}

async fn sleep_in_database(db: &impl Calls, time: Duration) -> Answer<()> {
    one(db, sql::SLEEP, time.as_secs_f64()).await.map(drop)
}

/// `GET /api/causal/timeout/running`: a statement that is given up while the database works, or while it waits for a
/// connection where there are many requests; then another instead.
pub async fn timeout_running(db: Db, tenant: Tenant) -> Answer<Json<Value>> {
    let slow = timeout(Duration::from_millis(15), sleep_in_database(&db, Duration::from_millis(80))).await;
    let products = count(&db, sql::COUNT_PRODUCTS, tenant).await?;
    Ok(Json(json!({ "cancelled": slow.is_err(), "products": products })))
}

/// `GET /api/causal/timeout/pool`: a statement that is given up while it waits for a connection of a pool that has none
/// to give; then another on the usual pool.
pub async fn timeout_pool(State(app): State<App>, db: Db, tenant: Tenant) -> Answer<Json<Value>> {
    let narrow = db.on(&app.narrow);
    let holding = narrow.begin().await?;
    let waiting = timeout(Duration::from_millis(5), sleep_in_database(&narrow, Duration::ZERO)).await;
    holding.commit().await?;
    let products = count(&db, sql::COUNT_PRODUCTS, tenant).await?;
    Ok(Json(json!({ "cancelled": waiting.is_err(), "products": products })))
}

/// `POST /api/causal/detached/{id}`: answers, and a task goes on with two statements.
pub async fn detached(db: Db, Path(id): Path<Uuid>) -> Answer<(StatusCode, Json<Value>)> {
    let price = price(&db, id).await?;
    tokio::spawn(async move {
        sleep(Duration::from_millis(20)).await;
        db.execute_raw(outbox(id)).await?;
        stock(&db, id).await
    });
    Ok((StatusCode::ACCEPTED, Json(json!({ "price": price }))))
}

/// `POST /api/causal/fail/unique`: a unique violation that the handler expects.
pub async fn unique(db: Db, tenant: Tenant) -> Answer<Json<Value>> {
    let taken = db.execute_raw(statement(sql::TAKEN_SLUG, [Uuid::new_v4().into()])).await;
    count(&db, sql::COUNT_PRODUCTS, tenant).await?;
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
    db.execute_unprepared(sql::SYNTAX_ERROR).await?;
    Ok(StatusCode::OK)
}

/// `GET /api/causal/slow/{ms}`: the database sleeps, 30 s at most.
pub async fn slow(db: Db, Path(ms): Path<u64>) -> Answer<Json<Value>> {
    sleep_in_database(&db, Duration::from_millis(ms.min(30_000))).await?;
    Ok(Json(json!({ "slept_ms": ms })))
}
