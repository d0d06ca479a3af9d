//! containerd with pods and containers as a kubelet makes them: by the container runtime interface (CRI).
//!
//! Reads: `containerd`, `ctr`, `runc` and busybox, as installed, and [`CRICTL`]. Yields: a socket of its own, and
//! containers below `/kubepods/burstable/podUID` in every hierarchy. Costs: 50 MB, a second to start, 0.2 s for a pod with
//! a container, half a second to remove all.
//!
//! Pods have a network of their own, a pair of interfaces made by the CNI plugin `ptp` as Debian has it; without it they share
//! the host's. The image of the container that keeps a pod's namespaces is
//! imported like every other: no registry is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::busybox::{IMAGE, PERIOD_US, image_archive, root_file_system};
use crate::janitor::Janitor;
use crate::postgres::random_hex;
use crate::{CRICTL, Child, Skip, Workload, program, require_root, run, wait_until};

/// A running containerd; stopped when dropped, and its containers removed.
pub struct Containerd {
    server: Child,
    _janitor: Janitor,
    folder: tempfile::TempDir,
    crictl: PathBuf,
}

/// What Kubernetes calls a container.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name of the pod.
    pub name: &'a str,
    /// Uid of the pod, as `11111111-2222-3333-4444-555555555555`.
    pub uid: &'a str,
    /// Name of the container.
    pub container: &'a str,
    /// How often the kubelet started it anew.
    pub restarts: u32,
}

impl Containerd {
    /// Starts the program that `RUSTOK_OBSD_CONTAINERD` names, else `containerd` from PATH.
    ///
    /// # Errors
    /// A [`Skip`] that says what is missing or what containerd said.
    pub fn start() -> Result<Self, Skip> {
        require_root("containers")?;
        let binary = program("containerd", "RUSTOK_OBSD_CONTAINERD")?;
        let ctr = program("ctr", "RUSTOK_OBSD_CTR")?;
        program("runc", "RUSTOK_OBSD_RUNC")?;
        let crictl = CRICTL.find()?;
        let failed = |what: &str, error: &dyn std::fmt::Display| Skip::new(format!("containerd: {what}: {error}"));
        let folder = tempfile::Builder::new()
            .prefix("rustok-obsd-containerd-")
            .tempdir()
            .map_err(|error| failed("cannot make a temporary folder", &error))?;
        let janitor = Janitor::of(folder.path()).map_err(|error| failed("no janitor", &error))?;
        let file = folder.path().join("config.toml");
        fs::write(&file, config(folder.path())).map_err(|error| failed("cannot write its config", &error))?;
        let networks = folder.path().join("cni");
        fs::create_dir(&networks)
            .and_then(|()| fs::write(networks.join("10-pods.conflist"), network(folder.path())))
            .map_err(|error| failed("cannot write its network's config", &error))?;
        let held = Janitor::hold();
        let mut server =
            Child::spawn_with("containerd", Command::new(binary).arg("-c").arg(&file), libc::SIGKILL, None)
                .map_err(|error| failed("cannot start", &error))?;
        drop(held);

        let archive = make_image(folder.path())?;
        let socket = folder.path().join("containerd.sock");
        let started = wait_until(Duration::from_secs(30), || {
            (server.check().is_err() || std::os::unix::net::UnixStream::connect(&socket).is_ok()).then_some(())
        });
        server.check().map_err(Skip::new)?;
        started.ok_or_else(|| failed("not ready after 30 s", &server.log_tail()))?;
        let mut import = Command::new(ctr);
        import.arg("-a").arg(&socket).args(["-n", "k8s.io", "images", "import"]).arg(&archive);
        // The socket is there a little before the service of images.
        let mut said = None;
        let imported = wait_until(Duration::from_secs(10), || {
            said = run(&mut import).err();
            said.is_none().then_some(())
        });
        match said {
            Some(said) if imported.is_none() => Err(said),
            _ => Ok(Self { server, _janitor: janitor, folder, crictl }),
        }
    }

    /// Path of its socket, which speaks the CRI.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Ends the server alone, as an upgrade does: containers go on. None can be asked for or started any more.
    pub fn stop_server(&mut self) {
        self.server.stop(libc::SIGKILL, Duration::from_secs(5));
    }

