//! The system calls that aya 0.14 does not make: uprobes of many places by one link, and facts of a program by descriptor.
//!
//! Reads: nothing. Yields: descriptors. Costs: a system call each. Sources: `bpf(2)`, `perf_event_open(2)`,
//! include/uapi/linux/bpf.h (`BPF_PROG_LOAD`, `BPF_LINK_CREATE`, `struct bpf_prog_info`), kernel/trace/bpf_trace.c
//! (`bpf_uprobe_multi_link_attach`).

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    time::Duration,
};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_info, bpf_prog_type, perf_event_attr};

/// Bytes of the verifier's log; its end says why a program was refused.
const LOG: usize = 64 << 10;

/// A pointer as the kernel wants it in `union bpf_attr`.
fn address<T: ?Sized>(pointer: *const T) -> u64 {
    pointer.cast::<()>() as u64
}

/// `bpf(2)`.
///
/// # Safety
/// Every address in `attr` is one of live memory of the length that `attr` says, and may be written where the command
/// writes.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is one whole union; what it points at is the caller's promise.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attr), size_of::<bpf_attr>())
    };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

/// # Safety
/// As for [`bpf`]; the command yields a descriptor.
unsafe fn descriptor(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr)? };
    // SAFETY: the kernel made the descriptor for us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const fn empty() -> bpf_attr {
    // SAFETY: a union of plain integers, for which zeros are valid; the kernel wants what is not used to be zero.
    unsafe { std::mem::zeroed() }
}

/// Loads a uprobe program; `multi`: for [`link_multi`]. Refusals come with the end of the verifier's log.
pub(super) fn load_uprobe(name: &str, code: &[bpf_insn], license: &CStr, multi: bool) -> Result<OwnedFd, String> {
    let load = |log: &mut [u8]| {
        let mut attr = empty();
        // SAFETY: the part of the union that BPF_PROG_LOAD reads; all of it is zero.
        let load = unsafe { &mut attr.__bindgen_anon_3 };
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
        load.insns = address(code.as_ptr());
        load.insn_cnt = u32::try_from(code.len()).unwrap_or(u32::MAX);
        load.license = address(license.as_ptr());
        if multi {
            load.expected_attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
        }
        // The last byte stays zero.
        let room = load.prog_name.len() - 1;
        for (to, from) in load.prog_name.iter_mut().zip(name.bytes().take(room)) {
            *to = from.cast_signed();
        }
        if !log.is_empty() {
            load.log_level = 1;
            load.log_size = u32::try_from(log.len()).unwrap_or(u32::MAX);
            load.log_buf = address(log.as_mut_ptr());
        }
        // SAFETY: instructions, licence and log outlive the call, with the lengths given.
        unsafe { descriptor(bpf_cmd::BPF_PROG_LOAD, &mut attr) }
    };
    load(&mut []).or_else(|first| {
        let mut log = vec![0; LOG];
        // Again, with a log: it costs time, and a program that loads needs none.
        match load(&mut log) {
            Ok(program) => Ok(program),
            Err(_) => {
                let text =
                    String::from_utf8_lossy(log.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned();
                Err(super::loader::verifier_end(&first, &text))
            }
        }
    })
}

/// Attaches a program to places of a file, all of them or none, by one link: Linux 6.6 and newer. Closing the link
/// detaches it. `pid`: for this process alone; from Linux 6.10 (and stable versions that took its fix) with all its
/// threads, before that for one thread.
pub(super) fn link_multi(
    program: BorrowedFd<'_>,
    path: &CStr,
    places: &[u64],
    cookie: u64,
    pid: Option<u32>,
) -> io::Result<OwnedFd> {
    let cookies = vec![cookie; places.len()];
    let mut attr = empty();
    // SAFETY: the part of the union that BPF_LINK_CREATE reads; all of it is zero.
    unsafe {
        attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
        attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
        let multi = &mut attr.link_create.__bindgen_anon_3.uprobe_multi;
        multi.path = address(path.as_ptr());
        multi.offsets = address(places.as_ptr());
        multi.cookies = address(cookies.as_ptr());
        multi.cnt = u32::try_from(places.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        multi.pid = pid.unwrap_or(0);
    }
    // SAFETY: path, places and cookies outlive the call, with the lengths given.
    unsafe { descriptor(bpf_cmd::BPF_LINK_CREATE, &mut attr) }
}

/// Attaches a program to one place of a file for every process, by a perf event. `kind`: the type of the perf PMU
/// `uprobe`.
pub(super) fn link_perf(
    program: BorrowedFd<'_>,
    kind: u32,
    path: &CStr,
    place: u64,
    cookie: u64,
) -> io::Result<OwnedFd> {
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
    // SAFETY: plain integers and unions of them, for which zeros are valid.
    let mut event: perf_event_attr = unsafe { std::mem::zeroed() };
    event.size = size_of::<perf_event_attr>() as u32;
    event.type_ = kind;
    event.__bindgen_anon_3.uprobe_path = address(path.as_ptr());
    event.__bindgen_anon_4.probe_offset = place;
    // SAFETY: the event has the length that it says, and the path outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const event, -1, 0, -1, PERF_FLAG_FD_CLOEXEC) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel made the descriptor for us just now.
    let event = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut attr = empty();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.__bindgen_anon_2.target_fd = event.as_raw_fd().cast_unsigned();
    attr.link_create.attach_type = bpf_attach_type::BPF_PERF_EVENT as u32;
    attr.link_create.__bindgen_anon_3.perf_event.bpf_cookie = cookie;
    // SAFETY: no addresses. The link keeps the event.
    unsafe { descriptor(bpf_cmd::BPF_LINK_CREATE, &mut attr) }
}

/// What the kernel counts of a program.
pub(super) struct ProgramInfo {
    pub(super) runs: u64,
    pub(super) run_time: Duration,
    /// `None` before Linux 5.16.
    pub(super) verified_instructions: Option<u32>,
}

pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    // SAFETY: plain integers, for which zeros are valid; the kernel wants what it would read to be zero.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attr = empty();
    attr.info.bpf_fd = program.as_raw_fd().cast_unsigned();
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = address(&raw mut info);
    // SAFETY: the kernel writes at most the length given into `info`.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(ProgramInfo {
        runs: info.run_cnt,
        run_time: Duration::from_nanos(info.run_time_ns),
        verified_instructions: (info.verified_insns > 0).then_some(info.verified_insns),
    })
}
