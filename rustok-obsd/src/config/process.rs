//! `[process]`: which processes are counted together, and what is told of them.
//!
//! Reads: tables `[[process.group]]` of the file; the single keys are below. Yields: [`Process`]. Costs: once at start.

use super::Slot;
use super::collector::Pattern;
use super::error::{Problem, nearest};
use super::keys::{Key, key};
use super::value::article;
use toml::de::{DeTable, DeValue};

/// `[process]`: groups of processes.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Process {
    /// Whether groups are told at all.
    pub enabled: bool,
    /// The group of a process that no rule matches.
    pub group_by: GroupBy,
    /// A process without a group is in that of its nearest ancestor that has one.
    pub children: bool,
    /// Groups at most.
    pub groups_limit: usize,
    /// Threads of the kernel are processes too.
    pub kernel_threads: bool,
    /// Threads by name.
    pub threads: bool,
    /// Shares of memory (PSS).
    pub smaps: bool,
    /// OpenTelemetry's names as well.
    pub otel_names: bool,
    /// Rules, the first that fits counts.
    pub group: Vec<GroupRule>,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            enabled: true,
            group_by: GroupBy::default(),
            children: true,
            groups_limit: 1000,
            kernel_threads: false,
            threads: false,
            smaps: false,
            otel_names: false,
            group: Vec::new(),
        }
    }
}

super::choice! {
    /// What names the group of a process that no rule matches.
    GroupBy {
        /// Its name.
        #[default]
        Comm = "comm",
        /// File name of its executable.
        Exe = "exe",
        /// Its systemd unit.
        Unit = "unit",
        /// Path of its control group.
        Cgroup = "cgroup",
        /// Nothing: it is in its parent's group, or in none.
        None = "none",
    }
}

/// The keys of `[process]`.
pub(super) static KEYS: &[Key] = &[
    key(
        "process.enabled",
        "process.enabled",
        &[],
        |c| Slot::Bool(&mut c.process.enabled),
        "Tell groups of processes, by process-exporter's names.",
    ),
    key(
        "process.group_by",
        "process.group-by",
        &[],
        |c| Slot::Choice(&mut c.process.group_by),
        "What names the group of a process that no `[[process.group]]` matches. `unit` and `exe`: its name where it has none.",
    ),
    key(
        "process.children",
        "process.children",
        &[],
        |c| Slot::Bool(&mut c.process.children),
        "With `group_by = \"none\"`: a process without a group of its own is in that of its nearest ancestor that has one.",
    ),
    key(
        "process.groups_limit",
        "process.groups-limit",
        &[],
        |c| Slot::Integer(&mut c.process.groups_limit, 1, 100_000),
        "Groups with series of their own; processes of further ones are in `~other`, counted.",
    ),
    key(
        "process.kernel_threads",
        "process.kernel-threads",
        &[],
        |c| Slot::Bool(&mut c.process.kernel_threads),
        "Count threads of the kernel too. They have neither arguments nor executable.",
    ),
    key(
        "process.threads",
        "process.threads",
        &[],
        |c| Slot::Bool(&mut c.process.threads),
        "Tell threads by name (namedprocess_namegroup_thread_*): three more files for each thread at each scrape.",
    ),
    key(
        "process.smaps",
        "process.smaps",
        &[],
        |c| Slot::Bool(&mut c.process.smaps),
        "Tell shares of memory (PSS, memtype `proportionalResident` and `proportionalSwapped`): the kernel walks all page tables at each scrape.",
    ),
    key(
        "process.otel_names",
        "process.otel-names",
        &[],
        |c| Slot::Bool(&mut c.process.otel_names),
        "Tell groups also by the names of OpenTelemetry's conventions (process_cpu_time_seconds_total, …).",
    ),
];

/// `[[process.group]]`: processes that are counted together. All its conditions must hold, each in one of its values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupRule {
    /// The group's name.
    pub name: Template,
    /// Names of processes.
    pub comm: Vec<String>,
    /// Executables, by file name or whole path.
    pub exe: Vec<String>,
    /// Systemd units.
    pub unit: Vec<String>,
    /// Control groups; those below count too.
    pub cgroup: Vec<String>,
    /// Names of effective users.
    pub user: Vec<String>,
    /// Patterns of the arguments; all must match.
    pub cmdline: Vec<Pattern>,
}

/// Keys of a `[[process.group]]` table with an example and one sentence each.
pub const GROUP_KEYS: &[(&str, &str, &str)] = &[
    (
        "name",
        "\"java {main}\"",
        "The group's name; `{comm}`, `{exe}` (file name), `{exe_path}`, `{unit}`, `{cgroup}`, `{user}` and the named captures of `cmdline` are put in. Without: `{exe}`, or `{comm}` where `comm` is the only condition.",
    ),
    ("comm", "[\"java\"]", "Names of processes (the kernel keeps 15 bytes)."),
    ("exe", "[\"postgres\", \"/usr/bin/prometheus\"]", "Executables: file names, or whole paths."),
    ("unit", "[\"shop.service\"]", "Systemd units."),
    ("cgroup", "[\"/kubepods\"]", "Control groups; those below them count too."),
    ("user", "[\"www-data\"]", "Effective users, by name or number."),
    (
        "cmdline",
        "['-jar (?P<main>\\S+)']",
        "Regular expressions on the arguments, joined by blanks; all must match. What their named captures hold can leave the host, nothing else of the arguments does.",
    ),
];

