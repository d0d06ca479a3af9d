//! HTTP/1.0 and 1.1 (RFC 9112), as seen from beside the connection.
//!
//! Reads: [`Piece`]s of one direction, that is bytes split anywhere, and gaps where the kernel copied nothing. Yields:
//! heads with the few fields that pairing and naming need, and where each message ends ([`Parser`]). Costs: a head that
//! lies whole in one piece is parsed in place, without a copy; a split one is gathered in a buffer of [`Buffers`], at
//! most [`HEAD_LIMIT`] bytes; bodies are counted, never kept.
//!
//! The parser judges less strictly than a server: what the target makes of a doubtful head shows in its answer. It is
//! strict only where leniency would give a wrong end of a message.

mod body;
mod head;
mod parser;

pub use super::{Buffers, Piece};
pub use body::Body;
pub use head::{RequestHead, ResponseHead, Starts, may_resume, starts_request, starts_response, value};
pub use parser::{Message, Parser, Request, Response, Step};

/// The longest head that is read, bytes. Of a longer one the beginning is read and the rest, with the body, is skipped.
pub const HEAD_LIMIT: usize = 16 * 1024;

/// Why a message could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// RFC 9112, 3.
    #[error("the first line is no request line")]
    RequestLine,
    /// RFC 9112, 4.
    #[error("the first line is no status line")]
    StatusLine,
    /// RFC 9112, 6.3: two different lengths, or no number.
    #[error("Content-Length is not one number")]
    ContentLength,
    /// RFC 9112, 6.1: not `chunked` last, or in an HTTP/1.0 request.
    #[error("Transfer-Encoding does not tell the body's end")]
    TransferEncoding,
    /// RFC 9112, 7.1.
    #[error("a chunk's size is no hexadecimal number or its end is missing")]
    Chunk,
    /// The bytes of the first line were not captured.
    #[error("the first line was not captured")]
    NotCaptured,
    /// The first line alone is longer than [`HEAD_LIMIT`].
    #[error("the first line is too long")]
    TooLong,
}
