//! One user's processes beside another's: who fills what is bounded costs nobody else a place.

use super::*;

/// Processes of one user, each of its own name, with pids from `first` on.
fn wave(procfs: &Path, first: u32, count: u32, user: u32) {
    for number in 0..count {
        let comm: &'static str = format!("w{}", first + number).leak();
        put(procfs, Made { pid: first + number, comm, user, ..SHOP });
    }
}

#[test]
fn a_user_who_names_processes_without_end_leaves_room_for_others_and_gives_it_back() {
    let procfs = procfs();
    let mut config = config(procfs.path());
    config.process.groups_limit = 40;
    let source = ProcessGroups::new(&config).unwrap();
    wave(procfs.path(), 1000, 60, 1001);
    let text = to_text(&source, Format::Text);
    assert_has(&text, &[r#"namedprocess_namegroup_num_procs{groupname="~other"} 40"#]);
    assert_eq!(text.matches("namedprocess_namegroup_num_procs{").count(), 21, "half of the groups, and ~other");
    // Another user, and root, are told by name and counted right.
    put(procfs.path(), Made { pid: 5000, comm: "good", user: 1002, ..SHOP });
    put(procfs.path(), Made { pid: 5001, comm: "roots", user: 0, ..SHOP });
    assert_has(
        &to_text(&source, Format::Text),
        &[
            r#"namedprocess_namegroup_num_procs{groupname="good"} 1"#,
            r#"namedprocess_namegroup_cpu_seconds_total{groupname="good",mode="user"} 1"#,
            r#"namedprocess_namegroup_num_procs{groupname="roots"} 1"#,
            "rustok_obsd_process_groups_overflow_total 40",
        ],
    );
    // The wave ends, and so do its groups, once everybody has seen their last counts and room is wanted.
    (1000..1060).for_each(|pid: u32| fs::remove_dir_all(procfs.path().join(pid.to_string())).unwrap());
    let text = to_text(&source, Format::Text);
    assert_has(&text, &[r#"namedprocess_namegroup_num_procs{groupname="w1000"} 0"#]);
    source.with_table(|table| table.groups.backdate(group::EMPTY));
    wave(procfs.path(), 2000, 25, 1001);
    let _ = to_text(&source, Format::Text);
    let text = to_text(&source, Format::Text);
    let of_wave = |wave: &str| text.matches(&format!("num_procs{{groupname=\"{wave}")).count();
    assert_eq!((of_wave("w1"), of_wave("w2")), (9, 10), "{text}");
    assert_has(&text, &["rustok_obsd_process_groups_reclaimed_total 11"]);
    // Who found no room is placed when there is some, with what it uses from then on.
    assert_has(&text, &[r#"namedprocess_namegroup_num_procs{groupname="good"} 1"#]);
    assert_has(&text, &[r#"namedprocess_namegroup_num_procs{groupname="~other"} 15"#]);
}

#[test]
fn programs_that_nobody_sees_alive_leave_room_for_those_that_are_seen() {
    let procfs = procfs();
    let mut config = config(procfs.path());
    config.process.groups_limit = 40;
    let source = ProcessGroups::new(&config).unwrap();
    for number in 0..500u32 {
        source.event(&freed(10_000 + number, 5000, &format!("x{number}"), 10, 0));
    }
    put(procfs.path(), Made { user: 1002, ..SHOP });
    let text = to_text(&source, Format::Text);
    assert_has(
        &text,
        &[
            r#"namedprocess_namegroup_num_procs{groupname="shop"} 1"#,
            r#"namedprocess_namegroup_cpu_seconds_total{groupname="~other",mode="user"} 4.8"#,
            "rustok_obsd_process_groups_overflow_total 480",
        ],
    );
}

#[test]
fn names_of_threads_leave_room_for_those_of_other_groups() {
    let procfs = procfs();
    let mut config = config(procfs.path());
    (config.process.threads, config.process.groups_limit) = (true, 20);
    put(procfs.path(), Made { threads: 50, comm: "hog", ..SHOP });
    for tid in 200..250 {
        let comm: &'static str = format!("t{tid}").leak();
        put(&procfs.path().join("100/task"), Made { pid: tid, comm, ..SHOP });
    }
    put(procfs.path(), Made { pid: 101, threads: 2, ..SHOP });
    for (tid, comm) in [(101, "shop"), (102, "worker")] {
        put(&procfs.path().join("101/task"), Made { pid: tid, comm, ..SHOP });
    }
    let source = ProcessGroups::new(&config).unwrap();
    assert_has(
        &to_text(&source, Format::Text),
        &[
            r#"namedprocess_namegroup_thread_count{groupname="hog",threadname="~other"} 40"#,
            r#"namedprocess_namegroup_thread_count{groupname="shop",threadname="worker"} 1"#,
        ],
    );
    fs::remove_dir_all(procfs.path().join("100/task")).unwrap();
    put(&procfs.path().join("100/task"), Made { pid: 300, comm: "late", ..SHOP });
    let _ = to_text(&source, Format::Text);
    let text = to_text(&source, Format::Text);
    assert!(text.contains(r#"thread_count{groupname="hog",threadname="late"} 1"#) && !text.contains("\"t200\""));
}

#[test]
fn services_of_one_user_leave_room_for_those_of_another() {
    let procfs = procfs();
    let mut observed = Vec::new();
    for number in 0..250u32 {
        put(procfs.path(), Made { pid: 1000 + number, user: 1001, ..SHOP });
        observed.push((1000 + number, format!("hog-{number}")));
    }
    put(procfs.path(), Made { pid: 5000, user: 1002, ..SHOP });
    observed.push((5000, "good".to_owned()));
    let shared = Arc::new(std::sync::Mutex::new(observed));
    let observed = Arc::clone(&shared);
    let observed = Box::new(move || observed.lock().unwrap().clone());
    let source = TargetProcesses::new(&config(procfs.path()), observed).unwrap();
    let text = to_text(&source, Format::Text);
    assert_has(
        &text,
        &[
            r#"rustok_obsd_target_processes{service_name="good"} 1"#,
            r#"rustok_obsd_target_process_cpu_seconds_total{service_name="good",cpu_mode="user"} 1"#,
            r#"rustok_obsd_target_processes{service_name="~other"} 150"#,
        ],
    );
    // Its own empty ones give way to its new ones.
    *shared.lock().unwrap() = vec![(1000, "new".to_owned()), (5000, "good".to_owned())];
    let _ = to_text(&source, Format::Text);
    shared.lock().unwrap()[0].1 = "newer".to_owned();
    let text = to_text(&source, Format::Text);
    assert_has(&text, &[r#"rustok_obsd_target_processes{service_name="newer"} 1"#]);
}
