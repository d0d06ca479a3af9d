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
    /// CPU of the daemon's process, µs per request.
    pub daemon_us: f64,
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
    /// Where the daemon was on.
    pub cost: Option<Cost>,
}

/// Throughput by variant with its ratio to the shop alone, then the daemon's cost.
pub fn table(runs: &[Run]) -> Vec<String> {
    let throughput = |variant: Variant| runs.iter().filter(move |run| run.variant == variant).map(|run| run.per_second);
    let alone = median(throughput(Variant::Off).collect());
    let mut lines = vec![format!("{:<34}{:>10}{:>10}{:>10}{:>10}", "watched by", "req/s", "min", "max", "ratio")];
    for variant in [Variant::Off, Variant::On, Variant::InApp] {
        let Some(middle) = median(throughput(variant).collect()) else {
            continue;
        };
        let min = throughput(variant).fold(f64::INFINITY, f64::min);
        let max = throughput(variant).fold(0.0, f64::max);
        let ratio = alone.map_or_else(|| "-".to_owned(), |alone| format!("{:.3}", middle / alone));
        lines.push(format!("{variant:<34}{middle:>10.0}{min:>10.0}{max:>10.0}{ratio:>10}"));
    }
    let costs: Vec<Cost> = runs.iter().filter_map(|run| run.cost).collect();
    if costs.is_empty() {
        return lines;
    }
    let middle = |part: fn(&Cost) -> Option<f64>| median(costs.iter().filter_map(part).collect());
    lines.push(String::new());
    match (middle(|cost| cost.kernel_ns), middle(|cost| cost.kernel_runs)) {
        (Some(ns), Some(hits)) => lines.push(format!("kernel programs: {ns:.0} ns and {hits:.2} runs per request")),
        _ => lines.push("kernel programs: unknown, the kernel counts no run times (kernel.bpf_stats_enabled)".into()),
    }
    if let Some(us) = middle(|cost| Some(cost.daemon_us)) {
        lines.push(format!("daemon: {us:.2} µs of CPU per request"));
    }
    lines.push(format!("records lost: {:.0}", costs.iter().map(|cost| cost.lost).sum::<f64>()));
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
        let cost = Cost { kernel_ns: Some(700.0), kernel_runs: Some(2.0), daemon_us: 4.0, lost: 1.0 };
        Run { variant, per_second, cost: (variant == Variant::On).then_some(cost) }
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
        assert!(lines[2].starts_with("rustok-obsd") && lines[2].ends_with("0.864"), "{lines:?}");
        assert!(lines.contains(&"kernel programs: 700 ns and 2.00 runs per request".to_owned()), "{lines:?}");
        assert!(lines.contains(&"records lost: 3".to_owned()), "{lines:?}");
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
