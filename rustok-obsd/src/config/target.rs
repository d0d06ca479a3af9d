//! `[[targets]]`: what to observe, and how to name it.
//!
//! Reads: tables of the file, the target flags or their variables. Yields: checked [`Target`]s. Costs: once at start.

use super::error::{Problem, nearest};
use super::value::article;
use globset::GlobBuilder;
use std::collections::HashMap;
use std::ffi::OsString;
use toml::de::{DeTable, DeValue};

/// Processes to observe: those that match every kind of criterion given, in one of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Executable: file name, absolute path, or glob of either.
    pub exe: Vec<String>,
    /// Glob of the command line, its arguments joined by spaces.
    pub command_line: Vec<String>,
    /// TCP port that the process listens on.
    pub port: Vec<u16>,
    /// Glob of the path in the cgroup hierarchy.
    pub cgroup: Vec<String>,
    /// Process id, in the pid namespace of `path.procfs`.
    pub pid: Vec<u32>,
    /// User that the process runs as: name or number. Executables of that user are trusted for this target.
    pub user: Option<String>,
    /// Users beside root, and whoever started the daemon, whose executables get uprobes: names or numbers.
    pub trusted_owners: Vec<String>,
    /// `service.name`, above what the process says of itself.
    pub service_name: Option<String>,
    /// `service.version`.
    pub service_version: Option<String>,
    /// `deployment.environment.name`.
    pub deployment_environment: Option<String>,
    /// Route patterns such as `/a/{id}`, for what axum does not tell.
    pub routes: Vec<String>,
}

/// Keys of a `[[targets]]` table with an example and one sentence each.
pub const TARGET_KEYS: &[(&str, &str, &str)] = &[
    ("exe", "\"shop\"", "Executable: file name, absolute path, or glob of either; or a list."),
    ("command_line", "\"* --role web*\"", "Glob of the command line, arguments joined by spaces; or a list."),
    ("port", "3000", "TCP port that the process listens on; or a list."),
    ("cgroup", "\"/system.slice/shop.service\"", "Glob of the cgroup path; or a list."),
    ("pid", "4711", "Process id; or a list. Gone with the process."),
    (
        "trusted_owners",
        "[\"deploy\"]",
        "Users whose executables get uprobes, beside root and whoever started the daemon (`sudo`); names or numbers. Others are observed by their sockets.",
    ),
    (
        "user",
        "\"shop\"",
        "User that the process runs as, name or number; executables of that user are trusted for this target.",
    ),
    ("service_name", "\"shop\"", "`service.name`, above what the process says of itself."),
    ("service_version", "\"1.2.3\"", "`service.version`."),
    ("deployment_environment", "\"production\"", "`deployment.environment.name`."),
    ("routes", "[\"/api/orders/{id}\", \"/files/{*path}\"]", "Route patterns, for what axum does not tell."),
];

impl Target {
    /// Whether nothing says which processes are meant.
    fn is_unbounded(&self) -> bool {
        self.exe.is_empty()
            && self.command_line.is_empty()
            && self.port.is_empty()
            && self.cgroup.is_empty()
            && self.pid.is_empty()
            && self.user.is_none()
    }

    /// Reads one table, adding every problem; `at` names the place of a byte offset.
    pub(super) fn read(
        table: &DeTable<'_>,
        at: &dyn Fn(usize) -> String,
        start: usize,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut target = Self::default();
        for (name, value) in table {
            let result = target.set(name.get_ref(), value.get_ref());
            if let Err(message) = result {
                let key = format!("targets.{}", name.get_ref());
                problems.push(Problem { place: at(name.span().start), key, message });
            }
        }
        if target.is_unbounded() && table.iter().all(|(name, _)| !is_criterion(name.get_ref())) {
            problems.push(Problem {
                place: at(start),
                key: "targets".into(),
                message:
                    "names no process; required: at least one of `exe`, `command_line`, `port`, `cgroup`, `pid`, `user`"
                        .into(),
            });
        }
        target
    }

