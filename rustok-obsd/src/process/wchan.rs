//! Names of the kernel's functions in which threads wait.
//!
//! Reads: texts of `/proc/PID/wchan`. Yields: small numbers for them, and back. Costs: one look-up; a name is stored once.

use rustc_hash::FxHashMap;

/// The kernel has some hundred such functions.
const MOST: usize = 2000;

/// The names seen.
#[derive(Debug, Default)]
pub struct Wchans {
    names: Vec<Box<str>>,
    numbers: FxHashMap<Box<[u8]>, u16>,
}

impl Wchans {
    /// The number of a name; none for a thread that does not wait, or whose place the kernel does not tell (`0`).
    pub fn index(&mut self, text: &[u8]) -> Option<u16> {
        if matches!(text, b"" | b"0") {
            return None;
        }
        if let Some(number) = self.numbers.get(text) {
            return Some(*number);
        }
        if self.names.len() >= MOST {
            return None;
        }
        let number = self.names.len() as u16;
        self.names.push(String::from_utf8_lossy(text).into());
        self.numbers.insert(text.into(), number);
        Some(number)
    }

    /// The name of a number.
    #[must_use]
    pub fn name(&self, number: u16) -> &str {
        self.names.get(usize::from(number)).map_or("", |name| name)
    }
}
