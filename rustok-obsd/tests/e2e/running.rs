//! The daemon as a user runs it, and small targets for it.
//!
//! Reads: its log, `/metrics`, `/status`, its descriptors. Yields: [`Daemon`], [`Shop`], [`Script`]. Costs: one Postgres
//! for all shops of the test program.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;
use test_support::{Child, Postgres, Skip, Tls, http_get, wait_until};

use super::scene::program;

/// How long a slow machine may take for what takes a moment.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// And for what takes seconds.
pub const LONG_PATIENCE: Duration = Duration::from_secs(180);

/// A running daemon.
pub struct Daemon {
    pub child: Child,
    pub address: SocketAddr,
}

impl Daemon {
    /// `run` with these arguments, on a free port.
    pub fn start(args: &[&str]) -> Result<Self, Skip> {
        Self::start_with(Command::new(program("RUSTOK_OBSD_BIN")?), args)
    }

    /// The same by another command line in front: `setpriv`, `unshare`, or another path of the program.
    pub fn start_with(mut command: Command, args: &[&str]) -> Result<Self, Skip> {
        command.args(["run", "--web.listen-address", "127.0.0.1:0"]).args(args);
        let child = Child::spawn("rustok-obsd", &mut command).map_err(|error| Skip::new(error.to_string()))?;
        let address = child
            .wait_for_line(PATIENCE, |line| {
                line.split_once("serving http://")?.1.strip_suffix("/metrics")?.parse::<SocketAddr>().ok()
            })
            .unwrap_or_else(|error| panic!("{error}"));
        Ok(Self { child, address })
    }

    /// As [`Daemon::start`]; a skip where this machine runs no kernel programs.
    pub fn observing(args: &[&str]) -> Result<Self, Skip> {
        Self::start(args)?.ready()
    }

    /// The daemon, if its programs run.
    pub fn ready(self) -> Result<Self, Skip> {
        let (status, _, body) = http_get(self.address, "/readyz").expect("/readyz answers");
        if status == 200 { Ok(self) } else { Err(Skip::new(String::from_utf8_lossy(&body).into_owned())) }
    }

    pub fn metrics(&self) -> Metrics {
        let (status, _, body) = http_get(self.address, "/metrics/app").expect("/metrics/app answers");
        assert_eq!(status, 200);
        Metrics(String::from_utf8(body).expect("UTF-8"))
    }

    pub fn status(&self) -> Value {
        let (status, _, body) = http_get(self.address, "/status").expect("/status answers");
        assert_eq!(status, 200);
        serde_json::from_slice(&body).expect("JSON")
    }

    /// What `/status` tells of a process, once it is observed.
    pub fn observes(&self, pid: u32) -> Value {
        self.wait(&format!("process {pid} to be observed"), |daemon| daemon.target(pid))
    }

    pub fn target(&self, pid: u32) -> Option<Value> {
        let status = self.status();
        status["targets"].as_array()?.iter().find(|target| target["pid"] == pid).cloned()
    }

    /// State and reason of a probe of the target whose executable is `exe`; empty for the kernel's.
    pub fn probe(&self, probe: &str, exe: &Path) -> (String, String) {
        let status = self.status();
        let probes = status["probes"].as_array().expect("probes");
        let found = probes.iter().find(|told| told["probe"] == probe && told["target"] == *exe.to_string_lossy());
        let text = |key: &str| found.and_then(|told| told[key].as_str()).unwrap_or_default().to_owned();
        (text("state"), text("reason"))
    }

    /// Waits until the sum of these samples is `expected`, and says what it was if it never is.
    pub fn counts(&self, expected: f64, name: &str, labels: &[(&str, &str)]) {
        let mut last = f64::NAN;
        let reached = wait_until(PATIENCE, || {
            last = self.metrics().sum(name, labels);
            (last == expected).then_some(())
        });
        assert!(
            reached.is_some(),
            "{name}{labels:?} is {last}, not {expected}\n{}\n{}",
            self.metrics().matching(&["rustok_http_requests_total", "problems", "lost", "records_total"]),
            self.child.log_tail()
        );
    }

    pub fn wait<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        wait_until(PATIENCE, || found(self))
            .unwrap_or_else(|| panic!("waited in vain for {what}:\n{:#}\n{}", self.status(), self.child.log_tail()))
    }

    /// Ends it, and asserts that it did so within three seconds and well.
    pub fn ends_by(&mut self, signal: libc::c_int) {
        let start = Instant::now();
        self.child.signal(signal);
        let status = self.child.wait(PATIENCE).unwrap_or_else(|| panic!("goes on: {}", self.child.log_tail()));
        let took = start.elapsed();
        assert!(status.success(), "{status}: {}", self.child.log_tail());
        assert!(took < Duration::from_secs(3), "took {took:?}: {}", self.child.log_tail());
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("its descriptors").count()
    }

    /// Ids of the programs and links that it holds.
    pub fn attachments(&self) -> Attachments {
        let mut held = Attachments::default();
        let folder = format!("/proc/{}/fdinfo", self.child.id());
        for entry in fs::read_dir(folder).expect("its descriptors").flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let id = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u32>().ok());
            match id("link_id:") {
                Some(link) => held.links.insert(link),
                None => id("prog_id:").is_some_and(|program| held.programs.insert(program)),
            };
        }
        held
    }

    /// A line of `/proc/PID/status` in KiB.
    pub fn memory_kib(&self, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect("the line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

/// What a process has in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments {
    pub programs: BTreeSet<u32>,
    pub links: BTreeSet<u32>,
}

impl Attachments {
    /// Waits until the kernel has none of them any more; what is left after that.
    pub fn left(&self) -> Self {
        let mut left = self.clone();
        wait_until(PATIENCE, || {
            let programs: HashSet<u32> = aya::programs::loaded_programs().flatten().map(|info| info.id()).collect();
            let links: HashSet<u32> = aya::programs::loaded_links().flatten().map(|info| info.id()).collect();
            left.programs.retain(|id| programs.contains(id));
            left.links.retain(|id| links.contains(id));
            (left == Self::default()).then_some(())
        });
        left
    }
}

/// A text exposition.
pub struct Metrics(pub String);

impl Metrics {
    /// Sum of the samples of this name that carry all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let samples = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            wanted.iter().all(|wanted| labels.contains(wanted)).then(|| value.parse::<f64>().ok())?
        });
        samples.sum()
    }

    /// Lines that hold one of the words, for messages.
    pub fn matching(&self, words: &[&str]) -> String {
        let lines = self.0.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0"));
        lines.filter(|line| words.iter().any(|word| line.contains(word))).collect::<Vec<_>>().join("\n")
    }
}

