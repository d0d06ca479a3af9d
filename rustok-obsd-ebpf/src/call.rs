//! Calls of the database libraries in the target: which statement, in which task, when.
//!
//! A uprobe's program may be interrupted by another one on the same processor, so that nothing is built in per-CPU memory:
//! a record is filled where it lies in the ring. The kernel wants a constant size for that: hence classes of sizes.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, bpf_probe_read_user, generated::bpf_probe_read_user as probe_read_user},
    programs::ProbeContext,
};
use rustok_obsd_ebpf::{
    CALL_WORDS, CallHit, Counter, IO_TRUNCATED, IO_UNREADABLE, Kind, MAX_STATEMENT, PREFIX, PlaceKey, Point,
    SOUGHT_WORDS,
};

use crate::{
    globals,
    maps::{EVENTS, LAYOUTS, count, wake_flags},
    task::Current,
};

/// Bytes of an error that hold its severity and its SQLSTATE, which come first, and hardly more.
const NOTICE: u32 = 96;
/// Words of sea-orm's `Statement` among which its text is.
const STATEMENT_WORDS: usize = 8;
/// Below this nothing is mapped (`vm.mmap_min_addr`), and no statement is longer.
const LOWEST: u64 = 1 << 16;
/// What an ErrorResponse begins with: the code of the field "severity".
const SEVERITY: u8 = b'S';

/// A record with room for `N` bytes of text, a power of two.
#[repr(C)]
struct Room<const N: usize> {
    head: CallHit,
    text: [u8; N],
}

/// What every record of a call begins with.
#[inline(always)]
pub fn head(point: Point, ctx: &ProbeContext, current: &Current) -> CallHit {
    CallHit {
        kind: Kind::Call as u8,
        point: point as u8,
        flags: 0,
        pad: 0,
        captured: 0,
        tgid: current.tgid,
        tid: current.tid,
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        task: current.task(),
        place: place(ctx),
        text: 0,
        text_len: 0,
        words: [0; CALL_WORDS],
    }
}

/// The probed instruction's address.
#[inline(always)]
fn place(ctx: &ProbeContext) -> u64 {
    // SAFETY: the context's registers live as long as the program runs.
    unsafe {
        #[cfg(bpf_target_arch = "x86_64")]
        return (*ctx.regs).rip;
        #[cfg(bpf_target_arch = "aarch64")]
        return (*ctx.regs).pc;
        #[cfg(not(any(bpf_target_arch = "x86_64", bpf_target_arch = "aarch64")))]
        return 0;
    }
}

/// A call without anything to read.
#[inline(always)]
pub fn on_call(point: Point, ctx: &ProbeContext) {
    let Some(current) = Current::at(ctx) else { return };
    let head = head(point, ctx, &current);
    crate::maps::submit(head.as_bytes());
}

/// A call that makes the text of a BEGIN, or of the SAVEPOINT at this depth.
#[inline(always)]
pub fn on_begin(ctx: &ProbeContext, depth: Option<u64>) {
    let Some(depth) = depth else { return };
    let Some(current) = Current::at(ctx) else { return };
    let mut head = head(Point::Begin, ctx, &current);
    head.words[0] = depth.wrapping_add(1);
    crate::maps::submit(head.as_bytes());
}

/// A call with a pointer to a struct.
#[inline(always)]
pub fn on_struct(point: Point, ctx: &ProbeContext, address: Option<u64>) {
    let Some(address) = address else { return };
    let Some(current) = Current::at(ctx) else { return };
    let mut head = head(point, ctx, &current);
    read_words(&mut head, address);
    crate::maps::submit(head.as_bytes());
}

/// A call with a statement: by pointer to a struct, or by address and length.
#[inline(always)]
pub fn on_orm(ctx: &ProbeContext, first: Option<u64>, second: Option<u64>) {
    let (Some(first), Some(second)) = (first, second) else { return };
    let Some(current) = Current::at(ctx) else { return };
    let mut head = head(Point::Orm, ctx, &current);
    read_words(&mut head, first);
    // What stands behind a statement does not matter; the arguments themselves do.
    head.words[CALL_WORDS - 2] = first;
    head.words[CALL_WORDS - 1] = second;
    crate::maps::submit(head.as_bytes());
}

