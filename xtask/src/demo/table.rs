//! The demo's table of routes.
//!
//! Reads: what happened between two scrapes. Yields: lines of text. Costs: nothing to speak of.

use crate::metrics::{Quantile, Route, Routes};

/// Columns behind the route.
const HEAD: [&str; 5] = ["req/s", "errors", "P50 ms", "P95 ms", "P99 ms"];
const COLUMN: usize = 9;

/// A table of what happened in `seconds`, the busiest routes first, at most `rows` of them and `width` columns wide.
pub fn render(window: &Routes, seconds: f64, rows: usize, width: usize) -> Vec<String> {
    let mut routes: Vec<_> = window.iter().filter(|(_, route)| route.requests > 0.0).collect();
    routes.sort_by(|a, b| b.1.requests.total_cmp(&a.1.requests).then_with(|| a.0.cmp(b.0)));
    let name = |(path, method): &(String, String)| format!("{method:<7} {path}");
    let longest = routes.iter().map(|(key, _)| name(key).chars().count()).max().unwrap_or(0);
    let room = longest.max(5).min(width.saturating_sub(HEAD.len() * COLUMN).max(12));
    let line = |name: &str, cells: [String; 5]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>COLUMN$}")).collect();
        format!("{:<room$}{cells}", shortened(name, room))
    };
    let mut lines = vec![line("route", HEAD.map(str::to_owned))];
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
    let [rate, errors, p50, p95, p99] = cells(&sum(window.values()), seconds);
    let routes = window.values().filter(|route| route.requests > 0.0).count();
    format!("{rate:>8} req/s on {routes:>2} routes, {errors:>5} errors, P50 {p50} ms, P95 {p95} ms, P99 {p99} ms")
}

fn sum<'r>(routes: impl Iterator<Item = &'r Route>) -> Route {
    let mut all = Route::default();
    for route in routes {
        all.requests += route.requests;
        all.errors += route.errors;
        for (bound, count) in &route.buckets {
            match all.buckets.binary_search_by(|(other, _)| other.total_cmp(bound)) {
                Ok(at) => all.buckets[at].1 += count,
                Err(at) => all.buckets.insert(at, (*bound, *count)),
            }
        }
    }
    all
}

fn cells(route: &Route, seconds: f64) -> [String; 5] {
    let percent = if route.requests > 0.0 { 100.0 * route.errors / route.requests } else { 0.0 };
    // Below the first bound and above the last a histogram knows no number, only the bound.
    let quantile = |quantile| match route.quantile(quantile) {
        None => "-".to_owned(),
        Some(Quantile::Below(bound)) => format!("<{:.1}", bound * 1e3),
        Some(Quantile::At(seconds)) if seconds < 0.1 => format!("{:.1}", seconds * 1e3),
        Some(Quantile::At(seconds)) => format!("{:.0}", seconds * 1e3),
        Some(Quantile::Above(bound)) => format!(">{:.0}", bound * 1e3),
    };
    [
        format!("{:.1}", route.requests / seconds.max(1e-3)),
        format!("{percent:.1}%"),
        quantile(0.5),
        quantile(0.95),
        quantile(0.99),
    ]
}

fn shortened(name: &str, room: usize) -> String {
    if name.chars().count() <= room {
        return name.to_owned();
    }
    name.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(requests: f64, errors: f64) -> Route {
        Route { requests, errors, buckets: vec![(0.001, 0.0), (0.002, requests), (f64::INFINITY, requests)] }
    }

    fn window() -> Routes {
        let key = |path: &str| (path.to_owned(), "GET".to_owned());
        [
            (key("/api/content/nodes/{id}"), route(50.0, 0.0)),
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
                "route                                  req/s   errors   P50 ms   P95 ms   P99 ms",
                "GET     /api/commerce/products/{id}     10.0     5.0%      1.5      1.9      2.0",
                "GET     /api/content/nodes/{id}          5.0     0.0%      1.5      1.9      2.0",
                "all                                     15.0     3.3%      1.5      2.0      2.0",
            ]
        );
    }

    #[test]
    fn a_small_terminal_shortens_names_and_sums_up_what_it_hides() {
        let lines = render(&window(), 10.0, 1, 65);
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("GET     /api/commer…"), "{}", lines[1]);
        assert!(lines[2].starts_with("… 1 more ") && lines[2].contains(" 5.0 "), "{}", lines[2]);
        assert!(lines.iter().all(|line| line.chars().count() <= 65), "{lines:?}");
    }

    #[test]
    fn without_requests_there_are_no_numbers() {
        let lines = render(&Routes::new(), 10.0, 10, 80);
        assert!(lines[1].contains("0.0") && lines[1].ends_with('-'), "{lines:?}");
        assert!(summary(&Routes::new(), 10.0).contains("0.0 req/s"));
    }

    #[test]
    fn outside_its_bounds_a_histogram_names_the_bound() {
        let fast =
            Route { requests: 2.0, errors: 0.0, buckets: vec![(0.0005, 1.0), (10.0, 1.0), (f64::INFINITY, 2.0)] };
        let [.., p50, _, p99] = cells(&fast, 1.0);
        assert_eq!((p50.as_str(), p99.as_str()), ("<0.5", ">10000"));
    }
}
