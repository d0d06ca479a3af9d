//! SQL statements as metrics and spans tell them: without literals, with a fingerprint.
//!
//! Reads: SQL text as captured. Yields: [`Statement`]s, shared. Costs: one analysis per distinct text.

use std::sync::Arc;

/// What is known of a statement's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Knowledge {
    /// The whole text.
    Whole,
    /// Its beginning; the rest was longer than the bound of capture.
    Truncated,
    /// A prepared statement whose text was sent before the daemon watched.
    Unknown,
    /// Nothing but that bytes went and came: encrypted, and no symbol told the text.
    Opaque,
}

/// A statement without its literals.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Statement {
    /// Normalised text (`db.query.text`): literals are `?`, lists of them `(?)`, comments are gone, white space is folded.
    pub text: Arc<str>,
    /// Low-cardinality summary (`db.query.summary`), such as `SELECT shop.products`.
    pub summary: Arc<str>,
    /// `db.operation.name` in upper case: `SELECT`, `INSERT`, `BEGIN`, …; empty where unknown.
    pub operation: Arc<str>,
    /// `db.collection.name`: the table, where it is one.
    pub collection: Option<Arc<str>>,
    /// Hash of the normalised text: the same in every process and version of the daemon.
    pub fingerprint: u64,
    /// What is known of the text.
    pub knowledge: Knowledge,
}
