//! Reads the files of many processes: below one descriptor of procfs, and by descriptors that stay open while there are
//! enough of them.
//!
//! Reads: `/proc/PID/NAME`. Yields: its text. Costs: a `pread` where the descriptor is kept (stat 4 µs, schedstat 1, io 2,
//! status 10), three system calls else (11, 6, 7, 17). A kept one holds 5 KiB in the kernel, mostly the file's buffer, but
//! not the process: once that has ended a `pread` fails, whoever has its pid then.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

/// Descriptors that are kept at most.
pub const MOST_KEPT: usize = 8192;
/// Descriptors that are left to the rest of the daemon.
const HEADROOM: usize = 1024;
/// Longest `PID/task/TID/NAME`.
const LONGEST_PATH: usize = 64;
/// First size of the buffer.
const BUFFER: usize = 8 << 10;
/// `status` of a user with thousands of groups is no longer.
const LONGEST: usize = 4 << 20;

/// A descriptor that may be kept.
#[derive(Debug, Default)]
pub struct Kept(Option<OwnedFd>);

/// Reads the files of processes.
#[derive(Debug)]
pub struct Files {
    root: OwnedFd,
    buffer: Vec<u8>,
    kept: usize,
    most: usize,
    /// `stat` of `PID/fd` tells the number of descriptors (Linux 6.2).
    counted: bool,
    /// The pids in procfs are ours.
    own_pids: bool,
}

impl Files {
    /// Of a procfs.
    ///
    /// # Errors
    /// It is not there, or may not be read.
    pub fn open(procfs: &Path) -> io::Result<Self> {
        let root = OwnedFd::from(File::open(procfs)?);
        let own_pids =
            procfs.join("self").read_link().is_ok_and(|link| link == Path::new(&std::process::id().to_string()));
        let mut files = Self {
            root,
            buffer: vec![0; BUFFER],
            kept: 0,
            most: MOST_KEPT.min(descriptors().saturating_sub(HEADROOM)),
            counted: false,
            own_pids,
        };
        // Ours has some: a kernel that does not count them says 0, and a made-up tree is no procfs.
        files.counted = own_pids && files.stat_size(format_args!("self/fd")).is_ok_and(|size| size > 0);
        Ok(files)
    }

    /// Descriptors that are kept at most; for tests of what happens beyond.
    pub fn set_most_kept(&mut self, most: usize) {
        self.most = most;
    }

    /// Descriptors that are kept now.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Whether there is room for `more` descriptors.
    #[must_use]
    pub fn has_room(&self, more: usize) -> bool {
        self.kept + more <= self.most
    }

    /// Whether pids in procfs mean the same in system calls.
    #[must_use]
    pub fn own_pids(&self) -> bool {
        self.own_pids
    }

    /// Procfs itself.
    #[must_use]
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Reads a file through its kept descriptor, or opens it, and keeps it if that is wanted and possible.
    ///
    /// # Errors
    /// As the kernel says: `NotFound` and `ESRCH` where the process has ended.
    pub fn read(&mut self, kept: &mut Kept, keep: bool, path: std::fmt::Arguments<'_>) -> io::Result<&[u8]> {
        if let Some(file) = &kept.0 {
            match read_whole(file, &mut self.buffer) {
                Ok(len) => return Ok(&self.buffer[..len]),
                Err(error) => {
                    self.forget(kept);
                    return Err(error);
                }
            }
        }
        let file = self.open_file(path, libc::O_RDONLY)?;
        let len = read_whole(&file, &mut self.buffer)?;
        if keep && self.kept < self.most {
            self.kept += 1;
            kept.0 = Some(file);
        }
        Ok(&self.buffer[..len])
    }

    /// Reads a file once.
    ///
    /// # Errors
    /// As [`Files::read`].
    pub fn read_once(&mut self, path: std::fmt::Arguments<'_>) -> io::Result<&[u8]> {
        self.read(&mut Kept::default(), false, path)
    }

    /// Closes a kept descriptor.
    pub fn forget(&mut self, kept: &mut Kept) {
        if kept.0.take().is_some() {
            self.kept -= 1;
        }
    }

    /// Descriptors that a process has open.
    ///
    /// # Errors
    /// As the kernel says; of another user's process it says `PermissionDenied`.
    pub fn open_descriptors(&mut self, pid: u32) -> io::Result<u64> {
        if self.counted {
            // Whoever may not list them may still ask for the folder, and would be told 0.
            let size = self.stat_size(format_args!("{pid}/fd"))?;
            if size > 0 {
                return Ok(size);
            }
        }
        let folder = self.open_file(format_args!("{pid}/fd"), libc::O_RDONLY | libc::O_DIRECTORY)?;
        let mut count = 0;
        entries(&folder, &mut self.buffer, |name, _| count += u64::from(name != b"." && name != b".."))?;
        Ok(count)
    }

