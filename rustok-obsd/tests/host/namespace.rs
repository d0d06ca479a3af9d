//! The daemon in a mount namespace of its own, as its systemd unit gives it one: it still tells the host's file systems.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use test_support::{Child, Scraped, Skip, free_port, http_get, skip};

/// A tmpfs of so many bytes, gone with its value.
struct Mount<'p>(&'p Path);

impl<'p> Mount<'p> {
    fn new(at: &'p Path, bytes: u64) -> Result<Self, Skip> {
        let size = format!("size={bytes}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "rustok-obsd-test"]).arg(at).status();
        let mounted = status.is_ok_and(|status| status.success());
        mounted.then_some(Self(at)).ok_or_else(|| Skip::new("mount is refused: run as root"))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn mounts_are_those_of_the_host_whatever_the_daemon_sees() {
    if let Err(reason) = shadowed() {
        skip("mounts_are_those_of_the_host_whatever_the_daemon_sees", reason);
    }
}

fn shadowed() -> Result<(), Skip> {
    let binary = std::env::var_os("RUSTOK_OBSD_BIN").map(PathBuf::from);
    let binary =
        binary.ok_or_else(|| Skip::new("RUSTOK_OBSD_BIN is not set; `cargo xtask test` builds what it names"))?;
    std::fs::metadata("/proc/1/ns/mnt").map_err(|error| {
        Skip::new(format!("process 1 may not be looked into ({error}), so that its mounts cannot be told"))
    })?;
    let folder = tempfile::tempdir().expect("a folder");
    let _host = Mount::new(folder.path(), 1 << 20)?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            "mount -t tmpfs -o size=2m hides \"$1\" && shift && exec \"$@\"",
            "sh",
        ])
        .arg(folder.path())
        .arg(binary)
        .args(["run", "--ebpf.host-events=false", &format!("--web.listen-address={address}")]);
    let mut daemon = Child::spawn("rustok-obsd", &mut command).expect("start the daemon");
    daemon.wait_for_http(address, "/healthz", Duration::from_secs(20)).expect("the daemon serves");
    let (_, _, body) = http_get(address, "/metrics/node?collect[]=filesystem").expect("an answer");
    let scraped = Scraped::parse(&String::from_utf8_lossy(&body)).expect("an exposition");
    let place = folder.path().display().to_string();
    let size = scraped.sum("node_filesystem_size_bytes", &[("mountpoint", &place)]);
    assert_eq!(size, Some(f64::from(1 << 20)), "what the daemon sees there has 2 MiB");
    let (_, _, body) = http_get(address, "/metrics/cadvisor").expect("an answer");
    let scraped = Scraped::parse(&String::from_utf8_lossy(&body)).expect("an exposition");
    let size = scraped.sum("container_fs_limit_bytes", &[("device", &place)]);
    assert_eq!(size, Some(f64::from(1 << 20)), "what the daemon sees there has 2 MiB");
    Ok(())
}
