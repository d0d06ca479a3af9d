//! The command `rustok-obsd`.
//!
//! Reads: the command line. Yields: an exit code, see [`rustok_obsd::cli::exit`]. Costs: nothing of its own.

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use rustok_obsd::{
    cli::{Action, Cli, exit},
    config::{ConfigError, Loaded},
    daemon::{self, doctor, logging},
    escape,
    target::{BinaryReport, memory_helper},
};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = if error.is::<ConfigError>() { exit::USAGE } else { exit::FAILURE };
            // Problems of a configuration are lines of their own, each escaped by itself.
            let text = format!("{error:#}");
            let text = if code == exit::USAGE { text.into() } else { escape::line(&text) };
            let _ = writeln!(io::stderr(), "rustok-obsd: {text}");
            ExitCode::from(code)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    match cli.command {
        Action::Run(args) => {
            let Loaded { config, warnings } = args.sources().load()?;
            logging::start(&config);
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            daemon::run(config)?;
        }
        Action::Doctor(args) => {
            let Loaded { config, warnings } = args.config.sources().load()?;
            for warning in warnings {
                writeln!(io::stderr(), "rustok-obsd: {}", escape::line(&warning))?;
            }
            let diagnosis = doctor::diagnose(&config)?;
            if args.json {
                print(&escape::json(&format!("{:#}\n", serde_json::to_value(&diagnosis)?)))?;
            } else {
                print(&diagnosis.to_string())?;
            }
            return Ok(if diagnosis.is_ok() { exit::OK } else { exit::FAILURE });
        }
        Action::Probes(args) => {
            let report = BinaryReport::new(&args.binary)?;
            if args.json {
                print(&escape::json(&format!("{:#}\n", report.to_json())))?;
            } else {
                print(&report.to_string())?;
            }
            return Ok(if report.is_complete() { exit::OK } else { exit::FAILURE });
        }
        Action::CheckConfig(args) => {
            let Loaded { config, warnings } = args.sources().load()?;
            for warning in warnings {
                writeln!(io::stderr(), "rustok-obsd: {}", escape::line(&warning))?;
            }
            print(&format!("configuration is valid, {} targets\n", config.targets.len()))?;
        }
        Action::Version => print(&daemon::version())?,
        Action::ReadMemory { unconfined } => {
            let socket = io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
            memory_helper::serve(socket, !unconfined).context("reading memory for the daemon")?;
        }
    }
    Ok(exit::OK)
}

/// To standard output; a closed pipe (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("writing to standard output"),
    }
}
