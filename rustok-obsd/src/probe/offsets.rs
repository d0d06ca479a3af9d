//! Offsets of kernel structures, and the arguments of raw tracepoints, from the kernel's own BTF.
//!
//! Reads: `/sys/kernel/btf/vmlinux` . Yields: [`Offsets`], which the loader passes to the programs as
//! globals, since Rust has no CO-RE relocations. Costs: some 10 ms once at start; nothing is kept.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{
    btf::{Btf, Kind, Type},
    host_types::HostTypes,
};

/// Where the kernel shows its BTF, below sysfs.
pub const VMLINUX_BTF: &str = "kernel/btf/vmlinux";

/// Why a kernel structure is not known.
#[derive(Debug, Error)]
pub enum OffsetError {
    /// No BTF.
    #[error(
        "{path}: {source}; the kernel programs need the kernel's type information: use a kernel built with CONFIG_DEBUG_INFO_BTF=y and mount sysfs"
    )]
    NoBtf {
        /// The file.
        path: PathBuf,
        /// Why it could not be read.
        source: std::io::Error,
    },
    /// The kernel lacks a structure or a field.
    #[error("this kernel's BTF has no {structure}.{field}; please report the kernel's version")]
    Missing {
        /// Structure.
        structure: &'static str,
        /// Field, dots for nested ones.
        field: &'static str,
    },
    /// The kernel lacks a tracepoint.
    #[error("this kernel has no tracepoint {name}{hint}")]
    NoTracepoint {
        /// Tracepoint.
        name: &'static str,
        /// Since when there is one.
        hint: &'static str,
    },
    /// A tracepoint has other arguments than the program expects.
    #[error(
        "tracepoint {name} of this kernel has the arguments ({found}), the program expects ({expected}); please report the kernel's version"
    )]
    OtherArguments {
        /// Tracepoint.
        name: &'static str,
        /// What the program expects.
        expected: String,
        /// What the kernel has.
        found: String,
    },
}

/// Byte offsets that the programs read at; see `rustok-obsd-ebpf/src/globals.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the fields' own")]
pub struct Offsets {
    pub sk_protocol: u32,
    pub sk_protocol_bits: u32,
    pub sk_err: u32,
    pub skc_state: u32,
    pub skc_daddr: u32,
    pub skc_rcv_saddr: u32,
    pub skc_v6_daddr: u32,
    pub skc_v6_rcv_saddr: u32,
    pub skc_dport: u32,
    pub skc_num: u32,
    pub skc_family: u32,
    pub skc_net: u32,
    pub net_inum: u32,
    pub task_tgid: u32,
    pub task_thread_pointer: u32,
}

/// A raw tracepoint that a program attaches to.
#[derive(Clone, Copy, Debug)]
pub struct Tracepoint {
    /// Its name, which is also the program's.
    pub name: &'static str,
    /// The arguments that the program uses: `*` and the structure for a pointer, else the integer's name class.
    pub(super) arguments: &'static [&'static str],
    /// Told when it is missing.
    pub(super) hint: &'static str,
}

/// The raw tracepoints of the sock backend.
pub const TRACEPOINTS: &[Tracepoint] = &[
    Tracepoint {
        name: "sock_send_length",
        arguments: &["*sock", "int", "int"],
        hint: " (Linux 6.3 and later have it; on older kernels the kprobe backend will serve)",
    },
    Tracepoint {
        name: "sock_recv_length",
        arguments: &["*sock", "int", "int"],
        hint: " (Linux 6.3 and later have it; on older kernels the kprobe backend will serve)",
    },
    Tracepoint { name: "sk_data_ready", arguments: &["*sock"], hint: " (Linux 6.3 and later have it)" },
    Tracepoint {
        name: "inet_sock_set_state",
        arguments: &["*sock", "int", "int"],
        hint: " (Linux 4.16 and later have it)",
    },
    Tracepoint { name: "tcp_destroy_sock", arguments: &["*sock"], hint: " (Linux 4.16 and later have it)" },
    Tracepoint { name: "sched_process_exec", arguments: &["*task_struct"], hint: "" },
    Tracepoint { name: "sched_process_exit", arguments: &["*task_struct"], hint: "" },
    Tracepoint { name: "sched_process_fork", arguments: &["*task_struct", "*task_struct"], hint: "" },
];

/// The kernel's type information.
pub struct KernelTypes {
    btf: Btf,
}

impl KernelTypes {
    /// Reads the BTF of the running kernel.
    ///
    /// # Errors
    /// There is none, or it cannot be parsed.
    pub fn open(path: &Path) -> Result<Self, OffsetError> {
        let btf = Btf::read(path).map_err(|source| OffsetError::NoBtf { path: path.into(), source })?;
        Ok(Self { btf })
    }

    /// All offsets that the programs need.
    ///
    /// # Errors
    /// A structure or field is missing. What a kernel may lack by configuration (IPv6, namespaces) is 0 instead.
    pub fn offsets(&self) -> Result<Offsets, OffsetError> {
        let common = |field| self.offset("sock_common", field).map(|(offset, _)| offset);
        let (sk_protocol, sk_protocol_bits) = self.offset("sock", "sk_protocol")?;
        let thread_pointer = if cfg!(target_arch = "aarch64") { "thread.uw.tp_value" } else { "thread.fsbase" };
        Ok(Offsets {
            sk_protocol,
            sk_protocol_bits,
            sk_err: self.offset("sock", "sk_err")?.0,
            skc_state: common("skc_state")?,
            skc_daddr: common("skc_daddr")?,
            skc_rcv_saddr: common("skc_rcv_saddr")?,
            skc_v6_daddr: common("skc_v6_daddr").unwrap_or(0),
            skc_v6_rcv_saddr: common("skc_v6_rcv_saddr").unwrap_or(0),
            skc_dport: common("skc_dport")?,
            skc_num: common("skc_num")?,
            skc_family: common("skc_family")?,
            skc_net: common("skc_net.net").unwrap_or(0),
            net_inum: self.offset("net", "ns.inum").map_or(0, |(offset, _)| offset),
            task_tgid: self.offset("task_struct", "tgid")?.0,
            task_thread_pointer: self.offset("task_struct", thread_pointer).map_or(0, |(offset, _)| offset),
        })
    }

