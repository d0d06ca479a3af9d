//! A real CRI runtime: `RUSTOK_OBSD_TEST_CRI_SOCK` names its socket, `RUSTOK_OBSD_TEST_CRI_IMAGE` an image with `sleep`
//! that it has. Pods are made by CRI itself, in the host's network: no CNI is needed.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use prost::Message;
use test_support::skip;
use tokio::net::UnixStream;

use super::{SOON, cri_at, eventually, known};
use crate::container::runtime::{
    Lookup, Network, Outcome, RuntimeKind, State,
    cri_api::{Client, ContainerMetadata, ImageSpec, NODE, NamespaceOption, PodSandboxMetadata},
};

#[derive(Clone, PartialEq, Message)]
struct PodConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(map = "string, string", tag = "6")]
    labels: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxPodConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security: Option<SecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct SecurityContext {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
struct RunPod {
    #[prost(message, optional, tag = "1")]
    config: Option<PodConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    pod: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    pod_config: Option<PodConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<ImageSpec>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(map = "string, string", tag = "9")]
    labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Removes the pod with the test.
struct Pod<'a> {
    runtime: &'a tokio::runtime::Runtime,
    client: &'a Client,
    id: String,
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        for path in ["/runtime.v1.RuntimeService/StopPodSandbox", "/runtime.v1.RuntimeService/RemovePodSandbox"] {
            let _ = self.runtime.block_on(self.client.must::<_, Nothing>(path, Id { id: self.id.clone() }));
        }
    }
}

#[test]
fn a_real_cri_runtime_tells_of_pods_as_the_kubelet_would_name_them() {
    let name = "a_real_cri_runtime_tells_of_pods_as_the_kubelet_would_name_them";
    let Ok(socket) = std::env::var("RUSTOK_OBSD_TEST_CRI_SOCK") else {
        return skip(name, "RUSTOK_OBSD_TEST_CRI_SOCK names no socket; start containerd with CRI and set it");
    };
    let Ok(image) = std::env::var("RUSTOK_OBSD_TEST_CRI_IMAGE") else {
        return skip(name, "RUSTOK_OBSD_TEST_CRI_IMAGE names no image; import one with `sleep` in it and set it");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async { Client::over(UnixStream::connect(&socket).await.unwrap()).await.unwrap() });
    let runtimes = cri_at(socket.into());
    let source = &runtimes.sources()[0];
    eventually("up", SOON, || (source.report().state == State::Up).then_some(()));
    assert_eq!(source.report().kind, Some(RuntimeKind::Cri));

    let uid = format!("11111111-2222-3333-4444-{:012}", std::process::id());
    let kubelet =
        [("io.kubernetes.pod.name", "web-0"), ("io.kubernetes.pod.namespace", "shop"), ("io.kubernetes.pod.uid", &uid)];
    let pod_config = PodConfig {
        metadata: Some(PodSandboxMetadata {
            name: "web-0".into(),
            uid: uid.clone(),
            namespace: "shop".into(),
            attempt: 0,
        }),
        log_directory: String::new(),
        labels: labels(&kubelet),
        linux: Some(LinuxPodConfig {
            cgroup_parent: format!("/kubepods/burstable/pod{uid}"),
            security: Some(SecurityContext { namespaces: Some(NamespaceOption { network: NODE }) }),
        }),
    };
    let run = RunPod { config: Some(pod_config.clone()) };
    let Id { id: sandbox } = runtime.block_on(client.must("/runtime.v1.RuntimeService/RunPodSandbox", run)).unwrap();
    let pod = Pod { runtime: &runtime, client: &client, id: sandbox.clone() };
    runtimes.wanted(&sandbox);
    let facts = known(&runtimes, &sandbox);
    assert_eq!((facts.pod.as_str(), facts.namespace.as_str(), &facts.pod_uid), ("web-0", "shop", &uid));
    assert!(facts.is_sandbox && !facts.image.is_empty() && facts.pid.is_some(), "{facts:?}");
    assert_eq!(facts.network, Network::Host);
    assert_eq!(facts.cgroup.as_deref(), Some(format!("/kubepods/burstable/pod{uid}/{sandbox}").as_str()));
    assert_eq!(runtimes.pod(&uid.replace('-', "_")).unwrap().id, sandbox);

    let mut container_labels = labels(&kubelet);
    container_labels.insert("io.kubernetes.container.name".into(), "nginx".into());
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "nginx".into(), attempt: 2 }),
        image: Some(ImageSpec { image: image.clone(), user_specified_image: String::new() }),
        command: vec!["/bin/sleep".into(), "600".into()],
        labels: container_labels,
    };
    let create = CreateContainer { pod: sandbox.clone(), config: Some(config), pod_config: Some(pod_config) };
    let create = client.must("/runtime.v1.RuntimeService/CreateContainer", create);
    let Id { id: container } = runtime.block_on(create).unwrap();
    runtimes.wanted(&container);
    let created = known(&runtimes, &container);
    assert_eq!((created.started_at, created.pid), (None, None));
    let start = client.must::<_, Nothing>("/runtime.v1.RuntimeService/StartContainer", Id { id: container.clone() });
    runtime.block_on(start).unwrap();
    // A wish for another one is what makes the list be read where there are no events.
    runtimes.wanted(&super::id('0'));
    let facts = eventually("started", SOON, || {
        let facts = known(&runtimes, &container);
        facts.started_at.is_some().then_some(facts)
    });
    assert_eq!((facts.pod.as_str(), facts.namespace.as_str(), facts.container.as_str()), ("web-0", "shop", "nginx"));
    assert_eq!((&facts.image, facts.is_sandbox), (&image, false));
    assert_eq!(facts.network, Network::Of(sandbox.clone()));
    assert!(SystemTime::now().duration_since(facts.started_at.unwrap()).unwrap() < Duration::from_secs(60));
    assert_eq!(std::fs::read(format!("/proc/{}/cmdline", facts.pid.unwrap())).unwrap(), b"/bin/sleep\x00600\0");
    if source.report().version.starts_with("containerd") {
        assert_eq!((&facts.name, runtimes.pod(&uid).unwrap().container.as_str()), (&container, ""));
    } else {
        assert_eq!(facts.name, format!("k8s_nginx_web-0_shop_{uid}_2"));
    }

    drop(pod);
    assert_eq!(known(&runtimes, &container).container, "nginx", "its last rows keep their labels");
    runtimes.forget(&container);
    assert_eq!(runtimes.lookup(&container), Lookup::Unknown);
    assert_eq!((source.requests(Outcome::Error), source.requests(Outcome::Timeout)), (0, 0));
}
