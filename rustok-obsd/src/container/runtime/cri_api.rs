//! The part of CRI v1 (`runtime.v1.RuntimeService`) that is read, and a client for one connection.
//!
//! Reads: gRPC over a Unix socket. Yields: messages with the fields that are used; others are skipped when they are
//! decoded. Costs: one HTTP/2 connection.

use std::{collections::HashMap, error::Error as _, io, time::Duration};

use hyper::http::{Uri, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{
    error::Failure,
    source::{CALL_TIMEOUT, CONNECT_TIMEOUT, MOST_BYTES},
};

#[derive(Clone, PartialEq, Message)]
pub struct VersionRequest {}

#[derive(Clone, PartialEq, Message)]
pub struct VersionResponse {
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

/// Without a filter: all.
#[derive(Clone, PartialEq, Message)]
pub struct ListRequest {}

#[derive(Clone, PartialEq, Message)]
pub struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    pub image: Option<ImageSpec>,
    #[prost(string, tag = "5")]
    pub image_ref: String,
    /// [`CREATED`], [`RUNNING`], or ended.
    #[prost(int32, tag = "6")]
    pub state: i32,
    #[prost(int64, tag = "7")]
    pub created_at: i64,
    #[prost(map = "string, string", tag = "8")]
    pub labels: HashMap<String, String>,
}

/// A container's state before it runs.
pub const CREATED: i32 = 0;
/// A container's state while it runs.
pub const RUNNING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ImageSpec {
    #[prost(string, tag = "1")]
    pub image: String,
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatusRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<ContainerStatus>,
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatus {
    #[prost(int64, tag = "5")]
    pub started_at: i64,
    #[prost(message, optional, tag = "8")]
    pub image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandbox {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    /// [`READY`], or ended.
    #[prost(int32, tag = "3")]
    pub state: i32,
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
}

/// A sandbox's state while it runs.
pub const READY: i32 = 0;

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<PodSandboxStatus>,
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxStatus {
    #[prost(message, optional, tag = "6")]
    pub linux: Option<LinuxPodSandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LinuxPodSandboxStatus {
    #[prost(message, optional, tag = "1")]
    pub namespaces: Option<Namespace>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Namespace {
    #[prost(message, optional, tag = "2")]
    pub options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
pub struct NamespaceOption {
    /// [`NODE`] for the host's network.
    #[prost(int32, tag = "1")]
    pub network: i32,
}

/// The host's namespace.
pub const NODE: i32 = 2;

#[derive(Clone, PartialEq, Message)]
pub struct GetEventsRequest {}

/// That there was one is enough: the list is read after it.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerEventResponse {}

/// One connection to a CRI runtime.
#[derive(Debug, Clone)]
pub struct Client {
    grpc: Grpc<Channel>,
}

/// A call's path, which also names it.
type Path = &'static str;

const VERSION: Path = "/runtime.v1.RuntimeService/Version";
const LIST_CONTAINERS: Path = "/runtime.v1.RuntimeService/ListContainers";
const LIST_SANDBOXES: Path = "/runtime.v1.RuntimeService/ListPodSandbox";
const CONTAINER_STATUS: Path = "/runtime.v1.RuntimeService/ContainerStatus";
const SANDBOX_STATUS: Path = "/runtime.v1.RuntimeService/PodSandboxStatus";
const EVENTS: Path = "/runtime.v1.RuntimeService/GetContainerEvents";

impl Client {
    /// Speaks over this connection, and over no other: when it ends, so do the calls.
    pub async fn over(stream: UnixStream) -> Result<Self, Failure> {
        let mut stream = Some(stream);
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.take().map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            async move { stream }
        });
        // The authority is not looked at; runtimes refuse one that is a path.
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT);
        let channel = match timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connector)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(Failure::Connect(error.to_string())),
            Err(_) => return Err(Failure::Timeout { call: "connect", after: CONNECT_TIMEOUT }),
        };
        Ok(Self { grpc: Grpc::new(channel).max_decoding_message_size(MOST_BYTES) })
    }

    async fn call<Q, A>(&self, path: Path, request: Q) -> Result<Option<A>, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc.clone();
        let answer = async {
            grpc.ready().await.map_err(|_| Status::unavailable("not connected"))?;
            grpc.unary(Request::new(request), PathAndQuery::from_static(path), ProstCodec::default()).await
        };
        match timeout(CALL_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(Some(answer.into_inner())),
            Ok(Err(status)) if status.code() == Code::NotFound => Ok(None),
            Ok(Err(status)) => Err(failure(name(path), &status)),
            Err(_) => Err(Failure::Timeout { call: name(path), after: CALL_TIMEOUT }),
        }
    }

    /// A call that has an answer even if there is nothing.
    async fn must<Q, A>(&self, path: Path, request: Q) -> Result<A, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call(path, request)
            .await?
            .ok_or_else(|| Failure::Refused { call: name(path), reason: "not found".to_owned() })
    }

    pub async fn version(&self) -> Result<VersionResponse, Failure> {
        self.must(VERSION, VersionRequest {}).await
    }

    pub async fn containers(&self) -> Result<Vec<Container>, Failure> {
        let list: ListContainersResponse = self.must(LIST_CONTAINERS, ListRequest {}).await?;
        Ok(list.containers)
    }

    pub async fn sandboxes(&self) -> Result<Vec<PodSandbox>, Failure> {
        let list: ListPodSandboxResponse = self.must(LIST_SANDBOXES, ListRequest {}).await?;
        Ok(list.items)
    }

    /// `None`: there is no such container any more.
    pub async fn container(&self, id: &str) -> Result<Option<ContainerStatusResponse>, Failure> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        self.call(CONTAINER_STATUS, request).await
    }

    /// `None`: there is no such sandbox any more.
    pub async fn sandbox(&self, id: &str) -> Result<Option<PodSandboxStatusResponse>, Failure> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        self.call(SANDBOX_STATUS, request).await
    }

    /// The stream of events. Runtimes may send nothing, not even that they will, before the first: no timeout.
    pub async fn events(&self) -> Result<Streaming<ContainerEventResponse>, Failure> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|_| Failure::Closed { call: name(EVENTS) })?;
        let request = Request::new(GetEventsRequest {});
        match grpc.server_streaming(request, PathAndQuery::from_static(EVENTS), ProstCodec::default()).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(failure(name(EVENTS), &status)),
        }
    }
}

fn name(path: Path) -> &'static str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn failure(call: &'static str, status: &Status) -> Failure {
    let reason = || format!("{} ({:?})", status.message(), status.code());
    match status.code() {
        // What tonic says of a message above the bound.
        Code::OutOfRange => Failure::TooLarge { call, most: MOST_BYTES },
        Code::Unimplemented if call == name(VERSION) => Failure::NoCri(status.message().to_owned()),
        Code::DeadlineExceeded => Failure::Timeout { call, after: Duration::ZERO },
        Code::Unavailable | Code::Cancelled => Failure::Closed { call },
        // The runtime's own words come without a source; what hyper or the decoder found comes with one.
        _ if status.source().is_some() => {
            let mut reason = reason();
            let mut source = status.source();
            while let Some(error) = source {
                reason.push_str(": ");
                reason.push_str(&error.to_string());
                source = error.source();
            }
            Failure::Invalid { call, reason }
        }
        Code::Internal if status.message().contains("decode") => Failure::Invalid { call, reason: reason() },
        _ => Failure::Refused { call, reason: reason() },
    }
}
