//! Finds functions in a symbol table by their Rust path.
//!
//! Reads: `.symtab` and `.dynsym` with their strings, in order and in pieces. Yields: [`SymbolScan`]. Costs: two passes
//! over the tables through one buffer of 256 KiB; only names that contain a wanted identifier are demangled. The
//! strings come first: that gives the few offsets that a symbol entry has to name to be of interest. Bytes, names and time
//! are bounded by the file's [`super::Budget`], the work on one name by the length of its demangled form.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use memchr::memmem::Finder;
use object::elf::{self, Sym64};
use object::{LittleEndian, pod};
use rustc_hash::FxHashMap;

use super::budget::TooCostly;
use super::elf::{Elf, ElfError, Section, Source};

const PIECE: usize = 256 << 10;
/// Longer names are no path that we look for; the bound keeps hostile names cheap.
const MAX_NAME: usize = 4096;
/// Longer demangled names are no path that we look for: back-references make a short name a long one.
const MAX_DEMANGLED: usize = 4 * MAX_NAME;
/// Bytes of all names kept.
const MAX_KEPT: usize = 512 << 10;
/// Brackets nested deeper are no path that we look for.
const MAX_DEPTH: usize = 32;
/// Names kept per address; more are the same code under other names.
const MAX_ALIASES: usize = 8;

/// What to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// An identifier that every mangled form contains as it is: the last one of the path.
    pub needle: &'static str,
    /// The demangled path, in canonical form (see [`canonical`]).
    pub path: PathMatch,
    /// `STT_FUNC` or `STT_TLS`.
    pub kind: SymbolKind,
}

/// How the canonical path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Equal.
    Exact(&'static str),
    /// Begins and ends so: statics, whose inner path depends on the version of std.
    Around(&'static str, &'static str),
}

/// The symbol's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SymbolKind {
    /// Code.
    Function,
    /// A thread-local variable; its value is an offset in the thread-local segment.
    ThreadLocal,
}

/// A symbol that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Address, or offset in the thread-local segment.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Mangled names at this address; folded functions have several.
    pub names: Vec<Arc<str>>,
}

/// What a scan found.
#[derive(Debug, Clone, Default)]
pub struct SymbolScan {
    /// For each pattern every symbol, by address, each address once.
    pub found: Vec<Vec<Symbol>>,
    /// For each marker whether any name contains it.
    pub markers: Vec<bool>,
    /// Entries in the tables.
    pub entries: u64,
}

impl SymbolScan {
    /// Scans both tables of the file.
    ///
    /// `markers` are plain substrings whose presence in any name is told.
    ///
    /// # Errors
    /// [`ElfError`] where a table lies outside the file or cannot be read.
    pub fn run<S: Source + ?Sized>(elf: &Elf<'_, S>, patterns: &[Pattern], markers: &[&str]) -> Result<Self, ElfError> {
        let mut found: Vec<BTreeMap<u64, Symbol>> = vec![BTreeMap::new(); patterns.len()];
        let mut scan = Self { found: Vec::new(), markers: vec![false; markers.len()], entries: 0 };
        // One buffer for everything, in words: the entries are read in place and need their alignment.
        let mut buffer = vec![0_u64; PIECE / 8];
        for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
            let Some(table) = elf.section_of_kind(kind) else {
                continue;
            };
            let Some(strings) = elf.sections.get(table.link as usize).filter(|s| s.kind == elf::SHT_STRTAB) else {
                return Err(ElfError::Malformed(format!("{} has no string table", table.name)));
            };
            let names = wanted_names(elf, strings, patterns, markers, &mut scan.markers, &mut buffer)?;
            scan.entries += match_entries(elf, table, &names, patterns, &mut found, &mut buffer)?;
        }
        scan.found = found.into_iter().map(|symbols| symbols.into_values().collect()).collect();
        Ok(scan)
    }
}

/// Offset of a string → (the patterns that it matches, the string).
type Names = FxHashMap<u32, (Vec<usize>, Arc<str>)>;

