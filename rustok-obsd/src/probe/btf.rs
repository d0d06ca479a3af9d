//! Reads the kernel's type information (BTF).
//!
//! Reads: `/sys/kernel/btf/vmlinux`; format: Documentation/bpf/btf.rst, include/uapi/linux/btf.h. Yields: structures,
//! enumerations, typedefs and function prototypes by name. Costs: one pass over 5 MB; the file is held while it is asked.
//!
//! Own code, since aya keeps its reader's types to itself and other readers of the registry are under the LGPL.

use std::{fs, io, path::Path};

const MAGIC: u16 = 0xeb9f;
/// `struct btf_type` without what follows it.
const TYPE: usize = 12;

/// Kinds of types that are asked for (`BTF_KIND_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer.
    Int,
    /// A pointer.
    Pointer,
    /// A structure.
    Struct,
    /// A union.
    Union,
    /// An enumeration with values of 32 bits.
    Enum,
    /// Another name of a type.
    Typedef,
    /// `const`, `volatile`, `restrict`, a type tag: looked through.
    Qualifier,
    /// A function's type.
    Function,
    /// Anything else.
    Other,
}

/// The types of a kernel.
pub struct Btf {
    data: Vec<u8>,
    /// Where each type begins in `data`; type 0 is `void`.
    types: Vec<u32>,
    strings: usize,
}

/// One type.
#[derive(Clone, Copy, Debug)]
pub struct Type<'a> {
    btf: &'a Btf,
    at: usize,
    /// Its kind.
    pub kind: Kind,
}

/// A member of a structure or union.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Empty for anonymous structures and unions.
    pub name: &'a [u8],
    /// Offset in bits.
    pub bits: u32,
    /// Width in bits of a bit field, else 0.
    pub width: u32,
    /// Type id.
    pub id: u32,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no BTF: {what}"))
}

