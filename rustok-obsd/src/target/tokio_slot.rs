//! Where Tokio keeps the id of the task that a thread polls: an offset from the thread pointer.
//!
//! Reads: the machine code of `tokio::runtime::task::core::TaskIdGuard::enter(id)`, which stores its argument there.
//! Yields: [`TaskSlot`]. Costs: some hundred decoded instructions per binary. The code is executed symbolically: both
//! ways of a branch, direct calls that pass the id on; a value is known to be the argument, the thread pointer plus a
//! constant, a constant, or nothing is known of it. Only one single place for all stores counts; everything else is
//! left to calibration ([`super::calibrate`]).

use std::collections::BTreeSet;
use std::ops::Range;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use object::elf;
use rustc_hash::FxHashSet;

use super::elf::{Elf, Source};
use super::symbols::Symbol;
use super::tls;

/// Instructions over all paths; the function has some twenty.
const MAX_STEPS: usize = 2000;
/// Calls followed into each other.
const MAX_CALLS: u8 = 3;
/// Bytes of one function.
const MAX_CODE: usize = 4096;
/// Thread-local bytes that calibration may look through where `CONTEXT` has no symbol.
const MAX_AREA: u64 = 16 << 10;

/// Where the task id is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskSlot {
    /// Offset from the thread pointer (`fsbase`, `tpidr_el0`) of the 8-byte word; 0 there means no task.
    Known(i64),
    /// To be found by watching calls of `TaskIdGuard::enter`.
    NeedsCalibration {
        /// File offsets of `enter`, for the uprobe.
        enter_offsets: Vec<u64>,
        /// Offsets from the thread pointer where the word can be.
        areas: Vec<Range<i64>>,
        /// Why the code did not tell.
        reason: String,
    },
    /// The id cannot be had.
    Absent {
        /// Why.
        reason: String,
    },
}

/// Finds the slot. `enter`: every copy of the function; `context`: every `CONTEXT` of Tokio.
#[must_use]
pub fn find<S: Source + ?Sized>(elf: &Elf<'_, S>, enter: &[Symbol], context: &[Symbol]) -> TaskSlot {
    let enter_offsets: Vec<u64> = enter.iter().filter_map(|symbol| elf.file_offset(symbol.address, true)).collect();
    if enter_offsets.is_empty() {
        return TaskSlot::Absent { reason: "TaskIdGuard::enter is not in the symbol table".to_owned() };
    }
    let areas = areas(elf, context);
    let reason = match elf.machine {
        elf::EM_X86_64 => match disassemble(elf, enter) {
            // A slot outside of CONTEXT would be a misreading.
            Ok(slot)
                if areas
                    .iter()
                    .any(|area| area.start <= slot && slot.checked_add(8).is_some_and(|end| end <= area.end)) =>
            {
                return TaskSlot::Known(slot);
            }
            Ok(slot) => format!("the code stores the id at {slot:#x}, outside of CONTEXT"),
            Err(reason) => reason,
        },
        elf::EM_AARCH64 => "the code of aarch64 is not read".to_owned(),
        machine => return TaskSlot::Absent { reason: format!("machine {machine} is not supported") },
    };
    if areas.is_empty() {
        return TaskSlot::Absent { reason: format!("{reason}, and the binary has no thread-local CONTEXT") };
    }
    TaskSlot::NeedsCalibration { enter_offsets, areas, reason }
}

/// `CONTEXT`'s places, else the whole thread-local block where it is small.
fn areas<S: Source + ?Sized>(elf: &Elf<'_, S>, context: &[Symbol]) -> Vec<Range<i64>> {
    let mut areas: Vec<_> =
        context.iter().filter_map(|symbol| tls::range(elf, symbol.address, symbol.size.min(MAX_AREA))).collect();
    if areas.is_empty()
        && let Some(segment) = elf.tls()
        && segment.memory_size <= MAX_AREA
    {
        areas.extend(tls::range(elf, 0, segment.memory_size));
    }
    areas
}

fn disassemble<S: Source + ?Sized>(elf: &Elf<'_, S>, enter: &[Symbol]) -> Result<i64, String> {
    let mut slots = BTreeSet::new();
    for symbol in enter {
        let mut run = Run { elf, slots: BTreeSet::new(), unclear: None, steps: 0, seen: FxHashSet::default() };
        run.function(symbol.address, usize::try_from(symbol.size).unwrap_or(MAX_CODE), State::start(), 0);
        match (run.unclear, run.slots.len()) {
            (Some(reason), _) => return Err(reason),
            (None, 0) => return Err("TaskIdGuard::enter does not store its argument itself".to_owned()),
            (None, _) => slots.extend(run.slots),
        }
    }
    match (slots.first(), slots.len()) {
        (Some(&slot), 1) => Ok(slot),
        _ => Err(format!("the id is stored in {} places: {slots:#x?}", slots.len())),
    }
}

