//! Containers of Docker, and of Podman by the same API.
//!
//! Reads: `/version`, `/containers/json`, `/containers/{id}/json` of each container that is new, restarted, renamed or
//! whose health changed, and `/events`. Yields: facts. Costs: one list a minute; one inspection per change.

use std::{convert::Infallible, time};

use rustc_hash::FxHashSet;
use tokio::time::{Instant, sleep_until};

use super::{
    docker_api::{Client, Event, Inspected},
    error::Failure,
    facts::{self, Facts, Health, Network, RuntimeKind},
    source::{DEBOUNCE, MOST_HUNG, RELIST, Source},
};

/// Serves one connection until it fails.
pub async fn session(source: &Source) -> Result<Infallible, Failure> {
    let mut client = Client::over(source.connect().await?).await?;
    let version = source.counted(client.version().await)?;
    let podman = version.components.iter().any(|component| component.name.contains("Podman"));
    let (kind, name) = if podman { (RuntimeKind::Podman, "podman") } else { (RuntimeKind::Docker, "docker") };
    // Before the list: what happens after it must not be missed.
    let mut events = Client::over(source.connect().await?).await?.events().await;
    let mut daemon = Daemon { source, client, kind, hung: 0 };
    daemon.list(true).await?;
    source.up(kind, format!("{name} {}", version.version));

    let mut watching = true;
    let mut relist = Instant::now() + RELIST;
    let mut asked = Instant::now();
    loop {
        let again = source.store.has_pending(source.index);
        tokio::select! {
            event = events.next(), if watching => match event {
                Ok(event) => daemon.obey(&event).await?,
                // A proxy before the socket may allow lists alone: then the minute's list has to do.
                Err(failure @ Failure::Refused { .. }) => {
                    source.count(failure.outcome());
                    tracing::info!("{}: {failure}; changes are seen once a minute", source.socket().display());
                    watching = false;
                }
                Err(failure) => {
                    source.count(failure.outcome());
                    return Err(failure);
                }
            },
            () = sleep_until(relist) => {
                daemon.list(!watching).await?;
                relist = Instant::now() + RELIST;
            }
            // The first try comes at once: the wish is pending as soon as it is made.
            () = sleep_until(asked + DEBOUNCE), if again => {
                daemon.look().await?;
                asked = Instant::now();
            }
            () = source.wake.notified() => {}
        }
    }
}

struct Daemon<'a> {
    source: &'a Source,
    client: Client,
    kind: RuntimeKind,
    /// Inspections in a row without an answer.
    hung: u8,
}

impl Daemon<'_> {
    /// Reads the list and inspects what is new in it; everything, when events may have been missed.
    async fn list(&mut self, all: bool) -> Result<(), Failure> {
        let Source { store, index, .. } = self.source;
        let listed = self.source.counted(self.client.containers().await)?;
        let mut present: FxHashSet<Box<str>> = FxHashSet::default();
        present.extend(listed.into_iter().filter(|listed| facts::is_id(&listed.id)).map(|listed| listed.id.into()));
        store.present(*index, &present, time::Instant::now());
        for id in &present {
            let known = store.get(id).is_some_and(|known| known.runtime == self.kind && known.started_at.is_some());
            if all || !known {
                self.take(id).await?;
            }
        }
        Ok(())
    }

    /// Looks for the containers that are asked for.
    async fn look(&mut self) -> Result<(), Failure> {
        let Source { store, index, .. } = self.source;
        let pending = store.pending(*index);
        for id in &pending {
            self.take(id).await?;
        }
        store.tried(*index, &pending);
        Ok(())
    }

    async fn obey(&mut self, event: &Event) -> Result<(), Failure> {
        let Some(id) = event.actor.as_ref().map(|actor| actor.id.as_str()).filter(|id| facts::is_id(id)) else {
            return Ok(());
        };
        match event.action.as_str() {
            "die" | "died" | "destroy" | "remove" => {
                self.source.store.gone(self.source.index, id, time::Instant::now());
                Ok(())
            }
            "start" | "rename" => self.take(id).await,
            // "health_status: healthy" from Docker.
            action if action.starts_with("health_status") => self.take(id).await,
            _ => Ok(()),
        }
    }

    async fn take(&mut self, id: &str) -> Result<(), Failure> {
        let result = self.source.counted(self.client.inspect(id).await);
        let hung = matches!(result, Err(Failure::Timeout { .. }));
        self.hung = if hung { self.hung + 1 } else { 0 };
        match result {
            Ok(Some(inspected)) if inspected.id == id => {
                let (facts, dropped) = facts(self.kind, inspected);
                self.source.store.drop_labels(dropped);
                self.source.store.put(self.source.index, facts);
                Ok(())
            }
            Ok(_) => Ok(()),
            // This one container is the daemon's trouble (Docker waits for a container's lock), not the connection; the
            // answer that may still come takes the old one with it.
            Err(failure) if self.hung <= MOST_HUNG && (hung || matches!(failure, Failure::Refused { .. })) => {
                tracing::debug!("{}: {id}: {failure}", self.source.socket().display());
                if hung {
                    self.client = Client::over(self.source.connect().await?).await?;
                }
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }
}

fn facts(kind: RuntimeKind, inspected: Inspected) -> (Facts, usize) {
    let Inspected { id, name, created, state, config, host_config, graph_driver } = inspected;
    let (mut facts, dropped) = Facts::labelled(kind, id, config.labels.unwrap_or_default());
    if !name.is_empty() {
        facts.name = name.trim_start_matches('/').to_owned();
    }
    facts.image = config.image;
    facts.created_at = facts::rfc3339(&created);
    if state.running {
        facts.started_at = facts::rfc3339(&state.started_at);
        facts.pid = u32::try_from(state.pid).ok().filter(|&pid| pid > 0);
    }
    facts.health = state.health.and_then(|health| Health::parse(&health.status));
    if let Some(host) = host_config {
        facts.network = match host.network_mode.as_str() {
            "" => Network::Unknown,
            "host" => Network::Host,
            mode => match mode.strip_prefix("container:") {
                Some(owner) => Network::Of(owner.to_owned()),
                None => Network::Own,
            },
        };
        facts.cgroup = Some(host.cgroup_parent).filter(|parent| !parent.is_empty());
    }
    facts.upper_dir = graph_driver.and_then(|driver| driver.data?.upper_dir);
    (facts, dropped)
}
