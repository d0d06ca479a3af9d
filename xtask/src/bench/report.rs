//! The table of `cargo xtask bench`.
//!
//! Reads: the runs. Yields: lines of text. Costs: nothing to speak of.

use std::fmt;

/// What the shop is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Requests without queries, or those of `--mix`.
    Hello,
    /// Requests with two queries each, over TLS.
    Database,
}

impl Part {
    /// All, in order.
    pub const ALL: [Self; 2] = [Self::Hello, Self::Database];

    /// In the order of a round.
    pub const fn variants(self) -> &'static [Variant] {
        match self {
            Self::Hello => &[Variant::Off, Variant::Metrics, Variant::On, Variant::InApp],
            Self::Database => &[
                Variant::Off,
                Variant::Http,
                Variant::Wire,
                Variant::Tasks,
                Variant::Sqlx,
                Variant::Results,
                Variant::Metrics,
                Variant::On,
                Variant::InApp,
            ],
        }
    }

    /// Queries of a request.
    pub const fn queries(self) -> f64 {
        match self {
            Self::Hello => 0.0,
            Self::Database => 2.0,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hello => "hello",
            Self::Database => "database",
        })
    }
}

/// What watches the shop. From [`Self::Http`] to [`Self::Metrics`] each does what the one before does, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    Off,
    /// The daemon, without the database.
    Http,
    /// The daemon, the database as its sockets tell it.
    Wire,
    /// The same with the uprobes that tell parents of tasks.
    Tasks,
    /// The same with the uprobes that tell statements.
    Sqlx,
    /// The same with the uprobes that tell what came of them.
    Results,
    /// The daemon as it is by default (with sea-orm's uprobes), metrics alone.
    Metrics,
    /// The same with spans.
    On,
    /// tracing-opentelemetry inside the app.
    InApp,
}

impl Variant {
    /// Flags of the daemon, where there is one.
    pub const fn daemon(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Off | Self::InApp => None,
            Self::Http => Some(&["--database.enabled=false"]),
            Self::Wire => Some(&["--database.probes=none"]),
            Self::Tasks => Some(&["--database.probes=tasks"]),
            Self::Sqlx => Some(&["--database.probes=tasks,sqlx"]),
            Self::Results => Some(&["--database.probes=tasks,sqlx,results"]),
            Self::Metrics | Self::On => Some(&[]),
        }
    }

    /// Whether queries are among what it watches, request apart.
    const fn has_queries(self) -> bool {
        !matches!(self, Self::Off | Self::Http | Self::InApp)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Off => "nothing",
            Self::Http => "rustok-obsd, HTTP alone",
            Self::Wire => "rustok-obsd, no database uprobes",
            Self::Tasks => "rustok-obsd, tasks",
            Self::Sqlx => "rustok-obsd, tasks+sqlx",
            Self::Results => "rustok-obsd, tasks+sqlx+results",
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
    /// Queries that it counted, per request that the client counted.
    pub queries: f64,
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
    /// When.
    pub round: u32,
    /// Requests per second.
    pub per_second: f64,
    /// Latency that the client saw, seconds.
    pub p99: f64,
    /// CPU of the shop's process, user mode and kernel with what probes add there, µs per request.
    pub shop_us: f64,
    /// The same of a shop that nobody watched, under the same load at the same time, where there was one.
    pub twin_us: Option<f64>,
    /// CPU of Jaeger, µs per request.
    pub jaeger_us: f64,
    /// Where the daemon was on.
    pub cost: Option<Cost>,
}

