//! The kept connection of a slot: hyper's HTTP/1.1 client.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::mix::{Payload, Step};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What came back.
pub struct Answer {
    /// Status.
    pub status: u16,
    /// `Location`.
    pub location: Option<String>,
}

/// A connection with keep-alive.
pub struct Kept {
    sender: SendRequest<Body>,
    host: String,
    /// Our port.
    pub port: u16,
}

impl Kept {
    /// Connects.
    ///
    /// # Errors
    /// If that fails; the message names the address.
    pub async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await.with_context(|| format!("cannot connect to {addr}"))?;
        // As browsers and HTTP libraries do.
        stream.set_nodelay(true)?;
        let port = stream.local_addr()?.port();
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: addr.to_string(), port })
    }

    /// Sends a request and reads the answer to its end.
    ///
    /// # Errors
    /// If the connection failed.
    pub async fn send(
        &mut self,
        step: &Step,
        headers: &[(&'static str, String)],
        close: bool,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(&step.method).uri(&*step.target).header(header::HOST, &self.host);
        for (name, value) in &step.headers {
            request = request.header(*name, &**value);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if close {
            request = request.header(header::CONNECTION, "close");
        }
        let body = match &step.payload {
            Payload::None => Empty::new().boxed_unsync(),
            Payload::Sized(bytes) => Full::new(bytes.clone()).boxed_unsync(),
            Payload::Chunked(chunks) => {
                StreamBody::new(stream::iter(chunks.clone().into_iter().map(|chunk| Ok(Frame::data(chunk)))))
                    .boxed_unsync()
            }
        };
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(body)?).await?;
        let (head, mut body) = response.into_parts();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        let location = head.headers.get(header::LOCATION).and_then(|value| Some(value.to_str().ok()?.to_owned()));
        Ok(Answer { status: head.status.as_u16(), location })
    }
}
