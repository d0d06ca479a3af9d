//! What a binary's constants say of its making: compiler, libraries, C library.
//!
//! Reads: `.comment`, `.interp`, the first 64 MiB of `.rodata`. Yields: versions. Costs: one pass.

use std::fmt;

use memchr::memmem;

use super::elf::{Elf, ElfError, Source};
use super::points::Library;
use super::symbols::scan_section;

/// Bytes of read-only data that are searched for version strings.
const MAX_RODATA: u64 = 64 << 20;

/// The C library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Libc {
    /// GNU.
    Glibc,
    /// musl.
    Musl,
    /// Statically linked.
    Static,
    /// Another dynamic linker.
    Other(String),
}

impl fmt::Display for Libc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glibc => f.write_str("glibc"),
            Self::Musl => f.write_str("musl"),
            Self::Static => f.write_str("static"),
            Self::Other(linker) => write!(f, "unknown (dynamic linker {linker})"),
        }
    }
}

pub(super) fn libc_of<S: Source + ?Sized>(elf: &Elf<'_, S>) -> Libc {
    match elf.interpreter() {
        None => Libc::Static,
        Some(linker) if linker.contains("ld-musl") => Libc::Musl,
        Some(linker) if linker.contains("ld-linux") => Libc::Glibc,
        // It goes into reports: bounded, and no control characters.
        Some(linker) => Libc::Other(linker.chars().take(128).flat_map(char::escape_debug).collect()),
    }
}

/// `rustc version 1.95.0 (59807616e 2026-04-14)` in `.comment`, among other tools' lines.
pub(super) fn rustc_version<S: Source + ?Sized>(elf: &Elf<'_, S>) -> Option<String> {
    let comment = elf.section_head(elf.section(".comment")?, 16 << 10).ok()?;
    let line = comment.split(|&byte| byte == 0).find_map(|line| line.strip_prefix(b"rustc version "))?;
    let version = line.split(|&byte| byte == b' ').next()?;
    plain(version).map(str::to_owned)
}

/// What read-only data shows.
#[derive(Default)]
pub(super) struct Strings {
    /// A source path of Rust's standard library.
    pub rust: bool,
    /// For each of [`Library::ALL`] its version.
    pub versions: [Option<String>; Library::ALL.len()],
}

/// Panic messages hold source paths: `…/tokio-1.54.1/src/…`, `/rustc/<commit>/library/…`. They outlive `strip`.
pub(super) fn read_only_strings<S: Source + ?Sized>(elf: &Elf<'_, S>) -> Result<Strings, ElfError> {
    const OVERLAP: usize = 128;
    let mut strings = Strings::default();
    let Some(section) = elf.section(".rodata") else { return Ok(strings) };
    let mut section = section.clone();
    section.size = section.size.min(MAX_RODATA);
    let rust = memmem::Finder::new("/rustc/");
    let finders = Library::ALL.map(|library| memmem::Finder::new(library.name()).into_owned());
    scan_section(elf, &section, |piece| {
        strings.rust = strings.rust
            || rust.find(piece).is_some_and(|at| piece[at..].windows(9).take(60).any(|path| path == b"/library/"));
        for (finder, version) in finders.iter().zip(&mut strings.versions) {
            if version.is_none() {
                *version = finder.find_iter(piece).find_map(|at| crate_version(&piece[at + finder.needle().len()..]));
            }
        }
        piece.len().saturating_sub(OVERLAP)
    })?;
    Ok(strings)
}

/// `-1.54.1/src/` → `1.54.1`.
fn crate_version(rest: &[u8]) -> Option<String> {
    let rest = &rest.strip_prefix(b"-")?;
    let end = memchr::memchr(b'/', &rest[..rest.len().min(40)])?;
    let version = plain(&rest[..end])?;
    (version.starts_with(|first: char| first.is_ascii_digit()) && rest[end..].starts_with(b"/src/"))
        .then(|| version.to_owned())
}

/// A version goes into logs and reports: letters, digits and a few marks only.
fn plain(version: &[u8]) -> Option<&str> {
    let plain = version.len() <= 64 && version.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(byte));
    std::str::from_utf8(version).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_from_source_paths_only() {
        assert_eq!(crate_version(b"-1.54.1/src/runtime").as_deref(), Some("1.54.1"));
        assert_eq!(crate_version(b"-1.0.0-rc.1/src/x").as_deref(), Some("1.0.0-rc.1"));
        for other in [&b"-stream-0.1.17/src/lib.rs"[..], b"/1.2/src/", b"-1.2/lib/", b"-", b"", b"-1.54.1"] {
            assert_eq!(crate_version(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn a_version_is_no_place_for_other_text() {
        assert_eq!(plain(b"1.95.0-nightly"), Some("1.95.0-nightly"));
        for other in [&b"1.95\nWARN forged"[..], b"\x1b[2J", &[b'1'; 65], "1.é".as_bytes()] {
            assert_eq!(plain(other), None);
        }
    }
}
