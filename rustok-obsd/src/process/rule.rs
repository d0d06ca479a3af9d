//! Which group a process is in.
//!
//! Reads: what the configuration says (`[process]`, `[[process.group]]`), and of a process only what its rules ask for:
//! name, executable, control group, user, arguments. Yields: a group's name. Costs: once per process and program it runs.
//!
//! Arguments may hold secrets: they leave only as what a rule's capture cuts out of them.

use super::parse;
use crate::config::process::{GroupBy, GroupRule, Process as Settings};
use std::borrow::Cow;

/// Where a process' features come from; each is asked for at most once, and only where a rule wants it.
pub trait Features {
    /// Name of the main thread.
    fn comm(&mut self) -> Cow<'_, str>;
    /// Path of the executable; empty where unknown.
    fn exe(&mut self) -> String;
    /// Path of the control group.
    fn cgroup(&mut self) -> String;
    /// Name of the effective user.
    fn user(&mut self) -> String;
    /// Arguments, joined by blanks.
    fn arguments(&mut self) -> String;
}

/// The rules.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<GroupRule>,
    by: GroupBy,
}

/// What the rules say of a process that ended and of which only the name is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its group.
    Group(String),
    /// It is in its parent's group.
    Parent,
    /// It is in none.
    None,
}

impl Rules {
    /// Of the configuration.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { rules: settings.group.clone(), by: settings.group_by }
    }

    /// The group of a process: that of the first rule that fits, else by `process.group_by`; `None` where there is none.
    pub fn group(&self, of: &mut dyn Features) -> Option<String> {
        let mut facts = Facts::new(of);
        self.rules.iter().find_map(|rule| facts.name(rule)).or_else(|| facts.by(self.by))
    }

    /// The group of a process that has ended, by its name alone.
    #[must_use]
    pub fn group_of_ended(&self, comm: &str) -> Verdict {
        for rule in &self.rules {
            // Whether the rule fits, or what it would say, nobody knows any more.
            let by_comm = rule.exe.is_empty() && rule.unit.is_empty() && rule.cgroup.is_empty();
            let by_comm = by_comm && rule.user.is_empty() && rule.cmdline.is_empty() && rule.name.is_comm_alone();
            if !by_comm {
                return Verdict::Parent;
            }
            if rule.comm.iter().any(|wanted| wanted == comm) {
                return Verdict::Group(rule.name.render(&mut |_| comm.to_owned()));
            }
        }
        match self.by {
            GroupBy::Comm => Verdict::Group(comm.to_owned()),
            GroupBy::None if self.rules.is_empty() => Verdict::None,
            _ => Verdict::Parent,
        }
    }
}

/// The features that were asked for so far.
struct Facts<'f> {
    of: &'f mut dyn Features,
    exe: Option<String>,
    cgroup: Option<String>,
    user: Option<String>,
    arguments: Option<String>,
}

impl<'f> Facts<'f> {
    fn new(of: &'f mut dyn Features) -> Self {
        Self { of, exe: None, cgroup: None, user: None, arguments: None }
    }

    fn exe(&mut self) -> &str {
        self.exe.get_or_insert_with(|| self.of.exe())
    }

    fn cgroup(&mut self) -> &str {
        self.cgroup.get_or_insert_with(|| self.of.cgroup())
    }

    fn user(&mut self) -> &str {
        self.user.get_or_insert_with(|| self.of.user())
    }

    fn unit(&mut self) -> Option<&str> {
        parse::unit(self.cgroup().as_bytes()).and_then(|unit| std::str::from_utf8(unit).ok())
    }

    /// The name that a rule gives the process, if it fits. Cheap conditions come first.
    fn name(&mut self, rule: &GroupRule) -> Option<String> {
        let any = |wanted: &[String], found: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == found);
        if !any(&rule.comm, &self.of.comm()) {
            return None;
        }
        if !rule.exe.is_empty() {
            let exe = self.exe();
            let fits = |wanted: &String| if wanted.contains('/') { wanted == exe } else { wanted == base(exe) };
            if exe.is_empty() || !rule.exe.iter().any(fits) {
                return None;
            }
        }
        if !rule.unit.is_empty() && !self.unit().is_some_and(|unit| any(&rule.unit, unit)) {
            return None;
        }
        if !rule.cgroup.is_empty() {
            let cgroup = self.cgroup();
            let below = |wanted: &String| cgroup.strip_prefix(wanted.trim_end_matches('/')).is_some_and(is_end);
            if !rule.cgroup.iter().any(below) {
                return None;
            }
        }
        if !any(&rule.user, if rule.user.is_empty() { "" } else { self.user() }) {
            return None;
        }
        let mut captured: Vec<(String, String)> = Vec::new();
        if !rule.cmdline.is_empty() {
            let arguments = self.arguments.get_or_insert_with(|| self.of.arguments());
            for pattern in &rule.cmdline {
                let captures = pattern.regex()?.captures(arguments)?;
                let names = pattern.regex()?.capture_names().flatten();
                captured
                    .extend(names.filter_map(|name| Some((name.to_owned(), captures.name(name)?.as_str().to_owned()))));
            }
        }
        let name = rule.name.render(&mut |variable| match variable {
            "comm" => self.of.comm().into_owned(),
            "exe" => base(self.exe()).to_owned(),
            "exe_path" => self.exe().to_owned(),
            "unit" => self.unit().unwrap_or_default().to_owned(),
            "cgroup" => self.cgroup().to_owned(),
            "user" => self.user().to_owned(),
            other => captured.iter().find(|(name, _)| name == other).map(|(_, text)| text.clone()).unwrap_or_default(),
        });
        (!name.is_empty()).then_some(name)
    }

    fn by(&mut self, by: GroupBy) -> Option<String> {
        let or_comm =
            |name: &str, comm: Cow<'_, str>| if name.is_empty() { comm.into_owned() } else { name.to_owned() };
        match by {
            GroupBy::Comm => Some(self.of.comm().into_owned()),
            GroupBy::Exe => {
                let exe = base(self.exe()).to_owned();
                Some(or_comm(&exe, self.of.comm()))
            }
            GroupBy::Unit => {
                let unit = self.unit().unwrap_or_default().to_owned();
                Some(or_comm(&unit, self.of.comm()))
            }
            GroupBy::Cgroup => Some(self.cgroup().to_owned()),
            GroupBy::None => None,
        }
    }
}

/// The file name of a path.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a path ends here, or goes on below.
fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// Joins arguments, which end in zero each.
#[must_use]
pub fn joined(arguments: &[u8]) -> String {
    String::from_utf8_lossy(arguments).trim_end_matches('\0').replace('\0', " ")
}
