//! The files of `/proc/PID` that discovery needs. Format: `proc(5)`.
//!
//! Reads: one file per call, bounded. Yields: its parsed content. Costs: open, read, close.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Bytes of a text file; `status` and `cgroup` have a few thousand at most.
const MAX_TEXT: usize = 64 << 10;
/// Bytes of a socket table: some 150 bytes a socket.
const MAX_SOCKETS: usize = 64 << 20;
/// `TCP_LISTEN` of `include/net/tcp_states.h`.
const LISTEN: &str = "0A";

/// A mounted proc file system, or a folder that looks like one.
#[derive(Debug, Clone)]
pub(super) struct Procfs {
    root: PathBuf,
}

/// From `/proc/PID/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    pub comm: String,
    pub start_time: u64,
    /// It has ended with all its threads, and waits for its parent to notice.
    pub ended: bool,
}

/// From `/proc/PID/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub tgid: Option<u32>,
    pub namespace_pids: Vec<u32>,
    /// Real and effective user.
    pub users: Option<(u32, u32)>,
}

impl Procfs {
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, pid: u32, file: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(file)
    }

    pub(super) fn link(&self, pid: u32, file: &str) -> io::Result<PathBuf> {
        self.path(pid, file).read_link()
    }

    pub(super) fn read(&self, pid: u32, file: &str, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path(pid, file))?.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn read_text(&self, pid: u32, file: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(pid, file, MAX_TEXT)?).into_owned())
    }

    pub(super) fn stat(&self, pid: u32) -> io::Result<Stat> {
        stat(&self.read_text(pid, "stat")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Listening TCP sockets of the process's network namespace, inode → port.
    pub(super) fn listeners(&self, pid: u32) -> io::Result<HashMap<u64, u16>> {
        let mut sockets = HashMap::new();
        for file in ["net/tcp", "net/tcp6"] {
            match self.read(pid, file, MAX_SOCKETS) {
                Ok(table) => sockets.extend(String::from_utf8_lossy(&table).lines().filter_map(listener)),
                // No IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound && file.ends_with('6') => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sockets)
    }

    /// Inodes of the sockets that the process holds.
    pub(super) fn socket_inodes(&self, pid: u32) -> io::Result<Vec<u64>> {
        let list = self.path(pid, "fd").read_dir()?;
        Ok(list.flatten().filter_map(|entry| socket_inode(&entry.path().read_link().ok()?)).collect())
    }
}

/// `pid (comm) state …`; comm may hold parentheses and spaces.
fn stat(text: &str) -> Option<Stat> {
    let (head, tail) = text.rsplit_once(')')?;
    // The fields after comm begin with number 3.
    let mut fields = tail.split_ascii_whitespace();
    let state = fields.next()?;
    let threads: u64 = fields.nth(20 - 4)?.parse().ok()?;
    let start_time = fields.nth(22 - 21)?.parse().ok()?;
    // A main thread that ended before the others is a zombie too.
    let ended = matches!(state, "Z" | "X") && threads <= 1;
    Some(Stat { comm: head.split_once('(')?.1.to_owned(), start_time, ended })
}

pub(super) fn status(text: &str) -> Status {
    let mut status = Status::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        match key {
            "Tgid" => status.tgid = value.trim().parse().ok(),
            "Uid" => {
                let mut users = value.split_ascii_whitespace().flat_map(str::parse);
                status.users = users.next().zip(users.next());
            }
            "NStgid" => status.namespace_pids = value.split_ascii_whitespace().flat_map(str::parse).collect(),
            _ => {}
        }
    }
    status
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`
fn listener(line: &str) -> Option<(u64, u16)> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    Some((fields.nth(5)?.parse().ok()?, port))
}

fn socket_inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The kernel marks an executable without a name by a suffix.
pub(super) fn without_deleted(link: &Path) -> (PathBuf, bool) {
    match link.to_str().and_then(|link| link.strip_suffix(" (deleted)")) {
        Some(path) => (path.into(), true),
        None => (link.to_owned(), false),
    }
}

/// Arguments end with NUL each.
pub(super) fn joined(cmdline: &[u8]) -> String {
    let arguments: Vec<_> = cmdline.strip_suffix(&[0]).unwrap_or(cmdline).split(|&byte| byte == 0).collect();
    String::from_utf8_lossy(&arguments.join(&b' ')).into_owned()
}

/// `id:controllers:path` per hierarchy; version 2 is `0::path`. On a hybrid host its path is often `/`, and version 1
/// tells more.
pub(super) fn cgroup(text: &str) -> &str {
    let path = |line: &'_ str| line.splitn(3, ':').nth(2).map(str::len).map(|len| line.len() - len);
    let mut version1 = None;
    for line in text.lines() {
        let Some(at) = path(line) else { continue };
        if line.starts_with("0::") && &line[at..] != "/" {
            return &line[at..];
        }
        if &line[at..] != "/" {
            version1 = version1.or(Some(&line[at..]));
        }
    }
    version1.unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_has_ended_unless_other_threads_live_on() {
        let line = |state: &str, threads: u32| {
            let before: Vec<String> = (4..20).map(|field| field.to_string()).collect();
            format!("77 (a) {state} {} {threads} 0 22 0", before.join(" "))
        };
        for (state, threads, ended) in
            [("S", 4, false), ("Z", 3, false), ("Z", 1, true), ("X", 1, true), ("R", 1, false)]
        {
            let stat = stat(&line(state, threads)).unwrap();
            assert_eq!((stat.ended, stat.start_time), (ended, 22), "{state} {threads}");
        }
    }

    #[test]
    fn a_comm_with_parentheses_does_not_shift_the_fields() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let text = format!("77 (a) b (c)) {}", fields.join(" "));
        assert_eq!(stat(&text), Some(Stat { comm: "a) b (c)".into(), start_time: 22, ended: false }));
        assert_eq!(stat("77 (a"), None);
        assert_eq!(stat("77 (a) S 1"), None);
    }

    #[test]
    fn only_listening_sockets_count() {
        let listening = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0";
        let v6 = "   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0";
        assert_eq!(listener(listening), Some((12345, 8080)));
        assert_eq!(listener(v6), Some((99, 80)));
        assert_eq!(listener(&listening.replace(" 0A ", " 01 ")), None);
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue"), None);
    }

    #[test]
    fn the_cgroup_is_version_2_or_the_first_that_says_something() {
        assert_eq!(cgroup("0::/system.slice/a.service\n"), "/system.slice/a.service");
        assert_eq!(cgroup("5:cpu:/docker/x:y\n1:name=systemd:/z\n0::/\n"), "/docker/x:y");
        assert_eq!(cgroup("0::/\n"), "/");
        assert_eq!(cgroup(""), "/");
    }

    #[test]
    fn arguments_are_joined_and_deleted_is_cut() {
        assert_eq!(joined(b"a\0--b\0c d\0"), "a --b c d");
        assert_eq!(joined(b""), "");
        assert_eq!(without_deleted(Path::new("/a/b (deleted)")), ("/a/b".into(), true));
        assert_eq!(without_deleted(Path::new("/a/b")), ("/a/b".into(), false));
    }
}
