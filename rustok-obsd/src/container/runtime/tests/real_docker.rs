//! A real Docker or Podman: `RUSTOK_OBSD_TEST_DOCKER_SOCK` names its socket. The `docker` client makes the containers.

use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use test_support::skip;

use super::{SOON, docker_at, eventually, known};
use crate::container::runtime::{Health, Lookup, Network, Outcome, RuntimeKind, State};

const IMAGE: &str = "localhost/rustok-obsd-test:1";

fn docker(socket: &str, args: &[&str]) -> String {
    let output = Command::new("docker").args(["-H", &format!("unix://{socket}")]).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An image of nothing but busybox.
fn import(socket: &str) {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("bin")).unwrap();
    std::fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
    // Health checks run in a shell.
    std::os::unix::fs::symlink("busybox", root.path().join("bin/sh")).unwrap();
    let archive = root.path().join("image.tar");
    let archive = archive.to_str().unwrap();
    let tar = Command::new("tar").args(["-C", root.path().to_str().unwrap(), "-cf", archive, "bin"]).status();
    assert!(tar.unwrap().success());
    docker(socket, &["import", archive, IMAGE]);
}

/// Ends the containers with the test.
struct Ends<'a>(&'a str, Vec<String>);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        for name in &self.1 {
            let _ = Command::new("docker").args(["-H", &format!("unix://{}", self.0), "rm", "-f", name]).output();
        }
    }
}

#[test]
fn a_real_daemon_tells_of_its_containers_as_they_come_and_go() {
    let name = "a_real_daemon_tells_of_its_containers_as_they_come_and_go";
    let Ok(socket) = std::env::var("RUSTOK_OBSD_TEST_DOCKER_SOCK") else {
        return skip(name, "RUSTOK_OBSD_TEST_DOCKER_SOCK names no socket; start dockerd and set it");
    };
    if !Path::new("/bin/busybox").exists() || Command::new("docker").arg("--version").output().is_err() {
        return skip(name, "no /bin/busybox or no docker client; install busybox-static and docker.io");
    }
    import(&socket);
    let (web, side, early) = (
        format!("web-{}", std::process::id()),
        format!("side-{}", std::process::id()),
        format!("early-{}", std::process::id()),
    );
    let _ends = Ends(&socket, vec![side.clone(), web.clone(), format!("{web}-2"), early.clone()]);
    let sleep = ["/bin/busybox", "sleep", "600"];
    let run = |extra: &[&str]| docker(&socket, &[&["run", "-d"], extra, &[IMAGE], &sleep].concat());

    let first = run(&["--name", &early, "--network", "host", "--label", "shop=books"]);
    let runtimes = docker_at(socket.clone().into());
    let source = &runtimes.sources()[0];
    let there_before = known(&runtimes, &first);
    assert_eq!((&there_before.name, &there_before.network), (&early, &Network::Host));
    assert_eq!(there_before.label("shop"), Some("books"));
    assert_eq!(there_before.health, None);
    eventually("up", SOON, || (source.report().state == State::Up).then_some(()));
    let podman = source.report().kind == Some(RuntimeKind::Podman);

    // Nobody asks: the event tells.
    let check = ["--health-cmd", "/bin/busybox true", "--health-interval", "1s"];
    let check: &[&str] = if podman { &[] } else { &check };
    let second = run(&[&["--name", &web, "--network", "none"], check].concat());
    let facts = known(&runtimes, &second);
    assert_eq!((&facts.id, &facts.name, facts.image.as_str()), (&second, &web, IMAGE));
    assert_eq!(facts.network, Network::Own);
    let age = SystemTime::now().duration_since(facts.started_at.unwrap()).unwrap();
    assert!(age < Duration::from_secs(60), "{age:?}");
    let command = std::fs::read(format!("/proc/{}/cmdline", facts.pid.unwrap())).unwrap();
    assert_eq!(command, b"/bin/busybox\0sleep\x00600\0");
    if !podman {
        let version = runtimes.version();
        let healthy = || (known(&runtimes, &second).health == Some(Health::Healthy)).then_some(());
        eventually("healthy", SOON, healthy);
        assert!(facts.health == Some(Health::Healthy) || runtimes.version() != version);
    }

    // Asked for: as when the cgroup was seen first.
    let third = run(&["--name", &side, "--network", &format!("container:{second}")]);
    runtimes.wanted(&third);
    assert_eq!(known(&runtimes, &third).network, Network::Of(second.clone()));

    docker(&socket, &["rename", &web, &format!("{web}-2")]);
    eventually("renamed", SOON, || (known(&runtimes, &second).name == format!("{web}-2")).then_some(()));
    docker(&socket, &["restart", "-t", "0", &early]);
    eventually("restarted", SOON, || {
        let again = known(&runtimes, &first);
        (again.pid.is_some() && again.pid != there_before.pid && again.started_at > there_before.started_at)
            .then_some(())
    });

    docker(&socket, &["rm", "-f", &side]);
    assert_eq!(known(&runtimes, &third).name, side, "a container that ended keeps its name for a while");
    runtimes.forget(&third);
    assert_eq!(runtimes.lookup(&third), Lookup::Unknown);
    runtimes.wanted(&third);
    eventually("not there any more", SOON, || (runtimes.lookup(&third) == Lookup::Unknown).then_some(()));
    assert_eq!((source.requests(Outcome::Error), source.requests(Outcome::Timeout)), (0, 0));
}