/// The same where the text is copied on the way to the driver, so that its address is not that of the call: the text
/// follows. It is a `String` among the first words.
#[inline(always)]
pub fn on_orm_text(ctx: &ProbeContext, statement: Option<u64>) {
    let Some(statement) = statement else { return };
    let Some(current) = Current::at(ctx) else { return };
    let mut head = head(Point::Orm, ctx, &current);
    read_words(&mut head, statement);
    let mut index = 0;
    while index + 3 <= STATEMENT_WORDS {
        let (capacity, address, len) = (head.words[index], head.words[index + 1], head.words[index + 2]);
        if len > 0 && len <= capacity && capacity < LOWEST && address >= LOWEST {
            return tell_text(&mut head, address, len);
        }
        index += 1;
    }
    crate::maps::submit(head.as_bytes());
}

#[inline(always)]
fn read_words(head: &mut CallHit, address: u64) {
    // SAFETY: the helper writes exactly the array, and checks the source.
    let failed = unsafe {
        probe_read_user((&raw mut head.words).cast(), size_of::<[u64; CALL_WORDS]>() as u32, address as *const _)
    };
    if failed != 0 {
        head.flags |= IO_UNREADABLE;
    }
}

/// Writes the record with the text in the smallest room that takes it.
#[inline(always)]
pub fn tell_text(head: &mut CallHit, text: u64, len: u64) {
    head.text = text;
    head.text_len = len;
    let limit = u64::from(globals::statement_limit());
    if len > limit {
        head.flags |= IO_TRUNCATED;
    }
    let len = if len > limit { limit as u32 } else { len as u32 };
    if len < 256 {
        tell::<256>(head, text, len);
    } else if len < 2048 {
        tell::<2048>(head, text, len);
    } else {
        tell::<MAX_STATEMENT>(head, text, len);
    }
}

#[inline(always)]
fn tell<const N: usize>(head: &mut CallHit, text: u64, len: u32) {
    let Some(mut entry) = EVENTS.reserve::<Room<N>>(0) else {
        count(Counter::RingFull, 1);
        return;
    };
    let room = entry.as_mut_ptr();
    // SAFETY: `len` is read back as a value of which the compiler knows nothing, so that the mask that the verifier wants
    // to see stays in the code. The room's text has N bytes.
    let bound = unsafe { core::ptr::read_volatile(&raw const len) } & (N as u32 - 1);
    // SAFETY: the pointer is to the reserved room; the helper writes at most N bytes into its text and checks the source.
    unsafe {
        if bound > 0 && probe_read_user((&raw mut (*room).text).cast(), bound, text as *const _) != 0 {
            head.flags |= IO_UNREADABLE;
            head.captured = 0;
            count(Counter::Unreadable, 1);
        } else {
            head.captured = bound;
        }
        (&raw mut (*room).head).write(*head);
    }
    entry.submit(wake_flags());
    count(Counter::Submitted, 1);
}

/// The driver decodes an error or a notice from a `bytes::Bytes`, of which one word is the address of the content.
#[inline(always)]
pub fn on_notice(ctx: &ProbeContext, bytes: Option<u64>) {
    let Some(bytes) = bytes else { return };
    let Some(current) = Current::at(ctx) else { return };
    // SAFETY: the helper checks the address and fails on a bad one.
    let Ok(words) = (unsafe { bpf_probe_read_user(bytes as *const [u64; 4]) }) else { return };
    let mut content = 0;
    let mut index = 0;
    while index < words.len() {
        // SAFETY: as above.
        if content == 0 && unsafe { bpf_probe_read_user(words[index] as *const u8) } == Ok(SEVERITY) {
            content = words[index];
        }
        index += 1;
    }
    let mut head = head(Point::Notice, ctx, &current);
    if content == 0 {
        head.flags |= IO_UNREADABLE;
        crate::maps::submit(head.as_bytes());
        return;
    }
    head.text = content;
    tell::<256>(&mut head, content, NOTICE);
}

