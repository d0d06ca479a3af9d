//! The Prometheus project's node_exporter, of the version whose names and formulas ours are held to.
//!
//! Reads: the host it runs on, or the trees that its arguments name. Yields: `/metrics`. Costs: 20 MB and 0.1 s to start.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use crate::{Child, NODE_EXPORTER, Skip, free_port, http_get};

/// A running node_exporter; killed when dropped.
pub struct NodeExporter {
    server: Child,
    addr: SocketAddr,
}

impl NodeExporter {
    /// Starts [`NODE_EXPORTER`] with these arguments besides its address.
    ///
    /// # Errors
    /// A [`Skip`] that says what is missing or what it said.
    pub fn start(args: &[&str]) -> Result<Self, Skip> {
        Self::start_with(args, &[])
    }

    /// The same with environment variables.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_with(args: &[&str], variables: &[(&str, &str)]) -> Result<Self, Skip> {
        let binary = NODE_EXPORTER.find()?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new(binary);
        command.arg(format!("--web.listen-address={addr}")).args(args).envs(variables.iter().copied());
        let mut server = Child::spawn_with("node_exporter", &mut command, libc::SIGKILL, None)
            .map_err(|error| Skip::new(error.to_string()))?;
        server.wait_for_http(addr, "/", Duration::from_secs(30)).map_err(Skip::new)?;
        Ok(Self { server, addr })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// What it exposes now, in text format 0.0.4.
    ///
    /// # Errors
    /// The status that it answered with, or why there was no answer, with its last log lines.
    pub fn metrics(&self) -> Result<String, String> {
        let why = match http_get(self.addr, "/metrics") {
            Ok((200, _, body)) => return Ok(String::from_utf8_lossy(&body).into_owned()),
            Ok((status, _, body)) => format!("status {status}: {}", String::from_utf8_lossy(&body)),
            Err(error) => error.to_string(),
        };
        Err(format!("node_exporter: /metrics: {why}; its last lines:\n{}", self.server.log_tail()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip;

    #[test]
    fn node_exporter_serves_what_its_arguments_ask_for() {
        let peer = match NodeExporter::start(&["--collector.disable-defaults", "--collector.loadavg"]) {
            Ok(peer) => peer,
            Err(reason) => return skip("node_exporter_serves_what_its_arguments_ask_for", reason),
        };
        let metrics = peer.metrics().expect("metrics");
        assert!(metrics.contains("\nnode_load1 "), "{metrics}");
        assert!(metrics.contains("version=\"1.12.1\""), "{metrics}");
        assert!(!metrics.contains("node_memory_MemTotal_bytes"), "{metrics}");
    }
}
