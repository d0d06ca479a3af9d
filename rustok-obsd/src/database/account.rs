//! sqlx' own account of a statement: `QueryLogger { sql, rows_returned, rows_affected, start, settings }`.
//!
//! Reads: the words of the struct when sqlx is done with the statement (`QueryLogger::finish(&self)`). Yields: which
//! operation it was, and its rows. Costs: a few comparisons.
//!
//! rustc orders the fields as it likes, so that they are told apart by what they hold. `sql` is the address and length
//! that `QueryLogger::new` was given for the same statement; `start` is an `Instant`, that is `CLOCK_MONOTONIC` seconds
//! and nanoseconds, right behind that call. The rows are the one pair of other words that obeys the protocol at every
//! statement so far: as many rows returned as affected (`SELECT`, `RETURNING`), or none of one kind. Until one pair is
//! left and has shown different numbers, rows are not told.

use rustok_obsd_ebpf::CALL_WORDS;

/// The `Instant` is read just behind the call; more is another statement's, or another field.
const NEAR_NS: u64 = 20_000_000;
/// Statements that a pair of words has to explain.
const ENOUGH: u32 = 16;
/// More rows are none.
const MOST_ROWS: u64 = 1 << 40;

/// The account of a statement.
pub type Words = [u64; CALL_WORDS];

/// Where the text is told: address and length side by side.
#[must_use]
pub fn tells(words: &Words, (text, len): (u64, u64)) -> bool {
    text != 0 && words.windows(2).any(|pair| pair == [text, len] || pair == [len, text])
}

/// How far the account's `start` is behind a call at `start_ns`; `None` where no words are such an `Instant`.
#[must_use]
pub fn distance(words: &Words, start_ns: u64) -> Option<u64> {
    instant(words, start_ns).map(|(_, distance)| distance)
}

/// Which words are the `Instant`, and how far behind the call.
fn instant(words: &Words, start_ns: u64) -> Option<(usize, u64)> {
    let at = |index: usize| {
        // The nanoseconds are a u32; its padding may hold anything.
        let (secs, nanos) = (words[index], words[index + 1] & 0xffff_ffff);
        let time = secs.checked_mul(1_000_000_000)?.checked_add(nanos)?;
        let distance = time.checked_sub(start_ns)?;
        (nanos < 1_000_000_000).then_some((index, distance))
    };
    (0..CALL_WORDS - 1)
        .filter_map(at)
        .filter(|(_, distance)| *distance <= NEAR_NS)
        .min_by_key(|(_, distance)| *distance)
}

/// What was learned of one binary's account.
#[derive(Debug, Clone)]
pub struct AccountLayout {
    /// For each pair of neighbours: whether it is still possible.
    possible: [bool; CALL_WORDS - 1],
    /// Whether it has shown equal numbers above 0, and the first number that it showed.
    equal: [bool; CALL_WORDS - 1],
    first: [Option<(u64, u64)>; CALL_WORDS - 1],
    varied: [bool; CALL_WORDS - 1],
    seen: u32,
}

impl Default for AccountLayout {
    fn default() -> Self {
        let none = [false; CALL_WORDS - 1];
        Self { possible: [true; CALL_WORDS - 1], equal: none, first: [None; CALL_WORDS - 1], varied: none, seen: 0 }
    }
}

impl AccountLayout {
    /// Takes the account of a statement that was called at `start_ns` with this text. Yields its rows where they are known.
    pub fn rows(&mut self, words: &Words, text: (u64, u64), start_ns: u64) -> Option<u64> {
        let (instant, _) = instant(words, start_ns)?;
        let sql = words.windows(2).position(|pair| pair == [text.0, text.1] || pair == [text.1, text.0])?;
        let taken = |index: usize| (sql..sql + 2).contains(&index) || (instant..instant + 2).contains(&index);
        for index in 0..CALL_WORDS - 1 {
            let pair = (words[index], words[index + 1]);
            let obeys = pair.0 < MOST_ROWS && pair.1 < MOST_ROWS && (pair.0 == pair.1 || pair.0 == 0 || pair.1 == 0);
            if taken(index) || taken(index + 1) || !obeys {
                self.possible[index] = false;
                continue;
            }
            self.equal[index] |= pair.0 == pair.1 && pair.0 > 0;
            match self.first[index] {
                None => self.first[index] = Some(pair),
                Some(first) => self.varied[index] |= first != pair,
            }
        }
        self.seen = self.seen.saturating_add(1);
        let index = self.place()?;
        Some(words[index].max(words[index + 1]))
    }

    /// The pair, once it is the only one.
    fn place(&self) -> Option<usize> {
        if self.seen < ENOUGH {
            return None;
        }
        let mut places = (0..CALL_WORDS - 1).filter(|&i| self.possible[i] && self.varied[i] && self.equal[i]);
        let first = places.next()?;
        places.next().is_none().then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: (u64, u64) = (0x7f00_1234_5678, 42);

    /// The layout of sqlx 0.8.6, rustc 1.95: settings, start, sql, rows, then the caller's frame.
    fn account(start_ns: u64, returned: u64, affected: u64) -> Words {
        let (secs, nanos) = (start_ns / 1_000_000_000, start_ns % 1_000_000_000);
        [5, 2, 1, 0, secs, nanos | 0xdead << 32, TEXT.0, TEXT.1, returned, affected, 0x7f00_0000_1000, 0]
    }

    #[test]
    fn rows_are_told_once_one_pair_of_words_explains_all_statements() {
        let mut layout = AccountLayout::default();
        let mut told = Vec::new();
        for n in 0..40u64 {
            let start = 3_000_000_000 + n * 100_000_000;
            let (returned, affected) = if n % 3 == 0 { (0, 1) } else { (n, n) };
            told.push(layout.rows(&account(start + 700, returned, affected), TEXT, start));
        }
        assert!(told[..15].iter().all(Option::is_none));
        assert_eq!(told[39], Some(1));
        assert_eq!(told[38], Some(38));
    }

    #[test]
    fn words_that_always_agree_but_never_change_are_no_rows() {
        let mut layout = AccountLayout::default();
        let told = (0..100u64).map(|n| {
            let start = 9_000_000_000 + n;
            layout.rows(&account(start + 500, 0, 0), TEXT, start)
        });
        assert!(told.into_iter().all(|rows| rows.is_none()));
    }

    #[test]
    fn an_account_is_told_from_another_of_the_same_text_by_its_start() {
        let words = account(5_000_100_000, 1, 1);
        assert!(tells(&words, TEXT) && !tells(&words, (TEXT.0, 43)));
        assert_eq!(distance(&words, 5_000_090_000), Some(10_000));
        assert_eq!(distance(&words, 5_000_100_001), None, "it began before the call");
        assert_eq!(distance(&words, 4_900_000_000), None, "that is another statement's");
    }
}
