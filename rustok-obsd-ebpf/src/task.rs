//! The current process, thread and Tokio task.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_user,
        generated::{bpf_get_attach_cookie, bpf_get_current_task_btf},
    },
    programs::ProbeContext,
};
use rustok_obsd_ebpf::{Counter, Target};

use crate::{
    globals,
    maps::{TARGETS, count},
};

/// The current thread, of a process that is followed.
#[derive(Clone, Copy)]
pub struct Current {
    pub tgid: u32,
    pub tid: u32,
    pub target: Target,
}

impl Current {
    /// `None` if the process is no target: the first thing that a program asks.
    #[inline(always)]
    pub fn followed() -> Option<Self> {
        let id = bpf_get_current_pid_tgid();
        let tgid = (id >> 32) as u32;
        // SAFETY: the value is only read, and the map is not preallocated: a removed element stays valid for the RCU
        // section in which a program runs.
        let target = *unsafe { TARGETS.get(&tgid) }?;
        Some(Self { tgid, tid: id as u32, target })
    }

    /// The same for a function of the target: its uprobe may be there twice for a moment, and one of the two counts.
    #[inline(always)]
    pub fn at(ctx: &ProbeContext) -> Option<Self> {
        let current = Self::followed()?;
        // SAFETY: the context is the one that the program was started with.
        let tag = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
        (tag == current.target.tag()).then_some(current)
    }

    /// Tokio's id of the task that the thread polls now; 0 where there is none or it is unknown.
    #[inline(always)]
    pub fn task(&self) -> u64 {
        if self.target.task_slot == 0 {
            return 0;
        }
        let Some(thread_pointer) = thread_pointer() else {
            count(Counter::TaskUnreadable, 1);
            return 0;
        };
        let slot = thread_pointer.wrapping_add(self.target.task_slot as u64) as *const u64;
        // SAFETY: the helper checks the address and fails on a bad one.
        match unsafe { bpf_probe_read_user(slot) } {
            Ok(id) => id,
            Err(_) => {
                count(Counter::TaskUnreadable, 1);
                0
            }
        }
    }
}

/// The thread pointer of the current thread (`fsbase`, `tpidr_el0`): the base of its thread-local storage.
#[inline(always)]
pub fn thread_pointer() -> Option<u64> {
    let offset = globals::task_thread_pointer();
    if offset == 0 {
        return None;
    }
    // SAFETY: no arguments. The pointer is one of a type that the verifier knows, and the offset a constant to it: it
    // checks that there lies a field of eight bytes, and makes the load a plain one that cannot fault. A helper that
    // copies would take ten times as long.
    Some(unsafe {
        let task = bpf_get_current_task_btf() as u64;
        core::ptr::read_volatile((task + u64::from(offset)) as *const u64)
    })
}
