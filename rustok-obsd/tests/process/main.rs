//! Groups of processes on the real procfs: against what the tests' own processes did, under churn, without privilege, and
//! against process-exporter where one is given.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod churn;
mod exporter;
mod real;
mod unreadable;

use rustok_obsd::config::Config;
use rustok_obsd::exposition::{Exposition, Format, Part, Scrape, Scratch};
use rustok_obsd::process::ProcessGroups;
use std::process::Command;
use std::sync::Arc;
use test_support::Scraped;

#[global_allocator]
static COUNTING: test_support::Counting = test_support::Counting;

/// Groups, and the exposition that tells them.
struct Stage {
    groups: Arc<ProcessGroups>,
    exposition: Exposition,
    scratch: Scratch,
}

impl Stage {
    fn new(config: &Config) -> Self {
        let groups = Arc::new(ProcessGroups::new(config).unwrap());
        let exposition = Exposition::new();
        exposition.register(Part::Process, Arc::clone(&groups) as _);
        Self { groups, exposition, scratch: Scratch::default() }
    }

    fn text(&mut self) -> &str {
        let scrape = Scrape { part: Some(Part::Process), ..Scrape::default() };
        let body = self.exposition.render_into(&mut self.scratch, &scrape, Format::Text, false);
        std::str::from_utf8(body).unwrap()
    }

    fn scrape(&mut self) -> Scraped {
        Scraped::parse(self.text()).unwrap()
    }
}

/// A sample of a group.
#[track_caller]
fn value(scraped: &Scraped, name: &str, labels: &[(&str, &str)]) -> f64 {
    scraped.sum(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?}"))
}

/// Runs another test of this program in a process of its own, as `prepare` has it, and yields what it printed.
fn inner(test: &str, prepare: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    prepare(&mut command);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
