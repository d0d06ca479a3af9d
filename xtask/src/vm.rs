//! `cargo xtask vm-test`: the daemon on a kernel of its own, in a virtual machine.
//!
//! Reads: QEMU, a kernel ([`kernel`]), busybox and runc, as `cargo xtask setup --tests` brings them. Yields: one line per
//! check of `rustok-obsd/tests/vm`, then `N passed, N failed, N skipped`. Costs: 10 to 60 s besides the builds.
//!
//! Hosts that run tests have what they have: a hybrid cgroup hierarchy, no pressure information, kernels that nobody
//! chose. A kernel panic or a run that does not end gets a second try, since emulators have their own faults; a check
//! that fails does not.

mod cpio;
mod initramfs;
mod qemu;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::build_ebpf;
use crate::setup::{self, Need, kernel};
use crate::test::Summary;
use crate::workspace::{Workspace, find_program, program};
use initramfs::Contents;
use qemu::{End, Machine, Report};

/// How long one run may take.
const LIMIT: Duration = Duration::from_secs(300);
const DISK: u64 = 64 << 20;

/// `cargo xtask vm-test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run the checks whose names contain this.
    #[arg(default_value = "", hide_default_value = true, value_parser = word)]
    only: String,
    /// A daemon to test, instead of building it.
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
}

/// It goes on the kernel's command line.
fn word(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plain { Ok(text.to_owned()) } else { Err("names of checks are of letters, digits and _".to_owned()) }
}

/// What a run needs of this machine.
struct Host {
    qemu: PathBuf,
    kernel: PathBuf,
    /// A check is skipped without it.
    veth: Option<PathBuf>,
    busybox: PathBuf,
    /// Its checks are skipped without it.
    runc: Option<PathBuf>,
}

/// Runs it.
pub fn vm_test(workspace: &Workspace, args: &Args) -> Result<()> {
    let outcome = setup::setup(true);
    let host = host()?;
    let daemon = match &args.daemon {
        Some(daemon) => daemon.clone(),
        None => {
            if let Some(missing) = outcome.lacks(Need::Ebpf) {
                bail!("{missing}");
            }
            build_ebpf::build(workspace)?;
            program(&workspace.build_release(&["rustok-obsd"])?, "rustok-obsd")?
        }
    };
    let mut summary = Summary::default();
    run(workspace, &host, &daemon, &args.only, &mut summary)?;
    println!("{summary}");
    if summary.failed > 0 {
        bail!("{} checks failed in the virtual machine", summary.failed);
    }
    if summary.passed == 0 {
        bail!("no check of the virtual machine passed");
    }
    Ok(())
}

/// As a part of all tests, with this daemon: what cannot run here is skipped.
pub fn all(workspace: &Workspace, daemon: &Path, summary: &mut Summary) -> Result<()> {
    match host() {
        Ok(host) => run(workspace, &host, daemon, "", summary),
        Err(error) => {
            println!("skipped: vm-test: {error:#}");
            summary.skipped += 1;
            Ok(())
        }
    }
}

fn host() -> Result<Host> {
    if !kernel::wanted() {
        bail!("the virtual machine runs programs of this host, and is an x86-64");
    }
    let remedy = "run `cargo xtask setup --tests`";
    let kernel = kernel::find()?.with_context(|| format!("no kernel for it: {remedy}"))?;
    Ok(Host {
        qemu: find_program("qemu-system-x86_64").with_context(|| format!("qemu-system-x86_64 is missing: {remedy}"))?,
        veth: kernel::veth(&kernel),
        kernel,
        busybox: find_program("busybox").with_context(|| format!("busybox is missing: {remedy}"))?,
        runc: find_program("runc"),
    })
}

fn run(workspace: &Workspace, host: &Host, daemon: &Path, only: &str, summary: &mut Summary) -> Result<()> {
    let init = program(&workspace.build_release(&["vm-init"])?, "vm-init")?;
    let folder = tempfile::Builder::new().prefix("rustok-obsd-vm-").tempdir()?;
    let initramfs = folder.path().join("initramfs");
    let mut programs = vec![(init.as_path(), "/init"), (daemon, "/bin/rustok-obsd")];
    programs.extend(host.runc.as_deref().map(|runc| (runc, "/usr/sbin/runc")));
    programs.extend(host.veth.as_deref().map(|module| (module, "/lib/veth.ko")));
    initramfs::write(&Contents { programs: &programs, busybox: &host.busybox }, &initramfs)?;
    let disk = folder.path().join("disk");
    File::create(&disk).and_then(|file| file.set_len(DISK)).context("no file for the virtual disk")?;
    println!("vm: {} on {}", daemon.display(), host.kernel.display());
    let machine = Machine {
        qemu: &host.qemu,
        kernel: &host.kernel,
        initramfs: &initramfs,
        disk: &disk,
        folder: folder.path(),
        parameters: &format!("vm.only={only}"),
        limit: LIMIT,
    };
    for last in [false, true] {
        let mut seen = Summary::default();
        let end = machine.run(|report| seen.report(report))?;
        match end {
            End::Broken(why) if !last => println!("vm: a second try: {why}"),
            End::Broken(why) => {
                println!("vm: {why}");
                seen.failed += 1;
                *summary += seen;
            }
            End::Done => {
                *summary += seen;
                break;
            }
        }
    }
    Ok(())
}

impl Summary {
    fn report(&mut self, report: &Report) {
        match report {
            Report::Pass(name) => {
                println!("vm: {name} ... ok");
                self.passed += 1;
            }
            Report::Fail(name, reason) => {
                println!("vm: {name} ... FAILED: {reason}");
                self.failed += 1;
            }
            Report::Skip(name, reason) => {
                println!("skipped: vm: {name}: {reason}");
                self.skipped += 1;
            }
            Report::Note(name, text) => println!("vm: {name}: {text}"),
            Report::Done => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_cannot_add_kernel_parameters() {
        assert_eq!(word("cgroup_v2").as_deref(), Ok("cgroup_v2"));
        assert!(word("a init=/bin/sh").is_err());
    }

    #[test]
    fn reports_add_up() {
        let mut summary = Summary::default();
        for report in [
            Report::Pass("a".into()),
            Report::Fail("b".into(), "why".into()),
            Report::Skip("c".into(), "why".into()),
            Report::Done,
        ] {
            summary.report(&report);
        }
        assert_eq!(summary, Summary { passed: 1, failed: 1, skipped: 1 });
    }
}
