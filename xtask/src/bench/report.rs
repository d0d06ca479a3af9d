//! The table of `cargo xtask bench`.
//!
//! Reads: the runs. Yields: lines of text. Costs: nothing to speak of.

use std::fmt;

/// What watches the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    Off,
    /// The daemon.
    On,
    /// tracing-opentelemetry inside the app.
    InApp,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "nothing",
            Self::On => "rustok-obsd",
            Self::InApp => "tracing-opentelemetry in the app",
        })
    }
}

/// What the daemon spent on a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Time in kernel programs, ns per request.
    pub kernel_ns: Option<f64>,
    /// Runs of kernel programs per request.
    pub kernel_runs: Option<f64>,
    /// CPU of the daemon's process in user mode, µs per request.
    pub user_us: f64,
    /// CPU of the daemon's process in the kernel, µs per request.
    pub system_us: f64,
    /// Its memory at the end, bytes.
    pub resident: f64,
    /// Requests that it counted, per request that the client counted.
    pub seen: f64,
    /// Records lost.
    pub lost: f64,
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// What watched.
    pub variant: Variant,
    /// Requests per second.
    pub per_second: f64,
    /// Latency that the client saw, seconds.
    pub p99: f64,
    /// CPU of the shop's process, user mode and kernel with what probes add there, µs per request.
    pub shop_us: f64,
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
        "{:<34}{:>9}{:>9}{:>9}{:>8}{:>9}{:>11}{:>8}",
        "watched by", "req/s", "min", "max", "ratio", "P99 ms", "shop µs/rq", "ratio"
    )];
    for variant in [Variant::Off, Variant::On, Variant::InApp] {
        let rates = of(variant, |run| run.per_second);
        let (min, max) =
            rates.iter().fold((f64::INFINITY, 0.0_f64), |(min, max), rate| (min.min(*rate), max.max(*rate)));
        let (Some(rate), Some(p99), Some(shop)) =
            (median(rates), median(of(variant, |run| run.p99)), median(of(variant, |run| run.shop_us)))
        else {
            continue;
        };
        lines.push(format!(
            "{variant:<34}{rate:>9.0}{min:>9.0}{max:>9.0}{:>8}{:>9.2}{shop:>11.2}{:>8}",
            ratio(rate, |run| run.per_second),
            p99 * 1e3,
            ratio(shop, |run| run.shop_us),
        ));
    }
    let costs: Vec<Cost> = runs.iter().filter_map(|run| run.cost).collect();
    let middle = |part: fn(&Cost) -> Option<f64>| median(costs.iter().filter_map(part).collect());
    let (Some(user), Some(system), Some(resident), Some(seen)) = (
        middle(|cost| Some(cost.user_us)),
        middle(|cost| Some(cost.system_us)),
        middle(|cost| Some(cost.resident)),
        middle(|cost| Some(cost.seen)),
    ) else {
        return lines;
    };
    lines.push(String::new());
    match (middle(|cost| cost.kernel_ns), middle(|cost| cost.kernel_runs)) {
        (Some(ns), Some(hits)) => lines.push(format!("kernel programs: {ns:.0} ns and {hits:.2} runs per request")),
        _ => lines.push("kernel programs: unknown, the kernel counts no run times (kernel.bpf_stats_enabled)".into()),
    }
    lines.push(format!(
        "daemon: {user:.2} µs of CPU in user mode and {system:.2} µs in the kernel per request, {:.1} MB resident",
        resident / 1e6
    ));
    let lost = costs.iter().map(|cost| cost.lost).sum::<f64>();
    lines.push(format!("requests seen by the daemon per request sent: {seen:.4}; records lost: {lost:.0}"));
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
        let cost = Cost {
            kernel_ns: Some(700.0),
            kernel_runs: Some(2.0),
            user_us: 4.0,
            system_us: 1.0,
            resident: 2e7,
            seen: 1.0,
            lost: 1.0,
        };
        let shop_us = if variant == Variant::Off { 50.0 } else { 55.0 };
        Run { variant, per_second, p99: 0.002, shop_us, cost: (variant == Variant::On).then_some(cost) }
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
        assert!(lines[1].ends_with("1.000") && lines[1].contains("1100"), "{lines:?}");
        assert!(lines[2].starts_with("rustok-obsd") && lines[2].contains("0.864"), "{lines:?}");
        assert!(lines[2].ends_with("1.100"), "{lines:?}");
        assert!(lines.contains(&"kernel programs: 700 ns and 2.00 runs per request".to_owned()), "{lines:?}");
        assert!(lines.iter().any(|line| line.ends_with("records lost: 3")), "{lines:?}");
    }

    #[test]
    fn a_kernel_that_counts_no_run_times_is_not_a_free_one() {
        let mut unknown = run(Variant::On, 1.0);
        unknown.cost = unknown.cost.map(|cost| Cost { kernel_ns: None, kernel_runs: None, ..cost });
        let lines = table(&[unknown]);
        assert!(lines.iter().any(|line| line.contains("bpf_stats_enabled")), "{lines:?}");
        assert!(lines[1].ends_with('-'), "without a run alone there is no ratio: {lines:?}");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
