//! What the daemon is told: a TOML file, over it the environment, over both the flags.
//!
//! Reads: the file, `OTEL_*` and `RUSTOK_OBSD_*` variables, the flags. Yields: one checked [`Config`], or every problem
//! found, each with its place, key and allowed values. Costs: once at start.
//!
//! The keys with their defaults, variables and flags are one table, [`keys::KEYS`]: parsing, `--help`,
//! `docs/CONFIG.md` and `deploy/rustok-obsd.toml` all derive from it.

/// Declares an enumeration of a configuration key: its variants and their names.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $crate::config::Choice for $name {
            fn names(&self) -> &'static [&'static str] {
                &[$($text,)+]
            }

            fn name(&self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            fn select(&mut self, name: &str) -> bool {
                $(if name == $text { *self = Self::$variant; return true; })+
                false
            }
        }
    };
}
use choice;

pub mod collector;
pub mod container;
mod database;
mod error;
mod file;
pub mod keys;
mod lists;
mod load;
mod pairs;
pub mod process;
mod redact;
#[cfg(test)]
mod reference;
mod target;
#[cfg(test)]
mod tests;
mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use database::{Database, Errors, PROBE_KEYS, ProbeKind, ProbePoint, ProbeSets};
pub use error::{ConfigError, Problem};
pub use load::{Loaded, Sources};
pub use pairs::{Pairs, parse_pairs};
pub use target::{Target, TargetFlags};
pub use value::{Choice, Slot};

/// Everything that can be configured. `Default` is what the documentation says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// What to observe; a process that matches several is of the first.
    pub targets: Vec<Target>,
    /// The exposition.
    pub web: Web,
    /// Spans.
    pub traces: Traces,
    /// What is said of every target in its spans' resource.
    pub resource: ResourceAttributes,
    /// Bounds of the capture.
    pub capture: Capture,
    /// Naming of routes.
    pub routes: Routes,
    /// Observation of databases.
    pub database: Database,
    /// Counts of errors.
    pub errors: Errors,
    /// The kernel programs.
    pub ebpf: Ebpf,
    /// The daemon's own log.
    pub log: Log,
    /// The daemon's own rights.
    pub security: Security,
    /// Where the host's file systems are.
    pub path: Paths,
    /// Collectors of the host.
    pub collector: collector::Collectors,
    /// Groups of processes.
    pub process: process::Process,
    /// Cgroups and containers.
    pub container: container::ContainerOptions,
}

/// `[web]`: where metrics are served.
#[derive(Clone, Debug, PartialEq)]
pub struct Web {
    /// Address of `/metrics`; without authentication, hence loopback.
    pub listen_address: SocketAddr,
    /// Samples of one answer at most.
    pub sample_limit: usize,
    /// Names in `Host` that are answered beside the server's own.
    pub allowed_hosts: Vec<String>,
}

impl Default for Web {
    fn default() -> Self {
        let listen_address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
        Self { listen_address, sample_limit: 500_000, allowed_hosts: Vec::new() }
    }
}

