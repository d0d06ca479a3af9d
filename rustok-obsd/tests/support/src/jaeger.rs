//! Jaeger v2 with storage in memory.
//!
//! Reads: OTLP over gRPC and HTTP. Yields: the traces through its query API. Costs: 60 MB and 0.1 s to start.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::{Child, JAEGER, Ports, Skip, free_port, http_get};

/// A running Jaeger; killed when dropped.
pub struct Jaeger {
    server: Child,
    _folder: tempfile::TempDir,
    grpc: u16,
    http: u16,
    query: SocketAddr,
}

impl Jaeger {
    /// Starts [`JAEGER`].
    ///
    /// # Errors
    /// A [`Skip`] that says what is missing or what Jaeger said.
    pub fn start() -> Result<Self, Skip> {
        Self::start_program(&JAEGER.find()?, Ports::Free)
    }

    /// Starts this program.
    ///
    /// # Errors
    /// As [`Jaeger::start`].
    pub fn start_program(binary: &Path, ports: Ports) -> Result<Self, Skip> {
        let [grpc, http, query] = [4317, 4318, 16686].map(|usual| ports.pick(usual));
        let [query_grpc, health] = [(); 2].map(|()| free_port());
        let config = format!(
            r#"
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines: {{traces: {{receivers: [otlp], processors: [], exporters: [jaeger_storage_exporter]}}}}
  telemetry: {{metrics: {{level: none}}}}
extensions:
  healthcheckv2: {{use_v2: true, http: {{endpoint: "127.0.0.1:{health}"}}}}
  jaeger_query: {{storage: {{traces: mem}}, http: {{endpoint: "127.0.0.1:{query}"}}, grpc: {{endpoint: "127.0.0.1:{query_grpc}"}}}}
  jaeger_storage: {{backends: {{mem: {{memory: {{max_traces: 100000}}}}}}}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}}}
exporters: {{jaeger_storage_exporter: {{trace_storage: mem}}}}
"#
        );
        let failed = |what: &str, error: &dyn std::fmt::Display| Skip::new(format!("Jaeger: {what}: {error}"));
        let folder = tempfile::Builder::new()
            .prefix("rustok-obsd-jaeger-")
            .tempdir()
            .map_err(|error| failed("cannot make a temporary folder", &error))?;
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, config).map_err(|error| failed("cannot write its config", &error))?;
        let mut command = Command::new(binary);
        command.arg("--config").arg(&file).current_dir(folder.path());
        // Its orderly end takes 10 s.
        let mut server = Child::spawn_with("jaeger", &mut command, libc::SIGKILL, Some(folder.path()))
            .map_err(|error| failed("cannot start", &error))?;
        let health = SocketAddr::from((Ipv4Addr::LOCALHOST, health));
        server.wait_for_http(health, "/status", Duration::from_secs(30)).map_err(Skip::new)?;
        let query = SocketAddr::from((Ipv4Addr::LOCALHOST, query));
        Ok(Self { server, _folder: folder, grpc, http, query })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// As [`Child::check`].
    pub fn check(&mut self) -> Result<(), String> {
        self.server.check()
    }

    /// Endpoint for OTLP over gRPC: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn otlp_grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// Endpoint for OTLP over HTTP, without `/v1/traces`: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn otlp_http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// Address of the query API.
    #[must_use]
    pub fn query_addr(&self) -> SocketAddr {
        self.query
    }

    /// Up to `limit` traces of a service: the `data` array of `/api/traces`, each with `spans` and `processes`.
    /// `Null` where Jaeger gave no answer.
    #[must_use]
    pub fn traces(&self, service: &str, limit: usize) -> Value {
        self.data(&format!("/api/traces?service={service}&limit={limit}&lookback=1h"))
    }

    /// The trace with this id (32 hexadecimal digits): an array of one trace, or `Null`.
    #[must_use]
    pub fn trace(&self, id: &str) -> Value {
        self.data(&format!("/api/traces/{id}"))
    }

    /// Names of the services seen.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        let names = self.data("/api/services");
        names.as_array().into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    }

    fn data(&self, path: &str) -> Value {
        let Ok((200, _, body)) = http_get(self.query, path) else {
            return Value::Null;
        };
        serde_json::from_slice(&body).map_or(Value::Null, |mut answer: Value| answer["data"].take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip;

    #[test]
    fn jaeger_starts_and_answers_its_query_api() {
        match Jaeger::start() {
            Ok(jaeger) => {
                assert!(jaeger.services().is_empty());
                assert_eq!(jaeger.traces("nobody", 10).as_array().map(Vec::len), Some(0));
            }
            Err(reason) => skip("jaeger_starts_and_answers_its_query_api", reason),
        }
    }
}
