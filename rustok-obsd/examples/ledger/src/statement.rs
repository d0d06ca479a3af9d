//! A statement in each form in which the sqlx of this build takes one.
//!
//! sqlx 0.8 takes a `&str`. sqlx 0.9 takes what it calls safe: a `&'static str`, or any string of which the caller asserts
//! it, and keeps it as it came; the routes use each form somewhere.

#[cfg(not(feature = "owned-sql"))]
mod forms {
    /// Text that is made at run time.
    pub const fn borrowed(sql: &str) -> &str {
        sql
    }

    /// A `String`, where sqlx takes one.
    pub const fn owned(sql: &str) -> &str {
        sql
    }

    /// A `Box<str>`, where sqlx takes one.
    pub const fn boxed(sql: &str) -> &str {
        sql
    }

    /// An `Arc<str>`, where sqlx takes one.
    pub const fn shared(sql: &str) -> &str {
        sql
    }

    /// An `Arc<String>`, where sqlx takes one.
    pub const fn shared_string(sql: &str) -> &str {
        sql
    }
}

#[cfg(feature = "owned-sql")]
mod forms {
    use std::sync::Arc;

    use sqlx::AssertSqlSafe;

    /// Text that is made at run time: sqlx copies it.
    pub const fn borrowed(sql: &str) -> AssertSqlSafe<&str> {
        AssertSqlSafe(sql)
    }

    /// As a `String`.
    pub fn owned(sql: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(sql.to_owned())
    }

    /// As a `Box<str>`.
    pub fn boxed(sql: &str) -> AssertSqlSafe<Box<str>> {
        AssertSqlSafe(sql.into())
    }

    /// As an `Arc<str>`.
    pub fn shared(sql: &str) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(sql.into())
    }

    /// As an `Arc<String>`.
    pub fn shared_string(sql: &str) -> AssertSqlSafe<Arc<String>> {
        AssertSqlSafe(Arc::new(sql.to_owned()))
    }
}

pub use forms::{borrowed, boxed, owned, shared, shared_string};
