//! Which sockets are followed, and what is known of each.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel, generated::bpf_get_smp_processor_id},
};
use rustok_obsd_ebpf::{Counter, Kind, OPEN_MID_STREAM, Role, SocketClose, SocketOpen};

use crate::{
    globals,
    maps::{self, CONNECTIONS, PORTS, SOCKETS, count},
    task::Current,
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u32 = 6;

/// `include/net/tcp_states.h`.
const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_SYN_RECV: i32 = 3;
const TCP_CLOSE: i32 = 7;
const TCP_LISTEN: i32 = 10;

/// A followed socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SocketState {
    /// Connection id.
    pub conn: u64,
    /// When it was established or first seen.
    pub opened_ns: u64,
    /// When data arrived that nobody has read yet; 0 for none.
    pub ready_ns: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Payload bytes copied since the direction last changed, by direction (0 send, 1 receive).
    pub burst: [u32; 2],
    /// Sends and receives.
    pub calls: u32,
    /// [`rustok_obsd_ebpf::Capture`].
    pub capture: u8,
    /// [`Role`].
    pub role: u8,
    /// [`OPEN_MID_STREAM`].
    pub flags: u8,
    /// The daemon knows it: its `SocketOpen` is in the ring.
    pub announced: u8,
}

/// Reads a field of a kernel struct, 0 where the address is bad.
#[inline(always)]
fn field<T: Copy + Default>(base: u64, offset: u32) -> T {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.unwrap_or_default()
}

#[inline(always)]
fn is_tcp(sk: u64) -> bool {
    let family = field::<u16>(sk, globals::skc_family());
    if family != AF_INET && family != AF_INET6 {
        return false;
    }
    let protocol = if globals::sk_protocol_bits() == 8 {
        u32::from(field::<u8>(sk, globals::sk_protocol()))
    } else {
        u32::from(field::<u16>(sk, globals::sk_protocol()))
    };
    protocol == IPPROTO_TCP
}

#[inline(always)]
fn next_connection() -> u64 {
    // SAFETY: a helper without arguments.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    let Some(next) = CONNECTIONS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the pointer is to this CPU's slot of a map value, checked for null. An interrupt between the two lines
    // could give one id twice; the daemon then sees a second announcement, which replaces the first.
    unsafe {
        *next += 1;
        (cpu << 48) | *next
    }
}

#[inline(always)]
fn follow(sk: u64, role: Role, flags: u8) -> Option<*mut SocketState> {
    let state = SocketState {
        conn: next_connection(),
        // SAFETY: a helper without arguments.
        opened_ns: unsafe { bpf_ktime_get_ns() },
        ready_ns: 0,
        received: 0,
        sent: 0,
        burst: [0; 2],
        calls: 0,
        capture: 0,
        role: role as u8,
        flags,
        announced: 0,
    };
    // Another CPU may have been faster: then its entry counts.
    let _ = SOCKETS.insert(&sk, &state, u64::from(BPF_NOEXIST));
    let entry = SOCKETS.get_ptr_mut(&sk);
    if entry.is_none() {
        count(Counter::SocketMapFull, 1);
    }
    entry
}

/// The state of a socket on which a target just moved bytes; begins to follow it if it is TCP.
#[inline(always)]
pub fn of(sk: u64) -> Option<*mut SocketState> {
    if let Some(state) = SOCKETS.get_ptr_mut(&sk) {
        return Some(state);
    }
    if !is_tcp(sk) {
        count(Counter::OtherSocket, 1);
        return None;
    }
    // The last receive on a connection that broke comes after its close was told.
    if i32::from(field::<u8>(sk, globals::skc_state())) == TCP_CLOSE {
        return None;
    }
    follow(sk, Role::Unknown, OPEN_MID_STREAM)
}

/// The socket's own port is one on which a target listens.
#[inline(always)]
pub fn is_of_listener(sk: u64) -> bool {
    let port = field::<u16>(sk, globals::skc_num());
    PORTS.get_ptr(&port).is_some()
}

