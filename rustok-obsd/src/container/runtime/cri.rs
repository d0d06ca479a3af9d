//! Containers and sandboxes of a CRI runtime.
//!
//! Reads: `Version`, `ListPodSandbox`, `ListContainers`, the verbose status of each new one, and `GetContainerEvents`
//! where it is served (containerd 1.7, CRI-O 1.26 with `enable_pod_events`). Yields: facts. Costs: two lists per event or
//! wish, once a second at most, and every minute; one status per new container.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::atomic::{AtomicU8, Ordering},
    time,
};

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Deserialize;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    cri_api::{CREATED, Client, Container, ImageSpec, NODE, PodSandbox, PodSandboxMetadata, READY, RUNNING},
    error::Failure,
    facts::{self, Facts, Network, RuntimeKind},
    source::{DEBOUNCE, MOST_HUNG, RELIST, Source},
};

/// Serves one connection until it fails.
pub async fn session(source: &Source) -> Result<Infallible, Failure> {
    let client = Client::over(source.connect().await?).await?;
    let version = source.counted(client.version().await)?;
    // "docker" is cri-dockerd, which names its containers in Docker as CRI-O does.
    let long_names = matches!(version.runtime_name.as_str(), "cri-o" | "docker");
    let runtime = Runtime { source, client, long_names, hung: AtomicU8::new(0) };
    // Before the list: what happens after it must not be missed.
    let changed = Notify::new();
    let mut events = std::pin::pin!(watch(&runtime.client, &changed));
    let mut watching = true;
    let mut told = false;
    loop {
        runtime.list().await?;
        if !told {
            source.up(RuntimeKind::Cri, format!("{} {}", version.runtime_name, version.runtime_version));
            told = true;
        }
        let listed = Instant::now();
        let again = source.store.has_pending(source.index);
        loop {
            tokio::select! {
                reason = &mut events, if watching => {
                    tracing::debug!("{}: no events, the list is read instead: {reason}", source.socket().display());
                    watching = false;
                    continue;
                }
                () = changed.notified() => {}
                () = source.wake.notified() => {}
                () = sleep_until(listed + DEBOUNCE), if again => {}
                () = sleep_until(listed + RELIST) => {
                    if !watching {
                        events.set(watch(&runtime.client, &changed));
                        watching = true;
                    }
                }
            }
            break;
        }
        sleep_until(listed + DEBOUNCE).await;
    }
}

/// Tells of every event, and why there are none any more.
async fn watch(client: &Client, changed: &Notify) -> Failure {
    let mut events = match client.events().await {
        Ok(events) => events,
        Err(failure) => return failure,
    };
    while let Ok(Some(_)) = events.message().await {
        changed.notify_one();
    }
    Failure::Closed { call: "GetContainerEvents" }
}

struct Runtime<'a> {
    source: &'a Source,
    client: Client,
    /// cAdvisor names the containers `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`, not by their id.
    long_names: bool,
    /// Statuses in a row without an answer.
    hung: AtomicU8,
}

