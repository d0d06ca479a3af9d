//! What a target is: the resource of its spans.
//!
//! Reads: the configuration, and `exe`, `stat` and a few variables of `environ` of one process. Yields: a
//! [`TargetResource`]. Costs: four small reads per process start.
//!
//! `service.name`, first that is set: the target's `service_name`; the daemon's `OTEL_SERVICE_NAME` or `service.name`
//! in its `OTEL_RESOURCE_ATTRIBUTES`, where exactly one target is configured (several would merge into one service);
//! the process' own `OTEL_SERVICE_NAME`, then its `OTEL_RESOURCE_ATTRIBUTES`; the executable's name. Every other
//! attribute: `[[targets]]`, then the process' `OTEL_RESOURCE_ATTRIBUTES`, then the daemon's, then what is seen.
//! `process.*` and `telemetry.*` are always what is seen. Of a process' environment only the variables named here are
//! kept; it is the environment that the process started with.

use super::span::SCHEMA;
use crate::budget::{Share, cut};
use crate::config::{Config, Pairs, Target, parse_pairs};
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest environment that is read; Linux allows more, programs do not use it.
const LONGEST_ENVIRON: u64 = 1 << 20;

/// Longest value of an attribute, bytes: a process names itself, and every series carries the name.
const LONGEST_VALUE: usize = 255;
/// Attributes that a process may give itself.
const MOST_ATTRIBUTES: usize = 64;

/// A described target.
#[derive(Debug)]
pub struct TargetResource {
    /// `service.name`.
    pub service_name: String,
    /// What its spans hold of the queue.
    pub(super) queued: Share,
    /// All attributes.
    pub(super) resource: Resource,
}

/// Describes targets; one for the daemon.
#[derive(Clone, Debug)]
pub struct Resources {
    procfs: PathBuf,
    host_name: Option<String>,
    /// The daemon's own, if it may name a target.
    service_name: Option<String>,
    attributes: Pairs,
}

impl Resources {
    /// Takes what is said of all targets from the configuration, and the host's name.
    pub fn new(config: &Config) -> Self {
        let procfs = config.path.procfs.clone();
        let host_name = std::fs::read_to_string(procfs.join("sys/kernel/hostname")).ok();
        let mut attributes = config.resource.attributes.clone();
        let in_attributes = attributes.get("service.name").map(ToOwned::to_owned);
        attributes.0.retain(|(key, _)| key != "service.name");
        Self {
            procfs,
            host_name: host_name.map(|name| name.trim().to_owned()),
            service_name: config.resource.service_name.clone().or(in_attributes).filter(|_| config.targets.len() == 1),
            attributes,
        }
    }

    /// Describes a process of a target. What cannot be read, because it ended or is not ours to read, is left out.
    pub fn describe(&self, target: &Target, pid: u32) -> TargetResource {
        let process = self.procfs.join(pid.to_string());
        let own = Environment::read(&process.join("environ"));
        let executable = std::fs::read_link(process.join("exe")).ok().map(|path| without_deleted(&path));
        let executable_name =
            executable.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());

        let mut said: BTreeMap<String, String> = BTreeMap::new();
        let mut say = |key: &str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                said.insert(cut(key, LONGEST_VALUE).to_owned(), cut(&value, LONGEST_VALUE).to_owned());
            }
        };
        // Later ones win.
        say("host.name", self.host_name.clone());
        say("service.version", own.service_version);
        say("deployment.environment.name", own.environment);
        if let (Some(host), Some(start)) = (&self.host_name, start_ticks(&process.join("stat"))) {
            say("service.instance.id", Some(format!("{host}:{pid}:{start}")));
        }
        for (key, value) in self.attributes.0.iter().chain(own.attributes.0.iter().take(MOST_ATTRIBUTES)) {
            say(environment_key(key), Some(value.clone()));
        }
        say("service.version", target.service_version.clone());
        say("deployment.environment.name", target.deployment_environment.clone());

        let own_name = own.service_name.or_else(|| own.attributes.get("service.name").map(ToOwned::to_owned));
        let service_name = [target.service_name.clone(), self.service_name.clone(), own_name, executable_name.clone()]
            .into_iter()
            .flatten()
            .find(|name| !name.is_empty())
            .map_or_else(|| "unknown_service".to_owned(), |name| cut(&name, LONGEST_VALUE).to_owned());
        say("service.name", Some(service_name.clone()));
        // The name until version 1.27 of the conventions, which RusToK and older dashboards use.
        let environment = said.get("deployment.environment.name").cloned();
        if let Some(environment) = environment {
            said.insert("deployment.environment".to_owned(), environment);
        }

        said.retain(|key, _| !key.starts_with("process.") && !key.starts_with("telemetry."));
        let mut attributes: Vec<KeyValue> = said.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
        attributes.push(KeyValue::new("process.pid", i64::from(pid)));
        attributes.extend(executable_name.map(|name| KeyValue::new("process.executable.name", name)));
        let path = executable.map(|path| path.to_string_lossy().into_owned());
        attributes.extend(path.map(|path| KeyValue::new("process.executable.path", path)));
        TargetResource { service_name, queued: Share::default(), resource: build(attributes) }
    }
}

