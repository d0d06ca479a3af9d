//! Why the daemon has no Landlock domain around it: a process in a domain does not see into one outside of it.
//!
//! Reads: `/proc` of a child of the test's own, from a thread before and after it enters a domain that forbids no more than
//! writing. Yields: fails where the kernel lets it read: then `src/confine` can do with Landlock what it leaves out today.
//! Costs: a process.

use std::{
    fs, io,
    process::{Child, Command, Stdio},
    thread,
};

use landlock::{ABI, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetCreated};
use test_support::{Skip, skip};

/// What the daemon reads of a target.
fn read(target: u32) -> [(&'static str, io::Result<()>); 4] {
    let path = |name: &str| format!("/proc/{target}/{name}");
    let mut word = 0u64;
    let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
    let stack = fs::read_to_string(path("maps")).unwrap_or_default();
    let line = stack.lines().find(|line| line.ends_with("[stack]")).unwrap_or_default();
    let end = line.split(['-', ' ']).nth(1).and_then(|end| usize::from_str_radix(end, 16).ok()).unwrap_or(8);
    let remote = libc::iovec { iov_base: (end - 8) as *mut libc::c_void, iov_len: 8 };
    // SAFETY: the local word is this function's; what is remote is looked up by the kernel.
    let copied = unsafe { libc::process_vm_readv(target.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    let memory = if copied < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    [
        ("exe", fs::metadata(path("exe")).map(drop)),
        ("root", fs::read_link(path("root")).map(drop)),
        ("io", fs::read(path("io")).map(drop)),
        ("memory", memory),
    ]
}

/// Puts the calling thread into a domain that forbids to write to files.
fn enter_domain() -> Result<(), Skip> {
    let domain = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_write(ABI::V1))
        .and_then(Ruleset::create)
        .and_then(RulesetCreated::restrict_self);
    domain.map(drop).map_err(|error| Skip::new(format!("this kernel has no Landlock: {error}")))
}

fn target() -> io::Result<Child> {
    // It has executed its program once it writes, and ends when its input does.
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()
}

#[test]
fn a_process_in_a_landlock_domain_cannot_observe_others() {
    let name = "a_process_in_a_landlock_domain_cannot_observe_others";
    let mut target = target().expect("cat starts");
    let pid = target.id();
    // A domain belongs to a thread.
    let tried = thread::spawn(move || {
        let before = read(pid);
        enter_domain().map(|()| (before, read(pid)))
    });
    let tried = tried.join().expect("the thread");
    drop(target.stdin.take());
    target.wait().expect("cat ends");
    let (before, after) = match tried {
        Ok(tried) => tried,
        Err(reason) => return skip(name, reason),
    };
    for ((what, before), (_, after)) in before.into_iter().zip(after) {
        assert!(before.is_ok(), "{what}: {before:?}");
        let refused = after.expect_err(what);
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{what}: {refused}");
    }
}
