//! SQL statements as metrics and spans tell them: without literals, with a fingerprint.
//!
//! Reads: SQL text as captured. Yields: [`Statement`]s, shared ([`StatementCache`]). Costs: one analysis per distinct
//! text.
//!
//! The text follows OpenTelemetry's conventions for `db.query.text`: parameters (`$1`) stay, literals become `?`, lists
//! behind IN become `(?)`. No literal survives, whatever the text: what cannot be read with certainty, or is a literal by
//! one of the readings that its [`Dialect`] allows, is taken for one.

mod cache;
mod dialect;
mod fold;
mod lex;
mod names;
mod settings;
mod size;
mod summary;
mod token;

pub use cache::{CacheStats, StatementCache};
pub use dialect::Dialect;

use fold::{Fnv, Folder};
use std::sync::Arc;
use token::Token;

/// What is known of a statement's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Knowledge {
    /// The whole text.
    Whole,
    /// Its beginning; the rest was longer than the bound of capture, or is no text.
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

impl Statement {
    /// A statement that was prepared before it could be seen.
    #[must_use]
    pub fn unknown() -> Self {
        Self::placeholder("unknown statement", Knowledge::Unknown)
    }

    /// Traffic that shows no text.
    #[must_use]
    pub fn opaque() -> Self {
        Self::placeholder("opaque traffic", Knowledge::Opaque)
    }

    fn placeholder(name: &str, knowledge: Knowledge) -> Self {
        let mut hash = Fnv::default();
        name.bytes().for_each(|byte| hash.add(byte));
        let empty: Arc<str> = "".into();
        Self {
            text: Arc::clone(&empty),
            summary: Arc::clone(&empty),
            operation: empty,
            collection: None,
            fingerprint: hash.0,
            knowledge,
        }
    }

    /// Analyses a text. `truncated`: it is the beginning of a longer one. [`StatementCache`] remembers results.
    #[must_use]
    pub fn analyse(raw: &[u8], truncated: bool, dialect: Dialect) -> Self {
        Analyst::default().analyse(raw, truncated, dialect)
    }

    /// RusToK's label `query_type`: `select`, `insert`, `update`, `delete`, `begin`, `commit`, `rollback`, …; `other`
    /// where the operation has none of its own.
    #[must_use]
    pub fn query_type(&self) -> &'static str {
        const TYPES: [(&str, &str); 29] = [
            ("SELECT", "select"),
            ("VALUES", "select"),
            ("TABLE", "select"),
            ("INSERT", "insert"),
            ("UPDATE", "update"),
            ("DELETE", "delete"),
            ("MERGE", "merge"),
            ("COPY", "copy"),
            ("TRUNCATE", "truncate"),
            ("BEGIN", "begin"),
            ("START", "begin"),
            ("COMMIT", "commit"),
            ("END", "commit"),
            ("ROLLBACK TO", "rollback_to"),
            ("ROLLBACK", "rollback"),
            ("ABORT", "rollback"),
            ("SAVEPOINT", "savepoint"),
            ("RELEASE", "release"),
            ("SET", "set"),
            ("SHOW", "show"),
            ("CREATE", "create"),
            ("ALTER", "alter"),
            ("DROP", "drop"),
            ("EXPLAIN", "explain"),
            ("CALL", "call"),
            ("LOCK", "lock"),
            ("LISTEN", "listen"),
            ("NOTIFY", "notify"),
            ("BATCH", "batch"),
        ];
        let first = self.operation.split(' ').next().unwrap_or("");
        let known = TYPES.iter().find(|(operation, _)| *operation == &*self.operation || *operation == first);
        known.map_or("other", |(_, name)| name)
    }
}

/// Memory for analyses.
#[derive(Default)]
struct Analyst {
    tokens: Vec<Token>,
    folder: Folder,
    text: String,
}

impl Analyst {
    /// A longer text is read up to here.
    const LIMIT: usize = 1 << 20;

    fn analyse(&mut self, raw: &[u8], truncated: bool, dialect: Dialect) -> Statement {
        let (sql, whole) = readable(&raw[..raw.len().min(Self::LIMIT)]);
        let truncated = truncated || !whole || raw.len() > Self::LIMIT;
        let parted = token::tokenize(sql, dialect, truncated, &mut self.tokens);
        if dialect.may_be(Dialect::SQLITE) {
            names::hide_strings(sql, parted, &mut self.tokens);
        }
        self.folder.fold(sql, &self.tokens);
        let fingerprint = self.folder.render(sql, &mut self.text);
        let outline = summary::outline(sql, &self.folder.kept);
        Statement {
            text: self.text.as_str().into(),
            summary: outline.summary.into(),
            operation: outline.operation.into(),
            collection: outline.collection.map(Into::into),
            fingerprint,
            knowledge: if truncated { Knowledge::Truncated } else { Knowledge::Whole },
        }
    }
}

/// The text up to the first byte that databases read in different ways, and whether that is all of it: a zero byte ends
/// a text or stands in it, and bytes that are no UTF-8 mean what the session's character set says.
fn readable(raw: &[u8]) -> (&str, bool) {
    let end = memchr::memchr(0, raw).unwrap_or(raw.len());
    match std::str::from_utf8(&raw[..end]) {
        Ok(sql) => (sql, end == raw.len()),
        Err(error) => (std::str::from_utf8(&raw[..error.valid_up_to()]).unwrap_or(""), false),
    }
}

#[cfg(test)]
mod dialect_tests;
#[cfg(test)]
mod planted_tests;
#[cfg(test)]
mod tests;
