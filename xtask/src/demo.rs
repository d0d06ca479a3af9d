//! `cargo xtask demo`: an unmodified server under load, and what the daemon sees of it.
//!
//! Reads: nothing but this checkout; calls `setup` and the builds. Yields: a live table of routes and of the costliest
//! statements, and the addresses of `/metrics`, Prometheus and Jaeger. Costs: some minutes of building the first time, then about half a core.
//!
//! All parts listen on the loopback address, keep their files in temporary folders and end with us, even if we are
//! killed (`test_support::Child`).

pub mod screen;
pub mod statements;
pub mod table;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail};
use test_support::{Child, Jaeger, Ports, Postgres, Prometheus};

use crate::build_ebpf;
use crate::metrics::{self, Routes, Sample, Statements};
use crate::scene::{self, Daemon, Programs, Usage};
use crate::setup::{self, Need, go};
use crate::stop::Stop;
use crate::workspace::Workspace;
use screen::{Screen, Window};

/// The table shows the last so many seconds.
const WINDOW: Duration = Duration::from_secs(10);

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
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
}

/// The parts. Fields are dropped in this order, so that none misses one that it needs.
struct Parts {
    load: Child,
    prometheus: Option<Prometheus>,
    daemon: Daemon,
    jaeger: Option<Jaeger>,
    shop: Child,
    postgres: Postgres,
}

impl Parts {
    /// Fails where one has ended, with its last words.
    fn check(&mut self) -> Result<()> {
        self.postgres
            .check()
            .and_then(|()| self.shop.check())
            .and_then(|()| self.jaeger.as_mut().map_or(Ok(()), Jaeger::check))
            .and_then(|()| self.daemon.child.check())
            .and_then(|()| self.prometheus.as_mut().map_or(Ok(()), Prometheus::check))
            .and_then(|()| self.load.check())
            .map_err(Error::msg)
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
    let programs = Programs::build(workspace)?;
    let stop = Stop::install()?;

    let postgres = Postgres::start()?;
    say("Postgres", format_args!("127.0.0.1:{} (throw-away, TLS on)", postgres.port()));
    let (shop, url) = programs.shop(&postgres, &[])?;
    say("shop", &url);
    // The addresses that somebody may want to open while the table runs.
    let mut addresses = Vec::new();
    let jaeger = match go::JAEGER_PROGRAM.find()? {
        Some(program) => {
            let jaeger = Jaeger::start_program(&program, Ports::Usual)?;
            addresses.push(("Jaeger", format!("http://{}", jaeger.query_addr())));
            Some(jaeger)
        }
        None => {
            say("Jaeger", "not installed (`cargo xtask setup --tests` builds it)");
            None
        }
    };
    let sees = programs.doctor()?;
    let daemon = programs.daemon(jaeger.as_ref().map(Jaeger::otlp_grpc).as_deref(), &[])?;
    let taken =
        if daemon.address.port() == scene::PORT { String::new() } else { format!(" (port {} is taken)", scene::PORT) };
    addresses.insert(
        0,
        ("metrics", format!("http://{}/metrics, or /app /node /cadvisor /process below it{taken}", daemon.address)),
    );
    let prometheus = match setup::prometheus() {
        Ok(_) => {
            let prometheus = start_prometheus(workspace, daemon.address)?;
            addresses.push(("Prometheus", format!("http://{}", prometheus.addr())));
            Some(prometheus)
        }
        Err(error) => {
            say("Prometheus", format_args!("{error:#}"));
            None
        }
    };
    for (name, address) in &addresses {
        say(name, address);
    }
    if let Err(said) = &sees {
        println!("demo: the daemon cannot see everything here; `rustok-obsd doctor` says:");
        said.lines().for_each(|line| println!("    {line}"));
    }

    let mut load = programs.load(&url, args.concurrency, args.rate.into());
    // Longer than anybody watches.
    let load = Child::spawn("shop-load", load.args(["--duration", "86400s"]))?;
    let mut parts = Parts { load, prometheus, daemon, jaeger, shop, postgres };
    println!();
    let seen = watch(&mut parts, &addresses, args.time, &stop);
    println!("demo: ending all parts");
    drop(parts);
    if seen? == 0.0 && sees.is_ok() && !stop.requested() {
        bail!("the daemon's doctor found nothing wrong, but no request was seen: that is a bug");
    }
    Ok(())
}

fn say(what: &str, value: impl std::fmt::Display) {
    println!("demo: {what:<12} {value}");
}

/// Starts Prometheus with the project's own configuration, on the demo's addresses.
fn start_prometheus(workspace: &Workspace, daemon: SocketAddr) -> Result<Prometheus> {
    let file = workspace.root.join("prometheus/prometheus.yml");
    let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    // Its own address is not known yet; the rest can be checked before anything is started.
    let text = configure(&text, daemon).with_context(|| file.display().to_string())?;
    Ok(Prometheus::start_with(Ports::Usual, |own| text.replace(OWN, &own.to_string()))?)
}

/// Prometheus' own address in its configuration.
const OWN: &str = "127.0.0.1:9090";

/// The demo is short: a scrape each 5 s instead of 15 s.
fn configure(text: &str, daemon: SocketAddr) -> Result<String> {
    let mut text = text.to_owned();
    let daemon = daemon.to_string();
    for (old, new) in [(OWN, OWN), ("127.0.0.1:9464", daemon.as_str()), ("scrape_interval: 15s", "scrape_interval: 5s")]
    {
        if !text.contains(old) {
            bail!("it has no `{old}` for the demo to replace");
        }
        text = text.replace(old, new);
    }
    Ok(text)
}

/// What one look at the daemon gives.
struct Look {
    at: Instant,
    samples: Vec<Sample>,
    routes: Routes,
    statements: Statements,
    usage: Usage,
}

impl Look {
    fn at(daemon: &Daemon) -> Result<Self> {
        let samples = daemon.scrape()?;
        let (routes, statements) = (metrics::routes(&samples), metrics::statements(&samples));
        Ok(Self { at: Instant::now(), routes, statements, samples, usage: Usage::of(daemon.child.id())? })
    }

