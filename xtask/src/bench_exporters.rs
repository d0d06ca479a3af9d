//! `cargo xtask bench-exporters`: what a scrape costs, beside the exporters that the daemon replaces.
//!
//! Reads: this machine, with real processes and cgroups made for it. Yields: tables; asserts nothing. Costs: some minutes.
//!
//! Each peer and the daemon are scraped in turn (A, B, B, A) by one client that keeps its connection and takes gzip, a few
//! times a second, so that a machine that slows down slows both. CPU is that of the process's own clock. System calls and file opens
//! are counted by strace in scrapes of their own, which are not timed. A peer that is absent is said to be.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use test_support::{CADVISOR, Child, NODE_EXPORTER, PROCESS_EXPORTER, Tool, free_port};

use crate::scene::Usage;
use crate::workspace::{Workspace, find_program, program};

/// `cargo xtask bench-exporters`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Scrapes of each turn.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(5..))]
    scrapes: u32,
    /// Milliseconds from one scrape to the next.
    #[arg(long, default_value_t = 100)]
    every: u64,
    /// Numbers of processes to compare at.
    #[arg(long, value_delimiter = ',', default_values_t = [150, 2000])]
    processes: Vec<usize>,
    /// Numbers of cgroups to compare at.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1000])]
    cgroups: Vec<usize>,
    /// The daemon to measure, instead of building it.
    #[arg(long, value_name = "PROGRAM")]
    daemon: Option<PathBuf>,
}

/// Someone who is scraped.
struct Exporter {
    name: String,
    child: Child,
    address: SocketAddr,
    path: &'static str,
}

/// What a turn came to.
#[derive(Default)]
struct Turn {
    cpu_ms: Vec<f64>,
    latency_ms: Vec<f64>,
    bytes: usize,
    samples: usize,
}

/// Runs it.
pub fn bench(workspace: &Workspace, args: &Args) -> Result<()> {
    let daemon = match &args.daemon {
        Some(daemon) => daemon.clone(),
        None => program(&workspace.build_release(&["rustok-obsd"])?, "rustok-obsd")?,
    };
    head("node families", "");
    let us = |path, flags: &[&str]| Exporter::daemon(&daemon, path, flags);
    compare(
        args,
        &[
            peer(&NODE_EXPORTER, |tool, at| tool.arg(format!("--web.listen-address={at}")))?,
            Some(us("/metrics/node", &[])?),
        ],
    )?;
    for count in &args.processes {
        let _crowd = Crowd::of(*count)?;
        head("processes", &format!("{} on the machine", processes()));
        let config = tempfile::Builder::new().suffix(".yml").tempfile()?;
        fs::write(
            config.path(),
            "process_names: [{name: \"{{.Comm}}\", cmdline: ['.+']}, {name: \"{{.Comm}}\", comm: ['.+']}]\n",
        )?;
        let process_exporter = peer(&PROCESS_EXPORTER, |tool, at| {
            tool.arg(format!("--web.listen-address={at}"))
                .arg(format!("--config.path={}", config.path().display()))
                .args(["--gather-smaps=false", "--threads=false"])
        })?;
        compare(args, &[process_exporter, Some(us("/metrics/process", &[])?)])?;
    }
    for count in &args.cgroups {
        let _cgroups = Cgroups::of(*count)?;
        head("containers", &format!("{count} cgroups of one sleeping process"));
        let cadvisor =
            peer(&CADVISOR, |tool, at| tool.args(["--listen_ip=127.0.0.1", &format!("--port={}", at.port())]))?;
        compare(args, &[cadvisor, Some(us("/metrics/cadvisor", &[])?)])?;
    }
    Ok(())
}

fn head(what: &str, more: &str) {
    println!("\n{what}{}{more}", if more.is_empty() { "" } else { ": " });
    println!(
        "{:<24} {:>9} {:>8} {:>7} {:>7} {:>9} {:>8} {:>7} {:>8}",
        "", "CPU ms", "ratio", "P50 ms", "RSS MB", "series", "kB gzip", "opens", "calls"
    );
}