impl Resources {
    /// The same of a process of which nothing can be read but the name of its executable.
    pub fn name(&self, target: &Target, executable: &str) -> TargetResource {
        let names = [target.service_name.clone(), self.service_name.clone(), Some(executable.to_owned())];
        let name =
            names.into_iter().flatten().find(|name| !name.is_empty()).unwrap_or_else(|| "unknown_service".into());
        let service_name = cut(&name, LONGEST_VALUE).to_owned();
        let resource = build(vec![KeyValue::new("service.name", service_name.clone())]);
        TargetResource { service_name, queued: Share::default(), resource }
    }
}

impl TargetResource {
    /// For a target that nobody described.
    pub(super) fn unknown() -> Self {
        let service_name = "unknown_service".to_owned();
        let resource = build(vec![KeyValue::new("service.name", service_name.clone())]);
        Self { service_name, queued: Share::default(), resource }
    }

    /// An attribute as text, for `/status` and tests.
    pub fn get(&self, key: &str) -> Option<String> {
        self.resource.get(&key.to_owned().into()).map(|value| value.to_string())
    }
}

/// Adds who speaks: OpenTelemetry's SDK, in this distribution.
fn build(attributes: Vec<KeyValue>) -> Resource {
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attribute(KeyValue::new("telemetry.distro.name", "rustok-obsd"))
        .with_attribute(KeyValue::new("telemetry.distro.version", env!("CARGO_PKG_VERSION")))
        .with_schema_url(attributes, SCHEMA)
        .build()
}

/// Both names of the environment are one attribute.
fn environment_key(key: &str) -> &str {
    if key == "deployment.environment" { "deployment.environment.name" } else { key }
}

/// The kernel marks a replaced executable.
fn without_deleted(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    std::ffi::OsStr::from_bytes(bytes).into()
}

