//! Finds where a function's argument holds a statement's text, by watching.
//!
//! Reads: samples of calls: the words that the argument points at, and the first bytes at each of them. Yields: the place
//! ([`Layout`]), or why there is none. Costs: a few comparisons for some dozens of calls.
//!
//! Stack memory around an argument holds statements of earlier calls that look just as right, hence no first match
//! counts: a place is the one that held the beginning of SQL, with a length beside it, at every call seen.

use rustok_obsd_ebpf::{Layout, PREFIX, SOUGHT_WORDS};

/// Calls that a place has to explain.
const ENOUGH: u32 = 24;
/// Calls after which the search ends.
const MOST: u32 = 400;
/// Lengths of a text.
const LENGTHS: std::ops::RangeInclusive<u64> = 4..=1 << 24;
/// Where the length can be, from the address: behind it (`&str`, `String` as rustc lays it out today), or elsewhere.
const BESIDE: [isize; 4] = [1, 2, -1, -2];

/// What SQL begins with.
const KEYWORDS: [&[u8]; 30] = [
    b"SELECT",
    b"INSERT",
    b"UPDATE",
    b"DELETE",
    b"WITH",
    b"BEGIN",
    b"COMMIT",
    b"ROLLBACK",
    b"SET",
    b"CREATE",
    b"ALTER",
    b"DROP",
    b"TRUNCATE",
    b"CALL",
    b"VALUES",
    b"SHOW",
    b"EXPLAIN",
    b"LOCK",
    b"COPY",
    b"MERGE",
    b"SAVEPOINT",
    b"RELEASE",
    b"START",
    b"LISTEN",
    b"NOTIFY",
    b"UNLISTEN",
    b"ANALYZE",
    b"VACUUM",
    b"REFRESH",
    b"GRANT",
];

/// How far the search is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// More calls are needed.
    Searching,
    /// The place.
    At(Layout),
    /// It will not be found.
    Nowhere {
        /// Why.
        reason: String,
    },
}

/// The search for one function's place.
#[derive(Clone, Debug)]
pub struct Seeker {
    argument: u8,
    calls: u32,
    direct: u32,
    /// Calls that each address with each of [`BESIDE`] explains.
    explained: [[u32; BESIDE.len()]; SOUGHT_WORDS],
}

impl Seeker {
    /// The statement is in this argument, or behind it.
    #[must_use]
    pub const fn new(argument: u8) -> Self {
        Self { argument, calls: 0, direct: 0, explained: [[0; BESIDE.len()]; SOUGHT_WORDS] }
    }

    /// Takes a call: the words behind the argument, what each of them points at, and the next argument.
    pub fn sample(&mut self, words: &[u64; SOUGHT_WORDS], prefixes: &[[u8; PREFIX]; SOUGHT_WORDS], next: u64) -> Found {
        self.calls += 1;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.direct += u32::from(is_sql(&bytes, next));
        for (index, prefix) in prefixes.iter().enumerate() {
            for (beside, explained) in BESIDE.iter().zip(&mut self.explained[index]) {
                let length = index.checked_add_signed(*beside).and_then(|index| words.get(index));
                *explained += u32::from(length.is_some_and(|length| is_sql(prefix, *length)));
            }
        }
        self.progress()
    }

    fn progress(&self) -> Found {
        let argument = self.argument;
        if self.calls >= ENOUGH {
            if self.direct == self.calls {
                return Found::At(Layout { argument, direct: 1, pointer: 0, length: 0, known: 1 });
            }
            // The nearest length counts where several explain everything: a capacity stands farther from its text.
            for (side, beside) in BESIDE.iter().enumerate() {
                let mut places = (0..SOUGHT_WORDS).filter(|&index| self.explained[index][side] == self.calls);
                let (first, second) = (places.next(), places.next());
                if let (Some(pointer), None) = (first, second)
                    && let Some(length) = pointer.checked_add_signed(*beside)
                    && let (Ok(pointer), Ok(length)) = (u8::try_from(pointer), u8::try_from(length))
                {
                    return Found::At(Layout { argument, direct: 0, pointer, length, known: 1 });
                }
            }
        }
        if self.calls < MOST {
            return Found::Searching;
        }
        let most = self.explained.iter().flatten().chain([&self.direct]).max().copied().unwrap_or(0);
        Found::Nowhere {
            reason: format!("no place held a statement at each of {} calls; the best one at {most}", self.calls),
        }
    }
}