/// What a template may name besides captures.
pub const VARIABLES: [&str; 6] = ["comm", "exe", "exe_path", "unit", "cgroup", "user"];

/// A text with variables in braces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

impl Template {
    /// Of a text.
    ///
    /// # Errors
    /// A brace that is not closed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            if open > 0 {
                parts.push(Part::Text(rest[..open].to_owned()));
            }
            let Some(close) = rest[open..].find('}') else {
                return Err(format!("`{text}` has a `{{` without its `}}`; allowed: text with variables in braces"));
            };
            parts.push(Part::Variable(rest[open + 1..open + close].trim().to_owned()));
            rest = &rest[open + close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// The text with its variables' values.
    pub fn render(&self, value: &mut dyn FnMut(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Variable(name) => value(name),
        };
        self.0.iter().map(part).collect()
    }

    /// Whether it needs nothing but the process' name.
    #[must_use]
    pub fn is_comm_alone(&self) -> bool {
        self.variables().all(|name| name == "comm")
    }

    fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }
}

impl GroupRule {
    /// Reads one table, adding every problem; `at` names the place of a byte offset.
    pub(super) fn read(
        table: &DeTable<'_>,
        at: &dyn Fn(usize) -> String,
        start: usize,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut rule = Self::default();
        let mut named = false;
        let before = problems.len();
        for (name, value) in table {
            named |= name.get_ref() == "name";
            if let Err(message) = rule.set(name.get_ref(), value.get_ref()) {
                let key = format!("process.group.{}", name.get_ref());
                problems.push(Problem { place: at(name.span().start), key, message });
            }
        }
        let lists = [&rule.exe, &rule.unit, &rule.cgroup, &rule.user];
        let others = lists.iter().any(|list| !list.is_empty()) || !rule.cmdline.is_empty();
        if problems.len() > before {
            return rule;
        }
        let mut refuse = |key: &str, message: String| {
            problems.push(Problem { place: at(start), key: format!("process.group{key}"), message });
        };
        if rule.comm.is_empty() && !others {
            let keys: Vec<_> = GROUP_KEYS.iter().skip(1).map(|(name, ..)| format!("`{name}`")).collect();
            refuse("", format!("has no condition; required: at least one of {}", keys.join(", ")));
        }
        if !named {
            let name = if others { "exe" } else { "comm" };
            rule.name = Template(vec![Part::Variable(name.to_owned())]);
        }
        for variable in rule.name.variables().filter(|name| !VARIABLES.contains(name)) {
            let captures = || rule.cmdline.iter().filter_map(Pattern::regex).flat_map(regex::Regex::capture_names);
            if !captures().flatten().any(|name| name == variable) {
                let known: Vec<_> = VARIABLES.into_iter().chain(captures().flatten()).collect();
                refuse(".name", format!("knows no `{{{variable}}}`; allowed: {}", known.join(", ")));
            }
        }
        rule
    }

    fn set(&mut self, name: &str, value: &DeValue<'_>) -> Result<(), String> {
        let list = match name {
            "name" => {
                let DeValue::String(text) = value else { return Err(format!("is {}; allowed: text", article(value))) };
                self.name = Template::parse(text)?;
                return if text.is_empty() { Err("is empty; allowed: text".into()) } else { Ok(()) };
            }
            "cmdline" => {
                self.cmdline = texts(value)?.iter().map(|text| Pattern::parse(text)).collect::<Result<_, _>>()?;
                return Ok(());
            }
            "comm" => &mut self.comm,
            "exe" => &mut self.exe,
            "unit" => &mut self.unit,
            "cgroup" => &mut self.cgroup,
            "user" => &mut self.user,
            _ => {
                let names = || GROUP_KEYS.iter().map(|(name, ..)| *name);
                let hint = nearest(name, names()).map_or(String::new(), |near| format!(" did you mean `{near}`?"));
                return Err(format!("unknown key;{hint} allowed: {}", names().collect::<Vec<_>>().join(", ")));
            }
        };
        *list = texts(value)?;
        if name == "cgroup" && list.iter().any(|path| !path.starts_with('/')) {
            return Err("holds a path without `/` at its beginning; allowed: paths such as `/system.slice`".into());
        }
        Ok(())
    }
}

/// A text, or a list of them, none empty.
fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wrong = |value: &DeValue<'_>| format!("holds {}; allowed: a text, or a list of texts", article(value));
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) if !text.is_empty() => Ok(text.to_string()),
        DeValue::String(_) => Err("holds an empty text; allowed: a text, or a list of texts".to_owned()),
        other => Err(wrong(other)),
    };
    match value {
        DeValue::Array(list) if list.is_empty() => Err("is an empty list; leave it out, or give a text".into()),
        DeValue::Array(list) => list.iter().map(|item| one(item.get_ref())).collect(),
        other => Ok(vec![one(other)?]),
    }
}
