//! What a handler fails with: JSON with a status, and nothing of the database's inside.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sea_orm::DbErr;

/// Status and message.
#[derive(Debug)]
pub struct ApiError(pub StatusCode, pub &'static str);

/// 404 in the API's form.
pub const NOT_FOUND: ApiError = ApiError(StatusCode::NOT_FOUND, "not found");

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({ "error": self.1 }))).into_response()
    }
}

impl From<DbErr> for ApiError {
    fn from(error: DbErr) -> Self {
        match error {
            DbErr::RecordNotFound(_) | DbErr::RecordNotUpdated => NOT_FOUND,
            _ => Self(StatusCode::INTERNAL_SERVER_ERROR, "database error"),
        }
    }
}

/// What handlers return.
pub type Answer<T> = Result<T, ApiError>;
