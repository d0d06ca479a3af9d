//! Names the route of a request: exact from axum, else by configured patterns, else by a bounded template learner.
//!
//! Reads: what the uprobe told, or the request's path. Yields: a [`Route`], never the raw path. Costs: a map look-up.

/// Where a route's name came from; a label of `rustok_obsd_routes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// axum's own matched path.
    Axum,
    /// A pattern of the configuration.
    Pattern,
    /// Learned from paths.
    Learned,
    /// axum matched nothing.
    Unmatched,
    /// The cap was reached.
    Overflow,
}

/// A route's name, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The template, such as `/api/blog/posts/{id}`.
    pub template: std::sync::Arc<str>,
    /// Where it came from.
    pub source: Source,
}
