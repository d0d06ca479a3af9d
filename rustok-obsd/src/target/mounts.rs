//! Whether a user's program stands behind the file system of an executable.
//!
//! Reads: the mount of `/proc/PID/exe`, by a descriptor that asks the file system nothing; `/proc/PID/mountinfo`. Yields: the
//! type of the file system. Costs: three small files. Format: `proc(5)`.
//!
//! A read of a FUSE file that its server does not answer cannot be given up, not even by SIGKILL: once the server has the
//! request, the kernel waits for the answer (`request_wait_answer`, fs/fuse/dev.c). A thread of ours there would keep the
//! daemon from ending. Hence such files are not read at all: neither their content nor their attributes.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Bytes of a table of mounts that are read.
const MAX_TABLE: u64 = 16 << 20;

/// Why an executable is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unasked {
    /// A program of a user answers for it.
    #[error(
        "its executable lies on a file system that a program serves ({0}), which need not answer: copy it to another one"
    )]
    Served(String),
    /// The mount is in no table: it was taken away, or never was in one (`memfd_create`).
    #[error("its executable lies on a file system that is not mounted (any more): start it from one that is")]
    Unmounted,
}

/// Whether the executable of a process may be read without waiting for a program of a user.
///
/// # Errors
/// What `/proc` says: mostly, that the process has ended.
pub fn may_be_asked(procfs: &Path, pid: u32) -> io::Result<Result<(), Unasked>> {
    let process = procfs.join(pid.to_string());
    let place = rustix::fs::open(process.join("exe"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", place.as_raw_fd()))?;
    let Some(id) = facts.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim) else {
        return Ok(Err(Unasked::Unmounted));
    };
    for table in [process.join("mountinfo"), "/proc/self/mountinfo".into()] {
        let table = BufReader::new(File::open(table)?.take(MAX_TABLE));
        if let Some(kind) = table.split(b'\n').map_while(Result::ok).find_map(|line| kind_of(&line, id)) {
            let served = kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.");
            return Ok(if served { Err(Unasked::Served(kind)) } else { Ok(()) });
        }
    }
    Ok(Err(Unasked::Unmounted))
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; paths in it need not be UTF-8.
fn kind_of(line: &[u8], id: &str) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let (own, rest) = line.split_once(' ')?;
    if own != id {
        return None;
    }
    // A path has no space: it is written as `\040`.
    rest.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_mount_is_found_by_its_number() {
        let line = b"36 35 98:0 /a\\040-\\040b /mnt\xff rw,noatime master:1 - fuse.sshfs sshfs rw,user_id=0";
        assert_eq!(kind_of(line, "36").as_deref(), Some("fuse.sshfs"));
        assert_eq!(kind_of(line, "35"), None);
        assert_eq!(kind_of(b"36 35 98:0 / /mnt rw", "36"), None);
    }

    #[test]
    fn ones_own_executable_may_be_read() {
        assert_eq!(may_be_asked(Path::new("/proc"), std::process::id()).unwrap(), Ok(()));
        assert!(may_be_asked(Path::new("/proc"), u32::MAX).is_err());
    }
}