/// Tells the daemon of the socket, once; again if the ring was full.
#[inline(always)]
pub fn announce(sk: u64, state: &mut SocketState, tgid: u32) {
    let family = field::<u16>(sk, globals::skc_family());
    let (local_addr, remote_addr) = if family == AF_INET6 {
        (field::<[u8; 16]>(sk, globals::skc_v6_rcv_saddr()), field::<[u8; 16]>(sk, globals::skc_v6_daddr()))
    } else {
        (ipv4(field(sk, globals::skc_rcv_saddr())), ipv4(field(sk, globals::skc_daddr())))
    };
    let netns = if globals::skc_net() == 0 {
        0
    } else {
        field::<u32>(field::<u64>(sk, globals::skc_net()), globals::net_inum())
    };
    let open = SocketOpen {
        kind: Kind::Open as u8,
        role: state.role,
        family: family as u8,
        flags: state.flags,
        tgid,
        conn: state.conn,
        time_ns: state.opened_ns,
        sock: sk,
        local_addr,
        remote_addr,
        local_port: field(sk, globals::skc_num()),
        remote_port: u16::from_be(field(sk, globals::skc_dport())),
        netns,
    };
    if maps::submit(open.as_bytes()) {
        state.announced = 1;
    }
}

#[inline(always)]
fn ipv4(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Data arrived. Runs for every socket of the host, mostly in soft interrupt: one look-up for those that are not followed.
#[inline(always)]
pub fn on_data_ready(sk: u64) {
    if let Some(state) = SOCKETS.get_ptr_mut(&sk) {
        // SAFETY: a map value, checked for null. Only the first arrival since the last receive counts; a race with that
        // receive loses a time, which then counts as unknown.
        unsafe {
            if (*state).ready_ns == 0 {
                (*state).ready_ns = bpf_ktime_get_ns();
            }
        }
    }
}

/// The socket changed its TCP state.
#[inline(always)]
pub fn on_state(sk: u64, old: i32, new: i32) {
    match (old, new) {
        // A handshake with a listener ended, in soft interrupt: the current process is anybody.
        (TCP_SYN_RECV, TCP_ESTABLISHED) => {
            let port = field::<u16>(sk, globals::skc_num());
            if PORTS.get_ptr(&port).is_some() {
                // A closed socket's memory may serve again before its entry was removed.
                let _ = SOCKETS.remove(&sk);
                let _ = follow(sk, Role::Server, 0);
            }
        }
        // connect(2), in the caller's context.
        (TCP_CLOSE, TCP_SYN_SENT) => {
            if Current::followed().is_some() {
                let _ = SOCKETS.remove(&sk);
                let _ = follow(sk, Role::Client, 0);
            }
        }
        // listen(2), in the caller's context.
        (_, TCP_LISTEN) => {
            if Current::followed().is_some() {
                let port = field::<u16>(sk, globals::skc_num());
                let _ = PORTS.insert(&port, &1, 0);
            }
        }
        (_, TCP_CLOSE) => on_close(sk),
        _ => {}
    }
}

/// The socket's memory is given back; its state was CLOSE before.
#[inline(always)]
pub fn on_destroy(sk: u64) {
    on_close(sk);
}

#[inline(always)]
fn on_close(sk: u64) {
    let Some(state) = SOCKETS.get_ptr(&sk) else { return };
    // SAFETY: a map value, checked for null.
    let state = unsafe { *state };
    let _ = SOCKETS.remove(&sk);
    if state.announced == 0 {
        return;
    }
    let close = SocketClose {
        kind: Kind::Close as u8,
        pad: [0; 3],
        error: field(sk, globals::sk_err()),
        conn: state.conn,
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        received: state.received,
        sent: state.sent,
    };
    maps::submit(close.as_bytes());
}
