//! Prometheus, and promtool.
//!
//! Reads: `/metrics` of its targets. Yields: answers to PromQL. Costs: 60 MB and 0.7 s to start.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::{Child, Job, Ports, Sample, Scraping, Skip, http_get, program};

/// A running Prometheus; stopped when dropped.
pub struct Prometheus {
    server: Child,
    _folder: tempfile::TempDir,
    addr: SocketAddr,
}

impl Prometheus {
    /// Starts the program that `RUSTOK_OBSD_PROMETHEUS` names, else `prometheus` from PATH, which scrapes
    /// `http://TARGET/metrics` each second as job `test`, with exemplar storage on.
    ///
    /// # Errors
    /// A [`Skip`] that says what is missing or what Prometheus said.
    pub fn start(scrape_target: impl std::fmt::Display) -> Result<Self, Skip> {
        Self::scrape(&Scraping::every(Duration::from_secs(1)).job(Job::new("test", scrape_target)))
    }

    /// Starts the same program with these jobs and rules.
    ///
    /// # Errors
    /// As [`Prometheus::start`].
    pub fn scrape(scraping: &Scraping) -> Result<Self, Skip> {
        Self::start_with(Ports::Free, |_| scraping.config())
    }

    /// Starts the same program with this configuration, made for the address that it will listen on.
    ///
    /// # Errors
    /// As [`Prometheus::start`].
    pub fn start_with(ports: Ports, config: impl FnOnce(SocketAddr) -> String) -> Result<Self, Skip> {
        let binary = program("prometheus", "RUSTOK_OBSD_PROMETHEUS")?;
        let failed = |what: &str, error: &dyn std::fmt::Display| Skip::new(format!("Prometheus: {what}: {error}"));
        let folder = tempfile::Builder::new()
            .prefix("rustok-obsd-prometheus-")
            .tempdir()
            .map_err(|error| failed("cannot make a temporary folder", &error))?;
        let file = folder.path().join("prometheus.yml");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.pick(9090)));
        std::fs::write(&file, config(addr)).map_err(|error| failed("cannot write its config", &error))?;
        let mut command = Command::new(binary);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .args(["--enable-feature=exemplar-storage", "--log.level=warn"]);
        let mut server = Child::spawn_with("prometheus", &mut command, libc::SIGKILL, Some(folder.path()))
            .map_err(|error| failed("cannot start", &error))?;
        server.wait_for_http(addr, "/-/ready", Duration::from_secs(30)).map_err(Skip::new)?;
        Ok(Self { server, _folder: folder, addr })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// As [`Child::check`].
    pub fn check(&mut self) -> Result<(), String> {
        self.server.check()
    }

    /// Where its API listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// An instant query: `data.result`, an array of `{metric, value: [time, text]}`; `Null` where the query failed.
    #[must_use]
    pub fn query(&self, expr: &str) -> Value {
        self.api(&format!("/api/v1/query?query={}", percent_encode(expr)), "result")
    }

    /// An instant query that must succeed.
    ///
    /// # Errors
    /// What Prometheus said of the expression, or why it did not answer.
    pub fn vector(&self, expr: &str) -> Result<Vec<Sample>, String> {
        let failed = |why: String| format!("Prometheus: {expr}: {why}");
        let path = format!("/api/v1/query?query={}", percent_encode(expr));
        let (_, _, body) = http_get(self.addr, &path).map_err(|error| failed(error.to_string()))?;
        let answer: Value = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
        Sample::read(&answer).map_err(failed)
    }

    /// A GET of any path of the API below `/api/v1`: its `data`, or `Null`.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        self.api(path, "")
    }

    fn api(&self, path: &str, member: &str) -> Value {
        let Ok((200, _, body)) = http_get(self.addr, path) else {
            return Value::Null;
        };
        let Ok(mut answer) = serde_json::from_slice::<Value>(&body) else {
            return Value::Null;
        };
        if member.is_empty() { answer["data"].take() } else { answer["data"][member].take() }
    }
}

/// Runs `promtool check config` (the same program as [`promtool_check_metrics`]) on a configuration. Yields what it
/// complained about, empty where it takes it.
///
/// # Errors
/// A [`Skip`] where promtool is missing or does not run.
pub fn promtool_check_config(text: &str) -> Result<String, Skip> {
    let binary = program("promtool", "RUSTOK_OBSD_PROMTOOL")?;
    let failed = |error: std::io::Error| Skip::new(format!("promtool: {error}"));
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let output = Command::new(binary).args(["check", "config"]).arg(file.path()).output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::new());
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok(if said.trim().is_empty() { output.status.to_string() } else { said })
}