/// Starts a peer; said to be absent where it is.
fn peer(
    tool: &Tool,
    flags: impl for<'c> Fn(&'c mut Command, SocketAddr) -> &'c mut Command,
) -> Result<Option<Exporter>> {
    let Ok(program) = tool.find() else {
        println!("{:<24} absent: name one in {}", tool.name, tool.variable);
        return Ok(None);
    };
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(program);
    flags(&mut command, address);
    Exporter::start(tool.name, &mut command, address, "/metrics").map(Some)
}

impl Exporter {
    fn daemon(program: &Path, path: &'static str, flags: &[&str]) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(program);
        command.arg("run").arg(format!("--web.listen-address={address}")).args(flags);
        Self::start(&format!("rustok-obsd {path}"), &mut command, address, path)
    }

    fn start(name: &str, command: &mut Command, address: SocketAddr, path: &'static str) -> Result<Self> {
        let mut child = Child::spawn(name, command).with_context(|| format!("{name} could not be started"))?;
        child.wait_for_http(address, "/", Duration::from_secs(30)).map_err(anyhow::Error::msg)?;
        Ok(Self { name: name.to_owned(), child, address, path })
    }
}

/// Scrapes all in turns and prints a line for each; the first that is there is what the others are compared with.
fn compare(args: &Args, exporters: &[Option<Exporter>]) -> Result<()> {
    let exporters: Vec<&Exporter> = exporters.iter().flatten().collect();
    let mut turns: Vec<Turn> = exporters.iter().map(|_| Turn::default()).collect();
    // What the first scrapes find out is kept.
    for exporter in &exporters {
        scrapes(exporter, 5, args.every, &mut Turn::default())?;
    }
    let order = (0..exporters.len()).chain((0..exporters.len()).rev());
    for at in order {
        scrapes(exporters[at], args.scrapes, args.every, &mut turns[at])?;
    }
    let first = turns.first().map_or(0.0, |turn| median(&turn.cpu_ms));
    for (exporter, turn) in exporters.iter().zip(&turns) {
        let (opens, calls) = system_calls(exporter, args.every)?;
        let cpu = median(&turn.cpu_ms);
        let rss = Usage::of(exporter.child.id())?.resident / 1e6;
        println!(
            "{:<24} {cpu:>9.3} {:>8.3} {:>7.2} {rss:>7.1} {:>9} {:>8.1} {opens:>7} {calls:>8}",
            exporter.name,
            cpu / first,
            median(&turn.latency_ms),
            turn.samples,
            turn.bytes as f64 / 1e3
        );
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn scrapes(exporter: &Exporter, count: u32, every: u64, turn: &mut Turn) -> Result<()> {
    let mut client = Client::connect(exporter.address)?;
    for _ in 0..count {
        let (cpu, start) = (cpu_ms(exporter.child.id())?, Instant::now());
        turn.bytes = client.get(exporter.path, true)?.len();
        turn.latency_ms.push(start.elapsed().as_secs_f64() * 1e3);
        // What it does after the answer is its cost as well.
        sleep(Duration::from_millis(every).saturating_sub(start.elapsed()));
        turn.cpu_ms.push(cpu_ms(exporter.child.id())? - cpu);
    }
    let text = client.get(exporter.path, false)?;
    turn.samples = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#').count();
    Ok(())
}

/// Milliseconds of CPU that the process has taken.
fn cpu_ms(pid: u32) -> Result<f64> {
    Ok(Usage::of(pid)?.cpu * 1e3)
}

/// File opens and all system calls of a scrape, by strace; a dash where that is missing.
fn system_calls(exporter: &Exporter, every: u64) -> Result<(String, String)> {
    let Some(strace) = find_program("strace") else {
        return Ok(("–".into(), "–".into()));
    };
    const SCRAPES: u32 = 10;
    let summary = tempfile::NamedTempFile::new()?;
    let mut tracer = Command::new(strace)
        .args(["-f", "-c", "-U", "calls,name", "-o"])
        .arg(summary.path())
        .args(["-p", &exporter.child.id().to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    sleep(Duration::from_millis(700));
    scrapes(exporter, SCRAPES, every, &mut Turn::default())?;
    // SAFETY: kill takes no pointer; the child has not been waited for, so that its pid is its own.
    unsafe { libc::kill(tracer.id().cast_signed(), libc::SIGINT) };
    tracer.wait()?;
    let text = fs::read_to_string(summary.path())?;
    let calls: BTreeMap<&str, u64> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?))
        })
        .map(|(count, name)| (name, count))
        .collect();
    let all: u64 = calls.iter().filter(|(name, _)| **name != "total").map(|(_, count)| count).sum();
    let opens: u64 = ["open", "openat", "openat2"].iter().filter_map(|name| calls.get(name)).sum();
    // One more scrape without gzip ends the turn.
    let each = |count: u64| format!("{:.0}", count as f64 / f64::from(SCRAPES + 1));
    Ok((each(opens), each(all)))
}

