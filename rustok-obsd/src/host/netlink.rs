//! The kernel's netlink sockets: dumps of tables, single questions, and nothing else.
//!
//! Reads: a socket of one protocol (netlink(7)). Yields: each message of a dump, and its attributes. Costs: one `sendto` and one
//! `recvfrom` per 32 KiB; no allocation once the buffer is there. Lengths are checked; a dump that does not end is left.

mod links;

use super::CollectError;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

pub use links::{Identity, Link, Links, STATISTICS};

/// The kernel fills no more than this at once.
const BUFFER: usize = 32 * 1024;
/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER: usize = 16;
/// A dump has no more parts: a table that grows as fast as it is read has no end.
const MOST_PARTS: usize = 64 * 1024;
/// The kernel answers at once, if it does.
const PATIENCE: libc::timeval = libc::timeval { tv_sec: 2, tv_usec: 0 };
/// A dump that a change of the table cut through is begun again so often; then it is taken as it is.
const ATTEMPTS: usize = 3;

/// What came of one dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// The table changed meanwhile.
    Interrupted,
}

/// A socket.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// A socket of a protocol such as `NETLINK_ROUTE`, in the network namespace of this thread.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn open(protocol: libc::c_int) -> Result<Self, CollectError> {
        // SAFETY: makes a descriptor from numbers.
        let socket = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if socket < 0 {
            return Err(CollectError::call("socket(AF_NETLINK)"));
        }
        // SAFETY: the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let (size, time) = (size_of::<libc::timeval>() as libc::socklen_t, &PATIENCE);
        // SAFETY: the option takes a timeval of that size.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                std::ptr::from_ref(time).cast(),
                size,
            )
        };
        if set != 0 {
            return Err(CollectError::call("setsockopt(SO_RCVTIMEO)"));
        }
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Asks for a table by `kind` with the request's `body`, and hands each message's type and content to `each`; `begin`
    /// is called before the first, and again where the dump has to be repeated.
    ///
    /// # Errors
    /// As the kernel says; a dump without end, and one that does not come.
    pub fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        mut begin: impl FnMut(),
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), CollectError> {
        for _ in 0..ATTEMPTS {
            self.request(kind, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, body)?;
            begin();
            if self.receive(&mut each)? == End::Whole {
                break;
            }
        }
        Ok(())
    }

    /// Asks one question and hands the content of the answer to `take`; `None` where the kernel knows no answer.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn ask<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        take: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, CollectError> {
        self.request(kind, libc::NLM_F_REQUEST, body)?;
        for _ in 0..ATTEMPTS {
            let length = self.receive_part()?;
            // One of another question: that was left.
            let Some(answer) = Messages(&self.buffer[..length]).find(|message| message.sequence == self.sequence)
            else {
                continue;
            };
            if i32::from(answer.kind) != libc::NLMSG_ERROR {
                return Ok(take(answer.body));
            }
            return match refusal(answer.body) {
                libc::ENOENT => Ok(None),
                code => Err(CollectError::Call { call: "netlink", source: io::Error::from_raw_os_error(code) }),
            };
        }
        Ok(None)
    }

    fn request(&mut self, kind: u16, flags: libc::c_int, body: &[u8]) -> Result<(), CollectError> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER + body.len();
        let mut message = [0u8; 128];
        let Some(message) = message.get_mut(..length) else {
            return Err(CollectError::Other(format!("a netlink request of {length} bytes; please report it")));
        };
        message[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
        message[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        message[HEADER..].copy_from_slice(body);
        // SAFETY: the address is a whole, zeroed sockaddr_nl; zero is the kernel's port.
        let sent = unsafe {
            let mut kernel: libc::sockaddr_nl = std::mem::zeroed();
            kernel.nl_family = libc::AF_NETLINK as u16;
            libc::sendto(
                self.socket.as_raw_fd(),
                message.as_ptr().cast(),
                length,
                0,
                (&raw const kernel).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(CollectError::call("sendto(AF_NETLINK)")) } else { Ok(()) }
    }

    fn receive(&mut self, each: &mut impl FnMut(u16, &[u8])) -> Result<End, CollectError> {
        let mut end = End::Whole;
        for _ in 0..MOST_PARTS {
            let length = self.receive_part()?;
            let mut part = Messages(&self.buffer[..length]);
            for Message { kind, flags, sequence, body } in part.by_ref() {
                if sequence != self.sequence {
                    // Of a dump that was left.
                    continue;
                }
                if u32::from(flags) & libc::NLM_F_DUMP_INTR as u32 != 0 {
                    end = End::Interrupted;
                }
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(end),
                    libc::NLMSG_ERROR => {
                        return Err(CollectError::Call {
                            call: "netlink dump",
                            source: io::Error::from_raw_os_error(refusal(body)),
                        });
                    }
                    libc::NLMSG_NOOP => {}
                    _ => each(kind, body),
                }
            }
        }
        Err(CollectError::Other(
            "a netlink dump without end was left; the table changes faster than it can be read".into(),
        ))
    }

    /// Receives one datagram of the kernel; its length.
    fn receive_part(&mut self) -> Result<usize, CollectError> {
        loop {
            // SAFETY: a zeroed sockaddr_nl is valid.
            let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
            let mut size = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            // SAFETY: the kernel writes at most the buffer's length, and an address of at most `size`.
            let length = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    libc::MSG_TRUNC,
                    (&raw mut from).cast(),
                    &raw mut size,
                )
            };
            match usize::try_from(length) {
                Ok(length) if length > self.buffer.len() => {
                    return Err(CollectError::Other(format!("a netlink message of {length} bytes; please report it")));
                }
                // Anything but port 0 is another process.
                Ok(length) if from.nl_pid == 0 => return Ok(length),
                Ok(_) => {}
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(CollectError::call("recvfrom(AF_NETLINK)")),
            }
        }
    }
}

