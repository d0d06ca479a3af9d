//! What checks share: the daemon, and containers.
//!
//! Reads: `/bin/rustok-obsd`, `/usr/sbin/runc`. Yields: one daemon for all checks, started by the first that asks. Costs:
//! nothing until then.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use test_support::{Child, Runc, Scraped, Workload, http_get};

/// The daemon's program.
pub const DAEMON: &str = "/bin/rustok-obsd";
/// Where the hierarchy is.
pub const CGROUPS: &str = "/sys/fs/cgroup";

/// How long what takes a moment may take on an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Why a check did not pass.
#[derive(Debug)]
pub enum Verdict {
    /// The daemon, or the check, is wrong.
    Fail(String),
    /// The host lacks something that the check needs.
    Skip(String),
}

impl From<String> for Verdict {
    fn from(reason: String) -> Self {
        Self::Fail(reason)
    }
}

impl From<std::io::Error> for Verdict {
    fn from(error: std::io::Error) -> Self {
        Self::Fail(error.to_string())
    }
}

/// Fails with the reason, unless the condition holds.
pub fn ensure(condition: bool, reason: impl FnOnce() -> String) -> Result<(), Verdict> {
    if condition { Ok(()) } else { Err(Verdict::Fail(reason())) }
}

/// What is there for the checks.
#[derive(Default)]
pub struct Guest {
    daemon: Option<Rc<Daemon>>,
    notes: Vec<String>,
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Guest {
    /// The daemon.
    pub fn daemon(&mut self) -> Result<Rc<Daemon>, Verdict> {
        if let Some(daemon) = &self.daemon {
            return Ok(Rc::clone(daemon));
        }
        let mut command = Command::new(DAEMON);
        command.args(["run", "--web.listen-address", "127.0.0.1:0"]);
        Ok(Rc::clone(self.daemon.insert(Rc::new(Daemon::start(&mut command)?))))
    }

    /// A container, with the folder of its cgroup.
    pub fn container(&self, workload: &Workload<'_>) -> Result<(Runc, PathBuf), Verdict> {
        if !Path::new("/usr/sbin/runc").exists() {
            return Err(Verdict::Skip("the host has no runc: run `cargo xtask setup --tests`".to_owned()));
        }
        // Nothing else can be missing here.
        let container = Runc::start(workload).map_err(|reason| Verdict::Fail(reason.to_string()))?;
        let folder = PathBuf::from(format!("{CGROUPS}{}", container.cgroup()));
        ensure(folder.join("cgroup.procs").exists(), || format!("{} is no cgroup", folder.display()))?;
        Ok((container, folder))
    }

    /// Says something beside the verdict: a number that nobody can judge here.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// What was said.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

impl Daemon {
    /// Starts one, which must say where it listens.
    pub fn start(command: &mut Command) -> Result<Self, Verdict> {
        let child = Child::spawn("rustok-obsd", command)?;
        let address = child.wait_for_line(PATIENCE, |line| {
            line.split_once("serving http://")?.1.strip_suffix("/metrics")?.parse::<SocketAddr>().ok()
        })?;
        Ok(Self { child, address })
    }

    /// What a path says, such as `/metrics/node?collect[]=cpu`.
    pub fn text(&self, path: &str) -> Result<String, Verdict> {
        let (status, _, body) = http_get(self.address, path)?;
        let text = String::from_utf8_lossy(&body).into_owned();
        ensure(status == 200, || format!("{path}: {status}: {text}; {}", self.child.log_tail()))?;
        Ok(text)
    }

    /// The same, parsed.
    pub fn scrape(&self, path: &str) -> Result<Scraped, Verdict> {
        Scraped::parse(&self.text(path)?).map_err(|what| Verdict::Fail(format!("{path}: {what}")))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        self.child.log_tail()
    }

    /// Its memory as the kernel counts it, bytes.
    pub fn resident(&self) -> Result<u64, Verdict> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        kib.map(|kib: u64| kib * 1024).ok_or_else(|| Verdict::Fail(format!("no VmRSS: {status}")))
    }
}