/// Throughput, latency and CPU by variant with ratios to the shop alone, then the daemon's cost.
pub fn table(part: Part, runs: &[Run]) -> Vec<String> {
    let of = |variant: Variant, value: fn(&Run) -> f64| -> Vec<f64> {
        runs.iter().filter(|run| run.variant == variant).map(value).collect()
    };
    let ratio = |middle: f64, value: fn(&Run) -> f64| {
        median(of(Variant::Off, value)).map_or_else(|| "-".to_owned(), |alone| format!("{:.3}", middle / alone))
    };
    let mut header = format!(
        "{:<34}{:>8}{:>7}{:>8}{:>9}{:>7}{:>8}{:>8}{:>8}",
        part.to_string() + ", watched by",
        "req/s",
        "ratio",
        "P99 ms",
        "shop µs",
        "ratio",
        "+ µs",
        "min",
        "max"
    );
    if part.queries() > 0.0 {
        header += &format!("{:>9}{:>10}", "+/query", "of query");
    }
    header += &format!("{:>11}{:>11}", "daemon µs", "Jaeger µs");
    let mut lines = vec![header];
    for &variant in part.variants() {
        let (Some(rate), Some(p99), Some(shop), Some(jaeger)) = (
            median(of(variant, |run| run.per_second)),
            median(of(variant, |run| run.p99)),
            median(of(variant, |run| run.shop_us)),
            median(of(variant, |run| run.jaeger_us)),
        ) else {
            continue;
        };
        let mut line = format!(
            "{variant:<34}{rate:>8.0}{:>7}{:>8.2}{shop:>9.2}{:>7}",
            ratio(rate, |run| run.per_second),
            p99 * 1e3,
            match median(beside_twins(runs, variant, |shop, twin| shop / twin)) {
                Some(ratio) => format!("{ratio:.3}"),
                None => ratio(shop, |run| run.shop_us),
            },
        );
        let more = above_nothing(runs, variant);
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let (min, max) = (more.iter().copied().reduce(f64::min), more.iter().copied().reduce(f64::max));
        let more = median(more);
        line += &format!("{:>8}{:>8}{:>8}", number(more), number(min), number(max));
        if part.queries() > 0.0 {
            let http = median(differences(runs, variant, Variant::Http)).filter(|_| variant.has_queries());
            let each = |value: Option<f64>| number(value.map(|value| value / part.queries()));
            line += &format!("{:>9}{:>10}", each(more), each(http));
        }
        let daemon = runs.iter().filter(|run| run.variant == variant).filter_map(|run| run.cost.as_ref());
        let daemon = median(daemon.map(|cost| cost.user_us + cost.system_us).collect());
        lines.push(line + &format!("{:>11}{jaeger:>11.2}", number(daemon)));
    }
    for &variant in part.variants() {
        let costs: Vec<&Cost> =
            runs.iter().filter(|run| run.variant == variant).filter_map(|run| run.cost.as_ref()).collect();
        lines.extend(daemon(part, variant, &costs));
    }
    lines
}

/// What a variant costs the shop, µs of its CPU per request, in each round: above its twin at the same time, else above
/// the shop alone in the same round.
fn above_nothing(runs: &[Run], variant: Variant) -> Vec<f64> {
    let twins = beside_twins(runs, variant, |shop, twin| shop - twin);
    if twins.is_empty() && variant != Variant::Off { differences(runs, variant, Variant::Off) } else { twins }
}

/// The shop's µs and its twin's, in each round of a variant that has both.
fn beside_twins(runs: &[Run], variant: Variant, compare: fn(f64, f64) -> f64) -> Vec<f64> {
    let runs = runs.iter().filter(|run| run.variant == variant);
    runs.filter_map(|run| Some(compare(run.shop_us, run.twin_us?))).collect()
}

/// What a variant costs the shop above another, µs of its CPU per request, in each round that has both.
fn differences(runs: &[Run], variant: Variant, other: Variant) -> Vec<f64> {
    let of = |variant: Variant, round: u32| {
        let run = runs.iter().find(|run| run.variant == variant && run.round == round)?;
        Some(run.shop_us - run.twin_us.unwrap_or_default())
    };
    let rounds = runs.iter().filter(|run| run.variant == variant).map(|run| run.round);
    rounds.filter_map(|round| Some(of(variant, round)? - of(other, round)?)).collect()
}

