//! Clients that misbehave, names that are not ours, and the end.

use crate::running::{Answer, Gate, Running, Samples, ended, one_answer, patient, sample, wait};
use rustok_obsd::exposition::server::Limits;
use rustok_obsd::exposition::{Exposition, Part};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn a_client_that_sends_its_request_too_slowly_is_cut_off_and_delays_nobody() {
    let limits = Limits { head_timeout: Duration::from_millis(500), ..Limits::default() };
    let server = Running::start(Arc::new(Samples(1)), limits);
    let mut slow = server.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    let start = Instant::now();
    let closed = std::thread::scope(|scope| {
        let closed = scope.spawn(|| {
            while start.elapsed() < Duration::from_secs(10) {
                // A byte now and then must not extend the time.
                if slow.write_all(b"X").is_err() {
                    return true;
                }
                slow.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                match slow.read(&mut [0; 512]) {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return true,
                }
            }
            false
        });
        assert_eq!(server.get("/metrics", "").status, 200);
        closed.join().unwrap()
    });
    assert!(closed, "the connection was still open after {:?}", start.elapsed());
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = Running::start(Arc::new(Samples(1)), Limits::default());
    let answer = server.get("/metrics", &format!("X-Large: {}\r\n", "x".repeat(64 * 1024)));
    assert_eq!(answer.status, 431);
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let server = Running::with_large_node(Limits { stall_timeout: Duration::from_millis(300), ..patient() });
    let mut lazy = server.connect();
    lazy.write_all(b"GET /metrics/node HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    wait(|| (ended(&server.get("/metrics/app", ""), "stalled") == 1).then_some(()));
    let mut bytes = Vec::new();
    let ended = lazy.read_to_end(&mut bytes);
    let answer = Answer::parse(&bytes);
    let length: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert!(ended.is_err() || answer.body.len() < length, "{} of {length} bytes arrived", answer.body.len());
}

#[test]
fn shutdown_lets_answers_finish_and_closes_idle_connections_at_once() {
    let gate = Arc::new(Gate::default());
    let mut server = Running::start(gate.clone(), Limits::default());
    let mut idle = server.connect();
    let mut asking = server.connect();
    asking.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    while gate.waiting.load(Ordering::SeqCst) < 1 {
        std::thread::yield_now();
    }
    // The idle one is closed while the answer is still awaited; only then the answer can go on.
    let opened = Arc::new(AtomicBool::new(false));
    let before = Arc::clone(&opened);
    let opener = std::thread::spawn(move || {
        let closed = idle.read(&mut [0; 16]);
        before.store(true, Ordering::SeqCst);
        gate.open();
        closed
    });
    server.stop();
    assert!(opened.load(Ordering::SeqCst), "the server ended before its answer");
    assert_eq!(Answer::read(&mut asking).status, 200);
    assert_eq!(opener.join().unwrap().unwrap(), 0);
}

#[test]
fn shutdown_takes_no_longer_than_its_limit_where_a_client_does_not_read() {
    let mut server = Running::start(Arc::new(Samples(600_000)), Limits::default());
    let mut lazy = server.connect();
    lazy.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    // The answer has begun.
    lazy.read_exact(&mut [0; 16]).unwrap();
    let took = server.stop();
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_first_head_that_does_not_come_ends_its_connection_sooner_than_an_idle_one() {
    let limits = Limits { first_head_timeout: Duration::from_millis(200), ..patient() };
    let server = Running::start(Arc::new(Samples(1)), limits);
    let mut idle = server.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(one_answer(&mut idle).status, 200);
    let mut silent = server.connect();
    // Waits for the server's close.
    assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0);
    idle.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(ended(&one_answer(&mut idle), "head_timeout"), 1);
}

#[test]
fn a_body_that_nobody_asked_for_and_a_pipeline_are_bounded() {
    let server = Running::start(Arc::new(Samples(1)), Limits::default());
    // A body of an exabyte: the answer does not wait for it, and the connection ends.
    let body = format!("Content-Length: {}\r\n", 1_u64 << 60);
    assert_eq!(server.get("/metrics", &body).status, 200);
    let chunked = server.ask("POST /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n");
    assert_eq!(chunked.status, 405);
    // HTTP/1.0 without Host, as simple probes send it.
    assert_eq!(server.ask("GET /healthz HTTP/1.0\r\n\r\n").status, 200);
    // Answers to a pipeline come one after the other, and stop at the end that it asks for.
    let mut pipeline = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50);
    pipeline.push_str("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = server.ask(&pipeline);
    assert_eq!(String::from_utf8_lossy(&answer.body).matches("HTTP/1.1 200").count(), 50);
}

#[test]
fn a_client_that_reads_a_byte_now_and_then_is_cut_off() {
    let limits = Limits { answer_timeout: Duration::from_millis(500), ..patient() };
    let server = Running::with_large_node(limits);
    let mut slow = server.connect();
    slow.write_all(b"GET /metrics/node HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut read = 0;
    let cut = loop {
        // Steady progress, and never all of it within the time.
        std::thread::sleep(Duration::from_millis(5));
        match slow.read(&mut [0; 8192]) {
            Ok(0) => break true,
            Err(error) => break error.kind() == std::io::ErrorKind::ConnectionReset,
            Ok(bytes) => read += bytes,
        }
    };
    assert!(cut && read > 0, "{read}");
    assert_eq!(ended(&server.get("/metrics/app", ""), "stalled"), 1);
}

#[test]
fn answers_that_nobody_reads_are_bounded_in_bytes() {
    let server = Running::with_large_node(Limits { answer_bytes: 1 << 20, ..patient() });
    let mut lazy = server.connect();
    lazy.write_all(b"GET /metrics/node HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    // Its answer is under way: longer than the bound, but alone.
    lazy.read_exact(&mut [0; 16]).unwrap();
    let refused = server.get("/metrics/app", "");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    drop(lazy);
    let answer = wait(|| Some(server.get("/metrics/app", "")).filter(|answer| answer.status == 200));
    assert!(sample(&answer, "rustok_obsd_server_requests_refused_total{reason=\"answer_bytes\"}") >= 1);
}

#[test]
fn a_foreign_name_is_not_answered_on_loopback_and_the_remedy_is_said() {
    let exposition = || {
        let exposition = Arc::new(Exposition::new());
        exposition.register(Part::App, Arc::new(Samples(1)));
        exposition
    };
    let server = Running::serve(exposition(), Limits::default());
    let get = |server: &Running, host: &str, more: &str| {
        server.ask(&format!("GET /status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n"))
    };
    for host in ["localhost", "127.0.0.1:9464", "[::1]:9464", &server.address.to_string()] {
        assert_eq!(get(&server, host, "").status, 200, "{host}");
    }
    for host in ["attacker.example", "host.docker.internal:9464", "192.0.2.1"] {
        let refused = get(&server, host, "X-Forwarded-Host: localhost\r\nForwarded: host=localhost\r\n");
        assert_eq!((refused.status, refused.header("content-type")), (421, Some("text/plain; charset=utf-8")));
        let name = host.split(':').next().unwrap();
        assert!(refused.text().contains(&format!("--web.allowed-hosts {name}")), "{}", refused.text());
        assert!(!refused.text().contains("shop"));
    }
    // What is no name is not shown.
    assert!(!get(&server, "<script>", "").text().contains("script"));
    assert_eq!(server.ask("GET /status HTTP/1.1\r\nConnection: close\r\n\r\n").status, 400);
    let metrics = server.get("/metrics", "");
    let refused = |reason: &str| format!("rustok_obsd_server_requests_refused_total{{reason=\"{reason}\"}}");
    assert_eq!((sample(&metrics, &refused("host")), sample(&metrics, &refused("no_host"))), (4, 1));

    let allowed = vec!["host.docker.internal".to_owned()];
    let server = Running::serve_with(exposition(), Limits::default(), |server| server.with_hosts(allowed));
    assert_eq!(get(&server, "Host.docker.internal:9464", "").status, 200);
    assert_eq!(get(&server, "attacker.example", "").status, 421);
}
