//! Lays file, environment and flags over the defaults.
//!
//! Reads: [`Sources`]. Yields: a checked [`Config`] with warnings, or every problem. Costs: once at start.

use super::collector::Collectors;
use super::error::{ConfigError, Problem, nearest};
use super::keys::{KEYS, Key};
use super::target::TARGET_VARIABLES;
use super::value::{NO_TLS, Style};
use super::{Backend, Config, TargetFlags, TracesExporter, file};
use crate::host::COLLECTORS;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file.
    pub file: Option<PathBuf>,
    /// The environment.
    pub variables: HashMap<String, OsString>,
    /// Values of flags by the key's path.
    pub flags: Vec<(&'static str, String)>,
    /// Targets of the flags.
    pub targets: TargetFlags,
}

/// A usable configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What was ignored and why, one line each; to be logged.
    pub warnings: Vec<String>,
}

impl Sources {
    /// Nothing but the environment of this process.
    pub fn from_environment() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        Self { variables, ..Self::default() }
    }

    /// Reads the file and lays the layers over each other.
    ///
    /// # Errors
    /// All that is wrong in the file, in the daemon's own variables, in the flags, or between them. A bad value of a
    /// number or a name in a variable of the OpenTelemetry specification is a warning and ignored, as that
    /// specification demands.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut config = Config::default();
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        if let Some(path) = &self.file {
            match file::read(path) {
                Ok(text) => file::apply(&mut config, path, &text, &mut problems),
                Err(error) => problems.push(Problem {
                    place: path.display().to_string(),
                    key: String::new(),
                    message: format!("cannot be read: {error}; give a readable file by --config.file"),
                }),
            }
        }
        self.apply_environment(&mut config, &mut problems, &mut warnings);
        self.apply_flags(&mut config, &mut problems);
        check(&mut config, &mut problems, &mut warnings);
        if problems.is_empty() { Ok(Loaded { config, warnings }) } else { Err(ConfigError { problems }) }
    }

    fn apply_environment(&self, config: &mut Config, problems: &mut Vec<Problem>, warnings: &mut Vec<String>) {
        for key in KEYS.iter() {
            // The specification: an empty value is the same as an unset one.
            let set = key.variables().into_iter().find(|name| self.variables.get(name).is_some_and(|v| !v.is_empty()));
            let Some(name) = set else { continue };
            let otel = !key.otel.is_empty();
            let style = if otel { Style::Otel(&name) } else { Style::Own };
            let result = match self.variables[&name].to_str() {
                Some(text) => apply_variable(config, key, text, style),
                None => Err("is not UTF-8".to_owned()),
            };
            let Err(message) = result else { continue };
            // An export that goes elsewhere or without its key would be worse than none.
            let lenient = otel && !matches!(key.path, "traces.endpoint" | "traces.headers");
            if lenient {
                warnings
                    .push(format!("environment: {name}: {message}; ignored, as the OpenTelemetry specification says"));
            } else {
                problems.push(Problem { place: "environment".into(), key: name, message });
            }
        }
        let disabled = self.variables.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if disabled {
            config.traces.exporter = TracesExporter::None;
        }
        let flags = TargetFlags::from_variables(&self.variables, problems);
        let targets = flags.targets("environment", TARGET_VARIABLES, problems);
        if !targets.is_empty() {
            config.targets = targets;
        }
        self.warn_of_mistyped(warnings);
    }

    /// A variable that is almost one of ours sets nothing: say so. Others with our prefix may be for other tools.
    fn warn_of_mistyped(&self, warnings: &mut Vec<String>) {
        let known: Vec<String> = KEYS
            .iter()
            .filter(|key| key.otel.is_empty())
            .flat_map(Key::variables)
            .chain(TARGET_VARIABLES.iter().map(ToString::to_string))
            .chain(["RUSTOK_OBSD_CONFIG_FILE".to_owned()])
            .collect();
        let mut names: Vec<&String> = self.variables.keys().filter(|name| name.starts_with("RUSTOK_OBSD_")).collect();
        names.sort();
        for name in names.into_iter().filter(|name| !known.contains(name)) {
            let tail = |name: &'_ str| name.trim_start_matches("RUSTOK_OBSD_").len();
            let near = nearest(name, known.iter().map(String::as_str));
            let near = near.filter(|near| strsim::damerau_levenshtein(name, near) * 3 <= tail(near));
            if let Some(near) = near {
                warnings.push(format!("environment: {name}: unknown variable, ignored; did you mean {near}?"));
            }
        }
    }

    fn apply_flags(&self, config: &mut Config, problems: &mut Vec<Problem>) {
        for (path, text) in &self.flags {
            let Some(key) = KEYS.iter().find(|key| key.path == *path) else {
                continue;
            };
            if let Err(message) = (key.slot)(config).set_text(text, Style::Own) {
                problems.push(Problem { place: "command line".into(), key: format!("--{}", key.flag), message });
            }
        }
        let names = ["--exe", "--port", "--command-line", "--cgroup", "--pid", "--trusted-owners"];
        let targets = self.targets.targets("command line", names, problems);
        if !targets.is_empty() {
            config.targets = targets;
        }
    }
}

