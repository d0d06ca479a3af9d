//! Commands of the project, as `cargo xtask COMMAND`: one file each.

mod bench;
mod bench_exporters;
mod build_ebpf;
mod compiler;
mod demo;
mod lint;
mod metrics;
mod scene;
mod setup;
mod stop;
mod test;
mod vm;
mod workspace;

use std::io::{self, Write as _};
use std::process::ExitCode;

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
        /// What the tests need, too: programs built from their Go modules (Jaeger, node_exporter, crictl), container
        /// runtimes, QEMU and a kernel for it.
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
    /// Test the daemon on a kernel of its own, in a virtual machine.
    VmTest(vm::Args),
    /// Check formatting, lints and dependencies.
    Lint,
    /// Measure what watching costs.
    Bench(bench::Args),
    /// Measure what a scrape costs, beside the exporters that the daemon replaces.
    BenchExporters(bench_exporters::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not `Debug`: with RUST_BACKTRACE set that buries the message under frames of ours.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup { tests } => setup::setup(tests).complete(),
        Command::BuildEbpf => build_ebpf::build(&Workspace::find()?).map(drop),
        Command::Demo(args) => demo::demo(&Workspace::find()?, &args),
        Command::Test { filter } => test::test(&filter),
        Command::VmTest(args) => vm::vm_test(&Workspace::find()?, &args),
        Command::Lint => lint::lint(&Workspace::find()?),
        Command::Bench(args) => bench::bench(&Workspace::find()?, &args),
        Command::BenchExporters(args) => bench_exporters::bench(&Workspace::find()?, &args),
    }
}