/// Start of the process in clock ticks since boot: field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
fn start_ticks(stat: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(stat).ok()?;
    // The name, field 2, is in parentheses and may hold any character.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// What a process' environment says of it.
#[derive(Debug, Default)]
struct Environment {
    service_name: Option<String>,
    service_version: Option<String>,
    environment: Option<String>,
    attributes: Pairs,
}

impl Environment {
    fn read(path: &Path) -> Self {
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST_ENVIRON).read_to_end(&mut bytes));
        if read.is_err() { Self::default() } else { Self::parse(&bytes) }
    }

    fn parse(environ: &[u8]) -> Self {
        let mut own = Self::default();
        let mut fallback = None;
        for variable in environ.split(|byte| *byte == 0) {
            let Some((name, value)) = std::str::from_utf8(variable).ok().and_then(|text| text.split_once('=')) else {
                continue;
            };
            if value.is_empty() {
                continue;
            }
            let value = || Some(value.to_owned());
            match name {
                "OTEL_SERVICE_NAME" => own.service_name = value(),
                // The specification: what does not parse is as if it were not set.
                "OTEL_RESOURCE_ATTRIBUTES" => {
                    own.attributes = value().and_then(|text| parse_pairs(&text).ok()).unwrap_or_default();
                }
                // RusToK's own.
                "OTEL_SERVICE_VERSION" => own.service_version = value(),
                "RUST_ENV" => own.environment = value(),
                "ENVIRONMENT" => fallback = value(),
                _ => {}
            }
        }
        own.environment = own.environment.or(fallback);
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process as procfs shows it.
    fn process(environ: &str) -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir_all(path.join("sys/kernel")).unwrap();
        std::fs::write(path.join("sys/kernel/hostname"), "host1\n").unwrap();
        let pid = path.join("42");
        std::fs::create_dir(&pid).unwrap();
        std::fs::write(pid.join("environ"), environ.replace(' ', "\0")).unwrap();
        std::fs::write(pid.join("stat"), "42 (a) b) S 1 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 9 0 777 1 1").unwrap();
        std::os::unix::fs::symlink("/opt/shop (deleted)", pid.join("exe")).unwrap();
        let mut config = Config { targets: vec![Target::default()], ..Config::default() };
        config.path.procfs = path.to_owned();
        (folder, config)
    }

    #[test]
    fn the_service_name_follows_the_documented_order() {
        let own = "OTEL_SERVICE_NAME=own OTEL_RESOURCE_ATTRIBUTES=service.name=own-attribute";
        let attribute = "OTEL_RESOURCE_ATTRIBUTES=service.name=own-attribute";
        for (environ, configured, daemon, targets, expected) in [
            ("", None, None, 1, "shop"),
            (attribute, None, None, 1, "own-attribute"),
            (own, None, None, 1, "own"),
            (own, None, Some("daemon"), 1, "daemon"),
            (own, None, Some("daemon"), 2, "own"),
            ("", None, Some("daemon"), 2, "shop"),
            (own, Some("configured"), Some("daemon"), 1, "configured"),
            ("OTEL_SERVICE_NAME=", None, None, 1, "shop"),
        ] {
            let (_folder, mut config) = process(environ);
            config.targets = vec![Target::default(); targets];
            config.resource.service_name = daemon.map(ToOwned::to_owned);
            let target = Target { service_name: configured.map(ToOwned::to_owned), ..Target::default() };
            let resource = Resources::new(&config).describe(&target, 42);
            assert_eq!(resource.service_name, expected, "{environ} {configured:?} {daemon:?} {targets}");
            assert_eq!(resource.get("service.name").as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_process_is_described_by_what_is_seen_and_said() {
        let (_folder, mut config) = process(
            "SECRET=hunter2 RUST_ENV=staging OTEL_SERVICE_VERSION=0.1.0 \
             OTEL_RESOURCE_ATTRIBUTES=team=web,process.pid=1,deployment.environment=production",
        );
        config.resource.attributes = parse_pairs("team=ops,region=eu,telemetry.sdk.name=fake").unwrap();
        let resource = Resources::new(&config).describe(&Target::default(), 42);
        for (key, expected) in [
            ("service.version", "0.1.0"),
            ("service.instance.id", "host1:42:777"),
            ("host.name", "host1"),
            ("process.pid", "42"),
            ("process.executable.name", "shop"),
            ("process.executable.path", "/opt/shop"),
            ("deployment.environment.name", "production"),
            ("deployment.environment", "production"),
            ("team", "web"),
            ("region", "eu"),
            ("telemetry.sdk.name", "opentelemetry"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.distro.name", "rustok-obsd"),
            ("telemetry.distro.version", env!("CARGO_PKG_VERSION")),
        ] {
            assert_eq!(resource.get(key).as_deref(), Some(expected), "{key}");
        }
        assert!(!format!("{resource:?}").contains("hunter2"));
    }

    #[test]
    fn the_configuration_of_a_target_wins_and_a_process_that_is_gone_is_still_named() {
        let (_folder, config) = process("RUST_ENV=staging OTEL_RESOURCE_ATTRIBUTES=service.version=2");
        let target = Target {
            service_version: Some("3".into()),
            deployment_environment: Some("qa".into()),
            ..Target::default()
        };
        let resource = Resources::new(&config).describe(&target, 42);
        assert_eq!(resource.get("service.version").as_deref(), Some("3"));
        assert_eq!(resource.get("deployment.environment").as_deref(), Some("qa"));
        let gone = Resources::new(&config).describe(&Target::default(), 43);
        assert_eq!(gone.service_name, "unknown_service");
        assert_eq!(gone.get("process.pid").as_deref(), Some("43"));
    }

    #[test]
    fn environments_that_are_not_text_or_do_not_parse_are_left_out() {
        let own = Environment::parse(b"\xff\xfe=x\0OTEL_RESOURCE_ATTRIBUTES=a=1,broken\0ENVIRONMENT=dev\0nonsense\0");
        assert_eq!(own.attributes, Pairs::default());
        assert_eq!(own.environment.as_deref(), Some("dev"));
        assert_eq!(own.service_name, None);
    }
}
