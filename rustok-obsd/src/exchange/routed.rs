//! What axum's routers told of one request.
//!
//! Reads: the path of each router that matched it, or which one that is where the path is still being read. Yields: the
//! joined path. Costs: no allocation in steady state.

use std::sync::Arc;

use super::nested::{Joins, nest_prefix};
use crate::route::{Route, Source};

/// A route by its router's map and its id there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Address of the router's map of paths.
    pub map: u64,
    /// Number of the route.
    pub route: u32,
}

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct Routed {
    /// The path that the outermost router told.
    first: Option<Arc<str>>,
    /// All paths told, joined.
    route: Option<Arc<str>>,
    /// From the first one whose path is awaited on, all of them, in order.
    awaited: Vec<Hit>,
}

impl Routed {
    /// Routers that one request passes; of more, what is awaited is not known.
    const DEEPEST: usize = 16;

    /// Whether none told anything; keeps its memory.
    pub(super) fn clear(&mut self) {
        self.first = None;
        self.route = None;
        self.awaited.clear();
    }

    /// What is awaited, in order.
    #[must_use]
    pub fn awaited(&self) -> &[Hit] {
        &self.awaited
    }

    /// A router matched; its path is known, or awaited. False where there are too many of these.
    pub(super) fn hit(&mut self, hit: Hit, path: Option<&Arc<str>>, joins: &mut Joins) -> bool {
        match path {
            Some(path) if self.awaited.is_empty() => self.told(path, joins),
            _ if self.awaited.len() < Self::DEEPEST => self.awaited.push(hit),
            _ => return false,
        }
        true
    }

    /// A router told its path. The first path coming again is the request being routed anew (a retry). A second path
    /// belongs to a nested router where the first leads to one: it ends with axum's tail, or is the bare prefix, below
    /// which the nested router sees `/`. Else a handler calls a router of its own, which is another request's business.
    pub(super) fn told(&mut self, path: &Arc<str>, joins: &mut Joins) {
        let again = self.first.as_ref().is_some_and(|first| Arc::ptr_eq(first, path));
        match &self.route {
            Some(outer) if !again => {
                if nest_prefix(outer).is_some() || &**path == "/" {
                    self.route = Some(joins.join(outer, path));
                }
            }
            _ => self.route = Some(Arc::clone(path)),
        }
        self.first.get_or_insert_with(|| Arc::clone(path));
    }

    /// Asks for each awaited path. Returns whether all are known now; what is not is left out.
    pub(super) fn resolve(&mut self, joins: &mut Joins, mut path: impl FnMut(Hit) -> Option<Arc<str>>) -> bool {
        let mut awaited = std::mem::take(&mut self.awaited);
        let mut all = true;
        for hit in awaited.drain(..) {
            match path(hit) {
                Some(path) => self.told(&path, joins),
                None => all = false,
            }
        }
        self.awaited = awaited;
        all
    }

    /// The route, as far as it is known.
    pub(super) fn route(&self, joins: &mut Joins) -> Option<Route> {
        let path = self.route.clone()?;
        Some(Route { template: joins.template(path), source: Source::Axum })
    }
}
