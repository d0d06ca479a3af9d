//! A PostgreSQL cluster for one test.
//!
//! Reads: the installed server programs (newest of `/usr/lib/postgresql/*/bin`, else PATH). Yields: a cluster in a
//! temporary folder, on a port of its own on 127.0.0.1, scram-sha-256 with a random password, TLS with a self-signed
//! certificate as a stock Debian cluster has; and with `pg_stat_statements`, where it is installed. Costs: about a second of CPU and 40 MB of disk until dropped.

use std::ffi::CString;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Child, Skip, find_on_path, free_port, run};

/// Does the server offer TLS?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Yes, with a self-signed certificate; plaintext clients (`sslmode=disable`) are accepted as well.
    On,
    /// No.
    Off,
}

/// A running throw-away cluster; stopped and removed when dropped.
pub struct Postgres {
    // Before the folder: fields are dropped in order.
    server: Child,
    bin: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    password: String,
    tls: Tls,
    /// `pg_stat_statements` is loaded.
    counts: bool,
}

/// What the server itself counted of one statement: a row of `pg_stat_statements`, users and databases added up.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// Its text, constants replaced by `$1`, `$2`, …
    pub query: String,
    /// How often it ran to its end.
    pub calls: u64,
    /// Rows returned or affected, in total.
    pub rows: u64,
    /// Execution in total, ms.
    pub total_ms: f64,
    /// Execution on average, ms.
    pub mean_ms: f64,
}

impl Postgres {
    /// Starts a cluster with TLS on, which is what `sslmode=prefer`, sqlx' default, then uses.
    ///
    /// # Errors
    /// A [`Skip`] that says what is missing or what the server said.
    pub fn start() -> Result<Self, Skip> {
        Self::start_with(Tls::On)
    }

    /// Starts a cluster.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_with(tls: Tls) -> Result<Self, Skip> {
        let bin = find_bin()?;
        let owner = Owner::find()?;
        let failed = |what: &str, error: &dyn std::fmt::Display| Skip::new(format!("PostgreSQL: {what}: {error}"));
        let folder = tempfile::Builder::new()
            .prefix("rustok-obsd-postgres-")
            .tempdir()
            .map_err(|error| failed("cannot make a temporary folder", &error))?;
        owner.take(folder.path()).map_err(|error| failed("cannot give the folder to its user", &error))?;

