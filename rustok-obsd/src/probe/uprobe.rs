//! Attaches programs to functions of a target's executable.
//!
//! Reads: the object's uprobe programs; places that the target room found and checked. Yields: [`Links`], which keep the
//! probes alive. Costs: a probe about 1 µs per hit. With one link for all places of a program (`uprobe_multi`, Linux 6.6)
//! attaching takes a system call and detaching one grace period of the kernel, some 0.1 s. By perf events, before that,
//! every place is detached by itself, one after the other on the whole host (`event_mutex`, kernel/trace/trace_event_perf.c),
//! 0.1 s each.

use std::{
    collections::HashMap,
    ffi::CString,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{Object, ProgramSection, generated::bpf_insn};
use rustok_obsd_ebpf::Tag;
use thiserror::Error;

use super::{
    bpf,
    loader::{LoadError, map_data},
    stats::ProgramTable,
};

/// Where the kernel says which type perf uprobes have.
const PERF_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";

/// Why a uprobe is not attached.
#[derive(Debug, Error)]
pub enum UprobeError {
    /// The object has no such program, or the kernel refuses it.
    #[error("uprobe program {program}: {reason}")]
    Program {
        /// Program.
        program: &'static str,
        /// Why.
        reason: String,
    },
    /// The kernel refuses the attachment.
    #[error("uprobe {program} at {path} ({places} places): {source}{}", hint(source))]
    Attach {
        /// Program.
        program: &'static str,
        /// Binary.
        path: String,
        /// How many places were asked for.
        places: usize,
        /// Why.
        source: io::Error,
    },
}

/// What to do about the kernel's answer.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "; kernels since July 2025 (CVE-2025-38466) want CAP_SYS_ADMIN for uprobes by perf events, Linux 6.6 and newer do with CAP_BPF and CAP_PERFMON: grant them, or run as root"
        }
        Some(libc::EMFILE | libc::ENFILE) => "; raise the limit of open files (ulimit -n)",
        _ => "",
    }
}

/// Attached probes; dropping it detaches them, which waits for the kernel.
#[derive(Debug, Default)]
pub struct Links(Vec<OwnedFd>);

impl Links {
    /// Descriptors, each with a wait of its own when it is closed.
    #[must_use]
    pub fn into_descriptors(self) -> Vec<OwnedFd> {
        self.0
    }
}

#[cfg(test)]
impl From<OwnedFd> for Links {
    fn from(descriptor: OwnedFd) -> Self {
        Self(vec![descriptor])
    }
}

/// What this kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// One link for many places; `processes`: also for one process.
    Multi { processes: bool },
    /// One perf event a place, of this type.
    Perf { kind: u32 },
}

struct Code {
    instructions: Vec<bpf_insn>,
    license: CString,
}

/// The uprobe programs of the object, loaded when they are first needed. Shared by the threads that attach.
pub struct UprobePrograms {
    code: HashMap<String, Code>,
    state: Mutex<State>,
    table: ProgramTable,
}

#[derive(Default)]
struct State {
    loaded: HashMap<&'static str, Arc<OwnedFd>>,
    way: Option<Way>,
}

impl UprobePrograms {
    /// Takes the programs out of the object, joined to the maps that aya made of it.
    ///
    /// # Errors
    /// [`LoadError::Object`].
    pub(super) fn new(object: &[u8], ebpf: &Ebpf, table: ProgramTable) -> Result<Self, LoadError> {
        let wrong = |error: &dyn std::error::Error| LoadError::Object { reason: super::loader::chain(error) };
        let mut object = Object::parse(object).map_err(|error| wrong(&error))?;
        let descriptors: HashMap<&str, RawFd> = ebpf.maps().filter_map(|(name, map)| Some((name, fd(map)?))).collect();
        let maps = std::mem::take(&mut object.maps);
        let texts = object.functions.keys().map(|(section, _)| *section).collect();
        let named = maps.iter().filter_map(|(name, map)| Some((name.as_str(), *descriptors.get(name.as_str())?, map)));
        object.relocate_maps(named, &texts).map_err(|error| wrong(&error))?;
        object.relocate_calls(&texts).map_err(|error| wrong(&error))?;
        let code =
            object.programs.iter().filter(|(_, program)| matches!(program.section, ProgramSection::UProbe { .. }));
        let code = code.filter_map(|(name, program)| {
            let function = object.functions.get(&program.function_key())?;
            let license = program.license.clone();
            Some((name.clone(), Code { instructions: function.instructions.clone(), license }))
        });
        Ok(Self { code: code.collect(), state: Mutex::default(), table })
    }

