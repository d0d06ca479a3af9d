//! What the host's programs need of this kernel, and which of them can run.
//!
//! Reads: the kernel's BTF, through [`KernelTypes`]. Yields: [`HostTypes`]. Costs: part of the look at the kernel when the
//! daemon starts; nothing is kept but numbers.

use super::offsets::{KernelTypes, OffsetError, Tracepoint};

/// Told of a tracepoint that a kernel lacks.
const CGROUPS: &str = " (a kernel built with CONFIG_CGROUPS=y has it since Linux 4.18)";

/// The host's programs, each with its tracepoint.
pub const HOST_PROGRAMS: &[(&str, Tracepoint)] = &[
    ("host_exec", Tracepoint { name: "sched_process_exec", arguments: &["*task_struct"], hint: "" }),
    ("host_exit", Tracepoint { name: "sched_process_exit", arguments: &["*task_struct"], hint: "" }),
    ("host_free", Tracepoint { name: "sched_process_free", arguments: &["*task_struct"], hint: "" }),
    (OOM, Tracepoint { name: "mark_victim", arguments: &["*task_struct"], hint: " (Linux 4.15 and later have it)" }),
    ("host_cgroup_mkdir", Tracepoint { name: "cgroup_mkdir", arguments: &["*cgroup", "*"], hint: CGROUPS }),
    ("host_cgroup_rmdir", Tracepoint { name: "cgroup_rmdir", arguments: &["*cgroup", "*"], hint: CGROUPS }),
];

/// The program for victims of the OOM killer.
const OOM: &str = "host_oom";

/// Absent from [`HostTypes::globals`].
const ABSENT: u32 = u32::MAX;

/// How a program should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// Attached to its tracepoint.
    Attach,
    /// Not needed: another one tells the same.
    LeaveOut(String),
    /// It cannot run.
    Missing(String),
}

/// What was found.
#[derive(Clone, Debug)]
pub struct HostTypes {
    /// What becomes of each of [`HOST_PROGRAMS`], in their order.
    pub programs: Vec<Use>,
    /// Values of the object's globals by symbol; see `rustok-obsd-ebpf/src/host/globals.rs`.
    pub globals: Vec<(&'static str, u32)>,
    /// `sched_process_exit` tells which thread is the last one.
    pub exit_tells_group_dead: bool,
    /// `mark_victim` tells the task, not only its pid.
    pub victim_is_task: bool,
}

/// Fields by the global that holds their offset.
type Fields = &'static [(&'static str, &'static str, &'static str)];

const IDENTITY: Fields = &[
    ("TASK_PID", "task_struct", "pid"),
    ("TASK_TGID", "task_struct", "tgid"),
    ("TASK_FLAGS", "task_struct", "flags"),
    ("TASK_REAL_PARENT", "task_struct", "real_parent"),
    ("TASK_GROUP_LEADER", "task_struct", "group_leader"),
    ("TASK_COMM", "task_struct", "comm"),
    ("TASK_START_BOOTTIME", "task_struct", "start_boottime"),
];

const ACCOUNT: Fields = &[
    ("TASK_SIGNAL", "task_struct", "signal"),
    ("TASK_UTIME", "task_struct", "utime"),
    ("TASK_STIME", "task_struct", "stime"),
    ("TASK_RUNTIME", "task_struct", "se.sum_exec_runtime"),
    ("TASK_MIN_FLT", "task_struct", "min_flt"),
    ("TASK_MAJ_FLT", "task_struct", "maj_flt"),
    ("TASK_NVCSW", "task_struct", "nvcsw"),
    ("TASK_NIVCSW", "task_struct", "nivcsw"),
    ("SIGNAL_LIVE", "signal_struct", "live"),
    ("SIGNAL_OOM_MM", "signal_struct", "oom_mm"),
    ("SIGNAL_UTIME", "signal_struct", "utime"),
    ("SIGNAL_STIME", "signal_struct", "stime"),
    ("SIGNAL_RUNTIME", "signal_struct", "sum_sched_runtime"),
    ("SIGNAL_MIN_FLT", "signal_struct", "min_flt"),
    ("SIGNAL_MAJ_FLT", "signal_struct", "maj_flt"),
    ("SIGNAL_NVCSW", "signal_struct", "nvcsw"),
    ("SIGNAL_NIVCSW", "signal_struct", "nivcsw"),
];