/// Headers of a variable add to those of the file, as the exporter's library has it.
fn apply_variable(config: &mut Config, key: &Key, text: &str, style: Style<'_>) -> Result<(), String> {
    let before = std::mem::take(&mut config.traces.headers);
    let result = (key.slot)(config).set_text(text, style);
    let mut merged = before;
    let set = std::mem::take(&mut config.traces.headers);
    merged.0.retain(|(name, _)| set.get(name).is_none());
    merged.0.extend(set.0);
    config.traces.headers = merged;
    result
}

/// What only all layers together can show.
fn check(config: &mut Config, problems: &mut Vec<Problem>, warnings: &mut Vec<String>) {
    let mut problem = |key: &str, message: String| {
        problems.push(Problem { place: "configuration".into(), key: key.to_owned(), message });
    };
    if config.ebpf.backend == Backend::Kprobe {
        problem("ebpf.backend", "`kprobe` is not built yet; allowed: `auto`, `sock`".into());
    }
    collectors(&config.collector, &mut problem);
    let traces = &config.traces;
    if traces.enabled() && traces.url().starts_with("https://") {
        problem("traces.endpoint", NO_TLS.to_owned());
    }
    if config.traces.batch_size > config.traces.queue_size {
        let queue = config.traces.queue_size;
        warnings
            .push(format!("traces.batch_size lowered to traces.queue_size = {queue}: a batch cannot exceed the queue"));
        config.traces.batch_size = queue;
    }
    if config.targets.is_empty() {
        warnings
            .push("no target is configured: give --exe, --port, --command-line, --cgroup, --pid or [[targets]]".into());
    }
    let resource = &config.resource;
    let named = resource.service_name.is_some() || resource.attributes.get("service.name").is_some();
    if config.targets.len() > 1 && named {
        warnings.push(
            "resource.service_name (OTEL_SERVICE_NAME, or service.name in OTEL_RESOURCE_ATTRIBUTES) is ignored: with several targets it would merge them into one \
             service; give each [[targets]] its service_name"
                .into(),
        );
    }
}

/// Names of collectors must be such, and an include excludes its exclude.
fn collectors(options: &Collectors, problem: &mut dyn FnMut(&str, String)) {
    for (key, names) in [("collector.enable", &options.enable), ("collector.disable", &options.disable)] {
        for name in names.iter().filter(|name| !COLLECTORS.iter().any(|entry| entry.name == **name)) {
            let near = nearest(name, COLLECTORS.iter().map(|entry| entry.name));
            let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`"));
            problem(key, format!("`{name}` is no collector{hint}; docs/METRICS.md lists them"));
        }
    }
    let defaults = Collectors::default();
    for (what, include, exclude, default) in [
        ("arp.device", &options.arp_device_include, &options.arp_device_exclude, &defaults.arp_device_exclude),
        (
            "diskstats.device",
            &options.diskstats_device_include,
            &options.diskstats_device_exclude,
            &defaults.diskstats_device_exclude,
        ),
        (
            "filesystem.mount_points",
            &options.filesystem_mount_points_include,
            &options.filesystem_mount_points_exclude,
            &defaults.filesystem_mount_points_exclude,
        ),
        (
            "filesystem.fs_types",
            &options.filesystem_fs_types_include,
            &options.filesystem_fs_types_exclude,
            &defaults.filesystem_fs_types_exclude,
        ),
        ("hwmon.chip", &options.hwmon_chip_include, &options.hwmon_chip_exclude, &defaults.hwmon_chip_exclude),
        (
            "netdev.device",
            &options.netdev_device_include,
            &options.netdev_device_exclude,
            &defaults.netdev_device_exclude,
        ),
    ] {
        if include.is_set() && exclude != default && exclude.is_set() {
            problem(
                &format!("collector.{what}_include"),
                format!("excludes `collector.{what}_exclude`: give one of them"),
            );
        }
    }
}
