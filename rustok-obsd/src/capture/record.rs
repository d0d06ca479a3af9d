//! Decodes the kernel's records.
//!
//! Reads: bytes of one ring entry, laid out by `rustok-obsd-ebpf`. Yields: [`Record`], with its payload borrowed. Costs:
//! a copy of at most 72 bytes.

use rustok_obsd_ebpf::{
    CallHit, Kind, ProcessEvent, RouteHit, SocketClose, SocketIo, SocketOpen, SpawnHit, TAIL, TaskProbe,
};
use thiserror::Error;

/// What the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A connection is followed from here on.
    Open(SocketOpen),
    /// Bytes were sent; the captured beginning of them.
    Send(SocketIo, &'a [u8]),
    /// Bytes were received, or the stream ended.
    Receive(SocketIo, &'a [u8]),
    /// The connection is closed.
    Close(SocketClose),
    /// axum matched a route.
    Route(RouteHit),
    /// A process replaced its program.
    Exec(ProcessEvent),
    /// A target's main thread ended.
    Exit(ProcessEvent),
    /// A target forked.
    Fork(ProcessEvent),
    /// Calibration of Tokio's slot.
    TaskEnter(TaskProbe),
    /// A database library was called; the captured text.
    Call(CallHit, &'a [u8]),
    /// A task was spawned.
    Spawn(SpawnHit),
}

/// A ring entry that is no record: the object and the daemon disagree.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// The kind is unknown.
    #[error("ring entry of unknown kind {0}")]
    Kind(u8),
    /// It ends early.
    #[error("ring entry of kind {kind} with only {len} bytes")]
    Short {
        /// Kind.
        kind: u8,
        /// Bytes.
        len: usize,
    },
}

impl<'a> Record<'a> {
    /// Decodes one ring entry.
    ///
    /// # Errors
    /// It is none of ours.
    pub fn parse(entry: &'a [u8]) -> Result<Self, RecordError> {
        let kind = entry.first().copied().unwrap_or(0);
        let short = RecordError::Short { kind, len: entry.len() };
        macro_rules! read {
            ($record:ident) => {
                $record::read(entry).ok_or(short)?
            };
        }
        Ok(match kind {
            k if k == Kind::Send as u8 => {
                let (io, payload) = read!(SocketIo);
                Self::Send(io, payload.get(..usize::from(io.captured)).ok_or(short)?)
            }
            k if k == Kind::Receive as u8 => {
                let (io, payload) = read!(SocketIo);
                Self::Receive(io, payload.get(..usize::from(io.captured)).ok_or(short)?)
            }
            k if k == Kind::Open as u8 => Self::Open(read!(SocketOpen).0),
            k if k == Kind::Close as u8 => Self::Close(read!(SocketClose).0),
            k if k == Kind::Route as u8 => Self::Route(read!(RouteHit).0),
            k if k == Kind::Exec as u8 => Self::Exec(read!(ProcessEvent).0),
            k if k == Kind::Exit as u8 => Self::Exit(read!(ProcessEvent).0),
            k if k == Kind::Fork as u8 => Self::Fork(read!(ProcessEvent).0),
            k if k == Kind::TaskEnter as u8 => Self::TaskEnter(read!(TaskProbe).0),
            k if k == Kind::Spawn as u8 => Self::Spawn(read!(SpawnHit).0),
            k if k == Kind::Call as u8 => {
                let (hit, text) = read!(CallHit);
                Self::Call(hit, text.get(..hit.captured as usize).ok_or(short)?)
            }
            other => return Err(RecordError::Kind(other)),
        })
    }

    /// Name of the kind, as `rustok_obsd_records_total` has it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Send(..) => "send",
            Self::Receive(..) => "receive",
            Self::Close(_) => "close",
            Self::Route(_) => "route",
            Self::Exec(_) => "exec",
            Self::Exit(_) => "exit",
            Self::Fork(_) => "fork",
            Self::TaskEnter(_) => "task_enter",
            Self::Call(..) => "call",
            Self::Spawn(_) => "spawn",
        }
    }
}

/// The last bytes of a cut transfer; empty where the kernel could not tell them.
#[must_use]
pub fn tail(io: &SocketIo) -> &[u8] {
    if io.flags & rustok_obsd_ebpf::IO_TRUNCATED == 0 || io.tail == [0; TAIL] { &[] } else { &io.tail }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustok_obsd_ebpf::IO_TRUNCATED;

    use super::*;

    fn io(kind: Kind, captured: u16) -> SocketIo {
        SocketIo {
            kind: kind as u8,
            flags: IO_TRUNCATED,
            captured,
            result: 10,
            tgid: 1,
            tid: 2,
            conn: 3,
            time_ns: 4,
            ready_ns: 5,
            offset: 6,
            task: 7,
            tail: *b"abcd\r\n\r\n",
        }
    }

    #[test]
    fn a_send_carries_exactly_the_captured_bytes() {
        let head = io(Kind::Send, 4);
        let mut entry = head.as_bytes().to_vec();
        // The ring pads entries to eight bytes: what follows the payload is none of it.
        entry.extend_from_slice(b"GET /pad");
        assert_eq!(Record::parse(&entry), Ok(Record::Send(head, b"GET ")));
        assert_eq!(tail(&head), b"abcd\r\n\r\n");
    }

    #[test]
    fn a_record_that_ends_early_is_told_by_kind_and_length() {
        let entry = io(Kind::Receive, 9).as_bytes().to_vec();
        assert_eq!(Record::parse(&entry), Err(RecordError::Short { kind: Kind::Receive as u8, len: 64 }));
        assert_eq!(Record::parse(&[]), Err(RecordError::Kind(0)));
        assert_eq!(Record::parse(&[77; 80]), Err(RecordError::Kind(77)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(entry in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..14) {
            let _ = Record::parse(&entry);
            if let Some(first) = entry.clone().first_mut() {
                *first = kind;
                let _ = Record::parse(&entry);
            }
        }
    }
}
