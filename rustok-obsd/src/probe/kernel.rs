//! What this kernel allows: version, type information, tracepoints, capabilities.
//!
//! Reads: `uname`, `/proc/self/status`, and below sysfs the BTF and the lockdown mode. Yields: [`Kernel`], on which the
//! backend is chosen and of which `doctor` tells. Costs: some 10 ms, once.

use std::{fs, path::Path};

use super::{
    host_types::HostTypes,
    offsets::{KernelTypes, Offsets, TRACEPOINTS, VMLINUX_BTF},
};

/// A capability that the daemon needs, and for what (`include/uapi/linux/capability.h`).
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    /// Number of its bit.
    pub bit: u32,
    /// Name.
    pub name: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
    /// What does not work without it.
    pub need: Need,
}

/// What a capability is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Any program at all.
    Programs,
    /// Processes of other users.
    OtherUsers,
    /// Uprobes by perf events, on kernels patched against CVE-2025-38466: since July 2025 `perf_event_open` refuses them to
    /// CAP_PERFMON alone (Linux 5.10.240, 5.15.189, 6.1.146). From Linux 6.6 on uprobes are links for many places, which
    /// do without ([`super::uprobe::UprobePrograms::wants_admin`]).
    Uprobes,
}

/// What the daemon needs of capabilities. `CAP_SYS_ADMIN` stands for the first two.
pub const CAPABILITIES: &[Capability] = &[
    Capability { bit: 39, name: "CAP_BPF", purpose: "load the kernel programs and their maps", need: Need::Programs },
    Capability { bit: 38, name: "CAP_PERFMON", purpose: "attach tracepoints and uprobes", need: Need::Programs },
    Capability {
        bit: 19,
        name: "CAP_SYS_PTRACE",
        purpose: "read the binaries and route tables of other users' processes",
        need: Need::OtherUsers,
    },
    Capability {
        bit: 2,
        name: "CAP_DAC_READ_SEARCH",
        purpose: "read /proc of other users' processes",
        need: Need::OtherUsers,
    },
    Capability {
        bit: CAP_SYS_ADMIN,
        name: "CAP_SYS_ADMIN",
        purpose: "attach uprobes, hence to know exact routes, on kernels before 6.6 that were patched since July 2025",
        need: Need::Uprobes,
    },
];

const CAP_SYS_ADMIN: u32 = 21;

/// What was found.
#[derive(Debug)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Offsets, or why there are none.
    pub offsets: Result<Offsets, String>,
    /// Each raw tracepoint of the sock backend, and why it cannot be used.
    pub tracepoints: Vec<(&'static str, Result<(), String>)>,
    /// What the host's programs need, or why nothing is known.
    pub host: Result<HostTypes, String>,
    /// Capabilities that are missing.
    pub missing: Vec<Capability>,
    /// `none`, `integrity` or `confidentiality`, where the kernel tells.
    pub lockdown: Option<String>,
    /// The process runs in the initial pid namespace, so that the kernel's pids are its own.
    pub host_pids: bool,
}

impl Kernel {
    /// Looks.
    #[must_use]
    pub fn inspect() -> Self {
        Self::inspect_below(Path::new("/sys"))
    }

    /// The same with sysfs mounted elsewhere.
    #[must_use]
    pub fn inspect_below(sysfs: &Path) -> Self {
        let (offsets, tracepoints, host) = match KernelTypes::open(&sysfs.join(VMLINUX_BTF)) {
            Ok(types) => (
                types.offsets().map_err(|error| error.to_string()),
                TRACEPOINTS
                    .iter()
                    .map(|tracepoint| (tracepoint.name, types.check(tracepoint).map_err(|error| error.to_string())))
                    .collect(),
                Ok(types.host()),
            ),
            Err(error) => {
                let reason = error.to_string();
                let tracepoints = TRACEPOINTS.iter().map(|tracepoint| (tracepoint.name, Err(reason.clone()))).collect();
                (Err(reason.clone()), tracepoints, Err(reason))
            }
        };
        Self {
            release: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into(),
            offsets,
            tracepoints,
            host,
            missing: missing(&fs::read_to_string("/proc/self/status").unwrap_or_default()),
            lockdown: fs::read_to_string(sysfs.join("kernel/security/lockdown")).ok().and_then(|text| selected(&text)),
            // PROC_PID_INIT_INO, include/linux/proc_ns.h.
            host_pids: fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]"),
        }
    }

    /// The missing capabilities that something needs.
    #[must_use]
    pub fn lacks(&self, need: Need) -> Option<String> {
        let lacks: Vec<_> = self.missing.iter().filter(|capability| capability.need == need).collect();
        let list: Vec<_> = lacks.iter().map(|lack| format!("{} (to {})", lack.name, lack.purpose)).collect();
        (!list.is_empty()).then(|| {
            format!(
                "missing {}; run as root or grant them, for example by AmbientCapabilities= in the systemd unit",
                list.join(", ")
            )
        })
    }

    /// Why the programs for targets cannot be used at all, if so.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.forbids().or_else(|| self.offsets.as_ref().err().cloned())
    }

    /// Why no program can be used at all, if so, whatever it reads.
    #[must_use]
    pub fn forbids(&self) -> Option<String> {
        if let Some(reason) = self.lacks(Need::Programs) {
            return Some(reason);
        }
        if self.lockdown.as_deref() == Some("confidentiality") {
            return Some(
                "kernel lockdown is in confidentiality mode, which forbids BPF programs to read memory; boot with lockdown=integrity or none"
                    .into(),
            );
        }
        None
    }
}

/// Capabilities that `/proc/self/status` lacks; all of them where it tells nothing.
fn missing(status: &str) -> Vec<Capability> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    CAPABILITIES
        .iter()
        .copied()
        .filter(|capability| !(has(capability.bit) || capability.bit >= 38 && has(CAP_SYS_ADMIN)))
        .collect()
}

/// The word in brackets of `none [integrity] confidentiality`.
fn selected(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_told_by_name_and_sys_admin_stands_for_the_newer_ones() {
        let names = |status: &str| missing(status).iter().map(|capability| capability.name).collect::<Vec<_>>();
        assert_eq!(names("CapEff:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(names("CapEff:\t0000000000280004\n"), Vec::<&str>::new());
        assert_eq!(names("CapEff:\t0000000000000000\n").len(), CAPABILITIES.len());
        assert_eq!(names("CapEff:\t000000c000000004\n"), ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]);
    }

    #[test]
    fn a_kernel_without_btf_is_refused_with_the_reason_and_every_tracepoint_tells_it() {
        let kernel = Kernel::inspect_below(Path::new("/nonexistent"));
        assert!(kernel.offsets.as_ref().unwrap_err().contains("CONFIG_DEBUG_INFO_BTF"));
        assert!(kernel.tracepoints.iter().all(|(_, result)| result.is_err()));
        assert!(kernel.refusal().is_some());
    }

    #[test]
    fn the_selected_lockdown_mode_is_the_one_in_brackets() {
        assert_eq!(selected("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(selected("nothing"), None);
    }
}