    /// What happened since `old`.
    fn since(&self, old: &Self) -> Window {
        Window {
            seconds: self.at.duration_since(old.at).as_secs_f64(),
            routes: metrics::between(&old.routes, &self.routes),
            statements: metrics::statements_between(&old.statements, &self.statements),
            cost: self.cost_since(old),
        }
    }

    /// What the daemon spent since `old`, and what it lost.
    fn cost_since(&self, old: &Self) -> String {
        let grown = |name: &str| metrics::sum(&self.samples, name) - metrics::sum(&old.samples, name);
        let seconds = self.at.duration_since(old.at).as_secs_f64().max(1e-3);
        let cpu = 100.0 * (self.usage.cpu - old.usage.cpu) / seconds;
        let kernel = 100.0 * grown("rustok_obsd_ebpf_program_run_seconds_total") / seconds;
        format!(
            "rustok-obsd: {cpu:.1}% of a core, kernel programs {kernel:.2}%, {:.1} MB resident, {:.0} records/s, {:.0} lost",
            self.usage.resident / 1e6,
            grown("rustok_obsd_records_total") / seconds,
            metrics::sum(&self.samples, "rustok_obsd_records_lost_total"),
        )
    }
}

/// Shows the table until the time is over or we are to end; yields the number of requests seen.
fn watch(parts: &mut Parts, addresses: &[(&str, String)], time: Option<Duration>, stop: &Stop) -> Result<f64> {
    let started = Instant::now();
    let terminal = io::stdout().is_terminal();
    let every = Duration::from_secs(if terminal { 1 } else { 5 });
    let first = Look::at(&parts.daemon)?;
    let mut looks = VecDeque::new();
    let mut screen = Screen::new(terminal);
    let mut old = Look::at(&parts.daemon)?;
    loop {
        let left = time.map(|time| time.saturating_sub(started.elapsed()));
        if stop.requested() || left == Some(Duration::ZERO) {
            break;
        }
        stop.sleep(left.map_or(every, |left| left.min(every)));
        parts.check()?;
        let new = Look::at(&parts.daemon)?;
        looks.push_back(new);
        while looks.len() > 1 && looks[looks.len() - 1].at.duration_since(looks[0].at) >= WINDOW {
            if let Some(next) = looks.pop_front() {
                old = next;
            }
        }
        if let Some(new) = looks.back() {
            screen.draw(addresses, started.elapsed(), &new.since(&old))?;
        }
    }
    let last = looks.back().unwrap_or(&old);
    let whole = last.since(&first);
    screen.finish(&whole)?;
    Ok(whole.routes.values().map(|route| route.requests).sum())
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

    #[test]
    fn the_projects_prometheus_configuration_takes_the_demos_addresses() {
        let daemon = SocketAddr::from(([127, 0, 0, 1], 1111));
        let text = configure(include_str!("../../prometheus/prometheus.yml"), daemon).expect("all places are there");
        for part in ["127.0.0.1:1111", OWN, "scrape_interval: 5s"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert!(!text.contains("9464"), "each job scrapes the demo's daemon: {text}");
        assert!(configure("scrape_configs: []", daemon).is_err());
    }
}
