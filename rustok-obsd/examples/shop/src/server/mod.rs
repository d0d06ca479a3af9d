//! The server: routes, their middleware, and its start and end.
//!
//! Layers, from the outside: ground truth (with `--ground-truth`), span (with `--otel`), then below `/api` the tenant.

pub mod api;
pub mod bodies;
pub mod db;
pub mod entity;
pub mod error;
pub mod events;
pub mod graphql;
mod migrate;
pub mod observe;
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
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use tokio::net::TcpListener;

use crate::truth::Sink;

pub(crate) use observe::note_inner_route as note_nested;

/// How long open requests may take after a signal.
const DRAIN: Duration = Duration::from_secs(10);

/// How long a database may be unreachable before we give up.
const CONNECT: Duration = Duration::from_secs(5);

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// See [`App`].
pub struct Shared {
    /// The pool.
    pub db: DatabaseConnection,
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
        let mut options = ConnectOptions::new(database_url);
        options.min_connections(1).max_connections(pool).connect_timeout(CONNECT).sqlx_logging(false);
        let db = Database::connect(options).await.context("cannot connect to the database")?;
        migrate::run(&db).await.context("cannot migrate the database")?;
        let shared = Shared {
            db,
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

/// Serves until `stop` is ready; then lets open requests end, for 10 s at most.
///
/// # Errors
/// If accepting fails for good.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let (stopping, mut stopped) = tokio::sync::watch::channel(false);
    let service = router.into_make_service_with_connect_info::<observe::Ends>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        stop.await;
        stopping.send_replace(true);
    });
    let too_long = async {
        // The sender is kept until it has sent.
        let _ = stopped.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => Ok(served?),
        () = too_long => Ok(()),
    }
}