/// Whether a text of this length, of which these are the first bytes, is a statement. Behind its end anything may stand:
/// constants lie side by side.
fn is_sql(bytes: &[u8], length: u64) -> bool {
    LENGTHS.contains(&length) && begins_like_sql(&bytes[..bytes.len().min(length as usize)])
}

/// Whether bytes begin with a statement, behind white space and an opening parenthesis.
#[must_use]
pub fn begins_like_sql(bytes: &[u8]) -> bool {
    let skipped = bytes.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b'(').count();
    let bytes = &bytes[skipped..];
    if bytes.starts_with(b"--") || bytes.starts_with(b"/*") {
        return true;
    }
    KEYWORDS.iter().any(|keyword| {
        bytes.get(..keyword.len()).is_some_and(|start| start.eq_ignore_ascii_case(keyword))
            && bytes.get(keyword.len()).is_none_or(|next| !next.is_ascii_alphanumeric() && *next != b'_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &[u8; PREFIX], len: u64, stale: bool) -> ([u64; SOUGHT_WORDS], [[u8; PREFIX]; SOUGHT_WORDS]) {
        let mut words = [7; SOUGHT_WORDS];
        let mut prefixes = [[0; PREFIX]; SOUGHT_WORDS];
        (words[4], words[5], prefixes[4]) = (0x7f00_0000, len, *text);
        if stale {
            (words[9], words[10], prefixes[9]) = (0x7e00_0000, 30, *b"SELECT id FROM t");
        }
        (words, prefixes)
    }

    #[test]
    fn a_place_is_found_by_agreement_and_a_stale_statement_is_none() {
        let mut seeker = Seeker::new(1);
        let mut found = Found::Searching;
        for n in 0..ENOUGH {
            assert_eq!(found, Found::Searching);
            let (words, prefixes) = call(b"INSERT INTO t VA", 40 + u64::from(n), n % 8 != 0);
            found = seeker.sample(&words, &prefixes, 0);
        }
        assert_eq!(found, Found::At(Layout { argument: 1, direct: 0, pointer: 4, length: 5, known: 1 }));
    }

    #[test]
    fn a_text_in_the_arguments_themselves_is_found() {
        let mut words = [0; SOUGHT_WORDS];
        // Another constant follows at once.
        words[0] = u64::from_le_bytes(*b"COMMITRO");
        let mut seeker = Seeker::new(1);
        let found: Vec<_> = (0..ENOUGH).map(|_| seeker.sample(&words, &[[0; PREFIX]; SOUGHT_WORDS], 6)).collect();
        assert_eq!(found.last(), Some(&Found::At(Layout { argument: 1, direct: 1, pointer: 0, length: 0, known: 1 })));
    }

    #[test]
    fn a_search_without_a_place_ends_with_a_reason() {
        let mut seeker = Seeker::new(1);
        let last = (0..MOST).map(|_| seeker.sample(&[1; SOUGHT_WORDS], &[[b'x'; PREFIX]; SOUGHT_WORDS], 3)).last();
        assert!(matches!(last, Some(Found::Nowhere { reason }) if reason.contains("400 calls")));
    }

    #[test]
    fn beginnings_of_sql_are_told_from_other_text() {
        for sql in [&b"select 1"[..], b"  (SELECT a", b"-- note\nSELECT", b"WITH x AS (SELEC", b"COMMIT"] {
            assert!(begins_like_sql(sql), "{}", sql.escape_ascii());
        }
        for other in [&b"selection"[..], b"GET / HTTP/1.1\r\n", b"", b"{\"a\":1}", b"settings"] {
            assert!(!begins_like_sql(other), "{}", other.escape_ascii());
        }
    }
}
