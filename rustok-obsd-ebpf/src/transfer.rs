//! Sends and receives of a target: one record each.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use rustok_obsd_ebpf::{Capture, Counter, IO_TRUNCATED, IO_UNREADABLE, Kind, Role, SocketIo, TAIL, begins_request};

use crate::{
    globals,
    maps::{self, VERDICTS, count},
    payload::{self, Scratch},
    socket::{self, SocketState},
    task::Current,
};

const EAGAIN: i32 = 11;
/// `include/linux/socket.h`: the bytes stay in the queue, or are no data.
const MSG_PEEK: i32 = 0x2;
const MSG_ERRQUEUE: i32 = 0x2000;
/// The daemon's verdict is looked up on every eighth call.
const VERDICT_EVERY: u32 = 8;

/// A send or receive returned `result`.
#[inline(always)]
pub fn on_transfer<const RECEIVE: bool>(sk: u64, result: i32, flags: i32) {
    let Some(current) = Current::followed() else { return };
    if result == -EAGAIN {
        count(Counter::WouldBlock, 1);
        return;
    }
    if RECEIVE && flags & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
        return;
    }
    let Some(state) = socket::of(sk) else { return };
    // SAFETY: a map value, checked for null. Two threads may use one socket at a time, but each direction is serialised
    // by the socket's own lock or by the application.
    let state = unsafe { &mut *state };
    if state.announced == 0 {
        socket::announce(sk, state, current.tgid);
    }
    state.calls += 1;
    if state.calls % VERDICT_EVERY == 0 {
        apply_verdict(state);
    }
    let moved = if result > 0 { result as u32 } else { 0 };
    let ready_ns = if RECEIVE { core::mem::replace(&mut state.ready_ns, 0) } else { 0 };
    let offset = if RECEIVE { state.received } else { state.sent };
    if RECEIVE {
        state.received += u64::from(moved);
    } else {
        state.sent += u64::from(moved);
    }
    if state.capture == Capture::Off as u8 || (!RECEIVE && result == 0) {
        return;
    }
    let Some(scratch) = maps::scratch(RECEIVE) else { return };
    // SAFETY: a map value of this CPU alone, checked for null; the kernel does not run this program twice at a time on
    // a CPU, and the other direction has another slot.
    let scratch = unsafe { &mut *scratch };

    let limit = payload_limit::<RECEIVE>(state, moved);
    let mut record_flags = 0;
    let mut captured = 0;
    let mut tail = [0; TAIL];
    if limit > 0 || moved > 0 && state.capture == Capture::Payload as u8 {
        match payload::copy(scratch, moved, limit, &mut tail) {
            Some(copied) => captured = copied,
            None => {
                record_flags |= IO_UNREADABLE;
                count(Counter::Unreadable, 1);
            }
        }
    }
    state.burst[usize::from(RECEIVE)] += captured;
    state.burst[usize::from(!RECEIVE)] = 0;
    if captured < moved {
        record_flags |= IO_TRUNCATED;
    }
    scratch.head = SocketIo {
        kind: if RECEIVE { Kind::Receive } else { Kind::Send } as u8,
        flags: record_flags,
        captured: captured as u16,
        result,
        tgid: current.tgid,
        tid: current.tid,
        conn: state.conn,
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        ready_ns,
        offset,
        task: current.task(),
        tail,
    };
    if !Scratch::submit(scratch, captured) && RECEIVE {
        on_refused(sk, state, captured, Scratch::start(scratch));
    }
}

/// The ring was full: a request that nobody will hear of is counted.
#[inline(always)]
fn on_refused(sk: u64, state: &SocketState, captured: u32, start: [u8; 4]) {
    if captured >= 4 && state.role != Role::Client as u8 && begins_request(start) {
        // Of a socket that is older than the daemon the port tells whether it serves.
        if state.role == Role::Server as u8 || socket::is_of_listener(sk) {
            count(Counter::RequestRefused, 1);
        }
    }
}

/// How many bytes of a transfer of `moved` bytes may be copied.
#[inline(always)]
fn payload_limit<const RECEIVE: bool>(state: &SocketState, moved: u32) -> u32 {
    if state.capture != Capture::Payload as u8 {
        return 0;
    }
    let (record, burst) = if RECEIVE {
        (globals::receive_limit(), globals::receive_burst())
    } else if state.role == Role::Client as u8 {
        (globals::client_send_limit(), globals::send_burst())
    } else {
        (globals::send_limit(), globals::send_burst())
    };
    let used = state.burst[usize::from(RECEIVE)];
    let left = if used < burst { burst - used } else { 0 };
    min(min(moved, record), left)
}

#[inline(always)]
pub fn min(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn apply_verdict(state: &mut SocketState) {
    // SAFETY: the value is only read; a stale one is looked up again later.
    if let Some(verdict) = unsafe { VERDICTS.get(&state.conn) } {
        state.capture = *verdict as u8;
    }
}