        let password = random_hex().map_err(|error| failed("cannot read /dev/urandom", &error))?;
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, &password)
            .and_then(|()| owner.take(&password_file))
            .map_err(|error| failed("cannot write the password file", &error))?;
        let data = folder.path().join("data");
        run(owner
            .command(&bin.join("initdb"))
            .args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"])
            .args(["--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("--pgdata")
            .arg(&data)
            .current_dir(folder.path()))?;
        if tls == Tls::On {
            run(owner
                .command(Path::new("openssl"))
                .args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
                .args(["-days", "30", "-subj", "/CN=localhost", "-addext"])
                .arg("subjectAltName=DNS:localhost,IP:127.0.0.1")
                .arg("-keyout")
                .arg(data.join("server.key"))
                .arg("-out")
                .arg(data.join("server.crt"))
                .current_dir(folder.path()))?;
        }

        let counts = has_library(&bin, "pg_stat_statements.so");
        // Another process can take the port between our look and the server's bind.
        let mut last = String::new();
        for _ in 0..3 {
            let port = free_port();
            let mut command = owner.command(&bin.join("postgres"));
            command.arg("-D").arg(&data).arg("-k").arg(folder.path()).current_dir(folder.path());
            for setting in [
                "listen_addresses=127.0.0.1",
                &format!("port={port}"),
                &format!("ssl={}", if tls == Tls::On { "on" } else { "off" }),
                "max_connections=200",
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
                "logging_collector=off",
            ] {
                command.args(["-c", setting]);
            }
            if counts {
                for setting in [
                    "shared_preload_libraries=pg_stat_statements",
                    "pg_stat_statements.track=all",
                    "pg_stat_statements.max=10000",
                    "pg_stat_statements.track_utility=on",
                ] {
                    command.args(["-c", setting]);
                }
            }
            // SIGQUIT, immediate shutdown: the data is thrown away.
            let server = Child::spawn_with("postgres", &mut command, libc::SIGQUIT, Some(folder.path()))
                .map_err(|error| failed("cannot start the server", &error))?;
            let ready = |line: &str| line.contains("database system is ready to accept connections").then_some(());
            match server.wait_for_line(Duration::from_secs(60), ready) {
                Ok(()) => {
                    return Ok(Self { server, bin, folder, port, password, tls, counts });
                }
                Err(error) => last = error,
            }
        }
        Err(Skip::new(last))
    }

    /// What [`Postgres::start`] would start: `postgres (PostgreSQL) 15.18 (…)`.
    ///
    /// # Errors
    /// A [`Skip`] that says what is missing.
    pub fn installed() -> Result<String, Skip> {
        let program = find_bin()?.join("postgres");
        find_on_path("openssl").ok_or_else(|| Skip::new("openssl is not installed"))?;
        let output = Command::new(&program).arg("--version").output();
        let output = output.map_err(|error| Skip::new(format!("cannot run {}: {error}", program.display())))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// As [`Child::check`].
    pub fn check(&mut self) -> Result<(), String> {
        self.server.check()
    }

    /// Port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the postmaster.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Folder of the server's Unix socket, readable for its owner alone.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a client that names no `sslmode` gets: `require` where TLS is on, else `disable`.
    #[must_use]
    pub fn sslmode(&self) -> &'static str {
        match self.tls {
            Tls::On => "require",
            Tls::Off => "disable",
        }
    }

    /// Connection URL of the superuser for a database that exists (`postgres`, or one of [`Postgres::create_db`]),
    /// without `sslmode`.
    #[must_use]
    pub fn url(&self, db: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{db}", self.password, self.port)
    }

    /// [`Postgres::url`] with an `sslmode`: `disable`, `prefer`, `require`, …
    #[must_use]
    pub fn url_with_sslmode(&self, db: &str, sslmode: &str) -> String {
        format!("{}?sslmode={sslmode}", self.url(db))
    }

    /// Creates a database.
    ///
    /// # Errors
    /// What the server said.
    pub fn create_db(&self, name: &str) -> io::Result<()> {
        self.psql("postgres", &format!("CREATE DATABASE {name}")).map(drop)
    }

    /// Runs SQL by `psql` and returns unaligned rows without header (`psql -XAt`).
    ///
    /// # Errors
    /// What psql said.
    pub fn psql(&self, db: &str, sql: &str) -> io::Result<String> {
        self.psql_with(db, sql, &[])
    }

    /// Runs SQL and returns its rows, field by field as text; NULL is empty. Values may have newlines in them.
    ///
    /// # Errors
    /// What psql said.
    pub fn rows(&self, db: &str, sql: &str) -> io::Result<Vec<Vec<String>>> {
        // Unit and record separators, which no text of ours has.
        let text = self.psql_with(db, sql, &["-F", "\x1f", "-R", "\x1e"])?;
        let rows = text.split('\x1e').filter(|row| !row.is_empty());
        Ok(rows.map(|row| row.split('\x1f').map(str::to_owned).collect()).collect())
    }

    fn psql_with(&self, db: &str, sql: &str, more: &[&str]) -> io::Result<String> {
        let output = Command::new(self.bin.join("psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1"])
            .args(more)
            .args(["-c", sql, &self.url(db)])
            .output()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(io::Error::other(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim())))
        }
    }

    /// Counts statements from now on, with nothing counted so far.
    ///
    /// # Errors
    /// A [`Skip`] where `pg_stat_statements` is not installed, or what the server said.
    pub fn count_statements(&self) -> Result<(), Skip> {
        if !self.counts {
            return Err(Skip::new("PostgreSQL has no pg_stat_statements: install postgresql-contrib"));
        }
        let sql = "SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
                   SELECT pg_stat_statements_reset()";
        self.psql("postgres", sql).map(drop).map_err(|error| Skip::new(error.to_string()))
    }

    /// What was counted since [`Postgres::count_statements`], the costliest first, without statements on
    /// `pg_stat_statements` itself.
    ///
    /// # Errors
    /// What psql said, for instance because nobody counts.
    pub fn statements(&self) -> io::Result<Vec<Statement>> {
        let sql = "SELECT query, sum(calls), sum(rows), sum(total_exec_time), sum(total_exec_time) / sum(calls)
                   FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'
                   GROUP BY query ORDER BY 4 DESC";
        let rows = self.rows("postgres", sql)?;
        let read = |row: &[String]| {
            let [query, calls, rows, total, mean] = row else {
                return None;
            };
            Some(Statement {
                query: query.clone(),
                calls: calls.parse().ok()?,
                rows: rows.parse().ok()?,
                total_ms: total.parse().ok()?,
                mean_ms: mean.parse().ok()?,
            })
        };
        let bad = |row: &[String]| io::Error::other(format!("pg_stat_statements: a row of another form: {row:?}"));
        rows.iter().map(|row| read(row).ok_or_else(|| bad(row))).collect()
    }

    /// The server's last log lines.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }
}

