//! PostgreSQL's frontend/backend protocol, version 3, as seen from beside the connection.
//!
//! Reads: [`Piece`](super::Piece)s of one direction, that is bytes split anywhere, and gaps where the kernel copied
//! nothing. Yields: messages with the few fields that pairing and naming need ([`Reader`]). Costs: a message whose
//! needed part lies whole in one piece is read in place, without a copy; of a split one that part is gathered in a
//! buffer of [`Buffers`](super::Buffers); the rest of each message is counted off, never kept.
//!
//! Bind values, passwords, keys, rows and the texts of errors are never yielded.

mod backend;
mod chain;
mod frontend;
mod reader;

pub use backend::{Backend, BackendMessage, Copy, Severity, Tag};
pub use chain::{Chain, begins, ends_ready};
pub use frontend::{Frontend, FrontendMessage, Target};
pub use reader::{Direction, Reader, Step};

/// Up to so many bytes of a statement's text are read unless the reader is told otherwise.
pub const SQL_LIMIT: u32 = 16 * 1024;

/// A longer name of a statement or portal is told as not captured.
pub const NAME_LIMIT: usize = 256;

/// A message is no longer: PostgreSQL's own bound (`PQ_LARGE_MESSAGE_LIMIT`, 1 GiB - 1).
const MESSAGE_LIMIT: u32 = 0x3fff_ffff;

/// The transaction status of `ReadyForQuery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionStatus {
    /// `I`: in no transaction block.
    Idle,
    /// `T`: in a transaction block.
    InTransaction,
    /// `E`: in a failed transaction block.
    Failed,
}

impl TransactionStatus {
    /// From its byte on the wire.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            b'I' => Self::Idle,
            b'T' => Self::InTransaction,
            b'E' => Self::Failed,
            _ => return None,
        })
    }
}

/// The string that begins `bytes`, and what follows its zero byte. `None` where the zero byte is not there.
fn c_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests;