    fn set(&mut self, name: &str, value: &DeValue<'_>) -> Result<(), String> {
        match name {
            "exe" => self.exe = checked(texts(value)?, check_exe)?,
            "command_line" => {
                self.command_line = checked(texts(value)?, |glob| check_glob(glob, false))?;
            }
            "cgroup" => self.cgroup = checked(texts(value)?, |glob| check_glob(glob, true))?,
            "port" => self.port = numbers(value, 1..=65_535, "a port from 1 to 65535")?,
            "pid" => self.pid = numbers(value, 1..=4_194_304, "a process id from 1 to 4194304")?,
            "user" => self.user = Some(checked(vec![user(value)?], check_user)?.remove(0)),
            "trusted_owners" => self.trusted_owners = checked(users(value)?, check_user)?,
            "service_name" => self.service_name = Some(text(value)?),
            "service_version" => self.service_version = Some(text(value)?),
            "deployment_environment" => self.deployment_environment = Some(text(value)?),
            "routes" => self.routes = checked(texts(value)?, check_route)?,
            _ => {
                let names = || TARGET_KEYS.iter().map(|(name, ..)| *name);
                let hint = nearest(name, names()).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                let all: Vec<&str> = names().collect();
                return Err(
                    format!("unknown key{hint} allowed: {}", all.join(", ")).replace("key allowed", "key; allowed")
                );
            }
        }
        Ok(())
    }
}

/// Whether a key says which processes are meant.
fn is_criterion(name: &str) -> bool {
    matches!(name, "exe" | "command_line" | "port" | "cgroup" | "pid" | "user")
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) if !text.trim().is_empty() => Ok(text.to_string()),
        DeValue::String(_) => Err("is empty; allowed: text".into()),
        other => Err(format!("is {}; allowed: text", article(other))),
    }
}

fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::Array(list) => list.iter().map(|item| text(item.get_ref())).collect(),
        single => Ok(vec![text(single).map_err(|error| error + " or a list of texts")?]),
    }
}

fn numbers<T: TryFrom<u32>>(
    value: &DeValue<'_>,
    range: std::ops::RangeInclusive<u32>,
    allowed: &str,
) -> Result<Vec<T>, String> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::Integer(number) => u32::from_str_radix(&number.as_str().replace('_', ""), number.radix())
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("`{}` is not allowed; allowed: {allowed}", number.as_str())),
        other => Err(format!("is {}; allowed: {allowed}, or a list", article(other))),
    };
    match value {
        DeValue::Array(list) => list.iter().map(|item| one(item.get_ref())).collect(),
        single => Ok(vec![one(single)?]),
    }
}

/// A user's name or number.
fn user(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::Integer(number) => Ok(number.as_str().to_owned()),
        other => text(other).map_err(|error| error + " or a number"),
    }
}

fn users(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::Array(list) => list.iter().map(|item| user(item.get_ref())).collect(),
        single => Ok(vec![user(single)?]),
    }
}

/// Names as `useradd` takes them, or numbers; whether there is such a user is known when the daemon starts.
fn check_user(user: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$' | b'@' | b'\\');
    if user.bytes().all(plain) && !user.starts_with('-') {
        return Ok(());
    }
    Err(format!("`{user}` is no user; allowed: a name of /etc/passwd, or a number"))
}

fn checked(list: Vec<String>, check: impl Fn(&str) -> Result<(), String>) -> Result<Vec<String>, String> {
    list.iter().try_for_each(|item| check(item))?;
    Ok(list)
}

fn check_glob(glob: &str, separator: bool) -> Result<(), String> {
    match GlobBuilder::new(glob).literal_separator(separator).build() {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(format!("`{glob}` is no glob ({}); allowed: `*`, `?`, `[a-z]`, `{{a,b}}`, `**`", error.kind()))
        }
    }
}

fn check_exe(exe: &str) -> Result<(), String> {
    check_glob(exe, true)?;
    if exe.contains('/') && !exe.starts_with(['/', '*']) {
        return Err(format!(
            "`{exe}` is a relative path; allowed: a file name, an absolute path, or a glob such as `**/{exe}`"
        ));
    }
    Ok(())
}

/// A pattern as axum 0.8 writes it: segments, `{name}` for one, `{*name}` for the rest.
fn check_route(route: &str) -> Result<(), String> {
    let allowed = "allowed: a path such as `/a/{id}` or `/files/{*rest}`";
    let Some(path) = route.strip_prefix('/') else {
        return Err(format!("`{route}` does not begin with `/`; {allowed}"));
    };
    let segments: Vec<&str> = path.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        if !segment.contains(['{', '}']) {
            continue;
        }
        let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
        let rest = name.strip_prefix('*');
        let name = rest.unwrap_or(name);
        if name.is_empty() || name.contains(['{', '}', '*']) {
            return Err(format!("`{segment}` in `{route}` is no parameter; {allowed}"));
        }
        if rest.is_some() && index + 1 != segments.len() {
            return Err(format!("`{segment}` in `{route}` is not the last segment; {allowed}"));
        }
    }
    Ok(())
}

