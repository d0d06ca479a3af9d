//! A container of runc alone, in the cgroup where Kubernetes would have it.
//!
//! Reads: `runc` and busybox, as installed. Yields: a container, `/kubepods/burstable/podUID/ID` in every hierarchy.
//! Costs: 0.1 s to start, half a second to remove.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::busybox::{PERIOD_US, root_file_system};
use crate::janitor::Janitor;
use crate::postgres::random_hex;
use crate::{Skip, Workload, program, require_root, run, wait_until};

/// A container; killed and removed, with its cgroups, when dropped.
pub struct Runc {
    _janitor: Janitor,
    folder: tempfile::TempDir,
    program: PathBuf,
    id: String,
    pod_uid: String,
    pid: u32,
}

impl Runc {
    /// Starts a container.
    ///
    /// # Errors
    /// A [`Skip`] that says what is missing or what runc said.
    pub fn start(workload: &Workload<'_>) -> Result<Self, Skip> {
        require_root("containers")?;
        let program = program("runc", "RUSTOK_OBSD_RUNC")?;
        let failed = |what: &str, error: &dyn std::fmt::Display| Skip::new(format!("runc: {what}: {error}"));
        let random = || random_hex().map_err(|error| failed("cannot read /dev/urandom", &error));
        let id = random()? + &random()?;
        let uid = random()?;
        let pod_uid = [&uid[..8], &uid[8..12], &uid[12..16], &uid[16..20], &uid[20..]].join("-");
        let folder = tempfile::Builder::new()
            .prefix("rustok-obsd-runc-")
            .tempdir()
            .map_err(|error| failed("cannot make a temporary folder", &error))?;
        let janitor = Janitor::of(folder.path()).map_err(|error| failed("no janitor", &error))?;
        let cgroup = cgroup_path(&pod_uid, &id);
        let bundle = folder.path().join(&id);
        let root = bundle.join("rootfs");
        fs::create_dir_all(&root)
            .and_then(|()| fs::write(folder.path().join("cgroup"), cgroup.clone() + "\n"))
            .map_err(|error| failed("cannot write to its folder", &error))?;
        root_file_system(&root)?;
        run(Command::new(&program).arg("spec").current_dir(&bundle))?;
        configure(&bundle.join("config.json"), &cgroup, workload).map_err(|error| failed("config.json", &error))?;

        let log = File::create(folder.path().join("log")).map_err(|error| failed("cannot make its log", &error))?;
        let error_log = log.try_clone().map_err(|error| failed("cannot make its log", &error))?;
        let mut command = Command::new(&program);
        command.arg("--root").arg(folder.path().join("runc")).args(["run", "--detach"]);
        if root_is_initramfs() {
            // Which has no parent to pivot to.
            command.arg("--no-pivot");
        }
        command.arg("--pid-file").arg(bundle.join("init.pid")).arg("--bundle").arg(&bundle).arg(&id);
        let held = Janitor::hold();
        let status = command.stdin(Stdio::null()).stdout(log).stderr(error_log).status();
        drop(held);
        let status = status.map_err(|error| failed("cannot start", &error))?;
        let said = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        if !status.success() {
            return Err(failed(&format!("run failed ({status})"), &said().trim()));
        }
        let pid = fs::read_to_string(bundle.join("init.pid")).ok().and_then(|text| text.trim().parse().ok());
        let pid = pid.ok_or_else(|| failed("no process id", &said().trim()))?;
        Ok(Self { _janitor: janitor, folder, program, id, pod_uid, pid })
    }

    /// Its id: 64 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The uid of the pod that its cgroup stands for.
    #[must_use]
    pub fn pod_uid(&self) -> &str {
        &self.pod_uid
    }

    /// Its first process, as the host counts.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Path of its cgroup below each hierarchy's root.
    #[must_use]
    pub fn cgroup(&self) -> String {
        cgroup_path(&self.pod_uid, &self.id)
    }

