//! The REST routes that RusToK has: content, commerce, blog, pages, the storefront.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, EntityTrait as _, IntoActiveModel as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::App;
use super::db::Db;
use super::entity::{event, node, post, product};
use super::error::{Answer, NOT_FOUND};
use super::events::Event;
use super::tenant::Tenant;
use example_common::seed::post_etag;

/// Paging.
#[derive(Deserialize)]
pub struct Page {
    limit: Option<u64>,
}

impl Page {
    fn limit(&self) -> u64 {
        self.limit.unwrap_or(20).min(100)
    }
}

/// What a client sends to create or change a node.
#[derive(Deserialize, Serialize)]
pub struct NodeInput {
    /// `post`, `page`, `article` or `comment`.
    pub kind: String,
    /// Title.
    pub title: String,
    /// Text.
    pub body: String,
}

/// `GET /api/content/nodes`
pub async fn nodes(db: Db, tenant: Tenant, Query(page): Query<Page>) -> Answer<Json<Vec<node::Model>>> {
    let of_tenant = node::Entity::find().filter(node::Column::TenantId.eq(tenant.0));
    Ok(Json(of_tenant.order_by_asc(node::Column::Id).limit(page.limit()).all(&db).await?))
}

/// `GET /api/content/nodes/{id}`
pub async fn node(db: Db, tenant: Tenant, Path(id): Path<Uuid>) -> Answer<Json<node::Model>> {
    find_node(&db, tenant, id).await.map(Json)
}

/// The node, 404 where the tenant has none of this id.
///
/// # Errors
/// 404, 500.
pub async fn find_node(db: &Db, tenant: Tenant, id: Uuid) -> Answer<node::Model> {
    let found = node::Entity::find_by_id(id).filter(node::Column::TenantId.eq(tenant.0)).one(db).await?;
    found.ok_or(NOT_FOUND)
}

/// `POST /api/content/nodes`
pub async fn create_node(
    State(app): State<App>,
    db: Db,
    tenant: Tenant,
    Json(input): Json<NodeInput>,
) -> Answer<Response> {
    let model = insert_node(&app, &db, tenant, input).await?;
    let location = format!("/api/content/nodes/{}", model.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(model)).into_response())
}

/// Inserts node and outbox row in one transaction, then tells the bus.
///
/// # Errors
/// 500.
pub async fn insert_node(app: &App, db: &Db, tenant: Tenant, input: NodeInput) -> Answer<node::Model> {
    let id = Uuid::new_v4();
    let transaction = db.begin().await?;
    let model = node::ActiveModel {
        id: Set(id),
        tenant_id: Set(tenant.0),
        kind: Set(input.kind),
        title: Set(input.title),
        body: Set(input.body),
        version: Set(1),
    };
    let model = model.insert(&transaction).await?;
    let outbox = event::ActiveModel {
        id: Set(Uuid::new_v4()),
        event_type: Set("node.created".to_owned()),
        payload: Set(id.to_string()),
        status: Set("pending".to_owned()),
    };
    outbox.insert(&transaction).await?;
    transaction.commit().await?;
    app.events.publish(Event { kind: "node.created", id });
    Ok(model)
}

/// `PUT /api/content/nodes/{id}`
pub async fn update_node(
    State(app): State<App>,
    db: Db,
    tenant: Tenant,
    Path(id): Path<Uuid>,
    Json(input): Json<NodeInput>,
) -> Answer<Json<node::Model>> {
    let known = find_node(&db, tenant, id).await?;
    let mut changed = known.clone().into_active_model();
    changed.version = Set(known.version + 1);
    changed.title = Set(input.title);
    changed.body = Set(input.body);
    let model = changed.update(&db).await?;
    app.events.publish(Event { kind: "node.updated", id });
    Ok(Json(model))
}

