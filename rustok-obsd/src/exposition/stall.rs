//! A TCP stream whose writes fail when the peer lets them stand still.
//!
//! Reads: what hyper writes. Yields: an error of kind `TimedOut` once no byte could be written for a while, or an answer as
//! a whole takes too long, so that a client which does not read, or a byte now and then, cannot keep an answer in memory.
//! Costs: two timers for streams that stand still, else nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

pub(super) struct Stall {
    stream: TcpStream,
    timeout: Duration,
    whole: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Runs from the first write that waits until all is written.
    sending: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// `timeout` without progress, `whole` for all that is written between two flushes: hyper flushes when an answer is
    /// written.
    pub(super) fn new(stream: TcpStream, timeout: Duration, whole: Duration) -> Self {
        Self { stream, timeout, whole, waiting: None, sending: None }
    }

    fn guard<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let (timeout, whole) = (self.timeout, self.whole);
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(timeout)));
        let sending = self.sending.get_or_insert_with(|| Box::pin(sleep(whole)));
        if waiting.as_mut().poll(cx).is_pending() {
            ready!(sending.as_mut().poll(cx));
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl AsyncRead for Stall {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stall {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.guard(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.guard(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sending = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
