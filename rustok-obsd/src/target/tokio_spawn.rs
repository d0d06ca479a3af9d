//! Where Tokio tells a task's id: the offset of `id_offset` in the task's vtable.
//!
//! Reads: the machine code of `OwnedTasks::bind_inner(&self, task, …)`, which reads the id to find the task's shard.
//! Yields: the place. Costs: some forty decoded instructions per copy. What the code does not tell is taken from the
//! layout that all versions since 1.21 have, and proved or given up by the ids that come of it.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use object::elf;

use super::elf::{Elf, Source};
use super::symbols::Symbol;

/// `tokio::runtime::task::raw::Vtable`: seven functions, the offsets of trailer and scheduler, then that of the id.
const USUAL: u16 = 0x48;
/// The task's header, second argument: its word at 0x10 is the vtable's address.
const VTABLE: u64 = 0x10;
/// Longer vtables are none.
const MOST: u64 = 0x100;
const MAX_STEPS: usize = 64;
const MAX_CODE: usize = 512;

/// The place in the vtable; the usual one where no copy of the code tells another.
#[must_use]
pub fn id_place<S: Source + ?Sized>(elf: &Elf<'_, S>, bind: &[Symbol]) -> u16 {
    if elf.machine != elf::EM_X86_64 {
        return USUAL;
    }
    bind.iter().find_map(|symbol| read(elf, symbol)).unwrap_or(USUAL)
}

/// Follows the header through register copies: `mov vtable, [header + 0x10]`, `mov offset, [vtable + PLACE]`, then a read
/// at `[header + offset]`.
fn read<S: Source + ?Sized>(elf: &Elf<'_, S>, symbol: &Symbol) -> Option<u16> {
    let size = usize::try_from(symbol.size).unwrap_or(MAX_CODE).min(MAX_CODE);
    let code = elf.memory(symbol.address, size, true)?;
    let mut headers = vec![Register::RSI];
    let (mut vtable, mut offset) = (None, None);
    let decoder = Decoder::with_ip(64, &code, symbol.address, DecoderOptions::NONE);
    for instruction in decoder.into_iter().take(MAX_STEPS) {
        if instruction.is_invalid() {
            return None;
        }
        if let (Some((register, place)), true) = (offset, reads_memory(&instruction)) {
            let parts = [instruction.memory_base(), instruction.memory_index()];
            if parts.contains(&register) && parts.iter().any(|part| headers.contains(part)) {
                return u16::try_from(place).ok();
            }
        }
        if instruction.mnemonic() != Mnemonic::Mov || instruction.op0_kind() != OpKind::Register {
            continue;
        }
        let to = instruction.op0_register();
        if instruction.op1_kind() == OpKind::Register {
            if headers.contains(&instruction.op1_register()) {
                headers.push(to);
            }
        } else if reads_memory(&instruction) && instruction.memory_index() == Register::None {
            let (base, place) = (instruction.memory_base(), instruction.memory_displacement64());
            if headers.contains(&base) && place == VTABLE {
                vtable = Some(to);
            } else if vtable == Some(base) && place < MOST && place % 8 == 0 {
                offset = Some((to, place));
            }
        }
    }
    None
}

fn reads_memory(instruction: &Instruction) -> bool {
    instruction.op_kinds().any(|kind| kind == OpKind::Memory)
}