/// The number of the error in a message of the kind `NLMSG_ERROR`.
fn refusal(body: &[u8]) -> i32 {
    word(body, 0).map_or(libc::EBADMSG, |code| (code as i32).wrapping_neg())
}

struct Message<'b> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'b [u8],
}

/// The messages of a datagram; ends at the first that is not whole.
struct Messages<'b>(&'b [u8]);

impl<'b> Iterator for Messages<'b> {
    type Item = Message<'b>;

    fn next(&mut self) -> Option<Message<'b>> {
        let length = word(self.0, 0)? as usize;
        let message = self.0.get(..length)?;
        let body = message.get(HEADER..)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some(Message { kind: half(message, 4)?, flags: half(message, 6)?, sequence: word(message, 8)?, body })
    }
}

/// The attributes in `bytes`, by type without its flags; ends at the first that is not whole.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const FLAGS: u16 = 0xc000;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(half(rest, 0)?);
        let value = rest.get(4..length)?;
        let kind = half(rest, 2)? & !FLAGS;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn aligned(length: usize) -> usize {
    length.div_ceil(4) * 4
}

/// Two bytes at `at`.
pub fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Four bytes at `at`.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_ends_the_reading() {
        let mut bytes = Vec::new();
        for (kind, body) in [(16u16, [1u8, 2, 3].as_slice()), (17, &[])] {
            bytes.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(&7u32.to_ne_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(body);
            bytes.resize(bytes.len().div_ceil(4) * 4, 0);
        }
        let kinds =
            |bytes: &[u8]| Messages(bytes).map(|message| (message.kind, message.body.len())).collect::<Vec<_>>();
        assert_eq!(kinds(&bytes), [(16, 3), (17, 0)]);
        for length in 0..bytes.len() {
            assert!(kinds(&bytes[..length]).len() < 2, "{length}");
        }
        assert_eq!(kinds(&[0; 64]), [], "a length of nothing is no message");
        let mut attribute = vec![5, 0, 3, 0x80, 9, 0, 0, 0, 4, 0, 1, 0];
        assert_eq!(attributes(&attribute).collect::<Vec<_>>(), [(3, [9].as_slice()), (1, &[])]);
        attribute[8] = 200;
        assert_eq!(attributes(&attribute).count(), 1);
        assert_eq!(attributes(&[3, 0, 0, 0]).count(), 0);
    }

    #[test]
    fn the_kernel_refuses_what_it_does_not_know() {
        let mut netlink = Netlink::open(libc::NETLINK_SOCK_DIAG).unwrap();
        let error = netlink.dump(999, &[0; 8], || (), |_, _| ()).unwrap_err().to_string();
        assert!(error.contains("netlink dump: Invalid argument"), "{error}");
    }
}