impl Btf {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read or is no BTF of this machine's byte order.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::parse(fs::read(path)?)
    }

    /// Takes the file's bytes.
    ///
    /// # Errors
    /// They are no BTF of this machine's byte order.
    pub fn parse(data: Vec<u8>) -> io::Result<Self> {
        let magic = data.get(..2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        if magic != Some(MAGIC) {
            return Err(invalid("wrong magic number"));
        }
        // struct btf_header: hdr_len at 4, then type_off, type_len, str_off, str_len.
        let word = |at| word(&data, at).map(|value| value as usize).ok_or_else(|| invalid("the header is cut"));
        let (head, type_off, type_len, str_off, str_len) = (word(4)?, word(8)?, word(12)?, word(16)?, word(20)?);
        let (start, strings) = (head + type_off, head + str_off);
        if start + type_len > data.len() || strings + str_len > data.len() {
            return Err(invalid("the file is cut"));
        }
        let mut types = vec![0];
        let mut at = start;
        while at < start + type_len {
            types.push(u32::try_from(at).map_err(|_| invalid("too large"))?);
            at += TYPE + following(&data, at).ok_or_else(|| invalid("a type of unknown kind"))?;
        }
        Ok(Self { data, types, strings })
    }

    /// The type of an id; `None` for `void` and ids that are none.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<Type<'_>> {
        let at = *self.types.get(id as usize).filter(|_| id != 0)? as usize;
        let kind = match info(&self.data, at)?.0 {
            1 => Kind::Int,
            2 => Kind::Pointer,
            4 => Kind::Struct,
            5 => Kind::Union,
            6 => Kind::Enum,
            8 => Kind::Typedef,
            9..=11 | 18 => Kind::Qualifier,
            13 => Kind::Function,
            _ => Kind::Other,
        };
        Some(Type { btf: self, at, kind })
    }

    /// The first type of this kind and name.
    #[must_use]
    pub fn find(&self, kind: Kind, name: &str) -> Option<Type<'_>> {
        let ids = 1..u32::try_from(self.types.len()).ok()?;
        ids.filter_map(|id| self.get(id)).find(|found| found.kind == kind && found.name() == name.as_bytes())
    }

    /// What an id is without typedefs and qualifiers.
    #[must_use]
    pub fn bare(&self, id: u32) -> Option<Type<'_>> {
        let mut found = self.get(id)?;
        // A cycle would be a broken file.
        for _ in 0..32 {
            if !matches!(found.kind, Kind::Typedef | Kind::Qualifier) {
                return Some(found);
            }
            found = self.get(found.target())?;
        }
        None
    }

    fn string(&self, offset: u32) -> &[u8] {
        let rest = self.data.get(self.strings + offset as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

impl<'a> Type<'a> {
    /// Name, empty for anonymous types.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.btf.string(word(&self.btf.data, self.at).unwrap_or(0))
    }

    /// Type that a pointer, typedef or qualifier is of.
    #[must_use]
    pub fn target(&self) -> u32 {
        word(&self.btf.data, self.at + 8).unwrap_or(0)
    }

    /// Bytes of an integer, structure or union.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.target()
    }

    /// Members of a structure or union.
    pub fn members(&self) -> impl Iterator<Item = Member<'a>> + use<'a> {
        let Self { btf, at, kind } = *self;
        let (_, count, bit_fields) = info(&btf.data, at).unwrap_or((0, 0, false));
        let count = if matches!(kind, Kind::Struct | Kind::Union) { count } else { 0 };
        (0..count).map_while(move |index| {
            let at = at + TYPE + 12 * index;
            let (name, id, offset) = (word(&btf.data, at)?, word(&btf.data, at + 4)?, word(&btf.data, at + 8)?);
            let (bits, width) = if bit_fields { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            Some(Member { name: btf.string(name), bits, width, id })
        })
    }

    /// Names and values of an enumeration.
    pub fn values(&self) -> impl Iterator<Item = (&'a [u8], u32)> + use<'a> {
        let Self { btf, at, kind } = *self;
        let count = if kind == Kind::Enum { info(&btf.data, at).map_or(0, |info| info.1) } else { 0 };
        (0..count).map_while(move |index| {
            let at = at + TYPE + 8 * index;
            Some((btf.string(word(&btf.data, at)?), word(&btf.data, at + 4)?))
        })
    }

    /// Type ids of a function's parameters.
    pub fn parameters(&self) -> impl Iterator<Item = u32> + use<'a> {
        let Self { btf, at, kind } = *self;
        let count = if kind == Kind::Function { info(&btf.data, at).map_or(0, |info| info.1) } else { 0 };
        (0..count).map_while(move |index| word(&btf.data, at + TYPE + 8 * index + 4))
    }
}

impl std::fmt::Debug for Btf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Btf({} types)", self.types.len())
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Kind, count and flag of a type.
fn info(data: &[u8], at: usize) -> Option<(u32, usize, bool)> {
    let info = word(data, at + 4)?;
    Some((info >> 24 & 0x1f, (info & 0xffff) as usize, info >> 31 == 1))
}

/// Bytes behind a type's first twelve.
fn following(data: &[u8], at: usize) -> Option<usize> {
    let (kind, count, _) = info(data, at)?;
    Some(match kind {
        // int, var, decl_tag
        1 | 14 | 17 => 4,
        // array
        3 => 12,
        // struct, union, datasec, enum64
        4 | 5 | 15 | 19 => 12 * count,
        // enum, func_proto
        6 | 13 => 8 * count,
        // ptr, fwd, typedef, volatile, const, restrict, func, float, type_tag
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One `struct a { u32 b; struct { u16 c:3; }; }` and what it needs.
    fn sample() -> Vec<u8> {
        let strings = b"\0u32\0a\0b\0c\0";
        let mut types: Vec<u32> = vec![1, 1 << 24, 4, 32];
        // The inner struct has bit fields (flag 31).
        types.extend([0, 1 << 31 | 4 << 24 | 1, 4, 9, 1, 3 << 24 | 5]);
        types.extend([5, 4 << 24 | 2, 8, 7, 1, 0, 0, 2, 32]);
        let mut data = Vec::new();
        data.extend(MAGIC.to_ne_bytes());
        data.extend([1, 0]);
        let type_len = 4 * types.len() as u32;
        for word in [24, 0, type_len, type_len, strings.len() as u32] {
            data.extend(word.to_ne_bytes());
        }
        types.iter().for_each(|word| data.extend(word.to_ne_bytes()));
        data.extend(strings);
        data
    }

    #[test]
    fn members_carry_offsets_and_the_width_of_bit_fields() {
        let btf = Btf::parse(sample()).unwrap();
        let found = btf.find(Kind::Struct, "a").unwrap();
        let members: Vec<_> = found.members().map(|m| (m.name, m.bits, m.width, m.id)).collect();
        assert_eq!(members, [(&b"b"[..], 0, 0, 1), (&b""[..], 32, 0, 2)]);
        let inner: Vec<_> = btf.bare(2).unwrap().members().map(|m| (m.name, m.bits, m.width)).collect();
        assert_eq!(inner, [(&b"c"[..], 5, 3)]);
        assert_eq!((btf.get(1).unwrap().name(), btf.get(1).unwrap().size()), (&b"u32"[..], 4));
        assert!(btf.find(Kind::Union, "a").is_none() && btf.get(0).is_none() && btf.get(4).is_none());
    }

    #[test]
    fn a_cut_file_and_other_bytes_are_errors_and_never_a_panic() {
        let whole = sample();
        for len in 0..whole.len() {
            assert!(Btf::parse(whole[..len].to_vec()).is_err(), "{len}");
        }
        for at in 24..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            if let Ok(btf) = Btf::parse(broken) {
                let _ = btf.find(Kind::Struct, "a").map(|found| found.members().count());
            }
        }
    }
}
