//! The process that reads targets' memory, and memory that never comes.
//!
//! Reads: a file of a FUSE file system of the test's own, mapped into the test, whose server answers no read. Yields: what
//! that costs. Where FUSE cannot be mounted the test is skipped with the reason.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rustok_obsd::target::reader::{Access as _, DEADLINE, Hanging, Refused};
use rustok_obsd::target::{FileNode, Helpers, MemoryError, Reader, RouteTable};
use rustok_obsd::{
    config::Config,
    confine::{Confinement, HELPERS, Measure, State},
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use test_support::{Fuse, Served, Skip, fuse, skip, wait_until};

fn reader() -> Reader {
    Reader::new(Helpers::new(env!("CARGO_BIN_EXE_rustok-obsd"), true))
}

/// Reads with the process there that helpers descend from, and that process.
fn prepared() -> (Reader, u32) {
    let helpers = Helpers::new(env!("CARGO_BIN_EXE_rustok-obsd"), true);
    helpers.prepare(Instant::now() + 60 * DEADLINE).expect("it starts");
    let parent = helpers.parent().expect("it is there");
    (Reader::new(helpers), parent)
}

/// Ends a process that this one has started, and waits until it has ended.
fn end(pid: u32) {
    let pid = libc::pid_t::try_from(pid).expect("a process");
    // SAFETY: takes numbers, and a place for what is not asked for.
    unsafe {
        assert_eq!(libc::kill(pid, libc::SIGKILL), 0);
        let mut info = std::mem::zeroed();
        // It stays, for whoever awaits it by right.
        assert_eq!(libc::waitid(libc::P_PID, pid.cast_unsigned(), &raw mut info, libc::WEXITED | libc::WNOWAIT), 0);
    }
}

/// Where a process has its own program.
fn program(pid: u32) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let line = maps.lines().find(|line| line.contains("r--p 00000000") && line.ends_with(&*exe.to_string_lossy()))?;
    u64::from_str_radix(line.split('-').next()?, 16).ok()
}

/// Runs a test's `body` in a process of its own, which may be confined as a whole.
fn alone(name: &str, body: impl FnOnce() -> Result<(), Skip>) {
    if std::env::var_os("RUSTOK_OBSD_ALONE").is_some() {
        if let Err(reason) = body() {
            skip(name, reason);
        }
        return;
    }
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    // What it leaves there goes with this one.
    let folder = tempfile::tempdir().expect("a folder");
    command.args([name, "--exact", "--nocapture"]).env("RUSTOK_OBSD_ALONE", "1").env("TMPDIR", folder.path());
    let output = command.output().expect("start");
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", output.status);
    // The reason of a test that was skipped.
    std::io::stderr().write_all(&output.stderr).expect("standard error");
}

/// Both steps of the confinement, and what is done between them.
fn confine<T>(between: impl FnOnce() -> T) -> T {
    let config = Config::default();
    let confinement = Confinement::privileges(&config);
    let done = between();
    confinement.system_calls(&config);
    let error = Command::new("true").spawn().expect_err("no process can be made");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    done
}

fn read(reader: &Reader, pid: u32, address: u64, len: usize) -> Result<Vec<u8>, MemoryError> {
    let answer = reader.ask(pid, move |memory| {
        let mut bytes = vec![0; len];
        memory.read(address, &mut bytes).map(|()| bytes)
    });
    answer.expect("it is taken").recv().expect("it answers")
}

#[test]
fn a_helper_reads_what_a_direct_read_gives() {
    let reader = reader();
    let own = std::process::id();
    let map: HashMap<u32, Arc<str>> = (0..3000).map(|id| (id, format!("/api/{id}/{{id}}").into())).collect();
    let address = std::ptr::from_ref(&map) as u64;
    let table = reader.ask(own, move |memory| RouteTable::read(memory, address)).expect("it is taken");
    let table = table.recv().expect("it answers").expect("a map");
    assert!(table.routes.len() == 3000 && map.iter().all(|(id, path)| table.routes[id] == *path));
    assert_eq!(read(&reader, own, 0x10, 8), Err(MemoryError::Unmapped { address: 0x10, len: 8 }));
    let mut child = Command::new("true").spawn().expect("start true");
    child.wait().expect("its end");
    assert_eq!(read(&reader, child.id(), 0x1000, 8), Err(MemoryError::Gone { pid: child.id() }));
    let stats = reader.stats();
    assert_eq!((stats.late, stats.refused, stats.hanging), (0, 0, 0));
}

#[test]
fn a_program_that_is_no_helper_gives_an_error() {
    let reader = Reader::new(Helpers::new("/bin/true", true));
    let error = read(&reader, std::process::id(), 0x1_0000, 8).expect_err("it answers nothing");
    assert!(error.to_string().contains("its helper process ended"), "{error}");
    let reader = Reader::new(Helpers::new("/no/such/program", true));
    let error = read(&reader, std::process::id(), 0x1_0000, 8).expect_err("there is none");
    assert!(error.to_string().contains("does not start"), "{error}");
}

