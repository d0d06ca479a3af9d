//! Creates the tables in a schema of their own and fills them, once.
//!
//! Pure: yields one script for the simple query protocol, which makes it one transaction. Several servers may start on
//! one database at once: an advisory lock lets one at a time.

use std::fmt::Write as _;

use crate::seed;

const TABLES: &str = "
SELECT pg_advisory_xact_lock(7266786);
SET LOCAL client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS shop;
CREATE TABLE IF NOT EXISTS shop.tenants (id uuid PRIMARY KEY, slug text NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS shop.nodes (id uuid PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES shop.tenants,
    kind text NOT NULL, title text NOT NULL, body text NOT NULL, version integer NOT NULL);
CREATE TABLE IF NOT EXISTS shop.products (id uuid PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES shop.tenants,
    sku text NOT NULL, title text NOT NULL, price bigint NOT NULL, stock integer NOT NULL);
CREATE TABLE IF NOT EXISTS shop.posts (id uuid PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES shop.tenants,
    locale text NOT NULL, slug text NOT NULL, title text NOT NULL, body text NOT NULL);
CREATE TABLE IF NOT EXISTS shop.sys_events (id uuid PRIMARY KEY, event_type text NOT NULL, payload text NOT NULL,
    status text NOT NULL);
CREATE INDEX IF NOT EXISTS nodes_of_tenant ON shop.nodes (tenant_id, id);
CREATE INDEX IF NOT EXISTS products_of_tenant ON shop.products (tenant_id, id);
CREATE INDEX IF NOT EXISTS posts_of_tenant ON shop.posts (tenant_id, locale, slug);
";

/// Brings a database to its first state with the rows of [`seed`], and leaves one that is there already.
#[must_use]
pub fn script() -> String {
    let mut script = TABLES.to_owned();
    let mut add = |table: &str, rows: &[String]| {
        // Fails never: a string takes what it is given. No value has a quote in it.
        let _ = writeln!(script, "INSERT INTO shop.{table} VALUES\n{}\nON CONFLICT DO NOTHING;", rows.join(",\n"));
    };
    let tenants: Vec<_> =
        seed::TENANTS.iter().enumerate().map(|(n, slug)| format!("('{}','{slug}')", seed::tenant_id(n))).collect();
    add("tenants", &tenants);
    for t in 0..seed::TENANTS.len() {
        let tenant = seed::tenant_id(t);
        let nodes = (0..seed::NODES).map(|n| {
            let (id, kind) = (seed::node_id(t, n), ["post", "page", "article", "comment"][n as usize % 4]);
            let body = "Lorem ipsum dolor sit amet. ".repeat(1 + n as usize % 20);
            format!("('{id}','{tenant}','{kind}','Node {n}','{body}',1)")
        });
        add("nodes", &nodes.collect::<Vec<_>>());
        let products = (0..seed::PRODUCTS).map(|n| {
            let (id, price) = (seed::product_id(t, n), 100 + n * 7);
            format!("('{id}','{tenant}','SKU-{n:05}','Product {n}',{price},1000)")
        });
        add("products", &products.collect::<Vec<_>>());
        let posts = (0..seed::POSTS).map(|n| {
            let (id, locale) = (seed::post_id(t, n), seed::LOCALES[n as usize % seed::LOCALES.len()]);
            let body = "All work and no play. ".repeat(1 + n as usize % 30);
            format!("('{id}','{tenant}','{locale}','post-{n}','Post {n}','{body}')")
        });
        add("posts", &posts.collect::<Vec<_>>());
    }
    script
}
