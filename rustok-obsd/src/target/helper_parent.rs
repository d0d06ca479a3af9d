//! The one process that the helpers of [`super::memory_helper`] descend from.
//!
//! Reads: sockets that the daemon sends it, each for a new helper. Yields: a child for each, by fork(2). Costs: one small
//! process, which waits; a helper more costs a fork of that, some 100 µs.
//!
//! Why: once it serves, the daemon is confined ([`crate::confine`]) and can make no process, nor signal or await one. This
//! one is started before. It reads no memory itself, so it never hangs; it ends when the daemon's end of its socket closes,
//! and its children likewise, each with its own socket. The kernel reaps them, since it ignores SIGCHLD.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::memory_helper::{COMMAND, UNCONFINED, fill, left};
use crate::confine::{self, Measure};

/// What the process and each of its children begin with: an errno, 0 once it runs. The process itself then reports in
/// [`REPORT`] bytes how it is confined.
const GREETING: usize = size_of::<i32>();
const REPORT: usize = 512;

/// The daemon's side of it.
#[derive(Debug)]
pub(super) struct Parent {
    socket: UnixStream,
    child: Child,
    measure: Measure,
}

impl Parent {
    /// Starts it, confined or not, and waits until it is there.
    pub(super) fn start(program: &Path, confined: bool, until: Instant) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(program);
        // All other descriptors close on exec. A group of its own: Ctrl-C is for the daemon.
        command.arg0("rustok-obsd").arg(COMMAND).stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).process_group(0);
        if !confined {
            command.arg(UNCONFINED);
        }
        let child = confine::with_ptrace(|| command.spawn())?;
        // It holds the other end of the socket.
        drop(command);
        let mut parent = Self { socket, child, measure: Measure::off(confine::HELPERS) };
        let greeted = greeted(&parent.socket, until).and_then(|()| {
            let mut report = [0; REPORT];
            fill(&parent.socket, &mut report, || left(until))?;
            Ok(report)
        });
        match greeted {
            Ok(report) => {
                if confined {
                    parent.measure = confine::helpers_said(String::from_utf8_lossy(&report).trim_end_matches('\0'));
                }
                Ok(parent)
            }
            Err(error) => {
                parent.end();
                Err(error)
            }
        }
    }

    /// Ends one that does not do its work. One that does ends with its socket when this is dropped, and whoever awaits the
    /// daemon's orphans awaits it. A confined daemon may neither signal nor await: one that has ended stays a zombie then,
    /// a single one, since there is no second.
    pub(super) fn end(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it is confined, and its children with it.
    pub(super) const fn measure(&self) -> &Measure {
        &self.measure
    }

    /// Sends the socket of a helper that is to be, and waits for nothing.
    pub(super) fn send(&self, theirs: &UnixStream) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        let descriptors = [theirs.as_fd()];
        message.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.socket, &[IoSlice::new(&[0])], &mut message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Waits for the greeting of whoever has the other end.
pub(super) fn greeted(socket: &UnixStream, until: Instant) -> io::Result<()> {
    let mut errno = [0; GREETING];
    fill(socket, &mut errno, || left(until))?;
    match i32::from_le_bytes(errno) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// The process itself: makes children until its socket ends. Yields `None` then, and in each child the child's socket.
pub(super) fn keep(socket: OwnedFd, confined: bool) -> io::Result<Option<UnixStream>> {
    // SAFETY: a name that ends in NUL, and numbers; SIG_IGN is no handler. Started by way of `/proc/self/exe` it would be
    // called `exe`.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"rustok-obsd".as_ptr());
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
    let refused = if confined { confine::helpers() } else { String::new() };
    let mut greeting = [0; GREETING + REPORT];
    greeting[GREETING..].iter_mut().zip(refused.bytes()).for_each(|(to, from)| *to = from);
    let mut socket = UnixStream::from(socket);
    socket.write_all(&greeting)?;
    while let Some(theirs) = receive(&socket)? {
        // SAFETY: this process has one thread, so its child may do whatever it could do itself.
        match unsafe { libc::fork() } {
            0 => {
                // Standard input is the parent's socket, which must end with the parent.
                // SAFETY: both are open descriptors of this process.
                if unsafe { libc::dup2(theirs.as_raw_fd(), libc::STDIN_FILENO) } < 0 {
                    return Err(io::Error::last_os_error());
                }
                let mut theirs = theirs;
                theirs.write_all(&[0; GREETING])?;
                return Ok(Some(theirs));
            }
            -1 => {
                let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN);
                // Whoever waits sees the end of the socket, at least.
                let _ = (&theirs).write_all(&errno.to_le_bytes());
            }
            _ => {}
        }
    }
    Ok(None)
}

/// The next socket; `None` at the end.
fn receive(socket: &UnixStream) -> io::Result<Option<UnixStream>> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let (mut messages, mut byte) = (RecvAncillaryBuffer::new(&mut space), [0]);
        match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut messages, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) if message.bytes == 0 => return Ok(None),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Without one, where descriptors ran out, the daemon sees the end of the socket.
        let received = messages.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        if let Some(received) = received {
            return Ok(Some(received.into()));
        }
    }
}

/// Whether a socket from which nothing is due has its end or an answer that comes late.
pub(super) fn is_over(mut socket: &UnixStream) -> bool {
    let waits = socket.set_nonblocking(true).and_then(|()| socket.read(&mut [0]));
    !waits.is_err_and(|error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted))
}
