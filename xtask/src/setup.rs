//! `cargo xtask setup`: what the build, the demo and (with `--tests`) the tests need.
//!
//! Reads: the machine. Yields: what was found and done, and the exact command for what is missing. Costs: a second where
//! all is there; some minutes on a fresh machine, and with `--tests` what is built from Go modules ([`go`]).
//!
//! On Debian and Ubuntu packages come from apt, if we are root. Elsewhere rustup brings the compiler; the rest is
//! named, with the command of the distribution's own package manager. What needs no root is done anyhow.

pub mod apt;
pub mod bpf_linker;
pub mod go;
pub mod kernel;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use test_support::{CADVISOR, PROCESS_EXPORTER, Postgres};

use crate::compiler::{self, Llvm};
use crate::workspace::{find_program, output_of, run, shown};

/// What something is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The kernel programs: without them the daemon serves everything that needs no eBPF.
    Ebpf,
    /// The shop.
    Postgres,
    /// The demo goes on without it; some tests are skipped.
    Backend,
    /// Some tests are skipped.
    Tests,
}

/// Something that is not there.
#[derive(Debug)]
pub struct Missing {
    /// What it is.
    pub name: String,
    /// What it is needed for.
    pub need: Need,
    /// Why it is missing.
    pub reason: String,
    /// What brings it.
    pub command: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.name, self.reason, self.command)
    }
}

/// What a set-up came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is still missing.
    pub missing: Vec<Missing>,
}

impl Outcome {
    /// Fails where something is missing, with the list.
    pub fn complete(&self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let list: Vec<_> = self.missing.iter().map(|missing| format!("\n  {missing}")).collect();
        bail!("missing:{}", list.concat())
    }

    /// What is missing of one kind.
    pub fn lacks(&self, need: Need) -> Option<&Missing> {
        self.missing.iter().find(|missing| missing.need == need)
    }

    fn found(&mut self, name: &str, what: impl fmt::Display) {
        println!("setup: {name}: {what}");
    }

    fn lack(&mut self, name: &str, need: Need, reason: &anyhow::Error, command: String) {
        println!("setup: {name}: missing");
        self.missing.push(Missing { name: name.to_owned(), need, reason: format!("{reason:#}"), command });
    }
}

/// Finds or installs all of it. Never fails: what could not be done is in the outcome.
pub fn setup(tests: bool) -> Outcome {
    let mut outcome = Outcome::default();
    // One call of apt for everything, so that its lists are fetched once.
    let mut failed = None;
    if apt::present() && apt::is_root() {
        let wanted = wanted(tests);
        let lists = tests && kernel::wanted() && !kernel::complete();
        if lists || !wanted.is_empty() {
            failed = apt::update().and_then(|()| apt_install(&wanted)).err();
        }
    }
    let cause = |error: anyhow::Error| match &failed {
        Some(failed) => error.context(format!("apt: {failed:#}")),
        None => error,
    };
    ebpf(&mut outcome, &cause);
    match Postgres::installed() {
        Ok(version) => outcome.found("PostgreSQL", version),
        Err(missing) => {
            let error = cause(missing.into());
            outcome.lack("PostgreSQL", Need::Postgres, &error, package_command(Package::Postgres));
        }
    }
    match prometheus() {
        Ok(path) => outcome.found("Prometheus", path.display()),
        Err(error) => outcome.lack("Prometheus", Need::Backend, &cause(error), package_command(Package::Prometheus)),
    }
    if tests {
        for (program, _) in TEST_TOOLS {
            match find_program(program) {
                Some(path) => outcome.found(program, path.display()),
                None => println!("setup: {program}: missing, its tests are skipped"),
            }
        }
        for program in &go::PROGRAMS {
            match program.bring() {
                Ok(path) => outcome.found(program.title, path.display()),
                Err(error) => outcome.lack(program.title, program.need, &error, program.remedy()),
            }
        }
        match kernel::bring() {
            Ok(path) => outcome.found("kernel for virtual machines", path.display()),
            Err(error) => {
                outcome.lack("kernel for virtual machines", Need::Tests, &cause(error), kernel::remedy());
            }
        }
        for peer in [PROCESS_EXPORTER, CADVISOR] {
            match peer.find() {
                Ok(path) => outcome.found(peer.name, path.display()),
                Err(reason) => println!("setup: {}: {reason}; comparisons with it are skipped", peer.name),
            }
        }
    }
    outcome
}

