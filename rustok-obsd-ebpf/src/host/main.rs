//! Kernel programs of the whole host: processes, victims of the OOM killer, cgroups.
//!
//! Reads: what the kernel's tracepoints hand over. Yields: the records of `host_event.rs`, in a ring buffer of their own.
//! Costs: two to four microseconds for a process's whole life from exec to the end (`tests/host_events` measures it), and
//! some 100 ns for each further thread; nothing between.
//!
//! Raw tracepoints and helpers of Linux 5.8, no loops: what the verifier of 5.10 takes.
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the program macros emit entry points without the docs above them")]
#![allow(
    clippy::needless_borrows_for_generic_args,
    clippy::needless_pass_by_value,
    reason = "entry points get their context by value, which is a pointer; a key or value by value is one more copy on the \
              stack"
)]

mod cgroup;
mod globals;
mod maps;
mod process;
mod read;

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn host_exec(ctx: RawTracePointContext) -> i32 {
    process::on_exec(ctx.arg(0));
    0
}

/// `sched_process_exit(struct task_struct *p, bool group_dead)`; the second one since Linux 6.16.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn host_exit(ctx: RawTracePointContext) -> i32 {
    if globals::exit_tells_group_dead() != 0 {
        if ctx.arg::<u64>(1) as u8 != 0 {
            process::on_exit(ctx.arg(0));
        }
    } else if process::is_last(ctx.arg(0)) {
        process::on_exit(ctx.arg(0));
    }
    0
}

/// `sched_process_free(struct task_struct *p)`: nobody can find the task any more.
#[raw_tracepoint(tracepoint = "sched_process_free")]
pub fn host_free(ctx: RawTracePointContext) -> i32 {
    process::on_free(ctx.arg(0));
    0
}

/// `mark_victim(struct task_struct *task, uid_t uid)`, Linux 6.9 and stable kernels that took it over. The older one
/// takes a pid only; the daemon leaves this program out then, and [`host_exit`] tells.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn host_oom(ctx: RawTracePointContext) -> i32 {
    process::on_victim(ctx.arg(0));
    0
}

/// `cgroup_mkdir(struct cgroup *cgrp, const char *path)`.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn host_cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    cgroup::tell(rustok_obsd_ebpf::host_event::HostKind::CgroupMade, ctx.arg(0), ctx.arg(1));
    0
}

/// `cgroup_rmdir(struct cgroup *cgrp, const char *path)`.
#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn host_cgroup_rmdir(ctx: RawTracePointContext) -> i32 {
    cgroup::tell(rustok_obsd_ebpf::host_event::HostKind::CgroupRemoved, ctx.arg(0), ctx.arg(1));
    0
}

/// The helper `bpf_probe_read_kernel` is for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Makes the verifier reject a program in which a panic can be reached.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
