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
        Self::serve_with(exposition, limits, |server| server)
    }

    fn serve_with(exposition: Arc<Exposition>, limits: Limits, with: impl FnOnce(Server) -> Server) -> Self {
        let health = Arc::new(Health(AtomicBool::new(false)));
        let server = with(Server::new(exposition, health.clone(), limits));
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

    /// With an answer at `/metrics/node` that is larger than what the kernel's buffers of both ends take.
    fn with_large_node(limits: Limits) -> Self {
        let exposition = Arc::new(Exposition::new());
        exposition.register(Part::Node, Arc::new(Samples(600_000)));
        exposition.register(Part::App, Arc::new(Samples(1)));
        Self::serve(exposition, limits)
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
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"))
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
    let head = server.ask("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_ne!(head.header("content-length"), Some("0"));
    let post =
        server.ask("POST /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((post.status, post.header("allow")), (405, Some("get,head")));
    assert_eq!(server.ask("nonsense\r\n\r\n").status, 400);
}

#[test]
fn one_connection_serves_many_scrapes() {
    let server = Running::start(Arc::new(Samples(1000)), Limits::default());
    let mut stream = server.connect();
    for _ in 0..20 {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(one_answer(&mut stream).status, 200);
    }
}

#[test]
fn scrapes_beyond_the_limit_get_503_and_are_counted_while_the_rest_is_served() {
    let gate = Arc::new(Gate::default());
    let limits = Limits { scrapes: 2, scrape_wait: Duration::from_millis(50), ..Limits::default() };
    let server = Running::start(gate.clone(), limits);
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

/// The value of a sample in an answer.
fn sample(answer: &Answer, series: &str) -> u64 {
    let line = answer.text().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {}", answer.text())).parse().unwrap()
}

fn ended(answer: &Answer, reason: &str) -> u64 {
    sample(answer, &format!("rustok_obsd_server_connections_ended_total{{reason=\"{reason}\"}}"))
}

/// No time is short enough to help: only room that is made does.
fn patient() -> Limits {
    let day = Duration::from_secs(86_400);
    Limits { first_head_timeout: day, head_timeout: day, stall_timeout: day, answer_timeout: day, ..Limits::default() }
}

#[test]
fn scrapes_are_answered_while_300_connections_send_no_head() {
    let server = Running::start(Arc::new(Samples(100)), patient());
    let mut held = Vec::new();
    for at in 0..300 {
        let mut stream = server.connect();
        // Every other one begins a head.
        if at % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: local").unwrap();
        }
        held.push(stream);
        if at % 20 == 0 {
            assert_eq!(server.get("/metrics", "").status, 200);
        }
    }
    // All are held by their client to the end, and each scrape was answered before that.
    let last = server.get("/metrics", "");
    assert_eq!((last.status, held.len()), (200, 300));
    assert!(ended(&last, "evicted_headless") >= 300 - 64, "{}", last.text());
    assert!(sample(&last, "rustok_obsd_server_connections{peer=\"local\"}") <= 64);
    assert_eq!(sample(&last, "rustok_obsd_scrapes_total{result=\"busy\"}"), 0);
    drop(held);
}

#[test]
fn a_user_who_opens_connections_evicts_nobody_else() {
    let exposition = Arc::new(Exposition::new());
    exposition.register(Part::App, Arc::new(Samples(1)));
    // The first connection is one user's, all others another's.
    let first = Arc::new(Mutex::new(None));
    let server = Running::serve_with(exposition, patient(), |server| {
        server.with_owners(Box::new(move |peer, _| Some(u32::from(*first.lock().unwrap().get_or_insert(peer) != peer))))
    });
    let mut scraper = server.connect();
    scraper.write_all(b"GET /hea").unwrap();
    let held: Vec<_> = (0..300).map(|_| server.connect()).collect();
    assert_eq!(server.get("/healthz", "").status, 200);
    // It was the oldest without a head all the time, and is still there.
    scraper.write_all(b"lthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(one_answer(&mut scraper).status, 200);
    let held_idle: Vec<_> = (0..100).map(|_| server.connect()).collect();
    assert_eq!(server.get("/healthz", "").status, 200);
    scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(one_answer(&mut scraper).status, 200, "an idle connection of another user was evicted");
    drop((held, held_idle));
}

/// The next answer of a connection that is kept.
fn one_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "the server closed a connection that was to be kept");
        bytes.extend_from_slice(&chunk[..read]);
        if bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            let answer = Answer::parse(&bytes);
            if answer.header("content-length").is_some_and(|length| answer.body.len().to_string() == length) {
                return answer;
            }
        }
    }
}

#[test]
fn idle_connections_make_room() {
    let server = Running::start(Arc::new(Samples(1)), patient());
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut stream = server.connect();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(one_answer(&mut stream).status, 200);
        idle.push(stream);
    }
    let last = server.get("/metrics", "");
    assert_eq!(last.status, 200);
    assert!(ended(&last, "evicted_idle") >= 100 - 64, "{}", last.text());
}

#[test]
fn clients_that_read_no_answer_keep_nobody_else_from_theirs() {
    let exposition = Arc::new(Exposition::new());
    // Larger than what the kernel's buffers of both ends take.
    exposition.register(Part::Node, Arc::new(Samples(200_000)));
    exposition.register(Part::App, Arc::new(Samples(1)));
    let lazy_ports = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let lazy = Arc::clone(&lazy_ports);
    let limits = Limits { scrape_wait: Duration::from_secs(2), ..patient() };
    let server = Running::serve_with(exposition, limits, |server| {
        // Who asks from a port that is known beforehand is the lazy user.
        server.with_owners(Box::new(move |peer, _| Some(u32::from(lazy.lock().unwrap().contains(&peer.port())))))
    });
    let held: Vec<_> = (0..100)
        .map(|_| {
            let socket = Socket::bound();
            lazy_ports.lock().unwrap().insert(socket.port());
            let mut stream = socket.connect(server.address);
            stream.write_all(b"GET /metrics/node HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(server.get("/metrics/app", "").status, 200);
    }
    let answer = server.get("/metrics/app", "");
    assert_eq!((answer.status, held.len()), (200, 100));
}

/// A client's socket whose port is known before it connects.
struct Socket(std::os::fd::OwnedFd);

impl Socket {
    fn bound() -> Self {
        use std::os::fd::{AsRawFd as _, FromRawFd as _};
        // SAFETY: makes a descriptor from numbers; it is new and nobody else's.
        let socket = unsafe {
            let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            assert!(socket >= 0);
            std::os::fd::OwnedFd::from_raw_fd(socket)
        };
        let address = sockaddr(([127, 0, 0, 1], 0).into());
        // SAFETY: the address is a whole sockaddr_in.
        let bound =
            unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
        assert_eq!(bound, 0);
        Self(socket)
    }

    fn port(&self) -> u16 {
        TcpStream::from(self.0.try_clone().unwrap()).local_addr().unwrap().port()
    }

    fn connect(self, to: SocketAddr) -> TcpStream {
        use std::os::fd::AsRawFd as _;
        let address = sockaddr(to);
        // SAFETY: the address is a whole sockaddr_in.
        let connected =
            unsafe { libc::connect(self.0.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
        assert_eq!(connected, 0, "{}", std::io::Error::last_os_error());
        self.0.into()
    }
}

fn sockaddr(address: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
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

/// Waits for a condition.
fn wait<T>(mut found: impl FnMut() -> Option<T>) -> T {
    test_support::wait_until(Duration::from_secs(30), &mut found).expect("the condition never came")
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
