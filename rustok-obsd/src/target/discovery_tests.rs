//! Discovery against a proc tree made by hand, and against this machine's.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::target::selector::Rule;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn process(&self, pid: u32, exe: &str, environ: &str) -> &Self {
        let path = self.0.path().join(pid.to_string());
        fs::create_dir_all(path.join("fd")).unwrap();
        fs::create_dir_all(path.join("net")).unwrap();
        fs::create_dir_all(path.join("ns")).unwrap();
        if !exe.is_empty() {
            symlink(exe, path.join("exe")).unwrap();
        }
        symlink("net:[1]", path.join("ns/net")).unwrap();
        let start = 1000 + pid;
        fs::write(path.join("stat"), format!("{pid} (a b) S {} {start} 0", "0 ".repeat(18).trim())).unwrap();
        fs::write(path.join("status"), format!("Name:\ta\nTgid:\t{pid}\nNStgid:\t{pid}\t7\n")).unwrap();
        fs::write(path.join("cmdline"), "a\0--flag\0").unwrap();
        fs::write(path.join("cgroup"), "0::/system.slice/a.service\n").unwrap();
        fs::write(path.join("environ"), environ).unwrap();
        fs::write(
            path.join("net/tcp"),
            "  sl  local_address\n   0: 00000000:1F90 00000000:0000 0A 0:0 00:0 0 0 0 500 1\n",
        )
        .unwrap();
        self
    }

    fn scan(&self, rule: Rule) -> Scan {
        Scanner::new(self.0.path(), Selector::new(&[rule]).unwrap()).scan().unwrap()
    }
}

fn exe(exe: &str) -> Rule {
    Rule { exe: Some(exe.into()), ..Rule::default() }
}

#[test]
fn a_target_is_described_whole() {
    let tree = Tree::new();
    tree.process(42, "/opt/a/server (deleted)", "OTEL_SERVICE_VERSION=1.2\0SECRET=x\0");
    let scan = tree.scan(exe("server"));
    let process = &scan.targets[0];
    assert_eq!(process.key, ProcessKey { pid: 42, start_time: 1042 });
    assert_eq!((process.exe.to_str(), process.exe_deleted), (Some("/opt/a/server"), true));
    assert_eq!(process.exe_file, tree.0.path().join("42/exe"));
    assert_eq!(process.root, tree.0.path().join("42/root"));
    assert_eq!(process.namespace_pids, [42, 7]);
    assert_eq!((process.cmdline.as_str(), process.comm.as_str()), ("a --flag", "a b"));
    assert_eq!(process.cgroup, "/system.slice/a.service");
    assert_eq!((process.service_name().as_str(), process.service_version()), ("server", Some("1.2")));
    let overridden = tree.scan(Rule { service_name: Some("shop".into()), ..exe("server") });
    assert_eq!(overridden.targets[0].service_name(), "shop");
}

#[test]
fn kernel_threads_ourselves_and_half_read_processes_are_skipped() {
    let tree = Tree::new();
    tree.process(1, "", "").process(std::process::id(), "/bin/a", "").process(3, "/bin/a", "").process(4, "/bin/a", "");
    // Vanished while it was read.
    fs::remove_file(tree.0.path().join("4/environ")).unwrap();
    fs::create_dir(tree.0.path().join("sys")).unwrap();
    let scan = tree.scan(exe("a"));
    assert_eq!(scan.targets.iter().map(|process| process.key.pid).collect::<Vec<_>>(), [3]);
    assert_eq!((scan.seen, scan.denied), (4, 0));
}

#[test]
fn a_thread_is_no_process() {
    let tree = Tree::new();
    tree.process(5, "/bin/a", "");
    fs::write(tree.0.path().join("5/status"), "Tgid:\t4\n").unwrap();
    assert!(tree.scan(exe("a")).targets.is_empty());
}

#[test]
fn a_port_is_matched_by_the_sockets_that_the_process_holds() {
    let tree = Tree::new();
    tree.process(6, "/bin/a", "").process(7, "/bin/a", "");
    symlink("socket:[500]", tree.0.path().join("6/fd/3")).unwrap();
    symlink("/dev/null", tree.0.path().join("7/fd/3")).unwrap();
    let rule = Rule { port: std::num::NonZeroU16::new(8080), ..Rule::default() };
    let scan = tree.scan(rule.clone());
    assert_eq!(scan.targets.iter().map(|process| process.key.pid).collect::<Vec<_>>(), [6]);
    assert!(tree.scan(Rule { port: std::num::NonZeroU16::new(8081), ..rule }).targets.is_empty());
}

#[test]
fn a_missing_proc_is_an_error_that_names_it() {
    let error = Scanner::new("/nonexistent/proc", Selector::default()).scan().unwrap_err();
    assert!(error.to_string().contains("/nonexistent/proc") && error.to_string().contains("path.procfs"), "{error}");
}

#[test]
fn a_real_child_is_found_with_its_port_and_its_end_is_seen() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut child = std::process::Command::new("sleep").arg("600").env("OTEL_SERVICE_NAME", "sleeper").spawn().unwrap();
    let rule = Rule { cmdline: Some("sleep 600".into()), ..exe("{sleep,coreutils}") };
    let scanner = Scanner::new("/proc", Selector::new(&[rule]).unwrap());
    // The exec of the child may be still under way.
    let process = std::iter::repeat_with(|| scanner.inspect(child.id())).take(10_000).flatten().next().unwrap();
    assert_eq!(process.service_name(), "sleeper");
    assert!(scanner.scan().unwrap().targets.iter().any(|found| found.key == process.key));
    assert!(scanner.is_alive(process.key));
    assert!(scanner.listening_ports(std::process::id()).unwrap().contains(&port));
    assert!(!scanner.listening_ports(child.id()).unwrap().contains(&port));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!scanner.is_alive(process.key));
    assert!(scanner.inspect(child.id()).is_none());
}
