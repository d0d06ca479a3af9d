//! Bodies of answers that end in unusual ways.

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

/// So many pieces of eight bytes, without a length: hyper sends them as chunks, up to 64 buffers in one system call.
pub fn pieces(count: u32) -> Body {
    Body::from_stream(stream::iter((0..count).map(|_| Ok::<_, Infallible>(Bytes::from_static(b"a piece.")))))
}
