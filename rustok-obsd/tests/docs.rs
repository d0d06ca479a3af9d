//! What the documentation shows is what the daemon takes and tells.
//!
//! Reads: `docs/REPLACING.md`, `README.md`, `prometheus/prometheus.yml`. Yields: fails for a configuration that is refused, a command line
//! or flag that is none, a scrape configuration that Prometheus refuses, a metric or collector that is not in the catalogue,
//! and for a link that leads nowhere. Costs: nothing.

use clap::Parser as _;
use rustok_obsd::cli::{Action, Cli};
use rustok_obsd::config::keys::KEYS;
use rustok_obsd::config::{Loaded, Sources};
use rustok_obsd::contract::families;
use rustok_obsd::exposition::Part;
use rustok_obsd::host::COLLECTORS;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use test_support::{NODE_EXPORTER, promtool_check_config, skip};

const PAGE: &str = include_str!("../../docs/REPLACING.md");
const README: &str = include_str!("../../README.md");
const PROMETHEUS: &str = include_str!("../../prometheus/prometheus.yml");

/// Names that the page mentions because they are not ours.
const NOT_OURS: [&str; 1] = ["node_filesystem_purgeable_bytes"];

/// Fenced blocks of a language, without their indentation.
fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}");
    let mut blocks = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if line.trim_start() != fence {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let inner = lines.by_ref().take_while(|line| line.trim_start() != "```");
        blocks.push(inner.map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect());
    }
    assert!(!blocks.is_empty(), "no block of {language}");
    blocks
}

/// What stands in backticks outside of fenced blocks, as it is read.
fn spans() -> Vec<String> {
    let mut fenced = false;
    let mut prose = String::new();
    for line in PAGE.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    // Within a table a bar is escaped.
    prose.split('`').skip(1).step_by(2).map(|span| span.replace("\\|", "|")).collect()
}

/// Rows of the table below this heading.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = PAGE.split_once(&format!("## {heading}\n")).expect(heading);
    let table = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        let line = line.replace("\\|", "\u{1}");
        let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{1}', "|"));
        cells.collect::<Vec<_>>()
    };
    table.skip(2).map(cells).collect()
}

fn load(command: &Cli) -> Result<Loaded, String> {
    let Action::Run(args) = &command.command else { panic!("{command:?} is not run") };
    let sources = Sources { flags: args.keys.0.clone(), targets: args.targets.clone(), ..Sources::default() };
    sources.load().map_err(|error| error.to_string())
}

/// The configuration that these arguments of `run` give.
fn run(arguments: &[&str]) -> Result<Loaded, String> {
    let command =
        Cli::try_parse_from(["rustok-obsd", "run"].iter().chain(arguments)).map_err(|error| error.to_string())?;
    load(&command)
}

#[test]
fn configurations_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    for block in blocks("toml") {
        let file = folder.path().join("config.toml");
        fs::write(&file, &block).unwrap();
        let loaded = Sources { file: Some(file), ..Sources::default() }.load();
        assert!(loaded.is_ok(), "{}\n{block}", loaded.unwrap_err());
    }
}

#[test]
fn command_lines_are_taken() {
    let mut checked = 0;
    for line in blocks("console").iter().flat_map(|block| block.lines()) {
        let command = Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
        load(&command).unwrap_or_else(|error| panic!("{line}: {error}"));
        checked += 1;
    }
    assert!(checked > 2, "{checked}");
}

#[test]
fn scrape_configurations_are_taken_and_name_paths_that_are_served() {
    let served: Vec<&str> = Part::PATHS.iter().map(|(path, _)| *path).collect();
    let shown = blocks("yaml");
    for text in shown.iter().map(String::as_str).chain([PROMETHEUS]) {
        for path in text.lines().filter_map(|line| line.trim().strip_prefix("metrics_path: ")) {
            assert!(served.contains(&path), "{path} is not served:\n{text}");
        }
        for name in text.lines().filter_map(|line| line.trim().strip_prefix("collect[]: [")) {
            for name in name.trim_end_matches(']').split(", ") {
                assert!(COLLECTORS.iter().any(|entry| entry.name == name && entry.default), "{name} is not on");
            }
        }
        match promtool_check_config(text) {
            Ok(said) => assert_eq!(said, "", "{text}"),
            Err(reason) => return skip("scrape_configurations_are_taken_and_name_paths_that_are_served", reason),
        }
    }
    // A job for each part: the file for good shows what the page does.
    for (path, part) in Part::PATHS {
        assert_eq!(part.is_some(), PROMETHEUS.contains(&format!("metrics_path: {path}\n")), "{path}");
    }
}

#[test]
fn flags_that_stand_in_for_others_are_taken() {
    let mut checked = BTreeSet::new();
    for heading in ["Flags of node_exporter", "Flags of cAdvisor", "The configuration of process-exporter"] {
        for row in rows(heading) {
            for flag in row[1].split('`').skip(1).step_by(2).filter(|span| span.starts_with("--")) {
                // `--no-collector.NAME` and its like are said of all.
                run(&[flag]).unwrap_or_else(|error| panic!("{flag}: {error}"));
                checked.insert(flag.to_owned());
            }
        }
    }
    assert!(checked.len() > 20, "{checked:?}");
}

