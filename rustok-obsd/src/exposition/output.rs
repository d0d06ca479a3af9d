//! Where the encoder writes: a buffer, compressed on the way where the client accepts gzip.
//!
//! Reads: text appended to `buffer`. Yields: the body ([`Output::finish`]). Costs: both buffers and the compressor's
//! state (about 300 KiB, on the first gzip scrape) are kept from scrape to scrape.

use flate2::{Compress, Compression, FlushCompress, Status};

/// Text that is gathered before it is compressed: the uncompressed exposition is never held whole.
const CHUNK: usize = 32 * 1024;

/// A body in the making.
#[derive(Debug, Default)]
pub struct Output {
    /// Text that was not compressed yet, or the whole text.
    pub(super) buffer: Vec<u8>,
    /// Compressed text.
    body: Vec<u8>,
    gzip: bool,
    compress: Option<Compress>,
}

impl Output {
    /// Begins a body; what was there before is dropped.
    pub(super) fn begin(&mut self, gzip: bool) {
        self.gzip = gzip;
        self.buffer.clear();
        self.body.clear();
        if gzip {
            // Level 1: a scrape waits for it, and the text is repetitive.
            let compress = self.compress.get_or_insert_with(|| Compress::new_gzip(Compression::fast(), 15));
            compress.reset();
        }
    }

    /// Compresses what was gathered if that is worth a call.
    pub(super) fn spill(&mut self) {
        if self.gzip && self.buffer.len() >= CHUNK {
            self.deflate(FlushCompress::None);
        }
    }

    /// Ends the body and gives it.
    pub(super) fn finish(&mut self) -> &[u8] {
        if self.gzip {
            self.deflate(FlushCompress::Finish);
        }
        self.body()
    }

    /// The body, once it is finished.
    pub(super) fn body(&self) -> &[u8] {
        if self.gzip { &self.body } else { &self.buffer }
    }

    fn deflate(&mut self, flush: FlushCompress) {
        let Some(compress) = &mut self.compress else {
            return;
        };
        let mut input = self.buffer.as_slice();
        loop {
            if self.body.spare_capacity_mut().len() < 256 {
                self.body.reserve(CHUNK);
            }
            let before = compress.total_in();
            let status = compress.compress_vec(input, &mut self.body, flush);
            input = &input[(compress.total_in() - before) as usize..];
            let room = !self.body.spare_capacity_mut().is_empty();
            match status {
                Ok(Status::StreamEnd) => break,
                Ok(_) if flush == FlushCompress::None && input.is_empty() && room => break,
                Ok(_) => {}
                // Only a state that is not consistent is an error, and the state is ours alone. The client will find the
                // body cut; a loop without an end would be worse.
                Err(error) => {
                    tracing::error!(%error, "cannot compress the exposition");
                    break;
                }
            }
        }
        self.buffer.clear();
    }
}
