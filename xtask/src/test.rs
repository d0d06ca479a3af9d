//! `cargo xtask test`: every test, and one line at the end.
//!
//! Reads: what the test programs print, the file in which tests that skip themselves say why, and what the virtual
//! machine ([`vm`]) reports. Yields: `N passed, N failed, N skipped`. Costs: on 2 cores with nothing but Rust and Go about
//! half an hour the first time (packages 2 min, bpf-linker 1, Jaeger 7, the other Go programs 2, release and test builds
//! 12, tests 3), the tests' own time after that.
//!
//! Formatting and clippy are not part of it (`cargo xtask lint`): a newer compiler has new lints, and then a fresh
//! clone would fail its tests.

use std::env;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::build_ebpf;
use crate::setup::{self, Need, go};
use crate::vm;
use crate::workspace::{EXAMPLES, Workspace, cargo, program};

/// Sums of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Those that ran and found nothing.
    pub passed: u64,
    /// Those that found something.
    pub failed: u64,
    /// Those that could not run.
    pub skipped: u64,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Runs it, and prints the line whatever happens.
pub fn test(filter: &[String]) -> Result<()> {
    let mut summary = Summary::default();
    let result = Workspace::find().and_then(|workspace| all(&workspace, filter, &mut summary));
    if let Err(error) = &result {
        println!("test: {error:#}");
    }
    if result.is_err() && summary.failed == 0 {
        // What broke before a test could say so.
        summary.failed = 1;
    }
    println!("{summary}");
    // Said above, and the line is to be the last one.
    if summary.failed > 0 { std::process::exit(1) } else { Ok(()) }
}

fn all(workspace: &Workspace, filter: &[String], summary: &mut Summary) -> Result<()> {
    let outcome = setup::setup(true);
    // What Go would build, or the kernel to boot: their tests are skipped, and say so.
    let (without, needed): (Vec<_>, Vec<_>) = outcome
        .missing
        .iter()
        .partition(|missing| missing.need == Need::Tests || missing.name == go::JAEGER_PROGRAM.title);
    if !needed.is_empty() {
        outcome.complete()?;
    }
    for missing in without {
        println!("test: tests that need it will be skipped: {missing}");
    }
    if let Some(missing) = outcome.lacks(Need::Ebpf) {
        bail!("{missing}");
    }
    build_ebpf::build(workspace)?;
    let daemon = program(&workspace.build_release(&["rustok-obsd"])?, "rustok-obsd")?;
    let examples = workspace.build_release(&EXAMPLES)?;

    let skips = workspace.target.join("skipped-tests");
    fs::write(&skips, "").with_context(|| format!("{} cannot be written", skips.display()))?;
    let mut command = cargo();
    command
        .current_dir(&workspace.root)
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(filter)
        .env("RUSTOK_OBSD_BIN", &daemon)
        .env("RUSTOK_OBSD_SHOP", program(&examples, "shop")?)
        .env("RUSTOK_OBSD_SHOP_SEAORM2", program(&examples, "shop-seaorm2")?)
        .env("RUSTOK_OBSD_SHOP_LOAD", program(&examples, "shop-load")?)
        .env("RUSTOK_OBSD_LEDGER", program(&examples, "ledger")?)
        .env("RUSTOK_OBSD_LEDGER_SQLX09", program(&examples, "ledger-sqlx09")?)
        .env("RUSTOK_OBSD_SKIPS", &skips)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let fixtures = workspace.root.join("../shared/fixtures");
    if env::var_os("RUSTOK_OBSD_FIXTURES").is_none()
        && let Ok(fixtures) = fixtures.canonicalize()
    {
        command.env("RUSTOK_OBSD_FIXTURES", fixtures);
    }
    let mut child = command.spawn().context("cargo test could not be started")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(stdout).split(b'\n') {
        // A test may print what is no UTF-8.
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        summary.add(&line);
    }
    let status = child.wait()?;
    let skipped = read_skips(&skips);
    // A test that skipped itself has passed for the test harness.
    let count = skipped.len() as u64;
    summary.skipped += count;
    summary.passed = summary.passed.saturating_sub(count);
    for line in skipped {
        println!("{line}");
    }
    if !status.success() && summary.failed == 0 {
        bail!("cargo test failed ({status}) without a failed test: a build error or a crash, see above");
    }
    if summary.passed == 0 && summary.failed == 0 && filter.is_empty() {
        bail!("no test ran");
    }
    // A filter is one of `cargo test`.
    if filter.is_empty() {
        vm::all(workspace, &daemon, summary)?;
    }
    Ok(())
}

impl Summary {
    /// Adds a line such as `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|line| line.split_once(". ")) else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Lines `skipped: NAME: REASON`, each test once.
fn read_skips(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_all_test_programs_add_up() {
        let mut summary = Summary::default();
        for line in [
            "running 3 tests",
            "test parses ... ok",
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
            "a test result: ok. 9 passed; that a test printed",
        ] {
            summary.add(line);
        }
        assert_eq!(summary, Summary { passed: 8, failed: 2, skipped: 1 });
    }

    #[test]
    fn a_test_that_skips_itself_twice_counts_once() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "skipped: b: no Go\n\nskipped: a: no root\nskipped: b: no Go\n").expect("written");
        assert_eq!(read_skips(file.path()), ["skipped: a: no root", "skipped: b: no Go"]);
        assert!(read_skips(Path::new("/nonexistent")).is_empty());
    }
}
