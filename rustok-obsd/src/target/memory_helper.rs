//! Reads other processes' memory in a process of its own, which can be left behind.
//!
//! Reads: requests of the daemon on a socket, and for each the memory that it names. Yields: the bytes. Costs: one small
//! process for each read that is under way, kept for the next one; about 30 µs a request more than a direct read.
//!
//! Why a process: who reads a page behind which a FUSE server does not answer waits in the kernel, and not even SIGKILL
//! ends that. A thread in that state keeps its whole process, with all descriptors, from ending. A helper in that state
//! holds nothing but its end of a socket; the daemon kills it, forgets it and goes on, and ends when it is told to.
//! A helper ends with the daemon, since its socket does.

use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::memory::{Memory, MemoryError, read_ranges};
use super::reader::{Access, owner};

/// The hidden command that makes a helper of this program.
pub const COMMAND: &str = "read-memory";
/// Helpers that hang, in all and of one user's processes: beyond that nothing (of that user) is read until one ends.
pub const HANGING: usize = 32;
/// See [`HANGING`].
pub const HANGING_OF_USER: usize = 8;
/// Bytes and ranges of one request.
const MOST_BYTES: usize = 16 << 20;
const MOST_RANGES: usize = 1 << 17;
/// Memory that a helper keeps from one request to the next.
const KEPT: usize = 1 << 20;
/// A request's head: process and number of ranges. A range: address and length.
const HEAD: usize = 8;
const RANGE: usize = 16;
/// An answer's head: errno (0: the bytes follow), padding, and the range that failed.
const ANSWER: usize = 24;

/// Reaches memory by helpers. Clones share them.
#[derive(Clone, Debug)]
pub struct Helpers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    idle: Mutex<Vec<Helper>>,
    hanging: Mutex<Vec<Hanging>>,
}

#[derive(Debug)]
struct Helper {
    socket: UnixStream,
    child: Child,
}

/// A helper that was killed and is still there.
#[derive(Debug)]
struct Hanging {
    pid: u32,
    owner: u32,
    child: Child,
}

impl Helpers {
    /// Helpers of a program that knows [`COMMAND`]: this daemon's, `/proc/self/exe`, also where its file was replaced.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let shared = Shared { program: program.into(), idle: Mutex::default(), hanging: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }
}

impl Shared {
    fn start(&self) -> io::Result<Helper> {
        if let Some(helper) = lock(&self.idle).pop() {
            return Ok(helper);
        }
        let (socket, theirs) = UnixStream::pair()?;
        // All other descriptors close on exec. A group of its own: Ctrl-C is for the daemon.
        let child = Command::new(&self.program)
            .arg0("rustok-obsd")
            .arg(COMMAND)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Helper { socket, child })
    }

    /// Gives a helper up that did not answer.
    fn give_up(&self, mut helper: Helper, pid: u32) {
        let _ = helper.child.kill();
        let hanging = Hanging { pid, owner: owner(pid), child: helper.child };
        lock(&self.hanging).push(hanging);
    }

    /// Those that have ended meanwhile are reaped.
    fn hanging(&self) -> MutexGuard<'_, Vec<Hanging>> {
        let mut hanging = lock(&self.hanging);
        hanging.retain_mut(|hanging| matches!(hanging.child.try_wait(), Ok(None)));
        hanging
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for Helper { socket, mut child } in lock(&self.idle).drain(..) {
            drop(socket);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Access for Helpers {
    fn memory(&self, pid: u32, until: Instant) -> Box<dyn Memory + '_> {
        Box::new(HelperMemory { shared: &self.shared, helper: RefCell::new(None), pid, until })
    }

    fn hangs(&self, pid: u32, owner: u32) -> bool {
        let hanging = self.shared.hanging();
        hanging.len() >= HANGING
            || hanging.iter().any(|hanging| hanging.pid == pid)
            || hanging.iter().filter(|hanging| hanging.owner == owner).count() >= HANGING_OF_USER
    }

    fn hanging(&self) -> usize {
        self.shared.hanging().len()
    }
}

struct HelperMemory<'a> {
    shared: &'a Shared,
    helper: RefCell<Option<Helper>>,
    pid: u32,
    until: Instant,
}

