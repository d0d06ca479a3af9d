//! node_exporter beside us on this machine: theirs, ours, theirs again.
//!
//! Reads: both expositions. Yields: fails where a family, its type, its HELP or its label sets differ; where a counter of ours
//! is outside what theirs was before and after; where a gauge is further off than its tolerance.
//!
//! Only collectors that we have built are asked of both.

use rustok_obsd::config::collector::Collectors;
use rustok_obsd::exposition::{Format, Scrape, to_text_of};
use rustok_obsd::host::{COLLECTORS, Host, Settings};
use std::collections::BTreeSet;
use test_support::{LabelMap, NodeExporter, Scraped, ScrapedFamily, skip};

/// Families (whole names, or prefixes that end in `*`) that one side alone has, and why.
const ONE_SIDED: &[(&str, &str)] = &[
    ("go_*", "their runtime"),
    ("process_*", "the process itself; ours come with the daemon's"),
    ("promhttp_*", "their HTTP library"),
    ("rustok_obsd_*", "ours about ourselves"),
    ("node_ksmd_general_profit_bytes", "newer than their release; it is in the fixtures"),
    ("node_filesystem_purgeable_bytes", "only macOS has it; on Linux theirs is 0 for each mount"),
];

/// Families whose values, or label sets, are not compared.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("node_scrape_collector_duration_seconds", "each one's own time"),
    ("node_textfile_mtime_seconds", "no folder is given"),
    ("node_exporter_build_info", "each one's own build"),
];

/// Families whose HELP is another one on purpose, and why.
const OTHER_HELP: &[(&str, &str)] = &[("node_ksmd_*", "that of the fixtures, which are newer than their release")];

/// How far a gauge may be off: relative, then absolute. What is not listed is exact, or between the two of theirs.
const TOLERANCES: &[(&str, f64, f64)] = &[
    ("node_memory_*", 0.05, 64e6),
    ("node_filesystem_avail_bytes", 0.05, 256e6),
    ("node_filesystem_free_bytes", 0.05, 256e6),
    ("node_filesystem_files_free", 0.05, 10_000.0),
    ("node_load*", 0.1, 1.0),
    ("node_procs_*", 0.0, 64.0),
    ("node_processes_*", 0.2, 64.0),
    ("node_sockstat_*", 0.2, 512.0),
    ("node_filefd_allocated", 0.2, 512.0),
    ("node_tcp_connection_states", 0.2, 1e6),
    ("node_udp_queues", 0.2, 1e6),
    ("node_netstat_Tcp_CurrEstab", 0.2, 64.0),
    ("node_nf_conntrack_*", 0.2, 64.0),
    ("node_entropy_available_bits", 0.0, 256.0),
    ("node_arp_entries", 0.0, 4.0),
    ("node_disk_io_now", 0.0, 64.0),
    ("node_softnet_backlog_len", 0.0, 64.0),
    ("node_cpu_*hertz", 0.5, 0.0),
    ("node_timex_*", 0.05, 0.1),
    ("node_slabinfo_*", 0.5, 10_000.0),
    ("node_buddyinfo_blocks", 0.5, 10_000.0),
    ("node_zoneinfo_*", 0.2, 100_000.0),
    ("node_hwmon_*", 0.2, 5.0),
    ("node_thermal_*", 0.2, 5.0),
];

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => name.starts_with(start) && name.ends_with(end),
        None => name == pattern,
    }
}

fn listed(list: &[(&str, &str)], name: &str) -> bool {
    list.iter().any(|(pattern, _)| fits(pattern, name))
}

#[test]
fn beside_node_exporter_names_labels_and_values_are_the_same() {
    const TEST: &str = "beside_node_exporter_names_labels_and_values_are_the_same";
    // Those that ask other programs are other tests', and theirs has no `otel`.
    let apart = ["systemd", "logind", "otel"];
    let built = || COLLECTORS.iter().map(|entry| entry.name).filter(|name| !apart.contains(name));
    let mut flags = vec!["--collector.disable-defaults".to_owned(), "--collector.stat.softirq".into()];
    flags.extend(built().map(|name| format!("--collector.{name}")));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let theirs = match NodeExporter::start(&flags) {
        Ok(theirs) => theirs,
        Err(reason) => return skip(TEST, reason),
    };
    let options = Collectors {
        disable_defaults: true,
        enable: built().map(ToOwned::to_owned).collect(),
        stat_softirq: true,
        ..Collectors::default()
    };
    let host = Host::new(&Settings { options, ..Settings::default() });
    let ours = || Scraped::parse(&to_text_of(&host, &Scrape::default(), Format::Text)).expect("ours is text format");
    let scrape = || Scraped::parse(&theirs.metrics().expect("their metrics")).expect("theirs is text format");
    // Theirs counts the connection on which it answers; so that ours has one too:
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let _client = std::net::TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    // Both once for what is only made at first.
    let _ = (scrape(), ours());
    // A machine that others use changes: a difference must be there each time.
    let mut lasting: Option<BTreeSet<String>> = None;
    for _ in 0..3 {
        let (before, ours, after) = (scrape(), ours(), scrape());
        let wrong = differences(&before, &ours, &after);
        let kept = match lasting {
            Some(lasting) => {
                lasting.into_iter().filter(|known| wrong.iter().any(|now| key(now) == key(known))).collect()
            }
            None => wrong,
        };
        println!("{} families of theirs, {} of ours", before.families.len(), ours.families.len());
        if kept.is_empty() {
            return;
        }
        lasting = Some(kept);
    }
    let lasting = lasting.unwrap_or_default();
    lasting.iter().for_each(|line| println!("    {line}"));
    panic!("{} differences, see above", lasting.len());
}

