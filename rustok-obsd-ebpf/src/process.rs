//! Processes that come and go.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_kernel};
use rustok_obsd_ebpf::{Counter, Kind, MAX_CHILDREN, ProcessEvent, Target};

use crate::{
    globals,
    maps::{self, FORKED, RELEASED, TARGETS},
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
/// Uprobes of its parent's process alone do not reach it, those of the file do.
#[inline(always)]
pub fn on_fork(child: u64) {
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: the value is only read, and stays valid while the program runs (see `Current::followed`).
    let Some(mut target) = (unsafe { TARGETS.get(&parent) }).copied() else { return };
    let address = (child + u64::from(globals::task_tgid())) as *const u32;
    // SAFETY: the helper checks the address and fails on a bad one.
    if let Ok(pid) = unsafe { bpf_probe_read_kernel(address) }
        && pid != parent
    {
        target.flags |= Target::WHOLE_FILE;
        if !may_follow(target.family()) {
            return maps::count(Counter::ChildRefused, 1);
        }
        // Before the first record of the child itself.
        tell(Kind::Fork, pid, parent);
        if TARGETS.insert(&pid, &target, 0).is_err() {
            maps::count(Counter::ChildRefused, 1);
        }
    }
}

/// Takes one of the places that a target has for its children; none is left, or the daemon does not know the target.
#[inline(always)]
fn may_follow(family: u32) -> bool {
    let Some(forked) = FORKED.get_ptr_mut(&family) else { return false };
    // SAFETY: the value is only read; the map is not preallocated (see `Current::followed`).
    let Some(released) = (unsafe { RELEASED.get(&family) }) else { return false };
    // SAFETY: the pointer is to a live map value; other CPUs may add to it at the same time (BPF has no atomic addition
    // in stable Rust). An addition that is lost lets one more child be followed, until the daemon counts them again.
    unsafe {
        if (*forked).wrapping_sub(*released) >= u64::from(MAX_CHILDREN) {
            return false;
        }
        *forked += 1;
    }
    true
}
