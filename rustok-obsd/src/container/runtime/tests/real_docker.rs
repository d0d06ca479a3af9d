//! A real Docker, and a real Podman behind the same API. Containers are made by the `docker` client.

use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use test_support::{Child, Docker, skip};

use super::{SOON, docker_at, eventually, known};
use crate::container::runtime::{Health, Lookup, Network, Outcome, RuntimeKind, State};

const IMAGE: &str = "localhost/rustok-obsd-test:1";
const SLEEP: [&str; 3] = ["/bin/busybox", "sleep", "600"];

/// An archive with nothing but busybox, for `docker import`.
fn image(folder: &Path) -> String {
    let root = folder.join("image");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    // Health checks run in a shell.
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    let archive = folder.join("image.tar").to_str().unwrap().to_owned();
    let tar = Command::new("tar").args(["-C", root.to_str().unwrap(), "-cf", &archive, "bin"]).status();
    assert!(tar.unwrap().success());
    archive
}

fn exercise(socket: &Path, kind: RuntimeKind, docker: &dyn Fn(&[&str]) -> String) {
    let folder = tempfile::tempdir().unwrap();
    docker(&["import", &image(folder.path()), IMAGE]);
    let run = |extra: &[&str]| docker(&[&["run", "-d"], extra, &[IMAGE], &SLEEP].concat());

    let first = run(&["--name", "early", "--network", "host", "--label", "shop=books"]);
    let runtimes = docker_at(socket.to_owned());
    let source = &runtimes.sources()[0];
    let before = known(&runtimes, &first);
    assert_eq!((before.runtime, before.name.as_str(), &before.network), (kind, "early", &Network::Host));
    assert_eq!((before.label("shop"), before.health), (Some("books"), None));
    eventually("up", SOON, || (source.report().state == State::Up).then_some(()));
    assert_eq!(source.report().kind, Some(kind));

    // Nobody asks: the event tells.
    let check = ["--health-cmd", "/bin/busybox true", "--health-interval", "1s"];
    // Podman checks by timers of systemd, which is not everywhere.
    let check: &[&str] = if kind == RuntimeKind::Docker { &check } else { &[] };
    let second = run(&[&["--name", "web", "--network", "none"], check].concat());
    let facts = known(&runtimes, &second);
    assert_eq!((&facts.id, facts.name.as_str(), facts.image.as_str()), (&second, "web", IMAGE));
    assert_eq!((&facts.network, facts.is_sandbox, facts.pod.as_str()), (&Network::Own, false, ""));
    assert!(SystemTime::now().duration_since(facts.started_at.unwrap()).unwrap() < Duration::from_secs(60));
    let command = std::fs::read(format!("/proc/{}/cmdline", facts.pid.unwrap())).unwrap();
    assert_eq!(command, b"/bin/busybox\0sleep\x00600\0");
    if kind == RuntimeKind::Docker {
        let healthy = || (known(&runtimes, &second).health == Some(Health::Healthy)).then_some(());
        eventually("healthy", SOON, healthy);
    }

    // Asked for: as when the cgroup was seen first.
    let third = run(&["--name", "side", "--network", &format!("container:{second}")]);
    runtimes.wanted(&third);
    assert_eq!(known(&runtimes, &third).network, Network::Of(second.clone()));

    docker(&["rename", "web", "shop"]);
    eventually("renamed", SOON, || (known(&runtimes, &second).name == "shop").then_some(()));
    docker(&["restart", "-t", "0", "early"]);
    eventually("restarted", SOON, || {
        let again = known(&runtimes, &first);
        (again.pid.is_some() && again.pid != before.pid && again.started_at > before.started_at).then_some(())
    });

    docker(&["rm", "-f", "side"]);
    assert_eq!(known(&runtimes, &third).name, "side", "a container that ended keeps its name for a while");
    runtimes.forget(&third);
    assert_eq!(runtimes.lookup(&third), Lookup::Unknown);
    runtimes.wanted(&third);
    eventually("not there any more", SOON, || (runtimes.lookup(&third) == Lookup::Unknown).then_some(()));
    assert_eq!((source.requests(Outcome::Error), source.requests(Outcome::Timeout)), (0, 0));
    docker(&["rm", "-f", "early", "shop"]);
}

#[test]
fn a_real_docker_tells_of_its_containers_as_they_come_and_go() {
    let docker = match Docker::start() {
        Ok(docker) => docker,
        Err(reason) => return skip("a_real_docker_tells_of_its_containers_as_they_come_and_go", reason),
    };
    exercise(&docker.socket(), RuntimeKind::Docker, &|args| docker.docker(args).unwrap());
}

#[test]
fn a_real_podman_tells_of_its_containers_as_they_come_and_go() {
    let name = "a_real_podman_tells_of_its_containers_as_they_come_and_go";
    // SAFETY: no memory is involved.
    if unsafe { libc::geteuid() } != 0 {
        return skip(name, "containers need root");
    }
    if ["podman", "docker", "runc"].iter().any(|program| Command::new(program).arg("--version").output().is_err())
        || !Path::new("/bin/busybox").exists()
    {
        return skip(name, "it takes podman, runc, busybox-static and the docker client; install them");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // Limits that can be set everywhere, and nothing of systemd.
    let config = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
        [engine]\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\n";
    std::fs::write(at("containers.conf"), config).unwrap();
    let mut command = Command::new("podman");
    command.env("CONTAINERS_CONF", at("containers.conf"));
    command.args(["--root", &at("root"), "--runroot", &at("run"), "--tmpdir", &at("tmp"), "--storage-driver", "vfs"]);
    command.args(["system", "service", "--time=0", &format!("unix://{}", at("s"))]);
    let mut server = Child::spawn("podman", &mut command).unwrap();
    eventually("podman listens", SOON, || {
        server.check().unwrap();
        Path::new(&at("s")).exists().then_some(())
    });
    let client = |args: &[&str]| {
        Command::new("docker")
            .args(["--config", &at("client"), "-H", &format!("unix://{}", at("s"))])
            .args(args)
            .output()
    };
    /// Ends the containers, also when the test fails.
    struct Ends<F: Fn()>(F);
    impl<F: Fn()> Drop for Ends<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let _ends = Ends(|| {
        for name in ["side", "early", "shop", "web"] {
            let _ = client(&["rm", "-f", name]);
        }
    });
    exercise(Path::new(&at("s")), RuntimeKind::Podman, &|args| {
        let output = client(args).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {args:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    });
}
