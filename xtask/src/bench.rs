//! `cargo xtask bench`: what watching costs.
//!
//! Reads: the criterion benches, then the shop under load. Yields: a table; asserts nothing. Costs: the benches, and
//! `rounds` × 4 × (`seconds` + 5 s).
//!
//! The shop answers `/hello` (or `--mix`), which makes the least work per request and the watcher's share the largest.
//! It runs with nothing beside it, with the daemon (metrics alone; then with a span per request to a real Jaeger), and with
//! tracing-opentelemetry inside (a span per request to the same Jaeger, unless its queue is full: it counts no drops). They
//! take turns in one run, each on a fresh shop, so that a machine that slows down slows all of them; the median of the rounds counts. Shop, load, daemon, Jaeger and database share the machine: without
//! `--rate` the ratio of throughput is the cost to the whole of it.

pub mod report;

use std::process::Stdio;

use anyhow::{Context as _, Error, Result, bail};
use test_support::{Jaeger, Ports, Postgres};

use crate::build_ebpf;
use crate::metrics::{self, Sample};
use crate::scene::{Daemon, Programs, Usage};
use crate::setup::{self, Need, jaeger};
use crate::stop::Stop;
use crate::workspace::{Workspace, cargo, run};
use report::{Cost, Program, Run, VARIANTS, Variant};

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
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Requests per second, below what the shop can take: compares CPU per request instead of throughput.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Which traffic: `hello`, `crud` or `all`.
    #[arg(long, default_value = "hello")]
    mix: String,
    /// Leave the criterion benches out.
    #[arg(long)]
    no_criterion: bool,
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
    let programs = Programs::build(workspace)?;
    let stop = Stop::install()?;
    let postgres = Postgres::start()?;
    let jaeger = match jaeger::find()? {
        Some(_) if outcome.lacks(Need::Backend).is_some_and(|missing| missing.name == "Jaeger") => None,
        Some(program) => Some(Jaeger::start_program(&program, Ports::Free)?),
        None => None,
    };
    if jaeger.is_none() {
        println!("bench: no Jaeger to take spans: only metrics are compared");
    }
    let scene = Scene { programs, postgres, jaeger };
    let mut runs = Vec::new();
    for round in 1..=args.rounds {
        for variant in VARIANTS {
            if scene.jaeger.is_none() && matches!(variant, Variant::On | Variant::InApp) {
                continue;
            }
            let run = scene.run(variant, args, &stop)?;
            println!(
                "bench: round {round}, {variant}: {:.0} requests/s, P99 {:.2} ms, shop {:.1} µs of CPU per request",
                run.per_second,
                run.p99 * 1e3,
                run.shop_us
            );
            runs.push(run);
        }
    }
    println!();
    report::table(&runs).iter().for_each(|line| println!("{line}"));
    Ok(())
}

struct Scene {
    programs: Programs,
    postgres: Postgres,
    /// Where there is one to take spans.
    jaeger: Option<Jaeger>,
}

impl Scene {
    fn run(&self, variant: Variant, args: &Args, stop: &Stop) -> Result<Run> {
        let endpoint = self.jaeger.as_ref().map(Jaeger::otlp_grpc);
        let more = match (variant, &endpoint) {
            (Variant::InApp, Some(endpoint)) => vec!["--otel", endpoint.as_str()],
            _ => Vec::new(),
        };
        let (mut shop, url) = self.programs.shop(&self.postgres, &more)?;
        let mut daemon = match variant {
            Variant::Metrics => Some(self.programs.daemon(None)?),
            Variant::On => Some(self.programs.daemon(endpoint.as_deref())?),
            Variant::Off | Variant::InApp => None,
        };
        // Connections, prepared statements and caches are there before the count begins.
        self.load(&url, args, 2, stop)?;
        let jaeger = || self.jaeger.as_ref().map_or(Ok(Usage::default()), |jaeger| Usage::of(jaeger.id()));
        let jaeger_before = jaeger()?;
        let before = (Usage::of(shop.id())?, daemon.as_ref().map(Spent::now).transpose()?);
        let load = self.load(&url, args, args.seconds, stop)?;
        let after = (Usage::of(shop.id())?, daemon.as_ref().map(Spent::now).transpose()?);
        shop.check()
            .and_then(|()| daemon.as_mut().map_or(Ok(()), |daemon| daemon.child.check()))
            .map_err(Error::msg)?;
        Ok(Run {
            variant,
            per_second: load.requests / load.seconds,
            p99: load.p99,
            shop_us: (after.0.cpu() - before.0.cpu()) * 1e6 / load.requests,
            jaeger_us: (jaeger()?.cpu() - jaeger_before.cpu()) * 1e6 / load.requests,
            cost: before.1.zip(after.1).map(|(before, after)| before.until(&after, load.requests)),
        })
    }

