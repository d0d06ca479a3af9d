//! Processes that come and go.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_kernel};
use rustok_obsd_ebpf::{Kind, ProcessEvent};

use crate::{
    globals,
    maps::{self, TARGETS},
};

#[inline(always)]
fn tell(kind: Kind, pid: u32, parent: u32) {
    let event = ProcessEvent {
        kind: kind as u8,
        pad: [0; 3],
        pid,
        parent,
        pad2: 0,
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
    };
    maps::submit_now(event.as_bytes());
}

/// Any process of the host may become a target.
#[inline(always)]
pub fn on_exec() {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // Another program has its task ids elsewhere, or is no target at all.
    let _ = TARGETS.remove(&tgid);
    tell(Kind::Exec, tgid, 0);
}

/// The main thread of a target ends.
#[inline(always)]
pub fn on_exit() {
    let id = bpf_get_current_pid_tgid();
    let tgid = (id >> 32) as u32;
    if tgid == id as u32 && TARGETS.get_ptr(&tgid).is_some() {
        tell(Kind::Exit, tgid, 0);
    }
}

/// A target forked: the child is the same program, and followed from now on, since it may serve what its parent accepted.
#[inline(always)]
pub fn on_fork(child: u64) {
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: the value is only read, and stays valid while the program runs (see `Current::followed`).
    let Some(target) = (unsafe { TARGETS.get(&parent) }).copied() else { return };
    let address = (child + u64::from(globals::task_tgid())) as *const u32;
    // SAFETY: the helper checks the address and fails on a bad one.
    if let Ok(pid) = unsafe { bpf_probe_read_kernel(address) }
        && pid != parent
    {
        tell(Kind::Fork, pid, parent);
        let _ = TARGETS.insert(&pid, &target, 0);
    }
}
