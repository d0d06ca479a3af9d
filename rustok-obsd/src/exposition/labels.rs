//! Label sets, and how they are written.
//!
//! Reads: names and values. Yields: `name="value",…` with values escaped. Costs: values given per sample are scanned for
//! characters to escape; a [`LabelSet`] was written once and is copied.

/// Labels of one sample: an array or slice of values, or a [`LabelSet`].
pub trait Labels: Copy {
    /// Appends `name="value",…` without braces.
    fn write(&self, names: &[&str], out: &mut Vec<u8>);
}

/// Values in the order of the family's label names.
impl<const N: usize> Labels for [&str; N] {
    fn write(&self, names: &[&str], out: &mut Vec<u8>) {
        self.as_slice().write(names, out);
    }
}

impl Labels for &[&str] {
    fn write(&self, names: &[&str], out: &mut Vec<u8>) {
        debug_assert_eq!(names.len(), self.len(), "one value for each label name");
        for (i, (name, value)) in names.iter().zip(*self).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_label(name, value, out);
        }
    }
}

/// Labels written once, for series that live long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSet(Box<[u8]>);

impl LabelSet {
    /// From names and values; a pair without a value is left out, which Prometheus takes for the same.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut out = Vec::new();
        for (name, value) in pairs {
            if !value.is_empty() {
                if !out.is_empty() {
                    out.push(b',');
                }
                write_label(name, value, &mut out);
            }
        }
        Self(out.into())
    }
}

impl Labels for &LabelSet {
    fn write(&self, _names: &[&str], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

/// Labels that are text already, as [`Written::append`] writes them.
#[derive(Clone, Copy, Debug)]
pub struct Written<'t>(pub &'t [u8]);

impl Labels for Written<'_> {
    fn write(&self, _names: &[&str], out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}

impl Written<'_> {
    /// Appends `name="value",…` of the pairs to `out`, for later use.
    pub fn append<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
        for (i, (name, value)) in pairs.into_iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_label(name, value, out);
        }
    }
}

fn write_label(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    escape(value, true, out);
    out.push(b'"');
}

/// Appends `text` with backslash and line feed escaped, and the double quote where `quotes` is set (label values in both
/// formats, HELP in OpenMetrics).
pub(super) fn escape(text: &str, quotes: bool, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr3(b'\\', b'\n', if quotes { b'"' } else { b'\n' }, rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            _ => b"\\\"",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}
