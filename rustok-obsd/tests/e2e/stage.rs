//! The stage of the tests of databases: a server on a database that counts statements, a daemon with any settings, and a
//! receiver of its spans.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use rustok_obsd::statement::{Dialect, Statement};
use test_support::{Child, Sink, Skip, Tls, wait_until};

use super::{
    daemon::Daemon,
    running::{Binary, LONG_PATIENCE, Metrics},
    scene::{Scene, program},
    scorecard::{Run, offset_ns},
    truth::{Query, Request},
};

/// Large enough that nothing is lost.
pub const RING: [&str; 2] = ["--capture.ring-bytes", "67108864"];
/// No function of a driver is observed: sockets, and who spawned whom.
pub const WIRE_ALONE: [&str; 2] = ["--database.probes", "tasks"];

/// See the module's head.
pub struct Stage {
    pub scene: Scene,
    pub exe: PathBuf,
    daemon: Option<Daemon>,
    sink: Sink,
    endpoint: Option<String>,
    /// Removed at the end.
    _copy: Option<Binary>,
}

impl Stage {
    /// A server, observed by nobody yet.
    pub fn set(variable: &str, tls: Tls) -> Result<Self, Skip> {
        Self::of(program(variable)?, None, tls)
    }

    /// The same without symbols.
    pub fn stripped(variable: &str, tls: Tls) -> Result<Self, Skip> {
        let copy = Binary::copy(&program(variable)?, "stripped")?;
        match Command::new("strip").arg(&copy.path).status() {
            Ok(status) if status.success() => {}
            other => return Err(Skip::new(format!("strip (package binutils): {other:?}"))),
        }
        Self::of(copy.path.clone(), Some(copy), tls)
    }

    fn of(exe: PathBuf, copy: Option<Binary>, tls: Tls) -> Result<Self, Skip> {
        let scene = Scene::start_binary(&exe, tls)?;
        Ok(Self { scene, exe, daemon: None, sink: Sink::start(), endpoint: None, _copy: copy })
    }

    /// Spans go there instead of to the receiver of the test.
    pub fn export_to(&mut self, endpoint: String) {
        self.endpoint = Some(endpoint);
    }

    /// The daemon observes the server from here on, and the database counts.
    pub fn watch(&mut self, settings: &[&str]) -> Result<(), Skip> {
        let exe = self.exe.display().to_string();
        let endpoint = self.endpoint.clone().unwrap_or_else(|| self.sink.endpoint());
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_SERVICE_NAME", "staged"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "500000"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1000"),
        ];
        let mut arguments = vec!["--exe", exe.as_str()];
        arguments.extend(settings);
        let daemon = Daemon::start(&arguments, &environment)?;
        daemon.wait_for_targets(1)?;
        self.daemon = Some(daemon);
        Ok(())
    }

    pub fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("somebody watches")
    }

    /// A load, to its end; yields what the client says of it.
    pub fn load(&self, mix: &str, requests: u32, concurrency: u32, seed: u32) -> Result<serde_json::Value, Skip> {
        let [requests, concurrency, seed] = [requests, concurrency, seed].map(|number| number.to_string());
        let arguments = ["--mix", mix, "--requests", &requests, "--concurrency", &concurrency, "--seed", &seed];
        let summary = self.scene.load(&arguments)?;
        assert_eq!(summary["errors"], 0, "{summary}");
        Ok(summary)
    }

    /// A load that goes on until it is told to end.
    pub fn begin_load(&self, mix: &str, seed: &str) -> Result<Child, Skip> {
        let mut command = Command::new(program("RUSTOK_OBSD_SHOP_LOAD")?);
        command.args(["--target", &self.scene.url, "--mix", mix, "--duration", "60m", "--seed", seed]);
        Child::spawn("shop-load", &mut command).map_err(|error| Skip::new(error.to_string()))
    }

    /// Waits for a condition.
    pub fn wait_for<T>(&self, what: &str, found: impl FnMut(&Self) -> Option<T>) -> T {
        let mut found = found;
        wait_until(LONG_PATIENCE, || found(self)).unwrap_or_else(|| panic!("waited in vain for {what}"))
    }

    /// Waits until the daemon has seen so many operations.
    pub fn sees(&self, operations: f64) {
        let daemon = self.daemon.as_ref().expect("somebody watches");
        self.wait_for("operations", |_| {
            let now = Metrics(daemon.metrics()).sum("rustok_obsd_database_operations_total", &[]);
            (now >= operations).then_some(())
        });
    }

    /// `/metrics`, once every record of what was done so far is processed.
    pub fn metrics(&self) -> Metrics {
        Metrics(self.daemon.as_ref().expect("somebody watches").settled())
    }

    /// The same, once `done` holds of it. For what a client sees before the server's system call has returned: its answer.
    pub fn metrics_when(&self, what: &str, done: impl Fn(&Metrics) -> bool) -> Metrics {
        let found = wait_until(LONG_PATIENCE, || Some(self.metrics()).filter(&done));
        found.unwrap_or_else(|| panic!("waited in vain for {what}: {}", told(&self.metrics())))
    }

    /// Ends the server, which waits for its detached work, and then the daemon.
    pub fn end(mut self) -> Run {
        let truth = self.scene.finish();
        let metrics = self.metrics().0;
        let daemon = self.daemon();
        let status = daemon.child.stop(libc::SIGTERM, Duration::from_secs(20)).expect("SIGTERM ends the daemon");
        assert!(status.success(), "{}", daemon.child.log_tail());
        assert!(self.sink.problems().is_empty(), "{:?}", self.sink.problems());
        Run { spans: self.sink.take(), truth, metrics, offset_ns: offset_ns() }
    }
}

