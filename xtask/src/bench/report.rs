//! The table of `cargo xtask bench`.
//!
//! Reads: the runs. Yields: lines of text. Costs: nothing to speak of.

use std::fmt;

/// What watches the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    Off,
    /// The daemon, metrics alone.
    Metrics,
    /// The daemon, metrics and a span per request.
    On,
    /// tracing-opentelemetry inside the app.
    InApp,
}

/// All, in the order of a round.
pub const VARIANTS: [Variant; 4] = [Variant::Off, Variant::Metrics, Variant::On, Variant::InApp];

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "nothing",
            Self::Metrics => "rustok-obsd, metrics alone",
            Self::On => "rustok-obsd, metrics and traces",
            Self::InApp => "tracing-opentelemetry in the app",
        })
    }
}

/// What the daemon spent on a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// Runs per request, and seconds, of each kernel program; empty where the kernel does not count them.
    pub programs: Vec<Program>,
    /// CPU of the daemon's process in user mode, µs per request.
    pub user_us: f64,
    /// CPU of the daemon's process in the kernel, µs per request.
    pub system_us: f64,
    /// Its memory at the end, bytes.
    pub resident: f64,
    /// Requests that it counted, per request that the client counted.
    pub seen: f64,
    /// Spans that reached Jaeger, per request.
    pub spans: f64,
    /// Records lost.
    pub lost: f64,
}

/// A kernel program.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Runs per request: of all processes, that of the load as well.
    pub runs: f64,
    /// Nanoseconds per request.
    pub ns: f64,
}

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What watched.
    pub variant: Variant,
    /// Requests per second.
    pub per_second: f64,
    /// Latency that the client saw, seconds.
    pub p99: f64,
    /// CPU of the shop's process, user mode and kernel with what probes add there, µs per request.
    pub shop_us: f64,
    /// CPU of Jaeger, µs per request.
    pub jaeger_us: f64,
    /// Where the daemon was on.
    pub cost: Option<Cost>,
}

/// Throughput, latency and CPU by variant with ratios to the shop alone, then the daemon's cost.
pub fn table(runs: &[Run]) -> Vec<String> {
    let of = |variant: Variant, part: fn(&Run) -> f64| -> Vec<f64> {
        runs.iter().filter(|run| run.variant == variant).map(part).collect()
    };
    let ratio = |middle: f64, part: fn(&Run) -> f64| {
        median(of(Variant::Off, part)).map_or_else(|| "-".to_owned(), |alone| format!("{:.3}", middle / alone))
    };
    let mut lines = vec![format!(
        "{:<34}{:>9}{:>9}{:>9}{:>7}{:>9}{:>9}{:>7}{:>11}",
        "watched by", "req/s", "min", "max", "ratio", "P99 ms", "shop µs", "ratio", "Jaeger µs"
    )];
    for variant in VARIANTS {
        let rates = of(variant, |run| run.per_second);
        let (min, max) =
            rates.iter().fold((f64::INFINITY, 0.0_f64), |(min, max), rate| (min.min(*rate), max.max(*rate)));
        let (Some(rate), Some(p99), Some(shop), Some(jaeger)) = (
            median(rates),
            median(of(variant, |run| run.p99)),
            median(of(variant, |run| run.shop_us)),
            median(of(variant, |run| run.jaeger_us)),
        ) else {
            continue;
        };
        lines.push(format!(
            "{variant:<34}{rate:>9.0}{min:>9.0}{max:>9.0}{:>7}{:>9.2}{shop:>9.2}{:>7}{jaeger:>11.2}",
            ratio(rate, |run| run.per_second),
            p99 * 1e3,
            ratio(shop, |run| run.shop_us),
        ));
    }
    for variant in [Variant::Metrics, Variant::On] {
        let costs: Vec<&Cost> =
            runs.iter().filter(|run| run.variant == variant).filter_map(|run| run.cost.as_ref()).collect();
        lines.extend(daemon(variant, &costs));
    }
    lines
}