/// `[traces]`: sampling and export of spans, by the variables of the OpenTelemetry specification
/// (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// Whether spans are exported.
    pub exporter: TracesExporter,
    /// The collector; none leaves tracing off unless [`TracesExporter::Otlp`] asks for the specification's default.
    pub endpoint: Option<Endpoint>,
    /// How spans travel.
    pub protocol: Protocol,
    /// Whether an endpoint without a scheme is plain (`OTEL_EXPORTER_OTLP_INSECURE`).
    pub insecure: bool,
    /// Sent with every export; usually a secret.
    pub headers: Pairs,
    /// Compression of an export.
    pub compression: Compression,
    /// Bound of one export with its retries.
    pub timeout: Duration,
    /// Which spans are kept.
    pub sampler: Sampler,
    /// Ratio of the ratio samplers.
    pub sampler_arg: f64,
    /// Spans that wait at most; more are dropped and counted.
    pub queue_size: usize,
    /// Spans in one export at most.
    pub batch_size: usize,
    /// Time between two exports.
    pub schedule_delay: Duration,
    /// Bound of one batch, all its exports together.
    pub export_timeout: Duration,
    /// Add `url.path` (server) and `url.full` (client). Paths can hold ids, hence off.
    pub url_path: bool,
    /// Header that names the tenant, for the attribute `tenant_id`; none leaves it off.
    pub tenant_header: Option<String>,
    /// Headers of requests that spans carry, in lower case; none leaves by default.
    pub request_headers: Vec<String>,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            exporter: TracesExporter::Auto,
            endpoint: None,
            protocol: Protocol::Auto,
            insecure: false,
            headers: Pairs::default(),
            compression: Compression::None,
            timeout: Duration::from_secs(10),
            sampler: Sampler::ParentBasedAlwaysOn,
            sampler_arg: 1.0,
            queue_size: 2048,
            batch_size: 512,
            schedule_delay: Duration::from_secs(5),
            export_timeout: Duration::from_secs(30),
            url_path: false,
            tenant_header: Some("X-Tenant-ID".into()),
            request_headers: Vec::new(),
        }
    }
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// URL, or `host:port` for gRPC.
    pub url: String,
    /// As it is (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`); else HTTP appends `/v1/traces`.
    pub exact: bool,
}

impl Traces {
    /// Whether spans are exported at all.
    pub fn enabled(&self) -> bool {
        match self.exporter {
            TracesExporter::Auto => self.endpoint.is_some(),
            TracesExporter::Otlp => true,
            TracesExporter::None => false,
        }
    }

    /// The protocol in use: `auto` takes gRPC for a collector on its port 4317, else HTTP, the specification's default.
    pub fn resolved_protocol(&self) -> Protocol {
        match (self.protocol, &self.endpoint) {
            (Protocol::Auto, Some(endpoint)) => {
                let authority = endpoint.url.rsplit("://").next().unwrap_or_default();
                let authority = authority.split('/').next().unwrap_or_default();
                if authority.ends_with(":4317") { Protocol::Grpc } else { Protocol::HttpProtobuf }
            }
            (Protocol::Auto, None) => Protocol::HttpProtobuf,
            (protocol, _) => protocol,
        }
    }

    /// The URL for messages: without its query, which may be a key.
    pub fn shown_url(&self) -> String {
        redact::url(&self.url())
    }

    /// The URL that spans are sent to, with scheme and, for HTTP, path.
    pub fn url(&self) -> String {
        let http = self.resolved_protocol() == Protocol::HttpProtobuf;
        let Some(endpoint) = &self.endpoint else {
            let url = if http { "http://localhost:4318/v1/traces" } else { "http://localhost:4317" };
            return url.to_owned();
        };
        let mut url = endpoint.url.clone();
        if !url.contains("://") {
            url.insert_str(0, if self.insecure { "http://" } else { "https://" });
        }
        if http && !endpoint.exact && !url.ends_with("/v1/traces") {
            url.truncate(url.trim_end_matches('/').len());
            url.push_str("/v1/traces");
        }
        url
    }
}

/// `[resource]`: the daemon's own `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceAttributes {
    /// Names the target, where there is one only; several would become one service.
    pub service_name: Option<String>,
    /// Added to every target, below what the target says of itself.
    pub attributes: Pairs,
}

/// `[capture]`: bounds of what the kernel hands over.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// Size of the ring buffer, bytes, a power of two.
    pub ring_bytes: usize,
    /// Bytes captured of one send or receive.
    pub payload_bytes: usize,
    /// Sockets followed at once.
    pub sockets: usize,
}

impl Default for Capture {
    fn default() -> Self {
        Self { ring_bytes: 4 << 20, payload_bytes: 4096, sockets: 32_768 }
    }
}

/// `[routes]`: naming of routes where axum does not tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Routes {
    /// Routes per target; more are `~other`, counted.
    pub limit: usize,
    /// Learn templates from paths where neither axum nor a pattern names the route.
    pub learner: bool,
}

