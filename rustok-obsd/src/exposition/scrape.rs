//! One scrape: which part of the exposition it wants, by which time, and which collectors.
//!
//! Reads: path, query and headers of the request. Yields: a [`Scrape`], or what is wrong with the request. Costs: one small
//! allocation per name in the query.
//!
//! `collect[]` and `exclude[]` mean what node_exporter has them mean: names of collectors, each may be repeated, both at
//! once are an error, and so is a name that is unknown or switched off. The scraper's own time-out comes in
//! `X-Prometheus-Scrape-Timeout-Seconds`.

use std::time::{Duration, Instant};
use thiserror::Error;

/// A part of the exposition, as it can be scraped by itself: a scrape target has one `job`, and stock dashboards want theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is seen of the targets, and the daemon's own metrics.
    App,
    /// The host, by node_exporter's names.
    Node,
    /// Containers, by cAdvisor's names.
    Cadvisor,
    /// Processes, by process-exporter's names.
    Process,
    /// The daemon's own process (`process_*`): in each, for every target of Prometheus has it.
    Itself,
}

impl Part {
    /// Its name in `collect[]` and `exclude[]`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Node => "node",
            Self::Cadvisor => "cadvisor",
            Self::Process => "process",
            Self::Itself => "itself",
        }
    }

    /// The paths of the server: all parts, then each.
    pub const PATHS: [(&'static str, Option<Self>); 5] = [
        ("/metrics", None),
        ("/metrics/node", Some(Self::Node)),
        ("/metrics/cadvisor", Some(Self::Cadvisor)),
        ("/metrics/process", Some(Self::Process)),
        ("/metrics/app", Some(Self::App)),
    ];
}

/// Which collectors a scrape wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// All that are on.
    #[default]
    All,
    /// These alone.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

/// What one scrape wants.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// The part; none is all of them.
    pub part: Option<Part>,
    /// The collectors.
    pub selection: Selection,
    /// When the answer must be under way: what is not there by then is left out and told.
    pub deadline: Instant,
    /// Samples at most.
    pub sample_limit: u64,
}

/// What is wrong with a query.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum QueryError {
    /// Both at once.
    #[error("collect[] and exclude[] exclude each other: give one of them")]
    Both,
    /// No such collector.
    #[error("{parameter}[]={name}: no collector of that name is on; there are: {known}")]
    Unknown {
        /// `collect` or `exclude`.
        parameter: &'static str,
        /// As given.
        name: String,
        /// Those that are on.
        known: String,
    },
}

/// Time for a scrape whose client does not say how long it waits: Prometheus' default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// What an answer needs to be encoded, sent and read.
const RESERVE: Duration = Duration::from_millis(500);
/// No scraper waits longer.
const LONGEST: f64 = 3600.0;

impl Default for Scrape {
    fn default() -> Self {
        Self {
            part: None,
            selection: Selection::All,
            deadline: Instant::now() + DEFAULT_TIMEOUT - RESERVE,
            sample_limit: u64::MAX,
        }
    }
}

impl Scrape {
    /// Whether a source of `part` is asked at all.
    #[must_use]
    pub fn wants_part(&self, part: Part) -> bool {
        if part == Part::Itself {
            return true;
        }
        let fits = self.part.is_none_or(|wanted| wanted == part);
        // Collectors of the host are chosen one by one.
        fits && (part == Part::Node || self.wants(part.name()))
    }

