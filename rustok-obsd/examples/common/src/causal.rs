//! The routes that exercise causality, and the other database routes that all servers have: which statements each runs,
//! in which task, and how they end.
//!
//! Pure: [`check`] compares a record of the ground truth with [`routes`].

use std::collections::BTreeMap;

use crate::sql;
use crate::truth::{Query, Record};

/// Rows of the list of `/api/causal/n-plus-one`.
pub const N: usize = 12;

/// How a statement ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Well.
    Done,
    /// Its future or stream is dropped. Where the machine is late it may be done before that.
    Cancelled,
    /// With this SQLSTATE.
    Failed(&'static str),
    /// Rolled back by the pool, see [`Query::by_pool`].
    ByPool,
}

/// A statement that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Statement {
    /// Its text.
    pub sql: &'static str,
    /// How it ends.
    pub outcome: Outcome,
    /// The task that makes the call: 0 for the handler's, else a number that is the task's own within the request.
    pub task: u8,
}

/// A route and what it asks of the database, in the order of the calls.
#[derive(Clone, Debug)]
pub struct Route {
    /// Method.
    pub method: &'static str,
    /// What `MatchedPath` says.
    pub route: &'static str,
    /// The status of its answer.
    pub status: u16,
    /// The statements; those of different tasks in any order.
    pub statements: Vec<Statement>,
}

fn route(method: &'static str, route: &'static str, status: u16, statements: &[Statement]) -> Route {
    Route { method, route, status, statements: statements.to_vec() }
}

fn at(task: u8, sql: &'static str) -> Statement {
    Statement { sql, outcome: Outcome::Done, task }
}

fn own(sql: &'static str) -> Statement {
    at(0, sql)
}

fn ending(outcome: Outcome, sql: &'static str) -> Statement {
    Statement { sql, outcome, task: 0 }
}

/// All of them.
#[must_use]
pub fn routes() -> Vec<Route> {
    use Outcome::{ByPool, Cancelled, Failed};
    let n_plus_one: Vec<_> = [own(sql::PRODUCT_IDS)].into_iter().chain([own(sql::STOCK); N]).collect();
    vec![
        route("GET", "/api/commerce/products", 200, &[own(sql::PRODUCTS)]),
        route("GET", "/api/commerce/products/{id}", 200, &[own(sql::PRODUCT), own(sql::CHEAPER)]),
        route("GET", "/api/content/nodes", 200, &[own(sql::NODES)]),
        route("GET", "/api/content/nodes/{id}", 200, &[own(sql::NODE)]),
        route(
            "GET",
            "/api/dashboard",
            200,
            &[at(1, sql::COUNT_NODES), at(2, sql::COUNT_PRODUCTS), at(3, sql::COUNT_POSTS)],
        ),
        route("GET", "/health/ready", 200, &[own(sql::READY)]),
        route("GET", "/api/causal/spawn/{id}", 200, &[own(sql::PRODUCT), at(1, sql::STOCK)]),
        route(
            "GET",
            "/api/causal/join-set",
            200,
            &[at(1, sql::PRICE), at(2, sql::PRICE), at(3, sql::PRICE), at(4, sql::PRICE), own(sql::COUNT_PRODUCTS)],
        ),
        route(
            "GET",
            "/api/causal/join/{id}",
            200,
            &[own(sql::PRICE), own(sql::COUNT_NODES), own(sql::COUNT_POSTS), own(sql::COUNT_POSTS)],
        ),
        route("GET", "/api/causal/blocking/{id}", 200, &[own(sql::PRODUCT), at(1, sql::STOCK)]),
        route("GET", "/api/causal/nested/{id}", 200, &[own(sql::PRICE), at(1, sql::STOCK), at(2, sql::PRODUCT)]),
        route("GET", "/api/causal/session", 200, &[own(sql::COUNT_NODES), own(sql::COUNT_POSTS), own(sql::PRODUCTS)]),
        route("GET", "/api/causal/unprepared", 200, &[own(sql::COUNT_TENANTS)]),
        route("GET", "/api/causal/stream", 200, &[own(sql::STREAM)]),
        route("GET", "/api/causal/stream/{rows}", 200, &[ending(Cancelled, sql::STREAM)]),
        route("GET", "/api/causal/n-plus-one", 200, &n_plus_one),
        route("HEAD", "/api/commerce/products/{id}", 200, &[own(sql::PRODUCT), own(sql::CHEAPER)]),
        route("GET", "/api/causal/pieces/{count}", 200, &[own(sql::COUNT_POSTS)]),
        route("GET", "/api/causal/no-content", 204, &[own(sql::COUNT_NODES)]),
        route("GET", "/api/causal/not-modified", 304, &[own(sql::COUNT_PRODUCTS), own(sql::COUNT_POSTS)]),
        route(
            "POST",
            "/api/causal/transaction/{id}",
            200,
            &[own("BEGIN"), own(sql::STOCK), own(sql::TAKE), own(sql::OUTBOX), own("COMMIT")],
        ),
        route(
            "POST",
            "/api/causal/rollback/{id}",
            409,
            &[own("BEGIN"), own(sql::TAKE), own(sql::STOCK), ending(ByPool, "ROLLBACK")],
        ),
        route("GET", "/api/causal/timeout/running", 200, &[ending(Cancelled, sql::SLEEP), own(sql::COUNT_PRODUCTS)]),
        route(
            "GET",
            "/api/causal/timeout/pool",
            200,
            &[own("BEGIN"), ending(Cancelled, sql::SLEEP), own("COMMIT"), own(sql::COUNT_PRODUCTS)],
        ),
        route("POST", "/api/causal/detached/{id}", 202, &[own(sql::PRICE), at(1, sql::OUTBOX), at(1, sql::STOCK)]),
        route(
            "POST",
            "/api/causal/fail/unique",
            409,
            &[ending(Failed("23505"), sql::TAKEN_SLUG), own(sql::COUNT_PRODUCTS)],
        ),
        route("GET", "/api/causal/fail/syntax", 500, &[ending(Failed("42601"), sql::SYNTAX_ERROR)]),
        // Its client goes away: then the statement is cancelled.
        route("GET", "/api/causal/slow/{ms}", 200, &[ending(Cancelled, sql::SLEEP)]),
    ]
}