/// `DELETE /api/content/nodes/{id}`
pub async fn delete_node(State(app): State<App>, db: Db, tenant: Tenant, Path(id): Path<Uuid>) -> Answer<StatusCode> {
    let of_tenant = node::Entity::delete_by_id(id).filter(node::Column::TenantId.eq(tenant.0));
    if of_tenant.exec(&db).await?.rows_affected == 0 {
        return Err(NOT_FOUND);
    }
    app.events.publish(Event { kind: "node.deleted", id });
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/commerce/products`
pub async fn products(db: Db, tenant: Tenant, Query(page): Query<Page>) -> Answer<Json<Vec<product::Model>>> {
    let of_tenant = product::Entity::find().filter(product::Column::TenantId.eq(tenant.0));
    Ok(Json(of_tenant.order_by_asc(product::Column::Id).limit(page.limit()).all(&db).await?))
}

/// `GET /api/commerce/products/{id}`: two statements, the product and whether others are cheaper.
pub async fn product(db: Db, tenant: Tenant, Path(id): Path<Uuid>) -> Answer<Json<Value>> {
    let found = product::Entity::find_by_id(id).filter(product::Column::TenantId.eq(tenant.0)).one(&db).await?;
    let found = found.ok_or(NOT_FOUND)?;
    let cheaper = product::Entity::find()
        .filter(product::Column::TenantId.eq(tenant.0))
        .filter(product::Column::Price.lt(found.price))
        .order_by_desc(product::Column::Price)
        .limit(3)
        .all(&db)
        .await?;
    Ok(Json(json!({ "product": found, "cheaper": cheaper })))
}

/// `GET /api/blog/posts`
pub async fn posts(db: Db, tenant: Tenant, Query(page): Query<Page>) -> Answer<Json<Vec<post::Model>>> {
    let of_tenant = post::Entity::find().filter(post::Column::TenantId.eq(tenant.0));
    Ok(Json(of_tenant.order_by_asc(post::Column::Slug).limit(page.limit()).all(&db).await?))
}

/// `GET /api/blog/posts/{id}`: 304 where the client has it.
pub async fn post(db: Db, tenant: Tenant, Path(id): Path<Uuid>, headers: HeaderMap) -> Answer<Response> {
    let found = post::Entity::find_by_id(id).filter(post::Column::TenantId.eq(tenant.0)).one(&db).await?;
    let found = found.ok_or(NOT_FOUND)?;
    let etag = post_etag(id);
    let unchanged = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let etag = [(header::ETAG, etag)];
    Ok(if unchanged { (StatusCode::NOT_MODIFIED, etag).into_response() } else { (etag, Json(found)).into_response() })
}

/// `GET /api/v1/{locale}/pages/{slug}`
pub async fn page(db: Db, tenant: Tenant, Path((locale, slug)): Path<(String, String)>) -> Answer<Json<post::Model>> {
    let of_tenant = post::Entity::find().filter(post::Column::TenantId.eq(tenant.0));
    let found = of_tenant.filter(post::Column::Locale.eq(locale)).filter(post::Column::Slug.eq(slug)).one(&db).await?;
    found.map(Json).ok_or(NOT_FOUND)
}

/// `GET /api/v1/{locale}/categories/{category}/pages/{slug}`: no database.
pub async fn category(Path((locale, category, slug)): Path<(String, String, String)>) -> Json<Value> {
    Json(json!({ "locale": locale, "category": category, "slug": slug }))
}

/// `GET /store/`
pub async fn store() -> &'static str {
    "storefront"
}

/// `GET /store/products/{id}`
pub async fn store_product(db: Db, Path(id): Path<Uuid>) -> Answer<String> {
    let found = product::Entity::find_by_id(id).one(&db).await?;
    found.map(|product| product.title).ok_or(NOT_FOUND)
}

/// `GET /store/{locale}/carts/{cart}`
pub async fn cart(Path((locale, cart)): Path<(String, String)>) -> Json<Value> {
    Json(json!({ "locale": locale, "cart": cart, "lines": [] }))
}

/// `GET /old/products/{id}`
pub async fn moved(Path(id): Path<String>) -> Redirect {
    Redirect::permanent(&format!("/api/commerce/products/{id}"))
}

/// `GET /api/dashboard`: three counts on tasks of their own and a sum on a blocking thread.
pub async fn dashboard(db: Db, tenant: Tenant) -> Answer<Json<Value>> {
    let mut tasks = tokio::task::JoinSet::new();
    for table in ["nodes", "products", "posts"] {
        let db = db.clone();
        tasks.spawn(async move {
            use sea_orm::{DbBackend, Statement};

            use super::orm::Calls as _;
            let sql = format!("SELECT count(*) AS n FROM shop.{table} WHERE tenant_id = $1");
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [tenant.0.into()]);
            let row = db.query_one_raw(statement).await?.ok_or(NOT_FOUND)?;
            Ok::<_, super::error::ApiError>(row.try_get::<i64>("", "n")?)
        });
    }
    let counts = tasks.join_all().await.into_iter().collect::<Answer<Vec<_>>>()?;
    let rows = tokio::task::spawn_blocking(move || counts.iter().sum::<i64>()).await;
    Ok(Json(json!({ "rows": rows.unwrap_or_default() })))
}
