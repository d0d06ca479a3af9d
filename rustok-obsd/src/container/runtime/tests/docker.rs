//! Docker's API: corner cases of its answers, and servers with a fault.

use std::{
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    SOON, docker_at, eventually,
    fake::{self, Fake, chunk, requests, respond, stream_head},
    id, known,
};
use crate::container::runtime::{Health, Lookup, Network, Outcome, RuntimeKind, State};

const VERSION: &str = r#"{"Version":"20.10.24","Components":[{"Name":"Engine","Version":"20.10.24"}]}"#;

/// What dockerd 20.10 says of a container, shortened, with these values.
fn inspected(id: &str, name: &str, health: &str) -> String {
    format!(
        r#"{{"Id":"{id}","Created":"2026-11-26T00:15:47.746447585Z","Path":"/bin/sleep","Name":"/{name}",
        "State":{{"Status":"running","Running":true,"Pid":16698,"StartedAt":"2026-11-26T00:15:48.129239719Z",
        "FinishedAt":"0001-01-01T00:00:00Z","Health":{{"Status":"{health}","FailingStreak":0,"Log":[]}}}},
        "HostConfig":{{"NetworkMode":"container:{peer}","CgroupParent":"/jobs","Memory":0}},
        "GraphDriver":{{"Data":{{"LowerDir":"/l","UpperDir":"/var/lib/docker/overlay2/x/diff"}},"Name":"overlay2"}},
        "Config":{{"Image":"shop/web:1","Labels":{{"b":"2","a":"1"}},"Env":["SECRET=1"]}}}}"#,
        peer = super::id('9'),
    )
}

/// The least a daemon may say: containerd's image store, no labels, no health check.
fn sparse(id: &str) -> String {
    format!(
        r#"{{"Id":"{id}","Name":"/sparse","State":{{}},"Config":{{"Image":"x","Labels":null}},"GraphDriver":null}}"#
    )
}

