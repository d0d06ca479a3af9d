//! The server: routes, their middleware, and its start and end.
//!
//! Layers, from the outside: ground truth (with `--ground-truth`), span (with `--otel`), then below `/api` the tenant.

pub mod api;
pub mod bodies;
pub mod causal;
pub mod db;
pub mod entity;
pub mod error;
pub mod events;
pub mod graphql;
mod orm;
pub mod otel;
pub mod tenant;

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use bytes::Bytes;
use example_common::migrate;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection};

use example_common::truth::Sink;

pub use example_common::observe;

/// How long a database may be unreachable before we give up.
const CONNECT: Duration = Duration::from_secs(5);

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// See [`App`].
pub struct Shared {
    /// The pool.
    pub db: DatabaseConnection,
    /// A pool of one connection, so that it can be had used up.
    pub narrow: DatabaseConnection,
    /// GraphQL.
    pub schema: graphql::ShopSchema,
    /// EventBus.
    pub events: events::EventBus,
    /// Guards `/api/relay`.
    pub breaker: events::Breaker,
    /// Tenants seen.
    pub tenants: tenant::Cache,
    /// For `/api/relay`.
    pub client: Client<HttpConnector, Empty<Bytes>>,
    /// Where this server listens.
    pub addr: SocketAddr,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// Connects, migrates, starts the bus.
    ///
    /// # Errors
    /// If the database cannot be reached or migrated.
    pub async fn start(database_url: &str, pool: u32, addr: SocketAddr) -> anyhow::Result<Self> {
        let connect = async |most| {
            let mut options = ConnectOptions::new(database_url);
            options.min_connections(1).max_connections(most).connect_timeout(CONNECT).sqlx_logging(false);
            Database::connect(options).await.context("cannot connect to the database")
        };
        let db = connect(pool).await?;
        db.execute_unprepared(&migrate::script()).await.context("cannot migrate the database")?;
        let shared = Shared {
            db,
            narrow: connect(1).await?,
            schema: graphql::schema(),
            events: events::EventBus::start(),
            breaker: events::Breaker::default(),
            tenants: tenant::Cache::default(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            addr,
        };
        Ok(Self(Arc::new(shared)))
    }
}

/// All routes.
pub fn router(app: App, truth: Option<Sink>, otel: bool) -> Router {
    let v1 = Router::new()
        .route("/{locale}/pages/{slug}", get(api::page))
        .route("/{locale}/categories/{category}/pages/{slug}", get(api::category));
    let causal = Router::new()
        .route("/spawn/{id}", get(causal::spawn))
        .route("/join-set", get(causal::join_set))
        .route("/join/{id}", get(causal::join))
        .route("/blocking/{id}", get(causal::blocking))
        .route("/nested/{id}", get(causal::nested))
        .route("/session", get(causal::session))
        .route("/unprepared", get(causal::unprepared))
        .route("/stream", get(causal::stream_all))
        .route("/stream/{rows}", get(causal::stream_some))
        .route("/n-plus-one", get(causal::n_plus_one))
        .route("/pieces/{count}", get(causal::pieces))
        .route("/no-content", get(causal::no_content))
        .route("/not-modified", get(causal::not_modified))
        .route("/transaction/{id}", post(causal::transaction))
        .route("/rollback/{id}", post(causal::rollback))
        .route("/timeout/running", get(causal::timeout_running))
        .route("/timeout/pool", get(causal::timeout_pool))
        .route("/detached/{id}", post(causal::detached))
        .route("/fail/unique", post(causal::unique))
        .route("/fail/syntax", get(causal::syntax))
        .route("/slow/{ms}", get(causal::slow));
    let api = Router::new()
        .route("/content/nodes", get(api::nodes).post(api::create_node))
        .route("/content/nodes/{id}", get(api::node).put(api::update_node).delete(api::delete_node))
        .route("/commerce/products", get(api::products))
        .route("/commerce/products/{id}", get(api::product))
        .route("/blog/posts", get(api::posts))
        .route("/blog/posts/{id}", get(api::post))
        .route("/graphql", post(graphql::graphql))
        .route("/graphql/ws", get(bodies::web_socket))
        .route("/dashboard", get(api::dashboard))
        .route("/slow/{ms}", get(bodies::slow))
        .route("/fail/internal", get(bodies::internal))
        .route("/fail/unavailable", get(bodies::unavailable))
        .route("/fail/sql", get(bodies::sql_error))
        .route("/empty", get(bodies::empty))
        .route("/export/{kib}", get(bodies::export))
        .route("/stream/{chunks}", get(bodies::chunks))
        .route("/upload", post(bodies::upload).layer(DefaultBodyLimit::disable()))
        .route("/relay/{id}", get(bodies::relay))
        .nest("/causal", causal)
        .nest("/v1", v1)
        .route_layer(from_fn_with_state(app.clone(), tenant::resolve));
    let store = Router::new()
        .route("/", get(api::store))
        .route("/products/{id}", get(api::store_product))
        .route("/{locale}/carts/{cart}", get(api::cart))
        .with_state(app.clone());
    let store = match truth {
        Some(_) => store.layer(from_fn_with_state("/store", observe::inner_route)),
        None => store,
    };
    let mut router = Router::new()
        .route("/hello", get(bodies::hello))
        .route("/health", get(bodies::health))
        .route("/health/ready", get(bodies::ready))
        .route("/old/products/{id}", get(api::moved))
        .nest("/api", api)
        .nest_service("/store", store)
        .nest_service("/assets", tower::service_fn(bodies::asset))
        .fallback(bodies::fallback)
        .with_state(app);
    if otel {
        router = router.layer(from_fn(otel::span));
    }
    if let Some(sink) = truth {
        router = router.layer(from_fn_with_state(sink, observe::record));
    }
    router
}
