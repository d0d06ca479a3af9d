//! sea-orm's calls by the names that they have from version 2 on.
//!
//! There `query_one` and its like take a builder of statements, and those with a [`Statement`] are `query_one_raw`. For
//! version 1 the same names are made here, so that the handlers are the same.

#[cfg(not(feature = "raw-calls"))]
mod named {
    use sea_orm::{ConnectionTrait, DbErr, ExecResult, QueryResult, Statement};

    /// The calls of every connection.
    pub trait Calls: ConnectionTrait {
        /// sea-orm's `execute`.
        async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
            self.execute(statement).await
        }

        /// sea-orm's `query_one`.
        async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
            self.query_one(statement).await
        }

        /// sea-orm's `query_all`.
        async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
            self.query_all(statement).await
        }
    }

    impl<C: ConnectionTrait> Calls for C {}
}

#[cfg(not(feature = "raw-calls"))]
pub use named::Calls;
#[cfg(feature = "raw-calls")]
pub use sea_orm::ConnectionTrait as Calls;
