//! Records of the host's object: processes that begin and end, victims of the OOM killer, cgroups.
//!
//! Reads: nothing. Yields: plain structs as in the crate's root; the first byte is a [`HostKind`]. Costs: nothing at run
//! time.
//!
//! The end of a process is told twice. [`HostKind::Exit`] comes while it can still be seen in `/proc`, with what it had
//! used by then. [`HostKind::Freed`] comes after it has been reaped, with the kernel's final sums: its time since the
//! clock's last tick, the time to tear down its memory, and its other threads' are in these only. Of a process that lives
//! for a millisecond that is most of it. A kernel may free a task without telling (one in a thousand was seen on 6.18).

/// Counts layout changes; the daemon refuses an object that was built with another one.
pub const HOST_ABI: u32 = 1;

/// What a record is; its first byte.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// [`ProcessExec`].
    Exec = 1,
    /// [`ProcessEnd`]: the last thread of a process ends.
    Exit = 2,
    /// [`ProcessEnd`]: the process has been reaped, and its sums are final.
    Freed = 3,
    /// [`OomVictim`].
    Oom = 4,
    /// [`CgroupEvent`]: a directory was made.
    CgroupMade = 5,
    /// [`CgroupEvent`]: a directory was removed.
    CgroupRemoved = 6,
}

/// Number of [`HostKind`]s.
pub const HOST_KINDS: u32 = 6;

/// The programs count per kind: lost records at `kind - 1`, records with a field that could not be read at
/// `HOST_KINDS + kind - 1`.
pub const HOST_COUNTERS: u32 = 2 * HOST_KINDS;

/// Bytes of a task's name (`TASK_COMM_LEN`).
pub const COMM: usize = 16;

/// Bytes of a cgroup's path with its end.
pub const CGROUP_PATH: usize = 200;

/// [`ProcessEnd`]: a thread of the kernel.
pub const END_KERNEL_THREAD: u8 = 1;

/// A process replaced its program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessExec {
    /// [`HostKind::Exec`].
    pub kind: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Process (thread group), in the initial pid namespace.
    pub tgid: u32,
    /// Its parent.
    pub ppid: u32,
    /// Zero.
    pub pad2: u32,
    /// When (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// When the process was forked, since boot: with `tgid` it names a process for good.
    pub start_ns: u64,
    /// The new name.
    pub comm: [u8; COMM],
}

/// A process ended: what all of its threads used. The fields are the kernel's own, see `__exit_signal` and
/// `thread_group_cputime_adjusted`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEnd {
    /// [`HostKind::Exit`] or [`HostKind::Freed`].
    pub kind: u8,
    /// [`END_KERNEL_THREAD`].
    pub flags: u8,
    /// Zero.
    pub pad: [u8; 2],
    /// Process (thread group), in the initial pid namespace.
    pub tgid: u32,
    /// Its parent; 0 in [`HostKind::Freed`].
    pub ppid: u32,
    /// Zero.
    pub pad2: u32,
    /// When (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// When the process was forked, since boot.
    pub start_ns: u64,
    /// Time in user mode, as the clock's ticks found it.
    pub user_ns: u64,
    /// Time in the kernel, as the clock's ticks found it.
    pub system_ns: u64,
    /// Time on a CPU, exact.
    pub runtime_ns: u64,
    /// Time in user mode that the kernel told last (`/proc/PID/stat`, `wait4`).
    pub told_user_ns: u64,
    /// Time in the kernel that the kernel told last.
    pub told_system_ns: u64,
    /// Page faults without a read.
    pub minor_faults: u64,
    /// Page faults with a read.
    pub major_faults: u64,
    /// Switches since it waited.
    pub voluntary_switches: u64,
    /// Switches since its time was over.
    pub involuntary_switches: u64,
    /// Bytes fetched from storage.
    pub read_bytes: u64,
    /// Bytes sent to storage.
    pub write_bytes: u64,
    /// Name of its main thread.
    pub comm: [u8; COMM],
}

/// The kernel chose a process to be killed, since memory ran out.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomVictim {
    /// [`HostKind::Oom`].
    pub kind: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Process (thread group), in the initial pid namespace.
    pub tgid: u32,
    /// When (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// Inode of its memory cgroup's directory; 0 where the kernel has none.
    pub cgroup: u64,
    /// Name of its main thread.
    pub comm: [u8; COMM],
}

/// A cgroup's directory was made or removed, in any hierarchy.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupEvent {
    /// [`HostKind::CgroupMade`] or [`HostKind::CgroupRemoved`].
    pub kind: u8,
    /// Zero.
    pub pad: u8,
    /// Bytes of `path`; 0 where it is too long.
    pub path_len: u16,
    /// Number of its hierarchy, as in `/proc/PID/cgroup`.
    pub hierarchy: u32,
    /// Directories above it.
    pub level: u32,
    /// Zero.
    pub pad2: u32,
    /// When (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// Inode of its directory.
    pub cgroup: u64,
    /// Path from its hierarchy's root.
    pub path: [u8; CGROUP_PATH],
}

impl_record! {
    ProcessExec: 48,
    ProcessEnd: 136,
    OomVictim: 40,
    CgroupEvent: 232,
}
