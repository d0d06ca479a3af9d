//! 1860 and node-mixin: node_exporter beside us, the same expressions on both.

use super::scraped::{Daemon, prometheus};
use super::set::{evaluate, folder, report, rows};
use std::time::{Duration, Instant};
use test_support::{Job, NodeExporter, Prometheus, Skip, skip, wait_until};

/// What node_exporter has here and we do not, and why.
const KNOWN: &[(&str, &str)] = &[];

/// Collectors that stock dashboards want beside the defaults.
const EXTRA: [&str; 4] = ["processes", "systemd", "interrupts", "tcpstat"];

#[test]
fn every_expression_that_has_data_with_node_exporter_has_data_with_us() {
    if let Err(reason) = compare() {
        skip("every_expression_that_has_data_with_node_exporter_has_data_with_us", reason);
    }
}

fn compare() -> Result<(), Skip> {
    let folder = folder()?;
    let flags = EXTRA.map(|name| format!("--collector.{name}"));
    let flags = flags.each_ref().map(String::as_str);
    let original = NodeExporter::start(&flags)?;
    let daemon = Daemon::start(&flags)?;
    let rules = ["node-mixin-rules.yaml", "node-mixin-alerts.yaml"];
    let jobs = |address, path| ["node", "node-exporter"].map(|name| Job::new(name, address).path(path));
    let theirs = prometheus(&folder, &jobs(original.addr(), "/metrics"), &rules)?;
    let ours = prometheus(&folder, &jobs(daemon.address, "/metrics/node"), &rules)?;
    let mut missing = Vec::new();
    // A rate needs two scrapes, and rules upon rules some evaluations.
    let enough = |prometheus: &Prometheus| {
        let least = prometheus.query("min(count_over_time(up[5m]))");
        least[0]["value"][1].as_str().and_then(|least| least.parse::<f64>().ok()).is_some_and(|least| least >= 8.0)
    };
    let ready = wait_until(Duration::from_secs(120), || (enough(&theirs) && enough(&ours)).then_some(()));
    assert!(ready.is_some(), "Prometheus does not scrape");
    let deadline = Instant::now() + Duration::from_secs(40);
    for set in ["grafana-1860", "node-mixin"] {
        let rows = rows(&folder, set);
        loop {
            let expected = evaluate(&theirs, &rows);
            let found = evaluate(&ours, &rows);
            let behind = expected.iter().zip(&found).any(|(expected, found)| *expected && !found);
            if !behind || Instant::now() > deadline {
                missing.extend(report(set, &rows, &expected, &found, KNOWN));
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    Ok(())
}
