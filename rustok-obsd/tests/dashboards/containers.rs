//! 893 in its new names, 14282, kubernetes-mixin and process-exporter's boards, with real containers running.
//!
//! The originals cannot be had everywhere, so what counts is what the fixtures say they returned, and beyond that: with
//! containers running every expression of these sets must return data, but for those that are listed with their reason.

use super::kube_state::{Told, serve};
use super::scraped::{Daemon, prometheus};
use super::set::{Row, evaluate, folder, report, rows};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use test_support::{Containerd, Docker, Job, Pod, Prometheus, Skip, Workload, skip};

/// Expressions without data, whoever is scraped, and why.
const KNOWN: &[(&str, &str)] = &[("{container_group!=\"\"}", "a label of that user's own relabelling")];

const POD: Pod<'_> = Pod {
    namespace: "shop",
    name: "server-abcde",
    uid: "11111111-2222-3333-4444-555555555555",
    container: "server",
    restarts: 0,
};

/// Work that shows everywhere: CPU beyond its quota, files, some memory.
const BUSY: Workload<'_> = Workload {
    script: "while :; do dd if=/dev/zero of=/tmp/x bs=64k count=64 conv=fsync 2>/dev/null; cat /tmp/x >/dev/null; done",
    cpus: Some(0.1),
    memory: Some(64 << 20),
    binds: &[],
};

#[test]
fn the_boards_of_containers_have_data_with_real_containers() {
    if let Err(reason) = containers() {
        skip("the_boards_of_containers_have_data_with_real_containers", reason);
    }
}

fn containers() -> Result<(), Skip> {
    let folder = folder()?;
    let containerd = Containerd::start()?;
    let docker = Docker::start()?;
    containerd.networks()?;
    containerd.run(&POD, &BUSY)?;
    docker.run("web", &[("tier", "front")], &BUSY)?;
    let _link = Link::into(docker.pid("web")?)?;
    let sockets = [
        format!("--container.cri-sockets={}", containerd.socket().display()),
        format!("--container.docker-sockets={}", docker.socket().display()),
        "--container.labels=tier".to_owned(),
    ];
    let daemon = Daemon::start(&sockets.each_ref().map(String::as_str))?;
    let kube = serve(&[Told { namespace: POD.namespace, pod: POD.name, container: POD.container, workload: "server" }]);
    let jobs = jobs(daemon.address, kube);
    let ours = prometheus(&folder, &jobs, &["kubernetes-mixin-rules.yaml", "node-mixin-rules.yaml"])?;
    let mut missing = Vec::new();
    for set in ["grafana-893-new-names", "grafana-14282", "kubernetes-mixin", "process-exporter"] {
        missing.extend(settle(set, &ours, &rows(&folder, set)));
    }
    assert!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

/// A pair of interfaces with one end in a container that Docker gave no network.
struct Link(String);

impl Link {
    fn into(pid: u32) -> Result<Self, Skip> {
        let name = format!("obsd{pid}");
        let made = Command::new("ip")
            .args(["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &pid.to_string()])
            .status();
        let made = made.is_ok_and(|status| status.success());
        made.then_some(Self(name))
            .ok_or_else(|| Skip::new("`ip link add … type veth` fails: install iproute2, run as root"))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It may have gone with the container.
        let _ = Command::new("ip").args(["link", "delete", &self.0]).stderr(Stdio::null()).status();
    }
}

/// Each part of the daemon under the job names that the boards want.
fn jobs(daemon: SocketAddr, kube: SocketAddr) -> Vec<Job> {
    let part = |job: &str, path: &str| Job::new(job, daemon).path(path);
    vec![
        part("node", "/metrics/node"),
        // As the operator's service discovery labels a target: here the pod of the daemon is the one there is.
        part("node-exporter", "/metrics/node").label("namespace", POD.namespace).label("pod", POD.name),
        part("cadvisor", "/metrics/cadvisor"),
        part("process-exporter", "/metrics/process"),
        Job::new("kube-state-metrics", kube),
    ]
}

/// Evaluates until nothing that is expected is missing, or time is up.
fn settle(set: &str, prometheus: &Prometheus, rows: &[Row]) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(40);
    let expected = vec![true; rows.len()];
    let known = |row: &Row| KNOWN.iter().any(|(part, _)| row.expression.contains(part));
    loop {
        let found = evaluate(prometheus, rows);
        let behind = rows.iter().zip(&found).any(|(row, found)| !found && !known(row));
        if !behind || Instant::now() > deadline {
            let reference = rows.iter().filter(|row| row.reference).count();
            println!("{set}: {reference} had data on the reference machine, which ran no containers");
            return report(set, rows, &expected, &found, KNOWN);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}