/// A call of a function whose argument holds a statement somewhere.
#[inline(always)]
pub fn on_statement(ctx: &ProbeContext) {
    let Some(current) = Current::at(ctx) else { return };
    let key = PlaceKey { place: place(ctx), tgid: current.tgid, pad: 0 };
    // SAFETY: the value is only read; the map is not preallocated (see `Current::followed`).
    let Some(layout) = (unsafe { LAYOUTS.get(&key) }).copied() else { return };
    let Some(arguments) = Arguments::of(ctx) else { return };
    let argument = arguments.get(layout.argument);
    if layout.known == 0 {
        return seek(ctx, &current, argument, arguments.get(layout.argument + 1));
    }
    let mut head = head(Point::Statement, ctx, &current);
    if layout.direct != 0 {
        return tell_text(&mut head, argument, arguments.get(layout.argument + 1));
    }
    // SAFETY: the helper checks each address and fails on a bad one.
    let words = unsafe {
        (
            bpf_probe_read_user((argument + 8 * u64::from(layout.pointer)) as *const u64),
            bpf_probe_read_user((argument + 8 * u64::from(layout.length)) as *const u64),
        )
    };
    match words {
        (Ok(text), Ok(len)) => tell_text(&mut head, text, len),
        _ => {
            head.flags |= IO_UNREADABLE;
            crate::maps::submit(head.as_bytes());
        }
    }
}

/// The first six arguments. Each is read at a constant offset of the context, which the verifier wants; they are taken out
/// of memory as volatile values, so that the compiler does not turn a choice among them into a computed offset.
struct Arguments([u64; 6]);

impl Arguments {
    #[inline(always)]
    fn of(ctx: &ProbeContext) -> Option<Self> {
        Some(Self([ctx.arg(0)?, ctx.arg(1)?, ctx.arg(2)?, ctx.arg(3)?, ctx.arg(4)?, ctx.arg(5)?]))
    }

    #[inline(always)]
    fn get(&self, index: u8) -> u64 {
        let [a, b, c, d, e, f] = &self.0;
        // SAFETY: each is a live reference.
        unsafe {
            let (a, b, c) = (core::ptr::read_volatile(a), core::ptr::read_volatile(b), core::ptr::read_volatile(c));
            let (d, e, f) = (core::ptr::read_volatile(d), core::ptr::read_volatile(e), core::ptr::read_volatile(f));
            match index {
                0 => a,
                1 => b,
                2 => c,
                3 => d,
                4 => e,
                _ => f,
            }
        }
    }
}

/// Tells what the argument points at and what that points at, for the daemon to find the text.
#[inline(always)]
fn seek(ctx: &ProbeContext, current: &Current, argument: u64, next: u64) {
    const WORDS: usize = SOUGHT_WORDS * size_of::<u64>();
    let mut head = head(Point::Sought, ctx, current);
    // The argument itself may be the text's address, and the next one its length.
    head.text = argument;
    head.text_len = next;
    let Some(mut entry) = EVENTS.reserve::<Room<1024>>(0) else {
        count(Counter::RingFull, 1);
        return;
    };
    let room = entry.as_mut_ptr();
    // SAFETY: the pointer is to the reserved room; the helper writes exactly the words and checks the source. What cannot be
    // read is zeroed by it.
    let text = unsafe { (&raw mut (*room).text).cast::<u8>() };
    // SAFETY: as above.
    if unsafe { probe_read_user(text.cast(), WORDS as u32, argument as *const _) } != 0 {
        head.flags |= IO_UNREADABLE;
    }
    let mut index = 0;
    while index < SOUGHT_WORDS {
        // SAFETY: the word and the part lie in the room's text (24 times 8 and 16 bytes of 1024); the helper checks the
        // source.
        unsafe {
            let word = text.cast::<u64>().add(index).read();
            let part = text.add(WORDS + index * PREFIX);
            let _ = probe_read_user(part.cast(), PREFIX as u32, word as *const _);
        }
        index += 1;
    }
    head.captured = (WORDS + SOUGHT_WORDS * PREFIX) as u32;
    // SAFETY: the pointer is to the reserved room.
    unsafe { (&raw mut (*room).head).write(head) };
    entry.submit(wake_flags());
    count(Counter::Submitted, 1);
}