/// Targets of the command line or of the environment; each value is a target of its own. Any of them replaces the
/// targets of the layers below.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Targets")]
pub struct TargetFlags {
    /// Observe processes of this executable: file name, absolute path, or glob of either [env: RUSTOK_OBSD_EXE=a,b]
    #[arg(long, value_name = "NAME|PATH|GLOB")]
    pub exe: Vec<String>,
    /// Observe the process that listens on this TCP port [env: RUSTOK_OBSD_PORT=3000,3001]
    #[arg(long, value_name = "PORT")]
    pub port: Vec<String>,
    /// Observe processes whose command line matches [env: RUSTOK_OBSD_COMMAND_LINE]
    #[arg(long, value_name = "GLOB")]
    pub command_line: Vec<String>,
    /// Observe processes of matching cgroups [env: RUSTOK_OBSD_CGROUP=a,b]
    #[arg(long, value_name = "GLOB")]
    pub cgroup: Vec<String>,
    /// Observe this process [env: RUSTOK_OBSD_PID=1,2]
    #[arg(long, value_name = "PID")]
    pub pid: Vec<String>,
    /// For all of these: attach uprobes to executables of these users too [env: RUSTOK_OBSD_TRUSTED_OWNERS=a,b]
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    pub trusted_owners: Vec<String>,
}

/// Variables of the target flags.
pub(super) const TARGET_VARIABLES: [&str; 6] = [
    "RUSTOK_OBSD_EXE",
    "RUSTOK_OBSD_PORT",
    "RUSTOK_OBSD_COMMAND_LINE",
    "RUSTOK_OBSD_CGROUP",
    "RUSTOK_OBSD_PID",
    "RUSTOK_OBSD_TRUSTED_OWNERS",
];

impl TargetFlags {
    /// Reads the variables; lists are comma-separated, but for the command line, where commas are usual.
    pub(super) fn from_variables(variables: &HashMap<String, OsString>, problems: &mut Vec<Problem>) -> Self {
        let mut list = |name: &str| -> Vec<String> {
            let Some(value) = variables.get(name) else {
                return Vec::new();
            };
            let Some(value) = value.to_str() else {
                let message = "is not UTF-8".to_owned();
                problems.push(Problem { place: "environment".into(), key: name.to_owned(), message });
                return Vec::new();
            };
            let items: Vec<&str> =
                if name == "RUSTOK_OBSD_COMMAND_LINE" { vec![value] } else { value.split(',').collect() };
            items.iter().map(|item| item.trim()).filter(|item| !item.is_empty()).map(ToOwned::to_owned).collect()
        };
        let [exe, port, command_line, cgroup, pid, trusted_owners] = TARGET_VARIABLES;
        Self {
            exe: list(exe),
            port: list(port),
            command_line: list(command_line),
            cgroup: list(cgroup),
            pid: list(pid),
            trusted_owners: list(trusted_owners),
        }
    }

    /// The targets; `names` are what each kind is called in messages.
    pub(super) fn targets(&self, place: &str, names: [&str; 6], problems: &mut Vec<Problem>) -> Vec<Target> {
        let lists = [&self.exe, &self.port, &self.command_line, &self.cgroup, &self.pid];
        let keys = ["exe", "port", "command_line", "cgroup", "pid"];
        let mut targets: Vec<Target> = Vec::new();
        for ((list, key), name) in lists.into_iter().zip(keys).zip(names) {
            for item in list {
                let mut target = Target::default();
                let result = match key {
                    "port" | "pid" => item
                        .parse::<u32>()
                        .map_err(|_| format!("`{item}` is not allowed; allowed: a whole number"))
                        .and_then(|_| match DeValue::parse(item) {
                            Ok(value) => target.set(key, value.get_ref()),
                            Err(_) => Err(format!("`{item}` is not allowed; allowed: a whole number")),
                        }),
                    _ => target.set(key, &DeValue::String(item.as_str().into())),
                };
                match result {
                    Ok(()) => targets.push(target),
                    Err(message) => {
                        problems.push(Problem { place: place.to_owned(), key: name.to_owned(), message });
                    }
                }
            }
        }
        for owner in &self.trusted_owners {
            if let Err(message) = check_user(owner) {
                problems.push(Problem { place: place.to_owned(), key: names[5].to_owned(), message });
            }
        }
        if targets.is_empty() && !self.trusted_owners.is_empty() {
            let message = "names no process; it goes with --exe, --port, --command-line, --cgroup, --pid, or their variables; in the file it is the key `trusted_owners` of a target".into();
            problems.push(Problem { place: place.to_owned(), key: names[5].to_owned(), message });
        }
        for target in &mut targets {
            target.trusted_owners.clone_from(&self.trusted_owners);
        }
        targets
    }
}
