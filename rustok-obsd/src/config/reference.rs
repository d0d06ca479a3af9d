//! Writes `docs/CONFIG.md` and `deploy/rustok-obsd.toml` from the table of keys, and holds them to it.
//!
//! Reads: [`KEYS`]. Yields: both files' text. To write them anew: `RUSTOK_OBSD_BLESS=1 cargo test -p rustok-obsd reference`.

use super::keys::{KEYS, Key};
use super::process::GROUP_KEYS;
use super::target::{TARGET_KEYS, TARGET_VARIABLES};
use super::{Config, PROBE_KEYS, Slot, Sources};
use std::fmt::Write;
use std::path::Path;

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from rustok-obsd/src/config/keys.rs; to write it anew: RUSTOK_OBSD_BLESS=1 cargo test -p rustok-obsd reference -->

A TOML file (`--config.file FILE` or `RUSTOK_OBSD_CONFIG_FILE`), over it the environment, over both the flags. Nothing
is required; without a target the host is told, and no server. `rustok-obsd check-config` with the same flags says what
is wrong and starts nothing; [`deploy/rustok-obsd.toml`](../deploy/rustok-obsd.toml) is a file to start from.

- Everything that is wrong is reported at once, with file and line, variable or flag, key, and what is allowed. Exit
  code 2. An unknown key is an error; an unknown `RUSTOK_OBSD_…` variable that looks like one of these is a warning.
- `OTEL_…` variables mean what the [OpenTelemetry specification][otel] says. A bad number or name in one is a warning
  and ignored, as the specification demands; a bad endpoint or header is an error. Times in them are milliseconds;
  everywhere else they carry a unit (`500ms`, `5s`, `1m30s`). An empty variable is an unset one.
  `OTEL_SDK_DISABLED=true` is `traces.exporter = \"none\"`.
- Exit codes of every command: 0 done, 1 failed (`doctor`: something asked for would not work), 2 wrong command line or
  configuration, 70 a thread of the daemon panicked or hung (`run`; a supervisor should start it again).

[otel]: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

## Targets

A process is observed if it matches, in one `[[targets]]` table, every kind of criterion given, in one of its values. Each
`--exe`, `--port`, `--command-line`, `--cgroup` and `--pid` is a target of its own; any of them replaces the targets of the
environment, and any of those the file's.

```toml
[[targets]]
exe = [\"shop\", \"/opt/shop/bin/*\"]
port = 3000
service_name = \"shop\"
routes = [\"/api/orders/{id}\", \"/files/{*path}\"]
```

";

const NAMING: &str = "
`service.name`, the first that is set: `service_name` of the target; `OTEL_SERVICE_NAME` of the daemon, or `service.name` in its
`OTEL_RESOURCE_ATTRIBUTES`, if exactly one target is configured (several would become one service); `OTEL_SERVICE_NAME` of
the observed process, then its `OTEL_RESOURCE_ATTRIBUTES`; the name of its executable. Other attributes: `[[targets]]`, then
the process' `OTEL_RESOURCE_ATTRIBUTES`, then the daemon's, then what is seen (for `service.version` also the process'
`OTEL_SERVICE_VERSION`, for `deployment.environment.name` its `RUST_ENV` or `ENVIRONMENT`). `process.*` and
`telemetry.*` are always what is seen.

## Keys
";

const PROBES: &str = "
### `[[database.probe]]`

A function of the target, or of a library in it, through which it asks its database, where the sets above do not see it.
`rustok-obsd probes` lists what a binary has. A table each:

| key | example | meaning |
|---|---|---|
";

const GROUPS: &str = "
### `[[process.group]]`

Processes that are counted together. The first table that fits counts; all its conditions must hold, each in one of its values
(`cmdline`: in all). A process that none fits is grouped by `process.group_by`. A table each:

| key | example | meaning |
|---|---|---|
";

const SPANS: &str = "
## What a span holds

One span per HTTP exchange by OpenTelemetry's [conventions][http] (1.37), `SERVER` where the target answers and `CLIENT` where it
asks. `url.path` and `url.full` only with `traces.url_path`; never a query, a body, or a header value but host and port of
`Host`, the tenant (`traces.tenant_header`) and what `traces.request_headers` lists. Attributes without a convention, times in
seconds:

| attribute | meaning |
|---|---|
| `rustok_obsd.tokio.task.id` | Tokio task that handled the request; absent where unknown |
| `rustok_obsd.route.source` | where `http.route` came from: `axum` (exact), `pattern` (configured), `learned` (from paths) |
| `rustok_obsd.exchange.outcome` | how it ended where not by a whole response: `client_aborted`, `server_closed`, `upgraded`, `incomplete` |
| `tenant_id` | the tenant that the request names |
| `rustok_obsd.http.socket_wait` | server: the request lay in the socket until the target read it; absent where that took no time or is unknown |
| `rustok_obsd.http.read` | server: from the first byte read of the request to the last; absent where it came in one piece |
| `rustok_obsd.http.handler` | server: from the last byte of the request to the first of the response, database and all |
| `rustok_obsd.http.write` | server: from the first byte of the response to the last. These four add up to the span's duration |
| `rustok_obsd.database.queries`, `….failed` | server: operations of the request that ended before its response did, and how many of them failed |
| `rustok_obsd.database.time` | server: their durations, added up |
| `rustok_obsd.database.pool_wait`, `….time_to_first_byte` | server: their waits for a pooled connection, and their times from sending to the answer's first byte, added up |
| `rustok_obsd.database.busy` | server: time in which at least one of them, or its wait, was under way |
| `rustok_obsd.database.repeated.count`, `….fingerprint`, `….summary` | server: the statement that ran most often, where more often than `database.repeated` (N+1) |
| `rustok_obsd.database.partial` | server: `true` where another operation may have gone unseen |

