//! The mixes on the database routes that all servers have. No request names a tenant, so that none is looked up.

use hyper::Method;

use super::{Abort, Action, Chooser, Mix, NODE, NODES_ROUTE, PRODUCT, Step};
use crate::seed::{self, NODES, PRODUCTS};

impl Chooser {
    /// About 3 statements a request. A tenth of the requests cancels, fails, rolls back or outlives its answer; a tenth
    /// comes or is answered in an unusual way.
    pub(super) fn causal(&mut self) -> Action {
        let step = match self.rng.below(100) {
            0..76 => self.database(),
            76..79 => Step::get(format!("/api/causal/pieces/{}", self.rng.below(30)), "/api/causal/pieces/{count}"),
            79 => Step::get("/api/causal/no-content", "/api/causal/no-content").status(204),
            80 => Step::get("/api/causal/not-modified", "/api/causal/not-modified").status(304),
            81 => self.with_product(Method::HEAD, "", PRODUCT),
            82..84 => {
                let steps = 2 + self.rng.below(4);
                return Action::Pipeline((0..steps).map(|_| self.sized()).collect());
            }
            84..86 => return Action::Split(self.sized()),
            86..89 => self.with_product(Method::POST, "rollback", "/api/causal/rollback/{id}").status(409),
            89..91 => Step::get("/api/causal/timeout/running", "/api/causal/timeout/running"),
            91 => Step::get("/api/causal/timeout/pool", "/api/causal/timeout/pool"),
            92..95 => self.with_product(Method::POST, "detached", "/api/causal/detached/{id}").status(202),
            95 => Step::get(format!("/api/causal/stream/{}", 1 + self.rng.below(50)), "/api/causal/stream/{rows}"),
            96..98 => Step::new(Method::POST, "/api/causal/fail/unique", Some("/api/causal/fail/unique"), 409),
            98 => Step::get("/api/causal/fail/syntax", "/api/causal/fail/syntax").status(500),
            _ => {
                // Longer than the client's patience of 15 ms.
                let step = Step::get("/api/causal/slow/80", "/api/causal/slow/{ms}");
                let abort = if self.rng.one_in(2) { Abort::Waiting } else { Abort::HalfClose };
                return Action::Abort(abort, step);
            }
        };
        Action::Request(step)
    }

    /// An answer with a length, or none by its nature.
    fn sized(&mut self) -> Step {
        match self.rng.below(6) {
            0 => self.with_product(Method::GET, "join", "/api/causal/join/{id}"),
            1 => self.with_product(Method::GET, "spawn", "/api/causal/spawn/{id}"),
            2 => Step::get("/api/causal/no-content", "/api/causal/no-content").status(204),
            3 => self.with_product(Method::HEAD, "", PRODUCT),
            4 => self.with_product(Method::POST, "transaction", "/api/causal/transaction/{id}"),
            _ => self.two(),
        }
    }

    /// Every statement runs to its end before its request does.
    pub(super) fn database(&mut self) -> Step {
        match self.rng.below(100) {
            0..10 => self.two(),
            10..15 => {
                Step::get(format!("/api/commerce/products?limit={}", 1 + self.rng.below(50)), "/api/commerce/products")
            }
            15..20 => Step::get(format!("/api/content/nodes?limit={}", 1 + self.rng.below(50)), NODES_ROUTE),
            20..26 => Step::get(format!("/api/content/nodes/{}", seed::node_id(0, self.rng.below(NODES))), NODE),
            26..34 => Step::get("/api/dashboard", "/api/dashboard"),
            34..36 => Step::get("/health/ready", "/health/ready"),
            36..46 => self.with_product(Method::GET, "spawn", "/api/causal/spawn/{id}"),
            46..54 => Step::get("/api/causal/join-set", "/api/causal/join-set"),
            54..63 => self.with_product(Method::GET, "join", "/api/causal/join/{id}"),
            63..71 => self.with_product(Method::GET, "blocking", "/api/causal/blocking/{id}"),
            71..76 => self.with_product(Method::GET, "nested", "/api/causal/nested/{id}"),
            76..80 => Step::get("/api/causal/session", "/api/causal/session"),
            80..83 => Step::get("/api/causal/unprepared", "/api/causal/unprepared"),
            83..86 => Step::get("/api/causal/stream", "/api/causal/stream"),
            86..92 => Step::get("/api/causal/n-plus-one", "/api/causal/n-plus-one"),
            _ => self.with_product(Method::POST, "transaction", "/api/causal/transaction/{id}"),
        }
    }

