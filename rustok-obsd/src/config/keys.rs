//! The one table of keys. Everything about a key but its field's type is here.
//!
//! Reads: nothing. Yields: [`KEYS`]. Costs: nothing.

use super::{Config, Database, Slot, collector, container, process};
use std::sync::LazyLock;
use std::time::Duration;

/// One key of the configuration.
#[derive(Clone, Copy)]
pub struct Key {
    /// Path in the file.
    pub path: &'static str,
    /// Variables of the OpenTelemetry specification, first set wins; empty: the daemon's own, see [`Key::variables`].
    pub otel: &'static [&'static str],
    /// Flag without its dashes, empty for none.
    pub flag: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// The field.
    pub slot: fn(&mut Config) -> Slot<'_>,
}

impl Key {
    /// The variables that set this key, first set wins.
    pub fn variables(&self) -> Vec<String> {
        if self.otel.is_empty() {
            vec![format!("RUSTOK_OBSD_{}", self.path.replace('.', "_").to_uppercase())]
        } else {
            self.otel.iter().map(ToString::to_string).collect()
        }
    }
}

/// Builds a row.
pub(super) const fn key(
    path: &'static str,
    flag: &'static str,
    otel: &'static [&'static str],
    slot: fn(&mut Config) -> Slot<'_>,
    help: &'static str,
) -> Key {
    Key { path, otel, flag, help, slot }
}

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// All keys but those of `[[targets]]`, in the order of the documentation.
pub static KEYS: LazyLock<Vec<Key>> =
    LazyLock::new(|| [GENERAL, process::KEYS, collector::KEYS, container::KEYS].concat());