`error.type` is the status (5xx of a server, 4xx and 5xx of a client), `client_aborted` or `server_closed`.

One `CLIENT` span per database operation by the [conventions for PostgreSQL][db], named by `db.query.summary`, below the span of its
request. An operation that outlived its request is a trace of its own with a link to it; one that belongs to no request, or nobody
knows to which, is a trace of its own, sampled as any. A request that is not sampled takes its operations with it. Literals and bind
values never leave ([what is hidden of a statement](#what-is-hidden-of-a-statement)). `db.response.status_code` and `error.type` are the SQLSTATE; `db.response.returned_rows` is absent for INSERT,
UPDATE, DELETE, MERGE and COPY. A wait of more than 50 µs for a pooled connection is a span `pool wait` of the request, before the
operation's. Attributes without a convention:

| attribute | meaning |
|---|---|
| `rustok_obsd.database.sight` | what gave the statement: `sea_orm`, `sqlx` (uprobes), `wire` (clear text), `opaque` (nothing did) |
| `rustok_obsd.database.statement` | what is lacking of it: `truncated` (longer than `database.statement_bytes`), `unknown` (prepared before the daemon watched), `opaque` (encrypted, no symbols) |
| `rustok_obsd.database.fingerprint` | hash of the normalised text, 16 hexadecimal digits |
| `rustok_obsd.database.affected_rows` | rows that INSERT, UPDATE, DELETE, MERGE or COPY changed |
| `rustok_obsd.database.pool_wait` | the wait for a pooled connection, which the span does not include |
| `rustok_obsd.database.time_to_first_byte` | from sending to the answer's first byte |
| `rustok_obsd.database.outcome` | how it ended where not by an answer: `cancelled` (the caller dropped it), `incomplete` |

Times are the
kernel's monotonic clock plus its distance from the wall clock, measured before each batch; that is usually off by less than a
microsecond, but for spans that wait for export while the wall clock is set or the machine sleeps.

An absent collector never holds anything up: spans wait in a bounded queue, and what does not fit or is not accepted
after the retries is dropped and counted by reason.

[http]: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
[db]: https://opentelemetry.io/docs/specs/semconv/db/postgresql/
";

/// A value to show: the default, else an example.
fn shown(key: &Key) -> (String, bool) {
    let mut defaults = Config::default();
    let slot = (key.slot)(&mut defaults);
    if let Some(text) = slot.print() {
        return (text, true);
    }
    let example = match slot {
        Slot::Endpoint(_) => "\"http://localhost:4317\"",
        Slot::Headers(_) => "{ authorization = \"Bearer TOKEN\" }",
        Slot::Modules(_) => "{ \"/api/orders\" = \"commerce\" }",
        Slot::Attributes(_) => "{ \"deployment.environment.name\" = \"production\" }",
        _ => "\"shop\"",
    };
    (example.to_owned(), false)
}

/// Whether no key of the table comes after this one.
fn is_last(key: &Key, table: &str) -> bool {
    let last = KEYS.iter().rfind(|key| key.path.split_once('.').is_some_and(|(first, _)| first == table));
    last.is_some_and(|last| std::ptr::eq(last, key))
}

/// What leaves of a statement.
const STATEMENTS: &str = include_str!("statements.md");

/// The text of `docs/CONFIG.md`.
fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    out.push_str("| key | example | meaning | flag, variable |\n|---|---|---|---|\n");
    for (index, (name, example, help)) in TARGET_KEYS.iter().enumerate() {
        let other = TARGET_VARIABLES
            .iter()
            .find(|variable| variable[12..].eq_ignore_ascii_case(name))
            .map(|variable| format!("`--{}`, `{variable}`", name.replace('_', "-")));
        let other = other.unwrap_or_default();
        assert_eq!(index < TARGET_VARIABLES.len(), !other.is_empty(), "{name}");
        let _ = writeln!(out, "| `{name}` | `{example}` | {help} | {other} |");
    }
    out.push_str(NAMING);
    let mut section = "";
    for key in KEYS.iter() {
        let (first, _) = key.path.split_once('.').expect("every key is in a table");
        if first != section {
            section = first;
            let _ = writeln!(
                out,
                "\n### `[{section}]`\n\n| key | default | allowed | meaning | flag, variables |\n|---|---|---|---|---|"
            );
        }
        let mut defaults = Config::default();
        let slot = (key.slot)(&mut defaults);
        let default = slot.print().map_or("–".to_owned(), |text| format!("`{text}`"));
        let mut names: Vec<String> = key.variables().iter().map(|name| format!("`{name}`")).collect();
        if !key.flag.is_empty() {
            names.insert(0, format!("`--{}`", key.flag));
        }
        let (path, allowed, help, names) = (key.path, slot.allowed(), key.help, names.join(", "));
        let _ = writeln!(out, "| `{path}` | {default} | {allowed} | {help} | {names} |");
        if is_last(key, "database") {
            out.push_str(PROBES);
            for (name, example, help) in PROBE_KEYS {
                let _ = writeln!(out, "| `{name}` | `{example}` | {help} |");
            }
        }
        if is_last(key, "process") {
            out.push_str(GROUPS);
            for (name, example, help) in GROUP_KEYS {
                let _ = writeln!(out, "| `{name}` | `{example}` | {help} |");
            }
        }
    }
    out + SPANS + STATEMENTS
}

/// The text of `deploy/rustok-obsd.toml`.
fn sample() -> String {
    let mut out = String::from(
        "# rustok-obsd: every key with its default, or an example where there is none. docs/CONFIG.md explains them.\n\
         # Variables and flags win over this file. Check it: rustok-obsd check-config --config.file FILE\n\n\
         # A process is a target if it matches every kind of criterion given.\n[[targets]]\nexe = \"rustok-server\"\n",
    );
    for (name, example, help) in TARGET_KEYS.iter().filter(|(name, ..)| *name != "exe") {
        let _ = writeln!(out, "# {help}\n#{name} = {example}");
    }
    let mut section = "";
    for key in KEYS.iter() {
        let (first, name) = key.path.split_once('.').expect("every key is in a table");
        if first != section {
            section = first;
            let _ = write!(out, "\n[{section}]\n");
        }
        let (value, _) = shown(key);
        let _ = writeln!(out, "# {}\n#{name} = {value}", key.help);
        if is_last(key, "database") {
            out.push_str(
                "\n# A function of the target that begins an operation or ends a transaction.\n#[[database.probe]]\n",
            );
            for (name, example, help) in PROBE_KEYS {
                let _ = writeln!(out, "# {help}\n#{name} = {example}");
            }
        }
        if is_last(key, "process") {
            out.push_str(
                "\n# Processes that are counted together; the first table that fits counts.\n#[[process.group]]\n",
            );
            for (name, example, help) in GROUP_KEYS {
                let _ = writeln!(out, "# {help}\n#{name} = {example}");
            }
        }
    }
    out
}

/// Compares a file with its text, or writes it.
fn hold(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    if std::env::var_os("RUSTOK_OBSD_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "{file} differs from the table of keys (line {line:?}); RUSTOK_OBSD_BLESS=1 cargo test -p rustok-obsd reference"
    );
}

/// Loads a text as the file.
fn load(text: &str) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    sources.load().map(|loaded| loaded.config).map_err(|error| error.to_string())
}

