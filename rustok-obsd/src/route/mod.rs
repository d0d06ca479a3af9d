//! Names the route of a request: exact from axum, else by configured patterns, else by a bounded template learner.
//!
//! Reads: what the uprobe told, or the request's path. Yields: a [`Route`], never the raw path. Costs: a map look-up
//! for a route of axum's, a walk over the path's segments for others; a name that is known allocates nothing.

mod budget;
mod learner;
mod pattern;
mod segment;
mod words;

pub use budget::Budget;
pub use learner::Learned;
pub use pattern::{PatternError, Patterns};

use crate::exchange::{Exchange, Outcome};
use budget::Share;
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
    /// Learned routes that are known now.
    pub learned: u64,
    /// What the learner took up and gave up.
    pub learner: Learned,
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

    /// With the learners of other namers, one budget.
    #[must_use]
    pub fn sharing(mut self, budget: &Budget) -> Self {
        if self.learner.is_some() {
            self.learner = Some(Learner::sharing(Share::of(budget.clone())));
        }
        self
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
    /// configured patterns by axum's own rules; what was learned. An answer that says that the path, or who asked, is
    /// none of the target's (4xx) makes no route, and an error teaches no word, so that a scanner learns its paths to
    /// nobody. At the cap a learned route that is not used makes room, for any other one's sake if need be.
    pub fn name(&mut self, exchange: &Exchange<'_>) -> Route {
        let now = exchange.end_ns;
        if let Some(route) = exchange.route {
            return self.admit(route.clone(), now);
        }
        // `*`, CONNECT's authority, and a request that could not be read have no route.
        if exchange.routes_exact || !exchange.path.starts_with(b"/") {
            return self.none();
        }
        if let Some(route) = self.patterns.find(exchange.path) {
            let route = route.clone();
            return self.admit(route, now);
        }
        let Some(learner) = &mut self.learner else {
            return if makes_route(exchange) { self.full() } else { self.none() };
        };
        if let Some(route) = learner.find(exchange.path, teaches(exchange), now) {
            return route;
        }
        if !makes_route(exchange) {
            return self.none();
        }
        let room = self.named.len() + learner.len() < self.cap || learner.reclaim_idle(now);
        if let Some(route) = room.then(|| learner.take_up(now)).flatten() {
            return route;
        }
        learner.counts.refused_routes += 1;
        self.full()
    }

    /// Counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let learner = self.learner.as_ref();
        let learned = learner.map_or(0, |learner| learner.len() as u64);
        Counts { learned, learner: learner.map(|learner| learner.counts).unwrap_or_default(), ..self.counts }
    }

    /// A route that is exact, or configured: learned ones make room for it.
    fn admit(&mut self, route: Route, now: u64) -> Route {
        if self.named.contains(&route) {
            return route;
        }
        let learned = self.learner.as_ref().map_or(0, Learner::len);
        let room = self.named.len() + learned < self.cap
            || self.learner.as_mut().is_some_and(|learner| learner.reclaim(now, 0));
        if !room {
            return self.full();
        }
        match route.source {
            Source::Axum => self.counts.axum += 1,
            Source::Pattern => self.counts.pattern += 1,
            Source::Learned | Source::Unmatched | Source::Overflow => {}
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

/// Whether the target has a route for the path: it answered, and not that the path, the method, or who asks is wrong.
const fn makes_route(exchange: &Exchange<'_>) -> bool {
    matches!(exchange.outcome, Outcome::Complete | Outcome::Upgraded) && !matches!(exchange.status, 0 | 400..=499 | 501)
}

/// Whether the target did what was asked for, so that its path may teach a word.
const fn teaches(exchange: &Exchange<'_>) -> bool {
    matches!(exchange.outcome, Outcome::Complete | Outcome::Upgraded)
        && matches!(exchange.status, 101 | 200..=299 | 304)
}

#[cfg(test)]
mod tests;