    /// Two statements, one after the other.
    pub(super) fn two(&mut self) -> Step {
        self.with_product(Method::GET, "", PRODUCT)
    }

    /// Whether every request carries a `traceparent`.
    pub(crate) fn traced(&self) -> bool {
        matches!(self.mix, Mix::Causal | Mix::Database)
    }

    fn with_product(&mut self, method: Method, name: &str, route: &'static str) -> Step {
        let id = seed::product_id(0, self.rng.below(PRODUCTS));
        let path =
            if name.is_empty() { format!("/api/commerce/products/{id}") } else { format!("/api/causal/{name}/{id}") };
        Step::new(method, path, Some(route), 200)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::{Outcome, routes};
    use crate::load::rng::Rng;
    use std::collections::{BTreeMap, BTreeSet};

    /// Requests by method and route, of 20 000.
    fn counts(mix: Mix) -> BTreeMap<(String, &'static str), (u16, u32)> {
        let mut chooser = Chooser::new(mix, Rng::new(1, 0));
        let mut counts = BTreeMap::new();
        for _ in 0..20_000 {
            let steps = match chooser.choose() {
                Action::Request(step) | Action::Abort(_, step) | Action::Split(step) => vec![step],
                Action::Pipeline(steps) => steps,
                other => panic!("another action: {other:?}"),
            };
            for step in steps {
                let route = step.route.expect("a route");
                counts.entry((step.method.to_string(), route)).or_insert((step.status, 0)).1 += 1;
            }
        }
        counts
    }

    #[test]
    fn the_causal_mix_reaches_every_route_of_the_list_at_about_three_statements_a_request() {
        let (counts, routes) = (counts(Mix::Causal), routes());
        let mut statements = 0;
        for route in &routes {
            let (status, count) = counts[&(route.method.to_owned(), route.route)];
            assert_eq!(status, route.status, "{route:?}");
            assert!(count > 50, "{route:?}: {count}");
            statements += count as usize * route.statements.len();
        }
        assert_eq!(counts.len(), routes.len());
        let mean = statements as f64 / 20_000.0;
        assert!((3.0..4.0).contains(&mean), "{mean}");
    }

    #[test]
    fn the_database_mix_has_nothing_that_is_cancelled_fails_or_outlives_its_request() {
        let counts = counts(Mix::Database);
        let reached: BTreeSet<_> = counts.keys().map(|(method, route)| (&**method, *route)).collect();
        let plain: Vec<_> = routes()
            .into_iter()
            .filter(|route| route.statements.iter().all(|statement| statement.outcome == Outcome::Done))
            .filter(|route| !route.route.contains("detached"))
            .filter(|route| route.method != "HEAD" && route.status == 200 && !route.route.contains("pieces"))
            .collect();
        assert_eq!(reached, plain.iter().map(|route| (route.method, route.route)).collect());
    }

    #[test]
    fn the_mix_of_two_asks_the_database_twice_in_every_request_and_sends_nothing_else() {
        let counts = counts(Mix::Two);
        let route = routes().into_iter().find(|route| route.route == PRODUCT).expect("in the list");
        assert_eq!(route.statements.len(), 2);
        assert!(route.statements.iter().all(|statement| statement.outcome == Outcome::Done), "{route:?}");
        assert_eq!(counts, BTreeMap::from([(("GET".to_owned(), PRODUCT), (200, 20_000))]));
        let mut chooser = Chooser::new(Mix::Two, Rng::new(1, 0));
        let targets: BTreeSet<_> = (0..1000).map(|_| chooser.two().target).collect();
        assert!(targets.len() > 10, "more than one product: {}", targets.len());
        assert!(chooser.two().headers.is_empty(), "no tenant to look up");
        assert!(Mix::Two.plain() && !Mix::Database.plain());
    }
}
