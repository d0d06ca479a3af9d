//! CRI: corner cases of the answers of runtimes that are not at hand, and servers with a fault.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::Write as _,
    os::unix::net::UnixStream,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::{SOON, cri_at, eventually, fake::Fake, id, known};
use crate::container::runtime::{
    Lookup, Network, Outcome, State,
    cri_api::{
        Container, ContainerMetadata, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse, ImageSpec,
        ListContainersResponse, ListPodSandboxResponse, PodSandbox, PodSandboxMetadata, PodSandboxStatusResponse,
        VersionResponse,
    },
};

/// What a call is answered with.
enum Answer {
    Message(Vec<u8>),
    /// The bytes of a message's frame, whatever they are.
    Raw(Vec<u8>),
    Status(u32, &'static str),
    /// Such a message later, and no end.
    Stream(Pin<Box<dyn Future<Output = Vec<u8>> + Send>>),
    Hang,
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

async fn answer(answer: Answer) -> Response<BoxBody<Bytes, Infallible>> {
    let (data, code, words) = match answer {
        Answer::Message(message) => (framed(&message), 0, ""),
        Answer::Raw(bytes) => (bytes, 0, ""),
        Answer::Status(code, words) => (Vec::new(), code, words),
        Answer::Stream(message) => {
            let endless = Full::new(Bytes::from(framed(&message.await))).with_trailers(std::future::pending());
            return Response::builder().header("content-type", "application/grpc").body(endless.boxed()).unwrap();
        }
        Answer::Hang => std::future::pending().await,
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    trailers.insert("grpc-message", words.parse().unwrap());
    let body = Full::new(Bytes::from(data)).with_trailers(std::future::ready(Some(Ok(trailers))));
    Response::builder().header("content-type", "application/grpc").body(body.boxed()).unwrap()
}

/// Serves one connection: `call` gets the method's name and the request.
fn grpc(stream: UnixStream, call: impl Fn(&str, &[u8]) -> Answer + Send + Sync + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let call = Arc::new(call);
    let service = service_fn(move |request: Request<Incoming>| {
        let call = Arc::clone(&call);
        async move {
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(answer(call(&method, &body[5..])).await)
        }
    });
    runtime.block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = TokioIo::new(tokio::net::UnixStream::from_std(stream).unwrap());
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
    });
}

const UNIMPLEMENTED: Answer = Answer::Status(12, "unknown method");

fn version(name: &str) -> Answer {
    let version = VersionResponse { runtime_name: name.into(), runtime_version: "1.30.0".into() };
    Answer::Message(version.encode_to_vec())
}

fn sandbox(id: &str, state: i32, labels: &[(&str, &str)]) -> PodSandbox {
    PodSandbox {
        id: id.to_owned(),
        metadata: Some(PodSandboxMetadata {
            name: "web-0".into(),
            uid: "u-1".into(),
            namespace: "shop".into(),
            attempt: 3,
        }),
        state,
        created_at: 1_795_652_148_000_000_000,
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

fn container(id: &str, state: i32, image: &str) -> Container {
    Container {
        id: id.to_owned(),
        pod_sandbox_id: super::id('a'),
        metadata: Some(ContainerMetadata { name: "nginx".into(), attempt: 2 }),
        image: Some(ImageSpec { image: image.to_owned(), user_specified_image: String::new() }),
        image_ref: "sha256:ref".into(),
        state,
        created_at: 1_795_652_148_000_000_000,
        labels: HashMap::new(),
    }
}

fn status(image: &str, info: &str) -> Answer {
    let status = ContainerStatus {
        started_at: 1_795_652_149_000_000_000,
        image: Some(ImageSpec { image: image.to_owned(), user_specified_image: String::new() }),
    };
    let info = HashMap::from([("info".to_owned(), info.to_owned())]);
    Answer::Message(ContainerStatusResponse { status: Some(status), info }.encode_to_vec())
}

fn list(containers: Vec<Container>) -> Answer {
    Answer::Message(ListContainersResponse { containers }.encode_to_vec())
}

fn sandboxes(items: Vec<PodSandbox>) -> Answer {
    Answer::Message(ListPodSandboxResponse { items }.encode_to_vec())
}

#[test]
fn crio_containers_have_the_names_that_cadvisor_gives_them() {
    let fake = Fake::start(|stream| {
        grpc(stream, |method, request| match method {
            "Version" => version("cri-o"),
            "ListPodSandbox" => sandboxes(vec![
                // CRI-O labels its sandboxes so.
                sandbox(&id('a'), 0, &[("io.kubernetes.container.name", "POD")]),
                sandbox(&id('b'), 1, &[]),
                sandbox("short", 0, &[]),
            ]),
            "ListContainers" => list(vec![
                container(&id('c'), 1, "sha256:0123"),
                container(&id('d'), 2, "exited"),
                container("../../etc", 1, "stranger"),
                container(&id('e'), 1, ""),
            ]),
            "PodSandboxStatus" => {
                let info = r#"{"image":"registry.k8s.io/pause:3.9","pid":71,"runtimeSpec":{"linux":
                    {"cgroupsPath":"kubepods-burstable-podu_1.slice:crio:a","namespaces":[]},"mounts":[]}}"#;
                let info = HashMap::from([("info".to_owned(), info.to_owned())]);
                Answer::Message(PodSandboxStatusResponse { status: None, info }.encode_to_vec())
            }
            "ContainerStatus" => {
                let asked = ContainerStatusRequest::decode(request).unwrap();
                assert!(asked.verbose);
                // The info is for people: anything may be in it.
                if asked.container_id == id('c') { status("shop/web:1", r#"{"pid":"many"}"#) } else { status("", "{") }
            }
            _ => UNIMPLEMENTED,
        });
    });
    let runtimes = cri_at(fake.socket());
    let pod = known(&runtimes, &id('a'));
    assert_eq!(pod.name, "k8s_POD_web-0_shop_u-1_3");
    assert_eq!((pod.container.as_str(), pod.is_sandbox, pod.pid), ("POD", true, Some(71)));
    assert_eq!((pod.image.as_str(), &pod.network), ("registry.k8s.io/pause:3.9", &Network::Own));
    assert_eq!(pod.cgroup.as_deref(), Some("kubepods-burstable-podu_1.slice:crio:a"));
    assert_eq!(runtimes.pod("u_1").unwrap().id, id('a'));
    // Without the kubelet's labels the sandbox tells.
    let web = known(&runtimes, &id('c'));
    assert_eq!((web.name.as_str(), web.image.as_str()), ("k8s_nginx_web-0_shop_u-1_2", "shop/web:1"));
    assert_eq!((web.pod.as_str(), web.namespace.as_str(), web.container.as_str()), ("web-0", "shop", "nginx"));
    assert_eq!((web.pid, web.is_sandbox, &web.network), (None, false, &Network::Of(id('a'))));
    assert_eq!(known(&runtimes, &id('e')).image, "sha256:ref");
    let source = &runtimes.sources()[0];
    eventually("up", SOON, || (source.report().state == State::Up).then_some(()));
    assert_eq!(source.report().version, "cri-o 1.30.0");
    assert_eq!(runtimes.len(), 3);
}

#[test]
fn a_status_that_is_refused_does_not_hide_the_others() {
    let fake = Fake::start(|stream| {
        grpc(stream, |method, request| match method {
            "Version" => version("containerd"),
            "ListPodSandbox" => sandboxes(Vec::new()),
            "ListContainers" => list([id('b'), id('c'), id('d')].map(|id| container(&id, 1, "x")).into()),
            "ContainerStatus" => match ContainerStatusRequest::decode(request).unwrap().container_id {
                asked if asked == id('b') => Answer::Status(13, "snapshot is broken"),
                asked if asked == id('c') => Answer::Status(5, "not found"),
                _ => status("shop/web:1", ""),
            },
            _ => UNIMPLEMENTED,
        });
    });
    let runtimes = cri_at(fake.socket());
    assert_eq!(known(&runtimes, &id('d')).name, id('d'));
    let source = &runtimes.sources()[0];
    eventually("up", SOON, || (source.report().state == State::Up).then_some(()));
    assert_eq!((runtimes.len(), source.requests(Outcome::Error)), (1, 1));
}

#[test]
fn a_container_that_was_made_and_starts_later_gets_its_start() {
    let running = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&running);
    let fake = Fake::start(move |stream| {
        let state = Arc::clone(&state);
        grpc(stream, move |method, _| {
            let runs = state.load(Ordering::Relaxed);
            match method {
                "Version" => version("containerd"),
                "ListPodSandbox" => sandboxes(Vec::new()),
                "ListContainers" => list(vec![container(&id('c'), i32::from(runs), "x")]),
                "ContainerStatus" if runs => status("shop/web:1", r#"{"pid":7}"#),
                "ContainerStatus" => Answer::Message(ContainerStatusResponse::default().encode_to_vec()),
                _ => UNIMPLEMENTED,
            }
        });
    });
    let runtimes = cri_at(fake.socket());
    let made = known(&runtimes, &id('c'));
    assert_eq!((made.started_at, made.pid, made.image.as_str()), (None, None, "x"));
    let version = runtimes.version();
    running.store(true, Ordering::Relaxed);
    runtimes.wanted(&id('0'));
    eventually("started", SOON, || (known(&runtimes, &id('c')).pid == Some(7)).then_some(()));
    assert!(known(&runtimes, &id('c')).started_at.is_some());
    assert_ne!(runtimes.version(), version);
}

/// A runtime whose container comes only after `there`; `GetContainerEvents` is answered by `events`.
fn late(there: &Arc<AtomicBool>, lists: &Arc<AtomicU32>, events: impl Fn() -> Answer + Send + Sync + 'static) -> Fake {
    let state = (Arc::clone(there), Arc::clone(lists), Arc::new(events));
    Fake::start(move |stream| {
        let (there, lists, events) = state.clone();
        grpc(stream, move |method, _| match method {
            "Version" => version("containerd"),
            "ListPodSandbox" => sandboxes(Vec::new()),
            "ListContainers" => {
                lists.fetch_add(1, Ordering::Relaxed);
                let there = there.load(Ordering::Relaxed);
                list(if there { vec![container(&id('c'), 1, "x")] } else { Vec::new() })
            }
            "ContainerStatus" => status("shop/web:1", ""),
            _ => events(),
        });
    })
}

#[test]
fn an_event_makes_the_list_be_read() {
    let (there, lists) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let state = (Arc::clone(&there), Arc::clone(&lists));
    let fake = late(&there, &lists, move || {
        let (there, lists) = state.clone();
        Answer::Stream(Box::pin(async move {
            // After the first list.
            while lists.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            there.store(true, Ordering::Relaxed);
            b"\x0a\x01c\x10\x01".to_vec()
        }))
    });
    let runtimes = cri_at(fake.socket());
    known(&runtimes, &id('c'));
    assert_eq!(lists.load(Ordering::Relaxed), 2);
}

#[test]
fn without_events_a_wish_makes_the_list_be_read_and_nothing_else_does() {
    let (there, lists) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let fake = late(&there, &lists, || UNIMPLEMENTED);
    let runtimes = cri_at(fake.socket());
    eventually("up", SOON, || (runtimes.sources()[0].report().state == State::Up).then_some(()));
    there.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lists.load(Ordering::Relaxed), 1);
    runtimes.wanted(&id('c'));
    runtimes.wanted(&id('d'));
    assert_eq!(known(&runtimes, &id('c')).image, "shop/web:1");
    eventually("the other is unknown", SOON, || (runtimes.lookup(&id('d')) == Lookup::Unknown).then_some(()));
    let read = lists.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lists.load(Ordering::Relaxed), read, "it went on reading");
}

/// Starts against a server and waits for the state and a piece of the reason.
fn fails(serve: impl Fn(UnixStream) + Send + Sync + 'static, reason: &str) -> Outcome {
    let fake = Fake::start(serve);
    let runtimes = cri_at(fake.socket());
    let source = &runtimes.sources()[0];
    let report = eventually(reason, SOON, || {
        let report = source.report();
        matches!(report.state, State::Failed | State::Absent).then_some(report)
    });
    assert!(report.reason.contains(reason), "{}", report.reason);
    assert_eq!(runtimes.lookup(&id('a')), Lookup::NoRuntime);
    *Outcome::ALL.iter().rev().find(|&&outcome| source.requests(outcome) > 0).unwrap_or(&Outcome::Ok)
}

#[test]
fn containerd_without_cri_is_told_with_the_remedy() {
    let serve = |stream| grpc(stream, |_, _| Answer::Status(12, "unknown service runtime.v1.RuntimeService"));
    fails(serve, "CRI v1 is not served here (unknown service runtime.v1.RuntimeService); enable the CRI plugin");
}

#[test]
fn a_runtime_that_hangs_is_given_up() {
    let hang = |stream| grpc(stream, |_, _| Answer::Hang);
    assert_eq!(fails(hang, "no answer to Version within 5 s"), Outcome::Timeout);
    let mute = |stream: UnixStream| {
        std::thread::sleep(Duration::from_secs(15));
        drop(stream);
    };
    fails(mute, "within 5 s");
}

#[test]
fn a_hundred_megabytes_are_not_taken() {
    let serve = |stream| {
        grpc(stream, |method, _| match method {
            "Version" => version("containerd"),
            "ListPodSandbox" => Answer::Raw([&[0][..], &100_000_000_u32.to_be_bytes(), &vec![0; 1 << 20]].concat()),
            _ => UNIMPLEMENTED,
        });
    };
    assert_eq!(fails(serve, "the answer to ListPodSandbox is larger than 16777216 bytes"), Outcome::TooLarge);
}

#[test]
fn garbage_is_told() {
    let not_protobuf = |stream| grpc(stream, |_, _| Answer::Message(vec![0xff; 30]));
    assert_eq!(fails(not_protobuf, "the answer to Version cannot be read"), Outcome::Error);
    let not_http2 = |mut stream: UnixStream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        std::thread::sleep(Duration::from_secs(1));
    };
    fails(not_http2, "Version");
    let closes = |stream: UnixStream| drop(stream);
    fails(closes, "");
    let cut = |stream| grpc(stream, |_, _| Answer::Raw(framed(&[0; 64])[..20].to_vec()));
    assert_eq!(fails(cut, "Version"), Outcome::Error);
}
