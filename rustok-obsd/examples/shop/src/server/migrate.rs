//! Creates the tables in a schema of their own and fills them, once.
//!
//! Reads: `shop.migrations`. Yields: the tables of [`super::entity`] with the rows of [`crate::seed`]. Several servers
//! may start on one database at once: an advisory lock lets one at a time.

use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::Set, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait, IntoActiveModel, TransactionTrait as _,
};

use super::entity::{node, post, product, tenant};
use crate::seed;

const STEPS: [&str; 2] = [
    "CREATE TABLE shop.tenants (id uuid PRIMARY KEY, slug text NOT NULL UNIQUE);
     CREATE TABLE shop.nodes (id uuid PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES shop.tenants, kind text NOT NULL,
        title text NOT NULL, body text NOT NULL, version integer NOT NULL);
     CREATE TABLE shop.products (id uuid PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES shop.tenants,
        sku text NOT NULL, title text NOT NULL, price bigint NOT NULL, stock integer NOT NULL);
     CREATE TABLE shop.posts (id uuid PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES shop.tenants,
        locale text NOT NULL, slug text NOT NULL, title text NOT NULL, body text NOT NULL);
     CREATE INDEX ON shop.nodes (tenant_id, id); CREATE INDEX ON shop.products (tenant_id, id);
     CREATE INDEX ON shop.posts (tenant_id, locale, slug)",
    "CREATE TABLE shop.sys_events (id uuid PRIMARY KEY, event_type text NOT NULL, payload text NOT NULL,
        status text NOT NULL)",
];

/// Brings the database to the newest state.
///
/// # Errors
/// What the database says, for instance that the role may not create a schema.
pub async fn run(db: &DatabaseConnection) -> Result<(), DbErr> {
    let transaction = db.begin().await?;
    transaction.execute_unprepared("SELECT pg_advisory_xact_lock(7266786)").await?;
    transaction
        .execute_unprepared(
            "SET LOCAL client_min_messages = warning; CREATE SCHEMA IF NOT EXISTS shop;
             CREATE TABLE IF NOT EXISTS shop.migrations (step integer PRIMARY KEY)",
        )
        .await?;
    for (step, sql) in STEPS.iter().enumerate() {
        let mark = format!("INSERT INTO shop.migrations VALUES ({step}) ON CONFLICT DO NOTHING");
        if transaction.execute_unprepared(&mark).await?.rows_affected() == 1 {
            transaction.execute_unprepared(sql).await?;
        }
    }
    fill(&transaction).await?;
    transaction.commit().await
}

async fn fill(db: &impl ConnectionTrait) -> Result<(), DbErr> {
    let tenants = seed::TENANTS
        .iter()
        .enumerate()
        .map(|(n, slug)| tenant::ActiveModel { id: Set(seed::tenant_id(n)), slug: Set((*slug).to_owned()) });
    add::<tenant::Entity>(db, tenants.collect()).await?;
    for t in 0..seed::TENANTS.len() {
        let tenant_id = seed::tenant_id(t);
        let nodes = (0..seed::NODES).map(|n| node::ActiveModel {
            id: Set(seed::node_id(t, n)),
            tenant_id: Set(tenant_id),
            kind: Set(["post", "page", "article", "comment"][n as usize % 4].to_owned()),
            title: Set(format!("Node {n}")),
            body: Set("Lorem ipsum dolor sit amet. ".repeat(1 + n as usize % 20)),
            version: Set(1),
        });
        add::<node::Entity>(db, nodes.collect()).await?;
        let products = (0..seed::PRODUCTS).map(|n| product::ActiveModel {
            id: Set(seed::product_id(t, n)),
            tenant_id: Set(tenant_id),
            sku: Set(format!("SKU-{n:05}")),
            title: Set(format!("Product {n}")),
            price: Set(100 + i64::from(n) * 7),
            stock: Set(1000),
        });
        add::<product::Entity>(db, products.collect()).await?;
        let posts = (0..seed::POSTS).map(|n| post::ActiveModel {
            id: Set(seed::post_id(t, n)),
            tenant_id: Set(tenant_id),
            locale: Set(seed::LOCALES[n as usize % seed::LOCALES.len()].to_owned()),
            slug: Set(format!("post-{n}")),
            title: Set(format!("Post {n}")),
            body: Set("All work and no play. ".repeat(1 + n as usize % 30)),
        });
        add::<post::Entity>(db, posts.collect()).await?;
    }
    Ok(())
}

async fn add<E: EntityTrait>(db: &impl ConnectionTrait, rows: Vec<E::ActiveModel>) -> Result<(), DbErr>
where
    E::Model: IntoActiveModel<E::ActiveModel>,
{
    let nothing = OnConflict::new().do_nothing().to_owned();
    E::insert_many(rows).on_conflict(nothing).exec_without_returning(db).await.map(drop)
}
