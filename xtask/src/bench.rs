//! `cargo xtask bench`: what watching costs.
//!
//! Reads: the criterion benches, then the shop under saturating load. Yields: a table; asserts nothing. Costs: the
//! benches, and `rounds` × 3 × (`seconds` + 5 s).
//!
//! The shop runs with the daemon off, with the daemon on, and with the daemon off and tracing-opentelemetry inside the
//! app. The three take turns in one run, each on a fresh shop, so that a machine that slows down slows all three; the
//! median of the rounds counts. Shop, database, load and daemon share the machine: the ratio is the cost to the whole.

pub mod report;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::build_ebpf;
use crate::demo::{Parts, backends, postgres, start_daemon, start_shop};
use crate::http;
use crate::metrics::{self, Sample};
use crate::process::{Scratch, Stop};
use crate::setup::{self, Need, jaeger};
use crate::workspace::{Workspace, cargo, program, run};
use report::{Cost, Run, Variant};

/// `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of load in each run.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Connections of the load.
    #[arg(long, default_value_t = 64)]
    concurrency: u32,
    /// Leave the criterion benches out.
    #[arg(long)]
    no_criterion: bool,
}

struct Machine {
    shop: PathBuf,
    load: PathBuf,
    daemon: PathBuf,
    url: String,
    /// OTLP over gRPC, where there is a Jaeger to take the app's spans.
    endpoint: Option<String>,
}

/// Runs it.
pub fn bench(workspace: &Workspace, args: &Args) -> Result<()> {
    let outcome = setup::setup(true);
    if outcome.lacks(Need::Ebpf).or(outcome.lacks(Need::Postgres)).is_some() {
        outcome.complete()?;
    }
    build_ebpf::build(workspace)?;
    if !args.no_criterion {
        run(cargo().current_dir(&workspace.root).args(["bench", "--package", "rustok-obsd"]))?;
    }
    let daemon = program(&workspace.build_release("rustok-obsd")?, "rustok-obsd")?;
    let programs = workspace.build_release("shop")?;

    let stop = Stop::install()?;
    let scratch = Scratch::new("bench")?;
    let mut parts = Parts::default();
    let database = postgres::start(scratch.path(), &stop)?;
    parts.push(database.part);
    let mut machine = Machine {
        shop: program(&programs, "shop")?,
        load: program(&programs, "shop-load")?,
        daemon,
        url: database.url,
        endpoint: None,
    };
    match jaeger::find()? {
        Some(program) => {
            let jaeger = backends::start_jaeger(&program, scratch.path(), &stop)?;
            machine.endpoint = Some(jaeger.endpoint);
            parts.push(jaeger.part);
        }
        None => println!("bench: no Jaeger to take the app's spans: {} is left out", Variant::InApp),
    }

    let mut runs = Vec::new();
    for round in 1..=args.rounds {
        for variant in [Variant::Off, Variant::On, Variant::InApp] {
            if variant == Variant::InApp && machine.endpoint.is_none() {
                continue;
            }
            parts.check()?;
            let run = machine.run(variant, args, scratch.path(), &stop)?;
            println!("bench: round {round}, {variant}: {:.0} requests/s", run.per_second);
            runs.push(run);
        }
    }
    println!();
    report::table(&runs).iter().for_each(|line| println!("{line}"));
    Ok(())
}

impl Machine {
    fn run(&self, variant: Variant, args: &Args, folder: &Path, stop: &Stop) -> Result<Run> {
        let mut parts = Parts::default();
        let more = match (variant, &self.endpoint) {
            (Variant::InApp, Some(endpoint)) => vec!["--otel", endpoint.as_str()],
            _ => Vec::new(),
        };
        let (shop, target) = start_shop(&self.shop, &self.url, &more, folder, stop)?;
        parts.push(shop);
        let mut daemon = None;
        if variant == Variant::On {
            // As the demo runs it: spans of the sampled requests go to the same Jaeger.
            let (part, address) = start_daemon(&self.daemon, &self.shop, self.endpoint.as_deref(), folder, stop)?;
            daemon = Some((part.pid(), address));
            parts.push(part);
        }
        // Connections, prepared statements and caches are there before the count begins.
        self.load(&target, args.concurrency, Duration::from_secs(2), stop)?;
        let before = daemon.map(|(pid, address)| Spent::now(pid, address)).transpose()?;
        let (requests, seconds) = self.load(&target, args.concurrency, Duration::from_secs(args.seconds), stop)?;
        let after = daemon.map(|(pid, address)| Spent::now(pid, address)).transpose()?;
        parts.check()?;
        let cost = before.zip(after).map(|(before, after)| before.until(&after, requests));
        Ok(Run { variant, per_second: requests / seconds, cost })
    }

    /// Requests answered, and in what time.
    fn load(&self, target: &str, concurrency: u32, time: Duration, stop: &Stop) -> Result<(f64, f64)> {
        let output = Command::new(&self.load)
            .args(["--target", target, "--concurrency", &concurrency.to_string()])
            .args(["--duration", &format!("{}s", time.as_secs())])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("shop-load could not be started")?;
        if stop.requested() {
            bail!("interrupted");
        }
        if !output.status.success() {
            bail!("shop-load failed ({}); its message is above", output.status);
        }
        let summary: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("shop-load printed no JSON summary")?;
        let number =
            |key: &str| summary[key].as_f64().with_context(|| format!("shop-load's summary has no number `{key}`"));
        Ok((number("requests")?, number("seconds")?))
    }
}

/// What the daemon has spent so far.
struct Spent {
    samples: Vec<Sample>,
    cpu_seconds: f64,
}

impl Spent {
    fn now(pid: u32, address: SocketAddr) -> Result<Self> {
        let samples = metrics::parse(&http::get(address, "/metrics")?)?;
        let file = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&file).with_context(|| format!("{file} cannot be read"))?;
        Ok(Self { samples, cpu_seconds: cpu_seconds(&stat).with_context(|| format!("{file} has another form"))? })
    }

    fn until(&self, after: &Self, requests: f64) -> Cost {
        let grown = |name: &str| metrics::sum(&after.samples, name, None) - metrics::sum(&self.samples, name, None);
        let seconds = grown("rustok_obsd_ebpf_program_run_seconds_total");
        Cost {
            // Without bpf_stats the kernel counts neither: that is unknown, not free.
            kernel_ns: (seconds > 0.0).then(|| seconds * 1e9 / requests),
            kernel_runs: (seconds > 0.0).then(|| grown("rustok_obsd_ebpf_program_runs_total") / requests),
            daemon_us: (after.cpu_seconds - self.cpu_seconds) * 1e6 / requests,
            lost: grown("rustok_obsd_records_lost_total"),
        }
    }
}

/// `utime` and `stime`, fields 14 and 15 of proc_pid_stat(5). The name before them may contain blanks and brackets.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    let ticks = ticks()? + ticks()?;
    // SAFETY: sysconf takes a number and returns one.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    (per_second > 0).then(|| ticks / per_second as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 5 0 100 0 0";
        let seconds = cpu_seconds(stat).expect("a time");
        // SAFETY: as above.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        assert!((seconds - 400.0 / per_second).abs() < 1e-9);
        assert_eq!(cpu_seconds("7 (a) S 1"), None);
    }
}
