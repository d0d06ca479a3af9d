//! The daemon beside container runtimes.
//!
//! Reads: the program that `RUSTOK_OBSD_BIN` names. Yields: [`Daemon`]. Costs: a second to start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use test_support::{Child, Scraped, Skip, free_port, http_get, wait_until};

/// How long a runtime has to be asked, on a busy machine.
const SOON: Duration = Duration::from_secs(40);

/// A running daemon; killed when dropped.
pub struct Daemon {
    _child: Child,
    address: SocketAddr,
}

impl Daemon {
    /// Starts one that asks these sockets, and tells the label `tier`.
    pub fn start(cri: &[&Path], docker: &[&Path]) -> Result<Self, Skip> {
        let binary = std::env::var_os("RUSTOK_OBSD_BIN").map(PathBuf::from);
        let binary =
            binary.ok_or_else(|| Skip::new("RUSTOK_OBSD_BIN is not set; `cargo xtask test` builds what it names"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let list = |paths: &[&Path]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",");
        let mut command = Command::new(binary);
        command.arg("run").arg(format!("--web.listen-address={address}"));
        command.arg(format!("--container.cri-sockets={}", list(cri)));
        command.arg(format!("--container.docker-sockets={}", list(docker))).arg("--container.labels=tier");
        let mut child = Child::spawn("rustok-obsd", &mut command).expect("start the daemon");
        child.wait_for_http(address, "/healthz", Duration::from_secs(20)).expect("the daemon serves");
        Ok(Self { _child: child, address })
    }

    /// One scrape of a part, for instance `cadvisor`.
    pub fn scrape(&self, part: &str) -> Scraped {
        let (status, _, body) = http_get(self.address, &format!("/metrics/{part}")).expect("an answer");
        let text = String::from_utf8(body).expect("UTF-8");
        assert_eq!(status, 200, "{text}");
        Scraped::parse(&text).expect("a body")
    }

    /// Scrapes until a sample of this name with these labels is there.
    pub fn wait_for(&self, name: &str, labels: &[(&str, &str)]) -> Scraped {
        let found = wait_until(SOON, || {
            let scraped = self.scrape("cadvisor");
            scraped.sum(name, labels).map(|_| scraped)
        });
        found.unwrap_or_else(|| panic!("no {name}{labels:?} in {:#?}", self.scrape("cadvisor").families.get(name)))
    }

    /// Waits until the connection to a runtime is in this state.
    pub fn wait_for_runtime(&self, socket: &Path, state: &str) {
        let socket = socket.display().to_string();
        let reached = wait_until(SOON, || {
            let is = self.scrape("app").sum("rustok_obsd_runtime_state", &[("socket", &socket), ("state", state)]);
            (is == Some(1.0)).then_some(())
        });
        assert!(reached.is_some(), "{:#?}", self.scrape("app").families.get("rustok_obsd_runtime_state"));
    }
}
