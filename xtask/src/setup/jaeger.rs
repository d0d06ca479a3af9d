//! Jaeger, for the tests and the demo, built from its Go module.
//!
//! Reads: `RUSTOK_OBSD_JAEGER`, `PATH`, our cache folder. Yields: its path. Costs: 570 s of CPU, 2 GB of memory and 3 GB
//! of disk while it is built (2 cores: about 6 minutes), then an 85 MB program that is kept.
//!
//! `go install` refuses the module (its go.mod has a replace directive), so it is built in its unpacked folder. Modules
//! and build cache go to a temporary folder beside the result and are dropped: the user's own caches stay as they are,
//! at the price that nothing of them is used.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{cache_folder, find_program, is_executable, output_of, run};

/// Names a Jaeger to use as it is.
pub const OVERRIDE: &str = "RUSTOK_OBSD_JAEGER";
const MODULE: &str = "github.com/jaegertracing/jaeger";
/// Its `cmd/jaeger` is Jaeger 2.
const VERSION: &str = "v1.76.0";
/// Oldest Go that the module's go.mod accepts.
const GO: (u32, u32) = (1, 26);

/// An existing Jaeger: the override, one in `PATH`, or what was built before.
///
/// # Errors
/// The override names no program.
pub fn find() -> Result<Option<PathBuf>> {
    if let Some(path) = env::var_os(OVERRIDE).filter(|path| !path.is_empty()).map(PathBuf::from) {
        if !is_executable(&path) {
            bail!("{OVERRIDE} names {}, which is no executable file; unset it, or name a Jaeger 2", path.display());
        }
        return Ok(Some(path));
    }
    Ok(find_program("jaeger").or(Some(cached()?).filter(|path| is_executable(path))))
}

fn cached() -> Result<PathBuf> {
    Ok(cache_folder()?.join(format!("jaeger-{VERSION}")))
}

/// Builds it into the cache folder, once: whoever comes meanwhile waits, and finds it.
pub fn build() -> Result<PathBuf> {
    let go = go()?;
    let target = cached()?;
    let folder = cache_folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    let lock = File::create(folder.join("jaeger.lock")).context("no lock in the cache folder")?;
    lock.lock().context("the lock in the cache folder cannot be taken")?;
    if is_executable(&target) {
        return Ok(target);
    }
    println!("setup: building Jaeger {VERSION} (once; 570 s of CPU, 3 GB of disk for the time)");
    let scratch = tempfile::Builder::new().prefix("jaeger-build-").tempdir_in(&folder)?;
    let with_caches = |command: &mut Command| {
        command
            // A newer toolchain is not fetched behind the user's back.
            .env("GOTOOLCHAIN", "local")
            .env("GOWORK", "off")
            // Without -modcacherw the module cache is read-only and cannot be removed.
            .env("GOFLAGS", "-modcacherw")
            .env("GOMODCACHE", scratch.path().join("mod"))
            .env("GOCACHE", scratch.path().join("cache"))
            .env("CGO_ENABLED", "0");
    };
    let mut download = Command::new(&go);
    with_caches(&mut download);
    download.args(["mod", "download", "-json", &format!("{MODULE}@{VERSION}")]).current_dir(scratch.path());
    let said = output_of(&mut download)?;
    let said: serde_json::Value = serde_json::from_str(&said).context("`go mod download` printed no JSON")?;
    let source = said["Dir"].as_str().context("`go mod download` names no folder")?;
    // Outside the module's folder, and renamed when whole: an aborted build leaves no half program.
    let built = scratch.path().join("jaeger");
    let mut compile = Command::new(&go);
    with_caches(&mut compile);
    compile.current_dir(source).args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(&built).arg("./cmd/jaeger");
    run(&mut compile)?;
    fs::rename(&built, &target).with_context(|| format!("{} cannot be written", target.display()))?;
    Ok(target)
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

/// What a user can do by hand.
pub fn remedy() -> String {
    format!(
        "install Go {}.{} or newer (https://go.dev/dl/) and run `cargo xtask setup --tests` again, or name a Jaeger 2 in {OVERRIDE}",
        GO.0, GO.1
    )
}

/// Whether this is a Jaeger that runs here.
pub fn check(jaeger: &Path) -> Result<()> {
    output_of(Command::new(jaeger).arg("version")).map(drop)
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
