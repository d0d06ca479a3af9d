//! Symbols that were split off an executable.
//!
//! Reads: the build id, `.gnu_debuglink`, the candidates' owner and frame. Yields: the debug file, opened, and those that do
//! not count with the reason. Costs: some failed opens. Source: GDB manual, "Separate Debug Files". Addresses are those of
//! the executable, so that its own segments translate them.
//!
//! Whose symbols they are matters: they say where probes are placed in a file of perhaps another user. A debug file counts
//! only if root or the executable's owner owns it and nobody else may write to it, and if build id and layout of the sections
//! show that it was split off this very executable. Its checksum (`.gnu_debuglink`) would show nothing more and is not read.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use object::elf;

use super::budget::TooCostly;
use super::elf::{Elf, ElfError, Section, Source};
use super::executable::{Executable, Owner};
use super::inside::{OpenError, Root};
use super::mounts::Unasked;

const DEBUG: &str = "usr/lib/debug";
/// The user id that stands for one without a meaning in our user namespace (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65_534;
/// `S_IWGRP | S_IWOTH`.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a debug file does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It is there, but cannot be opened as a regular file.
    #[error("it cannot be opened: {0}")]
    Unopened(String),
    /// Its owner could give symbols to another user's executable.
    #[error(
        "its owner (user {owner}) is neither root nor the owner of the executable (user {executable}); \
         make it belong to one of them"
    )]
    Owner {
        /// Its owner.
        owner: u32,
        /// The executable's.
        executable: u32,
    },
    /// So could these.
    #[error("its group or all users may write to it (mode {0:04o}); `chmod go-w` it")]
    Writable(u32),
    /// The server of such a file system says of a file what it wants, and whether it says anything.
    #[error("{0}")]
    Unasked(Unasked),
    /// Nothing shows what it was split off.
    #[error("{0} has no build id; link with `-C link-arg=-Wl,--build-id`")]
    NoBuildId(&'static str),
    /// Split off another build.
    #[error("its build id is not that of the executable")]
    BuildId,
    /// The same, in spite of the build id.
    #[error("its sections are not laid out like those of the executable: {0}")]
    Layout(String),
    /// No table of symbols is in it.
    #[error("it has no symbol table")]
    NoSymbols,
    /// It is no ELF file, or damaged.
    #[error("{0}")]
    Elf(ElfError),
    /// It costs more than real ones do.
    #[error("{0}")]
    TooCostly(#[from] TooCostly),
}

impl From<ElfError> for Distrust {
    fn from(error: ElfError) -> Self {
        match error {
            ElfError::TooCostly(cost) => Self::TooCostly(cost),
            other => Self::Elf(other),
        }
    }
}

/// A debug file.
#[derive(Debug)]
pub(super) struct DebugFile<D> {
    pub path: PathBuf,
    pub source: D,
}

/// What a search found.
#[derive(Debug)]
pub(super) struct Search<D> {
    pub found: Option<DebugFile<D>>,
    /// Files that do not count, with the reason.
    pub refused: Vec<(PathBuf, Distrust)>,
}

impl<D> Default for Search<D> {
    fn default() -> Self {
        Self { found: None, refused: Vec::new() }
    }
}

/// Finds the debug file of an executable below the root of its process, or on the host.
pub(super) fn search<S: Source + ?Sized>(elf: &Elf<'_, S>, executable: &Executable, root: &Path) -> Search<File> {
    let mut search = Search::default();
    let names = candidates(elf, &executable.real_path());
    let host = Path::new("/");
    let roots = [Some(root), (root != host).then_some(host)];
    for root in roots.into_iter().flatten() {
        let below = match Root::guarded(root, executable.mounts()) {
            Ok(below) => below,
            Err(OpenError::Unasked(unasked)) => {
                search.refused.push((root.to_owned(), Distrust::Unasked(unasked)));
                continue;
            }
            // The process is gone.
            Err(_) => continue,
        };
        for name in &names {
            let path = root.join(name);
            let file = match below.open_file(name) {
                Ok(file) => file,
                Err(error) if error.is_not_found() => continue,
                Err(error) => {
                    let reason = match error {
                        OpenError::Unasked(unasked) => Distrust::Unasked(unasked),
                        error => Distrust::Unopened(error.to_string()),
                    };
                    search.refused.push((path, reason));
                    continue;
                }
            };
            let trusted = trust(&file, executable.owner())
                .and_then(|()| Ok(Elf::parse(&file, elf.budget())?))
                .and_then(|debug| agrees(elf, &debug));
            match trusted {
                Ok(()) => {
                    search.found = Some(DebugFile { path, source: file });
                    return search;
                }
                Err(reason) => search.refused.push((path, reason)),
            }
        }
    }
    search
}

/// Where it may be, relative to a root.
fn candidates<S: Source + ?Sized>(elf: &Elf<'_, S>, path: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    if let Some((first, rest)) = elf.build_id().as_deref().and_then(<[u8]>::split_first) {
        let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
        names.push(PathBuf::from(format!("{DEBUG}/.build-id/{first:02x}/{rest}.debug")));
    }
    let folder = path.parent().and_then(|folder| folder.strip_prefix("/").ok());
    if let (Some(name), Some(folder)) = (debug_link(elf), folder) {
        names
            .extend([folder.to_owned(), folder.join(".debug"), Path::new(DEBUG).join(folder)].map(|at| at.join(&name)));
    }
    names
}

