//! What the path of a cgroup says about it: container, pod, or neither.
//!
//! Reads: paths as Docker, containerd, CRI-O, podman and the kubelet make them, with cgroupfs and with systemd. Yields:
//! [`Identity`]. Costs: a scan of the path, once per cgroup.

/// What a cgroup is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Id of the container whose own cgroup it is: 64 characters.
    pub container: Option<Box<str>>,
    /// UID of the pod that it is in or is, with dashes.
    pub pod: Option<Box<str>>,
}

/// Length of an id.
const ID: usize = 64;

impl Identity {
    /// Of a cgroup's path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let base = path.rsplit('/').next().unwrap_or_default();
        Self { container: container(base).map(Into::into), pod: path.rsplit('/').find_map(pod).map(Into::into) }
    }

    /// Whether it is a pod's own cgroup, or one that a runtime made below it for no container.
    #[must_use]
    pub fn is_pod(&self) -> bool {
        self.pod.is_some() && self.container.is_none()
    }
}

/// The container's id in a cgroup's name: `<id>`, or `<runtime>-<id>.scope`. Monitors of containers (`crio-conmon-…`,
/// `libpod-conmon-…`) are none.
fn container(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let at = name.len().checked_sub(ID)?;
    if !name.is_char_boundary(at) {
        return None;
    }
    let (runtime, id) = name.split_at(at);
    let prefix = runtime.is_empty() || (runtime.ends_with('-') && !runtime.ends_with("conmon-"));
    let letters = id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (prefix && letters).then_some(id)
}

/// The pod's UID in a cgroup's name: `pod<uid>`, or `kubepods-<class>-pod<uid>.slice` with `_` for `-`.
fn pod(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod").filter(|(before, _)| before.starts_with("kubepods"))?.1,
        None => name.strip_prefix("pod")?,
    };
    // UIDs of static pods are hashes without dashes.
    let fits = (32..=36).contains(&uid.len())
        && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_'));
    fits.then(|| uid.replace('_', "-"))
}

/// Cgroups without any use for anybody: systemd's mounts, and scopes of one command.
#[must_use]
pub fn is_noise(path: &str) -> bool {
    let base = path.rsplit('/').next().unwrap_or_default();
    base.ends_with(".mount") || (base.starts_with("run-") && base.ends_with(".scope"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "8f1b000c43577533339c8fc1da1763db39ebbfe5b0edf2ca78a7af9503a11527";
    const UID: &str = "11111111-2222-3333-4444-000000001413";

    #[test]
    fn paths_say_who_is_who() {
        let systemd = UID.replace('-', "_");
        for (path, is_container, in_pod) in [
            ("/".to_owned(), false, false),
            (format!("/docker/{A}"), true, false),
            (format!("/system.slice/docker-{A}.scope"), true, false),
            (format!("/docker/{A}/init.scope"), false, false),
            (format!("/kubepods/burstable/pod{UID}/{A}"), true, true),
            (format!("/kubepods/pod{UID}"), false, true),
            (format!("/kubepods.slice/kubepods-pod{systemd}.slice/cri-containerd-{A}.scope"), true, true),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice/crio-{A}.scope"
                ),
                true,
                true,
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice/crio-conmon-{A}.scope"
                ),
                false,
                true,
            ),
            (format!("/machine.slice/libpod-{A}.scope"), true, false),
            (format!("/machine.slice/libpod-conmon-{A}.scope"), false, false),
            (format!("/libpod_parent/libpod-{A}"), true, false),
            ("/system.slice/podman.service".to_owned(), false, false),
            ("/podracing/x".to_owned(), false, false),
            (format!("/x/{}", &A[1..]), false, false),
            (format!("/x/ü{}", &A[1..]), false, false),
            (format!("/x/{}", A.to_uppercase()), false, false),
        ] {
            let identity = Identity::of(&path);
            assert_eq!(identity.container.as_deref(), is_container.then_some(A), "{path}");
            assert_eq!(identity.pod.as_deref(), in_pod.then_some(UID), "{path}");
            assert_eq!(identity.is_pod(), in_pod && !is_container, "{path}");
        }
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(Identity::of(&format!("/kubepods/pod{hash}")).pod.as_deref(), Some(hash));
    }

    #[test]
    fn mounts_and_scopes_of_a_command_are_noise() {
        assert!(is_noise("/system.slice/dev-hugepages.mount") && is_noise("/system.slice/run-r1234.scope"));
        assert!(!is_noise("/system.slice/run-x.service") && !is_noise("/init.scope") && !is_noise("/"));
    }
}
