//! Constants of this kernel, set by the daemon before loading; see the other object's `globals.rs`.
//!
//! An optional field that the kernel lacks has the offset 0: it is read as 0.

rustok_obsd_ebpf::globals! {
    /// 1 where `sched_process_exit` tells whether the thread was the last one.
    EXIT_TELLS_GROUP_DEAD: u32 = 1, exit_tells_group_dead;
    /// 1 where a victim of the OOM killer is told when it ends, since `mark_victim` tells a pid only.
    OOM_AT_EXIT: u32 = 0, oom_at_exit;
    /// Bytes that wait in the ring before the daemon is woken.
    WAKEUP_BYTES: u64 = 65536, wakeup_bytes;

    /// Offset of `task_struct.pid`.
    TASK_PID: u32 = 0, task_pid;
    /// Offset of `task_struct.tgid`.
    TASK_TGID: u32 = 0, task_tgid;
    /// Offset of `task_struct.flags`.
    TASK_FLAGS: u32 = 0, task_flags;
    /// Offset of `task_struct.real_parent`.
    TASK_REAL_PARENT: u32 = 0, task_real_parent;
    /// Offset of `task_struct.group_leader`.
    TASK_GROUP_LEADER: u32 = 0, task_group_leader;
    /// Offset of `task_struct.comm`.
    TASK_COMM: u32 = 0, task_comm;
    /// Offset of `task_struct.start_boottime`.
    TASK_START_BOOTTIME: u32 = 0, task_start_boottime;
    /// Offset of `task_struct.signal`.
    TASK_SIGNAL: u32 = 0, task_signal;
    /// Offset of `task_struct.utime`.
    TASK_UTIME: u32 = 0, task_utime;
    /// Offset of `task_struct.stime`.
    TASK_STIME: u32 = 0, task_stime;
    /// Offset of `task_struct.se.sum_exec_runtime`.
    TASK_RUNTIME: u32 = 0, task_runtime;
    /// Offset of `task_struct.min_flt`.
    TASK_MIN_FLT: u32 = 0, task_min_flt;
    /// Offset of `task_struct.maj_flt`.
    TASK_MAJ_FLT: u32 = 0, task_maj_flt;
    /// Offset of `task_struct.nvcsw`.
    TASK_NVCSW: u32 = 0, task_nvcsw;
    /// Offset of `task_struct.nivcsw`.
    TASK_NIVCSW: u32 = 0, task_nivcsw;
    /// Offset of `task_struct.ioac.read_bytes`, optional.
    TASK_READ_BYTES: u32 = 0, task_read_bytes;
    /// Offset of `task_struct.ioac.write_bytes`, optional.
    TASK_WRITE_BYTES: u32 = 0, task_write_bytes;
    /// Offset of `task_struct.cgroups`.
    TASK_CGROUPS: u32 = 0, task_cgroups;

    /// Offset of `signal_struct.live`.
    SIGNAL_LIVE: u32 = 0, signal_live;
    /// Offset of `signal_struct.oom_mm`.
    SIGNAL_OOM_MM: u32 = 0, signal_oom_mm;
    /// Offset of `signal_struct.utime`.
    SIGNAL_UTIME: u32 = 0, signal_utime;
    /// Offset of `signal_struct.stime`.
    SIGNAL_STIME: u32 = 0, signal_stime;
    /// Offset of `signal_struct.sum_sched_runtime`.
    SIGNAL_RUNTIME: u32 = 0, signal_runtime;
    /// Offset of `signal_struct.prev_cputime.utime`, optional.
    SIGNAL_TOLD_UTIME: u32 = 0, signal_told_utime;
    /// Offset of `signal_struct.prev_cputime.stime`, optional.
    SIGNAL_TOLD_STIME: u32 = 0, signal_told_stime;
    /// Offset of `signal_struct.min_flt`.
    SIGNAL_MIN_FLT: u32 = 0, signal_min_flt;
    /// Offset of `signal_struct.maj_flt`.
    SIGNAL_MAJ_FLT: u32 = 0, signal_maj_flt;
    /// Offset of `signal_struct.nvcsw`.
    SIGNAL_NVCSW: u32 = 0, signal_nvcsw;
    /// Offset of `signal_struct.nivcsw`.
    SIGNAL_NIVCSW: u32 = 0, signal_nivcsw;
    /// Offset of `signal_struct.ioac.read_bytes`, optional.
    SIGNAL_READ_BYTES: u32 = 0, signal_read_bytes;
    /// Offset of `signal_struct.ioac.write_bytes`, optional.
    SIGNAL_WRITE_BYTES: u32 = 0, signal_write_bytes;

    /// Offset of the memory controller's pointer in `css_set`: `subsys[memory_cgrp_id]`; all bits in a kernel without it.
    CSS_SET_MEMORY: u32 = u32::MAX, css_set_memory;
    /// Offset of `cgroup_subsys_state.cgroup`; it may be 0.
    CSS_CGROUP: u32 = 0, css_cgroup;
    /// Offset of `cgroup.kn`.
    CGROUP_KN: u32 = 0, cgroup_kn;
    /// Offset of `cgroup.level`.
    CGROUP_LEVEL: u32 = 0, cgroup_level;
    /// Offset of `cgroup.root`.
    CGROUP_ROOT: u32 = 0, cgroup_root;
    /// Offset of `cgroup_root.hierarchy_id`.
    ROOT_HIERARCHY: u32 = 0, root_hierarchy;
    /// Offset of `kernfs_node.id`.
    KN_ID: u32 = 0, kn_id;
}

/// The daemon overrides this symbol and so refuses an object of another layout. Its name carries
/// [`rustok_obsd_ebpf::host_event::HOST_ABI`].
#[unsafe(no_mangle)]
static HOST_ABI_1: u32 = rustok_obsd_ebpf::host_event::HOST_ABI;
