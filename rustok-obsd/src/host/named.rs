//! Families whose names the kernel gives, remembered by their place in its file.
//!
//! Reads: names of fields. Yields: what was made from each. Costs: a comparison per field while the file keeps its order,
//! which it does until the kernel changes; no allocation then.

use super::text;
use crate::contract::{Family, Kind, Origin, Stability};
use crate::exposition::Value;

/// Name and HELP of a family.
#[derive(Debug)]
pub struct Named {
    name: String,
    help: String,
}

impl Named {
    /// From a name, in which only letters, digits and `_` stay, and a HELP.
    pub fn new(name: &str, help: String) -> Self {
        let name = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
        Self { name, help }
    }

    /// The family.
    pub fn family<'f>(&'f self, kind: Kind, labels: &'f [&'f str]) -> Family<'f> {
        Family {
            name: &self.name,
            kind,
            unit: "",
            help: &self.help,
            labels,
            origin: Origin::Kernel,
            stability: Stability::NodeExporter,
        }
    }
}

/// What was made from the fields of a file, in their order.
#[derive(Debug)]
pub struct Remembered<T>(Vec<(Box<[u8]>, T)>);

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Remembered<T> {
    /// What belongs to the field `text` at place `at`; made anew where another was there. Fields are asked for in order.
    pub fn get(&mut self, at: usize, text: &[u8], make: impl FnOnce(&[u8]) -> T) -> &T {
        let at = at.min(self.0.len());
        if self.0.get(at).is_none_or(|(known, _)| **known != *text) {
            self.0.truncate(at);
            self.0.push((text.into(), make(text)));
        }
        &self.0[at].1
    }
}

/// A number as the kernel's counters are: mostly natural, at times negative or with a fraction.
pub fn value(word: &[u8]) -> Option<Value> {
    let natural = text::u64(word).map(Value::U64);
    natural.or_else(|| text::i64(word).map(Value::I64)).or_else(|| text::f64(word).map(Value::F64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_made_once_and_again_when_the_order_changes() {
        let mut fields = Remembered::default();
        let made = std::cell::Cell::new(0);
        let mut ask = |names: &[&str]| {
            made.set(0);
            let make = |text: &[u8]| {
                made.set(made.get() + 1);
                text.len()
            };
            let got: Vec<usize> =
                names.iter().enumerate().map(|(at, name)| *fields.get(at, name.as_bytes(), make)).collect();
            (got, made.get())
        };
        assert_eq!(ask(&["a", "bb", "ccc"]), (vec![1, 2, 3], 3));
        assert_eq!(ask(&["a", "bb", "ccc"]), (vec![1, 2, 3], 0));
        assert_eq!(ask(&["a", "dddd", "ccc"]), (vec![1, 4, 3], 2));
    }

    #[test]
    fn names_are_legal_and_values_are_numbers() {
        assert_eq!(Named::new("node_a.b(c)", String::new()).name, "node_a_b_c_");
        assert_eq!(
            (value(b"7"), value(b"-1"), value(b"0.5")),
            (Some(7u64.into()), Some((-1i64).into()), Some(0.5.into()))
        );
        assert_eq!(value(b"x"), None);
    }
}
