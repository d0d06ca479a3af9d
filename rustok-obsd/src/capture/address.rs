//! Socket addresses as the kernel tells them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustok_obsd_ebpf::SocketOpen;

/// `AF_INET6`, include/linux/socket.h.
const AF_INET6: u8 = 10;

/// Local and remote address of a connection. IPv4 on a dual-stack socket is told as IPv4.
#[must_use]
pub fn of(open: &SocketOpen) -> (SocketAddr, SocketAddr) {
    let address = |bytes: [u8; 16]| {
        if open.family == AF_INET6 {
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        } else {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
    };
    (
        SocketAddr::new(address(open.local_addr), open.local_port),
        SocketAddr::new(address(open.remote_addr), open.remote_port),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_ipv4_address_is_told_as_ipv4() {
        let mut open = SocketOpen {
            kind: 1,
            role: 1,
            family: 10,
            flags: 0,
            tgid: 1,
            conn: 1,
            time_ns: 1,
            sock: 1,
            local_addr: Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets(),
            remote_addr: Ipv6Addr::LOCALHOST.octets(),
            local_port: 80,
            remote_port: 4000,
            netns: 0,
        };
        let (local, remote) = of(&open);
        assert_eq!((local.to_string().as_str(), remote.to_string().as_str()), ("10.0.0.1:80", "[::1]:4000"));
        open.family = 2;
        open.local_addr = [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(of(&open).0.to_string(), "127.0.0.1:80");
    }
}
