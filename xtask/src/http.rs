//! An HTTP GET, enough for our own servers on the loopback address.
//!
//! Reads: one response. Yields: its body. Costs: one connection a call. HTTP/1.0 (RFC 1945), so that no body is chunked
//! and its end is the end of the connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const LIMIT: Duration = Duration::from_secs(5);

/// The body of `http://ADDRESS PATH`; a status other than 200 is an error.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    let what = || format!("GET http://{address}{path}");
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).with_context(what)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n\r\n").with_context(what)?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).with_context(what)?;
    body(&String::from_utf8_lossy(&response)).with_context(what).map(str::to_owned)
}

fn body(response: &str) -> Result<&str> {
    let (head, body) = response.split_once("\r\n\r\n").context("the answer is not HTTP, or was cut off")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("the answer is `{status}`: {}", body.trim());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_200_has_a_body() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nA: b\r\n\r\nup 1\n").expect("a body"), "up 1\n");
        let error = body("HTTP/1.0 503 Service Unavailable\r\n\r\nnot ready\n").expect_err("503").to_string();
        assert!(error.contains("503") && error.contains("not ready"), "{error}");
        assert!(body("HTTP/1.0 200 OK\r\n").is_err());
    }
}
