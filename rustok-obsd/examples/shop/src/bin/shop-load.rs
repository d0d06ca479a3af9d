//! `shop-load`: the client's command line. Prints a JSON summary in the end.

use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use shop::load::mix::Mix;
use shop::load::report::Log;
use shop::load::{Options, run};

/// Load for the shop: mixed HTTP/1.1 traffic whose answers are known
#[derive(Parser)]
#[command(version)]
struct Args {
    /// http://HOST:PORT of the shop
    #[arg(long)]
    target: String,
    /// Connections kept busy
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// How long, such as 30s, 500ms or 2m [default: 10s without --requests]
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// How many requests
    #[arg(long)]
    requests: Option<u64>,
    /// Requests per second in total [default: as fast as answers come]
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Write each request, as JSON lines, to this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Seed of the generator: the same seed sends the same requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which traffic
    #[arg(long, value_enum, default_value_t = Mix::All)]
    mix: Mix,
    /// Tokio worker threads [default: one per CPU]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: Option<u32>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let host = args.target.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let host = host.with_context(|| format!("--target {}: must be http://HOST:PORT", args.target))?;
    let mut addrs =
        host.to_socket_addrs().with_context(|| format!("--target {}: must be http://HOST:PORT", args.target))?;
    let addr = addrs.next().with_context(|| format!("--target {}: the host has no address", args.target))?;
    let unbounded = args.duration.is_none() && args.requests.is_none();
    let options = Options {
        addr,
        concurrency: args.concurrency,
        requests: args.requests,
        duration: args.duration.or(unbounded.then_some(Duration::from_secs(10))),
        rate: args.rate,
        seed: args.seed,
        mix: args.mix,
    };
    let log = args.log.as_deref().map(Log::create).transpose()?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = args.workers {
        runtime.worker_threads(workers as usize);
    }
    let summary = runtime.enable_all().build()?.block_on(run(&options, log))?;
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        other => return Err(format!("unknown unit {other:?}: use ms, s or m")),
    };
    let seconds = number.parse::<f64>().map_err(|error| format!("{number:?}: {error}"))? * unit;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("must be a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["30", "s", "", "-1s", "10h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_is_a_number_above_zero() {
        assert_eq!(rate("2.5"), Ok(2.5));
        for bad in ["0", "-3", "inf", "NaN", "x"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
