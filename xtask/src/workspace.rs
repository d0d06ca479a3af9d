//! Where things are, and how cargo is called.
//!
//! Reads: `cargo metadata` once. Yields: the workspace and target folders, and the programs that a build made. Costs:
//! one cargo call of about 50 ms.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The checkout that a command works on.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target folder, as configured by the user.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub fn find() -> Result<Self> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .stderr(Stdio::inherit())
            .output()
            .context("cargo metadata could not be started")?;
        if !output.status.success() {
            bail!("cargo metadata failed ({}); its message is above", output.status);
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
        let path = |key: &str| {
            metadata[key].as_str().map(PathBuf::from).with_context(|| format!("cargo metadata has no `{key}`"))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// An object of kernel programs, where `rustok-obsd/build.rs` looks for it.
    pub fn ebpf_object(&self, name: &str) -> PathBuf {
        self.target.join("ebpf").join(name).with_extension("o")
    }

    /// Builds packages in release with cargo's own progress, and yields the path of each program by name. Asks cargo
    /// for the paths: the user's configuration may put them elsewhere than `target/release`. Packages built together
    /// share what they depend on.
    pub fn build_release(&self, packages: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
        let mut child = cargo()
            .current_dir(&self.root)
            .args(["build", "--release", "--bins", "--message-format=json-render-diagnostics"])
            .args(packages.iter().flat_map(|package| ["--package", package]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cargo build could not be started")?;
        let mut programs = BTreeMap::new();
        let stdout = child.stdout.take().context("cargo build has no output")?;
        for line in BufReader::new(stdout).lines() {
            let message: serde_json::Value = match serde_json::from_str(&line?) {
                Ok(message) => message,
                // A build script of a dependency may print what it likes.
                Err(_) => continue,
            };
            if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str()) {
                programs.insert(name.to_owned(), PathBuf::from(path));
            }
        }
        let status = child.wait()?;
        if !status.success() {
            let packages = packages.join(", ");
            bail!("cargo build --release of {packages} failed ({status}); its messages are above");
        }
        Ok(programs)
    }
}

/// The packages of the example servers and their load.
pub const EXAMPLES: [&str; 4] = ["shop", "shop-seaorm2", "ledger", "ledger-sqlx09"];

/// Looks up what [`Workspace::build_release`] made.
pub fn program(programs: &BTreeMap<String, PathBuf>, name: &str) -> Result<PathBuf> {
    programs.get(name).cloned().with_context(|| {
        let built: Vec<_> = programs.keys().map(String::as_str).collect();
        format!("the build made no program `{name}` (it made: {})", built.join(", "))
    })
}

/// The cargo that started us, without what it told us about ourselves: build scripts (that of `ring`) take that for a
/// change, and then the same build would be made anew whenever `cargo` and `cargo xtask` take turns.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// An executable file of this name in `PATH`, then in cargo's own `bin`, then where daemons are: Debian has that folder in
/// the `PATH` of root alone.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home().map(|home| home.join("bin")))
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

/// A file with an execute bit.
pub fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// `$CARGO_HOME` or `~/.cargo`.
pub fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// The user's cache folder for what is too dear to make twice.
pub fn cache_folder() -> Result<PathBuf> {
    test_support::cache_folder().context("neither XDG_CACHE_HOME nor HOME is set: no place for a cache")
}

/// Standard output of a command that must succeed.
pub fn output_of(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("`{shown}` could not be started"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that must succeed, with its output shown.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("`{shown}` could not be started"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// The command as one would type it, with the variables that it sets.
pub fn shown(command: &Command) -> String {
    // Removed ones have no value.
    let variables = command.get_envs().filter_map(|(key, value)| Some(format!("{}={}", quoted(key), quoted(value?))));
    let words = [command.get_program()].into_iter().chain(command.get_args()).map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=/.:,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "a b", "it's", ""]);
        assert_eq!(shown(&command), r"DEBIAN_FRONTEND=noninteractive apt-get install 'a b' 'it'\''s' ''");
    }
}
