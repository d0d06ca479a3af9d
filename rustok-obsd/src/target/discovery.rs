//! Finds the processes that are targets.
//!
//! Reads: `/proc`, once at the start and one process at a time afterwards. Yields: [`Process`]es. Costs: five small
//! files per process looked at; descriptors only where a port is asked for. A process that vanishes while it is read
//! is no target and no error; one that cannot be read for lack of permission is counted. Format: `proc(5)`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::inside::{self, Root};
use super::mounts::Mounts;
use super::procfs::{self, Procfs};
use super::selector::{Candidate, Glance, Rule, Selector};

/// Bytes of the joined arguments that rules see.
const MAX_CMDLINE: usize = 16 << 10;

/// A process for the length of its life: pids are reused, start times are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Process id (thread group) in the daemon's pid namespace.
    pub pid: u32,
    /// Start in clock ticks since boot, field 22 of `/proc/PID/stat`. `execve` keeps it.
    pub start_time: u64,
}

/// A target, as `/proc` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its identity.
    pub key: ProcessKey,
    /// Path of the executable in the process's mount namespace; what `/proc/PID/exe` names, for a script the
    /// interpreter.
    pub exe: PathBuf,
    /// The executable's file was removed or replaced since the start: an upgrade that waits for its restart.
    pub exe_deleted: bool,
    /// Opens the executable from outside of its mount namespace, also when it was deleted: `/proc/PID/exe`.
    pub exe_file: PathBuf,
    /// The process's root directory: `/proc/PID/root`.
    pub root: PathBuf,
    /// The process id in each pid namespace, outermost first.
    pub namespace_pids: Vec<u32>,
    /// Control group, version 2 where there is one.
    pub cgroup: String,
    /// Arguments joined by spaces, bounded: for selection only, since it may hold secrets.
    pub cmdline: String,
    /// Name of the main thread.
    pub comm: String,
    /// The OpenTelemetry variables of its environment.
    pub environment: Environment,
    /// User that started it: its real user.
    pub user: u32,
    /// Users whose executables get uprobes, by the rule that selected it.
    pub trusted_owners: Vec<u32>,
    /// Entry of the configuration that selected it ([`Rule::entry`]).
    pub entry: usize,
    /// Service name of the rule that selected it.
    pub service_name_override: Option<String>,
    /// Service version, likewise.
    pub service_version_override: Option<String>,
}

impl Process {
    /// `service.name`: the rule's, else the target's `OTEL_SERVICE_NAME`, else `service.name` of its
    /// `OTEL_RESOURCE_ATTRIBUTES`, else the executable's file name.
    #[must_use]
    pub fn service_name(&self) -> String {
        let name = self.service_name_override.as_deref().or_else(|| self.environment.service_name());
        name.map_or_else(|| self.exe_name().to_owned(), str::to_owned)
    }

    /// `service.version`: the rule's, else the target's `OTEL_SERVICE_VERSION`, else `service.version` of its
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    #[must_use]
    pub fn service_version(&self) -> Option<&str> {
        self.service_version_override.as_deref().or_else(|| self.environment.service_version())
    }

    /// File name of the executable.
    #[must_use]
    pub fn exe_name(&self) -> &str {
        self.exe.file_name().and_then(|name| name.to_str()).unwrap_or(&self.comm)
    }
}

/// What a scan of all processes found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The targets.
    pub targets: Vec<Process>,
    /// Processes looked at.
    pub seen: usize,
    /// Processes that could not be read for lack of permission.
    pub denied: usize,
}

/// The process table cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the processes in {path}: {source}; give the folder where proc is mounted by path.procfs")]
pub struct ScanError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Decides which processes are targets.
#[derive(Debug)]
pub struct Scanner {
    procfs: Procfs,
    selector: Selector,
    own_pid: u32,
    /// Where the daemon sees the host's file system.
    rootfs: PathBuf,
    /// The daemon's own user namespace.
    namespace: Option<PathBuf>,
}

/// A process that may be a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    /// Its identity.
    pub key: ProcessKey,
    /// Its real user; the reading of its files and memory is charged to it.
    pub user: u32,
}

/// Listening sockets of a network namespace, inode → port; per scan, so that a host with thousands of processes has
/// its socket table read once and not per process.
type Listeners = HashMap<PathBuf, HashMap<u64, u16>>;

