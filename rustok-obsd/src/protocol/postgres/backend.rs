//! Messages of the side that answers.
//!
//! Reads: heads and the needed part of bodies. Yields: [`BackendMessage`]s. Costs: nothing kept.

use super::reader::Direction;
use super::{MESSAGE_LIMIT, TransactionStatus, c_string};

/// The direction from server to client.
#[derive(Clone, Copy, Debug)]
pub enum Backend {}

/// Severity of an error or notice, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The session goes on.
    Error,
    /// The session ends (FATAL, PANIC).
    Fatal,
    /// A notice of any kind.
    Notice,
    /// Not captured, or in another language and from a server before 9.6.
    Unknown,
}

/// Which way a COPY goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Copy {
    /// The client sends rows.
    In,
    /// The server sends rows.
    Out,
    /// Both, as in replication.
    Both,
}

/// What CommandComplete tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Rows returned or affected, where the command counts them.
    pub rows: Option<u64>,
    /// All prepared statements of the session are gone (`DISCARD ALL`, `DEALLOCATE ALL`).
    pub forgets: bool,
}

/// A message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are PostgreSQL's messages")]
pub enum BackendMessage {
    /// The answer to SSLRequest or GSSENCRequest: it is encrypted from here on (`S`, `G`), or not (`N`).
    Encryption(bool),
    /// Authentication of any kind; 0 is Ok. `None` where not captured.
    Authentication(Option<u32>),
    ReadyForQuery(Option<TransactionStatus>),
    RowDescription,
    DataRow,
    CommandComplete(Tag),
    EmptyQueryResponse,
    ErrorResponse {
        severity: Severity,
        sqlstate: Option<[u8; 5]>,
    },
    NoticeResponse,
    ParseComplete,
    BindComplete,
    CloseComplete,
    NoData,
    ParameterDescription,
    PortalSuspended,
    CopyResponse(Copy),
    CopyData,
    CopyDone,
    NotificationResponse,
    /// Whether `standard_conforming_strings` is on, where the message is about that.
    ParameterStatus {
        standard_strings: Option<bool>,
    },
    BackendKeyData,
    NegotiateProtocolVersion,
    FunctionCallResponse,
}

impl Direction for Backend {
    type Message<'p> = BackendMessage;

    fn plausible(kind: u8, length: u32) -> bool {
        match kind {
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' => length == 4,
            b'Z' => length == 5,
            b'D' | b'T' | b't' => (6..=MESSAGE_LIMIT).contains(&length),
            b'd' => (4..=MESSAGE_LIMIT).contains(&length),
            b'V' => (8..=MESSAGE_LIMIT).contains(&length),
            b'C' => (5..=256).contains(&length),
            b'E' | b'N' => (5..=1 << 20).contains(&length),
            b'R' => (8..=0xffff).contains(&length),
            b'K' => (8..=0xffff).contains(&length),
            b'S' => (6..=1 << 20).contains(&length),
            b'A' => (10..=0xffff).contains(&length),
            b'G' | b'H' | b'W' => (7..=0xffff).contains(&length),
            b'v' => (12..=0xffff).contains(&length),
            _ => false,
        }
    }

    fn wanted(kind: u8, body: u32, _limit: u32) -> u32 {
        match kind {
            b'Z' => 1,
            b'R' => 4,
            b'C' => body,
            // Severity and SQLSTATE come before the text.
            b'E' => body.min(160),
            // `standard_conforming_strings` and its value, each with its zero byte.
            b'S' => body.min(STANDARD_STRINGS.len() as u32 + 5),
            _ => 0,
        }
    }

    fn enough(kind: u8, prefix: &[u8]) -> bool {
        match kind {
            b'E' => error(prefix).1.is_some(),
            // Another parameter's.
            b'S' => !STANDARD_STRINGS.starts_with(&prefix[..prefix.len().min(STANDARD_STRINGS.len())]),
            _ => false,
        }
    }