impl Runtime<'_> {
    /// Reads both lists, and the status of what is new.
    async fn list(&self) -> Result<(), Failure> {
        let Source { store, index, .. } = self.source;
        let pending = store.pending(*index);
        let sandboxes = self.source.counted(self.client.sandboxes().await)?;
        let containers = self.source.counted(self.client.containers().await)?;
        let mut present = FxHashSet::default();
        let mut pods: FxHashMap<String, PodSandboxMetadata> = FxHashMap::default();
        for sandbox in sandboxes {
            if let Some(pod) = &sandbox.metadata {
                pods.insert(sandbox.id.clone(), pod.clone());
            }
            if sandbox.state == READY && facts::is_id(&sandbox.id) {
                present.insert(sandbox.id.as_str().into());
                // A sandbox that is ready has started: nothing of it changes.
                if !store.get(&sandbox.id).is_some_and(|known| known.is_sandbox) {
                    self.take_sandbox(sandbox).await?;
                }
            }
        }
        for container in containers {
            let ended = !matches!(container.state, CREATED | RUNNING);
            // One that ended before it was looked for, as after an OOM kill, is there until the kubelet removes it.
            let wished = || pending.iter().any(|id| **id == *container.id);
            if ended && wished() {
                let pod = pods.get(&container.pod_sandbox_id);
                self.take_container(container, pod).await?;
            } else if !ended && facts::is_id(&container.id) {
                present.insert(container.id.as_str().into());
                let known = store.get(&container.id);
                if known.is_none_or(|known| known.started_at.is_none() && container.state == RUNNING) {
                    let pod = pods.get(&container.pod_sandbox_id);
                    self.take_container(container, pod).await?;
                }
            }
        }
        store.present(*index, &present, time::Instant::now());
        store.tried(*index, &pending);
        Ok(())
    }

    async fn take_sandbox(&self, sandbox: PodSandbox) -> Result<(), Failure> {
        let Some(status) = self.status(self.client.sandbox(&sandbox.id).await)? else { return Ok(()) };
        let pod = sandbox.metadata.unwrap_or_default();
        let (mut facts, dropped) = Facts::labelled(RuntimeKind::Cri, sandbox.id, sandbox.labels);
        self.source.store.drop_labels(dropped);
        facts.is_sandbox = true;
        in_pod(&mut facts, &pod);
        if self.long_names {
            facts.name = kubernetes_name("POD", &facts, pod.attempt);
        }
        facts.created_at = facts::unix_nanos(sandbox.created_at);
        // CRI has no time of start for sandboxes; they are started when they are made.
        facts.started_at = facts.created_at;
        let options = status.status.and_then(|status| status.linux?.namespaces?.options);
        facts.network = match options {
            Some(options) if options.network == NODE => Network::Host,
            _ => Network::Own,
        };
        Info::of(&status.info).tell(&mut facts);
        self.source.store.put(self.source.index, facts);
        Ok(())
    }

    async fn take_container(&self, container: Container, pod: Option<&PodSandboxMetadata>) -> Result<(), Failure> {
        let Some(status) = self.status(self.client.container(&container.id).await)? else { return Ok(()) };
        let (mut facts, dropped) = Facts::labelled(RuntimeKind::Cri, container.id, container.labels);
        self.source.store.drop_labels(dropped);
        if let Some(pod) = pod {
            in_pod(&mut facts, pod);
        }
        let own = container.metadata.unwrap_or_default();
        if facts.container.is_empty() {
            facts.container.clone_from(&own.name);
        }
        if self.long_names {
            facts.name = kubernetes_name(&own.name, &facts, own.attempt);
        }
        facts.created_at = facts::unix_nanos(container.created_at);
        facts.network = Network::Of(container.pod_sandbox_id);
        if let Some(status) = &status.status {
            facts.started_at = facts::unix_nanos(status.started_at);
        }
        Info::of(&status.info).tell(&mut facts);
        let told = status.status.and_then(|status| status.image);
        facts.image = image(told.as_ref(), container.image.as_ref(), container.image_ref);
        self.source.store.put(self.source.index, facts);
        Ok(())
    }

    /// One container's status. That it vanished, or that the runtime cannot tell of this one, is no reason to give up on
    /// the others: the latter is counted, and asked again with the next list.
    fn status<T>(&self, status: Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
        let status = self.source.counted(status);
        let hung = match &status {
            Err(Failure::Timeout { .. }) => self.hung.fetch_add(1, Ordering::Relaxed) + 1,
            _ => {
                self.hung.store(0, Ordering::Relaxed);
                0
            }
        };
        match status {
            Err(failure @ (Failure::Refused { .. } | Failure::TooLarge { .. } | Failure::Timeout { .. }))
                if hung <= MOST_HUNG =>
            {
                tracing::debug!("{}: {failure}", self.source.socket().display());
                Ok(None)
            }
            status => status,
        }
    }
}

/// What the kubelet's labels do not tell, the sandbox does: crictl and tests set none.
fn in_pod(facts: &mut Facts, pod: &PodSandboxMetadata) {
    let fill = |text: &mut String, from: &str| {
        if text.is_empty() {
            from.clone_into(text);
        }
    };
    fill(&mut facts.pod, &pod.name);
    fill(&mut facts.namespace, &pod.namespace);
    fill(&mut facts.pod_uid, &pod.uid);
}

fn kubernetes_name(container: &str, facts: &Facts, attempt: u32) -> String {
    format!("k8s_{container}_{}_{}_{}_{attempt}", facts.pod, facts.namespace, facts.pod_uid)
}

/// The image under its name: the kubelet asks for containers by the image's digest, the status knows the name to it.
fn image(told: Option<&ImageSpec>, asked: Option<&ImageSpec>, image_ref: String) -> String {
    let specs = [told, asked];
    let specs = specs.iter().flatten();
    let names = specs.flat_map(|spec| [spec.image.as_str(), spec.user_specified_image.as_str()]);
    let is_digest = |name: &str| name.starts_with("sha256:") || facts::is_id(name);
    let mut names = names.filter(|name| !name.is_empty());
    let mut first = None;
    names
        .find(|name| {
            first.get_or_insert(*name);
            !is_digest(name)
        })
        .map(str::to_owned)
        .or_else(|| first.map(str::to_owned))
        .unwrap_or(image_ref)
}

/// What containerd and CRI-O tell beyond CRI, as JSON.
#[derive(Deserialize, Default)]
struct Info {
    pid: Option<i64>,
    /// Of sandboxes.
    image: Option<String>,
    #[serde(rename = "runtimeSpec")]
    spec: Option<Spec>,
}

#[derive(Deserialize)]
struct Spec {
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Linux {
    #[serde(rename = "cgroupsPath")]
    cgroup: Option<String>,
}

impl Info {
    /// It is for people to read and may be anything: what does not fit is left out.
    fn of(info: &HashMap<String, String>) -> Self {
        info.get("info").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }

    fn tell(self, facts: &mut Facts) {
        facts.pid = self.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid > 0);
        facts.cgroup = self.spec.and_then(|spec| spec.linux?.cgroup);
        facts.image = self.image.unwrap_or_default();
    }
}
