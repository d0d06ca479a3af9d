//! The frame of an ELF file: sections, segments, notes, translation of addresses.
//!
//! Reads: header tables and small sections, by `pread`. Yields: [`Elf`]. Costs: the header tables in memory (bounded);
//! nothing is mapped, so that a file truncated under us is an error and not a `SIGBUS`, and a 200 MB binary never
//! counts towards our memory. Format: System V ABI, chapters 4 and 5; `elf(5)`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian, ReadCache, ReadCacheOps};

/// Header tables, notes and names larger than this are refused.
const MAX_TABLE: usize = 8 << 20;

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
}

impl From<object::read::Error> for ElfError {
    fn from(error: object::read::Error) -> Self {
        Self::Malformed(error.to_string())
    }
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
    /// Name; non-UTF-8 bytes replaced.
    pub name: String,
    /// `sh_type`.
    pub kind: u32,
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
    /// [`ElfError`]: another format, or tables that contradict the file.
    pub fn parse(source: &'s S) -> Result<Self, ElfError> {
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
        let cache = ReadCache::new(Stream { source, position: 0 });
        let header = FileHeader64::<LittleEndian>::parse(&cache)?;
        let endian = LittleEndian;
        if !matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) {
            return Err(ElfError::Unsupported);
        }
        let segments = header
            .program_headers(endian, &cache)?
            .iter()
            .map(|segment| Segment {
                kind: segment.p_type(endian),
                flags: segment.p_flags(endian),
                offset: segment.p_offset(endian),
                address: segment.p_vaddr(endian),
                file_size: segment.p_filesz(endian),
                memory_size: segment.p_memsz(endian),
                align: segment.p_align(endian),
            })
            .collect();
        let table = header.sections(endian, &cache)?;
        let sections = table
            .iter()
            .map(|section| Section {
                name: table
                    .section_name(endian, section)
                    .map(|name| String::from_utf8_lossy(name).into_owned())
                    .unwrap_or_default(),
                kind: section.sh_type(endian),
                offset: section.sh_offset(endian),
                size: section.sh_size(endian),
                link: section.sh_link(endian),
            })
            .collect();
        Ok(Self { source, machine: header.e_machine(endian), sections, segments })
    }

    /// What the file was read from.
    #[must_use]
    pub const fn source(&self) -> &'s S {
        self.source
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
        let len = usize::try_from(section.size).unwrap_or(usize::MAX).min(limit).min(MAX_TABLE);
        self.bytes_at(section.offset, len)
    }

    fn bytes_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, ElfError> {
        // Before the allocation: a mutated size must not cost memory.
        if offset.checked_add(len as u64).is_none_or(|end| self.source.size().map_or(true, |size| end > size)) {
            return Err(ElfError::Malformed("a table lies outside the file".to_owned()));
        }
        let mut bytes = vec![0; len];
        self.source.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
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

    /// The GNU build id.
    #[must_use]
    pub fn build_id(&self) -> Option<Vec<u8>> {
        self.segments.iter().filter(|segment| segment.kind == elf::PT_NOTE).find_map(|segment| {
            let len = usize::try_from(segment.file_size).ok()?.min(64 << 10);
            let bytes = self.bytes_at(segment.offset, len).ok()?;
            let align = if segment.align == 8 { 8 } else { 4 };
            build_id_note(&bytes, align)
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
        let len = len.min(usize::try_from(end - address).ok()?).min(MAX_TABLE);
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

/// Adapts a [`Source`] to `object`, refusing large tables.
struct Stream<'s, S: ?Sized> {
    source: &'s S,
    position: u64,
}

impl<S: Source + ?Sized> ReadCacheOps for Stream<'_, S> {
    fn len(&mut self) -> Result<u64, ()> {
        self.source.size().map_err(drop)
    }
    fn seek(&mut self, position: u64) -> Result<u64, ()> {
        self.position = position;
        Ok(position)
    }
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ()> {
        let left = self.len()?.saturating_sub(self.position);
        let len = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.read_exact(buf.get_mut(..len).ok_or(())?)?;
        Ok(len)
    }
    fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ()> {
        if buf.len() > MAX_TABLE {
            return Err(());
        }
        self.source.read_exact_at(buf, self.position).map_err(drop)?;
        self.position = self.position.checked_add(buf.len() as u64).ok_or(())?;
        Ok(())
    }
}
