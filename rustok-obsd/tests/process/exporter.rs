//! process-exporter beside us: the same families, types, HELP texts, labels and groups, and values between two of its own.

use super::Stage;
use rustok_obsd::config::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;
use test_support::{Child, LabelMap, Scraped, free_port, http_get, skip, wait_until};

/// Path of the program.
const PROGRAM: &str = "RUSTOK_OBSD_PROCESS_EXPORTER";

#[test]
fn process_exporter_tells_the_same() {
    let Some(program) = std::env::var_os(PROGRAM) else {
        return skip("comparison with process-exporter", format!("{PROGRAM} names no program"));
    };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yml");
    fs::write(&config, "process_names:\n  - name: \"{{.Comm}}\"\n    cmdline:\n    - '.+'\n").unwrap();
    let port = free_port();
    let mut command = Command::new(program);
    command.arg("-config.path").arg(&config).arg(format!("-web.listen-address=127.0.0.1:{port}"));
    let _exporter = Child::spawn("process-exporter", &mut command).unwrap();
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let theirs = || {
        http_get(address, "/metrics").ok().and_then(|(_, _, body)| Scraped::parse(&String::from_utf8_lossy(&body)).ok())
    };
    let up = wait_until(Duration::from_secs(20), theirs);
    assert!(up.is_some(), "process-exporter does not answer");
    let mut stage = Stage::new(&Config::default());
    stage.text();
    let before = theirs().unwrap();
    let ours = stage.scrape();
    let after = theirs().unwrap();
    let mut compared = 0;
    for (name, family) in after.families.iter().filter(|(name, _)| name.starts_with("namedprocess_")) {
        let own = ours.families.get(name).unwrap_or_else(|| panic!("we lack {name}"));
        assert_eq!((&own.kind, &own.help), (&family.kind, &family.help), "{name}");
        let names = |samples: &BTreeMap<(String, LabelMap), f64>| {
            samples.keys().flat_map(|(_, labels)| labels.keys().cloned()).collect::<BTreeSet<_>>()
        };
        assert_eq!(names(&own.samples), names(&family.samples), "{name}");
        // What both of its readings have did not come or go meanwhile.
        for (series, last) in &family.samples {
            let Some(first) = before.families[name].samples.get(series).filter(|_| !name.contains("wchan")) else {
                continue;
            };
            let found = own.samples.get(series).unwrap_or_else(|| panic!("we lack {series:?}"));
            let still = first == last && family.kind == "gauge" && !name.contains("states");
            assert!(!still || (found - last).abs() <= last.abs() * 0.02 + 1.0, "{series:?}: {found}, not {last}");
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared}");
    eprintln!("process-exporter: {compared} series compared");
}
