//! An executable's file, opened once.
//!
//! Reads: the file's attributes. Yields: [`Executable`], the one descriptor that symbols are read from and uprobes are
//! attached through, so that both concern one inode whatever its path names meanwhile. Costs: five system calls, and for a
//! process' executable two tables of mounts.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::inside::{self, OpenError};
use super::mounts::{Mounts, Unasked};

/// The executable cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot open the executable {path}: {reason}")]
pub struct BinaryError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub reason: String,
}

/// A file, for as long as it is not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time, seconds and nanoseconds. Its owner can set it.
    pub modified: (i64, i64),
    /// Time of the last change of content or attributes, seconds and nanoseconds. Nobody can set it.
    pub changed: (i64, i64),
}

/// Which file it is, whatever is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileNode {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
}

/// Who may change a file, as the daemon's user namespace shows it: the initial one where it runs on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, with those for set-user-id, set-group-id and sticky.
    pub mode: u32,
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Which file it is.
    #[must_use]
    pub const fn node(&self) -> FileNode {
        FileNode { device: self.device, inode: self.inode }
    }
}

impl FileNode {
    /// What a process runs now, by its `/proc/PID/exe`. The kernel answers from what it has: a file system that a program
    /// serves is not asked, and cannot keep the caller waiting.
    ///
    /// # Errors
    /// What `/proc` says: mostly, that the process has ended.
    pub fn run_by(procfs: &Path, pid: u32) -> io::Result<Self> {
        use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
        let exe = procfs.join(pid.to_string()).join("exe");
        let facts = statx(CWD, exe, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
        Ok(Self { device: makedev(facts.stx_dev_major, facts.stx_dev_minor), inode: facts.stx_ino })
    }
}

impl Owner {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Executable {
    file: File,
    path: PathBuf,
    identity: FileIdentity,
    owner: Owner,
    mounts: Mounts,
}

impl Executable {
    /// Opens a file that root or the person at the terminal names: never a FIFO or a device, and never waiting for one.
    ///
    /// # Errors
    /// [`BinaryError`].
    pub fn open(path: &Path) -> Result<Self, BinaryError> {
        match Self::open_among(path, Mounts::unguarded()) {
            Ok(executable) => Ok(executable),
            Err(error) => Err(BinaryError { path: path.to_owned(), reason: error.to_string() }),
        }
    }

    /// The same for `/proc/PID/exe`, if the file system can be asked without waiting for a program of a user; the inner error
    /// says why not. The path is looked up once: a process that replaces its program meanwhile cannot put another file
    /// in the place of the one that was looked at.
    ///
    /// # Errors
    /// [`BinaryError`].
    pub fn of_process(path: &Path, mounts: Mounts) -> Result<Result<Self, Unasked>, BinaryError> {
        match Self::open_among(path, mounts) {
            Ok(executable) => Ok(Ok(executable)),
            Err(OpenError::Unasked(unasked)) => Ok(Err(unasked)),
            Err(error) => Err(BinaryError { path: path.to_owned(), reason: error.to_string() }),
        }
    }

    fn open_among(path: &Path, mounts: Mounts) -> Result<Self, OpenError> {
        let file = inside::open_regular(path, &mounts)?;
        let metadata = file.metadata()?;
        let (identity, owner) = (FileIdentity::of(&metadata), Owner::of(&metadata));
        Ok(Self { file, path: path.to_owned(), identity, owner, mounts })
    }

    /// The open file.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file when it was opened.
    #[must_use]
    pub const fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Who owned it when it was opened.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        self.owner
    }

    /// Where the mounts of its process, and of the root that it has, are looked up.
    pub(super) const fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// The path by which the kernel finds this very inode, for as long as `self` lives, in this process only.
    #[must_use]
    pub fn attach_path(&self) -> PathBuf {
        inside::by_descriptor(&self.file)
    }

    /// Whether content and attributes are still those of the time when it was opened. A file that lost a name, as by an
    /// upgrade, counts as changed.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| FileIdentity::of(&metadata) == self.identity)
    }

    /// Where the file lies in the file system of the process that maps it.
    pub(super) fn real_path(&self) -> PathBuf {
        self.attach_path().read_link().unwrap_or_else(|_| self.path.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_descriptor_stands_for_the_inode_and_not_for_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("server"), folder.path().join("other"));
        std::fs::write(&path, "first").unwrap();
        std::fs::write(&other, "second").unwrap();
        let executable = Executable::open(&path).unwrap();
        assert!(executable.is_unchanged());
        assert_eq!(executable.real_path(), path.canonicalize().unwrap());
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(std::fs::read_to_string(executable.attach_path()).unwrap(), "first");
        assert!(!executable.is_unchanged(), "it lost its name");
    }

    #[test]
    fn what_a_process_runs_is_known_without_its_file_system() {
        let own = Executable::open(Path::new("/proc/self/exe")).unwrap();
        assert_eq!(FileNode::run_by(Path::new("/proc"), std::process::id()).unwrap(), own.identity().node());
        assert!(FileNode::run_by(Path::new("/proc"), u32::MAX).is_err());
    }

    #[test]
    fn a_changed_content_is_seen_although_size_and_time_are_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        std::fs::write(&path, "first").unwrap();
        let executable = Executable::open(&path).unwrap();
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        // The clock of file times goes in steps.
        let until = Instant::now() + Duration::from_secs(20);
        while executable.is_unchanged() {
            assert!(Instant::now() < until, "never seen");
            std::fs::write(&path, "other").unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        }
        let now = Executable::open(&path).unwrap().identity();
        assert_eq!((now.modified, now.size), (executable.identity().modified, executable.identity().size));
    }
}
