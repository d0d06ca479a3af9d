//! Makes text of others safe to show: names of processes, paths, cgroups, labels and what an error says of them.
//!
//! Reads: any text. Yields: the same text, in which no character ends a line, moves a terminal's cursor or turns the
//! order of what is read around. Costs: one pass; a copy only where there is something to escape.
//!
//! A name that a local user chose must not forge a line of the log, nor repaint the terminal of who reads `doctor`.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Whether a character can forge what stands around it: controls (C0, DEL, C1), separators of lines and paragraphs,
/// and the marks that reorder text (<https://www.unicode.org/reports/tr9/>, "Trojan Source").
#[must_use]
pub const fn forges(letter: char) -> bool {
    matches!(letter,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}')
}

/// One line of text.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    if !text.contains(forges) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    // A string takes what it is given.
    let _ = Line(&mut escaped).write_str(text);
    escaped.into()
}

/// A text that was written as JSON: what JSON leaves as it is (DEL, C1 and the rest) becomes an escape of JSON, with the
/// same meaning.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    // Below the space, JSON has only its own white space: a letter of a string is escaped there already.
    let hidden = |letter: char| letter >= ' ' && forges(letter);
    if !text.contains(hidden) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if hidden(letter) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped.into()
}

/// Escapes on the way to another writer.
pub struct Line<W>(pub W);

impl<W: Write> Write for Line<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(forges) {
            self.0.write_str(&rest[..at])?;
            let mut after = rest[at..].chars();
            match after.next() {
                Some(letter @ ('\n' | '\r' | '\t')) => write!(self.0, "{}", letter.escape_default())?,
                Some(letter) => write!(self.0, "{}", letter.escape_unicode())?,
                None => {}
            }
            rest = after.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_forges_is_left_and_the_rest_stays() {
        assert!(matches!(line("déjà vu, a \\ and a \"quote\""), Cow::Borrowed(_)));
        assert_eq!(line("a\nb\tc\x1b[31m\u{9b}d\u{202e}e\u{2028}"), r"a\nb\tc\u{1b}[31m\u{9b}d\u{202e}e\u{2028}");
        for letter in (0..=0x2fff).filter_map(char::from_u32) {
            let shown = line(letter.encode_utf8(&mut [0; 4])).into_owned();
            assert_eq!(shown.contains(letter), !forges(letter), "{letter:?}: {shown}");
            assert!(!letter.is_control() || forges(letter), "{letter:?}");
        }
    }

    #[test]
    fn json_keeps_its_meaning_and_its_own_line_feeds() {
        let value = serde_json::json!({ "a\u{85}": "\n\x1b\x7f\u{9b}\u{2029}\u{2067}é" });
        let text = format!("{value:#}\n");
        let escaped = json(&text);
        assert!(!escaped.contains(|letter| letter != '\n' && forges(letter)), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        assert!(matches!(json("{\n}"), Cow::Borrowed(_)));
    }
}
