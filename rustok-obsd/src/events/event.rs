//! Events, decoded.
//!
//! Reads: bytes of one ring entry, laid out by `rustok-obsd-ebpf/src/host_event.rs`. Yields: [`Event`], with a cgroup's
//! path borrowed. Costs: a copy of the record.

use rustok_obsd_ebpf::host_event::{CgroupEvent, END_KERNEL_THREAD, HostKind, OomVictim, ProcessEnd, ProcessExec};

use crate::contract::host_events::EventKind;

/// Takes events. Called by one thread at a time, but by several in turn: the events' own, and those that scrape. It must
/// be quick, and must not ask for the events itself.
pub trait Subscriber: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A process replaced its program.
    Exec(Exec),
    /// The last thread of a process ends; it can still be seen in `/proc`. It comes exactly once. The totals are a lower
    /// bound: what it used since the clock's last tick, or uses from now on, and what its threads used that end at the
    /// same time, is in those of [`Event::Freed`] only. Of a process that lives for a millisecond that is most of it.
    Exit {
        /// Which.
        process: ProcessId,
        /// Its parent.
        parent: u32,
        /// What it used.
        totals: Totals,
        /// Its name.
        comm: [u8; 16],
        /// A thread of the kernel.
        kernel_thread: bool,
    },
    /// A process has been reaped, at least one RCU grace period ago: it is in `/proc` no more, and the totals are final,
    /// those that `wait4` told its parent. Comes at most once, and may not come at all (one in a thousand on Linux 6.18,
    /// which frees some tasks without telling): who waits for it must forget after a while.
    Freed {
        /// Which.
        process: ProcessId,
        /// What it used.
        totals: Totals,
        /// Its name.
        comm: [u8; 16],
        /// A thread of the kernel.
        kernel_thread: bool,
    },
    /// The kernel chose a process to be killed since memory ran out.
    Oom(OomKill),
    /// A cgroup's directory was made.
    CgroupMade {
        /// Inode of the directory.
        cgroup: u64,
        /// Number of the hierarchy, as in `/proc/PID/cgroup`; 0 is cgroup v2.
        hierarchy: u32,
        /// Directories above it, up to the hierarchy's root.
        level: u32,
        /// Path from the hierarchy's root, where it has less than 199 bytes.
        path: Option<&'a [u8]>,
    },
    /// A cgroup's directory was removed.
    CgroupRemoved {
        /// Inode of the directory.
        cgroup: u64,
        /// Number of the hierarchy.
        hierarchy: u32,
        /// Directories above it.
        level: u32,
        /// Path from the hierarchy's root.
        path: Option<&'a [u8]>,
    },
}

/// Names a process for good: its pid comes again, but not in the same tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Pid, in the initial pid namespace.
    pub pid: u32,
    /// When it was forked, ns since boot.
    pub start_ns: u64,
}

impl ProcessId {
    /// `starttime` of `/proc/PID/stat`, as a reader in the initial time namespace sees it; `ticks` is
    /// `sysconf(_SC_CLK_TCK)`.
    #[must_use]
    pub const fn start_ticks(&self, ticks: u64) -> u64 {
        match 1_000_000_000u64.checked_div(ticks) {
            Some(tick_ns) if tick_ns > 0 => self.start_ns / tick_ns,
            _ => 0,
        }
    }
}

/// A process replaced its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Which.
    pub process: ProcessId,
    /// Its parent.
    pub parent: u32,
    /// Its new name, up to the first zero.
    pub comm: [u8; 16],
}

/// A victim of the OOM killer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomKill {
    /// Pid, in the initial pid namespace.
    pub pid: u32,
    /// Inode of its memory cgroup's directory, which may be gone; `None` where the kernel has no memory cgroups.
    pub cgroup: Option<u64>,
    /// Its name.
    pub comm: [u8; 16],
}

/// What all threads of a process used together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Time on CPUs as the clock's ticks found it.
    pub ticks: CpuTime,
    /// Time on CPUs, exact.
    pub runtime_ns: u64,
    /// What the kernel last told of it.
    pub told: CpuTime,
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
}

/// Time on CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
}

impl Totals {
    /// User and system time as `/proc/PID/stat` and `wait4` tell them: the exact time, divided as the ticks are, and
    /// never less than what was told before (kernel/sched/cputime.c, `cputime_adjust`). It continues what was read from
    /// `/proc` without a step back.
    #[must_use]
    pub fn cpu(&self) -> CpuTime {
        let Self { ticks, told, runtime_ns, .. } = *self;
        if told.user_ns.saturating_add(told.system_ns) >= runtime_ns {
            return told;
        }
        // Without ticks in one of the modes, all of the time counts as the other one's; without any, as the user's.
        let all = u128::from(ticks.user_ns) + u128::from(ticks.system_ns);
        let share = (u128::from(ticks.system_ns) * u128::from(runtime_ns)).checked_div(all).unwrap_or(0);
        let system_ns = u64::try_from(share).unwrap_or(runtime_ns).max(told.system_ns).min(runtime_ns);
        let user_ns = (runtime_ns - system_ns).max(told.user_ns);
        CpuTime { user_ns, system_ns: runtime_ns.saturating_sub(user_ns) }
    }
}

