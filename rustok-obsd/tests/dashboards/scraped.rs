//! The daemon, and the Prometheus that scrapes it as the stock dashboards want.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use test_support::{Child, Job, Prometheus, Scraping, Skip, free_port, wait_until};

/// A running daemon.
pub struct Daemon {
    _child: Child,
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts it with these flags; eBPF is not needed.
    pub fn start(flags: &[&str]) -> Result<Self, Skip> {
        let binary = std::env::var_os("RUSTOK_OBSD_BIN").map(PathBuf::from);
        let binary =
            binary.ok_or_else(|| Skip::new("RUSTOK_OBSD_BIN is not set; `cargo xtask test` builds what it names"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(binary);
        command.arg("run").arg(format!("--web.listen-address={address}")).args(flags);
        let mut child = Child::spawn("rustok-obsd", &mut command).expect("start the daemon");
        child.wait_for_http(address, "/healthz", Duration::from_secs(20)).expect("the daemon serves");
        Ok(Self { _child: child, address })
    }
}

/// A Prometheus with these jobs, each second, and the rules of the mixins.
pub fn prometheus(folder: &Path, jobs: &[Job], rules: &[&str]) -> Result<Prometheus, Skip> {
    let scraping = jobs.iter().cloned().fold(Scraping::every(Duration::from_secs(1)), Scraping::job);
    let rules = rules.iter().map(|rules| folder.join("rules").join(rules));
    let prometheus = Prometheus::scrape(&rules.fold(scraping, |all, file| all.rules(&file)))?;
    let up = || {
        let up = prometheus.query("up == 1");
        (up.as_array().map_or(0, Vec::len) == jobs.len()).then_some(())
    };
    let why = || prometheus.get("/api/v1/targets?state=active").to_string();
    assert!(wait_until(Duration::from_secs(30), up).is_some(), "a target is down: {}", why());
    Ok(prometheus)
}
