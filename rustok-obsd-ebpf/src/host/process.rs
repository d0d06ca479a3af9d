//! Processes that replace their program, end, are gone, or are killed for their memory.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use rustok_obsd_ebpf::host_event::{END_KERNEL_THREAD, HostKind, OomVictim, ProcessEnd, ProcessExec};

use crate::{globals, maps, read::Reader};

/// `PF_KTHREAD`, include/linux/sched.h.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// The current process has just replaced its program: the thread that did is its main thread and only one.
#[inline(always)]
pub fn on_exec(task: u64) {
    let mut reader = Reader::new();
    let parent = reader.word(task, globals::task_real_parent());
    let event = ProcessExec {
        kind: HostKind::Exec as u8,
        pad: [0; 3],
        tgid: reader.int(task, globals::task_tgid()),
        ppid: reader.int(parent, globals::task_tgid()),
        pad2: 0,
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        start_ns: reader.word(task, globals::task_start_boottime()),
        comm: reader.comm(task),
    };
    reader.finish(HostKind::Exec);
    maps::submit(HostKind::Exec, event.as_bytes(), false);
}

/// Whether the current thread is the last one of its process, where the kernel does not tell: `signal->live` was counted
/// down before.
#[inline(always)]
pub fn is_last(task: u64) -> bool {
    let mut reader = Reader::new();
    let signal = reader.word(task, globals::task_signal());
    if reader.int(signal, globals::signal_live()) != 0 {
        return false;
    }
    let leader = reader.word(task, globals::task_group_leader());
    let start = reader.word(leader, globals::task_start_boottime());
    maps::first_end(reader.int(task, globals::task_tgid()), start)
}

/// The last thread of a process ends. What it used itself is not in the process's sums yet, nor what the main thread
/// used, if it ended earlier: that one stays as a zombie. Other threads may still be on their way into the sums.
#[inline(always)]
pub fn on_exit(task: u64) {
    let mut reader = Reader::new();
    let leader = reader.word(task, globals::task_group_leader());
    let parent = reader.word(leader, globals::task_real_parent());
    let signal = reader.word(task, globals::task_signal());
    let mut event = sums(&mut reader, HostKind::Exit, leader, signal);
    event.ppid = reader.int(parent, globals::task_tgid());
    add_thread(&mut reader, &mut event, task);
    if leader != task {
        add_thread(&mut reader, &mut event, leader);
    }
    let victim = globals::oom_at_exit() != 0 && reader.word(signal, globals::signal_oom_mm()) != 0;
    reader.finish(HostKind::Exit);
    maps::submit(HostKind::Exit, event.as_bytes(), false);
    if victim {
        on_victim(task);
    }
}

/// Nobody can find the task any more. The main thread goes last, and then the sums are complete.
#[inline(always)]
pub fn on_free(task: u64) {
    let mut reader = Reader::new();
    if reader.int(task, globals::task_pid()) != reader.int(task, globals::task_tgid()) {
        return reader.finish(HostKind::Freed);
    }
    let signal = reader.word(task, globals::task_signal());
    let event = sums(&mut reader, HostKind::Freed, task, signal);
    reader.finish(HostKind::Freed);
    maps::submit(HostKind::Freed, event.as_bytes(), false);
}

/// What is in the sums of a process.
#[inline(always)]
fn sums(reader: &mut Reader, kind: HostKind, leader: u64, signal: u64) -> ProcessEnd {
    let kernel_thread = reader.int(leader, globals::task_flags()) & KERNEL_THREAD != 0;
    let [user_ns, system_ns] = reader.pair(signal, globals::signal_utime(), globals::signal_stime());
    let [told_user_ns, told_system_ns] =
        reader.optional_pair(signal, globals::signal_told_utime(), globals::signal_told_stime());
    let [minor_faults, major_faults] = reader.pair(signal, globals::signal_min_flt(), globals::signal_maj_flt());
    let [voluntary_switches, involuntary_switches] =
        reader.pair(signal, globals::signal_nvcsw(), globals::signal_nivcsw());
    let [read_bytes, write_bytes] =
        reader.optional_pair(signal, globals::signal_read_bytes(), globals::signal_write_bytes());
    ProcessEnd {
        kind: kind as u8,
        flags: if kernel_thread { END_KERNEL_THREAD } else { 0 },
        pad: [0; 2],
        tgid: reader.int(leader, globals::task_tgid()),
        ppid: 0,
        pad2: 0,
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        start_ns: reader.word(leader, globals::task_start_boottime()),
        user_ns,
        system_ns,
        runtime_ns: reader.word(signal, globals::signal_runtime()),
        told_user_ns,
        told_system_ns,
        minor_faults,
        major_faults,
        voluntary_switches,
        involuntary_switches,
        read_bytes,
        write_bytes,
        comm: reader.comm(leader),
    }
}

/// Adds what a thread used.
#[inline(always)]
fn add_thread(reader: &mut Reader, event: &mut ProcessEnd, task: u64) {
    let [user_ns, system_ns] = reader.pair(task, globals::task_utime(), globals::task_stime());
    let [minor_faults, major_faults] = reader.pair(task, globals::task_min_flt(), globals::task_maj_flt());
    let [voluntary, involuntary] = reader.pair(task, globals::task_nvcsw(), globals::task_nivcsw());
    let [read_bytes, write_bytes] = reader.optional_pair(task, globals::task_read_bytes(), globals::task_write_bytes());
    event.user_ns += user_ns;
    event.system_ns += system_ns;
    event.runtime_ns += reader.word(task, globals::task_runtime());
    event.minor_faults += minor_faults;
    event.major_faults += major_faults;
    event.voluntary_switches += voluntary;
    event.involuntary_switches += involuntary;
    event.read_bytes += read_bytes;
    event.write_bytes += write_bytes;
}

/// A process was chosen by the OOM killer.
#[inline(always)]
pub fn on_victim(task: u64) {
    let mut reader = Reader::new();
    let leader = reader.word(task, globals::task_group_leader());
    let mut cgroup = 0;
    if globals::css_set_memory() != u32::MAX {
        let set = reader.word(task, globals::task_cgroups());
        let css = reader.word(set, globals::css_set_memory());
        let directory = reader.word(css, globals::css_cgroup());
        cgroup = reader.cgroup_id(directory);
    }
    let event = OomVictim {
        kind: HostKind::Oom as u8,
        pad: [0; 3],
        tgid: reader.int(task, globals::task_tgid()),
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        cgroup,
        comm: reader.comm(leader),
    };
    reader.finish(HostKind::Oom);
    maps::submit(HostKind::Oom, event.as_bytes(), true);
}
