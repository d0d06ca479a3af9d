//! `[container]`: which cgroups are told, and with what.
//!
//! Reads: nothing. Yields: [`ContainerOptions`] and its keys. Costs: nothing.

use super::Slot;
use super::collector::Pattern;
use super::keys::{Key, key};
use crate::container::runtime::RuntimeSettings;
use std::path::PathBuf;

/// `[container]`: cgroups by cAdvisor's names.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct ContainerOptions {
    /// Whether they are told at all.
    pub enabled: bool,
    /// Cgroups that are no containers: slices and services of systemd, pods, whatever else there is.
    pub slices: bool,
    /// Containers and `/` only.
    pub only_containers: bool,
    /// Wanted ids; none is all.
    pub id_include: Pattern,
    /// Unwanted ids.
    pub id_exclude: Pattern,
    /// Cgroups at most.
    pub limit: usize,
    /// Labels of containers that become labels of their series.
    pub labels: Vec<String>,
    /// Families that cAdvisor tells as a constant 0.
    pub constants: bool,
    /// Count what is in the writable layers of containers.
    pub disk_usage: bool,
    /// Sockets of runtimes that speak the CRI.
    pub cri_sockets: Vec<String>,
    /// Sockets of runtimes that speak Docker's API.
    pub docker_sockets: Vec<String>,
}

impl Default for ContainerOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            slices: true,
            only_containers: false,
            id_include: Pattern::default(),
            id_exclude: Pattern::default(),
            limit: 5000,
            labels: Vec::new(),
            constants: false,
            disk_usage: false,
            cri_sockets: paths(&RuntimeSettings::default().cri),
            docker_sockets: paths(&RuntimeSettings::default().docker),
        }
    }
}

fn paths(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

/// The keys of `[container]`.
pub(super) static KEYS: &[Key] = &[
    key(
        "container.enabled",
        "container.enabled",
        &[],
        |c| Slot::Bool(&mut c.container.enabled),
        "Tell cgroups by cAdvisor's names, at /metrics and /metrics/cadvisor.",
    ),
    key(
        "container.slices",
        "container.slices",
        &[],
        |c| Slot::Bool(&mut c.container.slices),
        "Tell cgroups that are no containers too: slices and services of systemd, pods. About 45 series each.",
    ),
    key(
        "container.only_containers",
        "container.only-containers",
        &[],
        |c| Slot::Bool(&mut c.container.only_containers),
        "Tell containers and `/` only, as cAdvisor's --docker_only; wins over `slices`.",
    ),
    key(
        "container.id_include",
        "container.id-include",
        &[],
        |c| Slot::Pattern(&mut c.container.id_include),
        "Cgroups to tell, by their path (the label `id`); `/` always is.",
    ),
    key(
        "container.id_exclude",
        "container.id-exclude",
        &[],
        |c| Slot::Pattern(&mut c.container.id_exclude),
        "Cgroups to leave out, by their path; wins over `id_include`.",
    ),
    key(
        "container.limit",
        "container.limit",
        &[],
        |c| Slot::Integer(&mut c.container.limit, 1, 100_000),
        "Cgroups at most; more are left out and counted.",
    ),
    key(
        "container.labels",
        "container.labels",
        &[],
        |c| Slot::Names(&mut c.container.labels),
        "Labels of containers that their series get as `container_label_<name>`, characters other than letters, digits and `_` replaced by `_`.",
    ),
    key(
        "container.constants",
        "container.constants",
        &[],
        |c| Slot::Bool(&mut c.container.constants),
        "Tell also what cAdvisor tells as a constant 0 because it is not measured: load averages and states of tasks, and on cgroup v1 events and scans of memory and pressure.",
    ),
    key(
        "container.cri_sockets",
        "container.cri-sockets",
        &[],
        |c| Slot::Names(&mut c.container.cri_sockets),
        "Sockets, below `path.rootfs`, of runtimes that speak Kubernetes' CRI: names, images and pods of containers. `[]` for none.",
    ),
    key(
        "container.docker_sockets",
        "container.docker-sockets",
        &[],
        |c| Slot::Names(&mut c.container.docker_sockets),
        "Sockets, below `path.rootfs`, of runtimes that speak Docker's API (Docker, Podman). `[]` for none.",
    ),
    key(
        "container.disk_usage",
        "container.disk-usage",
        &[],
        |c| Slot::Bool(&mut c.container.disk_usage),
        "Count bytes and inodes in the writable layers of containers, in a thread of its own, which walks a layer at most once a minute and rests for twenty times its work.",
    ),
];
