//! A server under test, and clients of it.

use rustok_obsd::contract::{Family, Kind, Origin, Stability};
use rustok_obsd::exposition::server::{Limits, Server, Status, serve};
use rustok_obsd::exposition::{Collect, Encoder, Exposition, Part, bind};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub struct Health(pub AtomicBool);

impl Status for Health {
    fn ready(&self) -> Result<(), String> {
        let ready = self.0.load(Ordering::Relaxed);
        ready.then_some(()).ok_or_else(|| "no target yet".to_owned())
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({ "targets": [{ "exe": "shop" }] })
    }
}

pub const GAUGE: Family<'static> = Family {
    name: "test_gauge",
    kind: Kind::Gauge,
    unit: "",
    help: "A gauge of the test.",
    labels: &["i"],
    origin: Origin::Own,
    stability: Stability::Development,
};

/// So many samples.
pub struct Samples(pub usize);

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
pub struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    pub waiting: AtomicUsize,
}

impl Collect for Gate {
    fn collect(&self, _: &mut Encoder<'_>) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _open = self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap();
    }
}

impl Gate {
    pub fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

pub struct Running {
    pub address: SocketAddr,
    pub health: Arc<Health>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    pub fn start(source: Arc<dyn Collect + Send + Sync>, limits: Limits) -> Self {
        let exposition = Arc::new(Exposition::new());
        exposition.register(Part::App, source);
        Self::serve(exposition, limits)
    }

    pub fn serve(exposition: Arc<Exposition>, limits: Limits) -> Self {
        Self::serve_with(exposition, limits, |server| server)
    }

    pub fn serve_with(exposition: Arc<Exposition>, limits: Limits, with: impl FnOnce(Server) -> Server) -> Self {
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
    pub fn with_large_node(limits: Limits) -> Self {
        let exposition = Arc::new(Exposition::new());
        exposition.register(Part::Node, Arc::new(Samples(600_000)));
        exposition.register(Part::App, Arc::new(Samples(1)));
        Self::serve(exposition, limits)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    pub fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        Answer::read(&mut stream)
    }

    pub fn get(&self, path: &str, headers: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"))
    }

    /// Stops the server and says how long that took.
    pub fn stop(&mut self) -> Duration {
        let start = Instant::now();
        drop(self.stop.take());
        self.thread.take().expect("the server runs").join().expect("the server does not panic");
        start.elapsed()
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads until the server closes.
    pub fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Self::parse(&bytes)
    }

    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.split(':').next() == Some(name))?;
        Some(line[name.len() + 1..].trim())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// The value of a sample in an answer.
pub fn sample(answer: &Answer, series: &str) -> u64 {
    let line = answer.text().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {}", answer.text())).parse().unwrap()
}

pub fn ended(answer: &Answer, reason: &str) -> u64 {
    sample(answer, &format!("rustok_obsd_server_connections_ended_total{{reason=\"{reason}\"}}"))
}

/// No time is short enough to help: only room that is made does.
pub fn patient() -> Limits {
    let day = Duration::from_secs(86_400);
    Limits {
        burst: u32::MAX,
        first_head_timeout: day,
        head_timeout: day,
        stall_timeout: day,
        answer_timeout: day,
        ..Limits::default()
    }
}

/// The next answer of a connection that is kept.
pub fn one_answer(stream: &mut TcpStream) -> Answer {
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

/// Waits for a condition.
pub fn wait<T>(mut found: impl FnMut() -> Option<T>) -> T {
    test_support::wait_until(Duration::from_secs(30), &mut found).expect("the condition never came")
}