/// HTTP/1.1 over a kept connection.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    fn get(&mut self, path: &str, gzip: bool) -> Result<Vec<u8>> {
        let coding = if gzip { "gzip" } else { "identity" };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain;version=0.0.4\r\nAccept-Encoding: {coding}\r\n\r\n"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut length, mut line) = (None, String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let lower = line.trim().to_ascii_lowercase();
            if lower.is_empty() {
                break;
            }
            if lower.starts_with("http/1.1 ") && !lower.contains(" 200") {
                bail!("{path}: {}", line.trim());
            }
            length = lower.strip_prefix("content-length:").map_or(length, |value| value.trim().parse::<usize>().ok());
        }
        let mut body = Vec::new();
        if let Some(length) = length {
            body.resize(length, 0);
            self.stream.read_exact(&mut body)?;
            return Ok(body);
        }
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).context("no chunk")?;
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            line.clear();
            self.stream.read_line(&mut line)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

/// Processes on the machine.
fn processes() -> usize {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)).count()
}

/// Sleeping processes that make up a number on the machine.
struct Crowd(Vec<std::process::Child>);

impl Crowd {
    fn of(total: usize) -> Result<Self> {
        let mut crowd = Self(Vec::new());
        for _ in 0..total.saturating_sub(processes()) {
            crowd.0.push(Command::new("sleep").arg("3600").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// Cgroups in every hierarchy, each with a sleeping process.
struct Cgroups {
    crowd: Crowd,
    folders: Vec<PathBuf>,
}

impl Cgroups {
    fn of(count: usize) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let hierarchies: Vec<PathBuf> = mounts
            .lines()
            .filter_map(|line| {
                let words: Vec<_> = line.split(' ').collect();
                ["cgroup", "cgroup2"].contains(words.get(2)?).then(|| PathBuf::from(words[1]))
            })
            .collect();
        let mut made = Self { crowd: Crowd(Vec::new()), folders: Vec::new() };
        for number in 0..count {
            let child = Command::new("sleep").arg("3600").stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
            let pid = child.id().to_string();
            made.crowd.0.push(child);
            for hierarchy in &hierarchies {
                let parent = hierarchy.join("rustok-obsd-bench");
                let folder = parent.join(format!("{number:064x}"));
                // A hierarchy that takes no group of ours (cpuset without CPUs) is left out.
                if fs::create_dir_all(&folder).is_err() {
                    continue;
                }
                let _ = fs::write(folder.join("cgroup.procs"), &pid);
                made.folders.push(folder);
            }
        }
        Ok(made)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        drop(std::mem::replace(&mut self.crowd, Crowd(Vec::new())));
        let mut parents: Vec<PathBuf> = Vec::new();
        for folder in &self.folders {
            let until = Instant::now() + Duration::from_secs(2);
            while fs::remove_dir(folder).is_err() && folder.exists() && Instant::now() < until {
                sleep(Duration::from_millis(5));
            }
            parents.extend(folder.parent().map(Path::to_owned));
        }
        parents.sort();
        parents.dedup();
        for parent in parents {
            let _ = fs::remove_dir(parent);
        }
    }
}