/// What the daemon spent on the runs of one variant.
fn daemon(part: Part, variant: Variant, costs: &[&Cost]) -> Vec<String> {
    let Some(last) = costs.last() else {
        return Vec::new();
    };
    let middle = |part: fn(&Cost) -> f64| median(costs.iter().map(|cost| part(cost)).collect()).unwrap_or_default();
    let queries = if part.queries() > 0.0 {
        format!(", {:.4} of each query", middle(|cost| cost.queries) / part.queries())
    } else {
        String::new()
    };
    let mut lines = vec![
        String::new(),
        format!(
            "{variant}: {:.2} µs of CPU in user mode and {:.2} µs in the kernel per request, {:.1} MB resident",
            middle(|cost| cost.user_us),
            middle(|cost| cost.system_us),
            middle(|cost| cost.resident) / 1e6,
        ),
        format!(
            "    seen {:.4} of each request sent{queries}; {:.4} spans exported per request; {:.0} records lost",
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

    fn run(variant: Variant, round: u32, per_second: f64) -> Run {
        let program = |name: &str| Program { name: name.into(), runs: 2.0, ns: 700.0 };
        let cost = Cost {
            programs: vec![program("send"), program("receive")],
            user_us: 4.0,
            system_us: 1.0,
            resident: 2e7,
            seen: 1.0,
            queries: 2.0,
            spans: 0.5,
            lost: 1.0,
        };
        let shop_us = if variant == Variant::Off { 50.0 } else { 55.0 };
        let cost = (variant == Variant::On).then_some(cost);
        Run { variant, round, per_second, p99: 0.002, shop_us, twin_us: None, jaeger_us: 0.0, cost }
    }

    #[test]
    fn a_ratio_is_between_medians_of_one_run() {
        let runs = [
            run(Variant::Off, 1, 1000.0),
            run(Variant::On, 1, 900.0),
            run(Variant::Off, 2, 3000.0),
            run(Variant::On, 2, 950.0),
            run(Variant::Off, 3, 1100.0),
            run(Variant::On, 3, 1045.0),
        ];
        let lines = table(Part::Hello, &runs);
        assert!(lines[1].contains(" 1.000 ") && lines[1].contains("1100"), "{lines:?}");
        assert!(lines[2].starts_with("rustok-obsd") && lines[2].contains("0.864"), "{lines:?}");
        assert!(lines[2].contains(" 1.100 "), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("1400 ns and 4.00 runs per request")), "{lines:?}");
        assert!(lines.iter().any(|line| line.ends_with("3 records lost")), "{lines:?}");
    }

    #[test]
    fn a_kernel_that_counts_no_run_times_is_not_a_free_one() {
        let mut unknown = run(Variant::On, 1, 1.0);
        unknown.cost = unknown.cost.map(|cost| Cost { programs: Vec::new(), ..cost });
        let lines = table(Part::Hello, &[unknown]);
        assert!(lines.iter().any(|line| line.contains("bpf_stats_enabled")), "{lines:?}");
        assert!(lines[1].contains(" - "), "without a run alone there is no ratio: {lines:?}");
    }

    #[test]
    fn differences_are_within_a_round_and_a_query_costs_half_of_what_comes_on_top_of_http() {
        // A machine that slows down from round to round, and once for a moment.
        let rounds = [(1, 50.0, 60.0, 80.0), (2, 90.0, 101.0, 120.0), (3, 70.0, 79.0, 199.0)];
        let of = |variant, round, shop_us| Run { shop_us, ..run(variant, round, 1000.0) };
        let runs: Vec<Run> = rounds
            .into_iter()
            .flat_map(|(round, off, http, all)| {
                [of(Variant::Off, round, off), of(Variant::Http, round, http), of(Variant::Metrics, round, all)]
            })
            .collect();
        let lines = table(Part::Database, &runs);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let [off, http, all] = [1, 2, 3].map(|at| words(&lines[at]));
        assert_eq!(off[6..], ["-", "-", "-", "-", "-", "-", "0.00"], "{lines:?}");
        assert_eq!(http[8..], ["10.00", "9.00", "11.00", "5.00", "-", "-", "0.00"], "{lines:?}");
        assert_eq!(all[8..], ["30.00", "30.00", "129.00", "15.00", "10.00", "-", "0.00"], "{lines:?}");
        assert!(lines[0].ends_with("max  +/query  of query  daemon µs  Jaeger µs"), "{lines:?}");
        assert!(!table(Part::Hello, &runs)[0].contains("query"));
    }

    #[test]
    fn a_twin_at_the_same_time_counts_before_a_shop_at_another() {
        let of = |variant, round, shop_us, twin_us| Run { shop_us, twin_us: Some(twin_us), ..run(variant, round, 1.0) };
        let runs = [
            of(Variant::Off, 1, 50.0, 49.0),
            of(Variant::Http, 1, 104.0, 100.0),
            of(Variant::Metrics, 1, 70.0, 60.0),
            of(Variant::Off, 2, 90.0, 91.0),
            of(Variant::Http, 2, 54.0, 50.0),
            of(Variant::Metrics, 2, 110.0, 98.0),
        ];
        assert_eq!(above_nothing(&runs, Variant::Off), [1.0, -1.0], "the error of the method");
        assert_eq!(above_nothing(&runs, Variant::Metrics), [10.0, 12.0]);
        assert_eq!(beside_twins(&runs, Variant::Http, |shop, twin| shop / twin), [1.04, 1.08]);
        assert!(table(Part::Database, &runs)[2].contains(" 1.060 "), "{:?}", table(Part::Database, &runs));
        assert_eq!(differences(&runs, Variant::Metrics, Variant::Http), [6.0, 8.0]);
    }

    #[test]
    fn a_daemon_tells_the_share_of_queries_that_it_saw_where_there_are_any() {
        let tells = |part, what: &str| table(part, &[run(Variant::On, 1, 1.0)]).iter().any(|line| line.contains(what));
        assert!(tells(Part::Database, "seen 1.0000 of each request sent, 1.0000 of each query; 0.5000 spans"));
        assert!(tells(Part::Hello, "seen 1.0000 of each request sent; 0.5000 spans"));
    }

    #[test]
    fn each_variant_of_the_database_adds_to_the_one_before() {
        let sets = |variant: Variant| variant.daemon().map(|flags| flags.join(" "));
        let told: Vec<String> = Part::Database.variants().iter().filter_map(|variant| sets(*variant)).collect();
        assert_eq!(told.len(), 7);
        for (fewer, more) in told[1..4].iter().zip(&told[2..5]) {
            assert!(more.starts_with(fewer.trim_end_matches("none")), "{told:?}");
        }
        assert!(told[5..].iter().all(String::is_empty), "{told:?}");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }
}