    /// Whether the collector `name` is wanted.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        match &self.selection {
            Selection::All => true,
            Selection::Only(names) => names.iter().any(|wanted| wanted == name),
            Selection::Except(names) => names.iter().all(|unwanted| unwanted != name),
        }
    }

    /// Time left until the deadline.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Sets the deadline from the scraper's time-out in seconds; text that is none is as good as absent.
    pub(super) fn set_timeout(&mut self, now: Instant, header: Option<&str>) {
        let seconds = header.and_then(|text| text.trim().parse::<f64>().ok()).filter(|s| *s > 0.0 && s.is_finite());
        let timeout = seconds.map_or(DEFAULT_TIMEOUT, |seconds| Duration::from_secs_f64(seconds.min(LONGEST)));
        self.deadline = now + timeout.saturating_sub(RESERVE).max(timeout / 2);
    }

    /// Takes `collect[]` and `exclude[]` of a query; `known` are the collectors that are on.
    pub(super) fn set_query(&mut self, query: &str, known: &[&'static str]) -> Result<(), QueryError> {
        let (mut only, mut except) = (Vec::new(), Vec::new());
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (parameter, names) = match decode(name).as_str() {
                "collect[]" => ("collect", &mut only),
                "exclude[]" => ("exclude", &mut except),
                _ => continue,
            };
            let value = decode(value);
            if !known.contains(&value.as_str()) {
                return Err(QueryError::Unknown { parameter, name: value, known: known.join(", ") });
            }
            names.push(value);
        }
        self.selection = match (only.is_empty(), except.is_empty()) {
            (true, true) => Selection::All,
            (false, true) => Selection::Only(only),
            (true, false) => Selection::Except(except),
            (false, false) => return Err(QueryError::Both),
        };
        Ok(())
    }
}

/// Percent-decodes one part of a query; what is no escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["cpu", "meminfo", "app", "process"];

    fn query(text: &str) -> Result<Selection, QueryError> {
        let mut scrape = Scrape::default();
        scrape.set_query(text, KNOWN).map(|()| scrape.selection)
    }

    #[test]
    fn the_query_chooses_collectors() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(query(""), Ok(Selection::All));
        assert_eq!(query("x=1&collect=cpu"), Ok(Selection::All));
        assert_eq!(query("collect[]=cpu&collect%5B%5D=meminfo"), Ok(Selection::Only(names(&["cpu", "meminfo"]))));
        assert_eq!(query("exclude%5b%5d=cp%75"), Ok(Selection::Except(names(&["cpu"]))));
        assert_eq!(query("collect[]=cpu&exclude[]=meminfo"), Err(QueryError::Both));
        let error = query("collect[]=%zz").unwrap_err().to_string();
        assert!(error.contains("collect[]=%zz") && error.contains("cpu, meminfo"), "{error}");
        assert!(query("exclude[]=").is_err());
    }

    #[test]
    fn a_selection_of_one_collector_leaves_the_other_parts_out() {
        let mut scrape = Scrape::default();
        scrape.set_query("collect[]=cpu", KNOWN).unwrap();
        assert!(scrape.wants_part(Part::Node) && scrape.wants("cpu") && !scrape.wants("meminfo"));
        assert!(!scrape.wants_part(Part::App) && !scrape.wants_part(Part::Cadvisor) && scrape.wants_part(Part::Itself));
        scrape.set_query("exclude[]=app", KNOWN).unwrap();
        assert!(!scrape.wants_part(Part::App) && scrape.wants_part(Part::Process) && scrape.wants("cpu"));
        let scrape = Scrape { part: Some(Part::Node), ..Scrape::default() };
        assert!(scrape.wants_part(Part::Node) && !scrape.wants_part(Part::App) && scrape.wants_part(Part::Itself));
    }

    #[test]
    fn the_deadline_leaves_time_for_the_answer() {
        let now = Instant::now();
        let mut scrape = Scrape::default();
        for (header, ms) in [
            (None, 9500),
            (Some("10"), 9500),
            (Some("0.6"), 300),
            (Some("2.5"), 2000),
            (Some("x"), 9500),
            (Some("-1"), 9500),
            (Some("inf"), 9500),
            (Some("1e300"), 3_599_500),
        ] {
            scrape.set_timeout(now, header);
            assert_eq!(scrape.deadline - now, Duration::from_millis(ms), "{header:?}");
        }
    }
}
