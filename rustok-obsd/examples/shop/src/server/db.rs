//! The database: a connection that notes what each request asks of it.
//!
//! Reads: sea-orm calls. Yields: the same calls on the pool, noted in the ground truth and as `tracing` spans, each
//! where it is switched on. Costs: without both, two branches per statement.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement,
    TransactionTrait as _,
};
use tracing::Instrument as _;

use super::App;
use super::observe::{Entry, task_id};
use crate::clock::now_ns;
use crate::truth::Query;

/// A connection (the pool, or a transaction) in the name of one request.
#[derive(Clone)]
pub struct Db<C = DatabaseConnection> {
    inner: C,
    entry: Option<Arc<Entry>>,
}

impl FromRequestParts<App> for Db {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        Ok(Self { inner: app.db.clone(), entry: parts.extensions.get::<Arc<Entry>>().cloned() })
    }
}

impl Db {
    /// `BEGIN`.
    ///
    /// # Errors
    /// What the database says.
    pub async fn begin(&self) -> Result<Db<DatabaseTransaction>, DbErr> {
        let inner = self.noted("BEGIN", |_| 0, self.inner.begin()).await?;
        Ok(Db { inner, entry: self.entry.clone() })
    }
}

impl Db<DatabaseTransaction> {
    /// `COMMIT`. A transaction that is dropped instead is rolled back by the pool.
    ///
    /// # Errors
    /// What the database says.
    pub async fn commit(self) -> Result<(), DbErr> {
        let Self { inner, entry } = self;
        Db { inner: (), entry }.noted("COMMIT", |()| 0, inner.commit()).await
    }
}

impl<C> Db<C> {
    async fn noted<T>(
        &self,
        sql: &str,
        rows: impl Fn(&T) -> u64,
        call: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        let span =
            tracing::info_span!("db.query", otel.kind = "client", db.system.name = "postgresql", db.query.text = sql);
        let Some(entry) = &self.entry else {
            return call.instrument(span).await;
        };
        let sql = sql.to_owned();
        let start_ns = now_ns();
        let result = call.instrument(span).await;
        let end_ns = now_ns();
        let rows = result.as_ref().map_or(0, rows);
        entry.query(Query { sql, task: task_id(), start_ns, end_ns, rows, error: result.is_err() });
        result
    }
}

#[async_trait]
impl<C: ConnectionTrait> ConnectionTrait for Db<C> {
    fn get_database_backend(&self) -> DbBackend {
        self.inner.get_database_backend()
    }

    async fn execute(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let sql = self.text(&statement);
        self.noted(&sql, ExecResult::rows_affected, self.inner.execute(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.noted(sql, ExecResult::rows_affected, self.inner.execute_unprepared(sql)).await
    }

    async fn query_one(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let sql = self.text(&statement);
        self.noted(&sql, |row| u64::from(row.is_some()), self.inner.query_one(statement)).await
    }

    async fn query_all(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let sql = self.text(&statement);
        self.noted(&sql, |rows| rows.len() as u64, self.inner.query_all(statement)).await
    }
}

impl<C> Db<C> {
    /// The statement's text where somebody wants to know, else nothing, without an allocation.
    fn text(&self, statement: &Statement) -> String {
        if self.entry.is_some() || tracing::enabled!(tracing::Level::INFO) {
            statement.sql.clone()
        } else {
            String::new()
        }
    }
}