    /// What its processes wrote to standard output and error so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Whether its first process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        is_alive(self.pid)
    }

    /// Kills its processes; the container and its cgroups stay until the value is dropped.
    ///
    /// # Errors
    /// What runc said, or that a process goes on.
    pub fn kill(&self) -> Result<(), Skip> {
        let root = self.folder.path().join("runc");
        run(Command::new(&self.program).arg("--root").arg(root).args(["kill", &self.id, "KILL"]))?;
        let gone = wait_until(Duration::from_secs(10), || (!self.is_running()).then_some(()));
        gone.ok_or_else(|| Skip::new(format!("runc: process {} goes on after SIGKILL", self.pid)))
    }
}

fn cgroup_path(pod_uid: &str, id: &str) -> String {
    format!("/kubepods/burstable/pod{pod_uid}/{id}")
}

/// Makes what `runc spec` wrote our own.
fn configure(file: &Path, cgroup: &str, workload: &Workload<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let mut spec: Value = serde_json::from_slice(&fs::read(file)?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(workload.command());
    spec["root"]["readonly"] = json!(false);
    spec["linux"]["cgroupsPath"] = json!(cgroup);
    // Block devices can be bound in, too.
    spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
    if let Some(quota) = workload.quota_us() {
        spec["linux"]["resources"]["cpu"] = json!({"quota": quota, "period": PERIOD_US});
    }
    if let Some(limit) = workload.memory {
        spec["linux"]["resources"]["memory"] = json!({"limit": limit});
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        for (source, destination) in workload.binds {
            let bind =
                json!({"destination": destination, "source": source, "type": "bind", "options": ["rbind", "rw"]});
            mounts.push(bind);
        }
    }
    Ok(fs::write(file, serde_json::to_vec(&spec)?)?)
}

fn root_is_initramfs() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let last = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some("/"));
    last.is_some_and(|line| line.split(' ').nth(2) == Some("rootfs"))
}

/// Whether the process is there and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cgroups_of, skip};

    #[test]
    fn a_container_has_its_cgroups_and_limits_and_leaves_nothing_behind() {
        let workload = Workload {
            script: "echo started; while :; do :; done",
            cpus: Some(0.2),
            memory: Some(64 << 20),
            ..Workload::default()
        };
        let container = match Runc::start(&workload) {
            Ok(container) => container,
            Err(reason) => {
                return skip("a_container_has_its_cgroups_and_limits_and_leaves_nothing_behind", reason);
            }
        };
        let said = wait_until(Duration::from_secs(10), || container.log().contains("started").then_some(()));
        assert!(said.is_some(), "{}", container.log());
        let path = container.cgroup();
        let folders = cgroups_of(container.pid()).expect("its cgroups");
        let limited = folders.iter().filter(|folder| folder.join("cpu.stat").exists()).collect::<Vec<_>>();
        assert!(folders.iter().any(|folder| folder.ends_with(&path[1..])), "{folders:?}");
        let throttled = wait_until(Duration::from_secs(10), || {
            let stat = limited.iter().find_map(|folder| {
                let stat = fs::read_to_string(folder.join("cpu.stat")).ok()?;
                stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse::<u64>().ok())
            });
            stat.filter(|throttled| *throttled > 0)
        });
        assert!(throttled.is_some(), "a busy loop with a fifth of a core is not throttled");
        let limit = folders.iter().find_map(|folder| {
            let read = |name| fs::read_to_string(folder.join(name)).ok();
            read("memory.max").or_else(|| read("memory.limit_in_bytes"))
        });
        assert_eq!(limit.as_deref().map(str::trim), Some("67108864"));

        container.kill().expect("killed");
        assert!(folders.iter().all(|folder| folder.exists()), "an ended container keeps its cgroups");
        let folder = container.folder.path().to_owned();
        drop(container);
        assert!(!folder.exists());
        let left: Vec<_> = folders.iter().filter(|folder| folder.exists()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