/// Runs a command of the daemon to its end.
pub fn once(mut command: Command, args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.args(args).output().expect("it starts");
    (exit_code(status), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

fn exit_code(status: ExitStatus) -> Option<i32> {
    status.code()
}

/// The database of all shops; its watchdog ends it with the test program.
fn database() -> Result<String, Skip> {
    static SERVER: OnceLock<Result<Postgres, Skip>> = OnceLock::new();
    let server = SERVER.get_or_init(|| Postgres::start_with(Tls::Off));
    server.as_ref().map(|server| server.url("postgres")).map_err(Clone::clone)
}

/// A copy of the shop at a path of its own, so that nobody else's shop is selected.
pub struct Binary {
    pub path: PathBuf,
    pub folder: tempfile::TempDir,
}

impl Binary {
    pub fn shop() -> Result<Self, Skip> {
        Self::copy(&program("RUSTOK_OBSD_SHOP")?, "shop-copy")
    }

    pub fn copy(of: &Path, name: &str) -> Result<Self, Skip> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("open to all users");
        let path = folder.path().join(name);
        fs::copy(of, &path).expect("copy the program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        Ok(Self { path, folder })
    }

    pub fn text(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }
}

/// A running shop.
pub struct Shop {
    pub child: Child,
    pub address: SocketAddr,
}

impl Shop {
    pub fn start(binary: &Path) -> Result<Self, Skip> {
        Self::start_on(binary, "127.0.0.1:0", &[])
    }

    pub fn start_on(binary: &Path, listen: &str, environment: &[(&str, &str)]) -> Result<Self, Skip> {
        let mut command = Command::new(binary);
        command.envs(environment.iter().copied());
        Self::start_by(command, listen)
    }

    /// The command names the program, perhaps behind another one.
    pub fn start_by(mut command: Command, listen: &str) -> Result<Self, Skip> {
        command.args(["--listen", listen, "--workers", "2", "--pool", "2"]).env("DATABASE_URL", database()?);
        let child = Child::spawn("shop", &mut command).map_err(|error| Skip::new(error.to_string()))?;
        let address = child
            .wait_for_line(PATIENCE, |line| line.strip_prefix("listening on http://")?.parse().ok())
            .unwrap_or_else(|error| panic!("{error}"));
        Ok(Self { child, address })
    }

    pub fn get(&self, path: &str, times: usize) {
        get(self.address, path, times);
    }

    /// A client of `GET /hello` alone, to be waited for.
    pub fn load(&self, args: &[&str]) -> Result<Child, Skip> {
        let mut command = Command::new(program("RUSTOK_OBSD_SHOP_LOAD")?);
        command.args(["--target", &format!("http://{}", self.address), "--mix", "hello"]).args(args);
        Child::spawn("shop-load", &mut command).map_err(|error| Skip::new(error.to_string()))
    }
}

/// Requests over connections of their own.
pub fn get(address: SocketAddr, path: &str, times: usize) {
    for _ in 0..times {
        http_get(address, path).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

/// A connection that stays open.
pub struct KeepAlive(TcpStream);

impl KeepAlive {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        Self(stream)
    }

    pub fn get(&mut self, path: &str) {
        // In one piece, as clients do.
        self.0.write_all(format!("GET {path} HTTP/1.1\r\nhost: e2e\r\n\r\n").as_bytes()).expect("send");
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let count = self.0.read(&mut buffer).expect("an answer");
            assert!(count > 0, "closed after {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&bytes);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return;
            }
        }
    }
}

/// A server written in Python: neither Rust nor axum. It prints its port.
pub struct Script {
    pub child: Child,
    pub address: SocketAddr,
}

impl Script {
    pub fn start(mut command: Command, marker: &str, source: &str) -> Result<Self, Skip> {
        command.args(["-u", "-c", source, marker]);
        let child = Child::spawn("python3", &mut command).map_err(|error| Skip::new(error.to_string()))?;
        let port =
            child.wait_for_line(PATIENCE, |line| line.strip_prefix("port ")?.parse::<u16>().ok()).map_err(Skip::new)?;
        Ok(Self { child, address: ([127, 0, 0, 1], port).into() })
    }

    pub fn server(marker: &str) -> Result<Self, Skip> {
        Self::start(Command::new("python3"), marker, SERVER)
    }
}

/// One process, threads, keep-alive.
pub const SERVER: &str = r"
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '2')
        self.end_headers()
        self.wfile.write(b'ok')
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print('port', server.server_port)
server.serve_forever()
";
