//! The filter of system calls, as a list of what is allowed; anything else fails with EPERM.
//!
//! Reads: nothing. Yields: two programs for the kernel's seccomp filter. Costs: the kernel remembers which calls are always
//! allowed (5.11 and later); the program itself runs for those whose arguments are compared, some hundred nanoseconds.
//!
//! The list comes from the daemon's own calls under the end-to-end tests (strace), and what the C library and the kernel's
//! interfaces have in their place on other versions and on aarch64. `tests/e2e/unit.rs` holds a run of the daemon to it.
//!
//! What is not there: to execute, to make processes, to signal or trace others, to write to another's memory, to make, remove,
//! rename or change files, to mount, to enter namespaces, to load modules or kernels, keys, other users' ids, clocks. What
//! remains is `openat2`, whose flags lie in memory, where a filter cannot look: it can open a file for writing where the
//! daemon's user may.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};

use super::{Measure, State};

macro_rules! calls {
    ($($(#[$meta:meta])* $name:ident)*) => { &[$($(#[$meta])* (libc::$name, stringify!($name))),*] };
}

/// Calls that are allowed whatever their arguments.
const ALLOWED: &[(c_long, &str)] = calls![
    // Memory and threads.
    SYS_brk SYS_munmap SYS_mremap SYS_madvise SYS_membarrier SYS_rseq SYS_futex SYS_futex_waitv SYS_set_robust_list
    SYS_get_robust_list SYS_set_tid_address SYS_gettid SYS_getpid SYS_getppid SYS_exit SYS_exit_group SYS_clone3
    SYS_restart_syscall SYS_sched_yield SYS_sched_getaffinity SYS_sched_getparam SYS_sched_getscheduler SYS_getcpu
    SYS_sched_get_priority_max SYS_sched_get_priority_min
    // Signals that the daemon receives.
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending SYS_rt_sigtimedwait SYS_rt_sigsuspend
    SYS_sigaltstack SYS_signalfd4
    // Time. Without CAP_SYS_TIME a clock can only be read.
    SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday SYS_times SYS_timerfd_create
    SYS_timerfd_settime SYS_timerfd_gettime SYS_adjtimex SYS_clock_adjtime
    // Who and where it is.
    SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups SYS_getpgid SYS_getsid
    SYS_capget SYS_uname SYS_sysinfo SYS_getrusage SYS_getrandom SYS_getcwd
    // Reading files.
    SYS_read SYS_readv SYS_pread64 SYS_preadv SYS_preadv2 SYS_lseek SYS_close SYS_close_range SYS_fstat SYS_newfstatat
    SYS_statx SYS_statfs SYS_fstatfs SYS_faccessat SYS_faccessat2 SYS_readlinkat SYS_getdents64 SYS_dup SYS_dup3
    SYS_fcntl SYS_fadvise64 SYS_readahead SYS_openat2 SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch
    // The log, and what is open for it.
    SYS_write SYS_writev
    // Waiting.
    SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_pipe2
    // Sockets, once there is one.
    SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_connect SYS_getsockname SYS_getpeername SYS_setsockopt SYS_getsockopt
    SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_shutdown
    // Observing.
    SYS_perf_event_open SYS_process_vm_readv SYS_pidfd_open
];

/// The same under the names that x86-64 has for older C libraries.
#[cfg(target_arch = "x86_64")]
const OLDER: &[(c_long, &str)] = calls![
    SYS_access SYS_stat SYS_lstat SYS_readlink SYS_getdents SYS_dup2 SYS_poll SYS_select SYS_epoll_wait SYS_time
    SYS_getpgrp SYS_getrlimit SYS_inotify_init SYS_eventfd SYS_pipe SYS_epoll_create
];
/// aarch64 never had any.
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[(c_long, &str)] = &[];

/// Calls of which the arguments are compared.
const COMPARED: &[(c_long, &str)] = calls![
    SYS_mmap SYS_mprotect SYS_clone SYS_tgkill SYS_prctl SYS_prlimit64 SYS_openat SYS_ioctl SYS_socket SYS_socketpair
    SYS_bpf #[cfg(target_arch = "x86_64")] SYS_open
];

/// Calls of the processes that read targets' memory, after they have been started; `clone`, compared, is fork(2).
const HELPERS: &[c_long] = &[
    // Memory, and what the C library does in a new process and at the end of one.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Descriptors that are there, and those that come by a socket.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_ppoll,
    libc::SYS_close,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_process_vm_readv,
];
/// No thread of another process', no namespace.
const NO_FORK: u64 = (libc::CLONE_VM
    | libc::CLONE_THREAD
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u64;

/// Opening a file with one of these bits can change it.
const WRITING: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
/// `PR_SET_VMA`: the C library names its memory.
const PR_SET_VMA: u64 = 0x5356_4d41;
/// Commands of bpf(2): maps and programs of its own, by descriptor. Nothing by id or path, nothing of other programs.
const BPF: [u64; 14] = [
    0,  // MAP_CREATE
    1,  // MAP_LOOKUP_ELEM
    2,  // MAP_UPDATE_ELEM
    3,  // MAP_DELETE_ELEM
    4,  // MAP_GET_NEXT_KEY
    5,  // PROG_LOAD: a uprobe's program is loaded when the first target needs it
    15, // OBJ_GET_INFO_BY_FD
    17, // RAW_TRACEPOINT_OPEN
    18, // BTF_LOAD
    21, // MAP_LOOKUP_AND_DELETE_ELEM
    22, // MAP_FREEZE
    24, // MAP_LOOKUP_BATCH
    28, // LINK_CREATE
    32, // ENABLE_STATS
];
/// Requests of ioctl(2): sockets and terminals, perf events, and the collector btrfs.
const IOCTL: [u64; 13] = [
    0x5401,      // TCGETS
    0x802c_542a, // TCGETS2
    0x5413,      // TIOCGWINSZ
    0x541b,      // FIONREAD
    0x5421,      // FIONBIO
    0x5450,      // FIONCLEX
    0x5451,      // FIOCLEX
    0x2400,      // PERF_EVENT_IOC_ENABLE
    0x2401,      // PERF_EVENT_IOC_DISABLE
    0x4004_2408, // PERF_EVENT_IOC_SET_BPF
    0x8400_941f, // BTRFS_IOC_FS_INFO
    0xd000_941e, // BTRFS_IOC_DEV_INFO
    0xc408_9434, // BTRFS_IOC_GET_DEV_STATS
];

type Rule = Result<SeccompRule, seccompiler::BackendError>;

/// All of the comparisons `(argument, operator, value)`, of 32 bits, or of 64 where `wide`.
fn rule(wide: bool, comparisons: &[(u8, Op, u64)]) -> Rule {
    let len = || if wide { Len::Qword } else { Len::Dword };
    let conditions = comparisons.iter().map(|(at, op, value)| SeccompCondition::new(*at, len(), op.clone(), *value));
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// One of the values for an argument.
fn one_of(at: u8, values: &[u64]) -> Vec<Rule> {
    values.iter().map(|value| rule(false, &[(at, Op::Eq, *value)])).collect()
}

/// None of the bits of `mask`.
fn without(at: u8, mask: u64) -> Vec<Rule> {
    vec![rule(false, &[(at, Op::MaskedEq(mask), 0)])]
}

fn compared(call: c_long) -> Vec<Rule> {
    let (write, execute) = (libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
    let own = u64::from(std::process::id());
    let thread = libc::CLONE_THREAD as u64;
    match call {
        // Libraries that the C library loads later (name look-up) are mapped to be executed, and never to be written.
        libc::SYS_mmap => {
            [0, write, execute].map(|bits| rule(false, &[(2, Op::MaskedEq(write | execute), bits)])).into()
        }
        libc::SYS_mprotect => without(2, execute),
        // A thread, no process and no namespace.
        libc::SYS_clone => vec![rule(true, &[(0, Op::MaskedEq(thread), thread)])],
        // abort(3).
        libc::SYS_tgkill => one_of(0, &[own]),
        libc::SYS_prctl => one_of(0, &[libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64, PR_SET_VMA]),
        // Of others limits are read, at most.
        libc::SYS_prlimit64 => {
            let own = one_of(0, &[0, own]);
            own.into_iter().chain([rule(true, &[(2, Op::Eq, 0)])]).collect()
        }
        libc::SYS_openat => without(2, WRITING),
        libc::SYS_ioctl => one_of(1, &IOCTL),
        libc::SYS_socket => {
            one_of(0, &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(|family| family as u64))
        }
        libc::SYS_socketpair => one_of(0, &[libc::AF_UNIX as u64]),
        libc::SYS_bpf => one_of(0, &BPF),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => without(1, WRITING),
        _ => Vec::new(),
    }
}

/// Names of the calls that the filter lets through, some of them by their arguments.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALLOWED.iter().chain(OLDER).chain(COMPARED).map(|(_, name)| name.strip_prefix("SYS_").unwrap_or(name))
}

/// The programs, in the order in which they are installed.
///
/// # Errors
/// There is no filter for this architecture.
fn filters() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let mut rules: BTreeMap<_, _> = ALLOWED.iter().chain(OLDER).map(|(call, _)| (*call, Vec::new())).collect();
    for (call, _) in COMPARED {
        rules.insert(*call, compared(*call).into_iter().collect::<Result<_, _>>()?);
    }
    with_absent_clone3(rules)
}

/// The program that allows these calls alone, and one before it.
fn with_absent_clone3(rules: BTreeMap<c_long, Vec<SeccompRule>>) -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let arch = || std::env::consts::ARCH.try_into();
    // clone3(2) has its flags in memory. "Not there" makes the C library take clone(2), whose flags are compared.
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let errno = |number: libc::c_int| SeccompAction::Errno(number.unsigned_abs());
    let absent = SeccompFilter::new(absent, SeccompAction::Allow, errno(libc::ENOSYS), arch()?)?;
    let allowed = SeccompFilter::new(rules, errno(libc::EPERM), SeccompAction::Allow, arch()?)?;
    Ok([absent.try_into()?, allowed.try_into()?])
}

/// Installs the filter for all threads, and for those that they start.
pub(super) fn limit() -> Measure {
    let install = || {
        let programs = filters().map_err(|error| error.to_string())?;
        // The second forbids to install a third.
        programs.iter().try_for_each(|program| apply_filter_all_threads(program).map_err(|error| error.to_string()))
    };
    let calls = ALLOWED.len() + OLDER.len();
    let (state, detail) = match install() {
        Ok(()) => {
            let compared = COMPARED.len();
            (State::Applied, format!("{calls} system calls, and {compared} by their arguments; any other fails"))
        }
        Err(error) => (State::Refused, error),
    };
    Measure { name: "system_calls", state, detail }
}

/// Installs the filter of [`super::helpers`] for the calling thread and what it starts.
pub(super) fn limit_helpers() -> Result<(), String> {
    let filter = || -> Result<[BpfProgram; 2], seccompiler::BackendError> {
        let mut rules: BTreeMap<_, _> = HELPERS.iter().map(|call| (*call, Vec::new())).collect();
        rules.insert(libc::SYS_mmap, compared(libc::SYS_mmap).into_iter().collect::<Result<_, _>>()?);
        rules.insert(libc::SYS_mprotect, compared(libc::SYS_mprotect).into_iter().collect::<Result<_, _>>()?);
        rules.insert(libc::SYS_clone, vec![rule(true, &[(0, Op::MaskedEq(NO_FORK), 0)])?]);
        // The other program answers it.
        rules.insert(libc::SYS_clone3, Vec::new());
        with_absent_clone3(rules)
    };
    let programs = filter().map_err(|error| error.to_string())?;
    programs.iter().try_for_each(|program| seccompiler::apply_filter(program).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, File, OpenOptions},
        io,
        net::TcpListener,
        process::Command,
        thread,
    };

    /// Runs `test` in a thread with the filter, and yields what it does.
    fn filtered<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
        let body = move || {
            for program in filters().unwrap() {
                // Of this thread alone.
                seccompiler::apply_filter(&program).unwrap();
            }
            test()
        };
        thread::spawn(body).join().unwrap()
    }

    /// What a raw call with these arguments says; each is harmless where it is not stopped.
    fn raw(call: c_long, args: [c_long; 4]) -> Option<libc::c_int> {
        // SAFETY: numbers and null pointers only.
        let result = unsafe { libc::syscall(call, args[0], args[1], args[2], args[3]) };
        (result == -1).then(|| io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    #[test]
    fn what_an_observer_does_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "text").unwrap();
        filtered(move || {
            assert_eq!(fs::read_to_string(&path).unwrap(), "text");
            assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
            // Threads, their names, and memory for them.
            let named = thread::Builder::new().name("child".into()).spawn(|| vec![1u8; 1 << 20].len()).unwrap();
            assert_eq!(named.join().unwrap(), 1 << 20);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let address = runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                drop((listener, stream));
                // By name: what the C library needs for it.
                tokio::net::lookup_host("localhost:1").await.unwrap().count()
            });
            assert!(address > 0);
            let word = 7u64;
            let (to, mut got) = (libc::pid_t::try_from(std::process::id()).unwrap(), 0u64);
            let local = libc::iovec { iov_base: (&raw mut got).cast(), iov_len: 8 };
            let remote = libc::iovec { iov_base: (&raw const word).cast_mut().cast(), iov_len: 8 };
            // SAFETY: both describe a word of this function.
            assert_eq!(unsafe { libc::process_vm_readv(to, &raw const local, 1, &raw const remote, 1, 0) }, 8);
            assert_eq!(got, 7);
        });
    }

    #[test]
    fn what_an_observer_never_does_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "text").unwrap();
        let refused = |result: io::Result<()>| result.err().and_then(|error| error.raw_os_error());
        let (inner, eperm) = (path.clone(), Some(libc::EPERM));
        filtered(move || {
            // Files.
            assert_eq!(refused(OpenOptions::new().write(true).open(&inner).map(drop)), eperm);
            assert_eq!(refused(OpenOptions::new().append(true).open(&inner).map(drop)), eperm);
            assert_eq!(refused(File::create(inner.with_extension("new")).map(drop)), eperm);
            assert_eq!(refused(fs::remove_file(&inner)), eperm);
            assert_eq!(refused(fs::rename(&inner, inner.with_extension("other"))), eperm);
            assert_eq!(refused(fs::create_dir(inner.with_extension("folder"))), eperm);
            assert_eq!(refused(std::os::unix::fs::symlink("/", inner.with_extension("link"))), eperm);
            // Programs and processes.
            assert_eq!(refused(Command::new("true").spawn().map(drop)), eperm);
            // Not a thread, and where it is not refused an error: shared handlers without shared memory.
            let flags = c_long::from(libc::CLONE_SIGHAND);
            assert_eq!(raw(libc::SYS_clone, [flags, 0, 0, 0]), eperm);
            assert_eq!(raw(libc::SYS_clone3, [0; 4]), Some(libc::ENOSYS));
            // Signal 0 is none.
            // SAFETY: takes nothing.
            let parent = c_long::from(unsafe { libc::getppid() });
            assert_eq!(raw(libc::SYS_kill, [parent, 0, 0, 0]), eperm);
            assert_eq!(raw(libc::SYS_tgkill, [parent, parent, 0, 0]), eperm);
            // Each with arguments that are wrong, so that it fails in another way where it is not refused.
            for (call, name) in FORBIDDEN {
                assert_eq!(raw(*call, [-1; 4]), eperm, "{name}");
            }
            assert_eq!(raw(libc::SYS_socket, [c_long::from(libc::AF_PACKET), 0, 0, 0]), eperm);
            assert_eq!(raw(libc::SYS_socket, [c_long::from(libc::AF_VSOCK), 0, 0, 0]), eperm);
            // OBJ_PIN, PROG_GET_FD_BY_ID.
            assert_eq!([6, 13].map(|command| raw(libc::SYS_bpf, [command, 0, 0, 0])), [eperm; 2]);
            // TIOCSTI.
            assert_eq!(raw(libc::SYS_ioctl, [-1, 0x5412, 0, 0]), eperm);
            let both = c_long::from(libc::PROT_WRITE | libc::PROT_EXEC);
            assert_eq!(raw(libc::SYS_mmap, [0, 4096, both, -1]), eperm);
            assert_eq!(raw(libc::SYS_mprotect, [0, 0, c_long::from(libc::PROT_EXEC), 0]), eperm);
            assert_eq!(raw(libc::SYS_prctl, [c_long::from(libc::PR_SET_DUMPABLE), 1, 0, 0]), eperm);
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }

    /// By what a process changes others or the host.
    const FORBIDDEN: &[(c_long, &str)] = calls![
        SYS_ptrace SYS_process_vm_writev SYS_pidfd_getfd SYS_pidfd_send_signal SYS_process_madvise SYS_kcmp
        SYS_execve SYS_execveat SYS_mount SYS_umount2 SYS_move_mount SYS_open_tree SYS_fsopen SYS_mount_setattr
        SYS_pivot_root SYS_chroot SYS_unshare SYS_setns SYS_init_module SYS_finit_module SYS_delete_module
        SYS_kexec_load SYS_reboot SYS_swapon SYS_swapoff SYS_add_key SYS_keyctl SYS_request_key SYS_open_by_handle_at
        SYS_name_to_handle_at SYS_setuid SYS_setresuid SYS_setgid SYS_setgroups SYS_capset SYS_personality
        SYS_settimeofday SYS_clock_settime SYS_acct SYS_quotactl SYS_syslog SYS_sethostname SYS_mknodat SYS_fchmodat
        SYS_fchownat SYS_linkat SYS_truncate SYS_ftruncate SYS_fallocate SYS_setxattr SYS_utimensat SYS_copy_file_range
        SYS_sendfile SYS_splice SYS_userfaultfd SYS_io_uring_setup SYS_memfd_create SYS_sched_setscheduler
        SYS_setpriority SYS_ioprio_set SYS_seccomp SYS_landlock_restrict_self SYS_fanotify_init
    ];

    #[test]
    fn no_call_is_listed_twice_or_both_allowed_and_forbidden() {
        let mut seen = std::collections::BTreeSet::new();
        for (call, name) in ALLOWED.iter().chain(OLDER).chain(COMPARED).chain(FORBIDDEN) {
            assert!(seen.insert(*call), "{name}");
        }
        for (call, name) in COMPARED {
            assert!(!compared(*call).is_empty(), "{name} would be allowed whatever its arguments");
        }
    }
}
