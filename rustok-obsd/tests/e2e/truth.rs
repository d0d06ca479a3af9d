//! What the shop wrote down of each request (`rustok-obsd/examples/common/src/truth.rs`), and the client (`report.rs`).

use std::{collections::HashMap, fs, net::SocketAddr, path::Path};

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    pub id: u64,
    pub client_id: Option<String>,
    pub trace_id: Option<String>,
    pub peer: SocketAddr,
    pub task: Option<u64>,
    pub method: String,
    pub route: Option<String>,
    pub path: String,
    pub status: Option<u16>,
    pub start_ns: u64,
    pub end_ns: u64,
    pub aborted: bool,
    pub queries: Vec<Query>,
    /// Statements that ended after the request did.
    #[serde(default)]
    pub late: Vec<Query>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Query {
    pub sql: String,
    pub task: Option<u64>,
    pub start_ns: u64,
    pub end_ns: u64,
    #[serde(default)]
    pub rows: u64,
    #[serde(default)]
    pub error: bool,
    #[serde(default)]
    pub sqlstate: Option<String>,
    #[serde(default)]
    pub cancelled: bool,
    /// The pool's own task sent it later; nobody called it.
    #[serde(default)]
    pub by_pool: bool,
}

#[derive(Deserialize)]
struct Late {
    request: u64,
    query: Query,
}

/// What the client saw.
#[derive(Clone, Debug, Deserialize)]
pub struct Sent {
    pub id: String,
    pub aborted: bool,
}

impl Request {
    /// The label that the daemon should give its route.
    pub fn label(&self) -> &str {
        self.route.as_deref().unwrap_or("~unmatched")
    }

    /// All its statements.
    pub fn all_queries(&self) -> impl Iterator<Item = &Query> {
        self.queries.iter().chain(&self.late)
    }
}

/// All requests, each with its late statements; the file's last line says how many there should be.
pub fn read(path: &Path) -> Vec<Request> {
    let text = fs::read_to_string(path).expect("the ground truth");
    let mut lines: Vec<&str> = text.lines().collect();
    let end: serde_json::Value = serde_json::from_str(lines.pop().expect("a last line")).expect("JSON");
    assert_eq!(end["end"]["dropped"], 0, "the server's own log is incomplete");
    let (late, lines): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(|line| line.starts_with("{\"late\":"));
    assert_eq!(end["end"]["records"], lines.len());
    let mut requests: Vec<Request> = lines.iter().map(|line| serde_json::from_str(line).expect("a request")).collect();
    let places: HashMap<u64, usize> = requests.iter().enumerate().map(|(at, request)| (request.id, at)).collect();
    for line in late {
        let mut value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let late: Late = serde_json::from_value(value["late"].take()).expect("a late statement");
        requests[places[&late.request]].late.push(late.query);
    }
    requests
}

/// The client's log.
pub fn sent(path: &Path) -> Vec<Sent> {
    let text = fs::read_to_string(path).expect("the client's log");
    text.lines().map(|line| serde_json::from_str(line).expect("a sent request")).collect()
}

/// Latency differences in words: P50, P99, largest.
pub fn percentiles(mut values: Vec<i64>) -> String {
    values.sort_unstable();
    let at = |share: f64| values.get(((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1)));
    match (at(0.5), at(0.99), values.last()) {
        (Some(p50), Some(p99), Some(most)) => {
            let us = |ns: &i64| *ns as f64 / 1000.0;
            format!("P50 {:.1} µs, P99 {:.1} µs, most {:.1} µs, n={}", us(p50), us(p99), us(most), values.len())
        }
        _ => "none".into(),
    }
}
