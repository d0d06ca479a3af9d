//! Prometheus and Jaeger beside the demo, where they are installed.
//!
//! Reads: prometheus/prometheus.yml. Yields: running servers and their addresses. Costs: 60 MB of memory each.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::http;
use crate::process::{End, Part, Stop, free_ports, port_or_free};
use crate::setup::jaeger;
use crate::workspace::Workspace;

/// Where a part listens when nobody else does.
const PROMETHEUS: u16 = 9090;
const JAEGER_QUERY: u16 = 16686;
const OTLP_GRPC: u16 = 4317;
const OTLP_HTTP: u16 = 4318;

/// `127.0.0.1:PORT`.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Waits for a 200.
pub fn wait_ready(part: &mut Part, stop: &Stop, address: SocketAddr, path: &str) -> Result<()> {
    let what = format!("http://{address}{path} of {}", part.name());
    let ready = stop.wait_for(&what, Duration::from_secs(30), || {
        part.check()?;
        Ok(http::get(address, path).is_ok().then_some(()))
    });
    ready.with_context(|| format!("{} is not ready; the last lines of its log:\n{}", part.name(), part.last_words()))
}

/// A running Jaeger.
#[derive(Debug)]
pub struct Jaeger {
    /// The process.
    pub part: Part,
    /// Query API and web pages.
    pub query: SocketAddr,
    /// `http://…`, OTLP over gRPC.
    pub endpoint: String,
}

/// Starts Jaeger with memory storage.
pub fn start_jaeger(program: &Path, folder: &Path, stop: &Stop) -> Result<Jaeger> {
    let [query_grpc, health] = free_ports()?;
    let ports = jaeger::Ports {
        otlp_grpc: port_or_free(OTLP_GRPC)?,
        otlp_http: port_or_free(OTLP_HTTP)?,
        query_http: port_or_free(JAEGER_QUERY)?,
        query_grpc,
        health,
    };
    let config = folder.join("jaeger.yaml");
    fs::write(&config, jaeger::config(&ports))?;
    let mut command = Command::new(program);
    command.arg("--config").arg(config).current_dir(folder);
    // It takes 10 s to end by SIGTERM, and its memory is all it has.
    let mut part = Part::start("jaeger", &mut command, folder, End::Kill)?;
    wait_ready(&mut part, stop, local(health), "/status")?;
    Ok(Jaeger { part, query: local(ports.query_http), endpoint: format!("http://127.0.0.1:{}", ports.otlp_grpc) })
}

/// Starts Prometheus with the project's own configuration, on the demo's addresses.
pub fn start_prometheus(
    workspace: &Workspace,
    program: &Path,
    folder: &Path,
    daemon: SocketAddr,
    stop: &Stop,
) -> Result<(Part, SocketAddr)> {
    let address = local(port_or_free(PROMETHEUS)?);
    let file = workspace.root.join("prometheus/prometheus.yml");
    let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let config = folder.join("prometheus.yml");
    fs::write(&config, configure(&text, daemon, address).with_context(|| file.display().to_string())?)?;
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()));
    command.arg(format!("--web.listen-address={address}"));
    command.arg("--enable-feature=exemplar-storage").current_dir(folder);
    let mut part = Part::start("prometheus", &mut command, folder, End::Terminate)?;
    wait_ready(&mut part, stop, address, "/-/ready")?;
    Ok((part, address))
}

/// The demo is short: a scrape each 5 s instead of 15 s.
fn configure(text: &str, daemon: SocketAddr, own: SocketAddr) -> Result<String> {
    let mut text = text.to_owned();
    for (old, new) in [
        ("127.0.0.1:9464", daemon.to_string()),
        ("127.0.0.1:9090", own.to_string()),
        ("scrape_interval: 15s", "scrape_interval: 5s".to_owned()),
    ] {
        if !text.contains(old) {
            bail!("it has no `{old}` for the demo to replace");
        }
        text = text.replace(old, &new);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_projects_prometheus_configuration_takes_the_demos_addresses() {
        let text = include_str!("../../../prometheus/prometheus.yml");
        let text = configure(text, local(1111), local(2222)).expect("all places are there");
        for part in ["127.0.0.1:1111", "127.0.0.1:2222", "scrape_interval: 5s"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert!(configure("scrape_configs: []", local(1), local(2)).is_err());
    }
}
