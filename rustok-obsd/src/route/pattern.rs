//! Configured route patterns.
//!
//! Reads: patterns as axum 0.8 writes them (`/a/{id}`, `/files/{*rest}`), and as OpenTelemetry's eBPF agent does
//! (`/a/:id`, `/files/*`). Yields: the [`Route`] whose pattern matches a path. Order and priority are axum's, since it
//! is axum's matcher, `matchit`. Costs: one walk of its tree; nothing allocated up to four parameters.

use super::{Route, Source};
use matchit::{InsertError, Router};

/// A pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("route pattern `{pattern}`: {reason}")]
pub struct PatternError {
    /// The pattern as configured.
    pub pattern: String,
    /// What is wrong with it, and what helps.
    pub reason: String,
}

/// A set of patterns.
#[derive(Clone, Default)]
pub struct Patterns {
    router: Router<Route>,
    count: usize,
}

impl std::fmt::Debug for Patterns {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Patterns").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Patterns {
    /// Reads patterns.
    ///
    /// # Errors
    /// [`PatternError`] for the first one that does not begin with `/`, has a malformed parameter, or matches the same
    /// paths as an earlier one.
    pub fn new<P: AsRef<str>>(patterns: impl IntoIterator<Item = P>) -> Result<Self, PatternError> {
        let mut all = Self::default();
        for pattern in patterns {
            all.add(pattern.as_ref())
                .map_err(|reason| PatternError { pattern: pattern.as_ref().to_owned(), reason })?;
        }
        Ok(all)
    }

    fn add(&mut self, pattern: &str) -> Result<(), String> {
        if !pattern.starts_with('/') {
            return Err("has to begin with `/`, for example `/api/users/{id}`".to_owned());
        }
        if pattern.contains(['?', '#']) || pattern.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("is a path: leave out the query, the fragment and white space".to_owned());
        }
        let template = as_axum_writes_it(pattern);
        let route = Route { template: template.as_str().into(), source: Source::Pattern };
        self.router.insert(template, route).map_err(|error| match error {
            InsertError::Conflict { with } => {
                format!("matches the same paths as `{with}`: remove one of them")
            }
            InsertError::InvalidParamSegment => {
                "a segment can hold one parameter, at its end, such as `/v{version}`".to_owned()
            }
            InsertError::InvalidParam => "a parameter is `{name}` or `{*name}`; a literal brace is doubled".to_owned(),
            InsertError::InvalidCatchAll => "`{*name}` and `*` match the rest of a path: put them last".to_owned(),
            other => other.to_string(),
        })?;
        self.count += 1;
        Ok(())
    }

    /// The pattern that matches the path.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<&Route> {
        if self.count == 0 {
            return None;
        }
        self.router.at(std::str::from_utf8(path).ok()?).ok().map(|found| found.value)
    }
}

/// `:id` becomes `{id}`; `*` becomes `{*rest}` at the end and one segment's parameter elsewhere; `*name` becomes
/// `{*name}`.
fn as_axum_writes_it(pattern: &str) -> String {
    let last = pattern.split('/').count() - 1;
    let segments = pattern.split('/').enumerate().map(|(index, segment)| match segment.as_bytes() {
        [b':', _, ..] => format!("{{{}}}", &segment[1..]),
        b"*" if index == last => "{*rest}".to_owned(),
        b"*" => format!("{{any{index}}}"),
        [b'*', _, ..] => format!("{{{segment}}}"),
        _ => segment.to_owned(),
    });
    segments.collect::<Vec<_>>().join("/")
}
