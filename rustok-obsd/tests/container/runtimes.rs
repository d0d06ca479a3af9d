//! The daemon beside real runtimes: who is who, what is told of it, and what is left when it is gone.
//!
//! Reads: Docker, containerd with pods as a kubelet makes them, runc; the daemon's `/metrics/cadvisor`. Yields: verdicts.
//! Costs: half a minute, and two seconds of a core.

mod daemon;

use daemon::Daemon;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use test_support::{Containerd, Docker, LabelMap, Pod, Runc, Scraped, Skip, Workload, skip, wait_until};

/// The image of all containers.
const IMAGE: &str = "localhost/busybox:1";

const UID: &str = "11111111-2222-3333-4444-777777777777";
const SERVER: Pod<'_> = Pod { namespace: "shop", name: "server-abcde", uid: UID, container: "server", restarts: 0 };

/// Has some memory, and uses little.
const QUIET: Workload<'_> =
    Workload { script: "while :; do sleep 1; done", cpus: Some(0.5), memory: Some(64 << 20), binds: &[] };

macro_rules! tests {
    ($($name:ident = $body:ident;)+) => {$(
        #[test]
        fn $name() {
            if let Err(reason) = $body() {
                skip(stringify!($name), reason);
            }
        }
    )+};
}

tests! {
    containers_of_docker_are_told_by_name_until_they_are_gone = docker;
    pods_are_told_as_the_kubelet_has_them = pods;
    a_container_that_ran_out_of_memory_and_was_removed_is_still_told = killed;
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// Families in which a container has samples.
fn families(scraped: &Scraped, id: &str) -> Vec<String> {
    let of_it = |labels: &LabelMap| labels.get("id").is_some_and(|of| of == id);
    let told = scraped.families.iter().filter(|(_, family)| family.samples.keys().any(|(_, labels)| of_it(labels)));
    told.map(|(name, _)| name.clone()).collect()
}

/// The labels of a container, and of nothing within it.
fn labels(scraped: &Scraped, id: &str) -> LabelMap {
    let mut samples = scraped.families["container_last_seen"].samples.keys().map(|(_, labels)| labels);
    samples.find(|labels| labels["id"] == id).unwrap_or_else(|| panic!("{id} is not told")).clone()
}

fn map(labels: &[(&str, &str)]) -> LabelMap {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn docker() -> Result<(), Skip> {
    let docker = Docker::start()?;
    let socket = docker.socket();
    let daemon = Daemon::start(&[], &[&socket])?;
    daemon.wait_for_runtime(&socket, "up");
    daemon.scrape("cadvisor");
    let began = now();
    let id = docker.run("web", &[("tier", "front"), ("secret", "x")], &QUIET)?;
    let nobody = Runc::start(&QUIET)?;

    let cgroup = format!("/docker/{id}");
    let scraped = daemon.wait_for("container_last_seen", &[("name", "web")]);
    let wanted = map(&[("container_label_tier", "front"), ("id", &cgroup), ("image", IMAGE), ("name", "web")]);
    assert_eq!(labels(&scraped, &cgroup), wanted, "and not the label that nobody asked for");
    let value = |name: &str| scraped.sum(name, &[("id", &cgroup)]);
    let start = value("container_start_time_seconds").expect("its start");
    assert!((began - 1.0..=now()).contains(&start), "{start} is not after {began}");
    assert_eq!(value("container_spec_cpu_quota"), Some(50_000.0));
    assert_eq!(value("container_spec_cpu_period"), Some(100_000.0));
    assert_eq!(value("container_spec_memory_limit_bytes"), Some(f64::from(64 << 20)));
    assert!(value("container_memory_working_set_bytes") > Some(0.0));
    assert!(value("container_cpu_usage_seconds_total") > Some(0.0));
    assert_eq!(value("container_network_receive_bytes_total"), None, "it has no network");
    // Nobody knows the other one: it has an id, and no image, hence no dashboard takes it for a pod's.
    let scraped = daemon.wait_for("container_last_seen", &[("name", nobody.id())]);
    assert_eq!(labels(&scraped, &nobody.cgroup()), map(&[("id", &nobody.cgroup()), ("name", nobody.id())]));

    // One that starts later finds what runs.
    drop(daemon);
    let daemon = Daemon::start(&[], &[&socket])?;
    let scraped = daemon.wait_for("container_last_seen", &[("name", "web")]);
    assert_eq!(labels(&scraped, &cgroup), wanted);
    daemon.wait_for("container_last_seen", &[("name", nobody.id())]);

    docker.docker(&["rm", "--force", "web"])?;
    let gone = nobody.cgroup();
    drop(nobody);
    let scraped = daemon.scrape("cadvisor");
    assert_eq!((families(&scraped, &cgroup), families(&scraped, &gone)), (vec![], vec![]));
    Ok(())
}

fn pods() -> Result<(), Skip> {
    let mut containerd = Containerd::start()?;
    let socket = containerd.socket();
    let daemon = Daemon::start(&[&socket], &[])?;
    daemon.wait_for_runtime(&socket, "up");
    daemon.scrape("cadvisor");
    let (sandbox, container) = containerd.run(&SERVER, &QUIET)?;
    let pod_group = format!("/kubepods/burstable/pod{UID}");
    let (sandbox_group, group) = (format!("{pod_group}/{sandbox}"), format!("{pod_group}/{container}"));
    let as_the_kubelet_has_them = |daemon: &Daemon| {
        daemon.wait_for("container_last_seen", &[("name", &sandbox), ("pod", SERVER.name)]);
        let scraped = daemon.wait_for("container_last_seen", &[("container", "server"), ("pod", SERVER.name)]);
        let pod = [("namespace", SERVER.namespace), ("pod", SERVER.name)];
        let all = |own: &[(&str, &str)]| map(&[own, &pod].concat());
        let own = [("container", "server"), ("id", group.as_str()), ("image", IMAGE), ("name", &container)];
        assert_eq!(labels(&scraped, &group), all(&own));
        let own = [("id", sandbox_group.as_str()), ("image", IMAGE), ("name", &sandbox)];
        assert_eq!(labels(&scraped, &sandbox_group), all(&own), "a sandbox is no container");
        assert_eq!(labels(&scraped, &pod_group), all(&[("id", &pod_group)]), "a pod has no image");
        scraped
    };
    let scraped = as_the_kubelet_has_them(&daemon);
    if let Err(reason) = containerd.networks() {
        skip("pods_are_told_as_the_kubelet_has_them: networks", reason);
    } else {
        // Once, however many containers share it: boards sum over all rows of the pod.
        let samples = &scraped.families["container_network_receive_bytes_total"].samples;
        let of_pod = samples.keys().filter(|(_, labels)| labels.get("pod").is_some_and(|pod| pod == SERVER.name));
        let rows: Vec<_> = of_pod.map(|(_, labels)| (labels["id"].as_str(), labels["interface"].as_str())).collect();
        assert_eq!(rows, [(sandbox_group.as_str(), "eth0")]);
    }

    let uid = "22222222-2222-3333-4444-777777777777";
    let (other, _) = containerd.run(&Pod { uid, name: "other-abcde", ..SERVER }, &QUIET)?;
    daemon.wait_for("container_last_seen", &[("container", "server"), ("pod", "other-abcde")]);
    containerd.crictl(&["rmp", "--force", &other])?;
    let scraped = daemon.scrape("cadvisor");
    assert_eq!(families(&scraped, &format!("/kubepods/burstable/pod{uid}/{other}")), [""; 0]);
    let left = scraped.sum("container_last_seen", &[("container", "server"), ("pod", "other-abcde")]);
    assert_eq!(left, None, "its container is gone as well");

    drop(daemon);
    let daemon = Daemon::start(&[&socket], &[])?;
    as_the_kubelet_has_them(&daemon);
    // An upgrade of the runtime, which is noticed when the next container is asked for, or within a minute.
    containerd.stop_server();
    let nobody = Runc::start(&QUIET)?;
    daemon.wait_for("container_last_seen", &[("name", nobody.id())]);
    daemon.wait_for_runtime(&socket, "failed");
    as_the_kubelet_has_them(&daemon);
    Ok(())
}

/// Starts a container that is removed as soon as it ends, and waits for that.
fn run_out_of_memory(docker: &Docker, name: &str, folder: &Path, meanwhile: impl FnOnce()) -> Result<String, Skip> {
    let bind = format!("--volume={}:/signal", folder.display());
    let script = "while [ ! -e /signal/now ]; do sleep 0.1; done; exec tail /dev/zero";
    let limits = ["--network=none", "--memory=16m", "--memory-swap=16m"];
    let mut args = vec!["run", "--rm", "--detach", "--label=tier=back", "--name", name, &bind];
    args.extend(limits.into_iter().chain([IMAGE, "/bin/busybox", "sh", "-c", script]));
    let id = docker.docker(&args)?;
    meanwhile();
    std::fs::write(folder.join("now"), "").expect("the signal");
    let gone = wait_until(Duration::from_secs(30), || {
        docker.docker(&["ps", "--all", "--quiet"]).is_ok_and(|left| left.is_empty()).then_some(())
    });
    assert!(gone.is_some(), "it goes on, or stays: {:?}", docker.docker(&["ps", "--all"]));
    Ok(id)
}

fn killed() -> Result<(), Skip> {
    let docker = Docker::start()?;
    let socket = docker.socket();
    let daemon = Daemon::start(&[], &[&socket])?;
    daemon.wait_for_runtime(&socket, "up");
    let oom = |scraped: &Scraped| scraped.sum("rustok_obsd_host_events_total", &[("kind", "oom")]);
    if oom(&daemon.scrape("app")).is_none() {
        return Err(Skip::new("the daemon does not hear the kernel: run as root, on a kernel with BTF"));
    }
    let unknown = |scraped: &Scraped| scraped.sum("rustok_obsd_container_oom_events_unknown_total", &[]);
    let before = daemon.scrape("cadvisor");
    // The second one has lived entirely between two scrapes.
    for (name, seen) in [("seen", true), ("unseen", false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let look = || {
            if seen {
                daemon.wait_for("container_last_seen", &[("name", name)]);
            } else {
                // A moment in which its runtime can be asked.
                std::thread::sleep(Duration::from_secs(1));
            }
        };
        let id = run_out_of_memory(&docker, name, folder.path(), look)?;
        let cgroup = format!("/docker/{id}");
        let labels = [("name", name), ("id", &cgroup), ("image", IMAGE), ("container_label_tier", "back")];
        let scraped = daemon.wait_for("container_oom_events_total", &labels);
        assert_eq!(scraped.sum("container_oom_events_total", &labels), Some(1.0), "{name}");
        assert_eq!(families(&scraped, &cgroup), ["container_oom_events_total"], "{name}");
    }
    let after = daemon.scrape("cadvisor");
    assert_eq!(after.sum("container_oom_events_total", &[("name", "seen")]), Some(1.0), "for five minutes");
    assert_eq!(unknown(&after), unknown(&before));
    Ok(())
}
