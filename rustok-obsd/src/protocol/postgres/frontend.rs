//! Messages of the side that asks.
//!
//! Reads: heads and the needed part of bodies. Yields: [`FrontendMessage`]s. Costs: nothing kept.

use super::reader::{Direction, Reader};
use super::{MESSAGE_LIMIT, NAME_LIMIT, c_string};

/// The direction from client to server.
#[derive(Clone, Copy, Debug)]
pub enum Frontend {}

/// What Describe and Close name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

/// A message of the client. Names are `None` where they were not captured or are too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are PostgreSQL's messages")]
pub enum FrontendMessage<'a> {
    /// StartupMessage. The database defaults to the user's name, as in PostgreSQL; empty where neither was captured.
    Startup {
        database: &'a [u8],
        replication: bool,
    },
    SslRequest,
    GssEncRequest,
    CancelRequest,
    /// `truncated`: the text goes on behind the limit, or the rest was not captured.
    Parse {
        name: Option<&'a [u8]>,
        sql: &'a [u8],
        truncated: bool,
    },
    Bind {
        portal: Option<&'a [u8]>,
        statement: Option<&'a [u8]>,
    },
    Describe {
        target: Target,
        name: Option<&'a [u8]>,
    },
    Execute {
        portal: Option<&'a [u8]>,
    },
    Close {
        target: Target,
        name: Option<&'a [u8]>,
    },
    Sync,
    Flush,
    Query {
        sql: &'a [u8],
        truncated: bool,
    },
    FunctionCall,
    CopyData,
    CopyDone,
    CopyFail,
    /// PasswordMessage, SASL and GSS responses; not read.
    Password,
    Terminate,
}

impl Reader<Frontend> {
    /// The client's direction of a connection that begins.
    #[must_use]
    pub const fn starting() -> Self {
        Self::new().untyped()
    }
}

impl Direction for Frontend {
    type Message<'p> = FrontendMessage<'p>;

    fn plausible(kind: u8, length: u32) -> bool {
        const NAMED: u32 = 0xffff;
        match kind {
            b'P' => (8..=MESSAGE_LIMIT).contains(&length),
            b'B' => (12..=MESSAGE_LIMIT).contains(&length),
            b'Q' | b'f' => (5..=MESSAGE_LIMIT).contains(&length),
            b'E' => (9..=NAMED).contains(&length),
            b'D' | b'C' => (6..=NAMED).contains(&length),
            b'S' | b'H' | b'X' | b'c' => length == 4,
            b'F' => (14..=MESSAGE_LIMIT).contains(&length),
            b'd' => (4..=MESSAGE_LIMIT).contains(&length),
            b'p' => (4..=NAMED).contains(&length),
            _ => false,
        }
    }

    fn wanted(kind: u8, body: u32, limit: u32) -> u32 {
        const NAME: u32 = NAME_LIMIT as u32 + 1;
        match kind {
            b'P' => body.min(limit.saturating_add(NAME + 1)),
            b'Q' => body.min(limit.saturating_add(1)),
            b'B' => body.min(2 * NAME),
            b'D' | b'C' => body.min(1 + NAME),
            b'E' => body.min(NAME),
            _ => 0,
        }
    }

    fn enough(kind: u8, prefix: &[u8]) -> bool {
        match kind {
            // Both names, or name and text: what follows is types and values.
            b'P' | b'B' => c_string(prefix).is_some_and(|(_, second)| memchr::memchr(0, second).is_some()),
            b'E' => memchr::memchr(0, prefix).is_some(),
            _ => false,
        }
    }

    fn read(kind: u8, prefix: &[u8], limit: u32) -> FrontendMessage<'_> {
        match kind {
            b'P' => match c_string(prefix) {
                Some((name, rest)) => {
                    let (sql, truncated) = text(rest, limit);
                    FrontendMessage::Parse { name: (name.len() <= NAME_LIMIT).then_some(name), sql, truncated }
                }
                None => FrontendMessage::Parse { name: None, sql: b"", truncated: true },
            },
            b'Q' => {
                let (sql, truncated) = text(prefix, limit);
                FrontendMessage::Query { sql, truncated }
            }
            b'B' => {
                let (portal, rest) = name(prefix);
                FrontendMessage::Bind { portal, statement: name(rest).0 }
            }
            b'E' => FrontendMessage::Execute { portal: name(prefix).0 },
            b'D' => FrontendMessage::Describe { target: target(prefix), name: name(prefix.get(1..).unwrap_or(&[])).0 },
            b'C' => FrontendMessage::Close { target: target(prefix), name: name(prefix.get(1..).unwrap_or(&[])).0 },
            b'S' => FrontendMessage::Sync,
            b'H' => FrontendMessage::Flush,
            b'F' => FrontendMessage::FunctionCall,
            b'd' => FrontendMessage::CopyData,
            b'c' => FrontendMessage::CopyDone,
            b'f' => FrontendMessage::CopyFail,
            b'p' => FrontendMessage::Password,
            // `plausible` lets nothing else pass.
            _ => FrontendMessage::Terminate,
        }
    }

    fn read_untyped(code: u32, prefix: &[u8]) -> Option<FrontendMessage<'_>> {
        match code {
            80_877_102 => Some(FrontendMessage::CancelRequest),
            80_877_103 => Some(FrontendMessage::SslRequest),
            80_877_104 => Some(FrontendMessage::GssEncRequest),
            code if code >> 16 == 3 => Some(startup(prefix)),
            _ => None,
        }
    }
}

fn name(bytes: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match c_string(bytes) {
        Some((name, rest)) => ((name.len() <= NAME_LIMIT).then_some(name), rest),
        None => (None, &[]),
    }
}

fn target(body: &[u8]) -> Target {
    if body.first() == Some(&b'P') { Target::Portal } else { Target::Statement }
}

fn text(bytes: &[u8], limit: u32) -> (&[u8], bool) {
    let (sql, truncated) = c_string(bytes).map_or((bytes, true), |(sql, _)| (sql, false));
    if sql.len() > limit as usize { (&sql[..limit as usize], true) } else { (sql, truncated) }
}

fn startup(mut rest: &[u8]) -> FrontendMessage<'_> {
    let (mut user, mut database, mut replication): (&[u8], Option<&[u8]>, bool) = (b"", None, false);
    while let Some((key, after)) = c_string(rest)
        && !key.is_empty()
        && let Some((value, after)) = c_string(after)
    {
        match key {
            b"user" => user = value,
            b"database" => database = Some(value),
            b"replication" => replication = !matches!(value, b"false" | b"off" | b"no" | b"0"),
            _ => {}
        }
        rest = after;
    }
    FrontendMessage::Startup { database: database.filter(|name| !name.is_empty()).unwrap_or(user), replication }
}
