//! Files that are read at every scrape: opened once, read from the start each time.
//!
//! Reads: one file of procfs, sysfs or cgroupfs. Yields: its text. Costs: a `pread` per 16 KiB and one that says the end;
//! no allocation once the buffer has grown. Opening and closing would cost three times as much.

use super::CollectError;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// Bytes asked for at once: more than most files of procfs have.
const CHUNK: usize = 16 * 1024;
/// No file of the kernel is longer; one that is does not fill our memory.
const LONGEST: usize = 64 << 20;

/// A file that stays open.
#[derive(Debug)]
pub struct KeptFile {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl KeptFile {
    /// Of this path; nothing is opened yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, buffer: Vec::new() }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text as of now.
    ///
    /// # Errors
    /// It is not there ([`CollectError::NoData`]) or cannot be read.
    pub fn read(&mut self) -> Result<&[u8], CollectError> {
        match self.try_read() {
            Ok(()) => Ok(&self.buffer),
            Err(source) => Err(CollectError::read(&self.path, source)),
        }
    }

    /// The same with the kernel's own error.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn read_raw(&mut self) -> io::Result<&[u8]> {
        self.try_read()?;
        Ok(&self.buffer)
    }

    fn try_read(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            match read_all(file, &mut self.buffer) {
                Ok(()) => return Ok(()),
                // The object behind it is gone, perhaps replaced by another of the name.
                Err(_) => self.file = None,
            }
        }
        let file = File::open(&self.path)?;
        read_all(&file, &mut self.buffer)?;
        self.file = Some(file);
        Ok(())
    }

    /// Closes it until the next reading.
    pub fn close(&mut self) {
        self.file = None;
    }
}

/// Reads a file from its start to its end into `buffer`, whose content is replaced.
///
/// # Errors
/// As the kernel says, and for a file beyond all bounds.
pub fn read_all(file: &File, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    loop {
        if buffer.len() > LONGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 64 MiB"));
        }
        buffer.reserve(CHUNK);
        let (filled, room) = (buffer.len(), buffer.spare_capacity_mut());
        // Zeroing the room for each of some sixty files would cost more than many of them.
        // SAFETY: the pointer and the length are those of memory that the buffer owns; the kernel only writes to it.
        let read = unsafe {
            libc::pread(file.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), filled.try_into().unwrap_or(i64::MAX))
        };
        match usize::try_from(read) {
            Ok(0) => return Ok(()),
            // SAFETY: so many bytes of the room were written.
            Ok(read) => unsafe { buffer.set_len(filled + read) },
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Reads a file once; for what is not read at every scrape.
///
/// # Errors
/// See [`KeptFile::read`].
pub fn read_once(path: &Path, buffer: &mut Vec<u8>) -> Result<(), CollectError> {
    File::open(path).and_then(|file| read_all(&file, buffer)).map_err(|source| CollectError::read(path, source))
}

/// A short attribute of sysfs without the white space around it; `None` where it is absent or cannot be read, as
/// drivers refuse attributes that they do not have (`EINVAL`, `EOPNOTSUPP`, `ENODEV`).
#[must_use]
pub fn attribute(path: &Path) -> Option<String> {
    let mut buffer = Vec::new();
    File::open(path).and_then(|file| read_all(&file, &mut buffer)).ok()?;
    Some(String::from_utf8_lossy(buffer.trim_ascii()).into_owned())
}

/// A number in an attribute of sysfs.
#[must_use]
pub fn number(path: &Path) -> Option<f64> {
    attribute(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_kept_file_follows_its_content_and_its_replacement() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut kept = KeptFile::new(&path);
        assert!(matches!(kept.read(), Err(CollectError::NoData(_))));
        fs::write(&path, "one").unwrap();
        assert_eq!(kept.read().unwrap(), b"one");
        let long = "x".repeat(3 * CHUNK + 7);
        fs::write(&path, &long).unwrap();
        assert_eq!(kept.read().unwrap(), long.as_bytes());
        fs::write(&path, "two").unwrap();
        assert_eq!(kept.read().unwrap(), b"two");
    }

    #[test]
    fn the_kernels_files_are_read_whole() {
        let mut kept = KeptFile::new("/proc/self/maps");
        let once = kept.read().unwrap().len();
        assert!(once > 1000 && kept.read().unwrap().len() >= once / 2);
        // A folder opens, and cannot be read.
        let error = KeptFile::new("/proc/self/fd").read().unwrap_err().to_string();
        assert!(error.contains("/proc/self/fd cannot be read"), "{error}");
    }
}
