//! The metrics server over real sockets: answers, negotiation, clients that misbehave, shutdown.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use rustok_obsd::contract::{Family, Kind, Origin, Stability};
use rustok_obsd::exposition::server::{Limits, Server, Status, serve};
use rustok_obsd::exposition::{Collect, Encoder, Exposition, Part, bind};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use test_support::wait_until;
use tokio::sync::oneshot;

struct Health(AtomicBool);

impl Status for Health {
    fn ready(&self) -> Result<(), String> {
        let ready = self.0.load(Ordering::Relaxed);
        ready.then_some(()).ok_or_else(|| "no target yet".to_owned())
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({ "targets": [{ "exe": "shop" }] })
    }
}

const GAUGE: Family<'static> = Family {
    name: "test_gauge",
    kind: Kind::Gauge,
    unit: "",
    help: "A gauge of the test.",
    labels: &["i"],
    origin: Origin::Own,
    stability: Stability::Development,
};

/// So many samples.
struct Samples(usize);

impl Collect for Samples {
    fn collect(&self, out: &mut Encoder<'_>) {
        let mut samples = out.family(&GAUGE);
        for i in 0..self.0 {
            samples.put([i.to_string().as_str()], i as u64);
        }
    }
}

/// A source that holds its scrapes until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Collect for Gate {
    fn collect(&self, _: &mut Encoder<'_>) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _open = self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap();
    }
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

struct Panics;

impl Collect for Panics {
    fn collect(&self, _: &mut Encoder<'_>) {
        panic!("a collector's bug");
    }
}

struct Running {
    address: SocketAddr,
    health: Arc<Health>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(source: Arc<dyn Collect + Send + Sync>, limits: Limits) -> Self {
        let exposition = Arc::new(Exposition::new());
        exposition.register(Part::App, source);
        Self::serve(exposition, limits)
    }

    fn serve(exposition: Arc<Exposition>, limits: Limits) -> Self {
        let health = Arc::new(Health(AtomicBool::new(false)));
        let server = Server::new(exposition, health.clone(), limits);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, address) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = bind("127.0.0.1:0").await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, server, async { drop(stopped.await) }).await;
            });
        });
        let address = address.recv().unwrap();
        Self { address, health, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        Answer::read(&mut stream)
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"))
    }

    /// Stops the server and says how long that took.
    fn stop(&mut self) -> Duration {
        let start = Instant::now();
        drop(self.stop.take());
        self.thread.take().expect("the server runs").join().expect("the server does not panic");
        start.elapsed()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// Reads until the server closes.
    fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.split(':').next() == Some(name))?;
        Some(line[name.len() + 1..].trim())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

const OPENMETRICS: &str = "Accept: application/openmetrics-text; version=1.0.0\r\n";

#[test]
fn metrics_come_in_the_format_and_coding_that_the_client_asks_for() {
    let server = Running::start(Arc::new(Samples(3)), Limits::default());
    let text = server.get("/metrics", "");
    assert_eq!(text.status, 200);
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(text.header("vary"), Some("accept, accept-encoding"));
    assert_eq!(text.header("content-length"), Some(text.body.len().to_string().as_str()));
    assert!(
        text.text()
            .starts_with("# HELP test_gauge A gauge of the test.\n# TYPE test_gauge gauge\ntest_gauge{i=\"0\"} 0\n")
    );
    let openmetrics = server.get("/metrics", OPENMETRICS);
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(openmetrics.header("content-type"), Some(content_type));
    assert!(openmetrics.text().ends_with("# EOF\n"));
    let gzip = server.get("/metrics", &format!("{OPENMETRICS}Accept-Encoding: gzip\r\n"));
    assert_eq!((gzip.header("content-type"), gzip.header("content-encoding")), (Some(content_type), Some("gzip")));
    let mut plain = String::new();
    flate2::read::GzDecoder::new(gzip.body.as_slice()).read_to_string(&mut plain).unwrap();
    assert!(plain.starts_with("# HELP test_gauge") && plain.ends_with("# EOF\n"));
    assert!(plain.contains("rustok_obsd_scrapes_total{result=\"ok\"} 2\n"));
    assert_eq!(server.get("/metrics", "Accept-Encoding: gzip;q=0\r\n").header("content-encoding"), None);
}

