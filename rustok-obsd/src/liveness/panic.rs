//! What a panic says.
//!
//! Reads: panics of any thread. Yields: one bounded line of the log each, and their count. Costs: nothing without a panic.
//!
//! A message that was formatted may hold what a target sent: a slice of a `str` quotes its text, `expect` quotes the error.
//! Such a message is shown up to its first quote. One that stands in the source as it is holds nothing of the kind. Both
//! are bounded.

use std::{
    panic::{PanicHookInfo, set_hook},
    sync::atomic::{AtomicU64, Ordering},
};

/// Bytes of a message at most.
const MOST: usize = 160;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Panics so far. Where the process goes on they cost one collector, one scrape or one connection each.
#[must_use]
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// From now on panics are lines of the daemon's own log. Call it once logging works.
pub fn install() {
    set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::current();
        tracing::error!("thread {} panicked{}", thread.name().unwrap_or("without a name"), describe(info));
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
    let literal = info.payload().is::<&'static str>();
    format!("{place}: {}", bounded(info.payload_as_str().unwrap_or("no message"), literal))
}

/// The beginning of a message.
fn bounded(message: &str, literal: bool) -> String {
    let hidden = |c: char| c.is_control() || !literal && matches!(c, '`' | '"' | '\'');
    let plain = message.split(hidden).next().unwrap_or_default();
    let end = (0..=MOST.min(plain.len())).rev().find(|end| plain.is_char_boundary(*end)).unwrap_or(0);
    let mut text = plain[..end].to_owned();
    if end < message.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_shown_up_to_what_it_quotes_and_within_its_bound() {
        let index = "index out of bounds: the len is 3 but the index is 7";
        assert_eq!(bounded(index, false), index);
        let none = "called `Option::unwrap()` on a `None` value";
        assert_eq!(bounded(none, true), none);
        // What the standard library says of a slice, and of an error that nobody expected.
        let text = "planted-secret-ä";
        let slice = std::panic::catch_unwind(|| text[..text.len() - 1].len()).expect_err("no boundary");
        let message = slice.downcast_ref::<String>().expect("formatted");
        assert!(message.contains("planted-secret"), "{message}");
        let shown = bounded(message, false);
        assert!(!shown.contains("planted") && shown.ends_with('…') && shown.len() > 20, "{shown}");
        assert_eq!(bounded("not read: ParseError(\"planted-secret\")", false), "not read: ParseError(…");
        assert_eq!(bounded("one line\nrustok-obsd: forged", true), "one line…");
        let long = bounded(&"ä".repeat(1000), false);
        assert!(long.len() <= MOST + '…'.len_utf8() && long.starts_with("ää"), "{long}");
    }
}