#[test]
fn a_parent_that_ended_is_replaced_where_the_daemon_is_not_confined() {
    let (reader, parent) = prepared();
    end(parent);
    let (own, word) = (std::process::id(), 7_u64);
    assert_eq!(read(&reader, own, std::ptr::from_ref(&word) as u64, 8), Ok(word.to_ne_bytes().to_vec()));
}

#[test]
fn without_a_parent_a_confined_daemon_refuses_to_read_and_names_the_remedy() {
    alone("without_a_parent_a_confined_daemon_refuses_to_read_and_names_the_remedy", || {
        let (reader, parent) = confine(|| {
            let (reader, parent) = prepared();
            end(parent);
            (reader, parent)
        });
        let own = std::process::id();
        let error = read(&reader, own, 0x1_0000, 8).expect_err("there is no helper").to_string();
        assert!(error.contains("the helper process does not start") && error.contains("restart the daemon"), "{error}");
        assert_eq!(reader.ask(parent, |_| ()).expect_err("nothing is left"), Refused::NoHelper(parent));
        assert_eq!(reader.stats().refused, 1);
        Ok(())
    });
}

/// State of the confinement that the process which helpers descend from reports, and the detail, and that it has a filter.
fn confined(helpers: &Helpers) -> (State, String, bool) {
    helpers.prepare(Instant::now() + 60 * DEADLINE).expect("it starts");
    let Measure { name, state, detail } = helpers.confinement().expect("it is there");
    assert_eq!(name, HELPERS);
    let parent = helpers.parent().expect("it is there");
    let status = fs::read_to_string(format!("/proc/{parent}/status")).expect("its status");
    // One that the test itself may be under counts as well.
    let filters = |status: &str| status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:\t")?.parse().ok());
    let own = fs::read_to_string("/proc/thread-self/status").expect("this thread's status");
    (state, detail, filters(&status).unwrap_or(0_u32) > filters(&own).unwrap_or(0))
}

#[test]
fn helpers_report_how_they_are_confined_and_the_key_leaves_their_filter_out() {
    let program = env!("CARGO_BIN_EXE_rustok-obsd");
    let (state, detail, filtered) = confined(&Helpers::new(program, true));
    assert!(state == State::Applied && filtered, "{state:?}: {detail}");
    let (state, detail, filtered) = confined(&Helpers::new(program, false));
    assert!(state == State::Off && !filtered && detail == "security.confine = false", "{state:?}: {detail}");
    // Where the kernel refuses the filter, they read, and it is reported.
    let refusing = BTreeMap::from([(libc::SYS_seccomp, Vec::new())]);
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with a filter");
    let errno = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    let refusing = SeccompFilter::new(refusing, SeccompAction::Allow, errno, arch).expect("a filter");
    let refusing: BpfProgram = refusing.try_into().expect("a program");
    let refused = move || {
        // Of this thread, and of what it starts.
        apply_filter(&refusing).expect("the filter");
        let helpers = Helpers::new(program, true);
        let (state, detail, filtered) = confined(&helpers);
        assert!(state == State::Partial && !filtered, "{state:?}: {detail}");
        assert!(detail.contains("system_calls") && detail.contains("ermission denied"), "{detail}");
        let word = 7_u64;
        let place = std::ptr::from_ref(&word) as u64;
        assert_eq!(read(&Reader::new(helpers), std::process::id(), place, 8), Ok(word.to_ne_bytes().to_vec()));
    };
    std::thread::spawn(refused).join().expect("the refused thread");
}

#[test]
fn a_parent_that_does_not_answer_costs_the_time_of_one_read() {
    let (reader, parent) = prepared();
    let pid = libc::pid_t::try_from(parent).expect("a process");
    let (own, word) = (std::process::id(), 7_u64);
    let place = std::ptr::from_ref(&word) as u64;
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    let error = read(&reader, own, place, 8).expect_err("nobody makes a helper").to_string();
    assert!(error.contains("the helper process does not start"), "{error}");
    // SAFETY: the same.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGCONT) }, 0);
    // Until the late job is off its thread, the process may not be read.
    while reader.stats().hanging > 0 {
        std::thread::yield_now();
    }
    assert_eq!(read(&reader, own, place, 8), Ok(word.to_ne_bytes().to_vec()));
}

#[test]
fn helpers_and_their_parent_end_with_the_daemons_sockets() {
    let helpers = Helpers::new(env!("CARGO_BIN_EXE_rustok-obsd"), true);
    let (word, mut got) = (7_u64, [0; 8]);
    let memory = helpers.memory(std::process::id(), Instant::now() + 60 * DEADLINE);
    memory.read(std::ptr::from_ref(&word) as u64, &mut got).expect("it reads");
    assert_eq!(got, word.to_ne_bytes());
    let parent = helpers.parent().expect("it is there");
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("its children");
    let helper: u32 = children.trim().parse().expect("one helper");
    let status = fs::read_to_string(format!("/proc/{helper}/status")).expect("its status");
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).expect(key).trim().to_owned();
    assert_eq!((&*line("Name:"), &*line("NoNewPrivs:"), &*line("Seccomp:")), ("rustok-obsd", "1", "2"));
    // CAP_SYS_PTRACE, where that is held, and no other.
    let held = u64::from_str_radix(&line("CapPrm:"), 16).expect("a mask");
    assert!(held & 1 << 19 == 0 || held == 1 << 19, "{held:x}");
    drop(memory);
    drop(helpers);
    // The kernel reaps the helper, and this process, when it ends, its own child.
    while Path::new(&format!("/proc/{helper}")).exists() {
        std::thread::yield_now();
    }
    let status = || fs::read_to_string(format!("/proc/{parent}/status")).expect("its status");
    while !status().contains("State:\tZ") {
        std::thread::yield_now();
    }
}

