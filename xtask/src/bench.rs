//! `cargo xtask bench`: what watching costs.
//!
//! Reads: the criterion benches, then the shop under load. Yields: two tables; asserts nothing. Costs: the benches, and
//! `rounds` × 13 × (`seconds` + 5 s).
//!
//! In the first part the shop answers `/hello` (or `--mix`), which makes the least work per request and the watcher's share
//! the largest; in the second `/api/commerce/products/{id}`, two queries over TLS. It runs with nothing beside it, with the
//! daemon (metrics alone, in the second part with each set of uprobes in turn; then with spans to a real Jaeger), and with
//! tracing-opentelemetry inside (the same spans to the same Jaeger, unless its queue is full: it counts no drops). They
//! take turns in one run, each on a fresh shop, so that a machine that slows down slows all of them. What counts is the
//! median of the rounds and, for differences, the median of the differences within each round; with `--twin`, to another
//! shop that nobody watches, in the same seconds. Shop, load, daemon, Jaeger and database share the machine: without
//! `--rate` the ratio of throughput is the cost to the whole of it.

pub mod report;

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Error, Result, bail};
use test_support::{Jaeger, Ports, Postgres};

use crate::build_ebpf;
use crate::metrics::{self, Sample};
use crate::scene::{Daemon, Programs, Usage};
use crate::setup::{self, Need, go};
use crate::stop::Stop;
use crate::workspace::{Workspace, cargo, run};
use report::{Cost, Part, Program, Run, Variant};

/// `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One part alone.
    #[arg(long, value_enum)]
    only: Option<Part>,
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
    /// Beside the shop run another one that nobody watches, under the same load at the same time, and tell how much more
    /// CPU a request takes in the first: for a machine with other work. The socket programs' runs are those for both.
    #[arg(long)]
    twin: bool,
    /// Other traffic of the part `hello`: `crud` or `all`.
    #[arg(long, default_value = "hello")]
    mix: String,
    /// Leave the criterion benches out.
    #[arg(long)]
    no_criterion: bool,
    /// A folder with `rustok-obsd`, `shop` and `shop-load` to measure, instead of building them.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

