//! A system around us, and its end.
//!
//! Reads: `/proc/cmdline`. Yields: file systems where programs look for them, the loopback interface, a `PATH`. Costs:
//! a `busybox` per step.

use std::io;
use std::process::Command;

/// Where each file system goes. The cgroup hierarchy is the unified one alone.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("tracefs", "/sys/kernel/tracing"),
];

/// Mounts, brings the loopback interface up, sets `PATH`.
pub fn prepare() -> io::Result<()> {
    // SAFETY: no other thread has been started.
    unsafe { std::env::set_var("PATH", "/bin:/sbin:/usr/bin:/usr/sbin") };
    for (kind, folder) in MOUNTS {
        busybox(&["mount", "-t", kind, kind, folder])?;
    }
    busybox(&["ip", "link", "set", "lo", "up"])
}

/// Runs an applet that must succeed.
pub fn busybox(args: &[&str]) -> io::Result<()> {
    let output = Command::new("/bin/busybox").args(args).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("busybox {}: {}", args.join(" "), said.trim())))
}

/// A parameter of the kernel's command line.
pub fn parameter(name: &str) -> Option<String> {
    let line = std::fs::read_to_string("/proc/cmdline").ok()?;
    line.split_whitespace().find_map(|word| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// Never returns.
pub fn power_off() -> ! {
    let _ = busybox(&["poweroff", "-f"]);
    // The kernel is on its way.
    loop {
        std::thread::park();
    }
}
