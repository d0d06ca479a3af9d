//! Thread-local storage of an executable: from a symbol or a GOT entry to an offset from the thread pointer.
//!
//! Reads: `PT_TLS`, and relocations where code goes through the GOT. Yields: offsets. Costs: nothing, or one pass over
//! the relocations. Source: U. Drepper, "ELF Handling For Thread-Local Storage"; lld's `getTlsTpOffset`.

use std::ops::Range;

use object::elf::{self, Rela64};
use object::{LittleEndian, pod};

use super::elf::{Elf, Source};
use super::symbols::scan_section;

/// Where `len` bytes at `offset` of the thread-local block lie from the thread pointer, by the ABI of the machine.
///
/// x86-64 (variant II) puts the executable's block below the pointer, aarch64 (variant I) above it after a 16-byte
/// header. `None` for another machine or a range outside of the block.
#[must_use]
pub fn range<S: Source + ?Sized>(elf: &Elf<'_, S>, offset: u64, len: u64) -> Option<Range<i64>> {
    let segment = elf.tls()?;
    if offset.checked_add(len)? > segment.memory_size || segment.memory_size > i64::MAX as u64 / 4 {
        return None;
    }
    let mask = segment.align.max(1).checked_next_power_of_two()? - 1;
    let base = match elf.machine {
        elf::EM_X86_64 => {
            let padding = segment.address.wrapping_add(segment.memory_size).wrapping_neg() & mask;
            i64::try_from(segment.memory_size.checked_add(padding)?).ok()?.checked_neg()?
        }
        elf::EM_AARCH64 => i64::try_from(16 + (segment.address.wrapping_sub(16) & mask)).ok()?,
        _ => return None,
    };
    let start = base.checked_add(i64::try_from(offset).ok()?)?;
    Some(start..start.checked_add(i64::try_from(len).ok()?)?)
}

/// The thread-pointer offset that the dynamic linker will put into a GOT entry of the executable (`R_X86_64_TPOFF64`
/// against its own block), or that the static linker has put there.
#[must_use]
pub fn got_entry<S: Source + ?Sized>(elf: &Elf<'_, S>, address: u64) -> Option<i64> {
    const ENTRY: usize = size_of::<Rela64<LittleEndian>>();
    let endian = LittleEndian;
    let mut relocated = None;
    for section in elf.sections.iter().filter(|section| section.kind == elf::SHT_RELA) {
        scan_section(elf, section, |piece| {
            let count = piece.len() / ENTRY;
            if let Ok((entries, _)) = pod::slice_from_bytes::<Rela64<LittleEndian>>(piece, count)
                && let Some(entry) = entries.iter().find(|entry| entry.r_offset.get(endian) == address)
            {
                relocated = Some((entry.r_info.get(endian), entry.r_addend.get(endian)));
            }
            count * ENTRY
        })
        .ok()?;
    }
    match relocated {
        // Symbol 0: the block of this file; the addend is the offset in it.
        Some((info, addend)) if info == u64::from(elf::R_X86_64_TPOFF64) => {
            Some(range(elf, u64::try_from(addend).ok()?, 8)?.start)
        }
        Some(_) => None,
        None if elf.interpreter().is_none() => {
            let bytes = elf.memory(address, 8, false)?;
            let offset = i64::from_le_bytes(bytes.try_into().ok()?);
            let block = range(elf, 0, elf.tls()?.memory_size)?;
            block.contains(&offset).then_some(offset)
        }
        None => None,
    }
}
