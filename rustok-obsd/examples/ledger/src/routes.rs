//! The plain routes: products, nodes, the dashboard. They know the default tenant alone.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, StatusCode};
use example_common::seed::DEFAULT_TENANT;
use example_common::sql;
use serde_json::{Value, json};
use sqlx::Executor as _;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::db::{Answer, ApiError, Db, NOT_FOUND};
use crate::statement::{borrowed, boxed, shared};

/// id, tenant, sku, title, price, stock
pub type Product = (Uuid, Uuid, String, String, i64, i32);
/// id, tenant, kind, title, body, version
type Node = (Uuid, Uuid, String, String, String, i32);

/// The product, 404 where there is none.
pub async fn find(db: &Db, id: Uuid) -> Answer<Product> {
    let query = sqlx::query_as(sql::PRODUCT).bind(id).bind(DEFAULT_TENANT).bind(1_i64);
    db.optional(sql::PRODUCT, query.fetch_optional(&db.pool)).await?.ok_or(NOT_FOUND)
}

/// `GET /health/ready`: a `&str`, hence unprepared.
pub async fn ready(db: Db) -> Answer<StatusCode> {
    db.execute(sql::READY, db.pool.execute(sql::READY)).await?;
    Ok(StatusCode::OK)
}

/// `GET /api/commerce/products/{id}`
pub async fn product(db: Db, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let found = find(&db, id).await?;
    let query = sqlx::query_as::<_, Product>(boxed(sql::CHEAPER)).bind(DEFAULT_TENANT).bind(found.4).bind(3_i64);
    let cheaper = db.all(sql::CHEAPER, query.fetch_all(&db.pool)).await?;
    Ok(Json(json!({ "product": found, "cheaper": cheaper })))
}

fn limit(query: &HashMap<String, String>) -> i64 {
    query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(20).clamp(0, 100)
}

/// `GET /api/commerce/products`
pub async fn products(db: Db, Query(page): Query<HashMap<String, String>>) -> Answer<Json<Vec<Product>>> {
    let query = sqlx::query_as(sql::PRODUCTS).bind(DEFAULT_TENANT).bind(limit(&page));
    Ok(Json(db.all(sql::PRODUCTS, query.fetch_all(&db.pool)).await?))
}

/// `GET /api/content/nodes`
pub async fn nodes(db: Db, Query(page): Query<HashMap<String, String>>) -> Answer<Json<Vec<Node>>> {
    let query = sqlx::query_as(shared(sql::NODES)).bind(DEFAULT_TENANT).bind(limit(&page));
    Ok(Json(db.all(sql::NODES, query.fetch_all(&db.pool)).await?))
}

/// `GET /api/content/nodes/{id}`
pub async fn node(db: Db, Path(id): Path<Uuid>) -> Answer<Json<Node>> {
    let query = sqlx::query_as(sql::NODE).bind(id).bind(DEFAULT_TENANT).bind(1_i64);
    db.optional(sql::NODE, query.fetch_optional(&db.pool)).await?.map(Json).ok_or(NOT_FOUND)
}

/// `POST /api/sql` with `--raw-sql`: runs the body, unprepared, always on the same connection.
pub async fn raw(db: Db, text: String) -> Answer<Json<Value>> {
    let done = db.execute(&text, sqlx::raw_sql(borrowed(&text)).execute(&db.narrow)).await?;
    Ok(Json(json!({ "rows": done.rows_affected() })))
}

/// `POST /api/sql/prepared` with `--raw-sql`: the same prepared; `X-Bind` is the value of `$1`.
pub async fn prepared(db: Db, headers: HeaderMap, text: String) -> Answer<Json<Value>> {
    let query = sqlx::query(borrowed(&text));
    let query = match headers.get("x-bind").and_then(|value| value.to_str().ok()) {
        Some(value) => query.bind(value.to_owned()),
        None => query,
    };
    let done = db.execute(&text, query.execute(&db.narrow)).await?;
    Ok(Json(json!({ "rows": done.rows_affected() })))
}

/// `GET /api/dashboard`: three counts on tasks of their own.
pub async fn dashboard(db: Db) -> Answer<Json<Value>> {
    let mut tasks = JoinSet::new();
    for sql in [sql::COUNT_NODES, sql::COUNT_PRODUCTS, sql::COUNT_POSTS] {
        let db = db.clone();
        tasks.spawn(async move {
            let count = sqlx::query_scalar::<_, i64>(sql).bind(DEFAULT_TENANT);
            Ok::<_, ApiError>(db.one(sql, count.fetch_one(&db.pool)).await?)
        });
    }
    let counts = tasks.join_all().await.into_iter().collect::<Answer<Vec<_>>>()?;
    Ok(Json(json!({ "rows": counts.iter().sum::<i64>() })))
}
