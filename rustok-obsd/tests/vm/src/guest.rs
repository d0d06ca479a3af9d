//! What checks share: the daemon, and containers.
//!
//! Reads: `/bin/rustok-obsd`, `/usr/sbin/runc`. Yields: one daemon for all checks, started by the first that asks. Costs:
//! nothing until then.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use test_support::{Child, Runc, Workload, http_get};

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
    daemon: Option<Daemon>,
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Guest {
    /// The daemon.
    pub fn daemon(&mut self) -> Result<&Daemon, Verdict> {
        let daemon = match self.daemon.take() {
            Some(daemon) => daemon,
            None => Daemon::start()?,
        };
        Ok(self.daemon.insert(daemon))
    }

    /// A container, with the folder of its cgroup.
    pub fn container(&self, workload: &Workload<'_>) -> Result<(Runc, PathBuf), Verdict> {
        if !Path::new("/usr/sbin/runc").exists() {
            return Err(Verdict::Skip("the host has no runc: run `cargo xtask setup --tests`".to_owned()));
        }
        // Nothing else can be missing here.
        let container = Runc::start(workload).map_err(|reason| Verdict::Fail(reason.to_string()))?;
        let folder = PathBuf::from(format!("/sys/fs/cgroup{}", container.cgroup()));
        ensure(folder.join("cgroup.procs").exists(), || format!("{} is no cgroup", folder.display()))?;
        Ok((container, folder))
    }
}

impl Daemon {
    fn start() -> Result<Self, Verdict> {
        // Any target will do; that one is us.
        let mut command = std::process::Command::new("/bin/rustok-obsd");
        command.args(["run", "--web.listen-address", "127.0.0.1:0", "--exe", "init"]);
        let child = Child::spawn("rustok-obsd", &mut command)?;
        let address = child.wait_for_line(PATIENCE, |line| {
            line.split_once("serving http://")?.1.strip_suffix("/metrics")?.parse::<SocketAddr>().ok()
        })?;
        Ok(Self { child, address })
    }

    /// What `/metrics` says, with a query such as `?collect[]=cpu` or none.
    pub fn metrics(&self, query: &str) -> Result<String, Verdict> {
        let (status, _, body) = http_get(self.address, &format!("/metrics{query}"))?;
        let text = String::from_utf8_lossy(&body).into_owned();
        ensure(status == 200, || format!("/metrics: {status}: {text}; {}", self.child.log_tail()))?;
        Ok(text)
    }
}
