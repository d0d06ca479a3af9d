//! Pure parsers: bytes in, messages out; no clock, no I/O.
//!
//! Reads: what was captured of one direction of a connection, split anywhere and with gaps. Yields: messages, and
//! which protocol a connection speaks ([`detect`]). Costs: see each parser.

pub mod http1;
pub mod postgres;
pub mod traceparent;

use crate::budget::{Budget, Meter, Store};
use std::sync::Arc;

/// A stretch of one direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// That many bytes that nobody copied.
    Gap(u64),
}

impl Piece<'_> {
    /// Bytes on the wire that are left.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Gap(length) => *length,
        }
    }

    /// All was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Spare buffers for what came in pieces, shared by all connections: one that waits for its next request holds
/// none. What connections hold is charged to their owner.
#[derive(Debug)]
pub struct Buffers {
    spare: Vec<Vec<u8>>,
    /// Whose connection is being read.
    pub owner: u32,
    budget: Budget,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { spare: Vec::new(), owner: 0, budget: Budget::new(Store::Buffers) }
    }
}

impl Buffers {
    /// More than so many are freed.
    const SPARE: usize = 64;
    /// Bytes of a new one.
    const FRESH: usize = 1024;

    /// Appends to a buffer, which may be one that was never filled; false where the owner has its share.
    fn append(&mut self, buffer: &mut Vec<u8>, bytes: &[u8]) -> bool {
        if buffer.capacity() == 0 {
            let fresh = self.spare.pop().unwrap_or_default();
            if fresh.capacity() > 0 {
                if !self.budget.charge(self.owner, fresh.capacity()) {
                    self.spare.push(fresh);
                    return false;
                }
                *buffer = fresh;
            }
        }
        let (known, wanted) = (buffer.capacity(), buffer.len() + bytes.len());
        if wanted > known {
            let room = wanted.next_power_of_two().max(Self::FRESH);
            if !self.budget.charge(self.owner, room - known) {
                return false;
            }
            buffer.reserve_exact(room - buffer.len());
            // The allocator may give more than was asked for.
            let more = buffer.capacity().saturating_sub(room);
            if more > 0 {
                self.budget.resize(self.owner, self.budget.held(self.owner) + more);
            }
        }
        buffer.extend_from_slice(bytes);
        true
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        self.budget.release(self.owner, buffer.capacity());
        if self.spare.len() < Self::SPARE && buffer.capacity() > 0 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// What the owner has counts for this user, who is not trusted.
    pub fn join(&mut self, owner: u32, user: Option<u32>) {
        self.budget.join(owner, user);
    }

    /// Figures of the budget.
    #[must_use]
    pub fn meter(&self) -> Arc<Meter> {
        self.budget.meter()
    }
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 or 1.1 in clear text.
    Http1,
    /// HTTP/2 in clear text, by its connection preface (RFC 9113, 3.4).
    Http2,
    /// TLS records (RFC 8446, 5.1).
    Tls,
    /// PostgreSQL's frontend/backend protocol, version 3.
    Postgres,
    /// Left HTTP/1 by 101 or by CONNECT (RFC 9110, 7.8 and 9.3.6).
    Upgraded,
    /// None of these.
    Unknown,
}

/// What the first bytes of a direction tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// Too few bytes.
    NeedMore,
    /// The side that asks speaks this.
    Request(Protocol),
    /// The side that answers speaks this.
    Response(Protocol),
    /// It may be either side.
    Either(Protocol),
    /// Nothing known.
    Nothing,
}