    /// Starts a pod with one container. Yields the ids of the pod's sandbox and of the container.
    ///
    /// # Errors
    /// What the runtime said.
    pub fn run(&self, pod: &Pod<'_>, workload: &Workload<'_>) -> Result<(String, String), Skip> {
        let failed = |error: std::io::Error| Skip::new(format!("containerd: cannot write to its folder: {error}"));
        let name = random_hex().map_err(failed)?;
        let logs = self.folder.path().join(&name);
        fs::create_dir(&logs).map_err(failed)?;
        let write = |name: &str, value: &Value| {
            let file = logs.join(name);
            fs::write(&file, value.to_string()).map_err(failed).map(|()| file)
        };
        let sandbox = write("pod.json", &sandbox_config(pod, &logs))?;
        let container = write("container.json", &container_config(pod, workload))?;
        let _held = Janitor::hold();
        let pod_id = self.crictl(&["runp", &sandbox.display().to_string()])?;
        if let Some(netns) = self.network_namespace(&pod_id)? {
            // For the janitor.
            fs::write(logs.join("pod.netns"), netns).map_err(failed)?;
        }
        let id = self.crictl(&["create", &pod_id, &container.display().to_string(), &sandbox.display().to_string()])?;
        self.crictl(&["start", &id])?;
        Ok((pod_id, id))
    }

    /// The file that keeps a pod's network.
    fn network_namespace(&self, pod_id: &str) -> Result<Option<String>, Skip> {
        let said = self.crictl(&["inspectp", "--output", "json", pod_id])?;
        let parsed: Value = serde_json::from_str(&said).unwrap_or_default();
        let namespaces = parsed["info"]["runtimeSpec"]["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network");
        Ok(network.and_then(|network| network["path"].as_str()).map(str::to_owned))
    }

    /// Whether its pods have networks of their own.
    ///
    /// # Errors
    /// A [`Skip`] that says what is missing.
    pub fn networks(&self) -> Result<(), Skip> {
        let missing = || {
            Skip::new("the CNI plugins are missing: `cargo xtask setup --tests` installs containernetworking-plugins")
        };
        has_networks().then_some(()).ok_or_else(missing)
    }

    /// Runs `crictl` against it, for instance with `["stop", ID]` or `["rmp", "-f", POD_ID]`. Yields what it printed.
    ///
    /// # Errors
    /// What it said.
    pub fn crictl(&self, args: &[&str]) -> Result<String, Skip> {
        let endpoint = format!("unix://{}", self.socket().display());
        // An empty config keeps it from looking for one elsewhere.
        let mut command = Command::new(&self.crictl);
        command.args(["--config", "/dev/null", "--timeout", "30s", "--runtime-endpoint", &endpoint]);
        command.args(["--image-endpoint", &endpoint]).args(args);
        Ok(run(&mut command)?.trim().to_owned())
    }

    /// The container's first process, as the host counts.
    ///
    /// # Errors
    /// What the runtime said.
    pub fn pid(&self, id: &str) -> Result<u32, Skip> {
        let said = self.crictl(&["inspect", "--output", "json", id])?;
        let parsed: Option<Value> = serde_json::from_str(&said).ok();
        let pid = parsed.as_ref().and_then(|inspected| inspected["info"]["pid"].as_u64());
        pid.and_then(|pid| u32::try_from(pid).ok())
            .ok_or_else(|| Skip::new(format!("crictl inspect {id} names no process id: {said}")))
    }

    /// The server's last log lines.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }
}

fn make_image(folder: &Path) -> Result<PathBuf, Skip> {
    let (root, image) = (folder.join("rootfs"), folder.join("image"));
    for made in [&root, &image] {
        fs::create_dir(made).map_err(|error| Skip::new(format!("{} cannot be made: {error}", made.display())))?;
    }
    root_file_system(&root)?;
    let archive = folder.join("image.tar");
    image_archive(&root, &image, &archive)?;
    Ok(archive)
}

fn config(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  stream_server_address = "127.0.0.1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{folder}/runc"
        SystemdCgroup = false
"#
    )
}