/// What is known of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Value {
    Unknown,
    /// The id.
    Argument,
    /// Thread pointer plus a constant.
    Thread(i64),
    /// Stack pointer at entry plus something: a spill is no slot.
    Stack,
    Constant(i64),
}

/// The sixteen general registers, by encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State([Value; 16]);

impl State {
    fn start() -> Self {
        let mut state = Self([Value::Unknown; 16]);
        state.set(Register::RDI, Value::Argument);
        state.set(Register::RSP, Value::Stack);
        state
    }

    fn get(&self, register: Register) -> Value {
        index(register).map_or(Value::Unknown, |index| self.0[index])
    }

    /// Sets the whole register that `register` is part of.
    fn set(&mut self, register: Register, value: Value) {
        if let Some(index) = index(register.full_register()) {
            self.0[index] = value;
        }
    }

    /// After a call only the callee-saved registers of the System V ABI keep their values.
    fn call(&mut self) {
        use Register::{R8, R9, R10, R11, RAX, RCX, RDI, RDX, RSI};
        for register in [RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11] {
            self.set(register, Value::Unknown);
        }
    }
}

fn index(register: Register) -> Option<usize> {
    register.is_gpr64().then(|| register as usize - Register::RAX as usize)
}

struct Run<'r, 's, S: Source + ?Sized> {
    elf: &'r Elf<'s, S>,
    slots: BTreeSet<i64>,
    unclear: Option<String>,
    steps: usize,
    seen: FxHashSet<(u64, State)>,
}

impl<S: Source + ?Sized> Run<'_, '_, S> {
    fn function(&mut self, start: u64, size: usize, state: State, calls: u8) {
        let Some(code) = self.elf.memory(start, size.min(MAX_CODE), true) else {
            self.unclear = Some(format!("there is no code at {start:#x}"));
            return;
        };
        let range = start..start.saturating_add(code.len() as u64);
        let mut info = InstructionInfoFactory::new();
        let mut paths = vec![(start, state)];
        while let Some((mut at, mut state)) = paths.pop() {
            while range.contains(&at) && self.seen.insert((at, state)) {
                self.steps += 1;
                if self.steps > MAX_STEPS {
                    self.unclear = Some("TaskIdGuard::enter is too long to follow".to_owned());
                    return;
                }
                let mut decoder = Decoder::with_ip(64, &code[(at - start) as usize..], at, DecoderOptions::NONE);
                let instruction = decoder.decode();
                if instruction.is_invalid() {
                    self.unclear = Some(format!("there is no instruction at {at:#x}"));
                    return;
                }
                match instruction.flow_control() {
                    FlowControl::Next => self.step(&instruction, &mut state, &mut info),
                    FlowControl::ConditionalBranch => paths.push((instruction.near_branch_target(), state)),
                    FlowControl::UnconditionalBranch if range.contains(&instruction.near_branch_target()) => {
                        at = instruction.near_branch_target();
                        continue;
                    }
                    // A call out, or a tail call.
                    FlowControl::Call | FlowControl::UnconditionalBranch => {
                        self.call(instruction.near_branch_target(), state, calls);
                        if instruction.flow_control() == FlowControl::UnconditionalBranch {
                            break;
                        }
                        state.call();
                    }
                    FlowControl::IndirectCall => state.call(),
                    // Return, trap, or a jump that we cannot follow: the stores that it hides are caught by the
                    // comparison with CONTEXT and by the check of the values at run time.
                    _ => break,
                }
                at = instruction.next_ip();
            }
        }
    }

    /// Follows a direct call that passes the id on.
    fn call(&mut self, target: u64, mut state: State, calls: u8) {
        if calls < MAX_CALLS && state.get(Register::RDI) == Value::Argument {
            state.set(Register::RSP, Value::Stack);
            self.function(target, MAX_CODE, state, calls + 1);
        }
    }

    fn step(&mut self, instruction: &Instruction, state: &mut State, info: &mut InstructionInfoFactory) {
        self.store(instruction, state);
        let result = self.result(instruction, state);
        // Whatever else the instruction writes is unknown now, implicit operands included.
        for used in info.info(instruction).used_registers() {
            let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
            if writes && used.register().is_gpr() && used.register().full_register() != Register::RSP {
                state.set(used.register(), Value::Unknown);
            }
        }
        if let Some(value) = result {
            state.set(instruction.op0_register(), value);
        }
        // Frames are set up by `mov rbp, rsp` and aligned by `and`: still the stack.
        state.set(Register::RSP, Value::Stack);
    }

