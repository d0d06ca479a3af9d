//! How much memory a statement takes, and how much less it may take.
//!
//! Reads: a [`Statement`]. Yields: its size, and shorter ones. Costs: nothing, or one copy.
//!
//! What becomes a label is short whatever the target sends: identifiers of PostgreSQL have 63 bytes, and the semantic
//! conventions let a summary have 255 characters. The fingerprint is always that of the whole text.

use super::Statement;
use crate::budget::cut;
use std::sync::Arc;

/// Longest summary, bytes.
const SUMMARY: usize = 255;
/// Longest name of a table or an operation, bytes.
const NAME: usize = 128;
/// Longest text of a statement for which there is no room.
const TEXT: usize = 160;
/// A statement without its texts, with the counts of its references.
const FRAME: usize = size_of::<Statement>() + 5 * 16;

impl Statement {
    /// Bytes that it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let collection = self.collection.as_ref().map_or(0, |name| name.len());
        FRAME + self.text.len() + self.summary.len() + self.operation.len() + collection
    }

    /// With names that are short enough for labels.
    pub(super) fn with_short_names(mut self) -> Self {
        shorten(&mut self.summary, SUMMARY);
        shorten(&mut self.operation, NAME);
        if let Some(name) = &mut self.collection {
            shorten(name, NAME);
        }
        self
    }

    /// With the beginning of its text alone.
    pub(super) fn with_short_text(mut self) -> Self {
        shorten(&mut self.text, TEXT);
        self
    }
}

fn shorten(text: &mut Arc<str>, most: usize) {
    if text.len() > most {
        *text = format!("{}…", cut(text, most)).into();
    }
}
