//! Where messages begin, when nobody knows: at a record whose heads form a chain.
//!
//! Reads: a record as captured. Yields: how far its heads lead. Costs: one step per message of the record.

use super::reader::Direction;
use super::{Backend, Frontend, TransactionStatus, c_string};

/// How a record reads if a message begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Heads that were captured; all of them are plausible.
    pub heads: u32,
    /// The last message ends exactly with the record.
    pub exact: bool,
    /// A head was not captured: nothing speaks against the chain behind it.
    pub broken: bool,
    /// The first message can hardly be anything else: its length is fixed, or its body was looked at.
    pub strong: bool,
}

impl Chain {
    /// Follows the heads of a record of `length` bytes, of which `data` is the beginning and `tail` the end. `None`
    /// where no message begins like this.
    #[must_use]
    pub fn follow<D: Begins>(data: &[u8], tail: &[u8], length: usize) -> Option<Self> {
        let mut chain = Self { heads: 0, exact: false, broken: false, strong: D::strong(data) };
        let tail_start = length.saturating_sub(tail.len()).max(data.len());
        let mut position = 0_usize;
        while position < length {
            let at = if position < data.len() {
                &data[position..]
            } else if position >= tail_start {
                tail.get(tail.len() - (length - position)..).unwrap_or(&[])
            } else {
                &[]
            };
            let [kind, a, b, c, d, body @ ..] = at else {
                // Split between records or not captured.
                if position >= data.len() && position < tail_start {
                    chain.broken = true;
                } else if at.first().is_some_and(|kind| !D::known(*kind)) {
                    return None;
                }
                return (chain.heads > 0).then_some(chain);
            };
            let size = u32::from_be_bytes([*a, *b, *c, *d]);
            if !D::plausible(*kind, size) || !D::sane(*kind, size, body) {
                return None;
            }
            chain.heads += 1;
            position = position.saturating_add(1 + size as usize);
        }
        chain.exact = position == length;
        (chain.heads > 0).then_some(chain)
    }

    /// Enough to go by, in the client's direction.
    #[must_use]
    pub const fn begins_requests(&self) -> bool {
        self.exact || self.broken || self.strong_or_many()
    }

    /// Enough to go by, in the server's direction. A record that goes on in the middle of a row may begin with a last
    /// byte of text and the length of the next value, which looks like a head: one head is not enough, and neither are two
    /// of any length.
    #[must_use]
    pub const fn begins_answers(&self) -> bool {
        self.exact || self.strong && self.heads >= 2
    }

    /// Hardly a body.
    #[must_use]
    pub const fn strong_or_many(&self) -> bool {
        self.strong || self.heads >= 2
    }
}

/// How the messages of a direction begin.
pub trait Begins: Direction {
    /// Some message has this type.
    fn known(kind: u8) -> bool;
    /// Nothing speaks against the beginning of the body.
    fn sane(kind: u8, length: u32, body: &[u8]) -> bool;
    /// The first message is certain.
    fn strong(data: &[u8]) -> bool;
}

impl Begins for Frontend {
    fn known(kind: u8) -> bool {
        b"PBQEDCSHXcFdfp".contains(&kind)
    }

    fn sane(kind: u8, length: u32, body: &[u8]) -> bool {
        match (kind, body) {
            (_, []) => true,
            (b'D' | b'C', [target, ..]) => matches!(target, b'S' | b'P'),
            // The portal's name, a zero byte, and the row limit fill the message.
            (b'E', _) => {
                let own = &body[..body.len().min(length as usize - 4)];
                match c_string(own) {
                    Some((name, _)) => name.len() + 9 == length as usize,
                    None => own.len() + 4 < length as usize,
                }
            }
            _ => true,
        }
    }

    fn strong(data: &[u8]) -> bool {
        matches!(data, [b'S' | b'H' | b'X', 0, 0, 0, 4, ..] | [b'D' | b'C', 0, 0, _, _, b'S' | b'P', ..])
    }
}

impl Begins for Backend {
    fn known(kind: u8) -> bool {
        b"123nsIcZDTtdVCENRKSAGHWv".contains(&kind)
    }

    fn sane(kind: u8, _length: u32, body: &[u8]) -> bool {
        match (kind, body) {
            (_, []) => true,
            (b'Z', [status, ..]) => TransactionStatus::from_byte(*status).is_some(),
            (b'E' | b'N', [field, ..]) => *field == b'S',
            (b'C', [first, ..]) => first.is_ascii_uppercase(),
            (b'R', [first, ..]) => *first == 0,
            _ => true,
        }
    }

    fn strong(data: &[u8]) -> bool {
        matches!(
            data,
            [b'1' | b'2' | b'3' | b'n' | b's' | b'I', 0, 0, 0, 4, ..]
                | [b'Z', 0, 0, 0, 5, b'I' | b'T' | b'E', ..]
                | [b'E' | b'N', 0, _, _, _, b'S', b'A'..=b'Z', ..]
                | [b'C', 0, 0, 0 | 1, _, b'A'..=b'Z', b'A'..=b'Z', ..]
        )
    }
}

/// The status of the ReadyForQuery that ends a record, if one does.
#[must_use]
pub fn ends_ready(data: &[u8], tail: &[u8], length: usize) -> Option<TransactionStatus> {
    let end = if data.len() >= length { data } else { tail };
    match end {
        [.., b'Z', 0, 0, 0, 5, status] => TransactionStatus::from_byte(*status),
        _ => None,
    }
}

/// Which side's message a record begins with, of a connection whose beginning was not seen: `Some(true)` the client's,
/// `Some(false)` the server's. Types that both sides have are told apart by their bodies.
#[must_use]
pub fn begins(bytes: &[u8]) -> Option<bool> {
    let [kind, a, b, c, d, body @ ..] = bytes else {
        return None;
    };
    let length = u32::from_be_bytes([*a, *b, *c, *d]);
    // A first message of more than 16 MiB is more likely none.
    let client = *a == 0 && Frontend::plausible(*kind, length) && Frontend::sane(*kind, length, body);
    let server = *a == 0 && Backend::plausible(*kind, length) && Backend::sane(*kind, length, body);
    let client = match (kind, body) {
        // CommandComplete's tag may begin as Close does, with S or P: it has a second capital and no zero byte early.
        (b'C', [b'S' | b'P', second, ..]) => client && !(second.is_ascii_uppercase() && server && is_tag(body)),
        // Rows of binary zeros are no names.
        (b'P' | b'B' | b'Q' | b'E' | b'D' | b'C' | b'S' | b'H' | b'X' | b'F', _) => client,
        // CopyData and the rest come from either side, and never first.
        _ => false,
    };
    let server = server && !matches!(kind, b'd' | b'c');
    match (client, server) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

fn is_tag(body: &[u8]) -> bool {
    const TAGS: [&[u8]; 6] = [b"SELECT", b"SET", b"SAVEPOINT", b"SHOW", b"START", b"PREPARE"];
    TAGS.iter().any(|tag| body.starts_with(tag))
}
