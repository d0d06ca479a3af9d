//! Whether the functions of a probe point are in a binary, where, and why not.
//!
//! Reads: nothing. Yields: [`Presence`]. Costs: nothing.

use std::path::PathBuf;
use std::sync::Arc;

use super::budget::TooCostly;
use super::debug_file::Distrust;
use super::elf::ElfError;

/// Whether a probe point is in the binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// At least one copy of it is there.
    Found {
        /// Every copy that a probe can be placed on.
        places: Vec<Place>,
        /// Copies where the code contradicts the symbol table: no probe is placed on them.
        refused: Vec<RefusedPlace>,
    },
    /// Why it is not there.
    Absent(Absence),
}

/// Where a copy of a function is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Offset in the executable's file, as uprobes want it.
    pub file_offset: u64,
    /// Address in the file's own numbering; a process adds where it is loaded.
    pub address: u64,
    /// Mangled names; several where the linker folded equal code.
    pub names: Vec<Arc<str>>,
    /// The function's first bytes in the file, at most [`super::code::HEAD`]: to be compared with a process' memory
    /// ([`super::code::agrees_with_memory`]).
    pub code: Vec<u8>,
}

/// A copy of a function that no probe is placed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPlace {
    /// Address in the file's own numbering.
    pub address: u64,
    /// A mangled name.
    pub name: Arc<str>,
    /// Why.
    pub reason: Doubt,
}

/// Why a symbol is not taken for the beginning of a function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Where uprobes cannot be.
    #[error("it lies outside of the file's executable segments")]
    Outside,
    /// Longer than any function of interest.
    #[error("the function has {0} bytes, more than are checked")]
    TooLong(u64),
    /// aarch64.
    #[error("its address is not a multiple of 4")]
    Misaligned,
    /// What is there is data, or the table is another file's.
    #[error("its bytes from {0:#x} on are no instruction")]
    NoInstruction(u64),
    /// The end is in the middle of an instruction.
    #[error("the symbol ends within the instruction at {0:#x}")]
    End(u64),
    /// Two functions share bytes but not instructions.
    #[error("another function begins at {0:#x}, within one of its instructions")]
    Overlap(u64),
    /// The same, seen from the other one.
    #[error("it begins within an instruction of the function at {0:#x}")]
    Within(u64),
    /// The compiler's own table of functions.
    #[error("by the unwind table (.eh_frame) it is in the middle of the function at {0:#x}")]
    Unwind(u64),
}

/// Why a probe point is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absence {
    /// A script, for instance: its interpreter is the executable.
    #[error("not an ELF file")]
    NotElf,
    /// The file is damaged.
    #[error("{0}")]
    Malformed(ElfError),
    /// It costs more than real binaries do.
    #[error("the binary is not analysed: {0}; its processes are observed at their sockets")]
    TooCostly(#[from] TooCostly),
    /// Made for another machine than this one.
    #[error("made for another machine ({0})")]
    OtherMachine(&'static str),
    /// No sign of Rust in it.
    #[error("not a Rust program")]
    NotRust,
    /// No symbol table, here or in a debug file.
    #[error("stripped: no symbol table and no debug file; build with `strip = false` (Cargo's default) to have it")]
    Stripped,
    /// No symbol table, and a debug file that does not count.
    #[error("stripped, and the debug file {path:?} is not used: {reason}")]
    Distrusted {
        /// The debug file.
        path: PathBuf,
        /// Why.
        reason: Distrust,
    },
    /// The library is not in the program.
    #[error("{0} is not linked in")]
    NotLinked(&'static str),
    /// The configuration names a function that is not there.
    #[error("no symbol has this path; `nm -C` lists those of the binary")]
    NoSuchFunction,
    /// The library is, the function is not.
    #[error(
        "{0} is linked in, but the function is inlined (as `lto = \"fat\"` does) or named otherwise in this version"
    )]
    Inlined(&'static str),
    /// Each copy is refused.
    #[error("the code contradicts the symbol table in each of {count} copies; at {:#x}: {}", first.address, first.reason)]
    Refused {
        /// How many.
        count: usize,
        /// The first.
        first: RefusedPlace,
    },
    /// So many copies that attaching to them would take long.
    #[error("more than {limit} copies of the function; a release build has few")]
    Copies {
        /// [`super::Limits::point_places`].
        limit: usize,
    },
    /// Other probe points used up the places of the binary.
    #[error("with it the binary would have more than {limit} probes")]
    Places {
        /// [`super::Limits::binary_places`].
        limit: usize,
    },
}

impl From<ElfError> for Absence {
    fn from(error: ElfError) -> Self {
        match error {
            ElfError::NotElf => Self::NotElf,
            ElfError::TooCostly(cost) => Self::TooCostly(cost),
            other => Self::Malformed(other),
        }
    }
}

impl Absence {
    /// Whether the same file may give another answer soon: the machine was busy, or its disk failed.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::TooCostly(TooCostly::Time(_)) | Self::Malformed(ElfError::Io(_)))
    }
}