fn wanted_names<S: Source + ?Sized>(
    elf: &Elf<'_, S>,
    strings: &Section,
    patterns: &[Pattern],
    markers: &[&str],
    seen: &mut [bool],
    buffer: &mut [u64],
) -> Result<Names, ElfError> {
    let mut needles: Vec<&str> = patterns.iter().map(|pattern| pattern.needle).collect();
    needles.sort_unstable();
    needles.dedup();
    let needles: Vec<Finder<'_>> = needles.into_iter().map(Finder::new).collect();
    let markers: Vec<Finder<'_>> = markers.iter().map(Finder::new).collect();
    let mut names = Names::default();
    let (limit, mut kept) = (elf.budget().limits().matches, 0);
    in_pieces(elf, strings, buffer, |base, piece, last| {
        // Whole strings only; a string longer than the buffer is no symbol of ours and is skipped.
        let whole = if last { piece.len() } else { memchr::memrchr(0, piece).map_or(piece.len(), |end| end + 1) };
        let piece = &piece[..whole];
        for (marker, seen) in markers.iter().zip(seen.iter_mut()) {
            *seen = *seen || marker.find(piece).is_some();
        }
        for needle in &needles {
            let mut from = 0;
            while let Some(hit) = needle.find(&piece[from..]).map(|at| at + from) {
                let start = memchr::memrchr(0, &piece[..hit]).map_or(0, |end| end + 1);
                let end = memchr::memchr(0, &piece[hit..]).map_or(piece.len(), |at| hit + at);
                from = end;
                let Ok(offset) = u32::try_from(base + start as u64) else {
                    break;
                };
                // Both manglings are printable ASCII, apart from forgeries.
                if end - start <= MAX_NAME
                    && let Ok(name) = std::str::from_utf8(&piece[start..end])
                    && name.bytes().all(|byte| byte.is_ascii_graphic())
                    && !names.contains_key(&offset)
                {
                    elf.budget().name()?;
                    let matched = matching(name, patterns);
                    if !matched.is_empty() {
                        kept += name.len();
                        if names.len() == limit || kept > MAX_KEPT {
                            return Err(TooCostly::Matches(limit).into());
                        }
                        names.insert(offset, (matched, name.into()));
                    }
                }
            }
        }
        Ok(whole)
    })?;
    Ok(names)
}

fn match_entries<S: Source + ?Sized>(
    elf: &Elf<'_, S>,
    table: &Section,
    names: &Names,
    patterns: &[Pattern],
    found: &mut [BTreeMap<u64, Symbol>],
    buffer: &mut [u64],
) -> Result<u64, ElfError> {
    let endian = LittleEndian;
    // One more than can be probed, so that it shows that there are more.
    let most = elf.budget().limits().point_places.saturating_add(1);
    entries(elf, table, buffer, |symbols| {
        for symbol in symbols {
            let Some((matched, name)) = names.get(&symbol.st_name.get(endian)) else {
                continue;
            };
            let size = symbol.st_size.get(endian);
            if symbol.st_shndx.get(endian) == elf::SHN_UNDEF || size == 0 {
                continue;
            }
            for &index in matched {
                let kind = match patterns[index].kind {
                    SymbolKind::Function => elf::STT_FUNC,
                    SymbolKind::ThreadLocal => elf::STT_TLS,
                };
                if symbol.st_type() != kind || found[index].len() >= most {
                    continue;
                }
                let address = symbol.st_value.get(endian);
                let entry = found[index].entry(address).or_insert_with(|| Symbol { address, size, names: Vec::new() });
                entry.size = entry.size.max(size);
                if entry.names.len() < MAX_ALIASES && !entry.names.contains(name) {
                    entry.names.push(Arc::clone(name));
                }
            }
        }
    })
}

/// Feeds a symbol table to `visit`; yields how many entries it has.
fn entries<S: Source + ?Sized>(
    elf: &Elf<'_, S>,
    table: &Section,
    buffer: &mut [u64],
    mut visit: impl FnMut(&[Sym64<LittleEndian>]),
) -> Result<u64, ElfError> {
    const ENTRY: usize = size_of::<Sym64<LittleEndian>>();
    let mut entries = 0;
    in_pieces(elf, table, buffer, |_, piece, _| {
        let count = piece.len() / ENTRY;
        // The piece starts the word buffer, so that the alignment fits; `count` entries lie within it.
        let Ok((symbols, _)) = pod::slice_from_bytes(piece, count) else {
            return Ok(piece.len());
        };
        entries += count as u64;
        visit(symbols);
        Ok(count * ENTRY)
    })?;
    Ok(entries)
}

/// Feeds address and size of every function in the tables to `visit`.
pub(super) fn functions<S: Source + ?Sized>(elf: &Elf<'_, S>, mut visit: impl FnMut(u64, u64)) -> Result<(), ElfError> {
    let endian = LittleEndian;
    let mut buffer = vec![0_u64; PIECE / 8];
    for table in [elf::SHT_SYMTAB, elf::SHT_DYNSYM].into_iter().filter_map(|kind| elf.section_of_kind(kind)) {
        entries(elf, table, &mut buffer, |symbols| {
            let functions = symbols.iter().filter(|symbol| symbol.st_type() == elf::STT_FUNC);
            for symbol in functions.filter(|symbol| symbol.st_shndx.get(endian) != elf::SHN_UNDEF) {
                visit(symbol.st_value.get(endian), symbol.st_size.get(endian));
            }
        })?;
    }
    Ok(())
}

