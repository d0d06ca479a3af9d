//! What a runtime says about one container, in the field's own terms.
//!
//! Reads: names, labels and times of a runtime's answers. Yields: [`Facts`], named as cAdvisor and the kubelet name
//! them. Costs: a few allocations per container, once.

use std::time::{Duration, SystemTime};

/// Kubernetes' labels on every container of a pod.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name within the pod; "POD" for the sandbox where the runtime labels it (CRI-O, cri-dockerd), absent
/// from containerd's sandboxes. The kubelet shows what the label says, hence so do these facts.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Marks the sandbox among cri-dockerd's containers.
const DOCKER_TYPE: &str = "io.kubernetes.docker.type";

/// Labels of one container are kept up to this many bytes; the rest is dropped and counted.
pub const MOST_LABEL_BYTES: usize = 64 * 1024;

/// Whose API told it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RuntimeKind {
    /// A CRI runtime: containerd, CRI-O, cri-dockerd.
    #[default]
    Cri,
    /// Docker.
    Docker,
    /// Podman, by Docker's API.
    Podman,
}

impl RuntimeKind {
    /// The value of a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cri => "cri",
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// The verdict of a container's health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not yet known.
    Starting,
    /// Passes.
    Healthy,
    /// Fails.
    Unhealthy,
}

impl Health {
    /// A runtime's word for it; none for containers without a health check.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "starting" => Some(Self::Starting),
            "healthy" => Some(Self::Healthy),
            "unhealthy" => Some(Self::Unhealthy),
            _ => None,
        }
    }
}

/// Whose network a container has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// The runtime does not say.
    #[default]
    Unknown,
    /// Its own, or that of the pod whose sandbox it is.
    Own,
    /// The host's.
    Host,
    /// Another container's: its id, or its name where Docker was given that. For containers of a pod the sandbox's id.
    Of(String),
}

/// What a runtime says about one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Who told it.
    pub runtime: RuntimeKind,
    /// The full id, 64 hex digits.
    pub id: String,
    /// The name as cAdvisor has it: Docker's without the slash, CRI-O's `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`,
    /// the id itself for containerd.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// The pod, or "".
    pub pod: String,
    /// The pod's namespace, or "".
    pub namespace: String,
    /// The pod's UID, or "".
    pub pod_uid: String,
    /// The container's name within the pod; see [`CONTAINER_NAME`] for sandboxes; "" outside pods.
    pub container: String,
    /// The pause container, which holds a pod's network.
    pub is_sandbox: bool,
    /// Every label, sorted by name.
    pub labels: Vec<(String, String)>,
    /// When it was started last.
    pub started_at: Option<SystemTime>,
    /// When it was made.
    pub created_at: Option<SystemTime>,
    /// Its first process, in the host's numbers.
    pub pid: Option<u32>,
    /// The health check's verdict; none without a check.
    pub health: Option<Health>,
    /// Whose network it has.
    pub network: Network,
    /// What the runtime calls its cgroup: the whole path, systemd's `slice:prefix:name`, or Docker's parent alone.
    pub cgroup: Option<String>,
    /// The writable layer's directory.
    pub upper_dir: Option<String>,
}

impl Facts {
    /// Facts with nothing but an id and labels, out of which pod, namespace and container come. Yields how many labels
    /// were dropped, too.
    pub(super) fn labelled(
        runtime: RuntimeKind,
        id: String,
        labels: impl IntoIterator<Item = (String, String)>,
    ) -> (Self, usize) {
        let mut labels: Vec<_> = labels.into_iter().collect();
        labels.sort_unstable();
        let get = |name: &str| {
            let at = labels.binary_search_by(|(key, _)| key.as_str().cmp(name));
            at.map_or_else(|_| String::new(), |at| labels[at].1.clone())
        };
        let (pod, namespace, pod_uid) = (get(POD_NAME), get(POD_NAMESPACE), get(POD_UID));
        let (container, docker_type) = (get(CONTAINER_NAME), get(DOCKER_TYPE));
        let mut bytes = 0;
        let all = labels.len();
        labels.retain(|(key, value)| {
            let more = key.len() + value.len();
            let keep = bytes + more <= MOST_LABEL_BYTES;
            bytes += if keep { more } else { 0 };
            keep
        });
        let dropped = all - labels.len();
        let facts = Self {
            runtime,
            name: id.clone(),
            id,
            image: String::new(),
            pod,
            namespace,
            pod_uid,
            is_sandbox: container == "POD" || docker_type == "podsandbox",
            container,
            labels,
            started_at: None,
            created_at: None,
            pid: None,
            health: None,
            network: Network::Unknown,
            cgroup: None,
            upper_dir: None,
        };
        (facts, dropped)
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(key, _)| key.as_str().cmp(name)).ok()?;
        Some(&self.labels[at].1)
    }
}

/// Whether this is a full container id.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// CRI's nanoseconds since 1970; 0 is never.
pub(super) fn unix_nanos(nanos: i64) -> Option<SystemTime> {
    let nanos = u64::try_from(nanos).ok().filter(|&nanos| nanos > 0)?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos))
}

/// Docker's RFC 3339; year 1 is never.
pub(super) fn rfc3339(text: &str) -> Option<SystemTime> {
    let time: prost_types::Timestamp = text.parse().ok()?;
    let seconds = u64::try_from(time.seconds).ok().filter(|&seconds| seconds > 0)?;
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::try_from(time.nanos).ok()?))
}
