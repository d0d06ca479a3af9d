//! `cargo xtask demo`: an unmodified server under load, and what the daemon sees of it.
//!
//! Reads: nothing but this checkout; calls `setup` and the builds. Yields: a live table of routes, and the addresses of
//! `/metrics`, Prometheus and Jaeger. Costs: some minutes of building the first time, then about one core.
//!
//! All parts listen on the loopback address, keep their files in one temporary folder and end with us ([`process`]).

pub mod backends;
pub mod postgres;
pub mod table;

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build_ebpf;
use crate::http;
use crate::metrics::{self, Routes};
use crate::process::{End, Part, Scratch, Stop, port_or_free};
use crate::setup::{self, Need, jaeger};
use crate::workspace::{Workspace, program};
use backends::local;

/// Where the daemon listens when nobody else does.
const DAEMON: u16 = 9464;
/// The table shows the last so many seconds.
const WINDOW: Duration = Duration::from_secs(10);
/// How long a part may take to be there.
const START: Duration = Duration::from_secs(60);

/// `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End after this time, such as 30s or 2m, instead of at Ctrl-C.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// Requests per second of the load; 0 for as many as the shop can take.
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Connections of the load.
    #[arg(long, default_value_t = 64)]
    concurrency: u32,
}

/// The parts in the order of their start; the last one is ended first, so that none misses one that it needs.
#[derive(Debug, Default)]
pub struct Parts(Vec<Part>);

impl Parts {
    /// Takes one over.
    pub fn push(&mut self, part: Part) {
        self.0.push(part);
    }

    /// Fails where one has ended.
    pub fn check(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(Part::check)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        while let Some(part) = self.0.pop() {
            drop(part);
        }
    }
}

/// Runs it.
pub fn demo(workspace: &Workspace, args: &Args) -> Result<()> {
    let outcome = setup::setup(false);
    if outcome.lacks(Need::Postgres).is_some() {
        outcome.complete()?;
    }
    match outcome.lacks(Need::Ebpf) {
        None => drop(build_ebpf::build(workspace)?),
        Some(missing) => println!("demo: no kernel programs, hence no HTTP metrics: {missing}"),
    }
    let daemon = program(&workspace.build_release("rustok-obsd")?, "rustok-obsd")?;
    let shop_programs = workspace.build_release("shop")?;
    let (shop, load) = (program(&shop_programs, "shop")?, program(&shop_programs, "shop-load")?);

    let stop = Stop::install()?;
    let scratch = Scratch::new("demo")?;
    let folder = scratch.path();
    let mut parts = Parts::default();

    let database = postgres::start(folder, &stop)?;
    println!("demo: Postgres     {} (throw-away, TLS on)", database.address);
    let url = database.url;
    parts.push(database.part);
    let (part, target) = start_shop(&shop, &url, &[], folder, &stop)?;
    println!("demo: shop         {target}");
    parts.push(part);

    let mut endpoint = None;
    match jaeger::find()? {
        Some(program) => {
            let jaeger = backends::start_jaeger(&program, folder, &stop)?;
            println!("demo: Jaeger       http://{}", jaeger.query);
            endpoint = Some(jaeger.endpoint);
            parts.push(jaeger.part);
        }
        None => {
            println!("demo: Jaeger       not installed (`cargo xtask setup --tests` builds it)");
        }
    }

    let sees = doctor(&daemon, &shop)?;
    let (part, address) = start_daemon(&daemon, &shop, endpoint.as_deref(), folder, &stop)?;
    let taken = if address.port() == DAEMON { String::new() } else { format!(" (port {DAEMON} is taken)") };
    println!("demo: metrics      http://{address}/metrics{taken}");
    parts.push(part);

    match setup::prometheus() {
        Ok(program) => {
            let (part, address) = backends::start_prometheus(workspace, &program, folder, address, &stop)?;
            println!("demo: Prometheus   http://{address}");
            parts.push(part);
        }
        Err(error) => println!("demo: Prometheus   {error:#}"),
    }

    let mut command = Command::new(&load);
    command.args(["--target", &target, "--concurrency", &args.concurrency.to_string()]);
    if args.rate > 0 {
        command.args(["--rate", &args.rate.to_string()]);
    }
    // Longer than anybody watches.
    command.args(["--duration", "86400s"]);
    parts.push(Part::start("shop-load", &mut command, folder, End::Terminate)?);
    println!();

    let seen = watch(&mut parts, address, args.time, &stop);
    if stop.requested() || args.time.is_some() {
        println!("demo: ending all parts");
    }
    if seen? == 0.0 && sees && !stop.requested() {
        bail!("the daemon's doctor found nothing wrong, but no request was seen: that is a bug");
    }
    Ok(())
}

/// Starts the shop, and yields its URL.
pub fn start_shop(shop: &Path, url: &str, more: &[&str], folder: &Path, stop: &Stop) -> Result<(Part, String)> {
    let mut command = Command::new(shop);
    command.args(["--listen", "127.0.0.1:0", "--database-url", url]).args(more);
    let mut part = Part::start("shop", &mut command, folder, End::Terminate)?;
    let target = part.wait_for_line(stop, "listening on ", START)?;
    Ok((part, target))
}

