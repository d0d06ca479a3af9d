//! Tables of mounts, and places in them.

use test_support::{Fuse, Served, Skip, fuse, skip};

use super::*;
use crate::target::executable::Executable;

#[test]
fn the_kind_of_a_mount_is_found_by_its_number() {
    let line = b"36 35 98:0 /a\\040-\\040b /mnt\xff rw,noatime master:1 - fuse.sshfs sshfs rw,user_id=0";
    assert_eq!(kind_of(line, 36).as_deref(), Some("fuse.sshfs"));
    assert_eq!(kind_of(line, 35), None);
    assert_eq!(kind_of(b"36 35 98:0 / /mnt rw", 36), None);
}

#[test]
fn ones_own_executable_may_be_read_and_one_without_a_mount_may_not() {
    let open = |pid: u32, path: &str| Executable::of_process(Path::new(path), Mounts::of(Path::new("/proc"), pid));
    let own = std::process::id();
    assert!(open(own, "/proc/self/exe").unwrap().is_ok());
    assert!(open(own, "/proc/4294967295/exe").is_err());
    // SAFETY: a name that ends in NUL, and a number.
    let nameless = unsafe { libc::memfd_create(c"program".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(nameless >= 0);
    assert_eq!(open(own, &format!("/proc/self/fd/{nameless}")).unwrap().unwrap_err(), Unasked::Unmounted);
    // SAFETY: the descriptor of this test, closed once.
    unsafe { libc::close(nameless) };
}

#[test]
fn the_descriptor_that_is_looked_at_is_the_one_that_is_read() {
    let body = || -> Result<(), Skip> {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("served"), folder.path().join("exe"));
        std::fs::write(&path, "").unwrap();
        let served = Fuse::mount(&path, Served::File(b"text".to_vec()))?;
        // The link stands for a process that replaces its program over and over.
        let (good, swapped) = (std::env::current_exe().unwrap(), folder.path().join("next"));
        std::os::unix::fs::symlink(&good, &link).unwrap();
        let mounts = Mounts::of(Path::new("/proc"), std::process::id());
        let over = std::sync::atomic::AtomicBool::new(false);
        let (mut opened, mut refused) = (0, Vec::new());
        std::thread::scope(|scope| {
            // It shares this thread's mounts.
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    for to in [&path, &good] {
                        std::os::unix::fs::symlink(to, &swapped).unwrap();
                        std::fs::rename(&swapped, &link).unwrap();
                    }
                }
            });
            while opened < 300 || refused.len() < 300 {
                match Executable::of_process(&link, mounts.clone()) {
                    Ok(Ok(_)) => opened += 1,
                    other => refused.push(other),
                }
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(served.asked(), 0);
        for refused in refused {
            assert_eq!(refused.unwrap().unwrap_err(), Unasked::Served("fuse".into()));
        }
        Ok(())
    };
    if let Err(reason) = fuse::apart(0, body) {
        skip("the_descriptor_that_is_looked_at_is_the_one_that_is_read", reason);
    }
}
