//! The linker of the kernel programs, at a pinned version.
//!
//! Reads: `PATH`, cargo's `bin`, our cache folder. Yields: its path. Costs: a minute of compilation where it has to be
//! installed.
//!
//! A bpf-linker of another version that the user has stays untouched: ours then goes to the cache folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace::{cache_folder, cargo, find_program, is_executable, output_of};

/// Bitcode, BTF and rustc's flags change together: another version is another compiler.
pub const VERSION: &str = "0.13.0";
/// LLVM majors that this version can be built with, the best first.
pub const LLVM_MAJORS: [u32; 3] = [22, 23, 21];

/// The pinned linker.
///
/// # Errors
/// Names what was found instead.
pub fn find() -> Result<PathBuf> {
    let cached = cache_folder().ok().map(|folder| folder.join("bin/bpf-linker"));
    let mut others = Vec::new();
    for path in find_program("bpf-linker").into_iter().chain(cached) {
        if !is_executable(&path) {
            continue;
        }
        match version(&path) {
            Ok(found) if found == VERSION => return Ok(path),
            Ok(found) => others.push(format!("{} is {found}", path.display())),
            Err(error) => others.push(format!("{error:#}")),
        }
    }
    let found = if others.is_empty() { "none was found".to_owned() } else { others.join("; ") };
    bail!("bpf-linker {VERSION} is missing ({found}); `cargo xtask setup` installs it")
}

fn version(path: &Path) -> Result<String> {
    let said = output_of(Command::new(path).arg("--version"))?;
    Ok(said.split_whitespace().nth(1).unwrap_or("of unknown version").to_owned())
}

/// The command that installs it, linked with the LLVM of this major version in `prefix`.
pub fn install(major: u32, prefix: Option<&Path>) -> Result<Command> {
    let mut command = cargo();
    if let Some(prefix) = prefix {
        // Without it the build looks in /usr/lib64 alone.
        command.env("LLVM_PREFIX", prefix);
    }
    command.args(["install", &format!("bpf-linker@{VERSION}"), "--locked", "--no-default-features"]);
    command.args(["--features", &format!("llvm-{major}")]);
    if find_program("bpf-linker").is_some() {
        command.arg("--root").arg(cache_folder()?);
    }
    Ok(command)
}
