//! inotify on directories of cgroups.
//!
//! Reads: events since the last time, without waiting (inotify(7)). Yields: [`Event`]s. Costs: one `read` where nothing
//! happened; a watch per directory, about 1 KiB of the kernel's memory.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Something happened in a watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A directory was made in it.
    Made(i32, &'a str),
    /// A directory was removed from it.
    Removed(i32, &'a str),
    /// One of its files was written.
    Written(i32),
    /// Events were lost.
    Overflow,
}

/// The watches.
#[derive(Debug)]
pub struct Watcher {
    file: File,
    buffer: Box<[u8]>,
}

/// Size of an event without its name.
const HEAD: usize = size_of::<libc::inotify_event>();

/// Watches that one user may have, unless the kernel says otherwise (its default on small machines).
const USUAL: usize = 8192;

/// Watches that the daemon takes at most: a quarter of what its user may have (inotify(7), `max_user_watches`), which
/// other programs of the user share.
#[must_use]
pub fn most_watches(procfs: &Path) -> usize {
    let text = std::fs::read_to_string(procfs.join("sys/fs/inotify/max_user_watches"));
    let most = text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL);
    (most / 4).max(1)
}

impl Watcher {
    /// Without watches.
    ///
    /// # Errors
    /// As the kernel says: too many instances (fs.inotify.max_user_instances) or files.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed; the descriptor is checked before it is owned.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        Ok(Self { file, buffer: vec![0; 64 * 1024].into() })
    }

    /// Watches a directory. The number names it in events.
    ///
    /// # Errors
    /// As the kernel says; `ENOSPC` is the limit of watches.
    pub fn add(&self, path: &Path) -> io::Result<i32> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mask = libc::IN_CREATE | libc::IN_DELETE | libc::IN_MODIFY | libc::IN_ONLYDIR;
        // SAFETY: `path` ends in NUL and outlives the call.
        let watch = unsafe { libc::inotify_add_watch(self.file.as_raw_fd(), path.as_ptr(), mask) };
        if watch < 0 { Err(io::Error::last_os_error()) } else { Ok(watch) }
    }

    /// Ends a watch. The kernel does not do it by itself for a cgroup that is gone, and would keep its inode.
    pub fn remove(&self, watch: i32) {
        // SAFETY: numbers only. The watch may be gone, which is an error that does not matter.
        unsafe { libc::inotify_rm_watch(self.file.as_raw_fd(), watch) };
    }

    /// Calls `each` for every event until there is none.
    pub fn drain(&mut self, mut each: impl FnMut(&Self, Event<'_>)) {
        loop {
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = match self.file.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.buffer = buffer;
                    continue;
                }
                // WouldBlock: there is no more.
                Err(_) => 0,
            };
            let mut rest = &buffer[..read];
            while let Some((event, after)) = next(rest) {
                rest = after;
                if let Some(event) = event {
                    each(self, event);
                }
            }
            self.buffer = buffer;
            if read == 0 {
                return;
            }
        }
    }
}

/// The first event of a buffer; `None` within for one of no interest.
fn next(buffer: &[u8]) -> Option<(Option<Event<'_>>, &[u8])> {
    let number = |at: usize| Some(u32::from_ne_bytes(buffer.get(at..at + 4)?.try_into().ok()?));
    let (watch, mask, len) = (number(0)?.cast_signed(), number(4)?, number(12)? as usize);
    let name = buffer.get(HEAD..HEAD + len)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(len);
    let name = std::str::from_utf8(&name[..end]).ok();
    let folder = mask & libc::IN_ISDIR != 0;
    let event = match name {
        _ if mask & libc::IN_Q_OVERFLOW != 0 => Some(Event::Overflow),
        Some(name) if folder && mask & libc::IN_CREATE != 0 => Some(Event::Made(watch, name)),
        Some(name) if folder && mask & libc::IN_DELETE != 0 => Some(Event::Removed(watch, name)),
        _ if mask & libc::IN_MODIFY != 0 => Some(Event::Written(watch)),
        _ => None,
    };
    Some((event, &buffer[HEAD + len..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn directories_are_seen_made_and_removed_and_files_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new().unwrap();
        let watch = watcher.add(folder.path()).unwrap();
        let seen = |watcher: &mut Watcher| {
            let mut seen = Vec::new();
            watcher.drain(|_, event| seen.push(format!("{event:?}")));
            seen
        };
        assert!(seen(&mut watcher).is_empty());
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        fs::remove_dir(folder.path().join("a")).unwrap();
        let seen_now = seen(&mut watcher);
        for wanted in [format!("Made({watch}, \"a\")"), format!("Written({watch})"), format!("Removed({watch}, \"a\")")]
        {
            assert!(seen_now.contains(&wanted), "{seen_now:?}");
        }
        watcher.remove(watch);
        fs::create_dir(folder.path().join("b")).unwrap();
        assert!(!seen(&mut watcher).iter().any(|event| event.starts_with("Made")));
        assert!(watcher.add(&folder.path().join("nowhere")).is_err());
    }
}
