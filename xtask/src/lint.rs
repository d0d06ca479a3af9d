//! `cargo xtask lint`: what a change has to pass besides the tests.
//!
//! Reads: the workspace. Yields: nothing, or an error. Costs: a check build of everything; the first time also
//! cargo-deny's compilation, some minutes.

use std::env::consts::ARCH;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::build_ebpf::OBJECTS;
use crate::workspace::{Workspace, cargo, find_program, run, shown};

/// Pinned: what it checks changes with its version.
const CARGO_DENY: &str = "cargo-deny@0.20.2";

/// Runs all of them, so that one run shows all that is wrong.
pub fn lint(workspace: &Workspace) -> Result<()> {
    let cargo_in = |args: &[&str]| {
        let mut command = cargo();
        command.current_dir(&workspace.root).args(args);
        command
    };
    let format = say(&mut cargo_in(&["fmt", "--all", "--", "--check"]));
    let clippy = say(&mut cargo_in(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]));
    let kernel = say(&mut clippy_of_kernel_programs(workspace));
    if find_program("cargo-deny").is_none() {
        say(&mut cargo_in(&["install", CARGO_DENY, "--locked"]))?;
    }
    let deny = say(&mut cargo_in(&["deny", "check", "bans", "licenses", "sources"]));
    let advisories = advisories(&mut cargo_in(&["deny", "check", "advisories"]));
    format.and(clippy).and(kernel).and(deny).and(advisories)
}

/// Known vulnerabilities, from a database on GitHub: where that cannot be reached, this is left out and said.
fn advisories(command: &mut Command) -> Result<()> {
    println!("lint: {}", shown(command));
    let output = command.stdin(Stdio::null()).output().context("cargo deny could not be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(());
    }
    println!("{}", said.trim());
    if said.contains("failed to fetch advisory database") {
        println!("lint: advisories NOT checked: their database could not be fetched");
        return Ok(());
    }
    bail!("cargo deny found advisories ({})", output.status)
}

/// The kernel programs, checked for this machine: clippy comes with rustup's toolchains, and those ship no `core` for
/// BPF. What differs is the target, not the source.
fn clippy_of_kernel_programs(workspace: &Workspace) -> Command {
    let mut command = cargo();
    command
        .current_dir(&workspace.root)
        .env("RUSTFLAGS", format!("--cfg bpf_target_arch=\"{ARCH}\""))
        // Without std there is nothing to unwind with.
        .env("CARGO_PROFILE_DEV_PANIC", "abort")
        .args(["clippy", "--package", "rustok-obsd-ebpf", "--features", "kernel"])
        .args(OBJECTS.iter().flat_map(|name| ["--bin", name]))
        // Other flags than everything else's: in a folder of its own it does not rebuild that.
        .arg("--target-dir")
        .arg(workspace.target.join("ebpf-lint"))
        .args(["--", "-D", "warnings"]);
    command
}

fn say(command: &mut Command) -> Result<()> {
    println!("lint: {}", shown(command));
    let result = run(command);
    if let Err(error) = &result {
        println!("lint: {error:#}");
    }
    result
}
