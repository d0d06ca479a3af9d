//! Every expression of the stock dashboards and mixins, on a real Prometheus that scrapes the daemon.
//!
//! Reads: `dashboards/` of the fixtures, the daemon, node_exporter where it is to be had. Yields: a table per set: how many
//! expressions return data with the originals, how many with us; fails for each that returns data with the originals
//! and not with us, unless it is listed with its reason. Costs: about a minute.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod containers;
mod kube_state;
mod node;
mod scraped;
mod set;
