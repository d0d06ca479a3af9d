//! A Docker of its own.
//!
//! Reads: `dockerd`, `docker`, `containerd`, `runc` and busybox, as installed. Yields: a socket, and containers below
//! `/docker` in every hierarchy. Costs: 150 MB, two seconds to start, 0.3 s for a container, half a second to remove all.
//!
//! Containers have no network, so that no rule of the host's firewall is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::busybox::{IMAGE, image_archive, root_file_system};
use crate::janitor::Janitor;
use crate::{Child, Skip, Workload, program, require_root, run, wait_until};

const CONFIG: &str = "daemon.json";

/// A running dockerd; stopped when dropped, and its containers removed.
pub struct Docker {
    server: Child,
    _janitor: Janitor,
    folder: tempfile::TempDir,
    client: PathBuf,
}

impl Docker {
    /// Starts the program that `RUSTOK_OBSD_DOCKERD` names, else `dockerd` from PATH.
    ///
    /// # Errors
    /// A [`Skip`] that says what is missing or what Docker said.
    pub fn start() -> Result<Self, Skip> {
        require_root("containers")?;
        let binary = program("dockerd", "RUSTOK_OBSD_DOCKERD")?;
        let client = program("docker", "RUSTOK_OBSD_DOCKER")?;
        let failed = |what: &str, error: &dyn std::fmt::Display| Skip::new(format!("dockerd: {what}: {error}"));
        let folder = tempfile::Builder::new()
            .prefix("rustok-obsd-docker-")
            .tempdir()
            .map_err(|error| failed("cannot make a temporary folder", &error))?;
        let janitor = Janitor::of(folder.path()).map_err(|error| failed("no janitor", &error))?;
        fs::write(folder.path().join(CONFIG), "{}").map_err(|error| failed("cannot write its config", &error))?;
        let held = Janitor::hold();
        let mut server = Child::spawn_with("dockerd", &mut command(&binary, folder.path()), libc::SIGKILL, None)
            .map_err(|error| failed("cannot start", &error))?;
        drop(held);
        let (root, image) = (folder.path().join("rootfs"), folder.path().join("image"));
        fs::create_dir(&root)
            .and_then(|()| fs::create_dir(&image))
            .map_err(|error| failed("cannot write to its folder", &error))?;
        root_file_system(&root)?;
        let archive = folder.path().join("image.tar");
        image_archive(&root, &image, &archive)?;
        let socket = folder.path().join("docker.sock");
        let started = wait_until(Duration::from_secs(30), || {
            (server.check().is_err() || std::os::unix::net::UnixStream::connect(&socket).is_ok()).then_some(())
        });
        server.check().map_err(Skip::new)?;
        started.ok_or_else(|| failed("not ready after 30 s", &server.log_tail()))?;
        let docker = Self { server, _janitor: janitor, folder, client };
        docker.docker(&["load", "--quiet", "--input", &archive.display().to_string()])?;
        Ok(docker)
    }

    /// Path of its socket, which speaks the Engine API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Starts a container with this name and these labels. Yields its id.
    ///
    /// # Errors
    /// What Docker said.
    pub fn run(&self, name: &str, labels: &[(&str, &str)], workload: &Workload<'_>) -> Result<String, Skip> {
        let mut args = ["run", "--detach", "--network=none", "--name", name].map(str::to_owned).to_vec();
        args.extend(labels.iter().map(|(key, value)| format!("--label={key}={value}")));
        args.extend(workload.cpus.map(|cpus| format!("--cpus={cpus}")));
        args.extend(workload.memory.map(|memory| format!("--memory={memory}")));
        args.extend(workload.binds.iter().map(|(host, inside)| format!("--volume={}:{inside}", host.display())));
        args.push(IMAGE.to_owned());
        args.extend(workload.command().map(str::to_owned));
        let _held = Janitor::hold();
        self.docker(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs `docker` against it, for instance with `["rm", "--force", NAME]`. Yields what it printed.
    ///
    /// # Errors
    /// What it said.
    pub fn docker(&self, args: &[&str]) -> Result<String, Skip> {
        let mut command = Command::new(&self.client);
        // The user's own contexts and credentials are none of ours.
        command.arg("--config").arg(self.folder.path().join("client"));
        command.arg("--host").arg(format!("unix://{}", self.socket().display())).args(args);
        Ok(run(&mut command)?.trim().to_owned())
    }

    /// The container's first process, as the host counts.
    ///
    /// # Errors
    /// What Docker said.
    pub fn pid(&self, container: &str) -> Result<u32, Skip> {
        let said = self.docker(&["inspect", "--format={{.State.Pid}}", container])?;
        said.parse().map_err(|_| Skip::new(format!("docker inspect {container} names no process id: {said}")))
    }

    /// The server's last log lines.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }
}

fn command(binary: &Path, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    let own = |flag: &str, name: &str| format!("{flag}={}", folder.join(name).display());
    command
        .args([own("--data-root", "root"), own("--exec-root", "exec"), own("--pidfile", "docker.pid")])
        // No file of the host's own Docker is read.
        .args([own("--config-file", CONFIG), format!("--host=unix://{}/docker.sock", folder.display())])
        .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--exec-opt=native.cgroupdriver=cgroupfs"])
        // It cannot raise this limit everywhere.
        .arg("--default-ulimit=nofile=20000:20000");
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runc::is_alive;
    use crate::{cgroups_of, skip};

    #[test]
    fn docker_runs_a_container_with_labels_and_leaves_nothing_behind() {
        let docker = match Docker::start() {
            Ok(docker) => docker,
            Err(reason) => {
                return skip("docker_runs_a_container_with_labels_and_leaves_nothing_behind", reason);
            }
        };
        let workload =
            Workload { script: "exec sleep 1000", cpus: Some(0.5), memory: Some(64 << 20), ..Workload::default() };
        let id = docker.run("shop", &[("com.example.tier", "web")], &workload).expect("a container");
        let pid = docker.pid("shop").expect("its process");
        let folders = cgroups_of(pid).expect("its cgroups");
        assert!(folders.iter().any(|folder| folder.ends_with(format!("docker/{id}"))), "{folders:?}");
        let label = docker.docker(&["inspect", "--format={{index .Config.Labels \"com.example.tier\"}}", "shop"]);
        assert_eq!(label.expect("inspected"), "web");

        let folder = docker.folder.path().to_owned();
        drop(docker);
        assert!(!folder.exists() && !is_alive(pid));
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(folder.to_str().expect("UTF-8")), "{mounts}");
        let left: Vec<_> = folders.iter().filter(|folder| folder.exists()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