impl<'a> Event<'a> {
    /// Decodes a ring entry; `None` where it is too short or of an unknown kind.
    #[must_use]
    pub fn decode(entry: &'a [u8]) -> Option<Self> {
        let is = |kind: HostKind| entry.first() == Some(&(kind as u8));
        if is(HostKind::Exec) {
            let (record, _) = ProcessExec::read(entry)?;
            let process = ProcessId { pid: record.tgid, start_ns: record.start_ns };
            Some(Self::Exec(Exec { process, parent: record.ppid, comm: record.comm }))
        } else if is(HostKind::Exit) {
            let record = ProcessEnd::read(entry)?.0;
            let (process, totals, kernel_thread) = end(&record);
            Some(Self::Exit { process, parent: record.ppid, totals, comm: record.comm, kernel_thread })
        } else if is(HostKind::Freed) {
            let record = ProcessEnd::read(entry)?.0;
            let (process, totals, kernel_thread) = end(&record);
            Some(Self::Freed { process, totals, comm: record.comm, kernel_thread })
        } else if is(HostKind::Oom) {
            let (record, _) = OomVictim::read(entry)?;
            let cgroup = Some(record.cgroup).filter(|cgroup| *cgroup != 0);
            Some(Self::Oom(OomKill { pid: record.tgid, cgroup, comm: record.comm }))
        } else if is(HostKind::CgroupMade) {
            let (CgroupEvent { cgroup, hierarchy, level, path_len, .. }, _) = CgroupEvent::read(entry)?;
            Some(Self::CgroupMade { cgroup, hierarchy, level, path: path(entry, path_len) })
        } else if is(HostKind::CgroupRemoved) {
            let (CgroupEvent { cgroup, hierarchy, level, path_len, .. }, _) = CgroupEvent::read(entry)?;
            Some(Self::CgroupRemoved { cgroup, hierarchy, level, path: path(entry, path_len) })
        } else {
            None
        }
    }

    /// The label value.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Exec(_) => EventKind::Exec,
            Self::Exit { .. } => EventKind::Exit,
            Self::Freed { .. } => EventKind::Freed,
            Self::Oom(_) => EventKind::Oom,
            Self::CgroupMade { .. } => EventKind::CgroupMade,
            Self::CgroupRemoved { .. } => EventKind::CgroupRemoved,
        }
    }
}

fn end(record: &ProcessEnd) -> (ProcessId, Totals, bool) {
    let totals = Totals {
        ticks: CpuTime { user_ns: record.user_ns, system_ns: record.system_ns },
        runtime_ns: record.runtime_ns,
        told: CpuTime { user_ns: record.told_user_ns, system_ns: record.told_system_ns },
        minor_faults: record.minor_faults,
        major_faults: record.major_faults,
        voluntary_switches: record.voluntary_switches,
        involuntary_switches: record.involuntary_switches,
        read_bytes: record.read_bytes,
        write_bytes: record.write_bytes,
    };
    let process = ProcessId { pid: record.tgid, start_ns: record.start_ns };
    (process, totals, record.flags & END_KERNEL_THREAD != 0)
}

fn path(entry: &[u8], len: u16) -> Option<&[u8]> {
    let path = entry.get(std::mem::offset_of!(CgroupEvent, path)..)?.get(..usize::from(len))?;
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustok_obsd_ebpf::host_event::CGROUP_PATH;

    fn totals(user_ns: u64, system_ns: u64, runtime_ns: u64, told: (u64, u64)) -> CpuTime {
        let told = CpuTime { user_ns: told.0, system_ns: told.1 };
        Totals { ticks: CpuTime { user_ns, system_ns }, runtime_ns, told, ..Totals::default() }.cpu()
    }

    #[test]
    fn exact_time_is_divided_as_the_ticks_are_and_never_falls_below_what_was_told() {
        let cpu = |user_ns, system_ns| CpuTime { user_ns, system_ns };
        assert_eq!(totals(0, 0, 700, (0, 0)), cpu(700, 0));
        assert_eq!(totals(4, 0, 700, (0, 0)), cpu(700, 0));
        assert_eq!(totals(0, 4, 700, (0, 0)), cpu(0, 700));
        assert_eq!(totals(4, 12, 800, (0, 0)), cpu(200, 600));
        assert_eq!(totals(4, 12, 800, (0, 700)), cpu(100, 700));
        assert_eq!(totals(4, 12, 800, (300, 100)), cpu(300, 500));
        assert_eq!(totals(4, 12, 800, (500, 400)), cpu(500, 400));
        assert_eq!(totals(u64::MAX, u64::MAX, u64::MAX, (0, 0)), cpu(u64::MAX / 2 + 1, u64::MAX / 2));
    }

    #[test]
    fn entries_cut_anywhere_and_unknown_kinds_are_no_events_and_never_a_panic() {
        let mut record = CgroupEvent {
            kind: HostKind::CgroupMade as u8,
            pad: 0,
            path_len: 4,
            hierarchy: 4,
            level: 2,
            pad2: 0,
            time_ns: 1,
            cgroup: 77,
            path: [0; CGROUP_PATH],
        };
        record.path[..4].copy_from_slice(b"/a/b");
        let made = |path| Some(Event::CgroupMade { cgroup: 77, hierarchy: 4, level: 2, path });
        assert_eq!(Event::decode(record.as_bytes()), made(Some(&b"/a/b"[..])));
        record.path_len = 0;
        assert_eq!(Event::decode(record.as_bytes()), made(None));
        record.path_len = u16::MAX;
        assert_eq!(Event::decode(record.as_bytes()), made(None));
        for kind in 0..=u8::MAX {
            record.kind = kind;
            for len in 0..size_of::<OomVictim>() {
                assert_eq!(Event::decode(&record.as_bytes()[..len]), None, "{kind} {len}");
            }
            assert_eq!(Event::decode(record.as_bytes()).is_some(), (1..=6).contains(&kind), "{kind}");
        }
    }
}
