//! Reads the memory of another process, never writes it.
//!
//! Reads: with `process_vm_readv(2)`. Yields: bytes, all or a typed error. Costs: one system call per 512 ranges.
//! Needs ptrace access to the process (`ptrace(2)`, "Ptrace access mode checking"): root or `CAP_SYS_PTRACE`.

use std::io;

/// Ranges per system call; the kernel's limit is `IOV_MAX` (1024).
const BATCH: usize = 512;

/// Why memory could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The process has ended.
    #[error("process {pid} has ended")]
    Gone {
        /// The process.
        pid: u32,
    },
    /// Reading is not allowed.
    #[error(
        "not permitted to read the memory of process {pid}: run as root or with CAP_SYS_PTRACE, and outside a container that drops it"
    )]
    Denied {
        /// The process.
        pid: u32,
    },
    /// Nothing is mapped there, or not all of it.
    #[error("{len} bytes at {address:#x} are not mapped")]
    Unmapped {
        /// First address of the range.
        address: u64,
        /// Its length.
        len: usize,
    },
    /// The read did not end in time: the mapping waits for a file system or a handler that does not answer.
    #[error(
        "the memory of process {pid} did not answer in time: what is mapped there waits for a file system or a page fault \
         handler; its routes come from patterns and learned templates until it answers"
    )]
    TimedOut {
        /// The process.
        pid: u32,
    },
    /// Another error.
    #[error("reading the memory of process {pid}: {error}")]
    Other {
        /// The process.
        pid: u32,
        /// What the kernel said.
        error: String,
    },
}

impl MemoryError {
    /// What an errno of `process_vm_readv(2)` at a range means.
    pub(super) fn of(pid: u32, errno: i32, (address, len): (u64, usize)) -> Self {
        match errno {
            libc::ESRCH => Self::Gone { pid },
            libc::EPERM => Self::Denied { pid },
            libc::EFAULT => Self::Unmapped { address, len },
            _ => Self::Other { pid, error: io::Error::from_raw_os_error(errno).to_string() },
        }
    }
}

/// Memory by address; a process, or a fake in tests.
pub trait Memory {
    /// Fills `buf` from `address`, all of it.
    ///
    /// # Errors
    /// [`MemoryError`].
    fn read(&self, address: u64, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.read_many(&[(address, buf.len())], buf)
    }

    /// Fills `buf` with the ranges (address, length), one after the other; the lengths add up to `buf.len()`.
    ///
    /// # Errors
    /// [`MemoryError`], naming the first range that failed.
    fn read_many(&self, ranges: &[(u64, usize)], buf: &mut [u8]) -> Result<(), MemoryError>;
}

/// The memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessMemory {
    pid: u32,
}

impl ProcessMemory {
    /// Opens nothing: each read names the process anew.
    #[must_use]
    pub const fn new(pid: u32) -> Self {
        Self { pid }
    }
}

impl Memory for ProcessMemory {
    fn read_many(&self, ranges: &[(u64, usize)], buf: &mut [u8]) -> Result<(), MemoryError> {
        read_ranges(self.pid, ranges, buf).map_err(|(errno, range)| MemoryError::of(self.pid, errno, range))
    }
}

/// Fills `buf` with the ranges, or yields the errno and the range that failed. Blocks as long as the process' memory does.
pub(super) fn read_ranges(
    process: u32,
    ranges: &[(u64, usize)],
    mut buf: &mut [u8],
) -> Result<(), (i32, (u64, usize))> {
    let pid = libc::pid_t::try_from(process).map_err(|_| (libc::ESRCH, (0, 0)))?;
    for batch in ranges.chunks(BATCH) {
        let wanted: usize = batch.iter().map(|range| range.1).sum();
        let (piece, rest) = std::mem::take(&mut buf).split_at_mut(wanted);
        buf = rest;
        let local = libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: wanted };
        let remote: Vec<libc::iovec> = batch
            .iter()
            .map(|&(address, len)| libc::iovec { iov_base: address as *mut libc::c_void, iov_len: len })
            .collect();
        // SAFETY: `local` is the one live, exclusive borrow of `piece` with its length; the remote addresses are
        // only read by the kernel, which checks them.
        let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), remote.len() as u64, 0) };
        let Ok(mut read) = usize::try_from(read) else {
            return Err((io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO), batch[0]));
        };
        if read < wanted {
            // The kernel stops at the first range that it cannot read.
            let failed = batch.iter().find(|range| match read.checked_sub(range.1) {
                Some(left) => {
                    read = left;
                    false
                }
                None => true,
            });
            return Err((libc::EFAULT, *failed.unwrap_or(&batch[0])));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_read_in_many_ranges() {
        let data: Vec<u64> = (0..2000).collect();
        let ranges: Vec<_> = data.iter().rev().map(|word| (std::ptr::from_ref(word) as u64, 8)).collect();
        let mut buf = vec![0; 8 * ranges.len()];
        ProcessMemory::new(std::process::id()).read_many(&ranges, &mut buf).unwrap();
        let words: Vec<u64> = buf.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
        assert!(words.iter().rev().eq(data.iter()));
    }

    #[test]
    fn an_unmapped_range_is_named() {
        let here = ProcessMemory::new(std::process::id());
        let good = 7_u64;
        let ranges = [(std::ptr::from_ref(&good) as u64, 8), (0x10, 8)];
        assert_eq!(here.read_many(&ranges, &mut [0; 16]), Err(MemoryError::Unmapped { address: 0x10, len: 8 }));
        assert_eq!(here.read(0x10, &mut [0; 4]), Err(MemoryError::Unmapped { address: 0x10, len: 4 }));
        assert_eq!(here.read_many(&[], &mut []), Ok(()));
    }

    #[test]
    fn a_process_that_ended_is_told_as_such() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let mut buf = [0; 8];
        assert_eq!(ProcessMemory::new(child.id()).read(0x1000, &mut buf), Err(MemoryError::Gone { pid: child.id() }));
    }
}