/// Feeds a section through the buffer. `visit(base, piece, last)` says how much it used; the rest comes again.
fn in_pieces<S: Source + ?Sized>(
    elf: &Elf<'_, S>,
    section: &Section,
    buffer: &mut [u64],
    mut visit: impl FnMut(u64, &[u8], bool) -> Result<usize, ElfError>,
) -> Result<(), ElfError> {
    elf.budget().section(&section.name, section.size)?;
    let buffer = pod::bytes_of_slice_mut(buffer);
    let (mut base, mut kept) = (0_u64, 0_usize);
    loop {
        let left = section.size - base - kept as u64;
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len() - kept);
        let at = section.offset.checked_add(base + kept as u64);
        let at = at.ok_or_else(|| ElfError::Malformed(format!("{} lies outside the file", section.name)))?;
        elf.budget().read(len as u64)?;
        elf.source().read_exact_at(&mut buffer[kept..kept + len], at)?;
        let (filled, last) = (kept + len, len as u64 == left);
        if filled == 0 {
            return Ok(());
        }
        let used = visit(base, &buffer[..filled], last)?;
        if last {
            return Ok(());
        }
        // No progress: what fills the whole buffer is skipped.
        let used = if used == 0 { filled } else { used.min(filled) };
        buffer.copy_within(used..filled, 0);
        base += used as u64;
        kept = filled - used;
    }
}

/// Feeds a section through a buffer of its own; `visit` says how much of the piece it used, the rest comes again.
pub(super) fn scan_section<S: Source + ?Sized>(
    elf: &Elf<'_, S>,
    section: &Section,
    mut visit: impl FnMut(&[u8]) -> usize,
) -> Result<(), ElfError> {
    let len = usize::try_from(section.size).unwrap_or(PIECE).min(PIECE);
    in_pieces(elf, section, &mut vec![0_u64; len.div_ceil(8)], |_, piece, _| Ok(visit(piece)))
}

fn matching(mangled: &str, patterns: &[Pattern]) -> Vec<usize> {
    let Some(path) = demangle(mangled).and_then(|name| canonical(&name)) else {
        return Vec::new();
    };
    let matches = |pattern: &Pattern| {
        mangled.contains(pattern.needle)
            && match pattern.path {
                PathMatch::Exact(wanted) => path == wanted,
                PathMatch::Around(head, tail) => {
                    path.len() >= head.len() + tail.len() && path.starts_with(head) && path.ends_with(tail)
                }
            }
    };
    patterns.iter().enumerate().filter(|(_, pattern)| matches(pattern)).map(|(index, _)| index).collect()
}

/// The name without its hash. The demangler stops as soon as the text is full, so that it does no more work than that.
fn demangle(mangled: &str) -> Option<String> {
    struct Short(String);
    impl fmt::Write for Short {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            if self.0.len() + text.len() > MAX_DEMANGLED {
                return Err(fmt::Error);
            }
            self.0.push_str(text);
            Ok(())
        }
    }
    let name = rustc_demangle::try_demangle(mangled).ok()?;
    let mut short = Short(String::new());
    write!(short, "{name:#}").ok()?;
    Some(short.0)
}

/// Brings a demangled name (without hash) of either mangling to one form.
///
/// Generic arguments go; `<T>::f` is `T::f` (v0's inherent methods); `<T as Trait>::f` stays; `m::<impl T>::f` is
/// `T::f` and `m::<impl Trait for T>::f` is `<T as Trait>::f` (legacy's impls away from the type). `None` where the
/// brackets do not match.
#[must_use]
pub fn canonical(name: &str) -> Option<String> {
    canonical_at(name, 0)
}

fn canonical_at(name: &str, depth: usize) -> Option<String> {
    if name.len() > MAX_DEMANGLED || depth > MAX_DEPTH {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(open) = rest.find('<') {
        let (before, from) = rest.split_at(open);
        let close = closing(from)?;
        let (inner, after) = (&from[1..close], &from[close + 1..]);
        out.push_str(before);
        let starts = out.is_empty();
        if let Some(body) = inner.strip_prefix("impl ").filter(|_| out.is_empty() || out.ends_with("::")) {
            out.clear();
            match top_level(body, " for ") {
                Some((of, on)) => push_as(&mut out, on, of, depth)?,
                None => out.push_str(&canonical_at(body, depth + 1)?),
            }
        } else if starts {
            match top_level(inner, " as ") {
                Some((of, on)) => push_as(&mut out, of, on, depth)?,
                None => out.push_str(&canonical_at(inner, depth + 1)?),
            }
        } else if out.ends_with("::") {
            // A turbofish: `f::<T>`.
            out.truncate(out.len() - 2);
        }
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

fn push_as(out: &mut String, on: &str, of: &str, depth: usize) -> Option<()> {
    out.push('<');
    out.push_str(&canonical_at(on, depth + 1)?);
    out.push_str(" as ");
    out.push_str(&canonical_at(of, depth + 1)?);
    out.push('>');
    Some(())
}

/// Index of the `>` that closes the `<` at the start; `->` closes nothing.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut previous) = (0_usize, 0_u8);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' if previous != b'-' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(index);
                }
            }
            _ => {}
        }
        previous = byte;
    }
    None
}

