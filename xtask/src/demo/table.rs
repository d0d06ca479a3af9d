//! The demo's table of routes.
//!
//! Reads: two scrapes. Yields: lines of text. Costs: nothing to speak of.

use crate::metrics::{Route, Routes};

/// Columns behind the route.
const HEAD: [&str; 5] = ["req/s", "errors", "P50 ms", "P95 ms", "P99 ms"];

/// A table of what happened in `seconds`, the busiest routes first, at most `rows` of them and `width` columns wide.
pub fn render(window: &Routes, seconds: f64, rows: usize, width: usize) -> Vec<String> {
    let mut routes: Vec<_> = window.iter().filter(|(_, route)| route.requests > 0.0).collect();
    routes.sort_by(|a, b| b.1.requests.total_cmp(&a.1.requests).then_with(|| a.0.cmp(b.0)));
    let name = |(path, method): &(String, String)| format!("{method:<6} {path}");
    let numbers = HEAD.len() * 10;
    let longest = routes.iter().map(|(key, _)| name(key).chars().count()).max().unwrap_or(0);
    let room = longest.max(5).min(width.saturating_sub(numbers).max(12));
    let line = |name: &str, cells: [String; 5]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>10}")).collect();
        format!("{:<room$}{cells}", shortened(name, room))
    };
    let mut lines = vec![line("route", HEAD.map(str::to_owned))];
    let shown = routes.len().min(rows);
    lines.extend(routes[..shown].iter().map(|(key, route)| line(&name(key), cells(route, seconds))));
    if shown < routes.len() {
        lines.push(format!("… and {} more routes", routes.len() - shown));
    }
    let mut all = Route::default();
    for (_, route) in routes {
        all.requests += route.requests;
        all.errors += route.errors;
        for (bound, count) in &route.buckets {
            match all.buckets.binary_search_by(|(other, _)| other.total_cmp(bound)) {
                Ok(at) => all.buckets[at].1 += count,
                Err(at) => all.buckets.insert(at, (*bound, *count)),
            }
        }
    }
    lines.push(line("all", cells(&all, seconds)));
    lines
}

fn cells(route: &Route, seconds: f64) -> [String; 5] {
    let percent = if route.requests > 0.0 { 100.0 * route.errors / route.requests } else { 0.0 };
    let quantile = |quantile| route.quantile(quantile).map_or_else(|| "-".to_owned(), |s| format!("{:.2}", s * 1e3));
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
                "route                                  req/s    errors    P50 ms    P95 ms    P99 ms",
                "GET    /api/commerce/products/{id}      10.0      5.0%      1.50      1.95      1.99",
                "GET    /api/content/nodes/{id}           5.0      0.0%      1.50      1.95      1.99",
                "all                                     15.0      3.3%      1.50      1.95      1.99",
            ]
        );
    }

    #[test]
    fn a_small_terminal_shortens_names_and_counts_what_it_hides() {
        let lines = render(&window(), 10.0, 1, 70);
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("GET    /api/commerc…"), "{}", lines[1]);
        assert_eq!(lines[2], "… and 1 more routes");
        assert!(lines.iter().all(|line| line.chars().count() <= 70), "{lines:?}");
    }

    #[test]
    fn without_requests_there_are_no_numbers() {
        let lines = render(&Routes::new(), 10.0, 10, 80);
        assert!(lines[1].contains("0.0") && lines[1].ends_with('-'), "{lines:?}");
    }
}
