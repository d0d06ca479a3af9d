//! Whether a user's program stands behind the file system of a place.
//!
//! Reads: the mount of a descriptor that is open as a place only (`O_PATH`), which asks the file system nothing; tables of
//! mounts. Yields: the type of the file system. Costs: two small files. Format: `proc(5)`.
//!
//! A read of a FUSE file that its server does not answer cannot be given up, not even by SIGKILL: once the server has the
//! request, the kernel waits for the answer (`request_wait_answer`, fs/fuse/dev.c). A thread of ours there would keep the
//! daemon from ending. Hence such files are not read at all: neither their content nor their attributes. The descriptor
//! that was looked at is the one that is read by afterwards: a path would be looked up again, and may lead elsewhere by
//! then.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Bytes of a table of mounts that are read.
const MAX_TABLE: u64 = 16 << 20;
/// The daemon's own table. All of its threads have the same one, but for those of tests.
const OWN: &str = "/proc/thread-self/mountinfo";

/// Why a place is not asked anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unasked {
    /// A program of a user answers for it.
    #[error("it lies on a file system that a program serves ({0}), which need not answer: copy it to another one")]
    Served(String),
    /// The mount is in no table: it was taken away, or never was in one (`memfd_create`).
    #[error("it lies on a file system that is not mounted (any more): use one that is")]
    Unmounted,
}

/// The tables in which the mount of a place is looked up.
#[derive(Debug, Clone, Default)]
pub struct Mounts(Vec<PathBuf>);

impl Mounts {
    /// Those that a process and the daemon see.
    #[must_use]
    pub fn of(procfs: &Path, pid: u32) -> Self {
        Self(vec![procfs.join(pid.to_string()).join("mountinfo"), OWN.into()])
    }

    /// None: whatever lies there is asked. For paths that root chose, and for commands that a person waits for.
    #[must_use]
    pub const fn unguarded() -> Self {
        Self(Vec::new())
    }

    /// Whether mounts are looked up at all.
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether a place that is open by `O_PATH` may be asked without waiting for a program of a user; `known` is the mount of a
    /// place that may. Yields the mount.
    ///
    /// # Errors
    /// What `/proc` says: mostly, that the process has ended.
    pub fn check(&self, place: &impl AsRawFd, known: Option<u64>) -> io::Result<Result<Option<u64>, Unasked>> {
        if !self.is_guarded() {
            return Ok(Ok(None));
        }
        let facts = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", place.as_raw_fd()))?;
        let id = facts.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        let Some(id) = id else { return Ok(Err(Unasked::Unmounted)) };
        if known == Some(id) {
            return Ok(Ok(known));
        }
        for table in &self.0 {
            let table = BufReader::new(File::open(table)?.take(MAX_TABLE));
            if let Some(kind) = table.split(b'\n').map_while(Result::ok).find_map(|line| kind_of(&line, id)) {
                let served = kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.");
                return Ok(if served { Err(Unasked::Served(kind)) } else { Ok(Some(id)) });
            }
        }
        Ok(Err(Unasked::Unmounted))
    }
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; paths in it need not be UTF-8.
fn kind_of(line: &[u8], id: u64) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let (own, rest) = line.split_once(' ')?;
    if own.parse() != Ok(id) {
        return None;
    }
    // A path has no space: it is written as `\040`.
    rest.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