#[test]
fn health_status_and_index_answer_and_the_rest_is_refused() {
    let server = Running::start(Arc::new(Samples(1)), Limits::default());
    assert_eq!(server.get("/healthz", "").status, 200);
    let waiting = server.get("/readyz", "");
    assert_eq!((waiting.status, waiting.text()), (503, "not ready: no target yet\n"));
    server.health.0.store(true, Ordering::Relaxed);
    assert_eq!(server.get("/readyz", "").status, 200);
    let status = server.get("/status", "");
    assert_eq!(status.header("content-type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
    assert_eq!(json["targets"][0]["exe"], "shop");
    let index = server.get("/", "");
    for path in ["metrics", "status", "readyz", "healthz"] {
        assert!(index.text().contains(&format!("<a href={path}>")), "{path}");
    }
    assert_eq!(server.get("/nothing", "").status, 404);
    let head = server.ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_ne!(head.header("content-length"), Some("0"));
    let post = server.ask("POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((post.status, post.header("allow")), (405, Some("get,head")));
    assert_eq!(server.ask("nonsense\r\n\r\n").status, 400);
}

#[test]
fn one_connection_serves_many_scrapes() {
    let server = Running::start(Arc::new(Samples(1000)), Limits::default());
    let mut stream = server.connect();
    for _ in 0..20 {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the server closed a connection that was to be kept");
            bytes.extend_from_slice(&chunk[..read]);
            if bytes.windows(4).any(|window| window == b"\r\n\r\n") {
                let answer = Answer::parse(&bytes);
                if answer.body.len().to_string() == answer.header("content-length").unwrap() {
                    break;
                }
            }
        }
    }
}

#[test]
fn scrapes_beyond_the_limit_get_503_and_are_counted_while_the_rest_is_served() {
    let gate = Arc::new(Gate::default());
    let server = Running::start(gate.clone(), Limits { scrapes: 2, ..Limits::default() });
    std::thread::scope(|scope| {
        let held: Vec<_> = (0..2).map(|_| scope.spawn(|| server.get("/metrics", ""))).collect();
        while gate.waiting.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        let refused = server.get("/metrics", "");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert_eq!(server.get("/healthz", "").status, 200);
        gate.open();
        for held in held {
            assert_eq!(held.join().unwrap().status, 200);
        }
    });
    assert!(server.get("/metrics", "").text().contains("rustok_obsd_scrapes_total{result=\"busy\"} 1\n"));
}

#[test]
fn many_scrapes_at_once_are_each_whole_or_refused() {
    let server = Running::start(Arc::new(Samples(5000)), Limits::default());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let answer = server.get("/metrics", OPENMETRICS);
                    let whole = answer.status == 200 && answer.text().ends_with("# EOF\n");
                    assert!(whole || answer.status == 503, "{}", answer.head);
                }
            });
        }
    });
}

#[test]
fn a_collector_that_panics_costs_its_scrape_only() {
    let server = Running::start(Arc::new(Panics), Limits::default());
    assert_eq!(server.get("/metrics", "").status, 500);
    assert_eq!(server.get("/healthz", "").status, 200);
}

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
fn idle_connections_up_to_the_limit_hold_others_only_until_their_time_is_over() {
    let limits = Limits { connections: 4, head_timeout: Duration::from_millis(500), ..Limits::default() };
    let server = Running::start(Arc::new(Samples(1)), limits);
    let idle: Vec<_> = (0..4).map(|_| server.connect()).collect();
    assert_eq!(server.get("/metrics", "").status, 200);
    drop(idle);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = Running::start(Arc::new(Samples(1)), Limits::default());
    let answer = server.get("/metrics", &format!("X-Large: {}\r\n", "x".repeat(64 * 1024)));
    assert_eq!(answer.status, 431);
}

