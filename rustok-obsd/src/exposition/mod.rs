//! Serves metrics: collects from the registered sources, encodes as Prometheus text or OpenMetrics, compresses, answers.
//!
//! Reads: sources ([`Collect`]). Yields: one exposition per scrape ([`Exposition::render`]) and the HTTP server
//! ([`server`]). Costs: nothing is allocated per sample; buffers are reused from scrape to scrape. A scrape takes no
//! lock that the capture thread waits for.

mod answers;
mod bind;
mod encoder;
mod fragment;
mod hosts;
mod labels;
mod negotiate;
mod output;
#[cfg(test)]
pub(crate) mod parse;
mod peers;
mod rates;
mod registry;
mod scrape;
pub mod server;
mod stall;
#[cfg(test)]
mod tests;

pub use bind::{BindError, bind};
pub use encoder::{Encoder, Exemplar, Format, HistogramValue, Samples, Value};
pub use fragment::Fragment;
pub(crate) use hosts::is_name as is_host_name;
pub use labels::{LabelSet, Labels, Written as WrittenLabels};
pub use negotiate::{accepts_gzip, format as negotiate_format};
pub use output::Output;
pub use registry::{Exposition, Rendered, Scratch, to_text, to_text_of};
pub use scrape::{Part, QueryError, Scrape, Selection};

/// A source of metrics.
pub trait Collect {
    /// Writes the source's families, each once and whole. Called for every scrape, possibly by several threads at once.
    fn collect(&self, out: &mut Encoder<'_>);

    /// Its names in `collect[]` and `exclude[]` beside that of its part: those of its collectors that are on.
    fn names(&self) -> Vec<&'static str> {
        Vec::new()
    }
}
