//! What the demo and the bench take from the daemon's `/metrics`.
//!
//! Reads: the Prometheus text format 0.0.4, as our own daemon writes it. Yields: samples, and tables of routes and
//! statements between two scrapes. Costs: one pass over the text.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// One line of an exposition.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `rustok_http_requests_total`.
    pub name: String,
    /// Unescaped, in the order written.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// A label's value; a label that is not there is an empty one.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// Reads a whole exposition.
///
/// # Errors
/// Names the line that is no sample, comment or blank.
pub fn parse(text: &str) -> Result<Vec<Sample>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|(at, line)| sample(line).with_context(|| format!("line {} of /metrics: {line}", at + 1))).collect()
}

fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches(',');
            if let Some(behind) = rest.strip_prefix('}') {
                rest = behind;
                break;
            }
            let (key, behind) = rest.split_once("=\"").context("a label without a quoted value")?;
            let (value, behind) = quoted(behind)?;
            labels.push((key.to_owned(), value));
            rest = behind;
        }
    }
    let value = rest.split_whitespace().next().context("no value")?;
    // Rust reads `+Inf`, `-Inf` and `NaN` as Prometheus writes them.
    let value = value.parse().with_context(|| format!("`{value}` is no number"))?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                _ => bail!("an unknown escape"),
            },
            plain => value.push(plain),
        }
    }
    bail!("a quote is not closed")
}

/// The sum of all samples of this name.
pub fn sum(samples: &[Sample], name: &str) -> f64 {
    samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
}

/// Counters of one route.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Route {
    /// Requests.
    pub requests: f64,
    /// Requests that the server failed (status 5xx).
    pub errors: f64,
    /// Cumulative counts by upper bound in seconds, in rising order.
    pub buckets: Vec<(f64, f64)>,
    /// Requests of which it is known what they did in the database.
    pub known: f64,
    /// Their operations.
    pub queries: f64,
    /// Seconds of their operations.
    pub database: f64,
    /// Seconds that they waited for a pooled connection.
    pub pool: f64,
}

/// Routes by path and method.
pub type Routes = BTreeMap<(String, String), Route>;

/// The HTTP routes of a scrape; several targets or other labels are added up.
pub fn routes(samples: &[Sample]) -> Routes {
    let mut routes = Routes::new();
    for sample in samples {
        let key = || (sample.label("path").to_owned(), sample.label("method").to_owned());
        match sample.name.as_str() {
            "rustok_http_requests_total" => {
                let route = routes.entry(key()).or_default();
                route.requests += sample.value;
                if sample.label("status").starts_with('5') {
                    route.errors += sample.value;
                }
            }
            "rustok_http_request_duration_seconds_bucket" => {
                let Ok(bound) = sample.label("le").parse::<f64>() else {
                    continue;
                };
                let buckets = &mut routes.entry(key()).or_default().buckets;
                match buckets.binary_search_by(|(other, _)| other.total_cmp(&bound)) {
                    Ok(at) => buckets[at].1 += sample.value,
                    Err(at) => buckets.insert(at, (bound, sample.value)),
                }
            }
            "rustok_obsd_http_request_queries_count" => {
                routes.entry(otel_key(sample)).or_default().known += sample.value;
            }
            "rustok_obsd_http_request_queries_sum" => {
                routes.entry(otel_key(sample)).or_default().queries += sample.value;
            }
            "rustok_obsd_http_request_phase_seconds_sum" => match sample.label("phase") {
                "database" => routes.entry(otel_key(sample)).or_default().database += sample.value,
                "pool_wait" => routes.entry(otel_key(sample)).or_default().pool += sample.value,
                _ => {}
            },
            _ => {}
        }
    }
    routes
}

/// Path and method under OpenTelemetry's names, which leave out a route that is none.
fn otel_key(sample: &Sample) -> (String, String) {
    let route = sample.label("http_route");
    let path = if route.is_empty() { "~unmatched" } else { route };
    (path.to_owned(), sample.label("http_request_method").to_owned())
}

/// Counters of one statement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statement {
    /// Its text, or what else it is known by.
    pub text: String,
    /// Operations.
    pub calls: f64,
    /// Seconds.
    pub seconds: f64,
    /// Rows.
    pub rows: f64,
}

/// Statements by fingerprint.
pub type Statements = BTreeMap<String, Statement>;

