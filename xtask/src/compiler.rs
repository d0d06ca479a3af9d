//! Which compiler builds the kernel programs, and whether bpf-linker can read what it writes.
//!
//! Reads: what rustup and rustc say about themselves, and bpf-linker's file. Yields: one compiler, or the reason why each
//! candidate was passed over. Costs: a handful of short processes.
//!
//! bpf-linker takes LLVM bitcode from rustc. LLVM reads bitcode of its own version and older, not newer
//! (<https://llvm.org/docs/DeveloperPolicy.html#ir-backwards-compatibility>); the error of LLVM itself ("Invalid record")
//! tells nobody what to do, hence the check here.

use std::env;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{find_program, is_executable, output_of};

/// Names a rustc to use, before any search.
pub const OVERRIDE: &str = "RUSTOK_OBSD_EBPF_RUSTC";
/// The kernel programs' target: little-endian BPF. Big-endian hosts are not supported.
pub const TARGET: &str = "bpfel-unknown-none";

/// An LLVM version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Llvm {
    /// `22` of `22.1.8`.
    pub major: u32,
    /// `1` of `22.1.8`; `None` where unknown.
    pub minor: Option<u32>,
    /// `8` of `22.1.8`; `None` where unknown.
    pub patch: Option<u32>,
}

impl Llvm {
    /// Reads `22`, `22.1` or `22.1.8`, with anything behind.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split('.').map_while(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse::<u32>().ok()
        });
        Some(Self { major: numbers.next()?, minor: numbers.next(), patch: numbers.next() })
    }

    /// Whether an LLVM of this version reads bitcode of `writer`. Parts that are not known are taken to fit.
    pub fn reads(self, writer: Self) -> bool {
        let known = |a: Option<u32>, b: Option<u32>| a.zip(b);
        if self.major != writer.major {
            return self.major > writer.major;
        }
        match known(self.minor, writer.minor) {
            Some((mine, its)) if mine != its => mine > its,
            Some(_) => known(self.patch, writer.patch).is_none_or(|(mine, its)| mine >= its),
            None => true,
        }
    }
}

impl fmt::Display for Llvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.major)?;
        for part in [self.minor, self.patch].into_iter().flatten() {
            write!(f, ".{part}")?;
        }
        Ok(())
    }
}

/// How a compiler is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `rustup run TOOLCHAIN cargo … -Z build-std=core`.
    Rustup(String),
    /// `RUSTC=PATH RUSTC_BOOTSTRAP=1 cargo …`; it ships `core` for BPF. `build_std` where it does not, but has the
    /// source.
    Rustc { path: PathBuf, build_std: bool },
}

/// A compiler that can build the kernel programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// How it is called.
    pub call: Call,
    /// What it says of itself: `rustc 1.96.0 (…)`.
    pub version: String,
    /// The LLVM that writes the bitcode.
    pub llvm: Option<Llvm>,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.call {
            Call::Rustup(toolchain) => write!(f, "{} (rustup {toolchain}", self.version)?,
            Call::Rustc { path, .. } => write!(f, "{} ({}", self.version, path.display())?,
        }
        match self.llvm {
            Some(llvm) => write!(f, ", LLVM {llvm})"),
            None => write!(f, ", LLVM unknown)"),
        }
    }
}

/// A place to look at, and what was found there.
#[derive(Debug)]
pub struct Candidate {
    /// For the user: `rustup nightly-x86_64-unknown-linux-gnu`.
    pub name: String,
    /// The compiler, or why it cannot be used.
    pub found: Result<Compiler, String>,
}

/// Takes the first candidate that builds for BPF and whose bitcode `linker` reads.
///
/// # Errors
/// Lists every candidate with its reason.
pub fn choose(candidates: Vec<Candidate>, linker: Option<Llvm>) -> Result<(Compiler, Vec<String>)> {
    let mut passed_over = Vec::new();
    for Candidate { name, found } in candidates {
        match found {
            Ok(compiler) => match (linker, compiler.llvm) {
                (Some(reader), Some(writer)) if !reader.reads(writer) => passed_over.push(format!(
                    "{name}: writes bitcode of LLVM {writer}, which bpf-linker's LLVM {reader} cannot read"
                )),
                _ => return Ok((compiler, passed_over)),
            },
            Err(reason) => passed_over.push(format!("{name}: {reason}")),
        }
    }
    let mut text = String::from("no compiler builds the kernel programs:");
    for line in &passed_over {
        write!(text, "\n  - {line}")?;
    }
    if passed_over.is_empty() {
        text.push_str(" neither rustup nor a distribution's rustc was found");
    }
    write!(text, "\nRun `cargo xtask setup`, or name a rustc that ships {TARGET} in {OVERRIDE}.")?;
    bail!(text)
}

