//! Joins the paths of nested axum routers as axum itself does (`axum::extract::matched_path`, 0.6 to 0.8).
//!
//! Reads: the paths that axum's uprobe told, one a router. Yields: the whole template. Costs: a map look-up for a
//! nested route, nothing for a plain one; a pair that was seen before allocates nothing.

use crate::budget::{Budget, Meter, Store};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// What axum 0.8 appends to the path of `Router::nest_service` (`axum::routing::NEST_TAIL_PARAM_CAPTURE`).
pub const NEST_TAIL: &str = "/{*__private__axum_nest_tail_param}";
/// The same in axum 0.6 and 0.7, whose captures have no braces.
const NEST_TAIL_0_7: &str = "/*__private__axum_nest_tail_param";

/// The prefix at which a service is nested, where a path leads to one.
pub(super) fn nest_prefix(path: &str) -> Option<&str> {
    path.strip_suffix(NEST_TAIL).or_else(|| path.strip_suffix(NEST_TAIL_0_7))
}

/// Joined paths by the addresses of their parts. An entry holds its parts, so that their addresses stay theirs.
#[derive(Debug)]
pub(super) struct Joins {
    joined: FxHashMap<(usize, usize), Joined>,
    budget: Budget,
}

impl Default for Joins {
    fn default() -> Self {
        Self { joined: FxHashMap::default(), budget: Budget::new(Store::Paths) }
    }
}

#[derive(Debug)]
struct Joined {
    _parts: (Arc<str>, Option<Arc<str>>),
    path: Arc<str>,
}

impl Joins {
    /// Bytes of a pair without its texts.
    const PAIR: usize = 2 * size_of::<((usize, usize), Joined)>() + 3 * 16;

    /// The path of an inner router, behind that of the outer one.
    pub(super) fn join(&mut self, outer: &Arc<str>, inner: &Arc<str>) -> Arc<str> {
        self.interned(outer, Some(inner), || format!("{}{inner}", nest_prefix(outer).unwrap_or(outer)))
    }

    /// The template of a path after which no inner router told one.
    pub(super) fn template(&mut self, path: Arc<str>) -> Arc<str> {
        match nest_prefix(&path) {
            Some(prefix) => self.interned(&path, None, || format!("{prefix}/*")),
            None => path,
        }
    }

    fn interned(&mut self, outer: &Arc<str>, inner: Option<&Arc<str>>, make: impl Fn() -> String) -> Arc<str> {
        let key = (address(outer), inner.map_or(0, address));
        if let Some(known) = self.joined.get(&key) {
            return Arc::clone(&known.path);
        }
        let path: Arc<str> = make().into();
        let texts = path.len() + outer.len() + inner.map_or(0, |inner| inner.len());
        let size = Self::PAIR + texts;
        // A wave of them went by: those in use come again.
        if self.budget.held(0) + size > self.budget.allowance(0) {
            self.budget.evicted(self.joined.len() as u64);
            self.joined = FxHashMap::default();
            self.budget.resize(0, 0);
        }
        if self.budget.charge(0, size) {
            let _parts = (Arc::clone(outer), inner.cloned());
            self.joined.insert(key, Joined { _parts, path: Arc::clone(&path) });
        }
        path
    }
}

impl Joins {
    pub(super) fn meter(&self) -> Arc<Meter> {
        self.budget.meter()
    }
}

fn address(path: &Arc<str>) -> usize {
    Arc::as_ptr(path).cast::<u8>() as usize
}

#[cfg(test)]
mod tests {
    use super::{Joins, NEST_TAIL, Store};
    use std::sync::Arc;

    #[test]
    fn any_number_of_paths_is_joined_in_bounds() {
        let mut joins = Joins::default();
        let outer: Arc<str> = format!("/{}{NEST_TAIL}", "a".repeat(4000)).into();
        for number in 0..2000 {
            let inner: Arc<str> = format!("/{number}").into();
            assert!(joins.join(&outer, &inner).ends_with(&*inner));
        }
        let meter = joins.meter();
        assert!(meter.used() <= Store::Paths.limit() as u64 / 2 && meter.evicted() > 1000, "{meter:?}");
    }

    #[test]
    fn paths_are_joined_as_axum_joins_them() {
        let mut joins = Joins::default();
        for (outer, inner, joined, template) in [
            (&*format!("/admin{NEST_TAIL}"), "/users/{id}", "/admin/users/{id}", "/admin/users/{id}"),
            ("/admin", "/", "/admin/", "/admin/"),
            ("/admin/*__private__axum_nest_tail_param", "/users/:id", "/admin/users/:id", "/admin/users/:id"),
            (NEST_TAIL, "/users", "/users", "/users"),
            (&format!("/a{NEST_TAIL}"), &format!("/b{NEST_TAIL}"), &format!("/a/b{NEST_TAIL}"), "/a/b/*"),
        ] {
            let (outer, inner): (Arc<str>, Arc<str>) = (outer.into(), inner.into());
            let first = joins.join(&outer, &inner);
            assert_eq!(&*first, joined);
            assert!(Arc::ptr_eq(&first, &joins.join(&outer, &inner)), "joined once");
            assert_eq!(&*joins.template(first), template);
        }
    }
}
