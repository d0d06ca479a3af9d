//! Reads other processes' memory in a process of its own, which can be left behind.
//!
//! Reads: requests of the daemon on a socket, and for each the memory that it names. Yields: the bytes. Costs: one small
//! process for each read that is under way, kept for the next one; about 30 µs a request more than a direct read.
//!
//! Why a process: who reads a page behind which a FUSE server does not answer waits in the kernel, and not even SIGKILL
//! ends that. A thread in that state keeps its whole process, with all descriptors, from ending. A helper in that state
//! holds nothing but its end of a socket; the daemon puts that socket by and goes on, and ends when it must. A socket that
//! was put by is closed once it has an end or a late answer; that, or the daemon's end, is the helper's.
//!
//! All helpers descend from one process that is started before the daemon is confined ([`super::helper_parent`]).

use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::executable::FileNode;
use super::helper_parent::{Parent, greeted, is_over, keep};
use super::memory::{Memory, MemoryError, read_ranges};
use super::reader::{self, Access, spender};
use super::spender::Spender;
use crate::confine::Measure;

/// The hidden command that makes a helper of this program.
pub const COMMAND: &str = "read-memory";
/// Its flag, where `security.confine` is false.
pub const UNCONFINED: &str = "--unconfined";
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
    confined: bool,
    parent: Mutex<Option<Parent>>,
    /// The parent ended, and the daemon may not start another one.
    lost: AtomicBool,
    /// Sockets of helpers that wait for a request.
    idle: Mutex<Vec<UnixStream>>,
    hanging: Mutex<Vec<Hanging>>,
}

/// A helper that did not answer in time.
#[derive(Debug)]
struct Hanging {
    read: reader::Hanging,
    spender: Spender,
    socket: UnixStream,
}

impl Helpers {
    /// Helpers of a program that knows [`COMMAND`]: this daemon's, `/proc/self/exe`, also where its file was replaced. They
    /// confine themselves where `confined`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, confined: bool) -> Self {
        let shared = Shared {
            program: program.into(),
            confined,
            parent: Mutex::default(),
            lost: AtomicBool::new(false),
            idle: Mutex::default(),
            hanging: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the process that they descend from; otherwise the first read does. Call it before
    /// [`crate::confine::Confinement::system_calls`], after which none can be started.
    ///
    /// # Errors
    /// It does not start, or not by `until`.
    pub fn prepare(&self, until: Instant) -> io::Result<()> {
        let mut parent = lock(&self.shared.parent);
        if parent.is_none() {
            *parent = Some(Parent::start(&self.shared.program, self.shared.confined, until)?);
        }
        Ok(())
    }

    /// How they are confined; `None` while the process that they descend from is not there.
    #[must_use]
    pub fn confinement(&self) -> Option<Measure> {
        lock(&self.shared.parent).as_ref().map(|parent| parent.measure().clone())
    }

    /// The process that they descend from.
    #[must_use]
    pub fn parent(&self) -> Option<u32> {
        lock(&self.shared.parent).as_ref().map(Parent::id)
    }
}

impl Shared {
    fn start(&self, until: Instant) -> Result<UnixStream, NoHelper> {
        if let Some(helper) = lock(&self.idle).pop() {
            return Ok(helper);
        }
        let (socket, theirs) = UnixStream::pair()?;
        self.order(&theirs, until)?;
        drop(theirs);
        match greeted(&socket, until) {
            Ok(()) => Ok(socket),
            Err(error) if is_late(&error) => Err(NoHelper::Late),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends the socket to the parent, a new one where there is none or it has ended.
    fn order(&self, theirs: &UnixStream, until: Instant) -> Result<(), NoHelper> {
        let mut parent = lock(&self.parent);
        match parent.as_ref().map(|parent| parent.send(theirs)) {
            Some(Ok(())) => return Ok(()),
            // It is stopped, and much waits for it already.
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Err(NoHelper::Late),
            Some(Err(_)) | None => _ = parent.take().map(Parent::end),
        }
        let started = match Parent::start(&self.program, self.confined, until) {
            Ok(started) => started,
            // The answer of the daemon's own filter.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                if !self.lost.swap(true, Ordering::Relaxed) {
                    tracing::error!("{}", NoHelper::Lost);
                }
                return Err(NoHelper::Lost);
            }
            Err(error) if is_late(&error) => return Err(NoHelper::Late),
            Err(error) => return Err(error.into()),
        };
        self.lost.store(false, Ordering::Relaxed);
        started.send(theirs)?;
        *parent = Some(started);
        Ok(())
    }

