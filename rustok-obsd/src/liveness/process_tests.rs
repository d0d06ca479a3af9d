//! How a process ends: each act runs in a process of its own, this test program once more.

use std::{
    io::{self, Read as _, Write as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Heartbeats, Notify, Watchdog, install_panic_hook};
use crate::cli::exit;

const ACT: &str = "RUSTOK_OBSD_TEST_ACT";

/// What the other process does; in the suite's own run, nothing.
#[test]
fn acts_in_a_process_of_its_own() {
    let Ok(act) = std::env::var(ACT) else { return };
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    install_panic_hook();
    let beats = Heartbeats::default();
    // A look every 50 ms.
    let watchdog = Watchdog::start(&beats, Notify { watchdog: Some(Duration::from_millis(150)) }).unwrap();
    let beat = beats.register("victim", Duration::from_millis(200));
    let body = {
        let act = act.clone();
        move || match &*act {
            "panic" => {
                let text = format!("planted \"secret\" {}", beats.names().len());
                assert!(text.is_empty(), "{text}");
            }
            "return" => drop(beat),
            _ => loop {
                let _alive = &beat;
                thread::park();
            },
        }
    };
    thread::Builder::new().name("victim".into()).spawn(body).unwrap();
    if act == "stop" {
        watchdog.stopping(Duration::from_millis(300));
    }
    loop {
        thread::park();
    }
}

fn act(act: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "liveness::process_tests::acts_in_a_process_of_its_own", "--nocapture"]);
    command.env(ACT, act).env_remove("NOTIFY_SOCKET").stdout(Stdio::null());
    command
}

fn ends(what: &str) -> (Option<i32>, String) {
    let output = act(what).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_thread_that_hangs_or_panics_ends_the_process_with_a_code_of_its_own_and_its_name() {
    let broken = Some(i32::from(exit::BROKEN));
    let (code, log) = ends("hang");
    assert!(code == broken && log.contains("thread victim has been silent for 0 s"), "{code:?} {log}");
    let (code, log) = ends("panic");
    assert!(code == broken && log.contains("thread victim panicked at "), "{code:?} {log}");
    assert!(log.contains("process_tests.rs:") && log.contains("systemd starts it again"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    let (code, log) = ends("return");
    assert!(code == broken && log.contains("thread victim ended although nobody asked it to"), "{code:?} {log}");
}

#[test]
fn an_end_that_takes_too_long_is_cut_short_and_is_no_failure() {
    let (code, log) = ends("stop");
    assert!(code == Some(i32::from(exit::OK)), "{code:?} {log}");
    assert!(log.contains("the end took more than 300ms (threads still there: victim)"), "{log}");
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_the_process_from_ending() {
    let (mut reader, mut writer) = io::pipe().unwrap();
    // As much as a pipe holds: the next byte waits for a reader.
    writer.write_all(&vec![b'.'; 65536]).unwrap();
    let mut child = act("hang").stderr(writer).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "it waits for its log");
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(i32::from(exit::BROKEN)));
    let mut log = Vec::new();
    reader.read_to_end(&mut log).unwrap();
    assert!(log.iter().all(|byte| *byte == b'.'), "{}", String::from_utf8_lossy(&log[65536..]));
}
