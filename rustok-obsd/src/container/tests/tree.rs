//! Cgroups that come and go.

use super::super::names::PathNames;
use super::*;

fn memory(host: &Host, id: &str) {
    host.file(&format!("sys/fs/cgroup/memory/{id}/memory.stat"), "total_rss 1\n");
}

#[test]
fn cgroups_come_and_go_by_event() {
    let host = Host::v1();
    memory(&host, "a/b");
    let containers = host.containers(Arc::new(PathNames));
    assert_eq!(ids(&containers), ["/", "/a", "/a/b"]);
    memory(&host, "a/c/d");
    memory(&host, "system.slice/tmp.mount");
    memory(&host, "system.slice/run-1.scope");
    host.folder("sys/fs/cgroup/cpu/a/c");
    assert_eq!(ids(&containers), ["/", "/a", "/a/b", "/a/c", "/a/c/d", "/system.slice"]);
    // One of two trees: it stays.
    remove(&host.path("sys/fs/cgroup/cpu/a"));
    remove(&host.path("sys/fs/cgroup/memory/a/b"));
    assert_eq!(ids(&containers), ["/", "/a", "/a/c", "/a/c/d", "/system.slice"]);
    // Gone and made anew within one scrape.
    remove(&host.path("sys/fs/cgroup/memory/a"));
    memory(&host, "a/b");
    assert_eq!(ids(&containers), ["/", "/a", "/a/b", "/system.slice"]);
    let scraped = scrape(&containers);
    assert_eq!(scraped.sum("rustok_obsd_container_rescans_total", &[]), Some(1.0), "at the start");
    assert_eq!(scraped.sum("rustok_obsd_containers", &[]), Some(4.0));
    assert_eq!(scraped.sum("rustok_obsd_container_watches", &[("state", "missing")]), Some(0.0));
}