/// Splits at `separator` outside of brackets.
fn top_level<'t>(text: &'t str, separator: &str) -> Option<(&'t str, &'t str)> {
    let mut depth = 0_i32;
    let mut previous = 0_u8;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'<' | b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'>' if previous != b'-' => depth -= 1,
            b' ' if depth == 0 && text[index..].starts_with(separator) => {
                return Some((&text[..index], &text[index + separator.len()..]));
            }
            _ => {}
        }
        previous = byte;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_manglings_come_to_one_form() {
        for (name, wanted) in [
            ("a::b::c", "a::b::c"),
            ("<a::T>::f", "a::T::f"),
            ("a::T<S>::f", "a::T::f"),
            ("<a::T<S>>::f", "a::T::f"),
            ("<a::T<u8, b::V<u8>> as c::Trait<X>>::f", "<a::T as c::Trait>::f"),
            ("m::<impl a::T<S>>::f", "a::T::f"),
            ("m::<impl c::Trait<X> for a::T<S>>::f", "<a::T as c::Trait>::f"),
            ("a::f::<u32>", "a::f"),
            ("a::f::<fn(u8) -> b::V<u8>>::{closure#0}", "a::f::{closure#0}"),
            ("<<a::T as b::U>::V as c::W>::f", "<<a::T as b::U>::V as c::W>::f"),
        ] {
            assert_eq!(canonical(name).as_deref(), Some(wanted), "{name}");
        }
        assert_eq!(canonical("a<b"), None);
    }

    #[test]
    fn names_match_by_path_in_legacy_and_v0() {
        let pattern = Pattern {
            needle: "TaskIdGuard",
            path: PathMatch::Exact("tokio::runtime::task::core::TaskIdGuard::enter"),
            kind: SymbolKind::Function,
        };
        let patterns = [pattern];
        assert_eq!(matching("_ZN5tokio7runtime4task4core11TaskIdGuard5enter17hefbe57620a89e0ffE", &patterns), [0]);
        assert_eq!(
            matching("_RNvMNtNtNtCs1234_5tokio7runtime4task4coreNtB2_11TaskIdGuard5enter", &patterns),
            [0],
            "an inherent method in v0 mangling"
        );
        let drop = "_ZN88_$LT$tokio..runtime..task..core..TaskIdGuard$u20$as$u20$core..ops..drop..Drop$GT$4drop17h0123456789abcdefE";
        assert!(matching(drop, &patterns).is_empty());
        assert!(matching("TaskIdGuard", &patterns).is_empty());
    }

    /// Tuples of two references to the tuple before: some ten bytes per doubling.
    fn nested(levels: usize) -> String {
        // 0 has no digits, 1 is the digit 0.
        let base62 = |place: usize| {
            const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
            let (high, low) = ((place - 1) / 62, (place - 1) % 62);
            let digit = |n: usize| char::from(DIGITS[n]);
            if high == 0 { format!("{}_", digit(low)) } else { format!("{}{}_", digit(high), digit(low)) }
        };
        let mut name = "INvC5tokio5enter".to_owned();
        let mut place = name.len();
        name.push_str("TmmE");
        for _ in 0..levels {
            let reference = base62(place);
            place = name.len();
            name.push_str(&format!("TB{reference}B{reference}E"));
        }
        format!("_R{name}E")
    }

    #[test]
    fn a_name_that_unfolds_without_end_is_given_up_early() {
        // The form is right: one doubling unfolds to what it should.
        assert_eq!(demangle(&nested(1)).as_deref(), Some("tokio::enter::<(u32, u32), ((u32, u32), (u32, u32))>"));
        let name = nested(40);
        assert!(rustc_demangle::try_demangle(&name).is_ok() && name.len() < MAX_NAME);
        assert_eq!(demangle(&name), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_a_canonical_form_or_none(text in "[a-c<>:() \\-]{0,40}|<impl [a-c<> for]{0,30}>") {
            drop(canonical(&text));
        }
    }
}
