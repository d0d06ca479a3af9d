//! Exact HTTP and database latency of unmodified async Rust servers, from eBPF to Prometheus and Jaeger.
//!
//! Data flows one way: [`probe`] loads the kernel programs; [`capture`] turns their records into typed events per
//! connection; [`protocol`] parses bytes; [`exchange`] pairs request and response; [`route`] names the route;
//! [`contract`] declares the metrics; [`exposition`] serves them; [`trace`] exports spans. [`target`] finds the
//! processes and what is in their binaries. Of the whole host, [`events`] tells which processes and cgroups come and go.

pub mod aside;
pub mod budget;
pub mod capture;
pub mod cli;
pub mod config;
pub mod confine;
pub mod container;
pub mod contract;
pub mod daemon;
pub mod database;
pub mod escape;
pub mod events;
pub mod exchange;
pub mod exposition;
pub mod host;
pub mod liveness;
pub mod probe;
pub mod process;
pub mod protocol;
pub mod route;
pub mod statement;
pub mod target;
pub mod trace;