    /// Notes where the id is stored.
    fn store(&mut self, instruction: &Instruction, state: &State) {
        let stores = matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Xchg | Mnemonic::Movnti)
            && instruction.op0_kind() == OpKind::Memory
            && instruction.op1_kind() == OpKind::Register
            && state.get(instruction.op1_register()) == Value::Argument;
        if !stores {
            return;
        }
        match address(instruction, state) {
            Value::Thread(offset) => drop(self.slots.insert(offset)),
            Value::Stack => {}
            // Page zero is never mapped: this path checked the pointer for null and does not come here.
            Value::Constant(0..4096) => {}
            _ => {
                self.unclear =
                    Some("TaskIdGuard::enter stores its argument at an address that the code hides".to_owned());
            }
        }
    }

    /// What the instruction leaves in its first operand, where that is known.
    fn result(&self, instruction: &Instruction, state: &State) -> Option<Value> {
        let target = instruction.op0_register();
        if instruction.op0_kind() != OpKind::Register || !target.is_gpr64() {
            let zero = instruction.mnemonic() == Mnemonic::Xor
                && instruction.op0_kind() == OpKind::Register
                && instruction.op1_kind() == OpKind::Register
                && target == instruction.op1_register()
                && target.is_gpr()
                && target.size() == 4;
            return zero.then_some(Value::Constant(0));
        }
        let current = state.get(target);
        match instruction.mnemonic() {
            Mnemonic::Mov => Some(self.operand(instruction, state)),
            Mnemonic::Lea => Some(address(instruction, state)),
            Mnemonic::Add => Some(add(current, self.operand(instruction, state))),
            Mnemonic::Sub => match self.operand(instruction, state) {
                Value::Constant(by) => Some(add(current, by.checked_neg().map_or(Value::Unknown, Value::Constant))),
                _ => None,
            },
            Mnemonic::And if current == Value::Stack => Some(Value::Stack),
            _ => None,
        }
    }

    /// The second operand's value.
    fn operand(&self, instruction: &Instruction, state: &State) -> Value {
        match instruction.op1_kind() {
            OpKind::Register => state.get(instruction.op1_register()),
            OpKind::Immediate64 | OpKind::Immediate32to64 | OpKind::Immediate8to64 => {
                Value::Constant(instruction.immediate(1).cast_signed())
            }
            OpKind::Memory if instruction.memory_segment() == Register::FS => {
                // The word at the thread pointer holds the thread pointer itself (x86-64 psABI, TLS).
                if segment_offset(instruction, state) == Some(0) { Value::Thread(0) } else { Value::Unknown }
            }
            OpKind::Memory if instruction.is_ip_rel_memory_operand() => {
                tls::got_entry(self.elf, instruction.ip_rel_memory_address()).map_or(Value::Unknown, Value::Constant)
            }
            _ => Value::Unknown,
        }
    }
}

/// The effective address of the memory operand.
fn address(instruction: &Instruction, state: &State) -> Value {
    if instruction.memory_segment() == Register::FS && instruction.mnemonic() != Mnemonic::Lea {
        return segment_offset(instruction, state).map_or(Value::Unknown, Value::Thread);
    }
    if instruction.is_ip_rel_memory_operand() {
        return Value::Unknown;
    }
    plain_address(instruction, state)
}

fn plain_address(instruction: &Instruction, state: &State) -> Value {
    let base = match instruction.memory_base() {
        Register::None => Value::Constant(0),
        register => state.get(register),
    };
    let index = match (instruction.memory_index(), instruction.memory_index_scale()) {
        (Register::None, _) => Value::Constant(0),
        (register, 1) => state.get(register),
        (register, scale) => match state.get(register) {
            Value::Constant(index) => index.checked_mul(i64::from(scale)).map_or(Value::Unknown, Value::Constant),
            _ => Value::Unknown,
        },
    };
    add(add(base, index), Value::Constant(instruction.memory_displacement64().cast_signed()))
}

fn segment_offset(instruction: &Instruction, state: &State) -> Option<i64> {
    match plain_address(instruction, state) {
        Value::Constant(offset) => Some(offset),
        _ => None,
    }
}

fn add(left: Value, right: Value) -> Value {
    let sum = |a: i64, b: i64, of: fn(i64) -> Value| a.checked_add(b).map_or(Value::Unknown, of);
    match (left, right) {
        (Value::Constant(a), Value::Constant(b)) => sum(a, b, Value::Constant),
        (Value::Thread(a), Value::Constant(b)) | (Value::Constant(b), Value::Thread(a)) => sum(a, b, Value::Thread),
        (Value::Stack, _) | (_, Value::Stack) => Value::Stack,
        (value, Value::Constant(0)) | (Value::Constant(0), value) => value,
        _ => Value::Unknown,
    }
}

#[cfg(test)]
#[path = "tokio_slot_tests.rs"]
mod tests;
