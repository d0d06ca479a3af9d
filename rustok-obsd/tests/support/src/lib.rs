//! What the tests (and the demo) of several crates share: throw-away servers and small helpers.
//!
//! Reads: programs installed on the machine. Yields: running servers that are gone when their value is dropped, and
//! also when the process that started them is killed. Costs: no heavy dependency, so that any crate can use it.
//!
//! A server whose program is absent is a [`Skip`], not an error; a test hands it to [`skip`] and returns:
//!
//! ```no_run
//! # use test_support::{Postgres, skip};
//! let postgres = match Postgres::start() {
//!     Ok(postgres) => postgres,
//!     Err(reason) => return skip("queries_are_counted", reason),
//! };
//! println!("{}", postgres.url("postgres"));
//! ```
//!
//! | item | what it is |
//! |---|---|
//! | [`Postgres`] | a cluster of its own, TLS as a stock one, statements counted |
//! | `Sink` (feature `sink`) | OTLP in, spans kept in memory |
//! | [`Jaeger`] | OTLP in, traces read back by its query API |
//! | [`Prometheus`], [`Scraping`], [`promtool_check_metrics`], [`promtool_check_config`] | scrapes; rules; queries |
//! | [`NodeExporter`] | the host's metrics as the Prometheus project has them |
//! | [`Runc`], [`Containerd`], [`Docker`] | containers of busybox with a [`Workload`], without a registry |
//! | [`cgroups_of`] | the folders of a process' cgroups |
//! | [`Tool`] | where a program is that was built or given for the tests |
//! | [`Fuse`], [`fuse::apart`] | a file system that stops to answer; a mount namespace for a test |
//! | [`Child`] | a process group that ends with its value; last log lines kept |
//! | [`http_get`], [`http_get_with`] | one request over a fresh connection |
//! | [`Counting`], [`allocations`], [`held`] | an allocator that counts |
//! | [`free_port`], [`Ports`], [`wait_until`], [`skip`] | what is left |

mod allocations;
mod busybox;
mod child;
mod containerd;
mod docker;
pub mod fuse;
mod http;
mod jaeger;
mod janitor;
mod node_exporter;
mod postgres;
mod prometheus;
mod runc;
mod scraped;
mod scraping;
#[cfg(feature = "sink")]
mod sink;
mod tool;
pub mod ttar;

use std::fmt;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use allocations::{Counting, allocations, held, held_anew};
pub use busybox::Workload;
pub use child::Child;
pub use containerd::{Containerd, Pod};
pub use docker::Docker;
pub use fuse::{Fuse, Served};
pub use http::{Response, http_get, http_get_with};
pub use jaeger::Jaeger;
pub use node_exporter::NodeExporter;
pub use postgres::{Postgres, Statement, Tls};
pub use prometheus::{Prometheus, promtool_check_config, promtool_check_metrics};
pub use runc::Runc;
pub use scraped::{LabelMap, Scraped, ScrapedFamily};
pub use scraping::{Job, Sample, Scraping};
#[cfg(feature = "sink")]
pub use sink::{Attributes, Link, Sink, Span, SpanKind};
pub use tool::{CADVISOR, CRICTL, JAEGER, NODE_EXPORTER, Origin, PROCESS_EXPORTER, Tool, cache_folder};

/// Names the file that [`skip`] appends to.
pub const SKIPS_ENV: &str = "RUSTOK_OBSD_SKIPS";

/// Why something cannot run on this machine.
#[derive(Debug, Clone)]
pub struct Skip(String);

impl Skip {
    /// A reason that names what is missing and how to get it.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Says on standard error, past the test harness' capture, that the test `name` did not run and why; appends
/// `skipped: NAME: REASON` to the file that `RUSTOK_OBSD_SKIPS` names.
///
/// # Panics
/// If that file cannot be written: a skip must not go unnoticed.
pub fn skip(name: &str, reason: impl fmt::Display) {
    let line = format!("skipped: {name}: {reason}\n").replace('\n', " ").trim_end().to_owned() + "\n";
    // A closed standard error is no reason to fail a test.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os(SKIPS_ENV) {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("{SKIPS_ENV} names {}: {error}", PathBuf::from(path).display()));
    }
}

