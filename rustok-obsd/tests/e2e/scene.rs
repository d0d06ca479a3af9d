//! The scene: Postgres, the shop, and the load.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use test_support::{Child, Postgres, Skip, Tls};

pub struct Scene {
    pub shop: Child,
    pub url: String,
    pub postgres: Postgres,
    pub folder: tempfile::TempDir,
}

/// A program that `cargo xtask test` built.
pub fn program(variable: &str) -> Result<PathBuf, Skip> {
    match env::var_os(variable).map(PathBuf::from) {
        Some(path) if path.is_file() => Ok(path),
        Some(path) => Err(Skip::new(format!("{variable} names {}, which is no file", path.display()))),
        None => Err(Skip::new(format!("{variable} is not set; `cargo xtask test` builds what it names"))),
    }
}

impl Scene {
    pub fn start(tls: Tls) -> Result<Self, Skip> {
        Self::start_binary(&program("RUSTOK_OBSD_SHOP")?, tls)
    }

    pub fn start_binary(shop: &Path, tls: Tls) -> Result<Self, Skip> {
        let postgres = Postgres::start_with(tls)?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(shop);
        command
            .args(["--listen", "127.0.0.1:0", "--workers", "2", "--pool", "5", "--ground-truth"])
            .arg(folder.path().join("truth.jsonl"))
            .env("DATABASE_URL", postgres.url("postgres"));
        let shop = Child::spawn("shop", &mut command).expect("start the shop");
        let url = shop
            .wait_for_line(Duration::from_secs(30), |line| line.strip_prefix("listening on ").map(str::to_owned))
            .expect("the shop listens");
        Ok(Self { shop, url, postgres, folder })
    }

    /// The port that the shop listens on.
    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Runs the client to its end; its arguments decide what it sends.
    pub fn load(&self, args: &[&str]) -> Result<serde_json::Value, Skip> {
        let output = Command::new(program("RUSTOK_OBSD_SHOP_LOAD")?)
            .args(["--target", &self.url, "--log"])
            .arg(self.folder.path().join("client.jsonl"))
            .args(args)
            .output()
            .expect("run shop-load");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout).expect("a summary"))
    }

    /// Ends the shop, so that its ground truth is whole.
    pub fn finish(&mut self) -> Vec<super::truth::Request> {
        let status = self.shop.stop(libc::SIGTERM, Duration::from_secs(20)).expect("SIGTERM ends the shop");
        assert!(status.success(), "{status}: {}", self.shop.log_tail());
        super::truth::read(&self.folder.path().join("truth.jsonl"))
    }

    pub fn client_log(&self) -> Vec<super::truth::Sent> {
        super::truth::sent(&self.folder.path().join("client.jsonl"))
    }
}
