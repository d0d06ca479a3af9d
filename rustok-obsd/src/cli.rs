//! The command line: commands, target flags, and one flag per key of the configuration that has one.
//!
//! Reads: the arguments. Yields: [`Cli`], and from it the configuration's [`Sources`]. Costs: once at start.
//!
//! Exit codes: see [`exit`].

use crate::config::keys::{KEYS, Key};
use crate::config::{Config, Slot, Sources, TargetFlags};
use crate::host::COLLECTORS;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};
use std::path::PathBuf;

/// Exit codes of every command.
pub mod exit {
    /// Done. `doctor`: everything that was asked for would work.
    pub const OK: u8 = 0;
    /// The command failed. `doctor`: something that was asked for would not work; the output says what and why.
    pub const FAILURE: u8 = 1;
    /// The command line or the configuration is wrong; nothing was done.
    pub const USAGE: u8 = 2;
    /// `run`: a thread of the daemon panicked or hung (EX_SOFTWARE of sysexits.h); a supervisor should start it again.
    pub const BROKEN: u8 = 70;
}

/// Exact HTTP and database latency of unmodified async Rust servers, from eBPF to Prometheus and Jaeger.
#[derive(Debug, Parser)]
#[command(name = "rustok-obsd", version, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed (doctor: something would not work), 2 wrong command line or \
                        configuration, 70 a thread panicked or hung: start it again.\nKeys of the configuration file: docs/CONFIG.md.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Action,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Observe the targets until SIGTERM or SIGINT
    Run(ConfigArgs),
    /// Say what would work on this host for each target, and why the rest would not
    Doctor(DoctorArgs),
    /// Say which probes a binary offers
    Probes(ProbesArgs),
    /// Check a configuration with the environment and flags over it, and start nothing
    CheckConfig(ConfigArgs),
    /// Print the version
    Version,
    /// Read other processes' memory for the daemon, which starts this by itself
    #[command(hide = true)]
    ReadMemory {
        /// Without a filter of system calls (security.confine = false)
        #[arg(long)]
        unconfined: bool,
    },
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `probes`.
#[derive(Debug, Args)]
pub struct ProbesArgs {
    /// The executable to look into
    #[arg(long, value_name = "PATH")]
    pub binary: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Everything that makes a configuration.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// Targets.
    #[command(flatten)]
    pub targets: TargetFlags,
    /// Configuration file, TOML; the environment and flags win over it [env: RUSTOK_OBSD_CONFIG_FILE]
    #[arg(long = "config.file", value_name = "FILE", help_heading = "Configuration")]
    pub file: Option<PathBuf>,
    /// Keys.
    #[command(flatten)]
    pub keys: KeyArgs,
}

impl ConfigArgs {
    /// The flags over this process' environment; [`Sources::load`] yields the configuration.
    pub fn sources(&self) -> Sources {
        let environment = Sources::from_environment();
        let variable = environment.variables.get("RUSTOK_OBSD_CONFIG_FILE").filter(|value| !value.is_empty());
        Sources {
            file: self.file.clone().or_else(|| variable.map(PathBuf::from)),
            flags: self.keys.0.clone(),
            targets: self.targets.clone(),
            ..environment
        }
    }
}