    fn load(&self, url: &str, args: &Args, seconds: u64, stop: &Stop) -> Result<Load> {
        let mut command = self.programs.load(url, args.concurrency, args.rate);
        command.args(["--mix", &args.mix, "--duration", &format!("{seconds}s")]);
        let output =
            command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("shop-load could not be started")?;
        if stop.requested() {
            bail!("interrupted");
        }
        if !output.status.success() {
            bail!("shop-load failed ({}); its message is above", output.status);
        }
        let summary: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("shop-load printed no JSON summary")?;
        let number = |pointer: &str| {
            let value = summary.pointer(pointer).and_then(serde_json::Value::as_f64);
            value.with_context(|| format!("shop-load's summary has no number at {pointer}"))
        };
        Ok(Load { requests: number("/requests")?, seconds: number("/seconds")?, p99: number("/latency_seconds/p99")? })
    }
}

/// What the client saw.
struct Load {
    requests: f64,
    seconds: f64,
    p99: f64,
}

/// What the daemon has spent so far.
struct Spent {
    samples: Vec<Sample>,
    usage: Usage,
}

impl Spent {
    fn now(daemon: &Daemon) -> Result<Self> {
        Ok(Self { samples: daemon.scrape()?, usage: Usage::of(daemon.child.id())? })
    }

    fn until(&self, after: &Self, requests: f64) -> Cost {
        let grown = |name: &str| metrics::sum(&after.samples, name) - metrics::sum(&self.samples, name);
        let exported = |samples: &[Sample]| {
            let spans = samples.iter().filter(|sample| sample.name == "rustok_obsd_spans_total");
            spans.filter(|sample| sample.label("result") == "exported").map(|sample| sample.value).sum::<f64>()
        };
        Cost {
            programs: self.programs_until(after, requests),
            user_us: (after.usage.user - self.usage.user) * 1e6 / requests,
            system_us: (after.usage.system - self.usage.system) * 1e6 / requests,
            resident: after.usage.resident,
            seen: grown("rustok_http_requests_total") / requests,
            spans: (exported(&after.samples) - exported(&self.samples)) / requests,
            lost: grown("rustok_obsd_records_lost_total"),
        }
    }

    /// Without bpf_stats the kernel counts neither runs nor times: that is unknown, not free.
    fn programs_until(&self, after: &Self, requests: f64) -> Vec<Program> {
        let of = |samples: &[Sample], name: &str, program: &str| -> f64 {
            let found = samples.iter().find(|sample| sample.name == name && sample.label("program") == program);
            found.map_or(0.0, |sample| sample.value)
        };
        const RUNS: &str = "rustok_obsd_ebpf_program_runs_total";
        const SECONDS: &str = "rustok_obsd_ebpf_program_run_seconds_total";
        let names = after.samples.iter().filter(|sample| sample.name == RUNS).map(|sample| sample.label("program"));
        names
            .map(|program| {
                let grown = |name| of(&after.samples, name, program) - of(&self.samples, name, program);
                Program { name: program.to_owned(), runs: grown(RUNS) / requests, ns: grown(SECONDS) * 1e9 / requests }
            })
            .filter(|program| program.runs > 0.0)
            .collect()
    }
}
