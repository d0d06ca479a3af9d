//! Programs for the tests and the demo that are built from their Go modules.
//!
//! Reads: the places of [`Tool`], the Go module proxy. Yields: their paths. Costs: Jaeger takes 570 s of CPU, 2 GB of
//! memory and 3 GB of disk while it is built (2 cores: about 6 minutes), the others a minute of CPU and 0.3 GB each; then
//! a program of 85, 17 or 28 MB that is kept.
//!
//! `go install` refuses modules whose go.mod has a replace directive, so that each is built in its unpacked folder.
//! Modules and build cache go to a temporary folder beside the result and are dropped: the user's own caches stay as
//! they are, at the price that nothing of them is used.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use test_support::{CRICTL, JAEGER, NODE_EXPORTER, Origin, Tool};

use super::Need;
use crate::workspace::{find_program, is_executable, output_of, run};

/// One of them.
#[derive(Debug)]
pub struct Program {
    /// As its users call it.
    pub title: &'static str,
    /// What it is needed for.
    pub need: Need,
    tool: Tool,
    module: &'static str,
    package: &'static str,
    /// For the linker, besides `-s -w`.
    flags: &'static str,
    /// Prints its version, and thus shows that it runs here.
    version: &'static str,
    cost: &'static str,
}

/// Traces in, traces out.
pub const JAEGER_PROGRAM: Program = Program {
    title: "Jaeger",
    need: Need::Backend,
    tool: JAEGER,
    module: "github.com/jaegertracing/jaeger",
    package: "./cmd/jaeger",
    flags: "",
    version: "version",
    cost: "570 s of CPU, 3 GB of disk for the time",
};

/// All of them.
pub const PROGRAMS: [Program; 3] = [
    JAEGER_PROGRAM,
    Program {
        title: "node_exporter",
        need: Need::Tests,
        tool: NODE_EXPORTER,
        module: "github.com/prometheus/node_exporter",
        package: ".",
        flags: "-X github.com/prometheus/common/version.Version=1.12.1",
        version: "--version",
        cost: "50 s of CPU, 0.3 GB of disk for the time",
    },
    Program {
        title: "crictl",
        need: Need::Tests,
        tool: CRICTL,
        module: "sigs.k8s.io/cri-tools",
        package: "./cmd/crictl",
        flags: "",
        version: "--version",
        cost: "65 s of CPU, 0.4 GB of disk for the time",
    },
];

/// Oldest Go that the modules' go.mod accept.
const GO: (u32, u32) = (1, 26);

impl Program {
    /// Finds it, else builds it, and sees that it runs.
    pub fn bring(&self) -> Result<PathBuf> {
        let path = match self.tool.lookup()? {
            Some(path) => path,
            None => self.build()?,
        };
        output_of(Command::new(&path).arg(self.version))?;
        Ok(path)
    }

    /// One that is there.
    ///
    /// # Errors
    /// Its environment variable names no program.
    pub fn find(&self) -> Result<Option<PathBuf>> {
        Ok(self.tool.lookup()?)
    }

    /// What a user can do by hand.
    pub fn remedy(&self) -> String {
        format!(
            "install Go {}.{} or newer (https://go.dev/dl/) and run `cargo xtask setup --tests` again, or name a {} in {}",
            GO.0, GO.1, self.title, self.tool.variable
        )
    }

    /// Builds it into the cache folder, once: whoever comes meanwhile waits, and finds it.
    fn build(&self) -> Result<PathBuf> {
        let go = go()?;
        let Tool { name, origin: Origin::Built(version) | Origin::BuiltOrPath(version), .. } = self.tool else {
            bail!("{} cannot be built", self.title);
        };
        let target = self.tool.cached().context("neither XDG_CACHE_HOME nor HOME is set: no place for a cache")?;
        let folder = target.parent().context("the cache folder has no name")?;
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
        let lock = File::create(folder.join(format!("{name}.lock"))).context("no lock in the cache folder")?;
        lock.lock().context("the lock in the cache folder cannot be taken")?;
        if is_executable(&target) {
            return Ok(target);
        }
        println!("setup: building {} {version} (once; {})", self.title, self.cost);
        let scratch = tempfile::Builder::new().prefix(&format!("{name}-build-")).tempdir_in(folder)?;
        let mut download = command(&go, scratch.path());
        download.args(["mod", "download", "-json", &format!("{}@{version}", self.module)]).current_dir(scratch.path());
        let said = output_of(&mut download)?;
        let said: serde_json::Value = serde_json::from_str(&said).context("`go mod download` printed no JSON")?;
        let source = said["Dir"].as_str().context("`go mod download` names no folder")?;
        // Outside the module's folder, and renamed when whole: an aborted build leaves no half program.
        let built = scratch.path().join(name);
        let mut compile = command(&go, scratch.path());
        compile.current_dir(source).args(["build", "-trimpath", "-ldflags", &format!("-s -w {}", self.flags), "-o"]);
        run(compile.arg(&built).arg(self.package))?;
        fs::rename(&built, &target).with_context(|| format!("{} cannot be written", target.display()))?;
        Ok(target)
    }
}

fn command(go: &Path, scratch: &Path) -> Command {
    let mut command = Command::new(go);
    command
        // A newer toolchain is not fetched behind the user's back.
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
        // Without -modcacherw the module cache is read-only and cannot be removed.
        .env("GOFLAGS", "-modcacherw")
        .env("GOMODCACHE", scratch.join("mod"))
        .env("GOCACHE", scratch.join("cache"))
        .env("CGO_ENABLED", "0");
    command
}

fn go() -> Result<PathBuf> {
    let go = find_program("go")
        .or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| is_executable(go)))
        .context("Go is not installed")?;
    let version = output_of(Command::new(&go).env("GOTOOLCHAIN", "local").args(["env", "GOVERSION"]))?;
    check_go(&version)?;
    Ok(go)
}

fn check_go(version: &str) -> Result<()> {
    let found = version.trim();
    let mut parts = found.trim_start_matches("go").split('.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse::<u32>().unwrap_or(0)
    });
    let parsed = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if parsed < GO {
        bail!("Go {}.{} or newer is needed, {found} is installed", GO.0, GO.1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_go_is_refused_by_number() {
        assert!(check_go("go1.26.8\n").is_ok());
        assert!(check_go("go1.27rc1").is_ok());
        assert!(check_go("go2.0").is_ok());
        let error = check_go("go1.25.9").expect_err("too old").to_string();
        assert!(error.contains("go1.25.9") && error.contains("1.26"), "{error}");
        assert!(check_go("devel").is_err());
    }
}
