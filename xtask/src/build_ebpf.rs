//! `cargo xtask build-ebpf`: the kernel programs, in release with BTF.
//!
//! Reads: rustok-obsd-ebpf, and a compiler chosen by [`compiler`]. Yields: `<target>/ebpf/rustok-obsd-ebpf.o` and
//! `rustok-obsd-host.o`, which the daemon's build script embeds. Costs: half a minute the first time, a second after that.

use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::compiler::{self, Call, Compiler, TARGET};
use crate::setup::bpf_linker;
use crate::workspace::{Workspace, cargo, find_program, run};

/// What cargo and rustup set for us, and the user may have set for the host's programs: none of it is meant for BPF.
const NOT_FOR_BPF: [&str; 9] = [
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// The objects, each a program of rustok-obsd-ebpf: that of the targets, and that of the whole host.
pub const OBJECTS: [&str; 2] = ["rustok-obsd-ebpf", "rustok-obsd-host"];

/// Builds, and says with what. Yields the objects' paths.
pub fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let linker = bpf_linker::find()?;
    let (compiler, llvm, passed_over) = compiler::pick(&linker)?;
    for reason in &passed_over {
        println!("build-ebpf: passed over {reason}");
    }
    let reader = llvm.map_or_else(|| "unknown LLVM".to_owned(), |llvm| format!("LLVM {llvm}"));
    println!("build-ebpf: {compiler}, linked by {} ({reader})", linker.display());
    let build_folder = workspace.target.join("ebpf-build");
    run(&mut command(workspace, &compiler, &linker, &build_folder)?)
        .context("the kernel programs do not build; the compiler's messages are above")?;
    let release = build_folder.join(TARGET).join("release");
    let mut objects = Vec::new();
    for name in OBJECTS {
        let object = workspace.ebpf_object(name);
        install(&release.join(name), &object)?;
        println!("build-ebpf: {}", object.display());
        objects.push(object);
    }
    Ok(objects)
}

fn command(workspace: &Workspace, compiler: &Compiler, linker: &Path, build_folder: &Path) -> Result<Command> {
    let mut command = match &compiler.call {
        Call::Rustup(toolchain) => {
            let rustup = find_program("rustup").context("rustup has gone since it was asked for its toolchains")?;
            let mut command = Command::new(rustup);
            command.args(["run", toolchain, "cargo", "build", "-Z", "build-std=core"]);
            command
        }
        Call::Rustc { .. } => {
            let mut command = cargo();
            command.arg("build");
            command
        }
    };
    for name in NOT_FOR_BPF {
        command.env_remove(name);
    }
    if let Call::Rustc { path, build_std } = &compiler.call {
        // A BPF target is unstable, and a distribution's rustc a stable one: the variable lifts that.
        command.env("RUSTC", path).env("RUSTC_BOOTSTRAP", "1");
        if *build_std {
            command.args(["-Z", "build-std=core"]);
        }
    }
    let Some(linker) = linker.to_str() else {
        bail!("the path {} is no UTF-8: rustc cannot take it", linker.display())
    };
    // aya-ebpf chooses registers and system call conventions by `bpf_target_arch`, the machine that will load the
    // object. The separator 0x1f, unlike the blanks of RUSTFLAGS, allows blanks in a path.
    let flags = [
        &format!("-Clinker={linker}"),
        "-Clink-arg=--btf",
        "-Cdebuginfo=2",
        "--cfg",
        &format!("bpf_target_arch=\"{ARCH}\""),
    ];
    command
        .current_dir(&workspace.root)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args(["--package", "rustok-obsd-ebpf", "--features", "kernel", "--release"])
        .args(OBJECTS.iter().flat_map(|name| ["--bin", name]))
        .args(["--target", TARGET, "--target-dir"])
        .arg(build_folder);
    Ok(command)
}

/// Puts the object where the daemon's build looks, whole or not at all. The same object again leaves the file as it is,
/// so that the daemon is not rebuilt.
fn install(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("the build left no {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = object.parent().context("the object has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).context("no temporary file for the object")?;
    std::io::Write::write_all(&mut file, &bytes)?;
    // A temporary file is its maker's alone; a build product is not.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(object).with_context(|| format!("{} cannot be written", object.display()))?;
    Ok(())
}