impl Memory for HelperMemory<'_> {
    fn read_many(&self, ranges: &[(u64, usize)], buf: &mut [u8]) -> Result<(), MemoryError> {
        let other = |what: &str, error: &dyn std::fmt::Display| MemoryError::Other {
            pid: self.pid,
            error: format!("{what}: {error}"),
        };
        if buf.len() > MOST_BYTES || ranges.len() > MOST_RANGES {
            return Err(other("it was not asked for", &"more bytes or ranges than are read at a time"));
        }
        if self.until <= Instant::now() {
            return Err(MemoryError::TimedOut { pid: self.pid });
        }
        let mut again = true;
        loop {
            let held = self.helper.borrow_mut().take();
            let helper = match held {
                Some(helper) => helper,
                None => self.shared.start().map_err(|error| other("the helper process does not start", &error))?,
            };
            let error = match exchange(&helper.socket, self.pid, self.until, ranges, buf) {
                Ok(answer) => {
                    *self.helper.borrow_mut() = Some(helper);
                    return answer.map_err(|(errno, range)| MemoryError::of(self.pid, errno, range));
                }
                Err(error) => error,
            };
            self.shared.give_up(helper, self.pid);
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                return Err(MemoryError::TimedOut { pid: self.pid });
            }
            // Somebody ended an idle helper; a new one that ends, too, has a reason of its own.
            if !std::mem::take(&mut again) {
                return Err(other("its helper process ended", &error));
            }
        }
    }
}

impl Drop for HelperMemory<'_> {
    fn drop(&mut self) {
        if let Some(helper) = self.helper.take() {
            lock(&self.shared.idle).push(helper);
        }
    }
}

type Answer = Result<(), (i32, (u64, usize))>;

/// Asks, and waits for the answer until the deadline.
fn exchange(
    mut socket: &UnixStream,
    pid: u32,
    until: Instant,
    ranges: &[(u64, usize)],
    buf: &mut [u8],
) -> io::Result<Answer> {
    let mut request = Vec::with_capacity(HEAD + RANGE * ranges.len());
    request.extend_from_slice(&pid.to_le_bytes());
    request.extend_from_slice(&(ranges.len() as u32).to_le_bytes());
    for (address, len) in ranges {
        request.extend_from_slice(&address.to_le_bytes());
        request.extend_from_slice(&(*len as u64).to_le_bytes());
    }
    let left = || {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
    };
    socket.set_write_timeout(Some(left()?))?;
    socket.write_all(&request)?;
    let mut head = [0; ANSWER];
    fill(socket, &mut head, left)?;
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| head[at + index]));
    let errno = i32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    if errno != 0 {
        return Ok(Err((errno, (number(8), usize::try_from(number(16)).unwrap_or(usize::MAX)))));
    }
    fill(socket, buf, left)?;
    Ok(Ok(()))
}

/// Reads all of `buf`; each read may take what is left of the time.
fn fill(mut socket: &UnixStream, mut buf: &mut [u8], left: impl Fn() -> io::Result<Duration>) -> io::Result<()> {
    while !buf.is_empty() {
        socket.set_read_timeout(Some(left()?))?;
        match socket.read(buf) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => buf = &mut buf[read..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The helper's own part: answers requests on standard input, a socket, until that ends.
///
/// # Errors
/// Standard input is no socket of the daemon's, or was closed within a request.
pub fn serve(socket: OwnedFd) -> io::Result<()> {
    // SAFETY: a name that ends in NUL, and numbers. Started by way of `/proc/self/exe` it would be called `exe`.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"rustok-obsd".as_ptr());
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
    let mut socket = UnixStream::from(socket);
    let (mut head, mut ranges, mut data, mut buf) = ([0; HEAD], Vec::new(), Vec::new(), Vec::new());
    loop {
        match socket.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (pid, count) = (word(0), word(4) as usize);
        if count > MOST_RANGES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        data.resize(count * RANGE, 0);
        socket.read_exact(&mut data)?;
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        ranges.clear();
        ranges.extend(data.chunks_exact(RANGE).map(|range| {
            let (address, len) = range.split_at(8);
            (number(address), usize::try_from(number(len)).unwrap_or(usize::MAX))
        }));
        let total = ranges.iter().try_fold(0_usize, |sum, range: &(u64, usize)| sum.checked_add(range.1));
        let Some(total) = total.filter(|total| *total <= MOST_BYTES) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        buf.clear();
        buf.resize(ANSWER + total, 0);
        if let Err((errno, (address, len))) = read_ranges(pid, &ranges, &mut buf[ANSWER..]) {
            buf.truncate(ANSWER);
            buf[..4].copy_from_slice(&errno.to_le_bytes());
            buf[8..16].copy_from_slice(&address.to_le_bytes());
            buf[16..24].copy_from_slice(&(len as u64).to_le_bytes());
        }
        socket.write_all(&buf)?;
        if buf.capacity() > KEPT {
            (data, buf) = (Vec::new(), Vec::new());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
