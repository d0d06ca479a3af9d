//! `POST /api/graphql`: async-graphql over the same tables.

use async_graphql::{Context, EmptySubscription, ID, Object, Request, Response, Schema, SimpleObject};
use axum::Json;
use axum::extract::State;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};
use uuid::Uuid;

use super::App;
use super::api::{NodeInput, find_node, insert_node};
use super::db::Db;
use super::entity::{node, product};
use super::error::ApiError;
use super::tenant::Tenant;

/// The schema.
pub type ShopSchema = Schema<QueryRoot, MutationRoot, EmptySubscription>;

/// Builds the schema.
#[must_use]
pub fn schema() -> ShopSchema {
    Schema::new(QueryRoot, MutationRoot, EmptySubscription)
}

/// The handler; GraphQL's own errors are answers with status 200.
pub async fn graphql(State(app): State<App>, db: Db, tenant: Tenant, Json(request): Json<Request>) -> Json<Response> {
    let request = request.data(app.clone()).data(db).data(tenant);
    Json(app.schema.execute(request).await)
}

#[derive(SimpleObject)]
struct Node {
    id: ID,
    kind: String,
    title: String,
    version: i32,
}

impl From<node::Model> for Node {
    fn from(row: node::Model) -> Self {
        Self { id: row.id.into(), kind: row.kind, title: row.title, version: row.version }
    }
}

#[derive(SimpleObject)]
struct Product {
    id: ID,
    title: String,
    price: i64,
}

impl From<product::Model> for Product {
    fn from(row: product::Model) -> Self {
        Self { id: row.id.into(), title: row.title, price: row.price }
    }
}

impl From<ApiError> for async_graphql::Error {
    fn from(error: ApiError) -> Self {
        Self::new(error.1)
    }
}

/// Queries.
pub struct QueryRoot;

#[Object]
impl QueryRoot {
    async fn node(&self, context: &Context<'_>, id: ID) -> async_graphql::Result<Node> {
        let (db, tenant) = (context.data::<Db>()?, context.data::<Tenant>()?);
        Ok(find_node(db, *tenant, Uuid::parse_str(&id)?).await?.into())
    }

    async fn products(&self, context: &Context<'_>, limit: Option<u64>) -> async_graphql::Result<Vec<Product>> {
        let (db, tenant) = (context.data::<Db>()?, context.data::<Tenant>()?);
        let rows = product::Entity::find()
            .filter(product::Column::TenantId.eq(tenant.0))
            .order_by_asc(product::Column::Id)
            .limit(limit.unwrap_or(10).min(100))
            .all(db)
            .await
            .map_err(ApiError::from)?;
        Ok(rows.into_iter().map(Product::from).collect())
    }
}

/// Mutations.
pub struct MutationRoot;

#[Object]
impl MutationRoot {
    async fn create_node(&self, context: &Context<'_>, title: String, body: String) -> async_graphql::Result<Node> {
        let (app, db, tenant) = (context.data::<App>()?, context.data::<Db>()?, context.data::<Tenant>()?);
        let input = NodeInput { kind: "article".to_owned(), title, body };
        Ok(insert_node(app, db, *tenant, input).await?.into())
    }
}
