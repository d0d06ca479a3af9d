//! Families encoded apart from the exposition, for collectors that may not come back in time.
//!
//! Reads: what a collector writes. Yields: text that an [`Encoder`] takes over, family by family. Costs: one copy of the
//! text; the memory is kept by who keeps the fragment.

use super::Encoder;
use super::encoder::{Seen, Written};
use super::{Format, Output, Scrape};

/// Text of whole families.
#[derive(Default)]
pub struct Fragment {
    output: Output,
    seen: Seen,
    written: Vec<Written>,
}

impl Fragment {
    /// Drops what was there and has `write` write anew.
    pub fn record<R>(&mut self, scrape: &Scrape, format: Format, write: impl FnOnce(&mut Encoder<'_>) -> R) -> R {
        self.output.begin(false);
        self.written.clear();
        let mut encoder = Encoder::new(&mut self.output, &mut self.seen, format, scrape);
        encoder.note(&mut self.written);
        write(&mut encoder)
    }

    /// Samples in it.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.written.iter().map(|family| family.samples).sum()
    }

    /// The families and the text that holds them.
    pub(super) fn parts(&self) -> (&[Written], &[u8]) {
        (&self.written, self.output.body())
    }
}
