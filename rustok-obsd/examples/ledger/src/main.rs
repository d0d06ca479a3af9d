//! `ledger`: the shop's database routes on plain sqlx, without sea-orm. It knows nothing of the daemon that observes it.
//!
//! The routes, their statements and the ground truth are the shop's (`example_common`); the calls are those that sqlx'
//! users make: `query`, `query_as`, `query_scalar`, `raw_sql`, `fetch_*`, streams, transactions, `acquire`.

mod causal;
mod db;
mod routes;
mod statement;

use anyhow::Context as _;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use clap::Parser;
use example_common::serve::ServeArgs;
use example_common::truth::Sink;
use example_common::{migrate, observe};
use sqlx::postgres::{PgPool, PgPoolOptions};

/// The shop's database routes on plain sqlx.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    serve: ServeArgs,
    /// Serve POST /api/sql and /api/sql/prepared, which run whatever they are sent; for tests on a throw-away database
    #[arg(long)]
    raw_sql: bool,
}

/// What handlers share. Cheap to clone.
#[derive(Clone)]
struct App {
    pool: PgPool,
    /// A pool of one connection, so that it can be had used up.
    narrow: PgPool,
}

fn main() -> anyhow::Result<()> {
    let Args { serve: args, raw_sql } = Args::parse();
    args.runtime()?.block_on(args.serve(async |_, sink| {
        let connect = async |most| {
            let options = PgPoolOptions::new().min_connections(1).max_connections(most);
            options.connect(&args.database_url).await.context("cannot connect to the database")
        };
        let app = App { pool: connect(args.pool).await?, narrow: connect(1).await? };
        sqlx::raw_sql(statement::owned(&migrate::script()))
            .execute(&app.pool)
            .await
            .context("cannot migrate the database")?;
        Ok(router(app, sink, raw_sql))
    }))
}

fn router(app: App, truth: Option<Sink>, raw_sql: bool) -> Router {
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
    let sql = match raw_sql {
        true => Router::new().route("/api/sql", post(routes::raw)).route("/api/sql/prepared", post(routes::prepared)),
        false => Router::new(),
    };
    let router = Router::new()
        .merge(sql)
        .route("/hello", get(async || "Hello, World!"))
        .route("/health/ready", get(routes::ready))
        .route("/api/commerce/products", get(routes::products))
        .route("/api/commerce/products/{id}", get(routes::product))
        .route("/api/content/nodes", get(routes::nodes))
        .route("/api/content/nodes/{id}", get(routes::node))
        .route("/api/dashboard", get(routes::dashboard))
        .nest("/api/causal", causal)
        .with_state(app);
    match truth {
        Some(sink) => router.layer(from_fn_with_state(sink, observe::record)),
        None => router,
    }
}
