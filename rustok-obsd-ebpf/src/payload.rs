//! Copies what a system call moved out of the caller's buffers.
//!
//! The system call and its arguments come from the registers that user space entered the kernel with. Calls that use
//! plain buffers, I/O vectors and message headers are read; others (sendfile, splice, io_uring, …) give no payload.

use aya_ebpf::helpers::{
    bpf_probe_read_user,
    generated::{bpf_get_current_task_btf, bpf_probe_read_user as probe_read_user, bpf_task_pt_regs},
};
use rustok_obsd_ebpf::{MAX_PAYLOAD, SocketIo, TAIL};

use crate::{maps, transfer::min};

/// I/O vectors that are followed: as many as hyper hands to one call (`MAX_WRITEV_BUFS`). A head and the start of a body
/// lie in the first, the end of a chunked body in the last.
const VECTORS: u32 = 64;
const MASK: u32 = MAX_PAYLOAD as u32 - 1;

/// Room for one record. The second half of the payload lets the verifier see that any position below [`MAX_PAYLOAD`]
/// plus any length below it stays inside.
#[repr(C)]
pub struct Scratch {
    pub head: SocketIo,
    payload: [u8; 2 * MAX_PAYLOAD],
    walk: Walk,
    vectors: [Vector; VECTORS as usize],
}

/// Where the walk over the caller's buffers stands. It lies in map memory on purpose, and is read and written as
/// volatile: what the verifier cannot know it need not tell apart, so that all turns of the loop look the same to it. In
/// registers the same loop takes more than a million of its steps.
#[repr(C)]
struct Walk {
    /// The last eight bytes so far, the very last in the highest byte.
    last: u64,
    /// Bytes not walked yet.
    rest: u32,
    /// Bytes copied.
    copied: u32,
    /// Bytes that may be copied.
    limit: u32,
    /// Not 0: a buffer could not be read.
    failed: u32,
    /// A length on its way to a helper. Read back as volatile, it is a value of which the compiler knows nothing, so that
    /// the mask that the verifier wants to see stays in the code.
    len: u32,
    pad: u32,
}

macro_rules! get {
    ($walk:expr, $field:ident) => {
        // SAFETY: the field of a live reference.
        unsafe { core::ptr::read_volatile(&raw const $walk.$field) }
    };
}

macro_rules! set {
    ($walk:expr, $field:ident, $value:expr) => {
        // SAFETY: the field of a live unique reference.
        unsafe { core::ptr::write_volatile(&raw mut $walk.$field, $value) }
    };
}

impl Scratch {
    /// Writes the record with `captured` bytes of payload to the ring.
    #[inline(always)]
    pub fn submit(this: &mut Self, captured: u32) -> bool {
        let len = size_of::<SocketIo>() + (captured & MASK) as usize;
        // SAFETY: `len` stays inside the struct, whose bytes are all initialised (map values are zeroed).
        let bytes = unsafe { core::slice::from_raw_parts((&raw const *this).cast::<u8>(), len) };
        maps::submit(bytes)
    }

    /// The first bytes of the payload.
    #[inline(always)]
    pub fn start(this: &Self) -> [u8; 4] {
        let [a, b, c, d, ..] = this.payload;
        [a, b, c, d]
    }
}

/// One `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Vector {
    base: u64,
    len: u64,
}

/// The registers of the system call that matter: its number and the second and third argument.
struct Call {
    number: u64,
    second: u64,
    third: u64,
}

#[cfg(bpf_target_arch = "x86_64")]
mod arch {
    /// Offsets in `struct pt_regs` (arch/x86/include/asm/ptrace.h): orig_ax, si, dx.
    pub type Number = u64;
    pub const NUMBER: u64 = 120;
    pub const SECOND: u64 = 104;
    pub const THIRD: u64 = 96;
    /// arch/x86/entry/syscalls/syscall_64.tbl: read, write, sendto, recvfrom.
    pub const PLAIN: [u64; 4] = [0, 1, 44, 45];
    /// readv, writev.
    pub const VECTOR: [u64; 2] = [19, 20];
    /// sendmsg, recvmsg.
    pub const MESSAGE: [u64; 2] = [46, 47];
}

#[cfg(bpf_target_arch = "aarch64")]
mod arch {
    /// Offsets in `struct pt_regs` (arch/arm64/include/asm/ptrace.h): syscallno, regs[1], regs[2].
    pub type Number = u32;
    pub const NUMBER: u64 = 280;
    pub const SECOND: u64 = 8;
    pub const THIRD: u64 = 16;
    /// include/uapi/asm-generic/unistd.h: read, write, sendto, recvfrom.
    pub const PLAIN: [u64; 4] = [63, 64, 206, 207];
    /// readv, writev.
    pub const VECTOR: [u64; 2] = [65, 66];
    /// sendmsg, recvmsg.
    pub const MESSAGE: [u64; 2] = [211, 212];
}

#[inline(always)]
fn current_call() -> Call {
    // SAFETY: no arguments; the verifier knows the types of both pointers and checks the constant offsets, so that the
    // loads are plain ones that cannot fault.
    unsafe {
        let registers = bpf_task_pt_regs(bpf_get_current_task_btf()) as u64;
        let register = |offset| core::ptr::read_volatile((registers + offset) as *const u64);
        let number = core::ptr::read_volatile((registers + arch::NUMBER) as *const arch::Number);
        Call { number: number as u64, second: register(arch::SECOND), third: register(arch::THIRD) }
    }
}