/// The flags of [`KEYS`]: the path of each key that was given, with its text.
#[derive(Clone, Debug, Default)]
pub struct KeyArgs(pub Vec<(&'static str, String)>);

/// node_exporter's switches: `collector.NAME` and `no-collector.NAME`, each with the key that it adds NAME to.
fn switches() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    let both = |name| {
        [
            (format!("collector.{name}"), "collector.enable", name),
            (format!("no-collector.{name}"), "collector.disable", name),
        ]
    };
    COLLECTORS.iter().flat_map(move |entry| both(entry.name))
}

impl Args for KeyArgs {
    fn augment_args(command: Command) -> Command {
        let mut defaults = Config::default();
        let command = switches().fold(command, |command, (flag, ..)| {
            let arg = Arg::new(flag.clone()).long(flag).action(ArgAction::SetTrue).hide(true);
            command.arg(arg)
        });
        KEYS.iter().filter(|key| !key.flag.is_empty()).fold(command, |command, key| {
            let arg = Arg::new(key.path)
                .long(key.flag)
                .value_name(value_name(key))
                .help(help(key, &mut defaults))
                .help_heading(heading(key))
                .action(ArgAction::Set);
            // `--x` alone is true; `--x false` would be ambiguous, hence the `=`.
            let switch = matches!((key.slot)(&mut defaults), Slot::Bool(_));
            command.arg(if switch {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else {
                arg
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KeyArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &Key| Some((key.path, matches.get_one::<String>(key.path)?.clone()));
        let mut flags: Vec<_> = KEYS.iter().filter(|key| !key.flag.is_empty()).filter_map(given).collect();
        for (_, path, name) in switches().filter(|(flag, ..)| matches.get_flag(flag)) {
            match flags.iter_mut().find(|(given, _)| *given == path) {
                Some((_, list)) => *list = format!("{list},{name}"),
                None => flags.push((path, name.to_owned())),
            }
        }
        Ok(Self(flags))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn help(key: &Key, defaults: &mut Config) -> String {
    let slot = (key.slot)(defaults);
    let default = slot.print().map_or(String::new(), |value| format!(" [default: {}]", value.replace('"', "")));
    let allowed = match slot {
        Slot::Choice(_) | Slot::Integer(..) | Slot::PowerOfTwo(..) | Slot::Probes(_) => {
            format!(" [allowed: {}]", slot.allowed().replace('`', ""))
        }
        _ => String::new(),
    };
    format!("{}{allowed}{default} [env: {}]", key.help, key.variables().join(", "))
}

fn value_name(key: &Key) -> &'static str {
    match (key.slot)(&mut Config::default()) {
        Slot::Bool(_) => "BOOL",
        Slot::Integer(..) => "N",
        Slot::PowerOfTwo(..) => "BYTES",
        Slot::Ratio(_) => "RATIO",
        Slot::Duration(..) => "TIME",
        Slot::Path(_) => "PATH",
        Slot::Address(_) => "ADDRESS:PORT",
        Slot::Choice(_) => "NAME",
        Slot::Endpoint(_) => "URL",
        Slot::Text(_) | Slot::Headers(_) | Slot::Attributes(_) | Slot::Modules(_) => "TEXT",
        Slot::HeaderName(_) => "HEADER",
        Slot::HeaderNames(_) => "HEADER,HEADER",
        Slot::Ports(_) => "PORT,PORT",
        Slot::Pattern(_) => "REGEX",
        Slot::Names(_) => "TEXT,TEXT",
        Slot::Hosts(_) => "HOST,HOST",
        Slot::Probes(_) => "NAME,NAME",
    }
}

fn heading(key: &Key) -> &'static str {
    match key.path.split('.').next() {
        Some("web") => "Exposition",
        Some("traces" | "resource") => "Traces",
        Some("capture" | "ebpf") => "Capture",
        Some("routes") => "Routes",
        Some("database" | "errors") => "Database",
        Some("path") => "Paths",
        Some("collector") => "Host",
        _ => "Log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogLevel;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_the_table_reaches_its_key() {
        for key in KEYS.iter().filter(|key| !key.flag.is_empty()) {
            let flag = format!("--{}=x", key.flag);
            let cli = Cli::try_parse_from(["rustok-obsd", "run", &flag]).unwrap();
            let Action::Run(args) = cli.command else { panic!("not run") };
            assert_eq!(args.keys.0, [(key.path, "x".to_owned())], "{flag}");
        }
    }

    #[test]
    fn a_switch_alone_is_true_and_takes_a_value_by_its_equals_sign() {
        for (flag, expected) in [("--traces.url-path", true), ("--traces.url-path=false", false)] {
            let cli = Cli::try_parse_from(["rustok-obsd", "run", flag, "--exe", "shop"]).unwrap();
            let Action::Run(args) = cli.command else { panic!("not run") };
            let sources = Sources { flags: args.keys.0, ..Sources::default() };
            assert_eq!(sources.load().unwrap().config.traces.url_path, expected, "{flag}");
        }
    }

    #[test]
    fn collectors_are_switched_as_node_exporter_has_it() {
        let line = "rustok-obsd run --exe shop --collector.loadavg --no-collector.stat --collector.enable=meminfo";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Action::Run(args) = cli.command else { panic!("not run") };
        let sources = Sources { flags: args.keys.0, ..Sources::default() };
        let collector = sources.load().unwrap().config.collector;
        assert_eq!(
            (collector.enable, collector.disable),
            (vec!["meminfo".into(), "loadavg".into()], vec!["stat".into()])
        );
    }

    #[test]
    fn the_two_line_start_of_the_readme_is_understood() {
        let cli = Cli::try_parse_from([
            "rustok-obsd",
            "run",
            "--exe",
            "shop",
            "--exe=/usr/bin/other",
            "--port",
            "3000",
            "--log.level",
            "debug",
            "--web.listen-address=127.0.0.1:1",
        ])
        .unwrap();
        let Action::Run(args) = cli.command else { panic!("not run") };
        let sources = Sources { flags: args.keys.0, targets: args.targets, ..Sources::default() };
        let config = sources.load().unwrap().config;
        assert_eq!(config.targets.len(), 3);
        assert_eq!(config.targets[1].exe, ["/usr/bin/other"]);
        assert_eq!(config.targets[2].port, [3000]);
        assert_eq!(config.log.level, LogLevel::Debug);
        assert_eq!(config.web.listen_address.to_string(), "127.0.0.1:1");
    }

    #[test]
    fn other_commands_take_their_arguments() {
        for line in [
            "doctor --json --exe shop",
            "probes --binary /bin/true --json",
            "version",
            "check-config --config.file a.toml",
            "run --pid 1 --cgroup /a/* --command-line *x*",
        ] {
            let words = std::iter::once("rustok-obsd").chain(line.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in ["", "probes", "run --nope", "run --exe", "daemon"] {
            let words = std::iter::once("rustok-obsd").chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), i32::from(exit::USAGE), "{line}");
        }
    }
}
