//! Values of every family, out of made-up files.

use super::super::names::{Facts, Health, PathNames};
use super::*;

/// The samples of a text without those that depend on the time or are of the daemon, sorted.
fn samples(text: &str) -> Vec<&str> {
    let timed = ["container_last_seen", "container_start", "container_creation", "rustok_obsd", "#", "cadvisor"];
    let mut lines: Vec<&str> = text.lines().filter(|line| !timed.iter().any(|name| line.starts_with(name))).collect();
    lines.sort_unstable();
    lines
}

fn compare(text: &str, golden: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/container/tests").join(golden);
    let ours = samples(text).join("\n") + "\n";
    if std::env::var_os("RUSTOK_OBSD_BLESS").is_some() {
        fs::write(&path, &ours).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    for (ours, golden) in ours.lines().zip(golden.lines()) {
        assert_eq!(ours, golden, "{}", path.display());
    }
    assert_eq!(ours.lines().count(), golden.lines().count(), "{}", path.display());
}

const V1_MEMORY: &str = "cache 1\nrss 2\ninactive_file 3\npgfault 40\npgmajfault 5\ntotal_cache 101\ntotal_rss 102\n\
    total_mapped_file 103\ntotal_dirty 104\ntotal_writeback 105\ntotal_workingset_refault_anon 106\n\
    total_workingset_refault_file 107\ntotal_swap 108\ntotal_pgfault 400\ntotal_pgmajfault 50\ntotal_inactive_file 300\n\
    total_active_file 110\n";

#[test]
fn every_value_of_v1() {
    let mut host = Host::v1();
    host.options.labels = vec!["com.example/team".into(), "absent".into()];
    let id = format!("docker/{ID}");
    for (controller, files) in [
        (
            "cpu",
            vec![
                (
                    "cpu.stat",
                    "nr_periods 100\nnr_throttled 7\nthrottled_time 1500000000\nnr_bursts 2\nburst_time 3000\n",
                ),
                ("cpu.shares", "512\n"),
                ("cpu.cfs_quota_us", "50000\n"),
                ("cpu.cfs_period_us", "100000\n"),
            ],
        ),
        (
            "cpuacct",
            vec![("cpuacct.usage_percpu", "1500000001 0 2000000000 \n"), ("cpuacct.stat", "user 150\nsystem 25\n")],
        ),
        (
            "memory",
            vec![
                ("memory.stat", V1_MEMORY),
                ("memory.usage_in_bytes", "1000\n"),
                ("memory.max_usage_in_bytes", "2000\n"),
                ("memory.failcnt", "9\n"),
                ("memory.kmem.usage_in_bytes", "70\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
                ("memory.limit_in_bytes", "4096000\n"),
                ("memory.soft_limit_in_bytes", "9223372036854771712\n"),
                ("memory.memsw.limit_in_bytes", "8192000\n"),
            ],
        ),
        (
            "blkio",
            vec![
                (
                    "blkio.throttle.io_service_bytes_recursive",
                    "259:0 Read 4096\n259:0 Write 8192\n259:0 Sync 0\n259:0 Async 12288\n259:0 Discard 0\n259:0 Total 12288\nTotal 12288\n",
                ),
                ("blkio.throttle.io_serviced_recursive", "259:0 Read 1\n259:0 Write 2\n259:0 Total 3\nTotal 3\n"),
            ],
        ),
        (
            "unified",
            vec![
                (
                    "cpu.pressure",
                    "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2\n",
                ),
                (
                    "io.pressure",
                    "some avg10=0.00 avg60=0.00 avg300=0.00 total=3\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n",
                ),
            ],
        ),
    ] {
        for (file, text) in files {
            host.file(&format!("sys/fs/cgroup/{controller}/{id}/{file}"), text);
        }
    }
    let names = Arc::new(Told::default());
    let labels = vec![("com.example/team".into(), "a \"team\"".into()), ("unwanted".into(), "x".into())];
    let facts = Facts {
        name: "web".into(),
        image: "nginx:1".into(),
        labels,
        health: Some(Health::Healthy),
        started_at: Some(UNIX_EPOCH + Duration::from_secs(1_500_000_000)),
        ..Facts::default()
    };
    names.known(ID, facts);
    let containers = host.containers(names);
    let text = text(&containers);
    compare(&text, "v1.golden");
    let started = text.lines().find(|line| line.starts_with("container_start_time_seconds") && line.contains("web"));
    assert!(started.unwrap().ends_with(" 1500000000"), "{started:?}");
}

use std::time::{Duration, UNIX_EPOCH};

const V2_MEMORY: &str = "anon 102\nfile 101\nkernel 70\nfile_mapped 103\nfile_dirty 104\nfile_writeback 105\ninactive_file 300\n\
    active_file 110\npgfault 400\npgmajfault 50\npgscan 111\npgsteal 112\nworkingset_refault_anon 106\n\
    workingset_refault_file 107\n";

#[test]
fn every_value_of_v2() {
    let host = Host::v2();
    let cpu = "usage_usec 3500000\nuser_usec 1500000\nsystem_usec 250000\nnr_periods 100\nnr_throttled 7\n\
               throttled_usec 1500000\nnr_bursts 2\nburst_usec 3\n";
    // The root has less.
    host.files(&[
        ("cpu.stat", cpu),
        ("memory.stat", V2_MEMORY),
        ("io.stat", "259:0 rbytes=1 wbytes=2 rios=3 wios=4\n"),
    ]);
    let id = format!("system.slice/docker-{ID}.scope");
    for (file, text) in [
        ("cpu.stat", cpu),
        ("cpu.max", "50000 100000\n"),
        ("cpu.weight", "100\n"),
        ("memory.stat", V2_MEMORY),
        ("memory.current", "1000\n"),
        ("memory.peak", "2000\n"),
        ("memory.swap.current", "108\n"),
        ("memory.events", "low 0\nhigh 5\nmax 6\noom 4\noom_kill 9\noom_group_kill 0\n"),
        ("memory.events.local", "low 0\nhigh 5\nmax 6\noom 4\noom_kill 3\noom_group_kill 0\n"),
        ("memory.max", "4096000\n"),
        ("memory.min", "max\n"),
        ("memory.swap.max", "8192000\n"),
        ("io.stat", "259:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0 cost.usage=5\n1:1 \n"),
        (
            "memory.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2\n",
        ),
    ] {
        host.file(&format!("sys/fs/cgroup/{id}/{file}"), text);
    }
    // Without a quota there is no throttling to tell.
    host.files(&[
        ("user.slice/cpu.stat", cpu),
        ("user.slice/cpu.max", "max 100000\n"),
        ("user.slice/memory.current", "5\n"),
    ]);
    compare(&text(&host.containers(Arc::new(PathNames))), "v2.golden");
}

#[test]
fn constants_of_cadvisor_are_told_where_they_are_wanted() {
    let mut host = Host::v1();
    host.file("sys/fs/cgroup/memory/memory.stat", V1_MEMORY);
    host.file("sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n");
    let zeros = [
        "container_tasks_state",
        "container_cpu_load_average_10s",
        "container_memory_pgscan_total",
        "machine_nvm_capacity",
    ];
    let told = |host: &Host| {
        let scraped = scrape(&host.containers(Arc::new(PathNames)));
        zeros.map(|family| scraped.families.contains_key(family))
    };
    assert_eq!(told(&host), [false; 4]);
    host.options.constants = true;
    assert_eq!(told(&host), [true; 4]);
}

#[test]
fn pods_have_the_labels_of_the_kubelet() {
    let host = Host::v2();
    let uid = "11111111-2222-3333-4444-000000001413";
    let pod = format!("sys/fs/cgroup/kubepods.slice/kubepods-pod{}.slice", uid.replace('-', "_"));
    let sandbox = ID.replace("8f", "00");
    for path in
        [pod.clone(), format!("{pod}/cri-containerd-{ID}.scope"), format!("{pod}/cri-containerd-{sandbox}.scope")]
    {
        host.file(&format!("{path}/memory.stat"), V2_MEMORY);
    }
    let facts = |container: &str, image: &str, is_sandbox| Facts {
        name: ID.into(),
        image: image.into(),
        pod: "web-0".into(),
        namespace: "shop".into(),
        container: container.into(),
        is_sandbox,
        ..Facts::default()
    };
    let names = Arc::new(Told::default());
    names.known(ID, facts("app", "nginx", false));
    names.known(&sandbox, facts("", "pause", true));
    names.known(uid, facts("", "pause", true));
    let text = text(&host.containers(names));
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("container_memory_rss{")).collect();
    let row = |labels: &str| assert!(rows.iter().any(|row| row.contains(labels)), "{labels} in {rows:#?}");
    row(&format!(
        "rss{{container=\"app\",id=\"/kubepods.slice/kubepods-pod{0}.slice/cri-containerd-{ID}.scope\",image=\"nginx\",name=\"{ID}\",namespace=\"shop\",pod=\"web-0\"}} 102",
        uid.replace('-', "_")
    ));
    row(&format!(
        "rss{{id=\"/kubepods.slice/kubepods-pod{}.slice\",namespace=\"shop\",pod=\"web-0\"}}",
        uid.replace('-', "_")
    ));
    assert_eq!(rows.len(), 3);
}

#[test]
fn layers_are_counted_where_that_is_wanted() {
    let mut host = Host::v1();
    host.options.disk_usage = true;
    host.file(&format!("sys/fs/cgroup/memory/docker/{ID}/memory.stat"), V1_MEMORY);
    host.file("var/lib/docker/overlay2/x/diff/file", &"x".repeat(50_000));
    let names = Arc::new(Told::default());
    let upper_dir = Some("/var/lib/docker/overlay2/x/diff".to_owned());
    names.known(ID, Facts { name: "web".into(), upper_dir, ..Facts::default() });
    let containers = host.containers(names);
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let bytes = loop {
        if let Some(bytes) = scrape(&containers).sum("container_fs_usage_bytes", &[("name", "web")]) {
            break bytes;
        }
        assert!(std::time::Instant::now() < until, "never counted");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!((50_000.0..200_000.0).contains(&bytes), "{bytes}");
    assert_eq!(scrape(&containers).sum("container_fs_inodes_total", &[("name", "web")]), Some(2.0));
}
