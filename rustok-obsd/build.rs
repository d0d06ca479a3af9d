//! Embeds the kernel programs, and notes what this build is.
//!
//! Reads: `<target>/ebpf/rustok-obsd-ebpf.o` and `rustok-obsd-host.o` (made by `cargo xtask build-ebpf`), or the files
//! that `RUSTOK_OBSD_EBPF_OBJECT` and `RUSTOK_OBSD_HOST_OBJECT` name; git's HEAD. Yields: `$OUT_DIR/ebpf.o`, `host.o` and
//! the cfgs `has_ebpf_object`, `has_host_object` where they are there, a warning where one is not; `RUSTOK_OBSD_GIT_REVISION` and `RUSTOK_OBSD_RUSTC_VERSION` for `env!`. Costs: two
//! short processes.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An object of kernel programs.
struct Object {
    /// File that `cargo xtask build-ebpf` makes.
    name: &'static str,
    /// Variable that names another file.
    variable: &'static str,
    /// Its name in `$OUT_DIR`.
    copy: &'static str,
    /// Set where it is there.
    cfg: &'static str,
}

const OBJECTS: [Object; 2] = [
    Object { name: "rustok-obsd-ebpf.o", variable: "RUSTOK_OBSD_EBPF_OBJECT", copy: "ebpf.o", cfg: "has_ebpf_object" },
    Object { name: "rustok-obsd-host.o", variable: "RUSTOK_OBSD_HOST_OBJECT", copy: "host.o", cfg: "has_host_object" },
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    for object in &OBJECTS {
        embed_object(object)?;
    }
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo::rustc-env=RUSTOK_OBSD_GIT_REVISION={}", git_revision(&manifest).as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=RUSTOK_OBSD_RUSTC_VERSION={}", rustc_version().as_deref().unwrap_or("unknown"));
    Ok(())
}

/// Embeds one object; without it the build goes on, and says so.
fn embed_object(object: &Object) -> Result<(), Box<dyn Error>> {
    let Object { name, variable, copy, cfg } = object;
    println!("cargo::rustc-check-cfg=cfg({cfg})");
    println!("cargo::rerun-if-env-changed={variable}");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let object = match env::var_os(variable).filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo::rerun-if-changed={}", path.display());
            if !path.is_file() {
                return Err(format!(
                    "{variable} names {}, which is no file; unset it, or name an object of `cargo xtask build-ebpf`",
                    path.display()
                )
                .into());
            }
            path
        }
        None => {
            let folder = target_folder(&out, &env::var("TARGET")?)?.join("ebpf");
            // A file that does not exist counts as changed at each build; an existing folder counts when something
            // appears in it. Hence the folder is watched, and made.
            if !folder.is_dir() {
                fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            }
            println!("cargo::rerun-if-changed={}", folder.display());
            folder.join(name)
        }
    };
    if object.is_file() {
        fs::copy(&object, out.join(copy)).map_err(|error| format!("{}: {error}", object.display()))?;
        println!("cargo::rustc-cfg={cfg}");
    } else {
        println!("cargo::warning=built without {name}: run cargo xtask build-ebpf");
    }
    Ok(())
}

/// `<target>` of `<target>[/<triple>]/<profile>/build/<package>-<hash>/out`.
fn target_folder(out: &Path, triple: &str) -> Result<PathBuf, Box<dyn Error>> {
    let folder = out.ancestors().nth(4).ok_or_else(|| format!("OUT_DIR {} has another form", out.display()))?;
    let folder = if folder.ends_with(triple) { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}

/// The commit that is checked out, where the sources are this project's own git checkout.
fn git_revision(manifest: &Path) -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(manifest).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // The package may lie unpacked in some other project's checkout.
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != manifest.parent()?.canonicalize().ok()? {
        return None;
    }
    // Written at each commit and checkout. A file that is not there would rebuild the daemon each time.
    let log = manifest.join(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    if log.is_file() {
        println!("cargo::rerun-if-changed={}", log.display());
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// `1.95.0` of `rustc 1.95.0 (59807616e 2026-04-14)`.
fn rustc_version() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.split_whitespace().nth(1)?.to_owned())
}
