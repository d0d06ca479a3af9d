//! Names the route of a request: exact from axum, else by configured patterns, else by a bounded template learner.
//!
//! Reads: what the uprobe told, or the request's path. Yields: a [`Route`], never the raw path. Costs: a map look-up
//! for a route of axum's, a walk over the path's segments for others; a name that is known allocates nothing.

mod learner;
mod pattern;
mod segment;

pub use pattern::{PatternError, Patterns};

use crate::exchange::{Exchange, Outcome};
use learner::Learner;
use rustc_hash::FxHashSet;
use std::sync::Arc;

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
    pub template: Arc<str>,
    /// Where it came from.
    pub source: Source,
}

/// Template of requests that no route is known for.
pub const UNMATCHED: &str = "~unmatched";

/// Template of requests whose route came after the cap was reached.
pub const OVERFLOW: &str = "~other";

/// Names the routes of one target, at most so many.
#[derive(Debug)]
pub struct RouteNamer {
    patterns: Patterns,
    /// `None`: not wanted.
    learner: Option<Learner>,
    named: FxHashSet<Route>,
    cap: usize,
    /// Unmatched and overflow, by number of requests.
    counts: Counts,
    unmatched: Route,
    overflow: Route,
}

/// How many routes a target has, and how many requests had none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Routes named by axum.
    pub axum: u64,
    /// Routes named by patterns.
    pub pattern: u64,
    /// Routes learned.
    pub learned: u64,
    /// Requests named `~unmatched`.
    pub unmatched_requests: u64,
    /// Requests named `~other`, because the cap was reached.
    pub overflow_requests: u64,
}

impl RouteNamer {
    /// The cap that is used unless configured.
    pub const DEFAULT_CAP: usize = 1000;

    /// A namer of at most `cap` routes, `~unmatched` and `~other` not counted.
    #[must_use]
    pub fn new(patterns: Patterns, cap: usize) -> Self {
        let fixed = |template: &str, source| Route { template: template.into(), source };
        Self {
            patterns,
            learner: Some(Learner::default()),
            named: FxHashSet::default(),
            cap,
            counts: Counts::default(),
            unmatched: fixed(UNMATCHED, Source::Unmatched),
            overflow: fixed(OVERFLOW, Source::Overflow),
        }
    }

    /// Without the learner: what neither axum nor a pattern names is `~other`.
    #[must_use]
    pub fn without_learner(mut self) -> Self {
        self.learner = None;
        self
    }

    /// The route of an exchange.
    ///
    /// In this order: what axum told; `~unmatched`, where axum is watched and told nothing; the first of the
    /// configured patterns by axum's own rules; what was learned. An answer of "not found" teaches nothing, so that a
    /// scanner cannot fill the cap.
    pub fn name(&mut self, exchange: &Exchange<'_>) -> Route {
        if let Some(route) = exchange.route {
            return self.admit(route.clone());
        }
        // `*`, CONNECT's authority, and a request that could not be read have no route.
        if exchange.routes_exact || !exchange.path.starts_with(b"/") {
            return self.none();
        }
        if let Some(route) = self.patterns.find(exchange.path) {
            let route = route.clone();
            return self.admit(route);
        }
        if let Some(route) = self.learner.as_ref().and_then(|learner| learner.find(exchange.path)) {
            return route.clone();
        }
        if !teaches(exchange) {
            return self.none();
        }
        let Some(learner) = self.learner.as_mut().filter(|_| self.named.len() < self.cap) else {
            return self.full();
        };
        let route = learner.learn(exchange.path);
        self.admit(route)
    }

    /// Counts so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    fn admit(&mut self, route: Route) -> Route {
        if self.named.contains(&route) {
            return route;
        }
        if self.named.len() >= self.cap {
            return self.full();
        }
        match route.source {
            Source::Axum => self.counts.axum += 1,
            Source::Pattern => self.counts.pattern += 1,
            Source::Learned => self.counts.learned += 1,
            Source::Unmatched | Source::Overflow => {}
        }
        self.named.insert(route.clone());
        route
    }

    fn none(&mut self) -> Route {
        self.counts.unmatched_requests += 1;
        self.unmatched.clone()
    }

    fn full(&mut self) -> Route {
        self.counts.overflow_requests += 1;
        self.overflow.clone()
    }
}

/// Whether the target knew the path: its answer is none of those that a path without a route gets.
const fn teaches(exchange: &Exchange<'_>) -> bool {
    matches!(exchange.outcome, Outcome::Complete | Outcome::Upgraded)
        && !matches!(exchange.status, 0 | 400 | 404 | 405 | 410 | 414 | 421 | 431 | 501)
}

#[cfg(test)]
mod tests;