/// Where Debian has the CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// A route to each pod; addresses of RFC 2544's test network, so that no real one is shadowed.
fn network(folder: &Path) -> String {
    let ipam = json!({"type": "host-local", "subnet": "198.18.77.0/24", "dataDir": folder.join("ipam")});
    json!({
        "cniVersion": "0.4.0", "name": "pods",
        "plugins": [{"type": "ptp", "ipMasq": false, "ipam": ipam}],
    })
    .to_string()
}

/// Whether pods can have networks of their own.
fn has_networks() -> bool {
    ["ptp", "host-local", "loopback"].iter().all(|plugin| Path::new(PLUGINS).join(plugin).is_file())
}

/// As the kubelet fills it in.
fn sandbox_config(pod: &Pod<'_>, logs: &Path) -> Value {
    let Pod { namespace, name, uid, .. } = pod;
    json!({
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "attempt": 0},
        "labels": {
            "io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.uid": uid,
        },
        "log_directory": logs,
        "linux": {
            "cgroup_parent": format!("/kubepods/burstable/pod{uid}"),
            // 0: the pod's own, 2: the node's.
            "security_context": {"namespace_options": {"network": if has_networks() { 0 } else { 2 }}},
        },
    })
}

fn container_config(pod: &Pod<'_>, workload: &Workload<'_>) -> Value {
    let Pod { namespace, name, uid, container, restarts } = pod;
    let mut resources = json!({});
    if let Some(quota) = workload.quota_us() {
        resources["cpu_quota"] = json!(quota);
        resources["cpu_period"] = json!(PERIOD_US);
    }
    if let Some(limit) = workload.memory {
        resources["memory_limit_in_bytes"] = json!(limit);
    }
    let mounts = workload.binds.iter().map(|(host, inside)| json!({"host_path": host, "container_path": inside}));
    json!({
        "metadata": {"name": container, "attempt": restarts},
        "image": {"image": IMAGE},
        "command": workload.command(),
        "labels": {
            "io.kubernetes.container.name": container, "io.kubernetes.pod.name": name,
            "io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.uid": uid,
        },
        "annotations": {"io.kubernetes.container.restartCount": restarts.to_string()},
        "log_path": format!("{container}.log"),
        "mounts": mounts.collect::<Vec<_>>(),
        "linux": {"resources": resources},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runc::is_alive;
    use crate::{cgroups_of, skip};

    #[test]
    fn a_pod_runs_by_the_runtime_interface_and_leaves_nothing_behind() {
        let name = "a_pod_runs_by_the_runtime_interface_and_leaves_nothing_behind";
        let mut runtime = match Containerd::start() {
            Ok(runtime) => runtime,
            Err(reason) => return skip(name, reason),
        };
        let uid = "0b5d6a1c-2222-3333-4444-555555555555";
        let pod = Pod { namespace: "shop", name: "web-0", uid, container: "app", restarts: 2 };
        let workload = Workload { script: "exec sleep 1000", memory: Some(64 << 20), ..Workload::default() };
        let (pod_id, id) = runtime.run(&pod, &workload).expect("a pod");
        let pid = runtime.pid(&id).expect("its process");
        let folders = cgroups_of(pid).expect("its cgroups");
        let path = format!("kubepods/burstable/pod{uid}/{id}");
        assert!(folders.iter().any(|folder| folder.ends_with(&path)), "{folders:?}");
        let listed = runtime.crictl(&["ps", "--output", "json"]).expect("a list");
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let container = &listed["containers"][0];
        assert_eq!(container["labels"]["io.kubernetes.pod.name"], "web-0", "{listed}");
        assert_eq!(container["podSandboxId"], json!(pod_id), "{listed}");
        assert_eq!(container["metadata"]["attempt"], 2, "{listed}");

        runtime.stop_server();
        assert!(is_alive(pid), "containers outlive their server");
        let folder = runtime.folder.path().to_owned();
        drop(runtime);
        assert!(!folder.exists() && !is_alive(pid));
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(folder.to_str().expect("UTF-8")), "{mounts}");
        let left: Vec<_> = folders.iter().filter(|folder| folder.exists()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
