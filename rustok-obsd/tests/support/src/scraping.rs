//! What a [`Prometheus`](crate::Prometheus) of a test scrapes, and what it answers.
//!
//! Reads: nothing. Yields: a configuration, written as JSON, which is YAML as well; samples of an instant vector. Costs:
//! nothing.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

/// One scrape job with one target.
#[derive(Debug, Clone)]
pub struct Job {
    name: String,
    target: String,
    path: String,
    params: Map<String, Value>,
    labels: Map<String, Value>,
}

impl Job {
    /// Scrapes `http://TARGET/metrics` as job `name`.
    pub fn new(name: &str, target: impl Display) -> Self {
        let (params, labels) = (Map::new(), Map::new());
        Self { name: name.to_owned(), target: target.to_string(), path: "/metrics".to_owned(), params, labels }
    }

    /// Another path.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// A parameter of the query; one name may come with several values.
    #[must_use]
    pub fn param(mut self, name: &str, value: &str) -> Self {
        let values = self.params.entry(name).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(json!(value));
        }
        self
    }

    /// A label of all its samples.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), json!(value));
        self
    }
}

/// All jobs, and the rules over what they bring.
#[derive(Debug, Clone)]
pub struct Scraping {
    interval: Duration,
    jobs: Vec<Job>,
    rules: Vec<PathBuf>,
}

impl Scraping {
    /// Scrapes, and evaluates rules, this often.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self { interval, jobs: Vec::new(), rules: Vec::new() }
    }

    /// One more job.
    #[must_use]
    pub fn job(mut self, job: Job) -> Self {
        self.jobs.push(job);
        self
    }

    /// One more file of rules.
    #[must_use]
    pub fn rules(mut self, file: &Path) -> Self {
        // Prometheus takes relative ones as relative to its configuration.
        self.rules.push(std::path::absolute(file).unwrap_or_else(|_| file.to_owned()));
        self
    }

    pub(crate) fn config(&self) -> String {
        let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
        let jobs = self.jobs.iter().map(|job| {
            json!({
                "job_name": job.name,
                "metrics_path": job.path,
                "params": job.params,
                "static_configs": [{"targets": [job.target], "labels": job.labels}],
            })
        });
        let config = json!({
            "global": {
                "scrape_interval": milliseconds(self.interval),
                "scrape_timeout": milliseconds(self.interval.min(Duration::from_secs(10))),
                "evaluation_interval": milliseconds(self.interval),
            },
            "rule_files": self.rules,
            "scrape_configs": jobs.collect::<Vec<_>>(),
        });
        config.to_string()
    }
}

/// One element of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels; its name as `__name__`, where the expression kept one.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// The value of a label, empty where there is none, as PromQL has it.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Reads the answer of `/api/v1/query`; a scalar is a sample without labels.
    pub(crate) fn read(answer: &Value) -> Result<Vec<Self>, String> {
        if answer["status"] != "success" {
            return Err(answer["error"].as_str().map_or_else(|| answer.to_string(), str::to_owned));
        }
        let result = &answer["data"]["result"];
        let read = |labels: &Value, value: &Value| {
            let labels = labels.as_object().into_iter().flatten();
            let labels = labels.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
            // Rust's words for infinities and what is no number are those of Prometheus.
            Some(Self { labels: labels.collect::<Option<_>>()?, value: value[1].as_str()?.parse().ok()? })
        };
        let samples = match answer["data"]["resultType"].as_str() {
            Some("scalar") => read(&Value::Null, result).map(|sample| vec![sample]),
            Some("vector") => {
                let samples = result.as_array().into_iter().flatten();
                samples.map(|sample| read(&sample["metric"], &sample["value"])).collect()
            }
            _ => None,
        };
        samples.ok_or_else(|| format!("no instant vector: {answer}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_scalars_and_errors_are_read() {
        let answer = json!({"status": "success", "data": {"resultType": "vector", "result": [
            {"metric": {"__name__": "up", "job": "a"}, "value": [1.5, "1"]},
            {"metric": {}, "value": [1.5, "+Inf"]},
        ]}});
        let samples = Sample::read(&answer).expect("a vector");
        assert_eq!((samples[0].label("job"), samples[0].label("instance"), samples[0].value), ("a", "", 1.0));
        assert_eq!(samples[1].value, f64::INFINITY);
        let answer = json!({"status": "success", "data": {"resultType": "scalar", "result": [1.5, "2"]}});
        assert_eq!(Sample::read(&answer).expect("a scalar")[0].value, 2.0);
        let answer = json!({"status": "error", "errorType": "bad_data", "error": "parse error: unexpected end"});
        assert_eq!(Sample::read(&answer).expect_err("an error"), "parse error: unexpected end");
        let answer = json!({"status": "success", "data": {"resultType": "matrix", "result": []}});
        assert!(Sample::read(&answer).expect_err("a matrix").contains("matrix"));
    }
}
