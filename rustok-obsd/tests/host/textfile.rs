//! node_exporter's own cases of the text files.
//!
//! Reads: `textfile/` of the fixtures. Yields: fails where our output differs from a `*.out`.

use crate::fixture::fixtures;
use rustok_obsd::config::collector::Collectors;
use rustok_obsd::exposition::{Format, Scrape, to_text_of};
use rustok_obsd::host::{Host, Settings};
use std::fs;
use test_support::{Scraped, skip};

#[test]
fn every_case_gives_the_expected_output() {
    let fixtures = match fixtures() {
        Ok(fixtures) => fixtures.join("node_exporter").canonicalize().expect("the fixtures"),
        Err(reason) => return skip("every_case_gives_the_expected_output", reason),
    };
    let folder = fixtures.join("fixtures/textfile");
    let entries = fs::read_dir(&folder).expect("the cases").flatten();
    let cases: Vec<String> =
        entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".out")?.to_owned())).collect();
    assert_eq!(cases.len(), 15, "{cases:?}");
    for case in cases {
        let directory = match case.as_str() {
            "glob_extra_dimension" => folder.join("*_extra_dimension"),
            _ => folder.join(&case),
        };
        let options = Collectors {
            disable_defaults: true,
            enable: vec!["textfile".into()],
            textfile_directory: vec![directory.display().to_string()],
            ..Collectors::default()
        };
        let host = Host::new(&Settings { options, ..Settings::default() });
        let text = to_text_of(&host, &Scrape::default(), Format::Text);
        // Upstream's test runs beside the fixtures.
        let text = text.replace(&format!("{}/", fixtures.display()), "");
        let mut ours = Scraped::parse(&text).expect("text format");
        let about_us = ["node_scrape_collector", "node_exporter_build_info", "rustok_obsd_"];
        ours.families.retain(|name, _| !about_us.iter().any(|prefix| name.starts_with(prefix)));
        if let Some(times) = ours.families.get_mut("node_textfile_mtime_seconds") {
            times.samples.values_mut().for_each(|time| *time = 1.0);
        }
        let expected = fs::read_to_string(folder.join(format!("{case}.out"))).expect("the expected output");
        let expected = Scraped::parse(&expected).expect("text format");
        assert_eq!(ours.families, expected.families, "{case}");
    }
}