/// Keys of no room of their own.
static GENERAL: &[Key] = &[
    key(
        "web.listen_address",
        "web.listen-address",
        &[],
        |c| Slot::Address(&mut c.web.listen_address),
        "Address of /metrics, /healthz, /readyz and /status. They have no authentication: keep it on loopback or behind a proxy.",
    ),
    key(
        "web.sample_limit",
        "web.sample-limit",
        &[],
        |c| Slot::Integer(&mut c.web.sample_limit, 1000, 100_000_000),
        "Samples of one answer at most, for each path by itself; what is beyond is left out and counted. Containers come last.",
    ),
    key(
        "web.allowed_hosts",
        "web.allowed-hosts",
        &[],
        |c| Slot::Hosts(&mut c.web.allowed_hosts),
        "Names that requests may have in `Host` beside `localhost`, loopback addresses and the address that was connected to, such as that of a proxy. On loopback every other name is refused (421): else a web page could read /status under a name of its own (DNS rebinding). On another address any name is answered unless this is set. `*` answers any.",
    ),
    key(
        "traces.exporter",
        "traces.exporter",
        &["OTEL_TRACES_EXPORTER"],
        |c| Slot::Choice(&mut c.traces.exporter),
        "Where spans go. `auto`: OTLP if an endpoint is set. `otlp`: also without one, to http://localhost:4318 (HTTP) or :4317 (gRPC). `none`: nowhere.",
    ),
    key(
        "traces.endpoint",
        "traces.endpoint",
        &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
        |c| Slot::Endpoint(&mut c.traces.endpoint),
        "URL of the collector. HTTP appends /v1/traces; only OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is taken as it is. No TLS: use a collector on this host.",
    ),
    key(
        "traces.protocol",
        "traces.protocol",
        &["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
        |c| Slot::Choice(&mut c.traces.protocol),
        "How spans travel. `auto`: gRPC to port 4317, else HTTP.",
    ),
    key(
        "traces.insecure",
        "",
        &["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"],
        |c| Slot::Bool(&mut c.traces.insecure),
        "An endpoint without a scheme (HOST:PORT) is plain, not TLS.",
    ),
    key(
        "traces.headers",
        "",
        &["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
        |c| Slot::Headers(&mut c.traces.headers),
        "Headers of every export, such as an API key. No flag: other users can read a command line. A variable adds to the file's and wins.",
    ),
    key(
        "traces.compression",
        "",
        &["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"],
        |c| Slot::Choice(&mut c.traces.compression),
        "Compression of exports.",
    ),
    key(
        "traces.timeout",
        "",
        &["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
        |c| Slot::Duration(&mut c.traces.timeout, MS, HOUR),
        "Bound of one export with its retries. The variable is in milliseconds.",
    ),
    key(
        "traces.sampler",
        "traces.sampler",
        &["OTEL_TRACES_SAMPLER"],
        |c| Slot::Choice(&mut c.traces.sampler),
        "Which traces are kept. `parentbased_…` follows the sampled flag of the caller's traceparent.",
    ),
    key(
        "traces.sampler_arg",
        "traces.sampler-arg",
        &["OTEL_TRACES_SAMPLER_ARG"],
        |c| Slot::Ratio(&mut c.traces.sampler_arg),
        "Ratio of `traceidratio` and `parentbased_traceidratio`.",
    ),
    key(
        "traces.queue_size",
        "",
        &["OTEL_BSP_MAX_QUEUE_SIZE"],
        |c| Slot::Integer(&mut c.traces.queue_size, 1, 1 << 20),
        "Spans that wait for export; more are dropped and counted. About 450 bytes each.",
    ),
    key(
        "traces.batch_size",
        "",
        &["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"],
        |c| Slot::Integer(&mut c.traces.batch_size, 1, 1 << 16),
        "Spans in one export at most; not more than the queue holds.",
    ),
    key(
        "traces.schedule_delay",
        "",
        &["OTEL_BSP_SCHEDULE_DELAY"],
        |c| Slot::Duration(&mut c.traces.schedule_delay, MS, HOUR),
        "Longest wait before an export. The variable is in milliseconds.",
    ),
    key(
        "traces.export_timeout",
        "",
        &["OTEL_BSP_EXPORT_TIMEOUT"],
        |c| Slot::Duration(&mut c.traces.export_timeout, MS, HOUR),
        "Bound of one batch, all its exports together. The variable is in milliseconds.",
    ),
    key(
        "traces.url_path",
        "traces.url-path",
        &[],
        |c| Slot::Bool(&mut c.traces.url_path),
        "Add url.path to server spans and url.full to client spans, never the query. The conventions require them; paths can hold personal ids, hence off.",
    ),
    key(
        "traces.tenant_header",
        "traces.tenant-header",
        &[],
        |c| Slot::HeaderName(&mut c.traces.tenant_header),
        "Request header whose value becomes the attribute `tenant_id`, if it is a UUID or a slug (letters, digits, `-`, `_`, `.`; up to 64 bytes); anything else is not exported.",
    ),
    key(
        "traces.request_headers",
        "traces.request-headers",
        &[],
        |c| Slot::HeaderNames(&mut c.traces.request_headers),
        "Request headers that spans carry as `http.request.header.<name>`. A value of more than 512 bytes is left out.",
    ),
    key(
        "resource.service_name",
        "",
        &["OTEL_SERVICE_NAME"],
        |c| Slot::Text(&mut c.resource.service_name),
        "service.name of the target where exactly one is configured; ignored, with a warning, where several would merge into one service.",
    ),
    key(
        "resource.attributes",
        "",
        &["OTEL_RESOURCE_ATTRIBUTES"],
        |c| Slot::Attributes(&mut c.resource.attributes),
        "Resource attributes of every target; what a target says of itself wins.",
    ),
    key(
        "capture.ring_bytes",
        "capture.ring-bytes",
        &[],
        |c| Slot::PowerOfTwo(&mut c.capture.ring_bytes, 1 << 16, 1 << 30),
        "Ring buffer between kernel and daemon, bytes. What does not fit is lost and counted.",
    ),
    key(
        "capture.payload_bytes",
        "capture.payload-bytes",
        &[],
        |c| Slot::Integer(&mut c.capture.payload_bytes, 256, rustok_obsd_ebpf::MAX_PAYLOAD),
        "Bytes captured of one send or receive; a request's head has to fit, the rest is counted only.",
    ),
    key(
        "capture.sockets",
        "capture.sockets",
        &[],
        |c| Slot::Integer(&mut c.capture.sockets, 64, 1 << 22),
        "Sockets of targets followed at once.",
    ),
    key(
        "routes.limit",
        "routes.limit",
        &[],
        |c| Slot::Integer(&mut c.routes.limit, 1, 100_000),
        "Routes per target; further ones are `~other` and counted.",
    ),
    key(
        "routes.learner",
        "routes.learner",
        &[],
        |c| Slot::Bool(&mut c.routes.learner),
        "Learn templates from paths where neither axum nor a configured pattern names the route; else such requests are `~other`. A segment that is no common word of APIs is a parameter until many answered requests show that it is a part of the route.",
    ),
    key(
        "database.enabled",
        "database.enabled",
        &[],
        |c| Slot::Bool(&mut c.database.enabled),
        "Observe database operations.",
    ),
    key(
        "database.statement_bytes",
        "database.statement-bytes",
        &[],
        |c| {
            let (min, max) = Database::STATEMENT_BYTES.into_inner();
            Slot::Integer(&mut c.database.statement_bytes, min, max)
        },
        "Bytes captured of a statement's text; of a longer one the beginning is told, and that it is only that.",
    ),
    key(
        "database.statements",
        "database.statements",
        &[],
        |c| Slot::Integer(&mut c.database.statements, 1, 100_000),
        "Statements per target with series of their own; further ones are `~other` and counted.",
    ),
    key(
        "database.repeated",
        "database.repeated",
        &[],
        |c| Slot::Integer(&mut c.database.repeated, 1, 1_000_000),
        "A request that runs one statement more often than this repeats it (N+1): its span names the statement.",
    ),
    key(
        "database.ports",
        "database.ports",
        &[],
        |c| Slot::Ports(&mut c.database.ports),
        "Ports of PostgreSQL, where neither bytes nor symbols tell that a connection is one.",
    ),
    key(
        "database.probes",
        "database.probes",
        &[],
        |c| Slot::Probes(&mut c.database.probes),
        "Sets of uprobes. `sea-orm`: its calls (statements, waits for a connection). `sqlx`: its calls (statements, transactions). `results`: ends, rows, errors. `tasks`: parents of spawned tasks.",
    ),
    key(
        "errors.modules",
        "",
        &[],
        |c| Slot::Modules(&mut c.errors.modules),
        "Label `module` of rustok_errors_total by route prefix, whole segments; the longest prefix counts.",
    ),
    key(
        "ebpf.backend",
        "backend",
        &[],
        |c| Slot::Choice(&mut c.ebpf.backend),
        "How sockets are observed. `sock`: raw tracepoints, kernel 6.3 and later. `kprobe`: for older kernels, not built yet.",
    ),
    key(
        "ebpf.run_stats",
        "ebpf.run-stats",
        &[],
        |c| Slot::Bool(&mut c.ebpf.run_stats),
        "Let the kernel count and time the runs of eBPF programs, ours and others', about 20 ns each; needs CAP_SYS_ADMIN.",
    ),
    key(
        "ebpf.host_events",
        "ebpf.host-events",
        &[],
        |c| Slot::Bool(&mut c.ebpf.host_events),
        "Follow which processes and cgroups of the whole host begin and end, and whom the OOM killer chooses; kernel 5.10 and later.",
    ),
    key(
        "ebpf.host_ring_bytes",
        "ebpf.host-ring-bytes",
        &[],
        |c| Slot::PowerOfTwo(&mut c.ebpf.host_ring_bytes, 1 << 16, 1 << 30),
        "Ring buffer for the events of the host, bytes. What does not fit is lost and counted.",
    ),
    key(
        "log.level",
        "log.level",
        &[],
        |c| Slot::Choice(&mut c.log.level),
        "Least severity that the daemon logs. Its libraries log warnings and errors only: other records of theirs may hold headers.",
    ),
    key("log.format", "log.format", &[], |c| Slot::Choice(&mut c.log.format), "Form of a log line, on standard error."),
    key(
        "security.confine",
        "security.confine",
        &[],
        |c| Slot::Bool(&mut c.security.confine),
        "Give up, once at start, what an observer never needs: capabilities beyond those of the systemd unit, new privileges, and system calls that change files, processes or the host. /status says what was applied. Root's own sockets stay within reach; a runtime's socket that only another user may write to does not.",
    ),
    key("path.procfs", "path.procfs", &[], |c| Slot::Path(&mut c.path.procfs), "Where the host's procfs is mounted."),
    key("path.sysfs", "path.sysfs", &[], |c| Slot::Path(&mut c.path.sysfs), "Where the host's sysfs is mounted."),
    key("path.rootfs", "path.rootfs", &[], |c| Slot::Path(&mut c.path.rootfs), "Where the host's root is mounted."),
    key("path.udev.data", "path.udev.data", &[], |c| Slot::Path(&mut c.path.udev_data), "Where udev's database is."),
];
