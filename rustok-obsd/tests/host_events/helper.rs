//! Processes of known behaviour: this test binary, started again, which acts before its `main`.

use std::{
    io, mem,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const ROLE: &str = "RUSTOK_OBSD_HOST_EVENTS_ROLE";
const CGROUP: &str = "RUSTOK_OBSD_HOST_EVENTS_CGROUP";

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Ends.
    Nothing,
    /// Is busy for 50 ms.
    Burn,
    /// Three more threads are busy for 15 ms each, then it ends.
    Threads,
    /// The same, but the process ends under them: they spin until they are killed.
    Killed,
    /// The main thread is busy for 10 ms and ends; another one is for 20 ms, and ends last.
    LeaderFirst,
    /// A thread that is not the main one replaces the program.
    ExecInThread,
    /// Joins a cgroup and touches memory until it is killed.
    Eat,
}

const ROLES: [Role; 7] =
    [Role::Nothing, Role::Burn, Role::Threads, Role::Killed, Role::LeaderFirst, Role::ExecInThread, Role::Eat];

/// Runs before `main`, in the main thread, which libtest would keep for itself.
#[used]
#[unsafe(link_section = ".init_array")]
static ACT: extern "C" fn() = act;

extern "C" fn act() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let role = ROLES.into_iter().find(|known| *role == *format!("{known:?}")).expect("a known role");
    let threads = |busy: u64| {
        (0..3).map(move |_| std::thread::spawn(move || burn(Duration::from_millis(busy)))).collect::<Vec<_>>()
    };
    match role {
        Role::Nothing => {}
        Role::Burn => burn(Duration::from_millis(50)),
        Role::Threads => threads(15).into_iter().for_each(|thread| thread.join().expect("the thread ends")),
        Role::Killed => {
            drop(threads(60_000));
            burn(Duration::from_millis(10));
        }
        Role::LeaderFirst => {
            drop(std::thread::spawn(|| {
                burn(Duration::from_millis(20));
                end_thread();
            }));
            burn(Duration::from_millis(10));
            end_thread();
        }
        Role::ExecInThread => {
            let replaced = std::thread::spawn(|| {
                let error = Command::new("/bin/sh").args(["-c", "exit 0"]).env_remove(ROLE).exec();
                panic!("{error}");
            });
            let _ = replaced.join();
        }
        Role::Eat => {
            let cgroup = std::env::var_os(CGROUP).expect("a cgroup");
            std::fs::write(std::path::Path::new(&cgroup).join("cgroup.procs"), "0").expect("the cgroup takes it");
            let mut eaten = Vec::new();
            for _ in 0..256 {
                eaten.push(vec![1u8; 1 << 20]);
            }
            std::hint::black_box(eaten);
        }
    }
    // SAFETY: nothing is to be unwound or flushed.
    unsafe { libc::_exit(0) };
}

/// Ends the calling thread alone.
fn end_thread() {
    // SAFETY: the thread's memory is left as it is, and the process ends soon.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// Busy until the thread has had so much time on a CPU.
fn burn(time: Duration) {
    let cpu = || {
        // SAFETY: a struct of plain numbers.
        let mut now = unsafe { mem::zeroed::<libc::timespec>() };
        // SAFETY: a valid place for the answer.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
        Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).expect("less than a second"))
    };
    let (mut turn, started) = (0u64, Instant::now());
    while cpu() < time && started.elapsed() < Duration::from_secs(120) {
        turn = (0..2000).fold(turn, |sum, n| std::hint::black_box(sum.wrapping_mul(31) ^ n));
    }
}

/// Starts a process in a role.
pub fn command(role: Role) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.env(ROLE, format!("{role:?}")).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Starts one that eats memory in a cgroup.
pub fn eater(cgroup: &std::path::Path) -> Command {
    let mut command = command(Role::Eat);
    command.env(CGROUP, cgroup);
    command
}

/// What the kernel tells the parent of an ended child.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub pid: u32,
    pub status: i32,
    pub user_us: u64,
    pub system_us: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

/// Runs a command to its end.
#[expect(clippy::zombie_processes, reason = "it is waited for by its pid")]
pub fn run(command: &mut Command) -> Ended {
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    wait(child.id())
}

/// Waits until a child has ended, and leaves it as a zombie. Yields its pid.
pub fn wait_and_leave(pid: u32) -> u32 {
    // SAFETY: a struct of plain numbers.
    let mut info = unsafe { mem::zeroed::<libc::siginfo_t>() };
    // SAFETY: a valid place for the answer.
    let waited = unsafe { libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED | libc::WNOWAIT) };
    assert_eq!(waited, 0, "waitid({pid}): {}", io::Error::last_os_error());
    // SAFETY: `waitid` has filled in that part of the union.
    unsafe { info.si_pid() }.cast_unsigned()
}

/// Waits for a child.
pub fn wait(pid: u32) -> Ended {
    let mut status = 0;
    // SAFETY: a struct of plain numbers.
    let mut usage = unsafe { mem::zeroed::<libc::rusage>() };
    loop {
        // SAFETY: two valid places for the answers.
        let waited = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
        if waited == pid.cast_signed() {
            break;
        }
        let error = io::Error::last_os_error();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted, "wait4({pid}): {error}");
    }
    let micros = |time: libc::timeval| time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_usec.cast_unsigned();
    Ended {
        pid,
        status,
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        minor_faults: usage.ru_minflt.cast_unsigned(),
        major_faults: usage.ru_majflt.cast_unsigned(),
        voluntary_switches: usage.ru_nvcsw.cast_unsigned(),
        involuntary_switches: usage.ru_nivcsw.cast_unsigned(),
    }
}