    /// What the host's programs need, and which of them can run.
    #[must_use]
    pub fn host(&self) -> HostTypes {
        HostTypes::of(self)
    }

    /// Value of an enumeration's name.
    pub(super) fn value(&self, enumeration: &str, name: &str) -> Option<u32> {
        let found = self.btf.find(Kind::Enum, enumeration)?;
        found.values().find(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value)
    }

    /// Byte offset and width in bits of a field; anonymous structs and unions are looked through.
    pub(super) fn offset(&self, structure: &'static str, field: &'static str) -> Result<(u32, u32), OffsetError> {
        let missing = || OffsetError::Missing { structure, field };
        let mut current = self.btf.find(Kind::Struct, structure).ok_or_else(missing)?;
        let (mut bits, mut width) = (0, 0);
        for part in field.split('.') {
            let (offset, kind, own) = self.member(&current, part.as_bytes(), 0).ok_or_else(missing)?;
            bits += offset;
            width = if own == 0 && kind.kind == Kind::Int { kind.size() * 8 } else { own };
            current = kind;
        }
        Ok((bits / 8, width))
    }

    /// Offset in bits, bare type, and width in bits of a bit field.
    fn member<'a>(&'a self, structure: &Type<'a>, name: &[u8], depth: u8) -> Option<(u32, Type<'a>, u32)> {
        structure.members().find_map(|member| {
            let kind = self.btf.bare(member.id)?;
            if member.name == name {
                return Some((member.bits, kind, member.width));
            }
            if !member.name.is_empty() || depth > 8 {
                return None;
            }
            let (bits, kind, width) = self.member(&kind, name, depth + 1)?;
            Some((member.bits + bits, kind, width))
        })
    }

    /// Checks that a tracepoint is there and has the arguments that the program takes.
    ///
    /// # Errors
    /// It is not, or has not.
    pub fn check(&self, tracepoint: &Tracepoint) -> Result<(), OffsetError> {
        let found = self
            .arguments(tracepoint.name)
            .ok_or(OffsetError::NoTracepoint { name: tracepoint.name, hint: tracepoint.hint })?;
        if found.len() >= tracepoint.arguments.len()
            && found.iter().zip(tracepoint.arguments).all(|(found, expected)| found == expected)
        {
            Ok(())
        } else {
            Err(OffsetError::OtherArguments {
                name: tracepoint.name,
                expected: tracepoint.arguments.join(", "),
                found: found.join(", "),
            })
        }
    }

    /// A tracepoint's arguments, as [`Tracepoint`] writes them.
    pub(super) fn arguments(&self, tracepoint: &str) -> Option<Vec<String>> {
        let typedef = self.btf.find(Kind::Typedef, &format!("btf_trace_{tracepoint}"))?;
        let pointer = self.btf.bare(typedef.target()).filter(|found| found.kind == Kind::Pointer)?;
        let function = self.btf.bare(pointer.target())?;
        // The first parameter is the probe's private data.
        Some(function.parameters().skip(1).map(|id| self.describe(id)).collect())
    }

    fn describe(&self, id: u32) -> String {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        match self.btf.bare(id) {
            Some(found) if found.kind == Kind::Pointer => match self.btf.bare(found.target()) {
                Some(inner) if inner.kind == Kind::Struct => format!("*{}", text(inner.name())),
                _ => "*".into(),
            },
            Some(found) => text(found.name()),
            None => "void".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Option<KernelTypes> {
        KernelTypes::open(&Path::new("/sys").join(VMLINUX_BTF)).map_err(|error| eprintln!("skipped: {error}")).ok()
    }

    #[test]
    fn offsets_of_the_running_kernel_are_plausible() {
        let Some(types) = types() else { return };
        let offsets = types.offsets().unwrap();
        // `struct sock_common` begins with the address pair on every kernel since 3.9.
        assert_eq!((offsets.skc_daddr, offsets.skc_rcv_saddr), (0, 4));
        assert_eq!((offsets.skc_dport, offsets.skc_num, offsets.skc_family), (12, 14, 16));
        assert!(offsets.sk_protocol > 0 && matches!(offsets.sk_protocol_bits, 8 | 16));
        assert!(offsets.task_tgid > 0 && offsets.task_thread_pointer > offsets.task_tgid);
    }

    #[test]
    fn a_tracepoint_with_other_arguments_is_refused_with_both_lists() {
        let Some(types) = types() else { return };
        let wrong = Tracepoint { name: "sched_process_exec", arguments: &["*sock"], hint: "" };
        let text = types.check(&wrong).unwrap_err().to_string();
        assert!(text.contains("(*task_struct") && text.contains("expects (*sock)"), "{text}");
        let absent = Tracepoint { name: "no_such_tracepoint", arguments: &[], hint: " (hint)" };
        assert!(types.check(&absent).unwrap_err().to_string().ends_with("no_such_tracepoint (hint)"));
    }

    #[test]
    fn a_missing_file_is_told_with_its_path_and_the_remedy() {
        let Err(error) = KernelTypes::open(Path::new("/nonexistent/btf")) else { panic!("opened") };
        let text = error.to_string();
        assert!(text.starts_with("/nonexistent/btf: ") && text.contains("CONFIG_DEBUG_INFO_BTF"), "{text}");
    }
}
