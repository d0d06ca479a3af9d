//! Fields of a request's head that spans carry where the configuration asks for them.
//!
//! Reads: the head, when it was read whole. Yields: the tenant, and the values of the listed fields, behind path and
//! host in the request's text. Costs: nothing where nothing is wanted; else a second pass over the head, about 10 ns a
//! field, and no allocation in steady state.
//!
//! A value is taken whole or not at all: a part of one would be another value.

use crate::protocol::http1::{RequestHead, value};

/// Which fields are wanted. The default wants none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the field that names the tenant, empty for none.
    pub tenant: String,
    /// Names of further fields, at most [`Wanted::FIELDS`].
    pub fields: Vec<String>,
}

impl Wanted {
    /// More names are not looked at.
    pub const FIELDS: usize = 16;
    /// A longer value is left out, bytes.
    pub const LONGEST: usize = 512;
    /// Bytes of all values of one request; what does not fit is left out.
    pub const TOTAL: usize = 1536;
    /// A longer name of a tenant is left out, bytes.
    pub const LONGEST_TENANT: usize = 64;

    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tenant.is_empty() && self.fields.is_empty()
    }

    /// Appends the tenant, then the other values, and returns the tenant's length.
    pub(super) fn gather(&self, head: &RequestHead<'_>, text: &mut Vec<u8>) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut tenant_length = 0;
        if !self.tenant.is_empty() {
            // The first one counts, as it does for `HeaderMap::get`.
            let first = head.lines().find_map(|line| named(line, &self.tenant));
            if let Some(tenant) = first.filter(|tenant| is_tenant(tenant)) {
                text.extend_from_slice(tenant);
                tenant_length = tenant.len();
            }
        }
        if self.fields.is_empty() {
            return tenant_length;
        }
        let start = text.len();
        for line in head.lines() {
            let mut names = (0u8..).zip(self.fields.iter().take(Self::FIELDS));
            let found = names.find_map(|(index, name)| Some((index, named(line, name)?)));
            let Some((index, value)) = found.filter(|(_, value)| is_value(value)) else { continue };
            let Ok(length) = u16::try_from(value.len()) else { continue };
            if text.len() - start + 3 + value.len() <= Self::TOTAL {
                text.push(index);
                text.extend_from_slice(&length.to_le_bytes());
                text.extend_from_slice(value);
            }
        }
        tenant_length
    }
}

/// The value where the line has that name. The first letter rules out most lines.
fn named<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let name = name.as_bytes();
    if line.first()? | 0x20 != name.first()? | 0x20 {
        return None;
    }
    value(line, name)
}

/// A UUID or a slug: nothing else names a tenant, and nothing else leaves in its name.
fn is_tenant(value: &[u8]) -> bool {
    (1..=Wanted::LONGEST_TENANT).contains(&value.len())
        && value.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Text without control characters (RFC 9110, 5.5), in one line.
fn is_value(value: &[u8]) -> bool {
    value.len() <= Wanted::LONGEST
        && value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
        && std::str::from_utf8(value).is_ok()
}

/// Values of [`Wanted::fields`] that a request had.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Headers<'a>(&'a [u8]);

impl std::fmt::Debug for Headers<'_> {
    /// Without the values: they are none of a log's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Headers({} values)", self.iter().count())
    }
}

impl<'a> Headers<'a> {
    /// A view of what [`Self::as_bytes`] gave; anything else yields what can be read of it, without a panic.
    pub(crate) const fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// To keep a copy.
    pub(crate) const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Index in [`Wanted::fields`] and value, in the order of the head; a field that came twice is there twice.
    pub fn iter(self) -> impl Iterator<Item = (usize, &'a str)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (&[index, low, high], tail) = rest.split_first_chunk::<3>()?;
            let (value, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
            rest = tail;
            Some((usize::from(index), std::str::from_utf8(value).ok()?))
        })
    }
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