impl Default for Routes {
    fn default() -> Self {
        Self { limit: 1000, learner: true }
    }
}

/// `[ebpf]`: the kernel programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Ebpf {
    /// How sockets are observed.
    pub backend: Backend,
    /// Ask the kernel for run counts and times of programs (`BPF_ENABLE_STATS`, about 20 ns a run).
    pub run_stats: bool,
    /// Follow processes, victims of the OOM killer and cgroups of the whole host.
    pub host_events: bool,
    /// Bytes of the ring buffer for these.
    pub host_ring_bytes: usize,
}

impl Default for Ebpf {
    fn default() -> Self {
        Self { backend: Backend::default(), run_stats: true, host_events: true, host_ring_bytes: 256 << 10 }
    }
}

/// `[log]`: the daemon's own log, on standard error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// Least severity.
    pub level: LogLevel,
    /// Form of a line.
    pub format: LogFormat,
}

/// `[security]`: the daemon's own rights.
#[derive(Clone, Debug, PartialEq)]
pub struct Security {
    /// Give up what an observer never needs, see [`crate::confine`].
    pub confine: bool,
}

impl Default for Security {
    fn default() -> Self {
        Self { confine: true }
    }
}

/// `[path]`: mounts of the host, by node_exporter's names.
#[derive(Clone, Debug, PartialEq)]
pub struct Paths {
    /// procfs.
    pub procfs: PathBuf,
    /// sysfs.
    pub sysfs: PathBuf,
    /// Root of the host.
    pub rootfs: PathBuf,
    /// udev's database.
    pub udev_data: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { procfs: "/proc".into(), sysfs: "/sys".into(), rootfs: "/".into(), udev_data: "/run/udev/data".into() }
    }
}

choice! {
    /// Whether spans are exported (`OTEL_TRACES_EXPORTER`).
    TracesExporter {
        /// If an endpoint is configured.
        #[default]
        Auto = "auto",
        /// Yes; without an endpoint to the specification's default.
        Otlp = "otlp",
        /// No.
        None = "none",
    }
}

choice! {
    /// How spans travel (`OTEL_EXPORTER_OTLP_PROTOCOL`).
    Protocol {
        /// By the endpoint's port.
        #[default]
        Auto = "auto",
        /// OTLP/gRPC.
        Grpc = "grpc",
        /// OTLP/HTTP, binary.
        HttpProtobuf = "http/protobuf",
    }
}

choice! {
    /// Compression of an export (`OTEL_EXPORTER_OTLP_COMPRESSION`).
    Compression {
        /// None.
        #[default]
        None = "none",
        /// gzip.
        Gzip = "gzip",
    }
}

choice! {
    /// Which traces are kept (`OTEL_TRACES_SAMPLER`).
    Sampler {
        /// All.
        AlwaysOn = "always_on",
        /// None.
        AlwaysOff = "always_off",
        /// A ratio, by trace id.
        TraceIdRatio = "traceidratio",
        /// As the caller says; all without a caller.
        #[default]
        ParentBasedAlwaysOn = "parentbased_always_on",
        /// As the caller says; none without a caller.
        ParentBasedAlwaysOff = "parentbased_always_off",
        /// As the caller says; a ratio without a caller.
        ParentBasedTraceIdRatio = "parentbased_traceidratio",
    }
}

choice! {
    /// How sockets are observed.
    Backend {
        /// What the kernel allows.
        #[default]
        Auto = "auto",
        /// Raw tracepoints of sockets (kernel 6.3 and later).
        Sock = "sock",
        /// kprobes; not built yet.
        Kprobe = "kprobe",
    }
}

choice! {
    /// Least severity that is logged.
    LogLevel {
        /// Errors.
        Error = "error",
        /// And warnings.
        Warn = "warn",
        /// And what happens.
        #[default]
        Info = "info",
        /// And why.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

choice! {
    /// Form of a log line.
    LogFormat {
        /// For people.
        #[default]
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