/// Prometheus and the promtool that goes with it.
pub fn prometheus() -> Result<PathBuf> {
    find_program("promtool").context("promtool is not installed")?;
    find_program("prometheus").context("prometheus is not installed")
}

fn ebpf(outcome: &mut Outcome, cause: &dyn Fn(anyhow::Error) -> anyhow::Error) {
    let name = "compiler for BPF";
    let mut choice = compiler::choose(compiler::candidates(), None);
    if choice.is_err() && find_program("rustup").is_some() {
        println!("setup: {}", shown(&rustup_command()));
        if let Err(error) = run(&mut rustup_command()) {
            return outcome.lack(name, Need::Ebpf, &error, shown(&rustup_command()));
        }
        choice = compiler::choose(compiler::candidates(), None);
    }
    let compiler = match choice {
        Ok((compiler, _)) => compiler,
        Err(error) => {
            return outcome.lack(name, Need::Ebpf, &cause(error), package_command(Package::Rustc));
        }
    };
    let linker = match bpf_linker::find() {
        Ok(linker) => Ok(linker),
        Err(missing) => {
            // The linker has to read what this compiler writes.
            let Some((major, prefix)) = llvm(compiler.llvm) else {
                let writer = compiler.llvm.map_or_else(|| "22".to_owned(), |llvm| llvm.to_string());
                let error = cause(missing.context(format!("no LLVM {writer} or newer with its headers was found")));
                let command = format!("{}; then cargo xtask setup", package_command(Package::Llvm));
                return outcome.lack("bpf-linker", Need::Ebpf, &error, command);
            };
            bpf_linker::install(major, prefix.as_deref()).and_then(|mut command| {
                println!("setup: {}", shown(&command));
                run(&mut command)?;
                bpf_linker::find()
            })
        }
    };
    match linker.and_then(|linker| Ok((compiler::pick(&linker)?, linker))) {
        Ok(((compiler, _, _), linker)) => {
            outcome.found(name, compiler);
            outcome.found("bpf-linker", format_args!("{} ({})", bpf_linker::VERSION, linker.display()));
        }
        Err(error) => {
            let command = bpf_linker::install(22, Some(Path::new("/usr/lib/llvm-22"))).map(|command| shown(&command));
            outcome.lack("bpf-linker", Need::Ebpf, &error, command.unwrap_or_else(|error| format!("{error:#}")));
        }
    }
}

/// A system LLVM with headers that bpf-linker can be built with and that reads `writer`'s bitcode.
fn llvm(writer: Option<Llvm>) -> Option<(u32, Option<PathBuf>)> {
    let debian = bpf_linker::LLVM_MAJORS.map(|major| Some(PathBuf::from(format!("/usr/lib/llvm-{major}"))));
    debian.into_iter().chain([None]).find_map(|prefix| {
        let config = match &prefix {
            Some(prefix) => prefix.join("bin/llvm-config"),
            None => find_program("llvm-config")?,
        };
        let version = Llvm::parse(&output_of(Command::new(&config).arg("--version")).ok()?)?;
        let include = output_of(Command::new(&config).arg("--includedir")).ok()?;
        let headers = Path::new(include.trim()).join("llvm-c/Core.h").is_file();
        let fits = bpf_linker::LLVM_MAJORS.contains(&version.major) && writer.is_none_or(|w| version.reads(w));
        let prefix = || Some(PathBuf::from(output_of(Command::new(&config).arg("--prefix")).ok()?.trim()));
        (headers && fits).then(|| (version.major, prefix()))
    })
}