/// Tells the protocol from the first bytes of a direction, or of a record where the connection is older than the
/// daemon (`mid_stream`). 24 bytes are always enough to leave `NeedMore`.
#[must_use]
pub fn detect(bytes: &[u8], mid_stream: bool) -> Detected {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
    let seen = PREFACE.len().min(bytes.len());
    if seen >= 4 && bytes[..seen] == PREFACE[..seen] {
        return if seen >= 6 { Detected::Request(Protocol::Http2) } else { Detected::NeedMore };
    }
    if http1::starts_response(bytes) {
        return if bytes.len() >= 7 { Detected::Response(Protocol::Http1) } else { Detected::NeedMore };
    }
    match http1::starts_request(bytes) {
        http1::Starts::Yes => return Detected::Request(Protocol::Http1),
        http1::Starts::Perhaps if bytes.len() < 24 => return Detected::NeedMore,
        _ => {}
    }
    let begins = if mid_stream { postgres::begins(bytes) } else { None };
    match bytes {
        [0x16, 0x03, 0..=4, _, _, 1, ..] => Detected::Request(Protocol::Tls),
        [0x16, 0x03, 0..=4, _, _, 2, ..] => Detected::Response(Protocol::Tls),
        [0x14..=0x17, 0x03, 0..=4, _, _, ..] if mid_stream => Detected::Either(Protocol::Tls),
        // StartupMessage 3.x, CancelRequest, SSLRequest, GSSENCRequest.
        [0, 0, _, _, 0, 3, 0, _, ..] | [0, 0, 0, 8 | 16, 0x04, 0xd2, 0x16, 0x2e..=0x30, ..] => {
            Detected::Request(Protocol::Postgres)
        }
        _ if begins == Some(true) => Detected::Request(Protocol::Postgres),
        _ if begins == Some(false) => Detected::Response(Protocol::Postgres),
        [0x16 | 0, ..] if bytes.len() < 8 => Detected::NeedMore,
        _ => Detected::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffers, Detected, Protocol, Store, detect};

    #[test]
    fn beginnings_of_messages_are_bounded_by_owner_and_given_back() {
        let mut buffers = Buffers { owner: 1, ..Buffers::default() };
        let mut held = Vec::new();
        loop {
            let mut buffer = Vec::new();
            if !buffers.append(&mut buffer, &[b'a'; 600]) || !buffers.append(&mut buffer, &[b'b'; 15_000]) {
                break buffers.give(buffer);
            }
            held.push(buffer);
        }
        assert_eq!(held.len(), Store::Buffers.limit() / 2 / (16 << 10));
        assert_eq!(buffers.meter().refused(), 1);
        buffers.owner = 2;
        let mut good = Vec::new();
        assert!(buffers.append(&mut good, b"GET /") && buffers.append(&mut good, b" HTTP/1.1"));
        assert_eq!(good, b"GET / HTTP/1.1");
        buffers.give(good);
        buffers.owner = 1;
        held.into_iter().for_each(|buffer| buffers.give(buffer));
        assert_eq!(buffers.meter().used(), 0);
        assert!(buffers.spare.len() <= Buffers::SPARE);
    }

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        let cases: &[(&[u8], bool, Detected)] = &[
            (b"GET / HTTP/1.1\r\n", false, Detected::Request(Protocol::Http1)),
            (b"POST /api/commerce/produ", false, Detected::Request(Protocol::Http1)),
            (b"PROPFIND /dav HTTP/1.1\r\n", false, Detected::Request(Protocol::Http1)),
            (b"OPTIONS * HTTP/1.1\r\n", false, Detected::Request(Protocol::Http1)),
            (b"CONNECT a.example:443 HT", false, Detected::Request(Protocol::Http1)),
            (b"GET http://a.example/ HT", false, Detected::Request(Protocol::Http1)),
            (b"P", false, Detected::NeedMore),
            (b"GET", false, Detected::NeedMore),
            (b"HTT", false, Detected::NeedMore),
            (b"HTTP/1.1 200 OK\r\n", true, Detected::Response(Protocol::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false, Detected::Request(Protocol::Http2)),
            (b"PRI ", false, Detected::NeedMore),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", false, Detected::Request(Protocol::Tls)),
            (b"\x16\x03\x03\x00\x7a\x02\x00\x00", false, Detected::Response(Protocol::Tls)),
            (b"\x16\x03", false, Detected::NeedMore),
            (b"\x17\x03\x03\x40\x00\x9a", true, Detected::Either(Protocol::Tls)),
            (b"\x17\x03\x03\x40\x00\x9a", false, Detected::Nothing),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", false, Detected::Request(Protocol::Postgres)),
            (b"\0\0\0\x29\0\x03\0\0user\0", false, Detected::Request(Protocol::Postgres)),
            (b"\0\0\0", false, Detected::NeedMore),
            (b"Q\0\0\0\x0dSELECT 1\0", true, Detected::Request(Protocol::Postgres)),
            (b"B\0\0\0\x20\0sqlx_s_1\0", true, Detected::Request(Protocol::Postgres)),
            (b"Q\0\0\0\x0dSELECT 1\0", false, Detected::Nothing),
            (b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01", false, Detected::Request(Protocol::Postgres)),
            (b"\0\0\0\x29\0\x03\0\x02user\0", false, Detected::Request(Protocol::Postgres)),
            (b"S\0\0\0\x04", true, Detected::Request(Protocol::Postgres)),
            (b"X\0\0\0\x04", true, Detected::Request(Protocol::Postgres)),
            (b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04", true, Detected::Request(Protocol::Postgres)),
            (b"D\0\0\0\x0fSsqlx_s_1\0", true, Detected::Request(Protocol::Postgres)),
            (b"C\0\0\0\x06P\0S\0\0\0\x04", true, Detected::Request(Protocol::Postgres)),
            (b"2\0\0\0\x04D\0\0\0\x0e\0\x01", true, Detected::Response(Protocol::Postgres)),
            (b"Z\0\0\0\x05I", true, Detected::Response(Protocol::Postgres)),
            (b"D\0\0\0\x0e\0\x01\0\0\0\x04", true, Detected::Response(Protocol::Postgres)),
            (b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I", true, Detected::Response(Protocol::Postgres)),
            (b"E\0\0\0\x60SERROR\0VERROR\0C42P01", true, Detected::Response(Protocol::Postgres)),
            (b"S\0\0\0\x16TimeZone\0", true, Detected::Response(Protocol::Postgres)),
            (b"Q\x7f\xff\xff\xffSELECT 1\0", true, Detected::Nothing),
            (b"SSH-2.0-OpenSSH_9.2\r\n", false, Detected::Nothing),
            (b"EHLO mail.example\r\n", false, Detected::Nothing),
            (b"*1\r\n$4\r\nPING\r\n", false, Detected::Nothing),
            (b"get hello\r\n", false, Detected::Nothing),
            (b"{\"json\":1}", true, Detected::Nothing),
            (b"\xff\xfe\xfd", false, Detected::Nothing),
        ];
        for (bytes, mid_stream, want) in cases {
            assert_eq!(detect(bytes, *mid_stream), *want, "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn twenty_four_bytes_always_decide() {
        for text in [&b"ABCDEFGHIJKLMNOPQRSTUVWX"[..], &[0; 24], &[0x16; 24], b"HTTP/1.HTTP/1.HTTP/1.HTT"] {
            assert_ne!(detect(text, false), Detected::NeedMore);
        }
    }
}