/// A TCP port of 127.0.0.1 that nobody listens on now. Another process can take it before you do: prefer port 0 where
/// the program can say what it got.
///
/// # Panics
/// If the machine has no free port.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("bind 127.0.0.1:0 to find a free port")
        .port()
}

/// Which TCP ports of 127.0.0.1 a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Free ones, so that it meets no other server.
    Free,
    /// Those that its users expect, each where it is free: for people rather than for tests.
    Usual,
}

impl Ports {
    /// The port for one purpose.
    #[must_use]
    pub fn pick(self, usual: u16) -> u16 {
        let taken = || TcpListener::bind((Ipv4Addr::LOCALHOST, usual)).is_err();
        if self == Self::Free || taken() { free_port() } else { usual }
    }
}

/// Calls `ready` every 20 ms until it yields something or `limit` has passed; `None` means that time ran out.
pub fn wait_until<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The program that the environment variable `variable` names, else `name` from PATH.
fn program(name: &str, variable: &str) -> Result<PathBuf, Skip> {
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Skip::new(format!("{variable} names {}, which is no file", path.display())))
        };
    }
    find_on_path(name).ok_or_else(|| {
        Skip::new(format!("`{name}` is not on PATH and {variable} is not set: run `cargo xtask setup --tests`"))
    })
}

fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where daemons are; Debian has it in the PATH of root alone.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Standard output of a program that must succeed.
fn run(command: &mut Command) -> Result<String, Skip> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| Skip::new(format!("cannot run {name}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Skip::new(format!("{name} failed ({}): {}", output.status, said.trim())))
}

fn require_root(what: &str) -> Result<(), Skip> {
    // SAFETY: geteuid(2) always succeeds.
    if unsafe { libc::geteuid() } == 0 { Ok(()) } else { Err(Skip::new(format!("{what} need root"))) }
}

/// The folders of a process' cgroups, one for each hierarchy that is mounted below `/sys/fs/cgroup`.
///
/// # Errors
/// If there is no such process.
pub fn cgroups_of(pid: u32) -> std::io::Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let hierarchies: Vec<_> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?, fields.next()?))
        })
        .filter(|(folder, ..)| folder.starts_with("/sys/fs/cgroup"))
        .collect();
    let lines = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let found = lines.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (folder, ..) = hierarchies.iter().find(|(_, kind, options)| match controllers {
            "" => *kind == "cgroup2",
            _ => *kind == "cgroup" && controllers.split(',').all(|one| options.split(',').any(|option| option == one)),
        })?;
        Some(PathBuf::from(format!("{folder}{path}")))
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_until_gives_up_after_its_limit_and_returns_what_the_closure_found() {
        let mut calls = 0;
        let found = wait_until(Duration::from_secs(5), || {
            calls += 1;
            (calls == 3).then_some(calls)
        });
        assert_eq!(found, Some(3));
        assert_eq!(wait_until(Duration::from_millis(30), || None::<()>), None);
    }

    #[test]
    fn a_usual_port_that_is_taken_is_replaced_by_a_free_one() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let taken = held.local_addr().expect("an address").port();
        assert_ne!(Ports::Usual.pick(taken), taken);
        drop(held);
        assert_ne!(Ports::Free.pick(taken), 0);
    }

    #[test]
    fn a_missing_program_is_a_skip_that_names_the_variable() {
        let reason = program("no-such-program-at-all", "RUSTOK_OBSD_NO_SUCH").expect_err("absent").to_string();
        assert!(reason.contains("no-such-program-at-all") && reason.contains("RUSTOK_OBSD_NO_SUCH"), "{reason}");
    }
}
