//! The kernel that `cargo xtask vm-test` boots: Debian's 6.1 for clouds, whose disk and file systems need no modules.
//!
//! Reads: `RUSTOK_OBSD_VM_KERNEL`, our cache folder, apt's lists. Yields: the path of a bzImage, and that of its module for
//! networks of containers. Costs: a 27 MB package is fetched once and unpacked beside the 14 MB that are kept; nothing is
//! installed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt;
use crate::workspace::{cache_folder, output_of, run};

/// Names a kernel image to use as it is.
pub const OVERRIDE: &str = "RUSTOK_OBSD_VM_KERNEL";
/// The module that pairs of network interfaces need, in a package.
const VETH: &str = "kernel/drivers/net/veth.ko";
const PREFIX: &str = "linux-image-6.1.0-";
const SUFFIX: &str = "-cloud-amd64";

/// A kernel that is there: the override, or the newest that was fetched before.
///
/// # Errors
/// The override names no file.
pub fn find() -> Result<Option<PathBuf>> {
    if let Some(path) = env::var_os(OVERRIDE).filter(|path| !path.is_empty()).map(PathBuf::from) {
        if !path.is_file() {
            bail!("{OVERRIDE} names {}, which is no file; unset it, or name a bzImage", path.display());
        }
        return Ok(Some(path));
    }
    let Ok(entries) = fs::read_dir(cache_folder()?) else {
        return Ok(None);
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let fetched = names.filter_map(|name| Some((number(name.strip_prefix("vmlinuz-")?)?, name)));
    fetched.max().map(|(_, name)| Ok(cache_folder()?.join(name))).transpose()
}

/// Whether there is one with its module, or the one that was named.
pub fn complete() -> bool {
    let named = env::var_os(OVERRIDE).is_some_and(|path| !path.is_empty());
    find().is_ok_and(|found| found.is_some_and(|kernel| named || veth(&kernel).is_some()))
}

/// Finds one, or fetches it. One that was fetched before its module was wanted will do where that fails.
pub fn bring() -> Result<PathBuf> {
    match find()? {
        Some(kernel) if complete() => Ok(kernel),
        Some(kernel) => fetch().or(Ok(kernel)),
        None => fetch(),
    }
}

/// The module `veth` of a kernel, beside it: `veth-VERSION.ko` for `vmlinuz-VERSION`.
pub fn veth(kernel: &Path) -> Option<PathBuf> {
    let version = kernel.file_name()?.to_str()?.strip_prefix("vmlinuz-")?;
    Some(kernel.with_file_name(format!("veth-{version}.ko"))).filter(|module| module.is_file())
}

/// Whether it could run programs of this host.
pub fn wanted() -> bool {
    cfg!(target_arch = "x86_64")
}

/// Fetches the newest one that the archive offers.
fn fetch() -> Result<PathBuf> {
    if !wanted() {
        bail!("it is one for x86-64");
    }
    if !apt::present() {
        bail!("Debian's kernel packages are fetched by apt, which is not here");
    }
    let known = output_of(Command::new("apt-cache").args(["pkgnames", PREFIX]))?;
    let numbered = known.lines().filter_map(|name| Some((number(name)?, name)));
    let mut packages: Vec<_> = numbered.collect();
    packages.sort_unstable();
    // Lists keep names that the archive no longer has.
    let package = packages.iter().rev().map(|(_, name)| *name).find(|name| apt::offered(name));
    let package = package.with_context(|| format!("this release's archive does not offer {PREFIX}*{SUFFIX}"))?;
    let folder = cache_folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    let scratch = tempfile::Builder::new().prefix("kernel-").tempdir_in(&folder)?;
    println!("setup: apt-get download {package}");
    // As whoever we are: apt's own user cannot write here, which would cost a warning.
    run(Command::new("apt-get")
        .args(["download", "-qq", "-o", "APT::Sandbox::User=", package])
        .current_dir(scratch.path()))?;
    let archive = only_file(scratch.path()).with_context(|| format!("`apt-get download {package}` left no file"))?;
    let tree = scratch.path().join("tree");
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree))?;
    let name = package.replacen("linux-image-", "vmlinuz-", 1);
    let version = name.trim_start_matches("vmlinuz-");
    fs::rename(tree.join("lib/modules").join(version).join(VETH), folder.join(format!("veth-{version}.ko")))
        .with_context(|| format!("{package} has no {VETH}"))?;
    let target = folder.join(&name);
    fs::rename(tree.join("boot").join(&name), &target).with_context(|| format!("{package} has no /boot/{name}"))?;
    Ok(target)
}

/// What a user can do by hand.
pub fn remedy() -> String {
    format!(
        "name a bzImage vmlinuz-VERSION of Linux 6.1 or newer, with NVMe built in, in {OVERRIDE}; veth-VERSION.ko beside it"
    )
}

fn only_file(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).find(|path| path.is_file())
}

/// The 56 of `linux-image-6.1.0-56-cloud-amd64`, with or without the first two words.
fn number(name: &str) -> Option<u32> {
    name.trim_start_matches("linux-image-").strip_prefix("6.1.0-")?.strip_suffix(SUFFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_belongs_to_the_kernel_of_its_version() {
        let folder = tempfile::tempdir().expect("a folder");
        let kernel = folder.path().join("vmlinuz-6.1.0-56-cloud-amd64");
        assert_eq!(veth(&kernel), None);
        let module = folder.path().join("veth-6.1.0-56-cloud-amd64.ko");
        fs::write(&module, "").expect("written");
        assert_eq!(veth(&kernel), Some(module));
        assert_eq!(veth(Path::new("/boot/bzImage")), None);
    }

    #[test]
    fn kernels_are_compared_by_number_and_variants_are_none() {
        assert_eq!(number("linux-image-6.1.0-56-cloud-amd64"), Some(56));
        assert_eq!(number("6.1.0-9-cloud-amd64"), Some(9));
        assert_eq!(number("linux-image-6.1.0-56-cloud-amd64-unsigned"), None);
        assert_eq!(number("linux-image-6.1.0-56-rt-amd64"), None);
        assert_eq!(number("linux-image-6.12.9-cloud-amd64"), None);
    }
}
