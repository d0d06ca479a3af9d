//! The part of Docker's Engine API that is read, and a client for one connection.
//!
//! Reads: HTTP/1.1 over a Unix socket, without a version in the path: every daemon then answers with its newest. Yields:
//! JSON with the fields that are used; others are skipped. Costs: one connection for requests, one for events.

use std::{collections::HashMap, fmt::Display, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};

use super::{
    error::Failure,
    source::{CALL_TIMEOUT, MOST_BYTES},
};

/// How long a stream of events may take to begin before the list is read all the same.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest event.
const MOST_EVENT: usize = 1024 * 1024;
/// Podman says `died` and `remove` where Docker says `die` and `destroy`. Filtered by the server: each health check makes
/// three events of its own.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22%2C%22die%22%2C\
%22died%22%2C%22destroy%22%2C%22remove%22%2C%22rename%22%2C%22health_status%22%5D%7D";

/// `GET /version`.
#[derive(Debug, Deserialize)]
pub struct Version {
    #[serde(rename = "Version")]
    pub version: String,
    #[serde(rename = "Components", default)]
    pub components: Vec<Component>,
}

/// A part of the engine; Podman's is told by its name.
#[derive(Debug, Deserialize)]
pub struct Component {
    #[serde(rename = "Name")]
    pub name: String,
}

/// A container of `GET /containers/json`.
#[derive(Debug, Deserialize)]
pub struct Listed {
    #[serde(rename = "Id")]
    pub id: String,
}

/// `GET /containers/{id}/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    pub id: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub created: String,
    pub state: ContainerState,
    pub config: Config,
    pub host_config: Option<HostConfig>,
    /// Absent with containerd's image store.
    pub graph_driver: Option<GraphDriver>,
}

/// State.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerState {
    #[serde(default)]
    pub running: bool,
    #[serde(default)]
    pub pid: i64,
    #[serde(default)]
    pub started_at: String,
    pub health: Option<HealthState>,
}

/// The health check.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthState {
    #[serde(default)]
    pub status: String,
}

/// What the container was made from.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    #[serde(default)]
    pub image: String,
    pub labels: Option<HashMap<String, String>>,
}

/// How it sits on the host.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    #[serde(default)]
    pub network_mode: String,
    #[serde(default)]
    pub cgroup_parent: String,
}

/// Where its files are.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriver {
    pub data: Option<GraphData>,
}

/// The directories of overlay2; other drivers have others.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphData {
    pub upper_dir: Option<String>,
}

/// A line of `GET /events`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    #[serde(default)]
    pub action: String,
    pub actor: Option<Actor>,
}

/// The container of an event.
#[derive(Debug, Deserialize)]
pub struct Actor {
    #[serde(rename = "ID", default)]
    pub id: String,
}

