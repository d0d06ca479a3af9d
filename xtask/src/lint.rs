//! `cargo xtask lint`: what a change has to pass besides the tests.
//!
//! Reads: the workspace. Yields: nothing, or an error. Costs: a check build of everything; the first time also
//! cargo-deny's compilation, some minutes.

use std::process::Command;

use anyhow::Result;

use crate::workspace::{Workspace, cargo, find_program, run, shown};

/// Pinned: what it checks changes with its version.
const CARGO_DENY: &str = "cargo-deny@0.20.2";

/// Runs all three, so that one run shows all that is wrong.
pub fn lint(workspace: &Workspace) -> Result<()> {
    let cargo_in = |args: &[&str]| {
        let mut command = cargo();
        command.current_dir(&workspace.root).args(args);
        command
    };
    let format = say(&mut cargo_in(&["fmt", "--all", "--", "--check"]));
    let clippy = say(&mut cargo_in(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]));
    if find_program("cargo-deny").is_none() {
        say(&mut cargo_in(&["install", CARGO_DENY, "--locked"]))?;
    }
    let deny = say(&mut cargo_in(&["deny", "check"]));
    format.and(clippy).and(deny)
}

fn say(command: &mut Command) -> Result<()> {
    println!("lint: {}", shown(command));
    let result = run(command);
    if let Err(error) = &result {
        println!("lint: {error:#}");
    }
    result
}