/// Family and kind of a difference, without its values.
fn key(difference: &str) -> &str {
    difference.split(':').next().unwrap_or(difference)
}

fn differences(before: &Scraped, ours: &Scraped, after: &Scraped) -> BTreeSet<String> {
    let mut wrong = BTreeSet::new();
    let names: BTreeSet<&String> = before.families.keys().chain(ours.families.keys()).collect();
    for name in names {
        match (before.families.get(name), ours.families.get(name), after.families.get(name)) {
            // What is there for a moment only.
            (Some(_), None, None) | (None, Some(_), Some(_)) => {}
            (Some(theirs), Some(ours), Some(after)) if !listed(NOT_COMPARED, name) => {
                family(name, theirs, ours, after, &mut wrong);
            }
            (Some(_), None, _) if !listed(ONE_SIDED, name) => drop(wrong.insert(format!("{name} is theirs alone"))),
            (None, Some(_), _) if !listed(ONE_SIDED, name) => drop(wrong.insert(format!("{name} is ours alone"))),
            _ => {}
        }
    }
    wrong
}

fn family(
    name: &str,
    before: &ScrapedFamily,
    ours: &ScrapedFamily,
    after: &ScrapedFamily,
    wrong: &mut BTreeSet<String>,
) {
    if ours.kind != before.kind {
        wrong.insert(format!("{name} type: {} instead of {}", ours.kind, before.kind));
    }
    if ours.help != before.help && !listed(OTHER_HELP, name) {
        wrong.insert(format!("{name} HELP: {:?} instead of {:?}", ours.help, before.help));
    }
    for (series, ours) in &ours.samples {
        let Some(first) = before.samples.get(series) else {
            if !after.samples.contains_key(series) {
                wrong.insert(format!("{name} series of ours alone: {series:?}"));
            }
            continue;
        };
        let last = after.samples.get(series).unwrap_or(first);
        if !agree(name, *first, *ours, *last) {
            wrong.insert(format!("{name} value: {ours} of {:?} is not within [{first}, {last}]", series.1));
        }
    }
    let missing =
        |series: &&(String, LabelMap)| !ours.samples.contains_key(*series) && after.samples.contains_key(*series);
    for series in before.samples.keys().filter(missing) {
        wrong.insert(format!("{name} series of theirs alone: {series:?}"));
    }
}

/// Whether `ours` is between the two of theirs, but for rounding and the family's tolerance.
fn agree(name: &str, first: f64, ours: f64, last: f64) -> bool {
    if ours.is_nan() {
        return first.is_nan();
    }
    let rounding = ours.abs() * 1e-9 + 1e-9;
    let tolerance = TOLERANCES.iter().find(|(pattern, ..)| fits(pattern, name));
    let slack = tolerance.map_or(0.0, |(_, relative, absolute)| (ours.abs() * relative).max(*absolute)) + rounding;
    first.min(last) - slack <= ours && ours <= first.max(last) + slack
}

#[test]
fn a_value_outside_of_theirs_is_no_agreement() {
    assert!(agree("node_forks_total", 1.0, 2.0, 3.0) && agree("node_forks_total", 2.0, 2.0, 2.0));
    assert!(!agree("node_forks_total", 1.0, 4.0, 3.0) && !agree("node_forks_total", 1.0, 0.0, 3.0));
    assert!(agree("node_load1", 1.0, 1.5, 1.0) && !agree("node_load1", 1.0, 2.5, 1.0));
    assert!(!agree("node_os_version", 12.0, 11.0, 12.0) && !agree("x", 1.0, f64::NAN, 1.0));
    assert!(fits("node_cpu_*hertz", "node_cpu_scaling_frequency_hertz") && !fits("node_load", "node_load1"));
}
