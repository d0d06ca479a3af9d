//! What a well-behaved client library does not do: requests written by hand, each on a fresh connection.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use super::mix::{Abort, Payload, Step};
use super::rng::Rng;

/// A connection and what was read from it too early.
pub struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Our port.
    pub port: u16,
    host: String,
}

/// The headers of a request beyond those of its step.
pub type Headers = [(&'static str, String)];

impl Raw {
    /// Connects, with segments sent at once.
    ///
    /// # Errors
    /// If that fails.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let port = stream.local_addr()?.port();
        Ok(Self { stream, buffer: Vec::new(), port, host: addr.to_string() })
    }

    /// Writes several requests in one go. The answers are read one by one with [`Raw::read`].
    ///
    /// # Errors
    /// If the connection failed.
    pub async fn write_all(&mut self, requests: &[(&Step, &Headers)]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (step, headers) in requests {
            bytes.extend_from_slice(head(&self.host, step, headers, "HTTP/1.1").as_bytes());
            bytes.extend_from_slice(body(step));
        }
        self.stream.write_all(&bytes).await
    }

    /// Sends a request in two to six segments, cut anywhere, with pauses.
    ///
    /// # Errors
    /// If the connection failed.
    pub async fn split(&mut self, step: &Step, headers: &Headers, rng: &mut Rng) -> io::Result<u16> {
        let bytes = [head(&self.host, step, headers, "HTTP/1.1").as_bytes(), body(step)].concat();
        let head_len = bytes.len() - body(step).len();
        let mut cuts: Vec<usize> = (0..=rng.below(5)).map(|_| 1 + rng.below(head_len as u32 - 1) as usize).collect();
        cuts.push(0);
        cuts.push(bytes.len());
        cuts.sort_unstable();
        for pair in cuts.windows(2).filter(|pair| pair[0] < pair[1]) {
            self.stream.write_all(&bytes[pair[0]..pair[1]]).await?;
            tokio::time::sleep(Duration::from_millis(1 + u64::from(rng.below(4)))).await;
        }
        self.read(&step.method).await
    }

    /// Sends a request as HTTP/1.0; the server closes after its answer.
    ///
    /// # Errors
    /// If the connection failed or stays open.
    pub async fn http10(&mut self, step: &Step, headers: &Headers) -> io::Result<u16> {
        self.stream.write_all(head(&self.host, step, headers, "HTTP/1.0").as_bytes()).await?;
        let status = self.read(&step.method).await?;
        match self.stream.read(&mut [0]).await? {
            0 => Ok(status),
            _ => Err(io::Error::other("bytes after the answer to an HTTP/1.0 request")),
        }
    }

    /// Sends the head, waits for `100 Continue`, sends the body.
    ///
    /// # Errors
    /// If the connection failed or another status came first.
    pub async fn expect(&mut self, step: &Step, headers: &Headers) -> io::Result<u16> {
        let mut step = step.clone();
        step.headers.push(("expect", "100-continue".into()));
        self.stream.write_all(head(&self.host, &step, headers, "HTTP/1.1").as_bytes()).await?;
        // hyper asks for nothing where there is no body.
        if !body(&step).is_empty() {
            match self.read(&step.method).await? {
                100 => self.stream.write_all(body(&step)).await?,
                other => return Err(io::Error::other(format!("status {other} instead of 100"))),
            }
        }
        self.read(&step.method).await
    }

    /// Starts a request and gives it up. `Some`: the answer came nevertheless.
    ///
    /// # Errors
    /// If the connection failed before we gave up.
    pub async fn abort(mut self, abort: Abort, step: &Step, headers: &Headers) -> io::Result<Option<u16>> {
        let text = head(&self.host, step, headers, "HTTP/1.1");
        let cut = if abort == Abort::Head { text.len() - 10 } else { text.len() };
        self.stream.write_all(&text.as_bytes()[..cut]).await?;
        match abort {
            Abort::Waiting | Abort::Head => tokio::time::sleep(Duration::from_millis(15)).await,
            Abort::Upload => {
                let bytes = body(step);
                self.stream.write_all(&bytes[..bytes.len() / 8]).await?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Abort::Download => {
                self.stream.read_exact(&mut [0; 4096]).await?;
            }
            Abort::HalfClose => {
                self.stream.shutdown().await?;
                return Ok(self.read(&step.method).await.ok());
            }
        }
        Ok(None)
    }

    /// Upgrades and has a few messages sent back.
    ///
    /// # Errors
    /// If the connection failed or an echo differs.
    pub async fn web_socket(self, step: &Step, headers: &Headers, rng: &mut Rng) -> io::Result<WebSocketEcho> {
        let mut request =
            format!("ws://{}{}", self.host, step.target).into_client_request().map_err(io::Error::other)?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).map_err(io::Error::other)?);
        }
        let upgraded = tokio_tungstenite::client_async(request, self.stream).await;
        let end_ns = crate::clock::now_ns();
        let (mut socket, response) = match upgraded {
            Ok(upgraded) => upgraded,
            Err(WebSocketError::Http(response)) => {
                return Ok(WebSocketEcho { status: response.status().as_u16(), end_ns });
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        for _ in 0..1 + rng.below(5) {
            let sent = Message::binary(vec![b'w'; rng.below(2000) as usize]);
            socket.send(sent.clone()).await.map_err(io::Error::other)?;
            if socket.next().await.transpose().map_err(io::Error::other)? != Some(sent) {
                return Err(io::Error::other("the WebSocket's echo differs"));
            }
        }
        socket.close(None).await.map_err(io::Error::other)?;
        Ok(WebSocketEcho { status: response.status().as_u16(), end_ns })
    }

    /// Reads one answer that has a length, or none by its nature.
    ///
    /// # Errors
    /// If the connection failed or ended, or the answer has no length.
    pub async fn read(&mut self, method: &Method) -> io::Result<u16> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.fill().await?;
        };
        let (status, length) = parse_head(&self.buffer[..end])?;
        let whole = if *method == Method::HEAD { end } else { end + length };
        while self.buffer.len() < whole {
            self.fill().await?;
        }
        self.buffer.drain(..whole);
        Ok(status)
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// How a WebSocket went.
pub struct WebSocketEcho {
    /// 101 where it was one.
    pub status: u16,
    /// When the head of the answer was read.
    pub end_ns: u64,
}

fn body(step: &Step) -> &[u8] {
    match &step.payload {
        Payload::Sized(bytes) => bytes,
        Payload::None | Payload::Chunked(_) => &[],
    }
}

fn head(host: &str, step: &Step, headers: &Headers, version: &str) -> String {
    let mut text = format!("{} {} {version}\r\nHost: {host}\r\n", step.method, step.target);
    for (name, value) in &step.headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if let Payload::Sized(bytes) = &step.payload {
        let _ = write!(text, "content-length: {}\r\n", bytes.len());
    }
    text.push_str("\r\n");
    text
}

/// Status and length of the body.
fn parse_head(head: &[u8]) -> io::Result<(u16, usize)> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("bad answer: {}", String::from_utf8_lossy(head)));
    let text = std::str::from_utf8(head).map_err(|_| bad())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()).ok_or_else(bad)?;
    let length =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    match length {
        Some((_, value)) => Ok((status, value.trim().parse().map_err(|_| bad())?)),
        None if status < 200 || status == 204 || status == 304 => Ok((status, 0)),
        None => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_yields_status_and_length() {
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n").expect("head"), (200, 12));
        assert_eq!(parse_head(b"HTTP/1.1 204 No Content\r\n\r\n").expect("head"), (204, 0));
        assert_eq!(parse_head(b"HTTP/1.1 100 Continue\r\n\r\n").expect("head"), (100, 0));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(parse_head(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
    }
}