/// The statements of a scrape; several targets are added up.
pub fn statements(samples: &[Sample]) -> Statements {
    let mut statements = Statements::new();
    for sample in samples {
        let field: fn(&mut Statement) -> &mut f64 = match sample.name.as_str() {
            "rustok_obsd_statement_calls_total" => |statement| &mut statement.calls,
            "rustok_obsd_statement_seconds_total" => |statement| &mut statement.seconds,
            "rustok_obsd_statement_rows_total" => |statement| &mut statement.rows,
            _ => continue,
        };
        let statement = statements.entry(sample.label("fingerprint").to_owned()).or_default();
        *field(statement) += sample.value;
        if statement.text.is_empty() {
            let names = ["statement", "summary", "fingerprint"].map(|label| sample.label(label));
            statement.text = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default().to_owned();
        }
    }
    statements
}

/// What happened between two scrapes; see [`between`].
pub fn statements_between(old: &Statements, new: &Statements) -> Statements {
    let none = Statement::default();
    let delta = |(fingerprint, new): (&String, &Statement)| {
        let old = old.get(fingerprint).filter(|old| old.calls <= new.calls).unwrap_or(&none);
        let statement = Statement {
            text: new.text.clone(),
            calls: new.calls - old.calls,
            seconds: new.seconds - old.seconds,
            rows: new.rows - old.rows,
        };
        (fingerprint.clone(), statement)
    };
    new.iter().map(delta).collect()
}

/// What happened between two scrapes. A counter that fell was reset: then all of it is new.
pub fn between(old: &Routes, new: &Routes) -> Routes {
    let none = Route::default();
    let delta = |(key, new): (&(String, String), &Route)| {
        let old = old.get(key).filter(|old| old.requests <= new.requests).unwrap_or(&none);
        let before =
            |bound: f64| old.buckets.iter().find(|(other, _)| *other == bound).map_or(0.0, |(_, count)| *count);
        let buckets = new.buckets.iter().map(|(bound, count)| (*bound, count - before(*bound))).collect();
        let route = Route {
            requests: new.requests - old.requests,
            errors: new.errors - old.errors,
            buckets,
            known: new.known - old.known,
            queries: new.queries - old.queries,
            database: new.database - old.database,
            pool: new.pool - old.pool,
        };
        (key.clone(), route)
    };
    new.iter().map(delta).collect()
}

/// What a histogram knows of a quantile, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantile {
    /// Somewhere below the first bound.
    Below(f64),
    /// Here, by linear interpolation inside a bucket.
    At(f64),
    /// Somewhere above the last bound.
    Above(f64),
}

impl Route {
    /// Adds another route's counters.
    pub fn add(&mut self, other: &Self) {
        let Self { requests, errors, buckets, known, queries, database, pool } = self;
        *requests += other.requests;
        *errors += other.errors;
        *known += other.known;
        *queries += other.queries;
        *database += other.database;
        *pool += other.pool;
        for (bound, count) in &other.buckets {
            match buckets.binary_search_by(|(mine, _)| mine.total_cmp(bound)) {
                Ok(at) => buckets[at].1 += count,
                Err(at) => buckets.insert(at, (*bound, *count)),
            }
        }
    }

