//! Offsets of kernel structures, and the arguments of raw tracepoints, from the kernel's own BTF.
//!
//! Reads: `/sys/kernel/btf/vmlinux` (mapped, not copied). Yields: [`Offsets`], which the loader passes to the programs as
//! globals, since Rust has no CO-RE relocations. Costs: some 10 ms once at start; nothing is kept.

use std::path::{Path, PathBuf};

use btf_rs::{Backend, Btf, BtfType, Type};
use thiserror::Error;

/// Where the kernel shows its BTF.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why a kernel structure is not known.
#[derive(Debug, Error)]
pub enum OffsetError {
    /// No BTF.
    #[error(
        "{path}: {source}; the socket programs need the kernel's type information: use a kernel built with CONFIG_DEBUG_INFO_BTF=y and mount sysfs"
    )]
    NoBtf {
        /// The file.
        path: PathBuf,
        /// Why it could not be read.
        source: btf_rs::Error,
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
    arguments: &'static [&'static str],
    /// Told when it is missing.
    hint: &'static str,
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
    Tracepoint { name: "sched_process_exec", arguments: &["*task_struct"], hint: "" },
    Tracepoint { name: "sched_process_exit", arguments: &["*task_struct"], hint: "" },
    Tracepoint { name: "sched_process_fork", arguments: &["*task_struct", "*task_struct"], hint: "" },
];

/// The kernel's type information.
pub struct KernelTypes {
    btf: Btf,
}

impl KernelTypes {
    /// Maps the BTF of the running kernel.
    ///
    /// # Errors
    /// There is none, or it cannot be parsed.
    pub fn open(path: &Path) -> Result<Self, OffsetError> {
        // The mapped form keeps no copy of the 5 MB of types; the cached one is for files that cannot be mapped, as
        // sysfs on older kernels.
        let btf = Btf::from_file_with_backend(path, Backend::Mmap)
            .or_else(|_| Btf::from_file(path))
            .map_err(|source| OffsetError::NoBtf { path: path.into(), source })?;
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

    /// Byte offset and width in bits of a field; anonymous structs and unions are looked through.
    fn offset(&self, structure: &'static str, field: &'static str) -> Result<(u32, u32), OffsetError> {
        let missing = || OffsetError::Missing { structure, field };
        let types = self.btf.resolve_types_by_name(structure).map_err(|_| missing())?;
        let mut current = types
            .into_iter()
            .find_map(|found| match found {
                Type::Struct(found) => Some(found),
                _ => None,
            })
            .ok_or_else(missing)?;
        let mut bits = 0;
        let mut parts = field.split('.').peekable();
        while let Some(part) = parts.next() {
            let (offset, kind, width) = self.member(&current, part).ok_or_else(missing)?;
            bits += offset;
            if parts.peek().is_none() {
                return Ok((bits / 8, width));
            }
            let (Type::Struct(next) | Type::Union(next)) = kind else { return Err(missing()) };
            current = next;
        }
        Err(missing())
    }

    /// Offset in bits, type and width in bits of a member.
    fn member(&self, structure: &btf_rs::Struct, name: &str) -> Option<(u32, Type, u32)> {
        for member in &structure.members {
            let kind = self.bare_type(member);
            let own = self.btf.resolve_name(member).unwrap_or_default();
            if own == name {
                let kind = kind?;
                let width = match member.bitfield_size() {
                    Some(bits) if bits > 0 => bits,
                    _ => match &kind {
                        Type::Int(int) => u32::try_from(int.size() * 8).unwrap_or(0),
                        _ => 0,
                    },
                };
                return Some((member.bit_offset(), kind, width));
            }
            if own.is_empty()
                && let Some(Type::Struct(inner) | Type::Union(inner)) = kind
                && let Some((offset, kind, width)) = self.member(&inner, name)
            {
                return Some((member.bit_offset() + offset, kind, width));
            }
        }
        None
    }

    /// What a type is without typedefs and qualifiers.
    fn bare_type(&self, of: &dyn BtfType) -> Option<Type> {
        let mut found = self.btf.resolve_chained_type(of).ok()?;
        loop {
            found = match &found {
                Type::Typedef(inner) => self.btf.resolve_chained_type(inner).ok()?,
                Type::Const(inner) | Type::Volatile(inner) | Type::Restrict(inner) => {
                    self.btf.resolve_chained_type(inner).ok()?
                }
                Type::TypeTag(inner) => self.btf.resolve_chained_type(inner).ok()?,
                _ => return Some(found),
            };
        }
    }

    /// Checks that a tracepoint is there and has the arguments that the program takes.
    ///
    /// # Errors
    /// It is not, or has not.
    pub fn check(&self, tracepoint: &Tracepoint) -> Result<(), OffsetError> {
        let missing = || OffsetError::NoTracepoint { name: tracepoint.name, hint: tracepoint.hint };
        let types = self.btf.resolve_types_by_name(&format!("btf_trace_{}", tracepoint.name)).map_err(|_| missing())?;
        let typedef = types.into_iter().find_map(|found| match found {
            Type::Typedef(found) => Some(found),
            _ => None,
        });
        let Some(Type::Ptr(pointer)) = self.bare_type(&typedef.ok_or_else(missing)?) else { return Err(missing()) };
        let Some(Type::FuncProto(function)) = self.bare_type(&pointer) else { return Err(missing()) };
        // The first parameter is the probe's private data.
        let found: Vec<String> = function.parameters.iter().skip(1).map(|parameter| self.describe(parameter)).collect();
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

    fn describe(&self, parameter: &dyn BtfType) -> String {
        match self.bare_type(parameter) {
            Some(Type::Ptr(pointer)) => match self.bare_type(&pointer) {
                Some(Type::Struct(inner)) => format!("*{}", self.btf.resolve_name(&inner).unwrap_or_default()),
                _ => "*".into(),
            },
            Some(Type::Int(int)) => self.btf.resolve_name(&int).unwrap_or_default(),
            Some(other) => other.name().into(),
            None => "void".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Option<KernelTypes> {
        KernelTypes::open(Path::new(VMLINUX_BTF)).map_err(|error| eprintln!("skipped: {error}")).ok()
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
