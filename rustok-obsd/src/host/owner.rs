//! Whose a TCP connection within this host is.
//!
//! Reads: both ends. Yields: the user id of the socket at the other end, as the kernel says (inet_diag, sock_diag(7)).
//! Costs: one `sendto` and one `recvfrom`, whatever the number of sockets.

use super::CollectError;
use super::netlink::{Netlink, word};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `TCP_ESTABLISHED`.
const ESTABLISHED: u8 = 1;

/// Asks the kernel. Where it does not tell, nobody is known, and that is said once.
#[derive(Debug, Default)]
pub struct Owners(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    netlink: Option<Netlink>,
    /// It was said that the kernel does not tell.
    said: bool,
}

impl Owners {
    /// The user whose socket has the address `peer` and is connected to `local`.
    pub fn of(&self, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.ask(peer, local) {
            Ok(owner) => owner,
            Err(error) => {
                state.netlink = None;
                if !std::mem::replace(&mut state.said, true) {
                    tracing::info!(
                        "users of this host share their connections to the daemon, since the kernel does not say whose \
                         they are: {error}; it needs CONFIG_INET_DIAG"
                    );
                }
                None
            }
        }
    }
}

impl State {
    fn ask(&mut self, peer: SocketAddr, local: SocketAddr) -> Result<Option<u32>, CollectError> {
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none => none.insert(Netlink::open(libc::NETLINK_SOCK_DIAG)?),
        };
        netlink.ask(BY_FAMILY, &request(peer, local), |answer| {
            // `struct inet_diag_msg`: family, state, …, user at 64. What was closed belongs to nobody: the kernel says 0.
            (*answer.get(1)? == ESTABLISHED).then(|| word(answer, 64))?
        })
    }
}

/// `struct inet_diag_req_v2`: family, protocol, extensions, pad, states, then the socket: ports, addresses, interface,
/// cookie (none). Its source is the other end.
fn request(peer: SocketAddr, local: SocketAddr) -> [u8; 56] {
    let mut request = [0; 56];
    request[1] = libc::IPPROTO_TCP as u8;
    request[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    request[8..10].copy_from_slice(&peer.port().to_be_bytes());
    request[10..12].copy_from_slice(&local.port().to_be_bytes());
    for (at, address) in [(12, peer), (28, local)] {
        match address.ip().to_canonical() {
            IpAddr::V4(address) => {
                request[0] = libc::AF_INET as u8;
                request[at..at + 4].copy_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                request[0] = libc::AF_INET6 as u8;
                request[at..at + 16].copy_from_slice(&address.octets());
            }
        }
    }
    request[48..].fill(0xff);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    /// The user of this test.
    fn ourselves() -> u32 {
        // SAFETY: takes nothing and cannot fail.
        unsafe { libc::geteuid() }
    }

    #[test]
    fn a_connection_is_its_users_and_one_that_is_closed_is_nobodys() {
        let owners = Owners::default();
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            // A host without IPv6 has no such address.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let mut to = listener.local_addr().unwrap();
            if to.ip().is_unspecified() {
                to.set_ip([127, 0, 0, 1].into());
            }
            let stream = TcpStream::connect(to).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            let local = accepted.local_addr().unwrap();
            assert_eq!(owners.of(peer, local), Some(ourselves()), "{address}");
            drop(stream);
            assert_eq!(owners.of(peer, local), None, "{address}");
        }
        assert_eq!(owners.of(([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()), None);
    }

    #[test]
    fn another_users_connection_is_that_users() {
        if ourselves() != 0 {
            println!("skipped: only root starts a process of another user");
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo connected; read -r");
        let mut command = Command::new("bash");
        command.args(["-c", &script]).uid(65_534).gid(65_534).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "connected\n");
        let (accepted, peer) = listener.accept().unwrap();
        assert_eq!(Owners::default().of(peer, accepted.local_addr().unwrap()), Some(65_534));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
