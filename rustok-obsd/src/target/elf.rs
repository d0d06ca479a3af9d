//! The frame of an ELF file: sections, segments, notes, translation of addresses.
//!
//! Reads: header tables and small sections, by `pread`. Yields: [`Elf`]. Costs: the header tables in memory (bounded by the
//! [`Budget`], which every read is charged to); nothing is mapped, so that a file truncated under us is an error and not a
//! `SIGBUS`, and a 200 MB binary never counts towards our memory. Format: System V ABI, chapters 4 and 5; `elf(5)`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::{LittleEndian, Pod, pod};

use super::budget::{Budget, TooCostly};

/// Bytes read into memory at once.
const MAX_PIECE: usize = 1 << 20;
/// Program headers; the kernel runs no file whose headers have more than 64 KiB.
const MAX_SEGMENTS: u64 = (64 << 10) / size_of::<ProgramHeader64<LittleEndian>>() as u64;
/// Notes that are looked through for the build id, and bytes of one.
const MAX_NOTES: usize = 32;
const MAX_NOTE: usize = 64 << 10;
/// Bytes of the section names' table, and of one name, that are looked at.
const MAX_SECTION_NAMES: usize = 256 << 10;
const MAX_SECTION_NAME: usize = 256;

/// Bytes that can be read at any offset.
pub trait Source {
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` where the source is shorter, else what the file system says.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn size(&self) -> io::Result<u64>;
}

impl Source for File {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl Source for [u8] {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl Source for Vec<u8> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }
    fn size(&self) -> io::Result<u64> {
        self.as_slice().size()
    }
}

/// Why a file is not an ELF file that we can analyse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Another kind of file, such as a script.
    #[error("not an ELF file")]
    NotElf,
    /// A 32-bit or big-endian file, an object file or a core dump.
    #[error("not a 64-bit little-endian ELF executable or shared object")]
    Unsupported,
    /// The tables contradict the file.
    #[error("malformed ELF file: {0}")]
    Malformed(String),
    /// The file cannot be read.
    #[error("cannot read: {0}")]
    Io(String),
    /// Reading it costs more than real files do.
    #[error("{0}")]
    TooCostly(#[from] TooCostly),
}

impl From<io::Error> for ElfError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Malformed("the file is shorter than its tables say".to_owned()),
            _ => Self::Io(error.to_string()),
        }
    }
}

/// A section header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Name; what is not printable ASCII is escaped.
    pub name: String,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// Address.
    pub address: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// `sh_link`: for a symbol table the index of its strings.
    pub link: u32,
}

/// A program header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// `p_type`.
    pub kind: u32,
    /// `p_flags`.
    pub flags: u32,
    /// Offset in the file.
    pub offset: u64,
    /// Address.
    pub address: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory.
    pub memory_size: u64,
    /// Alignment.
    pub align: u64,
}

/// An ELF file's frame. `S` is a [`File`] or, in tests, bytes.
#[derive(Debug)]
pub struct Elf<'s, S: Source + ?Sized> {
    source: &'s S,
    budget: &'s Budget,
    /// `e_machine`.
    pub machine: u16,
    /// Sections, empty where the file has none.
    pub sections: Vec<Section>,
    /// Segments.
    pub segments: Vec<Segment>,
}

impl<'s, S: Source + ?Sized> Elf<'s, S> {
    /// Reads the header tables.
    ///
    /// # Errors
    /// [`ElfError`]: another format, tables that contradict the file, or too much of them.
    pub fn parse(source: &'s S, budget: &'s Budget) -> Result<Self, ElfError> {
        let mut ident = [0_u8; 6];
        match source.read_exact_at(&mut ident, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ElfError::NotElf);
            }
            other => other?,
        }
        if ident[..4] != elf::ELFMAG {
            return Err(ElfError::NotElf);
        }
        if ident[4] != elf::ELFCLASS64 || ident[5] != elf::ELFDATA2LSB {
            return Err(ElfError::Unsupported);
        }
        let endian = LittleEndian;
        let mut this = Self { source, budget, machine: 0, sections: Vec::new(), segments: Vec::new() };
        let header = this.table::<FileHeader64<LittleEndian>>("file header", 0, 1, 0)?;
        let header = *header.first().ok_or(ElfError::NotElf)?;
        if !matches!(header.e_type.get(endian), elf::ET_EXEC | elf::ET_DYN) {
            return Err(ElfError::Unsupported);
        }
        this.machine = header.e_machine.get(endian);
        this.read_segments(&header)?;
        this.read_sections(&header)?;
        Ok(this)
    }

    fn read_segments(&mut self, header: &FileHeader64<LittleEndian>) -> Result<(), ElfError> {
        let endian = LittleEndian;
        let count = u64::from(header.e_phnum.get(endian));
        if header.e_phoff.get(endian) == 0 || count == 0 {
            return Ok(());
        }
        if count > MAX_SEGMENTS {
            return Err(ElfError::Malformed(format!("{count} program headers, more than the kernel takes")));
        }
        let size = header.e_phentsize.get(endian);
        let table = self.table::<ProgramHeader64<_>>("program headers", header.e_phoff.get(endian), count, size)?;
        let segment = |segment: &ProgramHeader64<LittleEndian>| Segment {
            kind: segment.p_type.get(endian),
            flags: segment.p_flags.get(endian),
            offset: segment.p_offset.get(endian),
            address: segment.p_vaddr.get(endian),
            file_size: segment.p_filesz.get(endian),
            memory_size: segment.p_memsz.get(endian),
            align: segment.p_align.get(endian),
        };
        self.segments = table.iter().map(segment).collect();
        Ok(())
    }

    /// Where the header has no room for the numbers, the first section has them.
    fn read_sections(&mut self, header: &FileHeader64<LittleEndian>) -> Result<(), ElfError> {
        let endian = LittleEndian;
        let (start, size) = (header.e_shoff.get(endian), header.e_shentsize.get(endian));
        if start == 0 {
            return Ok(());
        }
        let first = self.table::<SectionHeader64<LittleEndian>>("section headers", start, 1, size)?;
        let first = *first.first().ok_or(ElfError::NotElf)?;
        let count = match header.e_shnum.get(endian) {
            0 => first.sh_size.get(endian),
            count => count.into(),
        };
        let limit = self.budget.limits().sections;
        if count > limit {
            return Err(TooCostly::Sections { count, limit }.into());
        }
        let table = self.table::<SectionHeader64<LittleEndian>>("section headers", start, count, size)?;
        let names = match header.e_shstrndx.get(endian) {
            elf::SHN_XINDEX => first.sh_link.get(endian),
            index => index.into(),
        };
        let names = match table.get(names as usize).filter(|names| names.sh_type.get(endian) == elf::SHT_STRTAB) {
            Some(names) => {
                let len = usize::try_from(names.sh_size.get(endian)).unwrap_or(usize::MAX).min(MAX_SECTION_NAMES);
                self.bytes_at(names.sh_offset.get(endian), len)?
            }
            None => Vec::new(),
        };
        let name = |at: u32| {
            let name = names.get(at as usize..).unwrap_or_default();
            let name = &name[..name.len().min(MAX_SECTION_NAME)];
            let end = memchr::memchr(0, name).unwrap_or(name.len());
            // It may go into a log: no control characters.
            name[..end].escape_ascii().to_string()
        };
        let section = |section: &SectionHeader64<LittleEndian>| Section {
            name: name(section.sh_name.get(endian)),
            kind: section.sh_type.get(endian),
            flags: section.sh_flags.get(endian),
            address: section.sh_addr.get(endian),
            offset: section.sh_offset.get(endian),
            size: section.sh_size.get(endian),
            link: section.sh_link.get(endian),
        };
        self.sections = table.iter().map(section).collect();
        Ok(())
    }

    /// Reads `count` headers; `stride` is the size of one that the file claims.
    fn table<T: Pod>(&self, what: &str, offset: u64, count: u64, stride: u16) -> Result<Vec<T>, ElfError> {
        if count > 1 && usize::from(stride) != size_of::<T>() {
            return Err(ElfError::Malformed(format!("{what} of {stride} bytes each")));
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let len = count.saturating_mul(size_of::<T>());
        self.admit(offset, len)?;
        // In words: the headers are taken out in place and need their alignment.
        let mut words = vec![0_u64; len.div_ceil(8)];
        let bytes = &mut pod::bytes_of_slice_mut(&mut words)[..len];
        self.source.read_exact_at(bytes, offset)?;
        let table = pod::slice_from_bytes::<T>(bytes, count);
        table.map(|(table, _)| table.to_vec()).map_err(|()| ElfError::Malformed(format!("{what} of {len} bytes")))
    }

    /// What the file was read from.
    #[must_use]
    pub const fn source(&self) -> &'s S {
        self.source
    }

    /// What reading it may still cost.
    #[must_use]
    pub const fn budget(&self) -> &'s Budget {
        self.budget
    }

    /// The first section of that name that has bytes in the file.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name && section.kind != elf::SHT_NOBITS)
    }

    /// The first section of that type.
    #[must_use]
    pub fn section_of_kind(&self, kind: u32) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind)
    }

    /// A section's first bytes, at most `limit`.
    ///
    /// # Errors
    /// As [`Source::read_exact_at`].
    pub fn section_head(&self, section: &Section, limit: usize) -> Result<Vec<u8>, ElfError> {
        let len = usize::try_from(section.size).unwrap_or(usize::MAX).min(limit);
        self.bytes_at(section.offset, len)
    }

    fn bytes_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, ElfError> {
        self.admit(offset, len)?;
        let mut bytes = vec![0; len];
        self.source.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Before the allocation: a mutated size must not cost memory.
    fn admit(&self, offset: u64, len: usize) -> Result<(), ElfError> {
        if len > MAX_PIECE {
            return Err(ElfError::Malformed(format!("a table of {len} bytes")));
        }
        if offset.checked_add(len as u64).is_none_or(|end| self.source.size().map_or(true, |size| end > size)) {
            return Err(ElfError::Malformed("a table lies outside the file".to_owned()));
        }
        Ok(self.budget.read(len as u64)?)
    }

    /// The thread-local segment.
    #[must_use]
    pub fn tls(&self) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.kind == elf::PT_TLS)
    }

    /// The program interpreter (dynamic linker).
    #[must_use]
    pub fn interpreter(&self) -> Option<String> {
        let segment = self.segments.iter().find(|segment| segment.kind == elf::PT_INTERP)?;
        let len = usize::try_from(segment.file_size).ok()?.min(4096);
        let bytes = self.bytes_at(segment.offset, len).ok()?;
        Some(String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next()?).into_owned())
    }

    /// The GNU build id: from the segments, or from the sections of a debug file, whose segments have no bytes.
    #[must_use]
    pub fn build_id(&self) -> Option<Vec<u8>> {
        let segments = self.segments.iter().filter(|segment| segment.kind == elf::PT_NOTE);
        let segments = segments.map(|segment| (segment.offset, segment.file_size, segment.align));
        let sections = self.sections.iter().filter(|section| section.kind == elf::SHT_NOTE);
        let sections = sections.map(|section| (section.offset, section.size, 4));
        segments.chain(sections).take(MAX_NOTES).find_map(|(offset, size, align)| {
            let len = usize::try_from(size).ok()?.min(MAX_NOTE);
            let bytes = self.bytes_at(offset, len).ok()?;
            build_id_note(&bytes, if align == 8 { 8 } else { 4 })
        })
    }

    /// Translates an address to the offset in the file; `execute`: only in executable segments.
    #[must_use]
    pub fn file_offset(&self, address: u64, execute: bool) -> Option<u64> {
        self.segments
            .iter()
            .filter(|segment| segment.kind == elf::PT_LOAD && (!execute || segment.flags & elf::PF_X != 0))
            .find(|segment| address.checked_sub(segment.address).is_some_and(|delta| delta < segment.file_size))
            .and_then(|segment| segment.offset.checked_add(address - segment.address))
    }

    /// Up to `len` bytes at an address, fewer where the segment ends.
    #[must_use]
    pub fn memory(&self, address: u64, len: usize, execute: bool) -> Option<Vec<u8>> {
        let offset = self.file_offset(address, execute)?;
        let end = self
            .segments
            .iter()
            .filter(|segment| segment.kind == elf::PT_LOAD)
            .find(|segment| address.checked_sub(segment.address).is_some_and(|delta| delta < segment.file_size))
            .and_then(|segment| segment.address.checked_add(segment.file_size))?;
        let len = len.min(usize::try_from(end - address).ok()?);
        self.bytes_at(offset, len).ok()
    }
}

fn build_id_note(mut bytes: &[u8], align: usize) -> Option<Vec<u8>> {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(|word| u32::from_le_bytes(word) as usize)
    };
    loop {
        let (name_len, len, kind) = (word(bytes, 0)?, word(bytes, 4)?, word(bytes, 8)?);
        let name = bytes.get(12..12_usize.checked_add(name_len)?)?;
        let start = 12_usize.checked_add(name_len)?.checked_next_multiple_of(align)?;
        let end = start.checked_add(len)?;
        let body = bytes.get(start..end)?;
        if name == b"GNU\0" && kind == elf::NT_GNU_BUILD_ID as usize && (8..=64).contains(&len) {
            return Some(body.to_vec());
        }
        bytes = bytes.get(end.checked_next_multiple_of(align)?..)?;
    }
}