/// All compilers of this machine in the order of preference.
pub fn candidates() -> Vec<Candidate> {
    if let Some(path) = env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        // The user's word is final: nothing else is tried, so that a typing error does not go unnoticed.
        let path = PathBuf::from(path);
        return vec![Candidate { name: format!("{OVERRIDE}={}", path.display()), found: inspect_rustc(&path) }];
    }
    let mut all = Vec::new();
    if let Some(rustup) = find_program("rustup") {
        let list = output_of(Command::new(&rustup).args(["toolchain", "list"])).unwrap_or_default();
        for toolchain in list.lines().filter_map(|line| line.split_whitespace().next()) {
            if toolchain.starts_with("nightly") {
                all.push(Candidate {
                    name: format!("rustup {toolchain}"),
                    found: inspect_toolchain(&rustup, toolchain),
                });
            }
        }
    }
    // rustup's own `rustc` in PATH is a proxy; the distribution's is in one of these.
    for path in ["/usr/bin/rustc", "/usr/local/bin/rustc"].map(PathBuf::from) {
        if is_executable(&path) {
            all.push(Candidate { name: path.display().to_string(), found: inspect_rustc(&path) });
        }
    }
    all
}

fn inspect_toolchain(rustup: &Path, toolchain: &str) -> Result<Compiler, String> {
    let rustc = |what: &[&str]| {
        let mut command = Command::new(rustup);
        // Set by the cargo that started us; it would win over the toolchain asked for in a nested call.
        command.env_remove("RUSTUP_TOOLCHAIN").args(["run", toolchain, "rustc"]).args(what);
        output_of(&mut command).map_err(|error| format!("{error:#}"))
    };
    let sysroot = rustc(&["--print", "sysroot"])?;
    if !has_source(Path::new(sysroot.trim())) {
        return Err(format!("has no rust-src (`rustup component add rust-src --toolchain {toolchain}` adds it)"));
    }
    let (version, llvm) = parse_verbose_version(&rustc(&["-vV"])?);
    Ok(Compiler { call: Call::Rustup(toolchain.to_owned()), version, llvm })
}

fn inspect_rustc(path: &Path) -> Result<Compiler, String> {
    let rustc = |what: &[&str]| output_of(Command::new(path).args(what)).map_err(|error| format!("{error:#}"));
    let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
    let ships_core = sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir();
    if !ships_core && !has_source(&sysroot) {
        return Err(format!("ships no {TARGET}, nor the library source (rust-src) to build it from"));
    }
    let (version, llvm) = parse_verbose_version(&rustc(&["-vV"])?);
    Ok(Compiler { call: Call::Rustc { path: path.to_owned(), build_std: !ships_core }, version, llvm })
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

/// First line, and the LLVM, of `rustc -vV`.
fn parse_verbose_version(text: &str) -> (String, Option<Llvm>) {
    let version = text.lines().next().unwrap_or("rustc of unknown version").to_owned();
    let llvm = text.lines().find_map(|line| line.strip_prefix("LLVM version: ")).and_then(Llvm::parse);
    (version, llvm)
}

/// The LLVM that a bpf-linker was linked with: from its file where it is a shared library, else from what cargo noted
/// when it installed it. `None` where neither tells. (bpf-linker itself does not say.)
pub fn linker_llvm(linker: &Path) -> Option<Llvm> {
    let linked = fs::read(linker).ok().and_then(|bytes| llvm_library(&bytes));
    let noted = || {
        let notes = linker.parent()?.parent()?.join(".crates2.json");
        installed_feature(&fs::read_to_string(notes).ok()?)
    };
    let llvm = linked.or_else(noted)?;
    // The library's name ends at the minor version; its tools know the rest.
    let exact = Command::new(format!("/usr/lib/llvm-{}/bin/llvm-config", llvm.major)).arg("--version").output();
    let exact = exact.ok().and_then(|output| Llvm::parse(&String::from_utf8_lossy(&output.stdout)));
    Some(exact.filter(|exact| exact.major == llvm.major).unwrap_or(llvm))
}

/// Finds `libLLVM.so.22.1` or `libLLVM-19.so.1` among the names in an ELF file.
fn llvm_library(elf: &[u8]) -> Option<Llvm> {
    const NAME: &[u8] = b"libLLVM";
    elf.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        let rest = &elf[at + NAME.len()..];
        let rest = &rest[..rest.iter().position(|byte| *byte == 0)?.min(32)];
        let rest = std::str::from_utf8(rest).ok()?;
        match rest.strip_prefix(".so.") {
            Some(version) => Llvm::parse(version),
            None => Some(Llvm { minor: None, patch: None, ..Llvm::parse(rest.strip_prefix('-')?)? }),
        }
    })
}

/// The feature `llvm-22` in cargo's `.crates2.json`.
fn installed_feature(notes: &str) -> Option<Llvm> {
    let notes: serde_json::Value = serde_json::from_str(notes).ok()?;
    let installs = notes["installs"].as_object()?;
    let (_, install) = installs.iter().find(|(name, _)| name.starts_with("bpf-linker "))?;
    let features = install["features"].as_array()?.iter().filter_map(|feature| feature.as_str());
    features.filter_map(|feature| feature.strip_prefix("llvm-")).find_map(Llvm::parse)
}

/// Fails where a linker that is there cannot read what the compiler writes.
pub fn pick(linker: &Path) -> Result<(Compiler, Option<Llvm>, Vec<String>)> {
    let reader = linker_llvm(linker);
    let (compiler, passed_over) =
        choose(candidates(), reader).with_context(|| format!("with {} as linker", linker.display()))?;
    Ok((compiler, reader, passed_over))
}

#[cfg(test)]
#[path = "compiler_tests.rs"]
mod tests;
