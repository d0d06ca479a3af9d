//! The demo's table of routes.
//!
//! Reads: what happened between two scrapes. Yields: lines of text. Costs: nothing to speak of.

use crate::metrics::{Quantile, Route, Routes};

/// Columns behind the route, and how wide each is.
const HEAD: [(&str, usize); 8] = [
    ("req/s", 8),
    ("errors", 8),
    ("P50 ms", 8),
    ("P95 ms", 8),
    ("P99 ms", 8),
    ("queries", 9),
    ("db ms", 8),
    ("pool ms", 9),
];
/// The same where there is little room.
const NARROW: [(&str, usize); 8] =
    [("req/s", 7), ("err", 6), ("P50", 7), ("P95", 7), ("P99 ms", 7), ("q/req", 6), ("db ms", 7), ("pool ms", 8)];
/// As few characters as a route gets.
const LEAST: usize = 12;

/// A table of what happened in `seconds`, the busiest routes first, at most `rows` of them and `width` columns wide.
/// Queries, and the time in the database and before its pool, are means per request.
pub fn render(window: &Routes, seconds: f64, rows: usize, width: usize) -> Vec<String> {
    let mut routes: Vec<_> = window.iter().filter(|(_, route)| route.requests > 0.0).collect();
    routes.sort_by(|a, b| b.1.requests.total_cmp(&a.1.requests).then_with(|| a.0.cmp(b.0)));
    let methods = routes.iter().map(|((_, method), _)| method.chars().count()).max().unwrap_or(0);
    let longest = routes.iter().map(|((path, _), _)| methods + 1 + path.chars().count()).max().unwrap_or(0).max(5);
    let columns = |head: [(&str, usize); 8]| head.iter().map(|(_, width)| width).sum::<usize>();
    let head = if longest + columns(HEAD) <= width { HEAD } else { NARROW };
    let room = longest.min(width.saturating_sub(columns(head)).max(LEAST));
    let name = |(path, method): &(String, String)| {
        format!("{method:<methods$} {}", shortened(path, room.saturating_sub(methods + 1)))
    };
    let line = |name: &str, cells: [String; 8]| {
        let cells: String = cells.iter().zip(head).map(|(cell, (_, width))| format!("{cell:>width$}")).collect();
        format!("{name:<room$}{cells}")
    };
    let mut lines = vec![line("route", head.map(|(text, _)| text.to_owned()))];
    let shown = routes.len().min(rows);
    lines.extend(routes[..shown].iter().map(|(key, route)| line(&name(key), cells(route, seconds))));
    if shown < routes.len() {
        let (_, hidden) = routes.split_at(shown);
        let sum = sum(hidden.iter().map(|(_, route)| *route));
        lines.push(line(&format!("… {} more", hidden.len()), cells(&sum, seconds)));
    }
    lines.push(line("all", cells(&sum(window.values()), seconds)));
    lines
}

/// All routes in one line.
pub fn summary(window: &Routes, seconds: f64) -> String {
    let [rate, errors, p50, p95, p99, queries, database, pool] = cells(&sum(window.values()), seconds);
    let routes = window.values().filter(|route| route.requests > 0.0).count();
    format!(
        "{rate:>8} req/s on {routes:>2} routes, {errors:>5} errors, P50 {p50} ms, P95 {p95} ms, P99 {p99} ms; \
         {queries} queries, {database} ms in the database, {pool} ms for its pool"
    )
}

fn sum<'r>(routes: impl Iterator<Item = &'r Route>) -> Route {
    let mut all = Route::default();
    routes.for_each(|route| all.add(route));
    all
}

