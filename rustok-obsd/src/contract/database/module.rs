//! Names the module of the application that a route belongs to.
//!
//! Reads: the route's template. Yields: RusToK's `module` label. Costs: once per route and method.

use crate::route::{Route, Source};

/// Module of what has no route.
pub(super) const UNKNOWN: &str = "unknown";

/// Which prefix of a route belongs to which module. Without an entry, the first segment of the route after an optional
/// `api` and an optional version (`v1`) names it, as RusToK's modules do: `/api/content/nodes/{id}` is `content`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules {
    prefixes: Vec<(String, String)>,
}

impl Modules {
    /// From pairs of prefix and module; a prefix matches whole segments, and the longest wins.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let trimmed = |(prefix, module): (String, String)| (prefix.trim_end_matches('/').to_owned(), module);
        let mut prefixes: Vec<_> = pairs.into_iter().map(trimmed).collect();
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self { prefixes }
    }

    /// The module of a route.
    #[must_use]
    pub fn of<'r>(&'r self, route: &'r Route) -> &'r str {
        if matches!(route.source, Source::Unmatched | Source::Overflow) {
            return UNKNOWN;
        }
        let path: &str = &route.template;
        let within =
            |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if let Some((_, module)) = self.prefixes.iter().find(|(prefix, _)| within(prefix)) {
            return module;
        }
        let mut segments = path.split('/').filter(|segment| !segment.is_empty()).peekable();
        segments.next_if_eq(&"api");
        segments.next_if(|segment| is_version(segment));
        let plain = |segment: &&str| !segment.starts_with(['{', ':', '*', '~']);
        segments.next().filter(plain).unwrap_or(UNKNOWN)
    }
}

fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_segment_that_names_something_is_the_module_unless_configured() {
        let modules = Modules::new([
            ("/store/".to_owned(), "commerce".to_owned()),
            ("/store/blog".to_owned(), "blog".to_owned()),
        ]);
        for (template, wanted) in [
            ("/api/content/nodes/{id}", "content"),
            ("/api/commerce", "commerce"),
            ("/api/v1/flex/schemas", "flex"),
            ("/v2/catalog/{*rest}", "catalog"),
            ("/health/ready", "health"),
            ("/api/{*rest}", "unknown"),
            ("/api", "unknown"),
            ("/", "unknown"),
            ("/store", "commerce"),
            ("/store/carts/{id}", "commerce"),
            ("/store/blog/{id}", "blog"),
            ("/storefront", "storefront"),
        ] {
            let route = Route { template: template.into(), source: Source::Axum };
            assert_eq!(modules.of(&route), wanted, "{template}");
        }
        let unmatched = Route { template: "~unmatched".into(), source: Source::Unmatched };
        assert_eq!(modules.of(&unmatched), "unknown");
    }
}