/// A request's statements without order and times: those of the handler's task, then those of the others by task.
type Shape = (Vec<(String, Outcome)>, Vec<Vec<(String, Outcome)>>);

fn shape<T: Ord>(own: &T, statements: impl Iterator<Item = (T, String, Outcome)>) -> Shape {
    let mut tasks: BTreeMap<T, Vec<(String, Outcome)>> = BTreeMap::new();
    for (task, sql, outcome) in statements {
        tasks.entry(task).or_default().push((sql, outcome));
    }
    let handler = tasks.remove(own).unwrap_or_default();
    let mut groups: Vec<_> = [handler].into_iter().chain(tasks.into_values()).collect();
    groups.iter_mut().for_each(|group| group.sort());
    groups[1..].sort();
    let others = groups.split_off(1);
    (groups.remove(0), others)
}

/// Whether a record, late statements included, is what its route should have left; `Ok(false)`: a route that is not in
/// the list, or a request that the client gave up.
///
/// # Errors
/// What differs.
pub fn check(record: &Record, routes: &[Route]) -> Result<bool, String> {
    let known =
        routes.iter().find(|route| record.route.as_deref() == Some(route.route) && record.method == route.method);
    let Some(route) = known.filter(|_| !record.aborted) else {
        return Ok(false);
    };
    if record.status != Some(route.status) {
        return Err(format!("{} {}: status {:?}", route.method, route.route, record.status));
    }
    let due = shape(&0, route.statements.iter().map(|due| (due.task, due.sql.to_owned(), due.outcome)));
    let may_be_cancelled = |sql: &str| {
        route.statements.iter().any(|statement| statement.sql == sql && statement.outcome == Outcome::Cancelled)
    };
    let outcome = |query: &Query| match query {
        Query { by_pool: true, .. } => Outcome::ByPool,
        Query { cancelled: true, .. } => Outcome::Cancelled,
        Query { error: true, sqlstate, .. } => Outcome::Failed(match sqlstate.as_deref() {
            Some("23505") => "23505",
            Some("42601") => "42601",
            _ => "another",
        }),
        // Done before the clock was looked at.
        Query { sql, .. } if may_be_cancelled(sql) => Outcome::Cancelled,
        _ => Outcome::Done,
    };
    let own = record.task;
    let seen = shape(&own, record.all_queries().map(|query| (query.task, query.sql.clone(), outcome(query))));
    if seen == due {
        Ok(true)
    } else {
        Err(format!("{} {}:\n   due {due:?}\n  seen {seen:?}\n{record:?}", route.method, route.route))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(queries: &[(&str, u64)]) -> Record {
        let queries: Vec<_> = queries
            .iter()
            .map(|(sql, task)| Query { sql: (*sql).to_owned(), task: Some(*task), ..Query::default() })
            .collect();
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let record = serde_json::json!({
            "id": 0, "peer": addr, "local": addr, "method": "GET", "path": "/", "start_ns": 0, "handler_end_ns": 0,
            "end_ns": 0, "aborted": false, "task": 7, "route": "/api/causal/join-set", "status": 200,
            "queries": queries,
        });
        serde_json::from_value(record).expect("a record")
    }

    #[test]
    fn a_record_is_right_in_any_order_and_wrong_in_another_task() {
        let (price, count) = (sql::PRICE, sql::COUNT_PRODUCTS);
        let right = record(&[(price, 12), (price, 9), (count, 7), (price, 10), (price, 11)]);
        assert_eq!(check(&right, &routes()), Ok(true));
        for wrong in [
            record(&[(price, 12), (price, 9), (count, 8), (price, 10), (price, 11)]),
            record(&[(price, 12), (price, 12), (count, 7), (price, 10), (price, 11)]),
            record(&[(price, 12), (price, 9), (count, 7), (price, 10)]),
        ] {
            check(&wrong, &routes()).expect_err("another shape");
        }
        let unknown = Record { route: None, ..right };
        assert_eq!(check(&unknown, &routes()), Ok(false));
    }
}