    /// Where a link leads.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn link(&mut self, path: std::fmt::Arguments<'_>) -> io::Result<&[u8]> {
        let mut name = [0; LONGEST_PATH];
        let name = c_path(&mut name, path)?;
        let room = self.buffer.len();
        // SAFETY: a path that ends in zero, and a buffer of the length that is told.
        let len =
            unsafe { libc::readlinkat(self.root.as_raw_fd(), name.as_ptr(), self.buffer.as_mut_ptr().cast(), room) };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        Ok(&self.buffer[..len])
    }

    /// Opens a file or folder below procfs.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn open_file(&self, path: std::fmt::Arguments<'_>, flags: libc::c_int) -> io::Result<OwnedFd> {
        let mut name = [0; LONGEST_PATH];
        let name = c_path(&mut name, path)?;
        // SAFETY: a path that ends in zero.
        let file = unsafe { libc::openat(self.root.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(file) })
    }

    fn stat_size(&self, path: std::fmt::Arguments<'_>) -> io::Result<u64> {
        let mut name = [0; LONGEST_PATH];
        let name = c_path(&mut name, path)?;
        let mut stat = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: a path that ends in zero, and room for the answer.
        let result = unsafe { libc::fstatat(self.root.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), 0) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has filled it.
        Ok(unsafe { stat.assume_init() }.st_size.unsigned_abs())
    }
}

fn c_path<'b>(buffer: &'b mut [u8; LONGEST_PATH], path: std::fmt::Arguments<'_>) -> io::Result<&'b CStr> {
    let mut rest = &mut buffer[..LONGEST_PATH - 1];
    rest.write_fmt(path)?;
    CStr::from_bytes_until_nul(buffer).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// A file of procfs comes in one piece, if that fits: its end is a read that is shorter than the buffer.
fn read_whole(file: &OwnedFd, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        let room = &mut buffer[filled..];
        // SAFETY: a buffer of the length that is told.
        let read =
            unsafe { libc::pread(file.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), filled as libc::off_t) };
        let Ok(read) = usize::try_from(read) else {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        };
        let end = read < room.len();
        filled += read;
        if end {
            return Ok(filled);
        }
        if filled >= LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        buffer.resize(filled * 2, 0);
    }
}

/// Calls `each` with name and inode of all entries of a folder, from its start. Nothing is allocated.
///
/// # Errors
/// As the kernel says.
pub fn entries(folder: &OwnedFd, buffer: &mut Vec<u8>, mut each: impl FnMut(&[u8], u64)) -> io::Result<()> {
    // SAFETY: takes no pointer.
    if unsafe { libc::lseek(folder.as_raw_fd(), 0, libc::SEEK_SET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    buffer.resize(buffer.len().max(32 << 10), 0);
    loop {
        // SAFETY: a buffer of the length that is told.
        let read =
            unsafe { libc::syscall(libc::SYS_getdents64, folder.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
        let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        if read == 0 {
            return Ok(());
        }
        // struct linux_dirent64: d_ino u64, d_off i64, d_reclen u16, d_type u8, d_name.
        let mut rest = &buffer[..read];
        while let (Some(inode), Some(length)) = (rest.first_chunk::<8>(), rest.get(16..18)) {
            let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
            let Some(name) = rest.get(19..length) else { break };
            let end = memchr::memchr(0, name).unwrap_or(name.len());
            each(&name[..end], u64::from_ne_bytes(*inode));
            rest = &rest[length..];
        }
    }
}

/// The soft limit of descriptors.
fn descriptors() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a pointer to a value of the right type.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if result == 0 { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) } else { 0 }
}

/// Raises the soft limit of descriptors to the hard one, which nobody but `select(2)` minds: a process takes some.
pub fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: pointers to a value of the right type.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_descriptors_are_counted_bounded_and_given_back() {
        let mut files = Files::open(Path::new("/proc")).unwrap();
        files.set_most_kept(1);
        let pid = std::process::id();
        let (mut first, mut second) = (Kept::default(), Kept::default());
        assert!(
            files.read(&mut first, true, format_args!("{pid}/stat")).unwrap().starts_with(pid.to_string().as_bytes())
        );
        assert!(!files.read(&mut second, true, format_args!("{pid}/stat")).unwrap().is_empty());
        assert_eq!((files.kept(), first.0.is_some(), second.0.is_some()), (1, true, false));
        assert!(!files.read(&mut first, true, format_args!("{pid}/stat")).unwrap().is_empty());
        files.forget(&mut first);
        files.forget(&mut first);
        assert_eq!(files.kept(), 0);
    }

    #[test]
    fn a_kept_descriptor_fails_once_its_process_is_gone() {
        let mut files = Files::open(Path::new("/proc")).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut kept = Kept::default();
        files.read(&mut kept, true, format_args!("{}/stat", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let error = files.read(&mut kept, true, format_args!("{}/stat", child.id())).unwrap_err();
        assert_eq!((error.raw_os_error(), files.kept()), (Some(libc::ESRCH), 0));
    }

    #[test]
    fn descriptors_are_counted_by_either_way() {
        let mut files = Files::open(Path::new("/proc")).unwrap();
        let pid = std::process::id();
        let listed = |files: &mut Files| {
            files.counted = false;
            files.open_descriptors(pid).unwrap()
        };
        let before = listed(&mut files);
        let some: Vec<File> = (0..200).map(|_| File::open("/dev/null").unwrap()).collect();
        // Other tests of this process open and close some too.
        assert!(listed(&mut files).abs_diff(before + 200) < 100);
        drop(some);
        assert!(Files::open(Path::new("/proc")).unwrap().open_descriptors(pid).unwrap() > 0);
    }

    #[test]
    fn long_files_are_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1")).unwrap();
        let long: Vec<u8> = (0..100_000u32).map(|at| at as u8).collect();
        std::fs::write(folder.path().join("1/status"), &long).unwrap();
        let mut files = Files::open(folder.path()).unwrap();
        assert!(!files.own_pids() && files.read_once(format_args!("1/status")).unwrap() == long);
        assert_eq!(files.read_once(format_args!("2/status")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