    fn read(kind: u8, prefix: &[u8], _limit: u32) -> BackendMessage {
        match kind {
            b'1' => BackendMessage::ParseComplete,
            b'2' => BackendMessage::BindComplete,
            b'3' => BackendMessage::CloseComplete,
            b'n' => BackendMessage::NoData,
            b's' => BackendMessage::PortalSuspended,
            b'I' => BackendMessage::EmptyQueryResponse,
            b'c' => BackendMessage::CopyDone,
            b'Z' => BackendMessage::ReadyForQuery(prefix.first().and_then(|byte| TransactionStatus::from_byte(*byte))),
            b'D' => BackendMessage::DataRow,
            b'T' => BackendMessage::RowDescription,
            b't' => BackendMessage::ParameterDescription,
            b'd' => BackendMessage::CopyData,
            b'V' => BackendMessage::FunctionCallResponse,
            b'C' => BackendMessage::CommandComplete(tag(prefix)),
            b'E' => {
                let (severity, sqlstate) = error(prefix);
                BackendMessage::ErrorResponse { severity, sqlstate }
            }
            b'N' => BackendMessage::NoticeResponse,
            b'R' => BackendMessage::Authentication(prefix.first_chunk().map(|code| u32::from_be_bytes(*code))),
            b'K' => BackendMessage::BackendKeyData,
            b'A' => BackendMessage::NotificationResponse,
            b'G' => BackendMessage::CopyResponse(Copy::In),
            b'H' => BackendMessage::CopyResponse(Copy::Out),
            b'W' => BackendMessage::CopyResponse(Copy::Both),
            b'v' => BackendMessage::NegotiateProtocolVersion,
            // `plausible` lets nothing else pass.
            _ => BackendMessage::ParameterStatus { standard_strings: standard_strings(prefix) },
        }
    }

    fn read_answer<'p>(byte: u8) -> Option<Self::Message<'p>> {
        match byte {
            b'S' | b'G' => Some(BackendMessage::Encryption(true)),
            b'N' => Some(BackendMessage::Encryption(false)),
            _ => None,
        }
    }
}

/// The parameter that says what a backslash in a string is.
const STANDARD_STRINGS: &[u8] = b"standard_conforming_strings";

fn standard_strings(body: &[u8]) -> Option<bool> {
    let (name, rest) = c_string(body)?;
    match c_string(rest)?.0 {
        _ if name != STANDARD_STRINGS => None,
        b"on" => Some(true),
        b"off" => Some(false),
        _ => None,
    }
}

/// `SELECT 5`, `INSERT 0 5`, `CREATE TABLE`, …: the last word is the count, where there is one.
fn tag(body: &[u8]) -> Tag {
    let Some((tag, _)) = c_string(body) else {
        return Tag { rows: None, forgets: false };
    };
    let last = tag.rsplit(|byte| *byte == b' ').next().unwrap_or(&[]);
    let rows = if last.first().is_some_and(u8::is_ascii_digit) {
        std::str::from_utf8(last).ok().and_then(|digits| digits.parse().ok())
    } else {
        None
    };
    Tag { rows, forgets: matches!(tag, b"DISCARD ALL" | b"DEALLOCATE ALL") }
}

/// Severity and SQLSTATE; the text behind them is not looked at.
fn error(mut rest: &[u8]) -> (Severity, Option<[u8; 5]>) {
    let mut severity = Severity::Unknown;
    while let [field, after @ ..] = rest {
        let Some((value, after)) = c_string(after) else {
            break;
        };
        match field {
            // V is never translated; S may be.
            b'S' | b'V' => match value {
                b"ERROR" => severity = Severity::Error,
                b"FATAL" | b"PANIC" => severity = Severity::Fatal,
                b"WARNING" | b"NOTICE" | b"DEBUG" | b"INFO" | b"LOG" => severity = Severity::Notice,
                _ => {}
            },
            b'C' => {
                let code = <[u8; 5]>::try_from(value).ok();
                return (severity, code.filter(|code| code.iter().all(u8::is_ascii_alphanumeric)));
            }
            _ => break,
        }
        rest = after;
    }
    (severity, None)
}