fn cells(route: &Route, seconds: f64) -> [String; 8] {
    let percent = if route.requests > 0.0 { 100.0 * route.errors / route.requests } else { 0.0 };
    // Below the first bound and above the last a histogram knows no number, only the bound.
    let quantile = |quantile| match route.quantile(quantile) {
        None => "-".to_owned(),
        Some(Quantile::Below(bound)) => format!("<{:.1}", bound * 1e3),
        Some(Quantile::At(seconds)) => millis(seconds),
        Some(Quantile::Above(bound)) => format!(">{:.0}", bound * 1e3),
    };
    // Of requests that went unseen inside there is no mean.
    let mean = |sum: f64| (route.known > 0.0).then(|| sum / route.known);
    let time = |sum| mean(sum).map_or_else(|| "-".to_owned(), millis);
    [
        format!("{:.1}", route.requests / seconds.max(1e-3)),
        format!("{percent:.1}%"),
        quantile(0.5),
        quantile(0.95),
        quantile(0.99),
        mean(route.queries).map_or_else(|| "-".to_owned(), |queries| format!("{queries:.1}")),
        time(route.database),
        time(route.pool),
    ]
}

/// Milliseconds.
pub fn millis(seconds: f64) -> String {
    match seconds * 1e3 {
        ms if ms < 0.995 => format!("{ms:.2}"),
        ms if ms < 100.0 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    }
}

/// The end of a path: what tells routes apart.
fn shortened(path: &str, room: usize) -> String {
    let length = path.chars().count();
    if length <= room {
        return path.to_owned();
    }
    ['…'].into_iter().chain(path.chars().skip(length - room.saturating_sub(1).min(length))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(requests: f64, errors: f64) -> Route {
        let buckets = vec![(0.001, 0.0), (0.002, requests), (f64::INFINITY, requests)];
        let (queries, database, pool) = (2.5 * requests, 0.0042 * requests, 0.0003 * requests);
        Route { requests, errors, buckets, known: requests, queries, database, pool }
    }

    fn window() -> Routes {
        let key = |path: &str| (path.to_owned(), "GET".to_owned());
        [
            (key("/api/content/nodes/{id}"), Route { known: 0.0, ..route(50.0, 0.0) }),
            (key("/api/commerce/products/{id}"), route(100.0, 5.0)),
            (key("/idle"), route(0.0, 0.0)),
        ]
        .into()
    }

    #[test]
    fn the_busiest_route_comes_first_and_idle_ones_not_at_all() {
        let lines = render(&window(), 10.0, 10, 100);
        assert_eq!(
            lines,
            [
                "route                             req/s  errors  P50 ms  P95 ms  P99 ms  queries   db ms  pool ms",
                "GET /api/commerce/products/{id}    10.0    5.0%     1.5     1.9     2.0      2.5     4.2     0.30",
                "GET /api/content/nodes/{id}         5.0    0.0%     1.5     1.9     2.0        -       -        -",
                "all                                15.0    3.3%     1.5     2.0     2.0      3.8     6.3     0.45",
            ]
        );
    }

    #[test]
    fn eighty_columns_are_enough_and_what_is_hidden_is_summed_up() {
        let lines = render(&window(), 10.0, 1, 80);
        assert_eq!(
            lines,
            [
                "route                      req/s   err    P50    P95 P99 ms q/req  db ms pool ms",
                "GET …mmerce/products/{id}   10.0  5.0%    1.5    1.9    2.0   2.5    4.2    0.30",
                "… 1 more                     5.0  0.0%    1.5    1.9    2.0     -      -       -",
                "all                         15.0  3.3%    1.5    2.0    2.0   3.8    6.3    0.45",
            ]
        );
    }

    #[test]
    fn without_requests_there_are_no_numbers() {
        let lines = render(&Routes::new(), 10.0, 10, 80);
        assert!(lines[1].contains("0.0") && lines[1].ends_with('-'), "{lines:?}");
        assert!(summary(&Routes::new(), 10.0).contains("0.0 req/s"));
    }

    #[test]
    fn outside_its_bounds_a_histogram_names_the_bound() {
        let buckets = vec![(0.0005, 1.0), (10.0, 1.0), (f64::INFINITY, 2.0)];
        let fast = Route { requests: 2.0, buckets, ..Route::default() };
        let [_, _, p50, _, p99, ..] = cells(&fast, 1.0);
        assert_eq!((p50.as_str(), p99.as_str()), ("<0.5", ">10000"));
    }
}