/// A daemon with these containers that sends the events of `events`.
fn daemon(containers: Vec<(String, String)>, events: impl Fn(&mut UnixStream) + Send + Sync + 'static) -> Fake {
    let containers = Arc::new(containers);
    Fake::start(move |stream| {
        requests(stream, |path, stream| {
            if path == "/version" {
                respond(stream, "200 OK", VERSION)
            } else if path.starts_with("/events") {
                stream_head(stream);
                events(stream);
                true
            } else if path.starts_with("/containers/json") {
                let list: Vec<_> = containers.iter().map(|(id, _)| format!(r#"{{"Id":"{id}"}}"#)).collect();
                respond(stream, "200 OK", &format!("[{}]", list.join(",")))
            } else if let Some((_, body)) = containers.iter().find(|(id, _)| path.contains(id.as_str())) {
                respond(stream, "200 OK", body)
            } else {
                respond(stream, "404 Not Found", r#"{"message":"No such container"}"#)
            }
        });
    })
}

#[test]
fn everything_that_is_said_is_taken() {
    let containers = vec![(id('a'), inspected(&id('a'), "web", "unhealthy")), (id('b'), sparse(&id('b')))];
    let fake = daemon(containers, |_| {});
    let runtimes = docker_at(fake.socket());
    let web = known(&runtimes, &id('a'));
    assert_eq!((web.runtime, web.name.as_str(), web.image.as_str()), (RuntimeKind::Docker, "web", "shop/web:1"));
    assert_eq!(web.labels, [("a".into(), "1".into()), ("b".into(), "2".into())]);
    assert_eq!((web.pid, web.health), (Some(16698), Some(Health::Unhealthy)));
    assert_eq!(web.network, Network::Of(id('9')));
    assert_eq!(web.cgroup.as_deref(), Some("/jobs"));
    assert_eq!(web.upper_dir.as_deref(), Some("/var/lib/docker/overlay2/x/diff"));
    assert!(web.started_at > web.created_at && web.created_at.is_some());
    let sparse = known(&runtimes, &id('b'));
    assert_eq!((sparse.name.as_str(), sparse.pid, sparse.health, sparse.started_at), ("sparse", None, None, None));
    assert_eq!((&sparse.network, sparse.cgroup.as_deref()), (&Network::Unknown, None));
    eventually("the daemon is up", SOON, || (runtimes.sources()[0].report().state == State::Up).then_some(()));
    assert_eq!(runtimes.sources()[0].report().version, "docker 20.10.24");
}

#[test]
fn who_is_asked_for_and_not_there_becomes_unknown_and_is_not_asked_for_ever() {
    let fake = daemon(Vec::new(), |_| {});
    let runtimes = docker_at(fake.socket());
    let source = &runtimes.sources()[0];
    eventually("the daemon is up", SOON, || (source.report().state == State::Up).then_some(()));
    assert_eq!(runtimes.lookup(&id('a')), Lookup::Unknown, "nobody asked for it");
    runtimes.wanted(&id('a'));
    assert_eq!(runtimes.lookup(&id('a')), Lookup::NotYet);
    eventually("it is unknown", SOON, || (runtimes.lookup(&id('a')) == Lookup::Unknown).then_some(()));
    let asked = source.requests(Outcome::Ok);
    // Version, the list, and each try.
    assert_eq!(asked, 2 + u64::from(crate::container::runtime::store::TRIES));
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(source.requests(Outcome::Ok), asked);
    assert_eq!(source.requests(Outcome::Error), 0);
}

#[test]
fn an_event_in_pieces_is_whole_and_strangers_are_skipped() {
    let event = format!(r#"{{"Type":"container","Action":"start","Actor":{{"ID":"{}","Attributes":{{}}}}}}"#, id('a'));
    let sent = Arc::new(AtomicBool::new(false));
    let send = Arc::clone(&sent);
    let containers = Mutex::new(false);
    let fake = Fake::start(move |stream| {
        requests(stream, |path, stream| {
            if path == "/version" {
                respond(stream, "200 OK", VERSION)
            } else if path.starts_with("/events") {
                stream_head(stream);
                while !send.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
                let stranger = r#"{"Type":"container","Action":"start","Actor":{"ID":"../../images"}}"#;
                let text = format!("\n{stranger}\n{{\"Type\":\"daemon\"}}\r\n{event}\n");
                for piece in text.as_bytes().chunks(7) {
                    chunk(stream, piece);
                }
                true
            } else if path.starts_with("/containers/json") {
                *containers.lock().unwrap() = true;
                respond(stream, "200 OK", "[]")
            } else {
                assert_eq!(path, format!("/containers/{}/json", id('a')));
                respond(stream, "200 OK", &inspected(&id('a'), "late", "healthy"))
            }
        });
    });
    let runtimes = docker_at(fake.socket());
    eventually("up", SOON, || (runtimes.sources()[0].report().state == State::Up).then_some(()));
    sent.store(true, Ordering::Relaxed);
    assert_eq!(known(&runtimes, &id('a')).name, "late");
}

#[test]
fn without_events_lists_and_wishes_remain() {
    let fake = Fake::start(|stream| {
        requests(stream, |path, stream| match path {
            "/version" => respond(stream, "200 OK", VERSION),
            _ if path.starts_with("/events") => respond(stream, "403 Forbidden", ""),
            _ if path.starts_with("/containers/json") => respond(stream, "200 OK", "[]"),
            _ => respond(stream, "200 OK", &inspected(&id('a'), "web", "none")),
        });
    });
    let runtimes = docker_at(fake.socket());
    let source = &runtimes.sources()[0];
    eventually("refused", SOON, || (source.requests(Outcome::Error) == 1).then_some(()));
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(source.report().state, State::Up);
    runtimes.wanted(&id('a'));
    assert_eq!(known(&runtimes, &id('a')).name, "web");
    assert_eq!(source.requests(Outcome::Error), 1, "it is not asked again and again");
}

/// Starts against a server and waits for the state and a piece of the reason.
fn fails(serve: impl Fn(UnixStream) + Send + Sync + 'static, reason: &str) -> Fake {
    let fake = Fake::start(serve);
    let runtimes = docker_at(fake.socket());
    let report = eventually(reason, SOON, || {
        let report = runtimes.sources()[0].report();
        (report.state == State::Failed).then_some(report)
    });
    assert!(report.reason.contains(reason), "{}", report.reason);
    assert_eq!(runtimes.lookup(&id('a')), Lookup::NoRuntime);
    // It ends, whatever the server does.
    drop(runtimes);
    fake
}

#[test]
fn a_server_that_hangs_is_given_up() {
    fails(|stream| requests(stream, |_, _| true), "no answer to GET /version within 5 s");
}

#[test]
fn garbage_is_told() {
    fails(
        |mut stream| {
            use std::io::Write as _;
            let _ = stream.write_all(b"\x00\x16\x03\x01 what?\r\n\r\n");
            requests(stream, |_, _| true);
        },
        "GET /version",
    );
    fails(|stream| requests(stream, |_, stream| respond(stream, "200 OK", "[1,2")), "cannot be read");
    fails(
        |stream| requests(stream, |_, stream| respond(stream, "500 Oh", "disk full")),
        "500 Internal Server Error: disk full",
    );
}

#[test]
fn a_server_that_closes_midway_is_told() {
    fails(
        |stream| {
            requests(stream, |_, stream| {
                use std::io::Write as _;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"Ver");
                false
            });
        },
        "closed during GET /version",
    );
}

#[test]
fn a_hundred_megabytes_are_not_taken() {
    let sent = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let fake = Fake::start(move |stream| {
        requests(stream, |path, stream| {
            if path == "/version" {
                return respond(stream, "200 OK", VERSION);
            }
            stream_head(stream);
            if path.starts_with("/events") {
                return true;
            }
            let piece = vec![b' '; 1 << 20];
            (0..100).all(|_| {
                counted.fetch_add(1, Ordering::Relaxed);
                chunk(stream, &piece)
            })
        });
    });
    let runtimes = docker_at(fake.socket());
    let source = &runtimes.sources()[0];
    eventually("too large", SOON, || (source.requests(Outcome::TooLarge) > 0).then_some(()));
    eventually("told", SOON, || source.report().reason.contains("larger than 16777216 bytes").then_some(()));
    drop(runtimes);
    assert!(sent.load(Ordering::Relaxed) < 40, "it went on reading");
}

#[test]
fn an_event_without_end_is_bounded() {
    let fake = daemon(Vec::new(), |stream| {
        let piece = [b'x'; 64 * 1024];
        while chunk(stream, &piece) {}
    });
    let runtimes = docker_at(fake.socket());
    let source = &runtimes.sources()[0];
    eventually("too large", SOON, || (source.requests(Outcome::TooLarge) > 0).then_some(()));
}

#[test]
fn a_container_that_the_daemon_cannot_tell_of_does_not_hide_the_others() {
    let fake = Fake::start(|stream| {
        requests(stream, |path, stream| match path {
            "/version" => respond(stream, "200 OK", VERSION),
            _ if path.starts_with("/events") => stream_head(stream),
            _ if path.starts_with("/containers/json") => {
                respond(stream, "200 OK", &format!(r#"[{{"Id":"{}"}},{{"Id":"{}"}}]"#, id('a'), id('b')))
            }
            _ if path.contains(&id('a')) => respond(stream, "500 Internal Server Error", r#"{"message":"layer"}"#),
            _ => respond(stream, "200 OK", &inspected(&id('b'), "fine", "none")),
        });
    });
    let runtimes = docker_at(fake.socket());
    let fine = known(&runtimes, &id('b'));
    assert_eq!((fine.name.as_str(), fine.health), ("fine", None));
    let source = &runtimes.sources()[0];
    eventually("up", SOON, || (source.report().state == State::Up).then_some(()));
    assert_eq!(source.requests(Outcome::Error), 1);
}

#[test]
fn a_container_whose_lock_is_held_does_not_hide_the_others_but_a_hanging_daemon_is_told() {
    let hangs = Arc::new(AtomicBool::new(false));
    let all = Arc::clone(&hangs);
    let ids: Vec<String> = "abcdef".chars().map(id).collect();
    let fake = Fake::start(move |stream| {
        requests(stream, |path, stream| match path {
            "/version" => respond(stream, "200 OK", VERSION),
            _ if path.starts_with("/events") => stream_head(stream),
            _ if path.starts_with("/containers/json") => {
                let list: Vec<_> = ids.iter().map(|id| format!(r#"{{"Id":"{id}"}}"#)).collect();
                respond(stream, "200 OK", &format!("[{}]", list.join(",")))
            }
            _ if path.contains(&id('a')) || all.load(Ordering::Relaxed) => true,
            _ => {
                let id = path.split('/').nth(2).unwrap();
                respond(stream, "200 OK", &inspected(id, "fine", "none"))
            }
        });
    });
    let runtimes = docker_at(fake.socket());
    let source = &runtimes.sources()[0];
    "bcdef".chars().for_each(|digit| drop(known(&runtimes, &id(digit))));
    eventually("up", SOON, || (source.report().state == State::Up).then_some(()));
    assert_eq!((source.requests(Outcome::Timeout), runtimes.len()), (1, 5));
    hangs.store(true, Ordering::Relaxed);
    "012".chars().for_each(|digit| runtimes.wanted(&id(digit)));
    eventually("told", SOON, || (source.report().state == State::Failed).then_some(()));
    assert_eq!(source.requests(Outcome::Timeout), 4);
}

#[test]
fn a_runtime_that_comes_late_and_restarts_is_found_and_its_names_stay() {
    let dir = tempfile::tempdir().unwrap();
    let runtimes = docker_at(fake::socket(dir.path()));
    let source = &runtimes.sources()[0];
    eventually("absent", SOON, || (source.report().state == State::Absent).then_some(()));
    assert_eq!(runtimes.lookup(&id('a')), Lookup::NoRuntime);

    let serve = |name: &'static str| {
        move |stream| {
            requests(stream, |path, stream| match path {
                "/version" => respond(stream, "200 OK", VERSION),
                _ if path.starts_with("/events") => stream_head(stream),
                _ if path.starts_with("/containers/json") => {
                    respond(stream, "200 OK", &format!(r#"[{{"Id":"{}"}}]"#, id('a')))
                }
                _ => respond(stream, "200 OK", &inspected(&id('a'), name, "healthy")),
            });
        }
    };
    let open: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
    let first = Fake::start_in(dir, {
        let (serve, open) = (serve("first"), Arc::clone(&open));
        move |stream: UnixStream| {
            open.lock().unwrap().push(stream.try_clone().unwrap());
            serve(stream);
        }
    });
    assert_eq!(known(&runtimes, &id('a')).name, "first");
    let dir = first.stop();
    // The events' connection closes, as when the daemon ends.
    for stream in open.lock().unwrap().drain(..) {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    eventually("gone", SOON, || (source.report().state == State::Absent).then_some(()));
    assert_eq!(known(&runtimes, &id('a')).name, "first", "its containers run on");
    let _second = Fake::start_in(dir, serve("second"));
    // A new container's cgroup is a reason to try again at once.
    runtimes.wanted(&id('b'));
    eventually("renamed meanwhile", SOON, || (known(&runtimes, &id('a')).name == "second").then_some(()));
    assert_eq!(source.report().state, State::Up);
}

#[test]
fn a_socket_of_others_is_denied() {
    // SAFETY: no memory is involved.
    if unsafe { libc::geteuid() } == 0 {
        // Root may open everything; another user asks in its place.
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(fake::socket(dir.path())).unwrap();
        let socket = fake::socket(dir.path());
        let report = thread::spawn(move || {
            // SAFETY: the raw call changes this thread's user alone, and the thread ends with the test; the thread that
            // `Runtimes` starts inherits it.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) }, 0);
            let runtimes = docker_at(socket);
            eventually("denied", SOON, || {
                let report = runtimes.sources()[0].report();
                (report.state == State::Denied).then_some(report)
            })
        });
        let report = report.join().unwrap();
        assert!(report.reason.contains("permission denied; run the daemon as root"), "{}", report.reason);
    } else {
        let dir = tempfile::tempdir().unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(fake::socket(dir.path())).unwrap();
        std::fs::set_permissions(fake::socket(dir.path()), std::fs::Permissions::from_mode(0o0)).unwrap();
        let runtimes = docker_at(fake::socket(dir.path()));
        eventually("denied", SOON, || (runtimes.sources()[0].report().state == State::Denied).then_some(()));
    }
}
