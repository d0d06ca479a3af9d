//! Symbols that were split off an executable.
//!
//! Reads: the build id, `.gnu_debuglink`. Yields: the debug file, opened. Costs: some failed opens; a checksum over
//! the debug file where only the link names it. Source: GDB manual, "Separate Debug Files". Addresses are those of the
//! executable, so that its own segments translate them.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::binary;
use super::elf::{Elf, Source};

const DEBUG: &str = "usr/lib/debug";

/// Finds the debug file of the executable at `path` below `root`, or on the host.
pub(super) fn open<S: Source + ?Sized>(elf: &Elf<'_, S>, path: &Path, root: &Path) -> Option<(PathBuf, File)> {
    let id = elf.build_id();
    let roots: &[&Path] = if root == Path::new("/") { &[root] } else { &[root, Path::new("/")] };
    if let Some(id) = &id {
        let hex: Vec<String> = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let (first, rest) = hex.split_first()?;
        let name = format!("{DEBUG}/.build-id/{first}/{}.debug", rest.concat());
        for root in roots {
            let path = root.join(&name);
            if let Some(file) = open_if(&path, |file| same_id(file, id)) {
                return Some((path, file));
            }
        }
    }
    let (name, checksum) = debug_link(elf)?;
    // `/proc/PID/exe` is a link to where the file lies in the process's file system.
    let real = path.read_link().unwrap_or_else(|_| path.to_owned());
    let folder = real.parent()?.strip_prefix("/").ok()?;
    for root in roots {
        for place in [folder.to_owned(), folder.join(".debug"), Path::new(DEBUG).join(folder)] {
            let path = root.join(place).join(&name);
            let fits = |file: &File| match &id {
                Some(id) => same_id(file, id),
                None => crc32(file) == Some(checksum),
            };
            if let Some(file) = open_if(&path, fits) {
                return Some((path, file));
            }
        }
    }
    None
}

fn open_if(path: &Path, fits: impl FnOnce(&File) -> bool) -> Option<File> {
    let (file, _) = binary::open(path).ok()?;
    fits(&file).then_some(file)
}

fn same_id(file: &File, id: &[u8]) -> bool {
    // A debug file keeps the note; its segments may have no bytes, so that a missing id is no contradiction under
    // `.build-id`, whose name is the id.
    Elf::parse(file).is_ok_and(|elf| elf.build_id().is_none_or(|other| other == id))
}

/// File name, padding, CRC-32.
fn debug_link<S: Source + ?Sized>(elf: &Elf<'_, S>) -> Option<(PathBuf, u32)> {
    let bytes = elf.section_head(elf.section(".gnu_debuglink")?, 4096).ok()?;
    let end = memchr::memchr(0, &bytes)?;
    let checksum = bytes.get((end + 1).next_multiple_of(4)..)?.first_chunk()?;
    let name = Path::new(std::ffi::OsStr::from_bytes(&bytes[..end]));
    // A name alone: no way out of the folders above.
    let mut parts = name.components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        .then(|| (name.to_owned(), u32::from_le_bytes(*checksum)))
}

fn crc32(mut file: &File) -> Option<u32> {
    use std::io::Read as _;
    let mut crc = flate2::Crc::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(crc.sum()),
            len => crc.update(&buffer[..len]),
        }
    }
}