    /// Those that have ended or answered meanwhile are forgotten.
    fn hanging(&self) -> MutexGuard<'_, Vec<Hanging>> {
        let mut hanging = lock(&self.hanging);
        hanging.retain(|hanging| !is_over(&hanging.socket));
        hanging
    }
}

/// Why there is no helper.
#[derive(Debug, thiserror::Error)]
enum NoHelper {
    #[error("the process that starts it did not do so in time: it is stopped, or the machine is overloaded")]
    Late,
    #[error(
        "the process that starts the helpers which read targets' memory is gone, and the daemon is confined and cannot start \
         another one: restart the daemon"
    )]
    Lost,
    #[error(transparent)]
    Os(#[from] io::Error),
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn has_ended(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl Access for Helpers {
    fn memory(&self, pid: u32, until: Instant) -> Box<dyn Memory + '_> {
        let file = FileNode::run_by(Path::new("/proc"), pid).ok();
        Box::new(HelperMemory { shared: &self.shared, helper: RefCell::new(None), pid, file, until })
    }

    fn hangs(&self, pid: u32, spender: Spender) -> bool {
        let hanging = self.shared.hanging();
        !spender.is_root() && hanging.len() >= HANGING
            || hanging.iter().any(|hanging| hanging.read.pid == pid)
            || hanging.iter().filter(|hanging| hanging.spender == spender).count() >= HANGING_OF_USER
    }

    fn hanging(&self) -> Vec<reader::Hanging> {
        self.shared.hanging().iter().map(|hanging| hanging.read).collect()
    }

    fn lost(&self) -> bool {
        self.shared.lost.load(Ordering::Relaxed) && lock(&self.shared.idle).is_empty()
    }
}

struct HelperMemory<'a> {
    shared: &'a Shared,
    helper: RefCell<Option<UnixStream>>,
    pid: u32,
    /// What the process ran at first.
    file: Option<FileNode>,
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
            let started = held.map_or_else(|| self.shared.start(self.until), Ok);
            let error = match started {
                Ok(helper) => match exchange(&helper, self.pid, self.until, ranges, buf) {
                    Ok(answer) => {
                        *self.helper.borrow_mut() = Some(helper);
                        return answer.map_err(|(errno, range)| MemoryError::of(self.pid, errno, range));
                    }
                    Err(error) if is_late(&error) => {
                        let read = reader::Hanging { pid: self.pid, file: self.file };
                        let hanging = Hanging { read, spender: spender(self.pid), socket: helper };
                        lock(&self.shared.hanging).push(hanging);
                        return Err(MemoryError::TimedOut { pid: self.pid });
                    }
                    Err(error) => error,
                },
                Err(NoHelper::Os(error)) if has_ended(&error) => error,
                Err(error) => return Err(other("the helper process does not start", &error)),
            };
            // Somebody ended an idle helper or the parent; a new one that ends, too, has a reason of its own.
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
    let left = || left(until);
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

/// What is left of the time.
pub(super) fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Reads all of `buf`; each read may take what is left of the time.
pub(super) fn fill(
    mut socket: &UnixStream,
    mut buf: &mut [u8],
    left: impl Fn() -> io::Result<Duration>,
) -> io::Result<()> {
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

/// What [`COMMAND`] does: makes helpers for the daemon at the other end of a socket until that ends, all of them confined
/// where `confined`.
///
/// # Errors
/// It is no socket of the daemon's.
pub fn serve(socket: OwnedFd, confined: bool) -> io::Result<()> {
    match keep(socket, confined).and_then(|helper| helper.map_or(Ok(()), answer)) {
        // The daemon ended, or did not wait for a late answer.
        Err(error) if has_ended(&error) => Ok(()),
        ended => ended,
    }
}

/// A helper's own part: answers requests until the socket ends.
fn answer(mut socket: UnixStream) -> io::Result<()> {
    let (mut head, mut ranges, mut data, mut buf) = ([0; HEAD], Vec::new(), Vec::new(), Vec::new());
    loop {
        socket.read_exact(&mut head)?;
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