#[test]
fn a_confined_daemon_reads_on_after_a_helper_hangs() {
    let body = || {
        let folder = tempfile::tempdir().expect("a folder");
        let (address, mut silence) = silence(&folder.path().join("file"))?;
        let (reader, _) = confine(prepared);
        // SAFETY: takes nothing.
        let (own, outer) = (std::process::id(), unsafe { libc::getppid() }.cast_unsigned());
        let place = program(outer).expect("the outer test's program");
        let stuck = reader.ask(own, move |memory| memory.read(address, &mut [0; 48])).expect("it is taken");
        is_asked(&silence);
        assert_eq!(read(&reader, outer, place, 4).as_deref(), Ok(&b"\x7fELF"[..]));
        assert_eq!(stuck.recv().expect("it answers"), Err(MemoryError::TimedOut { pid: own }));
        assert_eq!(reader.stats().hanging, 1);
        assert_eq!(reader.ask(own, |_| ()).expect_err("not again"), Refused::Hangs(own));
        assert_eq!(read(&reader, outer, place, 4).as_deref(), Ok(&b"\x7fELF"[..]));
        silence.cut();
        while reader.stats().hanging > 0 {
            std::thread::yield_now();
        }
        let word = 7_u64;
        assert_eq!(read(&reader, own, std::ptr::from_ref(&word) as u64, 8), Ok(word.to_ne_bytes().to_vec()));
        // Its file is mounted over until this process ends; the outer test removes it.
        std::mem::forget(folder);
        Ok(())
    };
    alone("a_confined_daemon_reads_on_after_a_helper_hangs", || fuse::apart(0, body));
}

/// A file that answers no read, mapped into this process.
fn silence(file: &Path) -> Result<(u64, Fuse), Skip> {
    fs::write(file, "").expect("a file");
    let silence = Fuse::mount(file, Served::File(vec![0; 4096]))?;
    silence.keep_content();
    let file = File::open(file).expect("open the file");
    // The kernel knows its size when it was asked for.
    assert_eq!(file.metadata().expect("its size").len(), 4096);
    // SAFETY: a new mapping that nobody in this process touches.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    Ok((at as u64, silence))
}

/// Waits until a page is asked for.
fn is_asked(silence: &Fuse) {
    wait_until(60 * DEADLINE, || (silence.unanswered() > 0).then_some(())).expect("the page is asked for");
}

/// A process that ends with the test.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn memory_that_never_comes_costs_a_helper_and_its_own_process() {
    let name = "memory_that_never_comes_costs_a_helper_and_its_own_process";
    let body = || -> Result<(), Skip> {
        let folder = tempfile::tempdir().expect("a folder");
        let (address, mut silence) = silence(&folder.path().join("file"))?;
        let (reader, own) = (reader(), std::process::id());
        let start = Instant::now();
        let stuck = reader.ask(own, move |memory| memory.read(address, &mut [0; 48])).expect("it is taken");
        is_asked(&silence);
        // Meanwhile others are read.
        let other = Other(Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().expect("start sleep"));
        let first = loop {
            // Its own program, once it runs.
            let name = fs::read_to_string(format!("/proc/{}/comm", other.0.id())).unwrap_or_default();
            if let Some(first) = program(other.0.id()).filter(|_| name.trim() == "sleep") {
                break first;
            }
            std::thread::yield_now();
        };
        assert_eq!(read(&reader, other.0.id(), first, 4).as_deref(), Ok(&b"\x7fELF"[..]));
        assert_eq!(stuck.recv().expect("it answers"), Err(MemoryError::TimedOut { pid: own }));
        assert!(start.elapsed() >= DEADLINE);
        // The kernel does not let the helper go.
        assert_eq!(reader.stats().hanging, 1);
        let file = FileNode::run_by(Path::new("/proc"), own).ok();
        assert!(file.is_some());
        assert_eq!(reader.hanging(), [Hanging { pid: own, file }]);
        assert_eq!(reader.ask(own, |_| ()).expect_err("not again"), Refused::Hangs(own));
        assert_eq!(read(&reader, other.0.id(), first, 4).as_deref(), Ok(&b"\x7fELF"[..]));
        drop(other);
        silence.cut();
        while reader.stats().hanging > 0 {
            std::thread::yield_now();
        }
        let word = 7_u64;
        let place = std::ptr::from_ref(&word) as u64;
        assert_eq!(read(&reader, own, place, 8), Ok(word.to_ne_bytes().to_vec()), "it is read again");
        Ok(())
    };
    if let Err(reason) = fuse::apart(0, body) {
        skip(name, reason);
    }
}