/// What a kernel may be built without: CONFIG_TASK_IO_ACCOUNTING; CONFIG_VIRT_CPU_ACCOUNTING_NATIVE has no `prev_cputime`.
const OPTIONAL: Fields = &[
    ("TASK_READ_BYTES", "task_struct", "ioac.read_bytes"),
    ("TASK_WRITE_BYTES", "task_struct", "ioac.write_bytes"),
    ("SIGNAL_READ_BYTES", "signal_struct", "ioac.read_bytes"),
    ("SIGNAL_WRITE_BYTES", "signal_struct", "ioac.write_bytes"),
    ("SIGNAL_TOLD_UTIME", "signal_struct", "prev_cputime.utime"),
    ("SIGNAL_TOLD_STIME", "signal_struct", "prev_cputime.stime"),
];

const MEMBERSHIP: Fields =
    &[("TASK_CGROUPS", "task_struct", "cgroups"), ("CSS_CGROUP", "cgroup_subsys_state", "cgroup")];

const CGROUP: Fields = &[
    ("CGROUP_KN", "cgroup", "kn"),
    ("CGROUP_LEVEL", "cgroup", "level"),
    ("CGROUP_ROOT", "cgroup", "root"),
    ("ROOT_HIERARCHY", "cgroup_root", "hierarchy_id"),
    ("KN_ID", "kernfs_node", "id"),
];

impl HostTypes {
    pub(super) fn of(types: &KernelTypes) -> Self {
        let mut globals = Vec::new();
        let mut required = |fields: Fields| -> Result<(), String> {
            for (global, structure, field) in fields {
                let (offset, _) = types.offset(structure, field).map_err(|error| error.to_string())?;
                globals.push((*global, offset));
            }
            Ok(())
        };
        let identity = required(IDENTITY);
        let account = identity.clone().and_then(|()| required(ACCOUNT));
        let cgroup = required(CGROUP);
        let memory = types.value("cgroup_subsys_id", "memory_cgrp_id");
        // Without memory cgroups a victim has none, and is told all the same.
        let subsys = memory.map(|memory| {
            required(MEMBERSHIP)?;
            let (subsys, _) = types.offset("css_set", "subsys").map_err(|error| error.to_string())?;
            Ok(subsys + memory * (usize::BITS / 8))
        });
        let victim = match &subsys {
            Some(Ok(_)) => identity.clone().and(cgroup.clone()),
            Some(Err(reason)) => Err(String::clone(reason)),
            None => identity.clone(),
        };
        let subsys = subsys.and_then(Result::ok).filter(|_| cgroup.is_ok());
        globals.push(("CSS_SET_MEMORY", subsys.unwrap_or(ABSENT)));
        for (global, structure, field) in OPTIONAL {
            globals.extend(types.offset(structure, field).map(|(offset, _)| (*global, offset)));
        }
        let argument = |tracepoint, at: usize| types.arguments(tracepoint).and_then(|list| list.get(at).cloned());
        let victim_is_task = argument("mark_victim", 0).as_deref() == Some("*task_struct");
        let fields = [identity, account.clone(), account, victim, cgroup.clone(), cgroup];
        let programs = HOST_PROGRAMS.iter().zip(fields).map(|((program, tracepoint), fields)| {
            let checked = fields.and_then(|()| types.check(tracepoint).map_err(|error| error.to_string()));
            match (checked, types.check(tracepoint)) {
                (Ok(()), _) => Use::Attach,
                (_, Err(OffsetError::OtherArguments { .. })) if *program == OOM => Use::LeaveOut(PID_ONLY.into()),
                (Err(reason), _) => Use::Missing(reason),
            }
        });
        let programs = programs.collect();
        let exit_tells_group_dead = argument("sched_process_exit", 1).as_deref() == Some("_Bool");
        Self { programs, globals, exit_tells_group_dead, victim_is_task }
    }
}

const PID_ONLY: &str = "this kernel's mark_victim tells a pid only; host_exit tells a victim when it ends";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::offsets::VMLINUX_BTF;
    use std::path::Path;

    #[test]
    fn every_program_can_run_on_the_running_kernel_and_has_all_its_globals() {
        let Ok(types) = KernelTypes::open(&Path::new("/sys").join(VMLINUX_BTF)) else { return };
        let host = types.host();
        assert_eq!(host.programs.len(), HOST_PROGRAMS.len());
        for (planned, (program, _)) in host.programs.iter().zip(HOST_PROGRAMS) {
            assert!(!matches!(planned, Use::Missing(_)), "{program}: {planned:?}");
        }
        let value = |name: &str| host.globals.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        for (name, structure, field) in [IDENTITY, ACCOUNT, MEMBERSHIP, CGROUP].into_iter().flatten() {
            assert!(value(name).is_some(), "{name} ({structure}.{field})");
        }
        assert_eq!(value("TASK_UTIME").unwrap() + 8, value("TASK_STIME").unwrap());
        assert_eq!(value("TASK_MIN_FLT").unwrap() + 8, value("TASK_MAJ_FLT").unwrap());
    }
}