fn find_bin() -> Result<PathBuf, Skip> {
    let version = |path: &Path| -> Option<u32> { path.parent()?.file_name()?.to_str()?.parse().ok() };
    std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").is_file() && bin.join("postgres").is_file())
        .max_by_key(|bin| version(bin))
        .or_else(|| find_on_path("initdb").and_then(|initdb| initdb.canonicalize().ok()?.parent().map(Path::to_owned)))
        .ok_or_else(|| Skip::new("no PostgreSQL server is installed (no initdb): run `cargo xtask setup`"))
}

/// Whether the server can load a library: `$libdir` as Debian and Arch, Fedora, and an own build have it.
fn has_library(bin: &Path, name: &str) -> bool {
    ["../lib", "../lib/postgresql", "../lib/pgsql", "../lib64/pgsql", "../lib64/postgresql"]
        .iter()
        .any(|folder| bin.join(folder).join(name).is_file())
}

/// Who the server runs as: PostgreSQL refuses to run as root.
enum Owner {
    Us,
    Other { uid: u32, gid: u32 },
}

impl Owner {
    fn find() -> Result<Self, Skip> {
        // SAFETY: geteuid(2) always succeeds.
        if unsafe { libc::geteuid() } != 0 {
            return Ok(Self::Us);
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = ["postgres", "nobody"].iter().find_map(|name| {
            let mut fields = users
                .lines()
                .map(|line| line.split(':'))
                .find_map(|mut fields| (fields.next() == Some(*name)).then_some(fields))?;
            Some(Self::Other { uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        });
        found
            .ok_or_else(|| Skip::new("PostgreSQL does not run as root, and /etc/passwd has no user postgres or nobody"))
    }

    fn take(&self, path: &Path) -> io::Result<()> {
        let Self::Other { uid, gid } = *self else {
            return Ok(());
        };
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: `path` is a NUL-terminated string that lives across the call.
        if unsafe { libc::chown(path.as_ptr(), uid, gid) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Self::Other { uid, gid } = *self {
            use std::os::unix::process::CommandExt as _;
            // std clears the supplementary groups when root names a uid.
            command.uid(uid).gid(gid);
        }
        command.env("LC_ALL", "C").env_remove("PGDATA").env_remove("PGPORT");
        command
    }
}

pub(crate) fn random_hex() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip;

    #[test]
    fn a_cluster_answers_over_tls_and_leaves_nothing_behind() {
        let postgres = match Postgres::start() {
            Ok(postgres) => postgres,
            Err(reason) => {
                return skip("a_cluster_answers_over_tls_and_leaves_nothing_behind", reason);
            }
        };
        postgres.create_db("shop").expect("create database");
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert_eq!(postgres.psql("shop", sql).expect("query"), "t");
        let (folder, pid) = (postgres.socket_folder().to_owned(), postgres.id());
        drop(postgres);
        assert!(!folder.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn statements_are_counted_by_the_server_and_rows_are_read_field_by_field() {
        let name = "statements_are_counted_by_the_server_and_rows_are_read_field_by_field";
        let postgres = match Postgres::start_with(Tls::Off) {
            Ok(postgres) => postgres,
            Err(reason) => return skip(name, reason),
        };
        if let Err(reason) = postgres.count_statements() {
            return skip(name, reason);
        }
        for n in 0..3 {
            postgres.psql("postgres", &format!("SELECT generate_series(1, {n})")).expect("query");
        }
        postgres.psql("postgres", "BEGIN; COMMIT").expect("utility statements");
        let statements = postgres.statements().expect("statements");
        let of = |query: &str| statements.iter().find(|statement| statement.query == query);
        let series = of("SELECT generate_series($1, $2)").unwrap_or_else(|| panic!("{statements:?}"));
        assert_eq!((series.calls, series.rows), (3, 3));
        assert!((series.mean_ms * 3.0 - series.total_ms).abs() < 1e-6 && series.total_ms > 0.0, "{series:?}");
        assert_eq!(of("COMMIT").map(|commit| commit.calls), Some(1), "{statements:?}");
        let rows = postgres.rows("postgres", "SELECT n, 'a' || chr(10) || 'b|c', NULL FROM generate_series(1, 2) n");
        assert_eq!(rows.expect("rows"), [["1", "a\nb|c", ""], ["2", "a\nb|c", ""]]);
    }
}