/// Starts the daemon beside the shop, and waits until it serves.
pub fn start_daemon(
    daemon: &Path,
    shop: &Path,
    endpoint: Option<&str>,
    folder: &Path,
    stop: &Stop,
) -> Result<(Part, SocketAddr)> {
    let address = local(port_or_free(DAEMON)?);
    let mut command = Command::new(daemon);
    command.arg("run").arg("--exe").arg(shop).args(["--web.listen-address", &address.to_string()]);
    if let Some(endpoint) = endpoint {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    }
    let mut part = Part::start("rustok-obsd", &mut command, folder, End::Terminate)?;
    backends::wait_ready(&mut part, stop, address, "/healthz")?;
    Ok((part, address))
}

/// Whether the daemon can see the shop; relays its own account of what is missing.
fn doctor(daemon: &Path, shop: &Path) -> Result<bool> {
    let output = Command::new(daemon)
        .arg("doctor")
        .arg("--exe")
        .arg(shop)
        .stdin(Stdio::null())
        .output()
        .context("`rustok-obsd doctor` could not be started")?;
    if output.status.success() {
        return Ok(true);
    }
    println!("demo: the daemon cannot see everything here ({}); `rustok-obsd doctor` says:", output.status);
    for text in [&output.stdout, &output.stderr] {
        for line in String::from_utf8_lossy(text).lines() {
            println!("    {line}");
        }
    }
    Ok(false)
}

/// Shows the table until the time is over or we are to end; yields the number of requests seen.
fn watch(parts: &mut Parts, address: SocketAddr, time: Option<Duration>, stop: &Stop) -> Result<f64> {
    let started = Instant::now();
    let terminal = io::stdout().is_terminal();
    let every = if terminal { Duration::from_secs(1) } else { Duration::from_secs(5) };
    let first = scrape(address)?;
    let mut scrapes = VecDeque::from([(Instant::now(), first.clone())]);
    let mut screen = Screen { terminal, height: 0 };
    loop {
        let left = time.map(|time| time.saturating_sub(started.elapsed()));
        if stop.requested() || left == Some(Duration::ZERO) {
            break;
        }
        stop.sleep(left.map_or(every, |left| left.min(every)));
        parts.check()?;
        let now = Instant::now();
        scrapes.push_back((now, scrape(address)?));
        while scrapes.len() > 2 && now.duration_since(scrapes[1].0) >= WINDOW {
            scrapes.pop_front();
        }
        let (Some((from, old)), Some((_, new))) = (scrapes.front(), scrapes.back()) else {
            continue;
        };
        let span = now.duration_since(*from).as_secs_f64();
        screen.draw(&format!("last {span:.0} s"), &metrics::between(old, new), span)?;
    }
    let span = started.elapsed().as_secs_f64();
    let last = scrapes.back().map(|(_, last)| metrics::between(&first, last)).unwrap_or_default();
    screen.height = 0;
    screen.draw(&format!("all {span:.0} s"), &last, span)?;
    Ok(last.values().map(|route| route.requests).sum())
}

fn scrape(address: SocketAddr) -> Result<Routes> {
    Ok(metrics::routes(&metrics::parse(&http::get(address, "/metrics")?)?))
}

/// Draws over itself on a terminal, and below itself elsewhere.
struct Screen {
    terminal: bool,
    height: usize,
}

impl Screen {
    fn draw(&mut self, title: &str, window: &Routes, seconds: f64) -> io::Result<()> {
        let (rows, columns) = if self.terminal { terminal_size() } else { (1000, 100) };
        let mut lines = vec![title.to_owned()];
        lines.extend(table::render(window, seconds, rows.saturating_sub(6).max(3), columns));
        if !self.terminal {
            lines.push(String::new());
        }
        let mut text = String::new();
        if self.terminal && self.height > 0 {
            // ECMA-48: cursor up, then erase to the end of the screen.
            text = format!("\x1b[{}A\x1b[J", self.height);
        }
        self.height = lines.len();
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }
}

/// Rows and columns.
fn terminal_size() -> (usize, usize) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize`, which is what the pointer points at.
    let done = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) } == 0;
    if done && size.ws_row > 0 && size.ws_col > 0 { (size.ws_row.into(), size.ws_col.into()) } else { (24, 80) }
}

/// Reads `30s`, `2m`, `1h` or plain seconds.
fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let scale = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("expected a time such as 30s, 2m or 1h".into()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a time such as 30s, 2m or 1h")?;
    number.checked_mul(scale).map(Duration::from_secs).ok_or_else(|| "that is too long".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(time("5"), Ok(Duration::from_secs(5)));
        for bad in ["", "s", "3d", "-1s", "1.5s", "99999999999999999999s", "9999999999999999999h"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
