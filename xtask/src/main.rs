//! Commands of the project, as `cargo xtask COMMAND`: one file each.

mod bench;
mod build_ebpf;
mod compiler;
mod demo;
mod http;
mod lint;
mod metrics;
mod process;
mod setup;
mod test;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Set-up, build, demo and test commands of rustok-obsd.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find or install what the build and the demo need.
    Setup {
        /// What the tests need, too: Jaeger, built from its Go module where it is not installed.
        #[arg(long)]
        tests: bool,
    },
    /// Build the kernel programs; `cargo build` then embeds them.
    BuildEbpf,
    /// Show the daemon at work on a server under load.
    Demo(demo::Args),
    /// Run all tests.
    Test {
        /// For `cargo test`, such as `-p rustok-obsd NAME`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        filter: Vec<String>,
    },
    /// Check formatting, lints and dependencies.
    Lint,
    /// Measure what watching costs.
    Bench(bench::Args),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let workspace = Workspace::find()?;
    match cli.command {
        Command::Setup { tests } => setup::setup(tests).complete(),
        Command::BuildEbpf => build_ebpf::build(&workspace).map(drop),
        Command::Demo(args) => demo::demo(&workspace, &args),
        Command::Test { filter } => test::test(&workspace, &filter),
        Command::Lint => lint::lint(&workspace),
        Command::Bench(args) => bench::bench(&workspace, &args),
    }
}