/// The name without the checksum.
fn debug_link<S: Source + ?Sized>(elf: &Elf<'_, S>) -> Option<PathBuf> {
    let bytes = elf.section_head(elf.section(".gnu_debuglink")?, 4096).ok()?;
    let end = memchr::memchr(0, &bytes)?;
    let name = Path::new(std::ffi::OsStr::from_bytes(&bytes[..end]));
    // A name alone: no way out of the folders above.
    let mut parts = name.components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)).then(|| name.to_owned())
}

/// Whether nobody but root and the executable's owner wrote the file.
fn trust(file: &File, executable: Owner) -> Result<(), Distrust> {
    let metadata = file.metadata().map_err(|error| Distrust::Unopened(error.to_string()))?;
    may_vouch(Owner::of(&metadata), executable)
}

/// Whether a file of this owner may give symbols to an executable of that one. A root-owned executable so takes root-owned
/// debug files only.
fn may_vouch(debug: Owner, executable: Owner) -> Result<(), Distrust> {
    let same = debug.uid == executable.uid && debug.uid != NOBODY;
    if debug.uid != 0 && !same {
        return Err(Distrust::Owner { owner: debug.uid, executable: executable.uid });
    }
    if debug.mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Distrust::Writable(debug.mode));
    }
    Ok(())
}

/// Whether `debug` was split off the executable.
pub(super) fn agrees<S, D>(executable: &Elf<'_, S>, debug: &Elf<'_, D>) -> Result<(), Distrust>
where
    S: Source + ?Sized,
    D: Source + ?Sized,
{
    let id = executable.build_id().ok_or(Distrust::NoBuildId("the executable"))?;
    match debug.build_id() {
        None => return Err(Distrust::NoBuildId("it")),
        Some(other) if other != id => return Err(Distrust::BuildId),
        Some(_) => {}
    }
    if debug.machine != executable.machine {
        return Err(Distrust::Layout("they are for different machines".to_owned()));
    }
    let (ours, theirs) = (allocated(&executable.sections), allocated(&debug.sections));
    if ours.is_empty() {
        return Err(Distrust::Layout("the executable has no section headers".to_owned()));
    }
    if ours.len() != theirs.len() {
        return Err(Distrust::Layout(format!("it has {} sections in memory, not {}", theirs.len(), ours.len())));
    }
    for (our, their) in ours.iter().zip(&theirs) {
        let place = |section: &Section| (section.address, section.size);
        if our.name != their.name || place(our) != place(their) {
            return Err(Distrust::Layout(format!("section {} is elsewhere or has another size", our.name)));
        }
    }
    match debug.section_of_kind(elf::SHT_SYMTAB) {
        Some(_) => Ok(()),
        None => Err(Distrust::NoSymbols),
    }
}

/// Sections that are in memory; in a debug file they have no bytes.
fn allocated(sections: &[Section]) -> Vec<&Section> {
    sections.iter().filter(|section| section.flags & u64::from(elf::SHF_ALLOC) != 0).collect()
}

#[cfg(test)]
#[path = "debug_file_tests.rs"]
mod tests;