/// Runs `promtool check metrics` (`RUSTOK_OBSD_PROMTOOL`, else PATH) on an exposition in text format 0.0.4. Yields
/// what it complained about, empty where it found nothing.
///
/// # Errors
/// A [`Skip`] where promtool is missing or does not run.
pub fn promtool_check_metrics(text: &str) -> Result<String, Skip> {
    let binary = program("promtool", "RUSTOK_OBSD_PROMTOOL")?;
    let failed = |error: std::io::Error| Skip::new(format!("promtool: {error}"));
    let mut child = Command::new(binary)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // It reads all of its input before it says anything, so that this cannot block on a full pipe.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && said.trim().is_empty() {
        let _ = write!(said, "{}", output.status);
    }
    match written {
        Err(error) if output.status.success() => Err(failed(error)),
        _ => Ok(said.trim().to_owned()),
    }
}

fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{free_port, skip, wait_until};

    #[test]
    fn promtool_accepts_a_configuration_and_names_what_is_wrong() {
        match promtool_check_config("scrape_configs:\n  - job_name: a\n") {
            Ok(said) => assert_eq!(said, ""),
            Err(skip) => return crate::skip("promtool_accepts_a_configuration_and_names_what_is_wrong", skip),
        }
        let said = promtool_check_config("scrape_configs:\n  - jobname: a\n").expect("it ran before");
        assert!(said.contains("jobname"), "{said}");
    }

    #[test]
    fn promtool_accepts_clean_metrics_and_names_what_is_wrong() {
        let clean = "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n";
        match promtool_check_metrics(clean) {
            Ok(said) => assert_eq!(said, ""),
            Err(reason) => {
                return skip("promtool_accepts_clean_metrics_and_names_what_is_wrong", reason);
            }
        }
        let said = promtool_check_metrics("# HELP a A.\n# TYPE a counter\na 1\n").expect("promtool ran a moment ago");
        assert!(said.contains("_total"), "{said}");
    }

    #[test]
    fn prometheus_scrapes_its_target() {
        let prometheus = match Prometheus::start(format_args!("127.0.0.1:{}", free_port())) {
            Ok(prometheus) => prometheus,
            Err(reason) => return skip("prometheus_scrapes_its_target", reason),
        };
        let up = wait_until(Duration::from_secs(15), || {
            let result = prometheus.query(r#"up{job="test"} == 0"#);
            Some(result[0]["value"][1].as_str()?.to_owned())
        });
        assert_eq!(up.as_deref(), Some("0"), "nobody listens there");
    }

    #[test]
    fn several_jobs_have_their_own_paths_parameters_and_labels_and_feed_rules() {
        let name = "several_jobs_have_their_own_paths_parameters_and_labels_and_feed_rules";
        let first = match Prometheus::start(format_args!("127.0.0.1:{}", free_port())) {
            Ok(prometheus) => prometheus,
            Err(reason) => return skip(name, reason),
        };
        // Any server that shows which query it got: Prometheus' own federation does.
        let folder = tempfile::tempdir().expect("a folder");
        let rules = folder.path().join("rules.yml");
        std::fs::write(&rules, "groups: [{name: g, rules: [{record: both:up, expr: count(up == 1)}]}]").expect("rules");
        let scraping = Scraping::every(Duration::from_millis(500))
            .job(Job::new("own", first.addr()).label("kind", "whole"))
            .job(Job::new("some", first.addr()).path("/federate").param("match[]", "up").param("match[]", "absent_one"))
            .rules(&rules);
        let second = Prometheus::scrape(&scraping).expect("it ran a moment ago");
        let both = wait_until(Duration::from_secs(15), || {
            second.vector("both:up").expect("a query").first().filter(|sample| sample.value == 2.0).map(drop)
        });
        assert!(both.is_some(), "{:?}", second.get("/api/v1/targets"));
        let up = second.vector(r#"up{kind="whole"}"#).expect("a query");
        assert_eq!(up.iter().map(|sample| sample.label("job")).collect::<Vec<_>>(), ["own"]);
        // The first one's target is down: that is the sample which federation hands on.
        let handed = wait_until(Duration::from_secs(15), || {
            let samples = second.vector(r#"up{job="some", exported_job="test"}"#).expect("a query");
            samples.first().map(|sample| sample.value)
        });
        assert_eq!(handed, Some(0.0));
        assert!(second.vector("sum(").expect_err("no expression").contains("parse error"));
    }
}
