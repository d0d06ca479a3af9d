//! Where functions begin by the compiler's unwind table: a witness that does not depend on the symbol table.
//!
//! Reads: `.eh_frame_hdr` (`PT_GNU_EH_FRAME`), which survives `strip`, by some twenty small reads per address. Yields: whether
//! an address is the middle of a function. Costs: the reads. Format: Linux Standard Base, "Exception Frames"; only the
//! encodings that linkers write are read (binary search table of 4-byte offsets); another one is no witness.

use object::elf;

use super::elf::{Elf, Source};

/// Version 1; pointer to `.eh_frame` in any encoding of four bytes; count `udata4`; table `datarel | sdata4`.
const COUNT_UDATA4: u8 = 0x03;
const TABLE_DATAREL_SDATA4: u8 = 0x3b;
const HEAD: u64 = 12;
const ENTRY: u64 = 8;

/// The table's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnwindTable {
    /// Address of the header, that the entries are relative to.
    base: u64,
    entries: u64,
}

/// What the table says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Witness {
    /// A function begins there.
    Start,
    /// It is in the middle of the function that begins at this address.
    Within(u64),
    /// It is in none: code without unwind information.
    Nothing,
}

impl UnwindTable {
    pub(super) fn find<S: Source + ?Sized>(elf: &Elf<'_, S>) -> Option<Self> {
        let segment = elf.segments.iter().find(|segment| segment.kind == elf::PT_GNU_EH_FRAME)?;
        let head = elf.memory(segment.address, HEAD as usize, false)?;
        let (&[version, _, count, table], rest) = head.split_first_chunk()?;
        if (version, count, table) != (1, COUNT_UDATA4, TABLE_DATAREL_SDATA4) {
            return None;
        }
        let entries = u64::from(u32::from_le_bytes(*rest.last_chunk()?));
        let fits = segment.file_size.checked_sub(HEAD).is_some_and(|bytes| bytes / ENTRY >= entries);
        (fits && entries > 0).then_some(Self { base: segment.address, entries })
    }

    pub(super) fn at<S: Source + ?Sized>(&self, elf: &Elf<'_, S>, address: u64) -> Witness {
        let (mut low, mut high) = (0, self.entries);
        // The last entry at or before the address.
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(elf, middle) {
                Some((start, _)) if start <= address => low = middle + 1,
                Some(_) => high = middle,
                None => return Witness::Nothing,
            }
        }
        let Some((start, record)) = low.checked_sub(1).and_then(|index| self.entry(elf, index)) else {
            return Witness::Nothing;
        };
        if start == address {
            return Witness::Start;
        }
        match length(elf, start, record) {
            Some(length) if address - start < length => Witness::Within(start),
            _ => Witness::Nothing,
        }
    }

    /// Address of a function and of its record.
    fn entry<S: Source + ?Sized>(&self, elf: &Elf<'_, S>, index: u64) -> Option<(u64, u64)> {
        let bytes = elf.memory(self.base.checked_add(HEAD + ENTRY * index)?, ENTRY as usize, false)?;
        let (start, record) = bytes.split_at_checked(4)?;
        let at = |bytes: &[u8]| Some(self.base.wrapping_add_signed(i32::from_le_bytes(bytes.try_into().ok()?).into()));
        Some((at(start)?, at(record)?))
    }
}

/// Bytes of the function that a record is about. Its begin and length are four bytes each, the begin relative to itself
/// (`pcrel | sdata4`), in all files that linkers make of compilers' output; where it is otherwise, the begin is another one
/// than the table's and the record says nothing.
fn length<S: Source + ?Sized>(elf: &Elf<'_, S>, start: u64, record: u64) -> Option<u64> {
    let begin = record.checked_add(8)?;
    let bytes = elf.memory(begin, 8, false)?;
    let (relative, length) = bytes.split_first_chunk()?;
    let same = begin.wrapping_add_signed(i32::from_le_bytes(*relative).into()) == start;
    same.then(|| u32::from_le_bytes(length.try_into().unwrap_or_default()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::budget::Budget;

    /// This program's own functions, by the addresses that it has of them.
    #[test]
    fn the_table_of_this_program_knows_its_functions() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let budget = Budget::default();
        let elf = Elf::parse(&file, &budget).unwrap();
        let table = UnwindTable::find(&elf).expect("a table");
        let (first, _) = table.entry(&elf, 0).unwrap();
        let (last, record) = table.entry(&elf, table.entries - 1).unwrap();
        assert!(table.entries > 1000 && first < last);
        assert_eq!((table.at(&elf, first), table.at(&elf, last)), (Witness::Start, Witness::Start));
        let end = last + length(&elf, last, record).unwrap();
        assert_eq!(table.at(&elf, end - 1), if end - 1 == last { Witness::Start } else { Witness::Within(last) });
        assert_eq!((table.at(&elf, end), table.at(&elf, first - 1)), (Witness::Nothing, Witness::Nothing));
        assert_eq!((table.at(&elf, 0), table.at(&elf, u64::MAX)), (Witness::Nothing, Witness::Nothing));
    }
}
