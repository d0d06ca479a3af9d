//! Whether a function begins where a symbol says, by its machine code.
//!
//! Reads: a function's bytes. Yields: its instructions' boundaries, or the contradiction. Costs: a linear decode of the
//! function, some ten microseconds for a thousand bytes.
//!
//! A uprobe writes a breakpoint over the first byte of an instruction. In the middle of one it would change what the
//! program does: hence the table is believed only where the code agrees. On aarch64, where each instruction has four bytes,
//! an aligned address is a boundary and no more is checked.

use iced_x86::{Decoder, DecoderOptions, Instruction};
use object::elf;

use super::elf::{Elf, Source};
use super::presence::Doubt;

/// Bytes of a function that are kept for the comparison with a process' memory.
pub const HEAD: usize = 16;
/// Longer functions are not probed. The longest of those looked for, in debug builds, has some 20 KiB.
const MAX_FUNCTION: u64 = 256 << 10;
/// What a uprobe, a debugger or another tracer writes over an instruction's first byte on x86-64.
const INT3: u8 = 0xcc;
/// The five-byte instruction that Linux 6.18 turns into a call for a uprobe, and that call.
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
const CALL: u8 = 0xe8;
/// `brk #5`: uprobes on aarch64 (`UPROBES_BRK_IMM`, arch/arm64/include/asm/brk-imm.h).
const BRK: [u8; 4] = 0xd420_00a0_u32.to_le_bytes();

/// A function whose code is read.
#[derive(Debug, Clone)]
pub(super) struct Body {
    /// Where it begins.
    pub start: u64,
    /// The first byte behind it.
    pub end: u64,
    /// Its first bytes.
    pub head: Vec<u8>,
    /// A bit per byte: an instruction begins there. Empty where any aligned address is a boundary.
    boundaries: Vec<u64>,
}

impl Body {
    /// Reads the function at `start`. Without budget it looks as if it lay outside of the file: the caller asks the budget.
    pub(super) fn read<S: Source + ?Sized>(elf: &Elf<'_, S>, start: u64, size: u64) -> Result<Self, Doubt> {
        if size > MAX_FUNCTION {
            return Err(Doubt::TooLong(size));
        }
        let code =
            usize::try_from(size).ok().and_then(|size| elf.memory(start, size, true).filter(|c| c.len() == size));
        let code = code.ok_or(Doubt::Outside)?;
        let end = start.checked_add(size).ok_or(Doubt::Outside)?;
        let head = code[..code.len().min(HEAD)].to_vec();
        let boundaries = if elf.machine == elf::EM_X86_64 {
            decode(&code, start)?
        } else if start.is_multiple_of(4) {
            Vec::new()
        } else {
            return Err(Doubt::Misaligned);
        };
        Ok(Self { start, end, head, boundaries })
    }

    /// Whether an instruction of it begins at an address within it.
    pub(super) fn begins(&self, address: u64) -> bool {
        let Some(at) = address.checked_sub(self.start).filter(|_| address < self.end) else { return false };
        if self.boundaries.is_empty() {
            return at.is_multiple_of(4);
        }
        let word = usize::try_from(at / 64).ok().and_then(|word| self.boundaries.get(word));
        word.is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
}

fn decode(code: &[u8], start: u64) -> Result<Vec<u64>, Doubt> {
    let mut boundaries = vec![0_u64; code.len().div_ceil(64)];
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        let (position, at) = (decoder.position(), decoder.ip());
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            let cut = decoder.last_error() == iced_x86::DecoderError::NoMoreBytes;
            return Err(if cut { Doubt::End(at) } else { Doubt::NoInstruction(at) });
        }
        boundaries[position / 64] |= 1 << (position % 64);
    }
    Ok(boundaries)
}

