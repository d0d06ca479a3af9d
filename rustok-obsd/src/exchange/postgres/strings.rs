//! What a backslash in a string of this session is: PostgreSQL's `standard_conforming_strings`.
//!
//! Reads: what the server reports of it (ParameterStatus), and what the target asks. Yields: whether it is on, where one
//! value held for all of the connection. Costs: a byte.
//!
//! The start of a session reports it. Once it may have changed it is not known any more, for good: a statement that is
//! executed may have been prepared before the change, and one that was sent before the report was seen may have been
//! read after it. Both readings hide then.

use super::{Sink, WireEvent};

/// The setting, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strings {
    /// The session starts: the first report counts.
    Starting,
    /// It was this from the start.
    Known(bool),
    /// Not known, for good.
    Doubtful,
}

impl Strings {
    pub(super) const fn new(mid_stream: bool) -> Self {
        if mid_stream { Self::Doubtful } else { Self::Starting }
    }

    /// The server reports it.
    pub(super) fn report(&mut self, standard: bool, sink: &mut Sink<'_>) {
        match *self {
            Self::Starting => {
                *self = Self::Known(standard);
                sink(WireEvent::StandardStrings(Some(standard)));
            }
            Self::Known(known) if known == standard => {}
            Self::Known(_) | Self::Doubtful => self.doubt(sink),
        }
    }

    /// The session has started: a server that reported nothing will report changes alone.
    pub(super) fn started(&mut self) {
        if *self == Self::Starting {
            *self = Self::Doubtful;
        }
    }

    /// Answers were lost, among which a report may have been.
    pub(super) fn doubt(&mut self, sink: &mut Sink<'_>) {
        if matches!(std::mem::replace(self, Self::Doubtful), Self::Known(_)) {
            sink(WireEvent::StandardStrings(None));
        }
    }

    /// The target asks this: SET is known before the server reports it.
    pub(super) fn asked(&mut self, sql: &[u8], sink: &mut Sink<'_>) {
        const NAME: &[u8] = b"standard_conforming_strings";
        if matches!(self, Self::Known(_))
            && sql.trim_ascii_start().get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"SET"))
            && sql.windows(NAME.len()).any(|name| name.eq_ignore_ascii_case(NAME))
        {
            self.doubt(sink);
        }
    }
}
