//! TCP connections by state.
//!
//! Reads: sockets of IPv4 and IPv6 by inet_diag netlink (sock_diag(7)). Yields: `node_tcp_connection_states`. Costs: two dumps;
//! they grow with the sockets, 72 bytes and more each, so it is off by default.

use super::netlink::{Netlink, word};
use super::{CollectError, Collector, Context, Settings, family::gauge};
use crate::contract::Family;
use crate::exposition::Encoder;
use std::cell::Cell;

const STATES: Family<'static> = gauge("node_tcp_connection_states", &["state"], "Number of connection states.");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[STATES];

/// States from 1 on (include/net/tcp_states.h), then the queues.
const NAMES: [&str; 13] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "rx_queued_bytes",
    "tx_queued_bytes",
];
const RECEIVED: usize = 11;
const SENT: usize = 12;
/// `TCP_NEW_SYN_RECV`: how the kernel calls the same of late.
const NEW_SYN_RECEIVED: u8 = 12;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// All states.
const ALL: u32 = 0xfff;

struct Connections {
    netlink: Option<Netlink>,
    /// Without IPv6 the kernel has no sockets of the family to tell.
    families: [u8; 2],
}

/// Makes it.
pub fn make(_: &Settings) -> Box<dyn Collector> {
    Box::new(Connections { netlink: None, families: [libc::AF_INET as u8, libc::AF_INET6 as u8] })
}

impl Collector for Connections {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let mut sums = [0u64; NAMES.len()];
        for family in self.families {
            match self.count(family) {
                Ok(counts) => sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
                Err(error) => {
                    self.netlink = None;
                    return Err(error);
                }
            }
        }
        let any = sums[..RECEIVED].iter().any(|count| *count > 0);
        let mut samples = out.family(&STATES);
        for (at, (name, count)) in NAMES.iter().zip(sums).enumerate() {
            // As node_exporter: states that no connection is in are not told.
            if count > 0 || at >= RECEIVED && any {
                samples.put([*name], count);
            }
        }
        Ok(())
    }
}

impl Connections {
    fn count(&mut self, family: u8) -> Result<[u64; NAMES.len()], CollectError> {
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none => none.insert(Netlink::open(libc::NETLINK_SOCK_DIAG)?),
        };
        // `struct inet_diag_req_v2`: family, protocol, extensions, pad, states, socket.
        let mut request = [0; 56];
        request[..2].copy_from_slice(&[family, libc::IPPROTO_TCP as u8]);
        request[4..8].copy_from_slice(&ALL.to_ne_bytes());
        let counts = Cell::new([0; NAMES.len()]);
        let begin = || counts.set([0; NAMES.len()]);
        netlink.dump(BY_FAMILY, &request, begin, |_, message| {
            // `struct inet_diag_msg`: family, state, …, receive queue at 56, send queue at 60.
            let (Some(received), Some(sent)) = (word(message, 56), word(message, 60)) else { return };
            let mut now = counts.get();
            let state = if message[1] == NEW_SYN_RECEIVED { 3 } else { message[1] };
            if let Some(count) = now[..RECEIVED].get_mut(usize::from(state).wrapping_sub(1)) {
                *count += 1;
            }
            now[RECEIVED] += u64::from(received);
            now[SENT] += u64::from(sent);
            counts.set(now);
        })?;
        Ok(counts.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn sockets_of_our_own_are_counted() {
        let mut connections = Connections { netlink: None, families: [0; 2] };
        let mut count = || connections.count(libc::AF_INET as u8).unwrap();
        let before = count();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pairs: Vec<_> = (0..50).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        let after = count();
        // Other tests have sockets too: no more than a few, next to so many.
        assert!(after[0] >= before[0] + 80, "{before:?} {after:?}");
        assert!(after[9] >= 1, "{after:?}");
        drop(pairs);
    }
}
