//! The statements of the routes that all servers have. Where sea-orm makes the text, this is the text that it makes, so
//! that two servers on one database run the same statements.

/// A product of a tenant: `$1` id, `$2` tenant, `$3` limit.
pub const PRODUCT: &str = r#"SELECT "products"."id", "products"."tenant_id", "products"."sku", "products"."title", "products"."price", "products"."stock" FROM "shop"."products" WHERE "products"."id" = $1 AND "products"."tenant_id" = $2 LIMIT $3"#;

/// Cheaper products of a tenant: `$1` tenant, `$2` price, `$3` limit.
pub const CHEAPER: &str = r#"SELECT "products"."id", "products"."tenant_id", "products"."sku", "products"."title", "products"."price", "products"."stock" FROM "shop"."products" WHERE "products"."tenant_id" = $1 AND "products"."price" < $2 ORDER BY "products"."price" DESC LIMIT $3"#;

/// Products of a tenant: `$1` tenant, `$2` limit.
pub const PRODUCTS: &str = r#"SELECT "products"."id", "products"."tenant_id", "products"."sku", "products"."title", "products"."price", "products"."stock" FROM "shop"."products" WHERE "products"."tenant_id" = $1 ORDER BY "products"."id" ASC LIMIT $2"#;

/// A node of a tenant: `$1` id, `$2` tenant, `$3` limit.
pub const NODE: &str = r#"SELECT "nodes"."id", "nodes"."tenant_id", "nodes"."kind", "nodes"."title", "nodes"."body", "nodes"."version" FROM "shop"."nodes" WHERE "nodes"."id" = $1 AND "nodes"."tenant_id" = $2 LIMIT $3"#;

/// Nodes of a tenant: `$1` tenant, `$2` limit.
pub const NODES: &str = r#"SELECT "nodes"."id", "nodes"."tenant_id", "nodes"."kind", "nodes"."title", "nodes"."body", "nodes"."version" FROM "shop"."nodes" WHERE "nodes"."tenant_id" = $1 ORDER BY "nodes"."id" ASC LIMIT $2"#;

/// Nodes of a tenant, counted: `$1` tenant.
pub const COUNT_NODES: &str = "SELECT count(*) AS n FROM shop.nodes WHERE tenant_id = $1";

/// Products of a tenant, counted: `$1` tenant.
pub const COUNT_PRODUCTS: &str = "SELECT count(*) AS n FROM shop.products WHERE tenant_id = $1";

/// Posts of a tenant, counted: `$1` tenant.
pub const COUNT_POSTS: &str = "SELECT count(*) AS n FROM shop.posts WHERE tenant_id = $1";

/// Price of a product: `$1` id.
pub const PRICE: &str = "SELECT price FROM shop.products WHERE id = $1";

/// Title of a post: `$1` id.
pub const POST_TITLE: &str = "SELECT title FROM shop.posts WHERE id = $1";

/// Ids of a tenant's products, the list of an N+1: `$1` tenant, `$2` limit.
pub const PRODUCT_IDS: &str = "SELECT id FROM shop.products WHERE tenant_id = $1 ORDER BY id LIMIT $2";

/// Stock of a product, one of an N+1: `$1` id.
pub const STOCK: &str = "SELECT stock FROM shop.products WHERE id = $1";

/// Takes one from the stock: `$1` id.
pub const TAKE: &str = "UPDATE shop.products SET stock = stock - 1 WHERE id = $1";

/// Writes to the outbox: `$1` id, `$2` payload.
pub const OUTBOX: &str =
    "INSERT INTO shop.sys_events (id, event_type, payload, status) VALUES ($1, 'stock.changed', $2, 'pending')";

/// All products of a tenant, to be streamed: `$1` tenant.
pub const STREAM: &str = "SELECT id, title FROM shop.products WHERE tenant_id = $1 ORDER BY title";

/// Works for `$1` seconds.
pub const SLEEP: &str = "SELECT pg_sleep($1)";

/// A tenant whose slug is taken, hence SQLSTATE 23505: `$1` id.
pub const TAKEN_SLUG: &str = "INSERT INTO shop.tenants (id, slug) VALUES ($1, 'default')";

/// What is no SQL, unprepared, hence SQLSTATE 42601.
pub const SYNTAX_ERROR: &str = "SELEC title FROM shop.products";

/// Without parameters, unprepared.
pub const COUNT_TENANTS: &str = "SELECT count(*) AS n FROM shop.tenants";

/// Of `/health/ready`, unprepared.
pub const READY: &str = "SELECT 1";
