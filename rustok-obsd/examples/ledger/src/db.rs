//! The pool in the name of one request, and what handlers fail with.
//!
//! Reads: sqlx calls, made by the handlers themselves so that they are compiled as in any application. Yields: the same
//! calls, noted in the ground truth where there is one.

use std::convert::Infallible;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use example_common::observe::{Notes, OpenTransaction};
use sqlx::postgres::{PgPool, PgQueryResult};
use sqlx::{Postgres, Transaction};
use tokio::task::JoinError;

use crate::App;

/// See the module.
#[derive(Clone)]
pub struct Db {
    /// The usual pool.
    pub pool: PgPool,
    /// The pool of one connection.
    pub narrow: PgPool,
    /// Where statements are noted.
    pub notes: Notes,
}

impl FromRequestParts<App> for Db {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        Ok(Self { pool: app.pool.clone(), narrow: app.narrow.clone(), notes: Notes::of(&parts.extensions) })
    }
}

impl Db {
    /// Notes `fetch_one`.
    pub async fn one<T>(&self, sql: &str, call: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        self.notes.query(sql, |_| 1, sqlstate, call).await
    }

    /// Notes `fetch_optional`.
    pub async fn optional<T>(
        &self,
        sql: &str,
        call: impl Future<Output = sqlx::Result<Option<T>>>,
    ) -> sqlx::Result<Option<T>> {
        self.notes.query(sql, |row: &Option<T>| u64::from(row.is_some()), sqlstate, call).await
    }

    /// Notes `fetch_all`.
    pub async fn all<T>(&self, sql: &str, call: impl Future<Output = sqlx::Result<Vec<T>>>) -> sqlx::Result<Vec<T>> {
        self.notes.query(sql, |rows: &Vec<T>| rows.len() as u64, sqlstate, call).await
    }

    /// Notes `execute`.
    pub async fn execute(
        &self,
        sql: &str,
        call: impl Future<Output = sqlx::Result<PgQueryResult>>,
    ) -> sqlx::Result<PgQueryResult> {
        self.notes.query(sql, PgQueryResult::rows_affected, sqlstate, call).await
    }

    /// `BEGIN` on one of the pools.
    pub async fn begin(&self, pool: &PgPool) -> sqlx::Result<Tx> {
        let inner = self.notes.query("BEGIN", |_| 0, sqlstate, pool.begin()).await?;
        Ok(Tx { inner, open: self.notes.transaction() })
    }
}

/// A transaction; one that is dropped is rolled back by the pool.
pub struct Tx {
    /// sqlx' own.
    pub inner: Transaction<'static, Postgres>,
    // Behind the transaction: fields are dropped in order.
    open: OpenTransaction,
}

impl Tx {
    /// `COMMIT`.
    pub async fn commit(self, db: &Db) -> sqlx::Result<()> {
        db.notes.query("COMMIT", |()| 0, sqlstate, self.inner.commit()).await?;
        self.open.ended();
        Ok(())
    }
}

/// What the database said.
pub fn sqlstate(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// What a handler fails with: status and message.
#[derive(Debug)]
pub struct ApiError(pub StatusCode, pub &'static str);

/// 404.
pub const NOT_FOUND: ApiError = ApiError(StatusCode::NOT_FOUND, "not found");

/// What handlers return.
pub type Answer<T> = Result<T, ApiError>;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::RowNotFound => NOT_FOUND,
            _ => Self(StatusCode::INTERNAL_SERVER_ERROR, "database error"),
        }
    }
}

impl From<JoinError> for ApiError {
    fn from(_: JoinError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, "a task failed")
    }
}