/// What the daemon spent on the runs of one variant.
fn daemon(variant: Variant, costs: &[&Cost]) -> Vec<String> {
    let Some(last) = costs.last() else {
        return Vec::new();
    };
    let middle = |part: fn(&Cost) -> f64| median(costs.iter().map(|cost| part(cost)).collect()).unwrap_or_default();
    let mut lines = vec![
        String::new(),
        format!(
            "{variant}: {:.2} µs of CPU in user mode and {:.2} µs in the kernel per request, {:.1} MB resident",
            middle(|cost| cost.user_us),
            middle(|cost| cost.system_us),
            middle(|cost| cost.resident) / 1e6,
        ),
        format!(
            "    seen {:.4} and exported {:.4} of each request sent; {:.0} records lost",
            middle(|cost| cost.seen),
            middle(|cost| cost.spans),
            costs.iter().map(|cost| cost.lost).sum::<f64>(),
        ),
    ];
    if costs.iter().all(|cost| cost.programs.is_empty()) {
        lines.push("    kernel programs: unknown, the kernel counts no run times (kernel.bpf_stats_enabled)".into());
        return lines;
    }
    let sum =
        |part: fn(&Program) -> f64| median(costs.iter().map(|cost| cost.programs.iter().map(part).sum()).collect());
    let (ns, runs) = (sum(|program| program.ns), sum(|program| program.runs));
    lines.push(format!(
        "    kernel programs: {:.0} ns and {:.2} runs per request, in the last round:",
        ns.unwrap_or_default(),
        runs.unwrap_or_default()
    ));
    lines.extend(last.programs.iter().filter(|program| program.runs >= 0.01).map(|program| {
        let Program { name, runs, ns } = program;
        format!("        {name:<22}{runs:>6.2} runs × {:>5.0} ns = {ns:>5.0} ns", ns / runs)
    }));
    lines
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(variant: Variant, per_second: f64) -> Run {
        let program = |name: &str| Program { name: name.into(), runs: 2.0, ns: 700.0 };
        let cost = Cost {
            programs: vec![program("send"), program("receive")],
            user_us: 4.0,
            system_us: 1.0,
            resident: 2e7,
            seen: 1.0,
            spans: 0.5,
            lost: 1.0,
        };
        let shop_us = if variant == Variant::Off { 50.0 } else { 55.0 };
        let cost = (variant == Variant::On).then_some(cost);
        Run { variant, per_second, p99: 0.002, shop_us, jaeger_us: 0.0, cost }
    }

    #[test]
    fn a_ratio_is_between_medians_of_one_run() {
        let runs = [
            run(Variant::Off, 1000.0),
            run(Variant::On, 900.0),
            run(Variant::Off, 3000.0),
            run(Variant::On, 950.0),
            run(Variant::Off, 1100.0),
            run(Variant::On, 1045.0),
        ];
        let lines = table(&runs);
        assert!(lines[1].contains(" 1.000 ") && lines[1].contains("1100"), "{lines:?}");
        assert!(lines[2].starts_with("rustok-obsd") && lines[2].contains("0.864"), "{lines:?}");
        assert!(lines[2].contains(" 1.100 "), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("1400 ns and 4.00 runs per request")), "{lines:?}");
        assert!(lines.iter().any(|line| line.ends_with("3 records lost")), "{lines:?}");
    }

    #[test]
    fn a_kernel_that_counts_no_run_times_is_not_a_free_one() {
        let mut unknown = run(Variant::On, 1.0);
        unknown.cost = unknown.cost.map(|cost| Cost { programs: Vec::new(), ..cost });
        let lines = table(&[unknown]);
        assert!(lines.iter().any(|line| line.contains("bpf_stats_enabled")), "{lines:?}");
        assert!(lines[1].contains(" - "), "without a run alone there is no ratio: {lines:?}");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
