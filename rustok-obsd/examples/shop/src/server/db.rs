//! The database: a connection that notes what each request asks of it.
//!
//! Reads: sea-orm calls. Yields: the same calls on the pool, noted in the ground truth and as `tracing` spans, each
//! where it is switched on. Costs: without both, two branches per statement.

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use futures_util::{Stream, TryFutureExt as _};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr,
    SqlxError, Statement, StreamTrait as _, TransactionTrait as _,
};
use tracing::Instrument as _;

use super::App;
use super::observe::{Notes, OpenTransaction};

/// A connection (the pool, or a transaction) in the name of one request.
pub struct Db<C = DatabaseConnection> {
    inner: C,
    notes: Notes,
    // Behind the transaction: fields are dropped in order.
    open: Option<OpenTransaction>,
}

impl Clone for Db {
    fn clone(&self) -> Self {
        self.on(&self.inner)
    }
}

impl FromRequestParts<App> for Db {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        Ok(Self { inner: app.db.clone(), notes: Notes::of(&parts.extensions), open: None })
    }
}

impl Db {
    /// Another pool, in the name of the same request.
    #[must_use]
    pub fn on(&self, pool: &DatabaseConnection) -> Self {
        Self { inner: pool.clone(), notes: self.notes.clone(), open: None }
    }

    /// `BEGIN`.
    ///
    /// # Errors
    /// What the database says.
    pub async fn begin(&self) -> Result<Db<DatabaseTransaction>, DbErr> {
        let inner = self.noted("BEGIN", |_| 0, self.inner.begin()).await?;
        Ok(Db { inner, notes: self.notes.clone(), open: Some(self.notes.transaction()) })
    }

    /// Rows one by one; without a `tracing` span.
    pub fn stream(&self, statement: Statement) -> impl Stream<Item = Result<QueryResult, DbErr>> + Send + Unpin {
        let sql = self.text(&statement);
        #[cfg(not(feature = "raw-calls"))]
        let rows = self.inner.stream(statement);
        #[cfg(feature = "raw-calls")]
        let rows = self.inner.stream_raw(statement);
        self.notes.stream(&sql, sqlstate, Box::pin(rows.try_flatten_stream()))
    }
}

impl Db<DatabaseTransaction> {
    /// `COMMIT`. A transaction that is dropped instead is rolled back by the pool.
    ///
    /// # Errors
    /// What the database says.
    pub async fn commit(self) -> Result<(), DbErr> {
        let Self { inner, notes, open } = self;
        Db { inner: (), notes, open: None }.noted("COMMIT", |()| 0, inner.commit()).await?;
        open.into_iter().for_each(OpenTransaction::ended);
        Ok(())
    }
}

impl<C> Db<C> {
    async fn noted<T>(
        &self,
        sql: &str,
        rows: impl FnOnce(&T) -> u64,
        call: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        let span =
            tracing::info_span!("db.query", otel.kind = "client", db.system.name = "postgresql", db.query.text = sql);
        self.notes.query(sql, rows, sqlstate, call.instrument(span)).await
    }
}

/// What the database said.
pub fn sqlstate(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(said)) | DbErr::Query(RuntimeErr::SqlxError(said))) = error else {
        return None;
    };
    // sea-orm 2 has it behind an `Arc`.
    let said: &SqlxError = said;
    Some(said.as_database_error()?.code()?.into_owned())
}

macro_rules! connection {
    ($execute:ident, $query_one:ident, $query_all:ident) => {
        #[async_trait]
        impl<C: ConnectionTrait> ConnectionTrait for Db<C> {
            fn get_database_backend(&self) -> DbBackend {
                self.inner.get_database_backend()
            }

            async fn $execute(&self, statement: Statement) -> Result<ExecResult, DbErr> {
                let sql = self.text(&statement);
                self.noted(&sql, ExecResult::rows_affected, self.inner.$execute(statement)).await
            }

            async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
                self.noted(sql, ExecResult::rows_affected, self.inner.execute_unprepared(sql)).await
            }

            async fn $query_one(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
                let sql = self.text(&statement);
                self.noted(&sql, |row| u64::from(row.is_some()), self.inner.$query_one(statement)).await
            }

            async fn $query_all(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
                let sql = self.text(&statement);
                self.noted(&sql, |rows| rows.len() as u64, self.inner.$query_all(statement)).await
            }
        }
    };
}

#[cfg(not(feature = "raw-calls"))]
connection!(execute, query_one, query_all);
#[cfg(feature = "raw-calls")]
connection!(execute_raw, query_one_raw, query_all_raw);

impl<C> Db<C> {
    /// The statement's text where somebody wants to know, else nothing, without an allocation.
    fn text(&self, statement: &Statement) -> String {
        if self.notes.wanted() || tracing::enabled!(tracing::Level::INFO) {
            statement.sql.clone()
        } else {
            String::new()
        }
    }
}