#[test]
fn flags_that_are_said_not_to_be_there_are_not() {
    let (flags, collectors) = absent();
    assert!(flags.len() > 10 && collectors.len() > 5, "{flags:?} {collectors:?}");
    for flag in flags {
        assert!(flag.starts_with("--") && run(&[flag]).is_err() && run(&[&format!("{flag}=x")]).is_err(), "{flag}");
    }
    for name in collectors {
        assert!(COLLECTORS.iter().all(|entry| entry.name != name), "{name} is a collector");
    }
}

/// The flags that the page says are not there, and the collectors.
fn absent() -> (Vec<&'static str>, Vec<&'static str>) {
    let (_, flags) = PAGE.split_once("Flags that are not there:").expect("the list of flags");
    let (_, collectors) = PAGE.split_once("\n| Collectors ").expect("the row of collectors");
    let upto = |text: &'static str, end: &str| text.split(end).next().unwrap_or_default();
    let quoted = |text: &'static str| text.split('`').skip(1).step_by(2).collect();
    (quoted(upto(flags, "\n\n")), quoted(upto(collectors, " |")))
}

#[test]
fn every_flag_of_node_exporter_is_here_or_told_not_to_be() {
    let name = "every_flag_of_node_exporter_is_here_or_told_not_to_be";
    let program = match NODE_EXPORTER.find() {
        Ok(program) => program,
        Err(reason) => return skip(name, reason),
    };
    let help = Command::new(program).arg("--help").output().expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned() + &String::from_utf8_lossy(&help.stderr);
    // Where a description goes on, it is further to the right.
    let flags = help.lines().filter_map(|line| line.strip_prefix("      --")?.split([' ', '=']).next());
    let flags: BTreeSet<&str> = flags.map(|flag| flag.trim_start_matches("[no-]")).collect();
    let (absent_flags, absent_collectors) = absent();
    let of_absent = |flag: &str| {
        absent_flags.iter().any(|absent| absent.trim_start_matches("--") == flag)
            || flag
                .strip_prefix("collector.")
                .is_some_and(|rest| absent_collectors.contains(&rest.split('.').next().unwrap_or_default()))
    };
    let unknown = |flag: &str| {
        let parsed = Cli::try_parse_from(["rustok-obsd", "run", &format!("--{flag}=x")]);
        parsed.is_err_and(|error| error.kind() == clap::error::ErrorKind::UnknownArgument)
    };
    let (missing, here): (Vec<&str>, Vec<&str>) =
        flags.iter().filter(|flag| !["help-long", "version"].contains(flag)).partition(|flag| unknown(flag));
    let untold: Vec<_> = missing.iter().filter(|flag| !of_absent(flag)).collect();
    assert!(untold.is_empty(), "neither here nor told not to be: {untold:?}");
    let told = format!("{} of the {} flags", here.len(), here.len() + missing.len());
    assert!(PAGE.contains(&told), "not in the page: {told}");
}

#[test]
fn keys_and_metrics_are_in_their_catalogues() {
    let known: BTreeSet<&str> = families()
        .map(|family| family.name)
        .chain(COLLECTORS.iter().flat_map(|entry| entry.families).map(|family| family.name))
        .collect();
    let prefixes = ["node_", "container_", "machine_", "namedprocess_", "process_", "rustok_"];
    let is_name = |span: &str| span.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let sections: BTreeSet<&str> = KEYS.iter().filter_map(|key| key.path.split('.').next()).collect();
    let (mut metrics, mut keys) = (0, 0);
    for span in spans() {
        if is_name(&span) && prefixes.iter().any(|prefix| span.starts_with(prefix)) && span != "node_exporter" {
            assert_eq!(known.contains(&*span), !NOT_OURS.contains(&&*span), "{span}");
            metrics += 1;
        }
        if let Some((section, _)) = span.split_once('.')
            && sections.contains(section)
        {
            let names_keys = span.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'.');
            let files = span == "memory.events";
            assert!(!names_keys || files || KEYS.iter().any(|key| key.path == span), "{span} is no key");
            keys += 1;
        }
    }
    assert!(metrics > 10 && keys > 4, "{metrics} metrics, {keys} keys");
}

#[test]
fn the_readme_tells_how_many_collectors_there_are_and_each_path() {
    let on = COLLECTORS.iter().filter(|entry| entry.default).count();
    let told = format!("{} collectors, {on} of them on by default", COLLECTORS.len());
    assert!(README.contains(&told), "not in README.md: {told}");
    for page in [README, PAGE] {
        for (path, _) in Part::PATHS {
            assert!(page.contains(&format!("| `{path}` |")), "{path} is in no table");
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (page, folder) in [
        ("README.md", ""),
        ("docs/REPLACING.md", "docs"),
        ("docs/ARCHITECTURE.md", "docs"),
        ("docs/SECURITY.md", "docs"),
    ] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap_or_default();
            assert!(root.join(folder).join(file).exists(), "{page}: {link}");
        }
        for test in text.split("`tests/").skip(1).filter_map(|rest| rest.split_once('`')) {
            let path = root.join("rustok-obsd/tests").join(test.0);
            assert!(path.exists(), "{page}: tests/{}", test.0);
        }
    }
}