/// Copies up to `limit` of the `moved` bytes into the scratch and, if that is not all, the last ones into `tail`.
/// Returns how many were copied, `None` if the call's buffers cannot be read.
#[inline(always)]
pub fn copy(scratch: &mut Scratch, moved: u32, limit: u32, tail: &mut [u8; TAIL]) -> Option<u32> {
    let call = current_call();
    let (address, vectors) = if arch::PLAIN.contains(&call.number) {
        return copy_plain(scratch, call.second, moved, limit, tail);
    } else if arch::VECTOR.contains(&call.number) {
        (call.second, call.third)
    } else if arch::MESSAGE.contains(&call.number) {
        // `struct user_msghdr`: msg_iov at 16, msg_iovlen at 24 (include/linux/socket.h).
        // SAFETY: the helper checks the address and fails on a bad one.
        let [address, vectors] = unsafe { bpf_probe_read_user((call.second + 16) as *const [u64; 2]) }.ok()?;
        (address, vectors)
    } else {
        return None;
    };
    // One read for all of them: each costs more than what it copies.
    set!(scratch.walk, len, if vectors < u64::from(VECTORS) { vectors as u32 } else { VECTORS });
    let vectors = get!(scratch.walk, len);
    if vectors > VECTORS {
        return None;
    }
    let to = (&raw mut scratch.vectors).cast();
    // SAFETY: the length is at most that of the array; the helper checks the source and fails on a bad one.
    if unsafe { probe_read_user(to, vectors * size_of::<Vector>() as u32, address as *const _) } != 0 {
        return None;
    }
    set!(scratch.walk, last, 0);
    set!(scratch.walk, rest, moved);
    set!(scratch.walk, copied, 0);
    set!(scratch.walk, limit, limit);
    set!(scratch.walk, failed, 0);
    let mut index = 0;
    while index < VECTORS {
        if index >= vectors || !step(scratch, index, limit < moved) {
            break;
        }
        index += 1;
    }
    if get!(scratch.walk, failed) != 0 {
        return None;
    }
    if get!(scratch.walk, rest) == 0 && limit < moved {
        *tail = get!(scratch.walk, last).to_le_bytes();
    }
    Some(get!(scratch.walk, copied) & MASK)
}

/// The common case: one buffer, in one read.
#[inline(always)]
fn copy_plain(scratch: &mut Scratch, buffer: u64, moved: u32, limit: u32, tail: &mut [u8; TAIL]) -> Option<u32> {
    set!(scratch.walk, len, limit);
    let len = get!(scratch.walk, len) & MASK;
    if len > 0 {
        let to = scratch.payload.as_mut_ptr();
        // SAFETY: the length is below half of the payload; the helper checks the source and fails on a bad one.
        if unsafe { probe_read_user(to.cast(), len, buffer as *const _) } != 0 {
            return None;
        }
    }
    if len < moved && moved >= TAIL as u32 {
        let end = buffer + u64::from(moved);
        // SAFETY: the helper checks the address and fails on a bad one.
        *tail = unsafe { bpf_probe_read_user((end - TAIL as u64) as *const [u8; TAIL]) }.ok()?;
    } else if len < moved {
        // The last chunk of a body goes alone where its end was awaited: five bytes.
        set!(scratch.walk, failed, 0);
        set!(scratch.walk, last, 0);
        shift_in(scratch, buffer, moved);
        if get!(scratch.walk, failed) != 0 {
            return None;
        }
        *tail = get!(scratch.walk, last).to_le_bytes();
    }
    Some(len)
}

/// Walks one buffer; false after the last.
#[inline(always)]
fn step(scratch: &mut Scratch, index: u32, cut: bool) -> bool {
    let rest = get!(scratch.walk, rest);
    if rest == 0 || index >= VECTORS {
        return false;
    }
    let vector = scratch.vectors[index as usize];
    let (base, part) = (vector.base, if vector.len < u64::from(rest) { vector.len as u32 } else { rest });
    let copied = get!(scratch.walk, copied);
    let limit = get!(scratch.walk, limit);
    let wanted = min(part, if copied < limit { limit - copied } else { 0 }) & MASK;
    if wanted > 0 {
        let position = (copied & MASK) as usize;
        set!(scratch.walk, len, wanted);
        let len = get!(scratch.walk, len) & MASK;
        // SAFETY: position and length are below half of the payload each; the helper checks the source and fails on a
        // bad one.
        let failed = unsafe {
            let to = scratch.payload.as_mut_ptr().add(position);
            probe_read_user(to.cast(), len, base as *const _)
        };
        if failed != 0 {
            set!(scratch.walk, failed, 1);
            return false;
        }
        set!(scratch.walk, copied, copied + wanted);
    }
    // What lies further from the end is none of the last bytes.
    if cut && part > 0 && rest - part < TAIL as u32 {
        shift_in(scratch, base, part);
    }
    set!(scratch.walk, rest, rest - part);
    true
}

/// Appends the end of a buffer to the last eight bytes.
#[inline(always)]
fn shift_in(scratch: &mut Scratch, base: u64, part: u32) {
    let end = base + u64::from(part);
    if part >= TAIL as u32 {
        // SAFETY: the helper checks the address and fails on a bad one.
        match unsafe { bpf_probe_read_user((end - TAIL as u64) as *const u64) } {
            Ok(last) => set!(scratch.walk, last, last),
            Err(_) => set!(scratch.walk, failed, 1),
        }
        return;
    }
    set!(scratch.walk, len, part);
    let len = get!(scratch.walk, len) & 7;
    let mut bytes = 0u64;
    // SAFETY: the helper writes at most seven bytes to the local, and checks the source.
    if unsafe { probe_read_user((&raw mut bytes).cast(), len, base as *const _) } == 0 {
        let last = get!(scratch.walk, last);
        set!(scratch.walk, last, (last >> (8 * len)) | (bytes << ((64 - 8 * len) & 63)));
    } else {
        set!(scratch.walk, failed, 1);
    }
}