    /// The quantile as Prometheus' `histogram_quantile` finds it, but for the two buckets with one bound only: there
    /// Prometheus names a number, and we the bound. `None` without observations.
    pub fn quantile(&self, quantile: f64) -> Option<Quantile> {
        let total = self.buckets.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        let rank = quantile * total;
        let at = self.buckets.iter().position(|(_, count)| *count >= rank)?;
        let (upper, count) = self.buckets[at];
        let Some((lower, below)) = at.checked_sub(1).map(|before| self.buckets[before]) else {
            return Some(Quantile::Below(upper));
        };
        if upper.is_infinite() {
            return Some(Quantile::Above(lower));
        }
        Some(Quantile::At(lower + (upper - lower) * (rank - below) / (count - below)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP rustok_http_requests_total Requests.
# TYPE rustok_http_requests_total counter
rustok_http_requests_total{method="GET",path="/api/content/nodes/{id}",status="200"} 90
rustok_http_requests_total{method="GET",path="/api/content/nodes/{id}",status="500"} 10
rustok_http_requests_total{method="GET",path="/api/content/nodes/{id}",status="499"} 2

rustok_http_request_duration_seconds_bucket{method="GET",path="/api/content/nodes/{id}",le="0.1"} 50
rustok_http_request_duration_seconds_bucket{method="GET",path="/api/content/nodes/{id}",le="0.2"} 100
rustok_http_request_duration_seconds_bucket{method="GET",path="/api/content/nodes/{id}",le="+Inf"} 102
rustok_http_active_connections 3 1700000000000
rustok_obsd_http_request_queries_sum{service_name="shop",http_request_method="GET",http_route="/api/content/nodes/{id}"} 200
rustok_obsd_http_request_queries_count{service_name="shop",http_request_method="GET",http_route="/api/content/nodes/{id}"} 100
rustok_obsd_http_request_phase_seconds_sum{service_name="shop",http_request_method="GET",http_route="/api/content/nodes/{id}",phase="pool_wait"} 0.5
rustok_obsd_http_request_phase_seconds_sum{service_name="shop",http_request_method="GET",http_route="/api/content/nodes/{id}",phase="database"} 3
rustok_obsd_http_request_queries_count{service_name="shop",http_request_method="GET"} 7
rustok_obsd_statement_calls_total{service_name="shop",fingerprint="0a",summary="SELECT nodes",statement="SELECT ?"} 10
rustok_obsd_statement_calls_total{service_name="blog",fingerprint="0a",summary="SELECT nodes",statement="SELECT ?"} 5
rustok_obsd_statement_seconds_total{service_name="shop",fingerprint="0a",summary="SELECT nodes",statement="SELECT ?"} 1.5
rustok_obsd_statement_rows_total{service_name="shop",fingerprint="0a",summary="SELECT nodes",statement="SELECT ?"} 30
rustok_obsd_statement_calls_total{service_name="shop",fingerprint="~other"} 2
"#;

    fn key() -> (String, String) {
        ("/api/content/nodes/{id}".into(), "GET".into())
    }

    #[test]
    fn labels_may_contain_braces_commas_and_escapes() {
        let sample = sample(r#"a_total{x="{id},\"q\"",y="a\\b\nc",} 1.5e3"#).expect("a sample");
        assert_eq!(sample.label("x"), "{id},\"q\"");
        assert_eq!(sample.label("y"), "a\\b\nc");
        assert_eq!(sample.value, 1500.0);
    }

    #[test]
    fn a_line_that_is_no_sample_is_an_error_with_its_number() {
        let error = parse("up 1\nup{job=\"x} 1\n").expect_err("an open quote");
        assert!(format!("{error:#}").contains("line 2"), "{error:#}");
        assert!(parse("up\n").is_err());
        assert!(parse("up one\n").is_err());
    }

    #[test]
    fn routes_add_up_over_status_and_count_5xx_as_errors() {
        let routes = routes(&parse(TEXT).expect("samples"));
        let route = &routes[&key()];
        assert_eq!((route.requests, route.errors), (102.0, 10.0));
        assert_eq!(route.buckets, [(0.1, 50.0), (0.2, 100.0), (f64::INFINITY, 102.0)]);
        assert_eq!((route.known, route.queries, route.database, route.pool), (100.0, 200.0, 3.0, 0.5));
        assert_eq!(routes[&("~unmatched".into(), "GET".into())].known, 7.0);
    }

    #[test]
    fn statements_add_up_over_services_and_have_a_window() {
        let new = statements(&parse(TEXT).expect("samples"));
        let whole = Statement { text: "SELECT ?".into(), calls: 15.0, seconds: 1.5, rows: 30.0 };
        assert_eq!(new["0a"], whole);
        assert_eq!((new["~other"].text.as_str(), new["~other"].calls), ("~other", 2.0));
        let old = statements(&parse(&TEXT.replace("} 10\n", "} 4\n").replace("} 30\n", "} 10\n")).expect("samples"));
        let window = &statements_between(&old, &new)["0a"];
        assert_eq!((window.calls, window.seconds, window.rows), (6.0, 0.0, 20.0));
        assert_eq!(statements_between(&new, &old)["0a"].calls, 9.0, "a restart begins anew");
    }

    #[test]
    fn quantiles_agree_with_histogram_quantile() {
        let route = routes(&parse(TEXT).expect("samples")).remove(&key()).expect("the route");
        // Prometheus: histogram_quantile(0.9, …) = 0.1836; 0.25 falls into the first bucket, 0.999 into +Inf.
        assert_eq!(route.quantile(0.25), Some(Quantile::Below(0.1)));
        assert_eq!(route.quantile(0.999), Some(Quantile::Above(0.2)));
        let Some(Quantile::At(seconds)) = route.quantile(0.9) else { panic!("{:?}", route.quantile(0.9)) };
        assert!((seconds - 0.1836).abs() < 1e-9, "{seconds}");
        assert_eq!(Route::default().quantile(0.5), None);
    }

    #[test]
    fn a_window_is_the_difference_and_a_restart_begins_anew() {
        let new = routes(&parse(TEXT).expect("samples"));
        let old = routes(&parse(&TEXT.replace(" 90\n", " 40\n").replace(" 50\n", " 20\n")).expect("samples"));
        let window = &between(&old, &new)[&key()];
        assert_eq!((window.requests, window.errors), (50.0, 0.0));
        assert_eq!(window.buckets[0], (0.1, 30.0));
        let restarted = &between(&new, &old)[&key()];
        assert_eq!(restarted.requests, 52.0);
    }
}