/// Whether the server's end of a connection is open, as the kernel lists it.
fn is_established(server: u16, client: u16) -> bool {
    let wanted = format!(" 0100007F:{server:04X} 0100007F:{client:04X} 01 ");
    std::fs::read_to_string("/proc/self/net/tcp").unwrap().lines().any(|line| line.contains(&wanted))
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let limits = Limits { stall_timeout: Duration::from_millis(300), ..Limits::default() };
    // Larger than what the kernel's buffers of both ends take.
    let server = Running::start(Arc::new(Samples(600_000)), limits);
    let mut lazy = server.connect();
    lazy.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    // Not a byte is read before the server has closed its end.
    let client = lazy.local_addr().unwrap().port();
    let cut = wait_until(Duration::from_secs(60), || (!is_established(server.address.port(), client)).then_some(()));
    assert!(cut.is_some(), "the server still waits");
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
    asking.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
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
    lazy.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    // The answer has begun.
    lazy.read_exact(&mut [0; 16]).unwrap();
    let took = server.stop();
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// One family of a part, and a name for `collect[]`.
struct Named(&'static str, &'static [&'static str]);

impl Collect for Named {
    fn collect(&self, out: &mut Encoder<'_>) {
        let wanted = self.1.iter().any(|name| out.scrape().wants(name)) || self.1.is_empty();
        if wanted {
            out.family(&Family { name: self.0, labels: &[], ..GAUGE }).put([], 1_u64);
        }
    }

    fn names(&self) -> Vec<&'static str> {
        self.1.to_vec()
    }
}

#[test]
fn each_part_has_a_path_of_its_own_and_collectors_are_chosen_by_the_query() {
    let exposition = Arc::new(Exposition::new());
    for (part, name, collectors) in [
        (Part::App, "app", &[][..]),
        (Part::Node, "cpu", &["cpu"]),
        (Part::Node, "mem", &["mem"]),
        (Part::Cadvisor, "containers", &[]),
        (Part::Process, "groups", &[]),
        (Part::Itself, "self", &[]),
    ] {
        exposition.register(part, Arc::new(Named(name, collectors)));
    }
    let mut running = Running::serve(exposition, Limits::default());
    let families = |path: &str| {
        let answer = running.get(path, "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let text = String::from_utf8(answer.body).unwrap();
        let names = text.lines().filter_map(|line| line.strip_suffix(" 1").filter(|name| !name.contains(['_', '{'])));
        names.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(families("/metrics"), "app cpu mem containers groups self");
    assert_eq!(families("/metrics/node"), "cpu mem self");
    assert_eq!(families("/metrics/cadvisor"), "containers self");
    assert_eq!(families("/metrics/process"), "groups self");
    assert_eq!(families("/metrics/app"), "app self");
    assert_eq!(families("/metrics/node?collect[]=cpu"), "cpu self");
    assert_eq!(families("/metrics?collect%5B%5D=mem&collect[]=process"), "mem groups self");
    assert_eq!(families("/metrics?exclude[]=cpu&exclude[]=cadvisor"), "app mem groups self");
    for (query, part) in
        [("collect[]=disk", "app, cadvisor, cpu, mem, process"), ("collect[]=cpu&exclude[]=mem", "exclude each other")]
    {
        let answer = running.get(&format!("/metrics/node?{query}"), "");
        assert_eq!(answer.status, 400, "{query}");
        assert!(String::from_utf8_lossy(&answer.body).contains(part), "{answer:?}");
    }
    assert_eq!(running.get("/metrics/other", "").status, 404);
    running.stop();
}

#[test]
fn samples_beyond_the_limit_are_left_out_and_counted() {
    let mut running = Running::start(Arc::new(Samples(500)), Limits { samples: 100, ..Limits::default() });
    let count = |text: &str| text.lines().filter(|line| line.starts_with("test_gauge{")).count();
    let first = String::from_utf8(running.get("/metrics", "").body).unwrap();
    assert_eq!(count(&first), 100);
    assert!(first.contains("\nrustok_obsd_samples_over_limit_total 400\n"), "{first}");
    let second = String::from_utf8(running.get("/metrics", "").body).unwrap();
    assert!(second.contains("\nrustok_obsd_samples_over_limit_total 800\n"), "{second}");
    running.stop();
}