/// One connection to a daemon.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Empty<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    /// Speaks over this connection.
    pub async fn over(stream: UnixStream) -> Result<Self, Failure> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| Failure::Connect(error.to_string()))?;
        let driver = tokio::spawn(async move {
            // Its error comes out of the request, too.
            let _ = connection.await;
        });
        Ok(Self { sender, driver: driver.abort_handle() })
    }

    async fn send(&mut self, path: &str, call: &'static str) -> Result<Response<Incoming>, Failure> {
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .header(header::USER_AGENT, concat!("rustok-obsd/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| invalid(call, &error))?;
        self.sender.ready().await.map_err(|error| broken(call, &error))?;
        self.sender.send_request(request).await.map_err(|error| broken(call, &error))
    }

    /// `None`: there is no such thing.
    async fn get<T: DeserializeOwned>(&mut self, path: &str, call: &'static str) -> Result<Option<T>, Failure> {
        let answer = async {
            let response = self.send(path, call).await?;
            let status = response.status();
            let body = match Limited::new(response.into_body(), MOST_BYTES).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                    return Err(Failure::TooLarge { call, most: MOST_BYTES });
                }
                Err(error) => match error.downcast_ref::<hyper::Error>() {
                    Some(error) => return Err(broken(call, error)),
                    None => return Err(invalid(call, &error)),
                },
            };
            match status {
                StatusCode::OK => serde_json::from_slice(&body).map(Some).map_err(|error| invalid(call, &error)),
                StatusCode::NOT_FOUND => Ok(None),
                status => {
                    let words: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
                    Err(Failure::Refused { call, reason: format!("{status}: {words}") })
                }
            }
        };
        match timeout(CALL_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Timeout { call, after: CALL_TIMEOUT }),
        }
    }

    async fn must<T: DeserializeOwned>(&mut self, path: &str, call: &'static str) -> Result<T, Failure> {
        let found = self.get(path, call).await?;
        found.ok_or_else(|| Failure::Refused { call, reason: "404 Not Found".to_owned() })
    }

    /// Who answers.
    pub async fn version(&mut self) -> Result<Version, Failure> {
        self.must("/version", "GET /version").await
    }

    /// Containers that run.
    pub async fn containers(&mut self) -> Result<Vec<Listed>, Failure> {
        self.must("/containers/json?all=0", "GET /containers/json").await
    }

    /// One container; `None`: it is not this daemon's, or not any more.
    pub async fn inspect(&mut self, id: &str) -> Result<Option<Inspected>, Failure> {
        self.get(&format!("/containers/{id}/json"), "GET /containers/{id}/json").await
    }

    /// Turns the connection into a stream of events. It is begun when this returns; Podman does not even say so before
    /// the first event, hence no more than a second is waited for that.
    pub async fn events(mut self) -> Events {
        let (events, taken) = mpsc::channel(64);
        let (begun, begins) = oneshot::channel::<()>();
        let driver = tokio::spawn(async move {
            if let Err(failure) = self.pump(begun, &events).await {
                // Nobody there to take it: the session has ended.
                let _ = events.send(Err(failure)).await;
            }
        });
        let _ = timeout(BEGIN_TIMEOUT, begins).await;
        Events { taken, driver: driver.abort_handle() }
    }

    /// Hands over events until the connection ends.
    async fn pump(
        &mut self,
        begun: oneshot::Sender<()>,
        events: &mpsc::Sender<Result<Event, Failure>>,
    ) -> Result<(), Failure> {
        let call = Events::CALL;
        let response = self.send(EVENTS, call).await?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Refused { call, reason: response.status().to_string() });
        }
        drop(begun);
        let mut body = response.into_body();
        let mut lines = Vec::new();
        loop {
            let frame = body.frame().await.ok_or(Failure::Closed { call })?;
            let Ok(data) = frame.map_err(|error| broken(call, &error))?.into_data() else { continue };
            lines.extend_from_slice(&data);
            let mut read = 0;
            while let Some(end) = memchr::memchr(b'\n', &lines[read..]) {
                let line = lines[read..read + end].trim_ascii();
                read += end + 1;
                if line.is_empty() {
                    continue;
                }
                let event = serde_json::from_slice(line).map_err(|error| invalid(call, &error))?;
                if events.send(Ok(event)).await.is_err() {
                    return Ok(());
                }
            }
            lines.drain(..read);
            if lines.len() > MOST_EVENT {
                return Err(Failure::TooLarge { call, most: MOST_EVENT });
            }
        }
    }
}

/// Events, one JSON object a line.
#[derive(Debug)]
pub struct Events {
    taken: mpsc::Receiver<Result<Event, Failure>>,
    driver: AbortHandle,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Events {
    const CALL: &'static str = "GET /events";

    /// The next event, however long it takes. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        self.taken.recv().await.unwrap_or(Err(Failure::Closed { call: Self::CALL }))
    }
}

fn invalid(call: &'static str, reason: &dyn Display) -> Failure {
    Failure::Invalid { call, reason: reason.to_string() }
}

fn broken(call: &'static str, error: &hyper::Error) -> Failure {
    if error.is_parse() { invalid(call, error) } else { Failure::Closed { call } }
}