#[test]
fn limits_follow_what_is_written() {
    let host = Host::v1();
    memory(&host, "a");
    host.file("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "100\n");
    let containers = host.containers(Arc::new(PathNames));
    let limit = || scrape(&containers).sum("container_spec_memory_limit_bytes", &[("id", "/a")]);
    assert_eq!(limit(), Some(100.0));
    host.file("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "200\n");
    assert_eq!(limit(), Some(200.0));
    assert_eq!(scrape(&containers).sum("container_spec_memory_limit_bytes", &[("id", "/")]), Some(1_024_000.0));
}

#[test]
fn what_is_told_can_be_chosen() {
    let told = |change: &dyn Fn(&mut ContainerOptions)| {
        let mut host = Host::v1();
        ["system.slice/a.service", "user.slice"].iter().for_each(|id| memory(&host, id));
        memory(&host, &format!("system.slice/docker-{ID}.scope"));
        memory(&host, &format!("system.slice/docker-{ID}.scope/inner"));
        change(&mut host.options);
        ids(&host.containers(Arc::new(PathNames)))
    };
    let container = format!("/system.slice/docker-{ID}.scope");
    let inner = format!("{container}/inner");
    assert_eq!(told(&|_| ()), ["/", "/system.slice", "/system.slice/a.service", &container, &inner, "/user.slice"]);
    assert_eq!(told(&|options| options.slices = false), ["/", &container]);
    assert_eq!(told(&|options| options.only_containers = true), ["/", &container]);
    let pattern = |text: &str| crate::config::collector::Pattern::parse(text).unwrap();
    assert_eq!(told(&|options| options.id_include = pattern("service$")), ["/", "/system.slice/a.service"]);
    assert_eq!(told(&|options| options.id_exclude = pattern("^/system|^/$")), ["/", "/user.slice"]);
}

#[test]
fn beyond_the_limit_is_counted_and_told_when_there_is_room() {
    let mut host = Host::v1();
    host.options.limit = 3;
    ["a", "b", "c", "d"].iter().for_each(|id| memory(&host, id));
    let containers = host.containers(Arc::new(PathNames));
    let scraped = scrape(&containers);
    let skipped = |scraped: &Scraped| scraped.sum("rustok_obsd_containers_skipped_total", &[("reason", "limit")]);
    assert_eq!((scraped.sum("rustok_obsd_containers", &[]), skipped(&scraped)), (Some(3.0), Some(2.0)));
    let told = ids(&containers);
    for id in &told[1..] {
        remove(&host.path(&format!("sys/fs/cgroup/memory{id}")));
    }
    let then = ids(&containers);
    assert_eq!(then.len(), 3);
    assert!(then[1..].iter().all(|id| !told.contains(id)), "{then:?} after {told:?}");
}

#[test]
fn a_container_whose_name_is_on_its_way_is_held_back() {
    let host = Host::v1();
    memory(&host, &format!("docker/{ID}"));
    let names = Arc::new(Told::default());
    names.set(ID, Lookup::NotYet);
    let containers = host.containers(Arc::clone(&names) as _);
    assert_eq!(ids(&containers), ["/", "/docker"]);
    names.known(ID, Facts { name: "web".into(), ..Facts::default() });
    assert!(text(&containers).contains(&format!("container_memory_rss{{id=\"/docker/{ID}\",name=\"web\"}} 1")));
    // The runtime restarts: the name stays.
    names.set(ID, Lookup::Unknown);
    assert!(text(&containers).contains("name=\"web\""));
    let nobody = host.containers(Arc::new(PathNames));
    assert!(text(&nobody).contains(&format!("name=\"{ID}\"")), "without a runtime the id is the name");
}

#[test]
fn kills_outlive_their_cgroup_and_count_once() {
    use std::os::unix::fs::MetadataExt as _;
    let host = Host::v1();
    memory(&host, "a");
    let containers = host.containers(Arc::new(PathNames));
    let kills = |id: &str| scrape(&containers).sum("container_oom_events_total", &[("id", id)]);
    assert_eq!(kills("/a"), Some(0.0));
    let made = |id: &str| {
        memory(&host, id);
        host.path(&format!("sys/fs/cgroup/memory/{id}")).metadata().unwrap().ino()
    };
    let inode = made("b");
    assert_eq!(kills("/b"), Some(0.0));
    // Killed, and gone before anybody looks again.
    containers.oom(inode);
    remove(&host.path("sys/fs/cgroup/memory/b"));
    assert_eq!(kills("/b"), Some(1.0));
    assert!(!ids(&containers).contains(&"/b".to_owned()));
    // It starts again; the event and the file tell the same kill.
    let inode = made("b");
    assert_eq!(kills("/b"), Some(1.0));
    containers.oom(inode);
    host.file("sys/fs/cgroup/memory/b/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
    assert_eq!(kills("/b"), Some(2.0));
    assert_eq!(kills("/b"), Some(2.0));
    containers.oom(1);
    assert_eq!(scrape(&containers).sum("rustok_obsd_container_oom_events_unknown_total", &[]), Some(1.0));
}

#[test]
fn without_watches_every_scrape_looks() {
    let host = Host::v1();
    memory(&host, "a");
    host.file("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "100\n");
    let containers = host.containers(Arc::new(PathNames));
    containers.state.lock().unwrap().tree.blind();
    assert_eq!(ids(&containers), ["/", "/a"]);
    memory(&host, "b/c");
    host.file("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "200\n");
    assert_eq!(ids(&containers), ["/", "/a", "/b", "/b/c"]);
    let scraped = scrape(&containers);
    assert_eq!(scraped.sum("container_spec_memory_limit_bytes", &[("id", "/a")]), Some(200.0));
    // The roots of cpu and memory, and three in memory.
    assert_eq!(scraped.sum("rustok_obsd_container_watches", &[("state", "missing")]), Some(5.0));
    assert_eq!(scraped.sum("rustok_obsd_container_rescans_total", &[("reason", "unwatched")]), Some(2.0));
    remove(&host.path("sys/fs/cgroup/memory/b"));
    assert_eq!(ids(&containers), ["/", "/a"]);
}

#[test]
fn lost_events_are_made_good() {
    use std::os::unix::fs::FileExt as _;
    let host = Host::v1();
    ["a", "b"].iter().for_each(|id| memory(&host, id));
    let containers = host.containers(Arc::new(PathNames));
    assert_eq!(ids(&containers), ["/", "/a", "/b"]);
    let text = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = text.trim().parse().unwrap();
    let open = |id: &str| {
        let path = host.path(&format!("sys/fs/cgroup/memory/{id}/memory.stat"));
        fs::OpenOptions::new().write(true).open(path).unwrap()
    };
    // Events that are alike and follow each other are one: hence two files.
    let files = [open("a"), open("b")];
    for number in 0..most + 10 {
        files[number % 2].write_at(b"t", 0).unwrap();
    }
    memory(&host, "c");
    remove(&host.path("sys/fs/cgroup/memory/a"));
    assert_eq!(ids(&containers), ["/", "/b", "/c"]);
    let scraped = scrape(&containers);
    assert_eq!(scraped.sum("rustok_obsd_container_rescans_total", &[("reason", "overflow")]), Some(1.0));
    memory(&host, "c/d");
    assert_eq!(ids(&containers), ["/", "/b", "/c", "/c/d"], "events are heard again");
}

#[test]
fn steady_scrapes_open_no_more_files_and_give_the_same_text() {
    let host = Host::v1();
    memory(&host, "a");
    let containers = host.containers(Arc::new(PathNames));
    let stable = |text: String| {
        let lines = text.lines().filter(|line| !line.starts_with("container_last_seen")).map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    let first = stable(text(&containers));
    for _ in 0..20 {
        assert_eq!(stable(text(&containers)), first);
    }
}

#[test]
fn a_user_who_makes_cgroups_without_end_leaves_room_for_containers() {
    let mut host = Host::v1();
    host.options.limit = 20;
    let of_user = |number: u32| format!("user.slice/user-1000.slice/x{number}.scope");
    (0..300).for_each(|number| memory(&host, &of_user(number)));
    let containers = host.containers(Arc::new(PathNames));
    let skipped = |scraped: &Scraped| scraped.sum("rustok_obsd_containers_skipped_total", &[("reason", "limit")]);
    let scraped = scrape(&containers);
    let told = scraped.sum("rustok_obsd_containers", &[]).unwrap();
    assert!((8.0..=12.0).contains(&told), "the root, /user.slice, and half of the rest: {told}");
    assert!(skipped(&scraped).unwrap() > 200.0);
    {
        let tree = &containers.state.lock().unwrap().tree;
        assert!(tree.watches() < 100 && tree.beyond > 100, "{} {}", tree.watches(), tree.beyond);
    }
    // A container that comes now has a place, and its values are right.
    let container = format!("/docker/{ID}");
    memory(&host, &container[1..]);
    let scraped = scrape(&containers);
    assert_eq!(scraped.sum("container_memory_rss", &[("id", &container)]), Some(1.0));
    // Places come back when the user's cgroups are gone, also to those that were not even remembered.
    (0..280).for_each(|number| remove(&host.path(&format!("sys/fs/cgroup/memory/{}", of_user(number)))));
    let _ = ids(&containers);
    let _ = ids(&containers);
    assert_eq!(containers.state.lock().unwrap().tree.beyond, 0);
    (280..300).for_each(|number| remove(&host.path(&format!("sys/fs/cgroup/memory/{}", of_user(number)))));
    let told = ids(&containers);
    assert_eq!(told, ["/", "/docker", &container, "/user.slice", "/user.slice/user-1000.slice"]);
}

#[test]
fn the_daemon_takes_a_quarter_of_the_watches_and_looks_for_the_rest() {
    let host = Host::v1();
    host.file("proc/sys/fs/inotify/max_user_watches", "24\n");
    (0..10).for_each(|number| memory(&host, &format!("a{number}")));
    let containers = host.containers(Arc::new(PathNames));
    let all = ids(&containers);
    assert_eq!(all.len(), 11);
    let scraped = scrape(&containers);
    let watches = |state| scraped.sum("rustok_obsd_container_watches", &[("state", state)]);
    // The roots of the trees and ten cgroups.
    assert_eq!((watches("present"), watches("missing")), (Some(6.0), Some(6.0)));
    memory(&host, "a9/new");
    memory(&host, "a0/new");
    assert_eq!(ids(&containers).len(), 13, "what is not watched is looked for");
    remove(&host.path("sys/fs/cgroup/memory/a9"));
    remove(&host.path("sys/fs/cgroup/memory/a0"));
    assert_eq!(ids(&containers).len(), 9);
}
