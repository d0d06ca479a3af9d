//! What is wrong with a configuration: all of it at once.
//!
//! Reads: nothing. Yields: messages that name the place, the key, the reason and what is allowed. Costs: nothing.

use crate::escape;
use std::fmt::{self, Write as _};

/// One thing that is wrong: where, which key, why and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `FILE:LINE`, `environment` or `command line`.
    pub place: String,
    /// Key, variable or flag.
    pub key: String,
    /// Reason and allowed values.
    pub message: String,
}

impl fmt::Display for Problem {
    /// One line, whatever the file's name or its keys hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = escape::Line(f);
        if self.key.is_empty() {
            write!(line, "{}: {}", self.place, self.message)
        } else {
            write!(line, "{}: {}: {}", self.place, self.key, self.message)
        }
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", list(.problems))]
pub struct ConfigError {
    /// Every problem found, file first, then environment, then command line.
    pub problems: Vec<Problem>,
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The name nearest to a mistyped one, where one is near enough to be meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(name.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate)
}