/// Things that come from the archive, each under the first names that it offers together.
type Choice = &'static [&'static [&'static str]];
/// Where a distribution's rustc comes with `core` for BPF.
const RUSTC: Choice = &[&["rustc-web", "libstd-rust-web-dev-bpf"], &["rustc", "libstd-rust-dev-bpf"]];
const LLVM: Choice = &[&["llvm-22-dev"], &["llvm-23-dev"], &["llvm-21-dev"]];
const POSTGRES: Choice = &[&["postgresql", "openssl"]];
const PROMETHEUS: Choice = &[&["prometheus"]];

/// Programs that single tests observe or use; without one of them its test is skipped and says so.
const TEST_TOOLS: &[(&str, Choice)] = &[
    ("busybox", &[&["busybox-static"]]),
    ("objcopy", &[&["binutils"]]),
    ("runc", &[&["runc"]]),
    ("containerd", &[&["containerd"]]),
    ("/usr/lib/cni/ptp", &[&["containernetworking-plugins"]]),
    ("dbus-daemon", &[&["dbus-daemon"]]),
    ("ip", &[&["iproute2"]]),
    ("mkfs.btrfs", &[&["btrfs-progs"]]),
    ("dockerd", &[&["docker.io"]]),
    ("qemu-system-x86_64", &[&["qemu-system-x86"]]),
    ("strace", &[&["strace"]]),
];

/// What we lack.
fn wanted(tests: bool) -> Vec<Choice> {
    let mut wanted = Vec::new();
    let compiler = compiler::choose(compiler::candidates(), None);
    if compiler.is_err() {
        wanted.push(RUSTC);
    }
    if bpf_linker::find().is_err() && llvm(compiler.ok().and_then(|(compiler, _)| compiler.llvm)).is_none() {
        wanted.push(LLVM);
    }
    if Postgres::installed().is_err() {
        wanted.push(POSTGRES);
    }
    if prometheus().is_err() {
        wanted.push(PROMETHEUS);
    }
    if tests {
        wanted
            .extend(TEST_TOOLS.iter().filter(|(program, _)| find_program(program).is_none()).map(|(_, choice)| choice));
    }
    wanted
}

/// Installs what the archive offers; what it does not offer must not keep the rest from being installed.
fn apt_install(wanted: &[Choice]) -> Result<()> {
    let mut packages = Vec::new();
    let mut not_offered: Vec<&str> = Vec::new();
    for choice in wanted {
        match choice.iter().find(|names| names.iter().all(|name| apt::offered(name))) {
            Some(names) => packages.extend(*names),
            None => not_offered.extend(choice[0]),
        }
    }
    if !packages.is_empty() {
        println!("setup: {}", shown(&apt::install_command(&packages)));
        apt::install(&packages)?;
    }
    if !not_offered.is_empty() {
        bail!("this release's archive does not offer {}", not_offered.join(", "));
    }
    Ok(())
}

fn rustup_command() -> Command {
    let mut command = Command::new("rustup");
    // Pinned like the linker: today's nightly may write bitcode that the linker's LLVM cannot read.
    command.args(["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "rust-src"]);
    command
}

/// A nightly of rustc 1.97, with LLVM 22.1.4.
const NIGHTLY: &str = "nightly-2026-05-20";

#[derive(Debug, Clone, Copy)]
enum Package {
    Rustc,
    Llvm,
    Postgres,
    Prometheus,
}

/// The command that brings something on this machine.
fn package_command(package: Package) -> String {
    let manager = if apt::present() {
        "apt-get"
    } else {
        ["dnf", "pacman", "zypper"].into_iter().find(|name| find_program(name).is_some()).unwrap_or_default()
    };
    let sudo = if apt::is_root() { "" } else { "sudo " };
    let packages = match (package, manager) {
        (Package::Rustc, "apt-get") => RUSTC[0].join(" "),
        (Package::Llvm, "apt-get") => LLVM[0].join(" "),
        (Package::Postgres, "apt-get") => POSTGRES[0].join(" "),
        (Package::Prometheus, "apt-get") => PROMETHEUS[0].join(" "),
        (Package::Rustc, _) => {
            return format!("{} (rustup: https://rustup.rs)", shown(&rustup_command()));
        }
        (Package::Llvm, "pacman") => "llvm".into(),
        (Package::Llvm, "dnf" | "zypper") => "llvm-devel".into(),
        (Package::Postgres, "pacman") => "postgresql openssl".into(),
        (Package::Postgres, "dnf" | "zypper") => "postgresql-server openssl".into(),
        (Package::Prometheus, "pacman") => "prometheus".into(),
        (Package::Prometheus, "dnf") => "golang-github-prometheus".into(),
        (Package::Prometheus, "zypper") => "golang-github-prometheus-prometheus".into(),
        (Package::Llvm, _) => {
            return "install LLVM 22 with its headers: https://releases.llvm.org".into();
        }
        (Package::Postgres, _) => {
            return "put PostgreSQL's initdb and postgres, and openssl, into PATH: https://www.postgresql.org/download"
                .into();
        }
        (Package::Prometheus, _) => {
            return "put prometheus and promtool into PATH: https://prometheus.io/download".into();
        }
    };
    match manager {
        "apt-get" => format!("{sudo}apt-get install --no-install-recommends {packages}"),
        "pacman" => format!("{sudo}pacman -S {packages}"),
        other => format!("{sudo}{other} install {packages}"),
    }
}