    /// Whether probes can be attached for one process alone, without those of others that run the same file.
    #[must_use]
    pub fn reaches_processes(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).way == Some(Way::Multi { processes: true })
    }

    /// Whether attaching asks for `CAP_SYS_ADMIN` on kernels since July 2025: by perf events it does, by links for many
    /// places it does not.
    #[must_use]
    pub fn wants_admin(&self) -> bool {
        !matches!(self.state.lock().unwrap_or_else(PoisonError::into_inner).way, Some(Way::Multi { .. }))
    }

    /// Loads a program before it is needed, so that what the kernel offers is known.
    ///
    /// # Errors
    /// [`UprobeError::Program`].
    pub fn load(&self, program: &'static str) -> Result<(), UprobeError> {
        self.program(program).map(drop)
    }

    /// Attaches `program` to all `places` of the file behind `path` for every process that runs it, or for `pid` alone; it
    /// counts for processes with this tag.
    /// Either all of them are attached or none. `name` stands for the file in messages.
    ///
    /// # Errors
    /// [`UprobeError`].
    pub fn attach(
        &self,
        program: &'static str,
        (path, name): (&Path, &str),
        places: &[u64],
        tag: Tag,
        pid: Option<u32>,
    ) -> Result<Links, UprobeError> {
        let (fd, way) = self.program(program)?;
        let error = |source| UprobeError::Attach { program, path: name.to_owned(), places: places.len(), source };
        let path = c_path(path).map_err(error)?;
        let cookie = u64::from(tag.0);
        match way {
            Way::Multi { .. } => {
                let link = bpf::link_multi(fd.as_fd(), &path, places, cookie, pid).map_err(error)?;
                Ok(Links(vec![link]))
            }
            Way::Perf { kind } => {
                let link = |place: &u64| bpf::link_perf(fd.as_fd(), kind, &path, *place, cookie);
                Ok(Links(places.iter().map(link).collect::<io::Result<_>>().map_err(error)?))
            }
        }
    }

    fn program(&self, program: &'static str) -> Result<(Arc<OwnedFd>, Way), UprobeError> {
        let wrong = |reason: String| UprobeError::Program { program, reason };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(fd), Some(way)) = (state.loaded.get(program), state.way) {
            return Ok((Arc::clone(fd), way));
        }
        let code = self.code.get(program).ok_or_else(|| {
            wrong("the kernel object has no such program: it is of another version; run `cargo xtask build-ebpf` and build rustok-obsd again".into())
        })?;
        let load = |multi| bpf::load_uprobe(program, &code.instructions, &code.license, multi);
        let (fd, way) = match state.way {
            Some(way) => (load(matches!(way, Way::Multi { .. })).map_err(wrong)?, way),
            None => match load(true).map(|fd| (probe_multi(&fd), fd)) {
                Ok((Some(way), fd)) => (fd, way),
                _ => (load(false).map_err(wrong)?, Way::Perf { kind: perf_type().map_err(wrong)? }),
            },
        };
        let fd = Arc::new(fd);
        self.table.add(program, Arc::clone(&fd));
        state.way = Some(way);
        state.loaded.insert(program, Arc::clone(&fd));
        Ok((fd, way))
    }
}

/// Whether this kernel takes one link for many places: a root directory has no code, and a kernel that knows such links
/// says so (EBADF). The kernel that looks at a whole process instead of a thread refuses process -1 before that (EINVAL).
fn probe_multi(program: &OwnedFd) -> Option<Way> {
    const NOBODY: u32 = u32::MAX;
    let root = |pid| {
        let refused = bpf::link_multi(program.as_fd(), c"/", &[1], 0, pid).err().and_then(|error| error.raw_os_error());
        refused.unwrap_or_default()
    };
    (root(None) == libc::EBADF).then(|| Way::Multi { processes: root(Some(NOBODY)) == libc::EINVAL })
}

fn perf_type() -> Result<u32, String> {
    let text = fs::read_to_string(PERF_TYPE).map_err(|error| {
        format!("the kernel offers no uprobes: {PERF_TYPE}: {error}; it needs CONFIG_UPROBE_EVENTS")
    })?;
    text.trim().parse().map_err(|_| format!("{PERF_TYPE} holds no number"))
}

fn fd(map: &Map) -> Option<RawFd> {
    Some(map_data(map)?.fd().as_fd().as_raw_fd())
}

fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path with a NUL byte"))
}