/// What is counted of one statement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub calls: u64,
    pub rows: u64,
    pub errors: u64,
    pub seconds: f64,
}

/// Statements in one form, whoever wrote them: see [`fold`].
pub type Table = BTreeMap<String, Counts>;

/// The form in which the database's account, ours and the server's own are one: each constant and each parameter is `?`.
pub fn fold(sql: &str) -> String {
    let text = &Statement::analyse(sql.as_bytes(), false, Dialect::POSTGRES).text;
    let mut folded = String::with_capacity(text.len());
    let mut rest = &**text;
    while let Some(at) = rest.find('$') {
        folded.push_str(&rest[..at]);
        folded.push('?');
        rest = rest[at + 1..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    folded + rest
}

/// Parts of a sample's line: labels, value.
fn samples<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> + 'a {
    metrics.lines().filter_map(move |line| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} ")?;
        Some((labels, value.parse().ok()?))
    })
}

/// The value of a label that has no quote in it.
pub fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let at = labels.find(&format!("{name}=\""))?;
    labels[at + name.len() + 2..].split('"').next()
}

/// Our account. Labels cut long texts, hence the fingerprints of what the server may have sent.
pub fn ours(metrics: &Metrics, truth: &[Request]) -> Table {
    let texts: HashMap<String, &str> = truth
        .iter()
        .flat_map(Request::all_queries)
        .map(|query| {
            (
                format!("{:016x}", Statement::analyse(query.sql.as_bytes(), false, Dialect::POSTGRES).fingerprint),
                &*query.sql,
            )
        })
        .collect();
    let mut table = Table::new();
    for part in ["calls", "rows", "errors", "seconds"] {
        for (labels, value) in samples(&metrics.0, &format!("rustok_obsd_statement_{part}_total")) {
            let fingerprint = label(labels, "fingerprint").expect("a fingerprint");
            let text = texts.get(fingerprint).map_or_else(|| format!("~ {labels}"), |sql| fold(sql));
            let counts = table.entry(text).or_default();
            match part {
                "calls" => counts.calls += value as u64,
                "rows" => counts.rows += value as u64,
                "errors" => counts.errors += value as u64,
                _ => counts.seconds += value,
            }
        }
    }
    table
}

/// The server's own account of some of its statements.
pub fn noted<'a>(queries: impl Iterator<Item = &'a Query>) -> Table {
    let mut texts: HashMap<&str, String> = HashMap::new();
    let mut table = Table::new();
    for query in queries {
        let text = texts.entry(&query.sql).or_insert_with(|| fold(&query.sql));
        let counts = table.entry(text.clone()).or_default();
        counts.calls += 1;
        counts.rows += query.rows;
        counts.errors += u64::from(query.error);
        counts.seconds += (query.end_ns - query.start_ns) as f64 / 1e9;
    }
    table
}

/// The database's account since it began to count.
pub fn counted(scene: &Scene) -> Table {
    let mut table = Table::new();
    for statement in scene.postgres.statements().expect("pg_stat_statements") {
        let counts = table.entry(fold(&statement.query)).or_default();
        counts.calls += statement.calls;
        counts.rows += statement.rows;
        counts.seconds += statement.total_ms / 1000.0;
    }
    table
}

/// What was added between two accounts.
pub fn since(later: &Table, earlier: &Table) -> Table {
    let mut added = Table::new();
    for (text, now) in later {
        let then = earlier.get(text).copied().unwrap_or_default();
        if now.calls > then.calls {
            let counts = Counts {
                calls: now.calls - then.calls,
                rows: now.rows - then.rows,
                errors: now.errors - then.errors,
                seconds: now.seconds - then.seconds,
            };
            added.insert(text.clone(), counts);
        }
    }
    added
}

/// Calls alone.
pub fn calls(table: &Table) -> BTreeMap<&str, u64> {
    table.iter().map(|(text, counts)| (&**text, counts.calls)).collect()
}

/// What differs between two accounts of calls, a line each.
pub fn differing(ours: &Table, theirs: &Table) -> Vec<String> {
    let (ours, theirs) = (calls(ours), calls(theirs));
    let texts: std::collections::BTreeSet<&str> = ours.keys().chain(theirs.keys()).copied().collect();
    let lines = texts.into_iter().filter(|text| ours.get(text) != theirs.get(text));
    lines.map(|text| format!("{:?} by us, {:?} by them: {text}", ours.get(text), theirs.get(text))).collect()
}

/// What `/metrics` tells of databases beyond what is 0, for messages.
pub fn told(metrics: &Metrics) -> String {
    metrics.matching(&[
        "database_problems",
        "database_parents",
        "database_operations",
        "records_lost",
        "records_waiting",
        "recovering",
    ])
}
