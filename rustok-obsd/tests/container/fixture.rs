//! Names, types, HELP texts and label names against a scrape of cAdvisor 0.60.5.
//!
//! Reads: `cadvisor/metrics.txt` of the fixtures. Yields: a count of families that agree; fails where one of ours differs, or
//! one of cAdvisor's is missing without a reason below.

use crate::cgroups;
use rustok_obsd::config::container::ContainerOptions;
use rustok_obsd::container::families::FAMILIES;
use rustok_obsd::contract::Family;
use rustok_obsd::exposition::{Format, to_text};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use test_support::{Scraped, ScrapedFamily, Skip, skip};

/// Families of cAdvisor's that are not ours, by prefix, and why.
const OUT_OF_SCOPE: &[(&str, &str)] =
    &[("go_", "of the Go runtime"), ("process_", "of the process, which the daemon tells of itself elsewhere")];

/// The kubelet's labels and the runtime's: absent where none runs.
const OPTIONAL: [&str; 5] = ["container", "image", "name", "namespace", "pod"];

/// Families that a host may have nothing for at the moment.
const MAY_BE_ABSENT: &[(&str, &str)] = &[
    ("container_network_", "no interface but those of containers"),
    ("container_spec_cpu_quota", "no quota"),
    ("container_pressure_", "a kernel without CONFIG_PSI"),
];

fn fixture() -> Result<String, Skip> {
    let named = std::env::var_os("RUSTOK_OBSD_FIXTURES").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures"));
    let text = fs::read_to_string(folder.join("cadvisor/metrics.txt"));
    text.map_err(|_| Skip::new("the fixtures are absent; name their folder in RUSTOK_OBSD_FIXTURES"))
}

/// Samples without the time of cAdvisor's, which we do not have.
fn without_times(text: &str) -> String {
    let strip = |line: &str| match line.rsplit_once(' ') {
        Some((sample, time)) if !line.starts_with('#') && time.len() == 13 && time.parse::<u64>().is_ok() => {
            sample.to_owned()
        }
        _ => line.to_owned(),
    };
    text.lines().map(strip).collect::<Vec<_>>().join("\n")
}

fn labels(family: &ScrapedFamily) -> BTreeSet<&str> {
    let labels = family.samples.keys().flat_map(|(_, labels)| labels.keys().map(String::as_str));
    labels.filter(|label| !OPTIONAL.contains(label)).collect()
}

fn declared<'f>(family: &'f Family<'_>) -> BTreeSet<&'f str> {
    family.labels.iter().copied().filter(|label| !OPTIONAL.contains(label)).collect()
}

#[test]
fn families_are_those_of_cadvisor() {
    let text = match fixture() {
        Ok(text) => text,
        Err(reason) => return skip("families_are_those_of_cadvisor", reason),
    };
    let theirs = Scraped::parse(&without_times(&text)).unwrap();
    let options = ContainerOptions { constants: true, ..ContainerOptions::default() };
    let live = cgroups::containers(options).map(|containers| to_text(&*containers, Format::Text));
    let live = live.map(|text| Scraped::parse(&text).unwrap());
    let (mut wrong, mut agree, mut shown) = (Vec::new(), 0, 0);
    for (name, family) in &theirs.families {
        if OUT_OF_SCOPE.iter().any(|(prefix, _)| name.starts_with(prefix)) {
            continue;
        }
        let Some(ours) = FAMILIES.iter().find(|ours| ours.name == name) else {
            wrong.push(format!("{name}: missing"));
            continue;
        };
        if (ours.kind.text(), ours.help) != (&family.kind, &family.help) {
            wrong.push(format!(
                "{name}: {} {:?} instead of {} {:?}",
                ours.kind.text(),
                ours.help,
                family.kind,
                family.help
            ));
        }
        // An empty label is an absent one, in theirs as in ours.
        if !labels(family).is_subset(&declared(ours)) {
            wrong.push(format!("{name}: labels {:?} instead of {:?}", declared(ours), labels(family)));
        }
        agree += 1;
        let Ok(live) = &live else { continue };
        match live.families.get(name) {
            Some(live) => {
                shown += 1;
                if (&live.kind, &live.help) != (&family.kind, &family.help)
                    || labels(live) != labels(family) && name != "cadvisor_version_info"
                {
                    wrong.push(format!("{name} live: labels {:?} instead of {:?}", labels(live), labels(family)));
                }
            }
            None if MAY_BE_ABSENT.iter().any(|(prefix, _)| name.starts_with(prefix)) => {}
            None => wrong.push(format!("{name}: not told live")),
        }
    }
    println!("{agree} families are as cAdvisor's, {shown} of them told live");
    let extra = FAMILIES.iter().filter(|ours| !theirs.families.contains_key(ours.name));
    println!("ours alone in this fixture (its host had none): {:?}", extra.map(|ours| ours.name).collect::<Vec<_>>());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(agree > 75, "{agree}");
    if let Err(error) = live {
        skip("families_are_those_of_cadvisor, live", error);
    }
}