/// Runs it.
pub fn bench(workspace: &Workspace, args: &Args) -> Result<()> {
    let outcome = setup::setup(true);
    if outcome.lacks(Need::Ebpf).or(outcome.lacks(Need::Postgres)).is_some() {
        outcome.complete()?;
    }
    if args.programs.is_none() || !args.no_criterion {
        build_ebpf::build(workspace)?;
    }
    if !args.no_criterion {
        run(cargo().current_dir(&workspace.root).args(["bench", "--package", "rustok-obsd"]))?;
    }
    let programs = match &args.programs {
        Some(folder) => Programs::of_folder(folder)?,
        None => Programs::build(workspace)?,
    };
    let stop = Stop::install()?;
    let postgres = Postgres::start()?;
    let jaeger = match go::JAEGER_PROGRAM.find()? {
        Some(_) if outcome.lacks(Need::Backend).is_some_and(|missing| missing.name == "Jaeger") => None,
        Some(program) => Some(Jaeger::start_program(&program, Ports::Free)?),
        None => None,
    };
    if jaeger.is_none() {
        println!("bench: no Jaeger to take spans: only metrics are compared");
    }
    let folder = tempfile::Builder::new().prefix("rustok-obsd-bench-").tempdir()?;
    let twin = args.twin.then(|| programs.twin(folder.path())).transpose()?;
    let scene = Scene { programs, twin, postgres, jaeger };
    let parts: Vec<Part> = Part::ALL.into_iter().filter(|part| args.only.is_none_or(|only| only == *part)).collect();
    let mut tables = Vec::new();
    for part in parts {
        let mut runs = Vec::new();
        for round in 1..=args.rounds {
            for &variant in part.variants() {
                if scene.jaeger.is_none() && matches!(variant, Variant::On | Variant::InApp) {
                    continue;
                }
                let run = scene.run(part, variant, round, args, &stop)?;
                let twin = run.twin_us.map_or_else(String::new, |us| format!(", its twin {us:.1} µs"));
                println!(
                    "bench: {part}, round {round}, {variant}: {:.0} requests/s, P99 {:.2} ms, shop {:.1} µs of CPU per request{twin}",
                    run.per_second,
                    run.p99 * 1e3,
                    run.shop_us
                );
                runs.push(run);
            }
        }
        tables.push(report::table(part, &runs));
    }
    for table in tables {
        println!();
        table.iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}

struct Scene {
    programs: Programs,
    /// Those of the shop that nobody watches.
    twin: Option<Programs>,
    postgres: Postgres,
    /// Where there is one to take spans.
    jaeger: Option<Jaeger>,
}

impl Scene {
    fn run(&self, part: Part, variant: Variant, round: u32, args: &Args, stop: &Stop) -> Result<Run> {
        let endpoint = self.jaeger.as_ref().map(Jaeger::otlp_grpc);
        let more = match (variant, &endpoint) {
            (Variant::InApp, Some(endpoint)) => vec!["--otel", endpoint.as_str()],
            _ => Vec::new(),
        };
        let (mut shop, url) = self.programs.shop(&self.postgres, &more)?;
        let twin = self.twin.as_ref().map(|twin| twin.shop(&self.postgres, &[])).transpose()?;
        let endpoint = endpoint.filter(|_| variant == Variant::On);
        let mut daemon = variant.daemon().map(|flags| self.programs.daemon(endpoint.as_deref(), flags)).transpose()?;
        let mix = match part {
            Part::Hello => &args.mix,
            Part::Database => "two",
        };
        let twin_url = twin.as_ref().map(|(_, url)| url.as_str());
        // Connections, prepared statements and caches are there before the count begins.
        self.loads(&url, twin_url, args, mix, 2, stop)?;
        let jaeger = || self.jaeger.as_ref().map_or(Ok(Usage::default()), |jaeger| Usage::of(jaeger.id()));
        let twins = || twin.as_ref().map(|(twin, _)| Usage::of(twin.id())).transpose();
        let (jaeger_before, twin_before) = (jaeger()?, twins()?);
        let before = (Usage::of(shop.id())?, daemon.as_ref().map(Spent::now).transpose()?);
        let (load, twin_load) = self.loads(&url, twin_url, args, mix, args.seconds, stop)?;
        let after = (Usage::of(shop.id())?, daemon.as_ref().map(Spent::now).transpose()?);
        let twin_us = (twin_load.zip(twin_before).zip(twins()?))
            .map(|((load, before), after)| (after.cpu - before.cpu) * 1e6 / load.requests);
        shop.check()
            .and_then(|()| daemon.as_mut().map_or(Ok(()), |daemon| daemon.child.check()))
            .map_err(Error::msg)?;
        Ok(Run {
            variant,
            round,
            per_second: load.requests / load.seconds,
            p99: load.p99,
            shop_us: (after.0.cpu - before.0.cpu) * 1e6 / load.requests,
            twin_us,
            jaeger_us: (jaeger()?.cpu - jaeger_before.cpu) * 1e6 / load.requests,
            cost: before.1.zip(after.1).map(|(before, after)| before.until(&after, load.requests)),
        })
    }

    /// The load of the shop, and of its twin where there is one, at the same time.
    fn loads(
        &self,
        url: &str,
        twin: Option<&str>,
        args: &Args,
        mix: &str,
        seconds: u64,
        stop: &Stop,
    ) -> Result<(Load, Option<Load>)> {
        std::thread::scope(|scope| {
            let twin = twin.map(|twin| scope.spawn(move || self.load(twin, args, mix, seconds, stop)));
            let load = self.load(url, args, mix, seconds, stop)?;
            let twin =
                twin.map(|twin| twin.join().unwrap_or_else(|_| bail!("the twin's load panicked"))).transpose()?;
            Ok((load, twin))
        })
    }

    fn load(&self, url: &str, args: &Args, mix: &str, seconds: u64, stop: &Stop) -> Result<Load> {
        let mut command = self.programs.load(url, args.concurrency, args.rate);
        command.args(["--mix", mix, "--duration", &format!("{seconds}s")]);
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
            queries: grown("rustok_database_query_duration_seconds_count") / requests,
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
