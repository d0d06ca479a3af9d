//! What containers are made of here: busybox, linked statically, as a root file system and as an image.
//!
//! Reads: `RUSTOK_OBSD_BUSYBOX`, else `busybox` in PATH. Yields: a folder, or an archive as `docker save` writes it,
//! which Docker and containerd import: no registry is asked. Costs: 2 MB each.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Skip, program, run};

/// The image's name.
pub(crate) const IMAGE: &str = "localhost/busybox:1";

/// What runs in a container, and within which limits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Workload<'a> {
    /// For `sh -c`; all of busybox' applets are in `PATH`.
    pub script: &'a str,
    /// Cores, by the quota of the CFS scheduler.
    pub cpus: Option<f64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Files or folders of the host, each with its place in the container.
    pub binds: &'a [(&'a Path, &'a str)],
}

/// Length of the CFS scheduler's period, which quotas are given for.
pub(crate) const PERIOD_US: u64 = 100_000;

impl Workload<'_> {
    pub(crate) fn command(&self) -> [&str; 4] {
        ["/bin/busybox", "sh", "-c", self.script]
    }

    pub(crate) fn quota_us(&self) -> Option<u64> {
        self.cpus.map(|cpus| (cpus * PERIOD_US as f64) as u64)
    }
}

/// Makes a root file system in this folder, which must be there.
pub(crate) fn root_file_system(folder: &Path) -> Result<(), Skip> {
    let busybox = program("busybox", "RUSTOK_OBSD_BUSYBOX")?;
    let failed = |error: std::io::Error| Skip::new(format!("busybox as a root file system: {error}"));
    let bytes = fs::read(&busybox).map_err(failed)?;
    if bytes.windows(9).any(|window| window == b"/ld-linux") {
        return Err(Skip::new(format!(
            "{} is linked dynamically: install busybox-static (`cargo xtask setup --tests`)",
            busybox.display()
        )));
    }
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(folder.join(name)).map_err(failed)?;
    }
    // Copies the mode as well.
    fs::copy(&busybox, folder.join("bin/busybox")).map_err(failed)?;
    for applet in run(Command::new(&busybox).arg("--list"))?.lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", folder.join("bin").join(applet)).map_err(failed)?;
    }
    Ok(())
}

/// Writes the image's archive, with this root file system as its only layer; uses `folder`, which must be there.
pub(crate) fn image_archive(root: &Path, folder: &Path, archive: &Path) -> Result<(), Skip> {
    let tar = |files: &Path, archive: &Path, names: &[&str]| {
        let mut command = Command::new("tar");
        command.args(["--owner=0", "--group=0", "--numeric-owner", "-C"]).arg(files).arg("-cf").arg(archive);
        run(command.args(names)).map(drop)
    };
    let layer = folder.join("layer.tar");
    tar(root, &layer, &["."])?;
    let said = run(Command::new("sha256sum").arg(&layer))?;
    let digest = said.split_whitespace().next().unwrap_or_default();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        // What it does as the container that keeps a pod's namespaces.
        "config": {"Cmd": ["/bin/busybox", "sleep", "2147483647"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(folder.join("config.json"), config.to_string())
        .and_then(|()| fs::write(folder.join("manifest.json"), manifest.to_string()))
        .map_err(|error| Skip::new(format!("an image of busybox: {error}")))?;
    tar(folder, archive, &["manifest.json", "config.json", "layer.tar"])
}