/// Whether the bytes of a function in a process' memory are those of the file, `code` ([`super::Place::code`]).
///
/// Its first instruction may hold the breakpoint of a uprobe, ours or another tracer's, or the call that newer kernels put
/// in place of a long `nop`; nothing else may differ.
#[must_use]
pub fn agrees_with_memory(code: &[u8], memory: &[u8]) -> bool {
    if code.is_empty() || code.len() != memory.len() {
        return false;
    }
    if code == memory {
        return true;
    }
    let patched = if cfg!(target_arch = "aarch64") {
        if memory.starts_with(&BRK) { BRK.len() } else { 0 }
    } else if code.starts_with(&NOP5) && [INT3, CALL].contains(&memory[0]) {
        NOP5.len()
    } else {
        usize::from(memory[0] == INT3)
    };
    patched > 0 && code[patched..] == memory[patched..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::budget::Budget;
    use crate::target::elf_fixture::{CODE, RELEASE, executable};

    fn read(code: &[u8], start: u64, size: u64) -> Result<Body, Doubt> {
        let (bytes, budget) = (executable(code, &[]), Budget::default());
        Body::read(&Elf::parse(bytes.as_slice(), &budget).unwrap(), start, size)
    }

    #[test]
    fn a_function_is_its_instructions_from_the_first_byte_to_the_last() {
        let body = read(RELEASE, CODE, RELEASE.len() as u64).unwrap();
        let begins: Vec<u64> = (0..9).filter(|at| body.begins(CODE + at)).collect();
        assert_eq!(begins, [0, 2, 3, 4, 7], "push r14; push rbx; push rax; mov rbx, rdi");
        assert!(!body.begins(CODE - 1) && !body.begins(body.end));
        assert_eq!(body.head, RELEASE[..HEAD]);
    }

    #[test]
    fn what_is_no_function_is_refused() {
        let len = RELEASE.len() as u64;
        // Behind the first byte of a two-byte instruction the rest is code too, of another meaning; the end shows it.
        assert_eq!(read(RELEASE, CODE, len - 2).unwrap_err(), Doubt::End(CODE + len - 3));
        // `push es` does not exist in 64-bit mode.
        assert_eq!(read(&[0x90, 0x06, 0xc3], CODE, 3).unwrap_err(), Doubt::NoInstruction(CODE + 1));
        assert_eq!(read(RELEASE, CODE, len + 1).unwrap_err(), Doubt::Outside);
        assert_eq!(read(RELEASE, 0, len).unwrap_err(), Doubt::Outside);
        assert_eq!(read(RELEASE, u64::MAX, len).unwrap_err(), Doubt::Outside);
        assert_eq!(read(RELEASE, CODE, u64::MAX).unwrap_err(), Doubt::TooLong(u64::MAX));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn memory_may_differ_by_a_breakpoint_and_by_nothing_else() {
        let code = &RELEASE[..HEAD];
        let changed = |at: usize, value: u8| {
            let mut memory = code.to_vec();
            memory[at] = value;
            memory
        };
        assert!(agrees_with_memory(code, code) && agrees_with_memory(code, &changed(0, 0xcc)));
        assert!(!agrees_with_memory(code, &changed(0, 0x90)) && !agrees_with_memory(code, &changed(1, 0xcc)));
        assert!(!agrees_with_memory(code, &code[1..]) && !agrees_with_memory(&[], &[]));
        let nop = [&NOP5[..], &[0x90, 0xc3]].concat();
        assert!(agrees_with_memory(&nop, &[0xe8, 1, 2, 3, 4, 0x90, 0xc3]), "the call in place of the nop");
        assert!(agrees_with_memory(&nop, &[0xcc, 1, 2, 3, 4, 0x90, 0xc3]), "on the way to it");
        assert!(!agrees_with_memory(&nop, &[0xe8, 1, 2, 3, 4, 0x91, 0xc3]));
        assert!(!agrees_with_memory(code, &[&[0xe8, 1, 2, 3, 4], &code[5..]].concat()), "no nop, no call");
    }
}