#[test]
fn the_reference_says_what_the_table_says() {
    hold("docs/CONFIG.md", &markdown());
}

#[test]
fn the_sample_says_what_the_table_says() {
    hold("deploy/rustok-obsd.toml", &sample());
}

#[test]
fn the_sample_is_the_default_and_stays_valid_with_every_line_in_use() {
    let expected = Config { targets: load("[[targets]]\nexe = 'rustok-server'").unwrap().targets, ..Config::default() };
    assert_eq!(load(&sample()).unwrap(), expected);
    let all: String = sample()
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    let config = load(&all).unwrap();
    let target = &config.targets[0];
    assert_eq!((target.port.as_slice(), target.routes.len()), ([3000].as_slice(), 2));
    assert!(target.service_version.is_some() && target.deployment_environment.is_some());
    let probe = &config.database.probe[0];
    assert_eq!((config.database.probe.len(), probe.argument), (1, 1));
    assert!(config.errors.modules.0.contains(&("/api/orders".into(), "commerce".into())));
    assert_eq!(config.traces.headers.get("authorization"), Some("Bearer TOKEN"));
    assert_eq!(config.traces.endpoint.as_ref().unwrap().url, "http://localhost:4317");
    assert_eq!((&config.web, &config.capture, &config.path), (&expected.web, &expected.capture, &expected.path));
}

#[test]
fn every_example_of_the_reference_parses_to_what_it_shows() {
    for key in KEYS.iter() {
        let (value, is_default) = shown(key);
        let mut config = load(&format!("{} = {value}", key.path)).unwrap_or_else(|error| panic!("{error}"));
        if is_default {
            assert_eq!(config, Config::default(), "{}", key.path);
        } else {
            assert!((key.slot)(&mut config).print().is_some(), "{}", key.path);
        }
    }
    for (name, example, _) in TARGET_KEYS {
        load(&format!(
            "[[targets]]\npid = 1\n{}",
            if *name == "pid" { String::new() } else { format!("{name} = {example}") }
        ))
        .unwrap();
    }
    let text = markdown();
    let blocks: Vec<&str> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 1);
    assert_eq!(load(blocks[0]).unwrap().targets[0].service_name.as_deref(), Some("shop"));
}