impl Scanner {
    /// `procfs` is where proc is mounted, `/proc` in general.
    #[must_use]
    pub fn new(procfs: impl Into<PathBuf>, selector: Selector) -> Self {
        let procfs = Procfs::new(procfs);
        let namespace = Path::new("/proc/self/ns/user").read_link().ok();
        Self { procfs, selector, own_pid: std::process::id(), rootfs: "/".into(), namespace }
    }

    /// The same, on a host whose file system the daemon sees below `rootfs`.
    #[must_use]
    pub fn with_rootfs(self, rootfs: &Path) -> Self {
        Self { rootfs: rootfs.to_owned(), ..self }
    }

    /// The rules.
    #[must_use]
    pub const fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Every process that may be a target, by what it cannot keep from being read: `exe`, `cgroup` and `status`, which the
    /// kernel answers without its memory. Yields the number of those that could not be read for lack of permission, too.
    ///
    /// # Errors
    /// [`ScanError`] where the process table itself cannot be listed.
    pub fn suspects(&self) -> Result<(Vec<Suspect>, usize), ScanError> {
        let path = self.procfs.root();
        let list = path.read_dir().map_err(|source| ScanError { path: path.to_owned(), source })?;
        let (mut suspects, mut denied) = (Vec::new(), 0);
        for pid in list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            match self.glance(pid) {
                Ok(found) => suspects.extend(found),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied += 1,
                // It ended while we looked.
                Err(_) => {}
            }
        }
        suspects.sort_unstable_by_key(|suspect: &Suspect| suspect.key);
        Ok((suspects, denied))
    }

    /// Whether one process may be a target.
    #[must_use]
    pub fn suspect(&self, pid: u32) -> Option<Suspect> {
        self.glance(pid).ok().flatten()
    }

    fn glance(&self, pid: u32) -> io::Result<Option<Suspect>> {
        // Ourselves: every record about us would cause another one.
        if pid == self.own_pid {
            return Ok(None);
        }
        // Kernel threads and zombies have no executable.
        let link = match self.procfs.link(pid, "exe") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            link => link?,
        };
        let (exe, _) = procfs::without_deleted(&link);
        let status = procfs::status(&self.procfs.read_text(pid, "status")?);
        let (real, effective) = status.users.unwrap_or_default();
        let text = self.procfs.read_text(pid, "cgroup")?;
        let glance = Glance { pid, exe: &exe.to_string_lossy(), cgroup: procfs::cgroup(&text), user: effective };
        if !self.selector.may_select(&glance) {
            return Ok(None);
        }
        let start_time = self.procfs.stat(pid)?.start_time;
        Ok(Some(Suspect { key: ProcessKey { pid, start_time }, user: real }))
    }

    /// Looks at every process. May wait for ever, for a process whose arguments or environment do not answer.
    ///
    /// # Errors
    /// [`ScanError`] where the process table itself cannot be listed.
    pub fn scan(&self) -> Result<Scan, ScanError> {
        let path = self.procfs.root();
        let list = path.read_dir().map_err(|source| ScanError { path: path.to_owned(), source })?;
        let (mut scan, mut listeners) = (Scan::default(), Listeners::new());
        for pid in list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            scan.seen += 1;
            match self.look(pid, &mut listeners) {
                Ok(found) => scan.targets.extend(found),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => scan.denied += 1,
                // It ended while we looked.
                Err(_) => {}
            }
        }
        scan.targets.sort_unstable_by_key(|process| process.key);
        Ok(scan)
    }

    /// Looks at one process, which may take for ever ([`Self::scan`]): at an exec, or when it may have begun to listen. `None`: no target, or it is gone.
    #[must_use]
    pub fn inspect(&self, pid: u32) -> Option<Process> {
        self.look(pid, &mut Listeners::new()).ok().flatten()
    }

    /// Whether the process still lives; one that ended and whose parent has not noticed does not.
    #[must_use]
    pub fn is_alive(&self, key: ProcessKey) -> bool {
        self.procfs.stat(key.pid).is_ok_and(|stat| stat.start_time == key.start_time && !stat.ended)
    }

    fn look(&self, pid: u32, listeners: &mut Listeners) -> io::Result<Option<Process>> {
        // Ourselves: every record about us would cause another one.
        if pid == self.own_pid {
            return Ok(None);
        }
        // Kernel threads and zombies have no executable.
        let link = match self.procfs.link(pid, "exe") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            link => link?,
        };
        let (exe, exe_deleted) = procfs::without_deleted(&link);
        let stat = self.procfs.stat(pid)?;
        let cmdline = procfs::joined(&self.procfs.read(pid, "cmdline", MAX_CMDLINE)?);
        let cgroup = procfs::cgroup(&self.procfs.read_text(pid, "cgroup")?).to_owned();
        let status = procfs::status(&self.procfs.read_text(pid, "status")?);
        let foreign = match self.procfs.link(pid, "ns/user") {
            Ok(namespace) => self.namespace.as_ref() != Some(&namespace),
            // A kernel without user namespaces.
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        let mut same_file = || self.sees_same_file(pid, &exe);
        let mut listens_on = |port| self.listens_on(pid, port, listeners).unwrap_or(false);
        let Some(rule) = self.selector.select(&mut Candidate {
            pid,
            exe: &exe.to_string_lossy(),
            cmdline: &cmdline,
            cgroup: &cgroup,
            user: status.users.unwrap_or_default().1,
            foreign,
            same_file: &mut same_file,
            listens_on: &mut listens_on,
        }) else {
            return Ok(None);
        };
        self.describe(pid, rule, (stat, status), (exe, exe_deleted), (cmdline, cgroup))
    }

    /// Whether the daemon finds the process's own executable by the path that the process has for it.
    fn sees_same_file(&self, pid: u32, exe: &Path) -> bool {
        let Ok(inner) = exe.strip_prefix("/") else { return false };
        // Attributes of a file that a program serves may never come.
        let mounts = Mounts::of(self.procfs.root(), pid);
        let own = inside::identity_of(&self.procfs.path(pid, "exe"), &mounts);
        let here = || Root::guarded(&self.rootfs, &mounts)?.identity_of(inner);
        own.is_ok_and(|own| here().is_ok_and(|here| here == own))
    }

    fn describe(
        &self,
        pid: u32,
        rule: &Rule,
        (stat, status): (procfs::Stat, procfs::Status),
        (exe, exe_deleted): (PathBuf, bool),
        (cmdline, cgroup): (String, String),
    ) -> io::Result<Option<Process>> {
        // A thread has a folder too, though no listed one.
        if status.tgid != Some(pid) {
            return Ok(None);
        }
        let environment = Environment::parse(&self.procfs.read(pid, "environ", Environment::MAX)?);
        // Another process took the pid meanwhile: its own exec event tells of it.
        if self.procfs.stat(pid)?.start_time != stat.start_time {
            return Ok(None);
        }
        Ok(Some(Process {
            key: ProcessKey { pid, start_time: stat.start_time },
            exe,
            exe_deleted,
            exe_file: self.procfs.path(pid, "exe"),
            root: self.procfs.path(pid, "root"),
            namespace_pids: if status.namespace_pids.is_empty() { vec![pid] } else { status.namespace_pids },
            cgroup,
            cmdline,
            comm: stat.comm,
            environment,
            user: status.users.unwrap_or_default().0,
            trusted_owners: rule.trusted_owners.iter().copied().chain(rule.user).collect(),
            entry: rule.entry,
            service_name_override: rule.service_name.clone(),
            service_version_override: rule.service_version.clone(),
        }))
    }

    fn listens_on(&self, pid: u32, port: u16, listeners: &mut Listeners) -> io::Result<bool> {
        let namespace = self.procfs.link(pid, "ns/net")?;
        let sockets = match listeners.entry(namespace) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(self.procfs.listeners(pid)?),
        };
        if !sockets.values().any(|&open| open == port) {
            return Ok(false);
        }
        let inodes = self.procfs.socket_inodes(pid)?;
        Ok(inodes.iter().any(|inode| sockets.get(inode) == Some(&port)))
    }

    /// TCP ports that the process listens on, in its own network namespace.
    ///
    /// # Errors
    /// Where the process is gone or may not be read.
    pub fn listening_ports(&self, pid: u32) -> io::Result<Vec<u16>> {
        let sockets = self.procfs.listeners(pid)?;
        let inodes = self.procfs.socket_inodes(pid)?;
        let mut ports: Vec<u16> = inodes.iter().filter_map(|inode| sockets.get(inode).copied()).collect();
        ports.sort_unstable();
        ports.dedup();
        Ok(ports)
    }

    /// Where proc is mounted.
    #[must_use]
    pub fn procfs(&self) -> &Path {
        self.procfs.root()
    }
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
