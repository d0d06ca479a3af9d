//! Opens files whose path, or whose place, a process controls.
//!
//! Reads: a path below a root that is not ours, such as `/proc/PID/root` or a mounted host. Yields: a regular file that lies
//! below that root, open for reading. Costs: four system calls. Source: openat2(2), open(2).
//!
//! A path is first opened with `O_PATH`, which neither waits nor has an effect on a FIFO, a device or an automount, and is
//! opened for reading only when it is a regular file. Symbolic links, absolute ones too, lead to where they lead for the
//! process that has this root; `..` never leads out of it. `openat2` (Linux 5.6, the daemon needs 5.10) does this in the
//! kernel; where a container engine's seccomp filter refuses it, [`Root`] walks the path itself, link by link.
//!
//! A guarded root ([`Root::guarded`]) asks no file system that a user's program serves ([`super::mounts`]), neither for a name
//! nor for attributes: a path that leaves the root's own mount is walked as well, and the mount of each place is looked at
//! before anything is asked of it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::mounts::{Mounts, Unasked};

const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// As in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Folders held open by a walk.
const MAX_FOLDERS: usize = 64;
/// Tries while another process renames folders on the path.
const TRIES: usize = 8;

/// Why a file is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What the kernel said.
    #[error("{0}")]
    System(#[from] io::Error),
    /// Reading could wait for ever, or do something.
    #[error("not a regular file but {0}")]
    NotRegular(&'static str),
    /// So could asking at all.
    #[error(transparent)]
    Unasked(#[from] Unasked),
}

impl From<Errno> for OpenError {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

impl OpenError {
    /// Nothing has this name.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        let missing = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
        matches!(self, Self::System(error) if missing.contains(&error.kind()))
    }
}

/// Device and inode of what lies at a path like that of [`open_regular`].
///
/// # Errors
/// [`OpenError`].
pub fn identity_of(path: &Path, mounts: &Mounts) -> Result<(u64, u64), OpenError> {
    let place = rustix::fs::openat(CWD, path, PLACE, Mode::empty())?;
    mounts.check(&place, None)??;
    let stat = rustix::fs::fstat(place)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Opens a regular file for reading, at any path whose last part alone is not root's, as `/proc/PID/exe`.
///
/// # Errors
/// [`OpenError`].
pub fn open_regular(path: &Path, mounts: &Mounts) -> Result<File, OpenError> {
    let place = rustix::fs::openat(CWD, path, PLACE, Mode::empty())?;
    mounts.check(&place, None)??;
    reopen(&place)
}

/// Reads a text file below a root, at most `limit` bytes of it.
///
/// # Errors
/// [`OpenError`].
pub fn read_below(root: &Path, path: &Path, limit: u64) -> Result<Vec<u8>, OpenError> {
    let mut text = Vec::new();
    Root::open(root)?.open_file(path)?.take(limit).read_to_end(&mut text)?;
    Ok(text)
}

/// Opens for reading what is open as a place only.
fn reopen(place: &OwnedFd) -> Result<File, OpenError> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(OpenError::NotRegular(match kind {
            FileType::Directory => "a directory",
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a FIFO",
            FileType::Socket => "a socket",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            _ => "of an unknown type",
        }));
    }
    // `O_NONBLOCK`: another process' lease is an error here, and not a wait of 45 s for its end (fcntl(2)).
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(by_descriptor(place))?;
    Ok(file)
}

/// The name under which the kernel finds what a descriptor of this process stands for.
pub(super) fn by_descriptor(descriptor: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

/// A folder that is the root for the paths below it.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    walks: bool,
    mounts: Mounts,
    /// That of the folder, where it is guarded.
    mount: Option<u64>,
}

impl Root {
    /// `path` itself is followed like any other: `/proc/PID/root` is a link of the kernel's.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = rustix::fs::openat(CWD, path, PLACE | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { folder, walks: false, mounts: Mounts::unguarded(), mount: None })
    }

    /// The same for a root that is a user's, such as `/proc/PID/root`, or below which a user chooses the path.
    ///
    /// # Errors
    /// [`OpenError::Unasked`] where a program serves the root itself; what the kernel said.
    pub fn guarded(path: &Path, mounts: &Mounts) -> Result<Self, OpenError> {
        let root = Self::open(path)?;
        let mount = mounts.check(&root.folder, None)??;
        Ok(Self { mounts: mounts.clone(), mount, ..root })
    }

    /// The folder's device and inode.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.folder)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Device and inode of what lies at a path like that of [`Self::open_file`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn identity_of(&self, path: &Path) -> Result<(u64, u64), OpenError> {
        let stat = rustix::fs::fstat(self.place(path)?.0)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Opens a regular file for reading, at a path that is absolute or relative to the root, which is the same.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_file(&self, path: &Path) -> Result<File, OpenError> {
        reopen(&self.place(path)?.0)
    }

    /// Opens a folder, at a path like that of [`Self::open_file`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_folder(&self, path: &Path) -> Result<Self, OpenError> {
        let (folder, mount) = self.place(path)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&folder)?.st_mode) != FileType::Directory {
            return Err(Errno::NOTDIR.into());
        }
        Ok(Self { folder, walks: self.walks, mounts: self.mounts.clone(), mount })
    }

    /// Its entries. Their paths lead through the open folder, whatever its name is by now.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn entries(&self) -> io::Result<std::fs::ReadDir> {
        by_descriptor(&self.folder).read_dir()
    }

    /// What lies there, open as a place, and its mount where that is looked at.
    fn place(&self, path: &Path) -> Result<(OwnedFd, Option<u64>), OpenError> {
        if self.walks {
            return self.walk(path);
        }
        let mut how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if self.mounts.is_guarded() {
            how |= ResolveFlags::NO_XDEV;
        }
        let mut error = Errno::AGAIN;
        for _ in 0..TRIES {
            match rustix::fs::openat2(&self.folder, path, PLACE, Mode::empty(), how) {
                Ok(place) => return Ok((place, self.mount)),
                // A folder on the path was renamed meanwhile.
                Err(Errno::AGAIN) => {}
                // What seccomp filters answer that do not know the call.
                Err(Errno::NOSYS | Errno::PERM) => return self.walk(path),
                // It leads to another mount.
                Err(Errno::XDEV) if self.mounts.is_guarded() => return self.walk(path),
                Err(other) => {
                    error = other;
                    break;
                }
            }
        }
        Err(error.into())
    }

    /// The same without `openat2`. No component is ever left to the kernel to follow.
    fn walk(&self, path: &Path) -> Result<(OwnedFd, Option<u64>), OpenError> {
        let (mut folders, mut links) = (Vec::<(OwnedFd, Option<u64>)>::new(), 0);
        let mut left: Vec<OsString> = parts(path);
        while let Some(part) = left.pop() {
            if part == ".." {
                folders.pop();
                continue;
            }
            let (within, mount) = folders.last().map_or((&self.folder, self.mount), |(folder, mount)| (folder, *mount));
            let place = rustix::fs::openat(within, &part, PLACE | OFlags::NOFOLLOW, Mode::empty())?;
            let mount = self.mounts.check(&place, mount)??;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
            if kind == FileType::Symlink {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let text = rustix::fs::readlinkat(&place, "", Vec::new())?;
                let text = PathBuf::from(OsString::from_vec(text.into_bytes()));
                if text.has_root() {
                    folders.clear();
                }
                left.extend(parts(&text));
            } else if left.is_empty() {
                return Ok((place, mount));
            } else if folders.len() == MAX_FOLDERS {
                return Err(Errno::NAMETOOLONG.into());
            } else {
                folders.push((place, mount));
            }
        }
        match folders.pop() {
            Some(folder) => Ok(folder),
            None => Ok((self.folder.try_clone()?, self.mount)),
        }
    }
}

/// The components, the last one first; `..` as it is.
fn parts(path: &Path) -> Vec<OsString> {
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.rev().map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
#[path = "inside_tests.rs"]
mod tests;
