//! The server that demo and bench watch, its load, and the daemon beside it.
//!
//! Reads: what the builds made. Yields: running programs, and what each has used. Costs: as they do.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use test_support::{Child, Ports, Postgres};

use crate::metrics::{self, Sample};
use crate::workspace::{Workspace, is_executable, program};

/// Where the daemon listens when nobody else does.
pub const PORT: u16 = 9464;
/// How long a part may take to be there.
const START: Duration = Duration::from_secs(60);

/// The programs, in release.
#[derive(Debug)]
pub struct Programs {
    shop: PathBuf,
    load: PathBuf,
    daemon: PathBuf,
}

impl Programs {
    /// Builds them.
    pub fn build(workspace: &Workspace) -> Result<Self> {
        let daemon = program(&workspace.build_release(&["rustok-obsd"])?, "rustok-obsd")?;
        let examples = workspace.build_release(&["shop"])?;
        Ok(Self { shop: program(&examples, "shop")?, load: program(&examples, "shop-load")?, daemon })
    }

    /// Takes them from a folder where somebody put them: an earlier build, or a release.
    ///
    /// # Errors
    /// Names the one that is not there.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("{} cannot be read", folder.display()))?;
        let named = |name: &str| {
            let file = folder.join(name);
            anyhow::ensure!(is_executable(&file), "{} is no executable file", file.display());
            Ok(file)
        };
        Ok(Self { shop: named("shop")?, load: named("shop-load")?, daemon: named("rustok-obsd")? })
    }

    /// The same, but for a copy of the shop that a daemon beside the first one takes for another program: neither its path
    /// nor its inode is the same.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn twin(&self, folder: &Path) -> Result<Self> {
        let shop = folder.join("shop-twin");
        fs::copy(&self.shop, &shop).with_context(|| format!("{} cannot be written", shop.display()))?;
        Ok(Self { shop, load: self.load.clone(), daemon: self.daemon.clone() })
    }

    /// Starts the shop, and yields its URL. It speaks to the database as one that names no `sslmode` does; where the
    /// database offers TLS that is TLS, and nothing else will do here.
    pub fn shop(&self, database: &Postgres, more: &[&str]) -> Result<(Child, String)> {
        let mut command = Command::new(&self.shop);
        // The database's URL has a password: not on the command line, where everybody may read it.
        let database = database.url_with_sslmode("postgres", database.sslmode());
        command.args(["--listen", "127.0.0.1:0"]).args(more).env("DATABASE_URL", database);
        let shop = Child::spawn("shop", &mut command)?;
        let listening = |line: &str| line.strip_prefix("listening on ").map(str::to_owned);
        let url = shop.wait_for_line(START, listening).map_err(anyhow::Error::msg)?;
        Ok((shop, url))
    }

    /// The load, with its target.
    pub fn load(&self, url: &str, concurrency: u32, rate: f64) -> Command {
        let mut command = Command::new(&self.load);
        command.args(["--target", url, "--concurrency", &concurrency.to_string()]);
        if rate > 0.0 {
            command.args(["--rate", &rate.to_string()]);
        }
        command
    }

    /// Starts the daemon beside the shop, with an OTLP/gRPC endpoint or without, and waits until it serves.
    pub fn daemon(&self, endpoint: Option<&str>, more: &[&str]) -> Result<Daemon> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, Ports::Usual.pick(PORT)));
        let mut command = Command::new(&self.daemon);
        command.arg("run").arg("--exe").arg(&self.shop).args(["--web.listen-address", &address.to_string()]).args(more);
        match endpoint {
            Some(endpoint) => {
                command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
            }
            None => command.env("OTEL_TRACES_EXPORTER", "none"),
        };
        let mut child = Child::spawn("rustok-obsd", &mut command)?;
        child.wait_for_http(address, "/healthz", START).map_err(anyhow::Error::msg)?;
        Ok(Daemon { child, address })
    }

    /// Whether the daemon can see the shop; else its own account of what is missing.
    pub fn doctor(&self) -> Result<Result<(), String>> {
        let mut command = Command::new(&self.daemon);
        command.arg("doctor").arg("--exe").arg(&self.shop).stdin(Stdio::null());
        let output = command.output().context("`rustok-obsd doctor` could not be started")?;
        let said = [output.stdout, output.stderr].concat();
        Ok(if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) })
    }
}

/// A running daemon.
pub struct Daemon {
    /// The process.
    pub child: Child,
    /// Where it serves.
    pub address: SocketAddr,
}

impl Daemon {
    /// What it serves of the shop and itself.
    pub fn scrape(&self) -> Result<Vec<Sample>> {
        let (status, _, body) = test_support::http_get(self.address, "/metrics/app")?;
        let body = String::from_utf8_lossy(&body);
        anyhow::ensure!(status == 200, "http://{}/metrics/app answered {status}: {}", self.address, body.trim());
        metrics::parse(&body)
    }
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Seconds of CPU in user mode.
    pub user: f64,
    /// Seconds of CPU in the kernel.
    pub system: f64,
    /// Seconds of CPU in both, of the finer clock.
    pub cpu: f64,
    /// Resident memory, bytes.
    pub resident: f64,
}

impl Usage {
    /// Asks the kernel. User and system are told in clock ticks of 10 ms.
    pub fn of(pid: u32) -> Result<Self> {
        let file = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&file).with_context(|| format!("{file} cannot be read"))?;
        let usage = Self::parse(&stat).with_context(|| format!("{file} has another form"))?;
        Ok(Self { cpu: cpu_seconds(pid)?, ..usage })
    }

    /// `utime`, `stime` and `rss`, fields 14, 15 and 24 of proc_pid_stat(5). The name before them may contain blanks
    /// and brackets.
    fn parse(stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        // SAFETY: sysconf takes a number and returns one.
        let (ticks, page) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
        let (ticks, page) = (ticks as f64, page as f64);
        let (user, system) = (number(14)? / ticks, number(15)? / ticks);
        Some(Self { user, system, cpu: user + system, resident: number(24)? * page })
    }
}

/// CPU of a process by its clock, which counts nanoseconds.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls write to the locals that they are given and keep no pointer.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) != 0
            || libc::clock_gettime(clock, &raw mut time) != 0
    };
    anyhow::ensure!(!failed, "the CPU clock of process {pid} cannot be read");
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_the_programs_is_refused_by_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let error = Programs::of_folder(&folder).expect_err("there is no shop").to_string();
        assert!(error.ends_with("src/shop is no executable file"), "{error}");
        assert!(Programs::of_folder(&folder.join("nowhere")).is_err());
    }

    #[test]
    fn usage_is_read_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 5 0 100 9999 3 0";
        let usage = Usage::parse(stat).expect("numbers");
        // SAFETY: as above.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        assert!((usage.cpu * ticks - 400.0).abs() < 1e-6 && usage.user > usage.system, "{usage:?}");
        assert!(usage.resident >= 3.0 * 4096.0, "{usage:?}");
        assert_eq!(Usage::parse("7 (a) S 1"), None);
        let ours = Usage::of(std::process::id()).expect("we run");
        assert!(ours.resident > 0.0 && ours.cpu > 0.0 && ours.cpu < 3600.0, "{ours:?}");
    }
}
