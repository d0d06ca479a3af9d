//! Tokens on which all possible readings of a text agree.
//!
//! Reads: SQL text, which may end anywhere, and its [`Dialect`]. Yields: [`Token`]s. Costs: one pass where the dialect is
//! one reading; else the tokens that readings can differ on are read once by each.
//!
//! From a place where all readings stand outside of literals and comments each reads one token. Where they end at the
//! same place the token is what all of them take it for, and a literal if they differ. Where they do not, everything up
//! to the next place at which they meet again is one literal: nothing that one of them has inside of a literal leaves.

use super::dialect::{Dialect, Reading};
use super::lex::{Lexeme, lex, plain};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An unquoted identifier or keyword.
    Word,
    /// A quoted identifier.
    Quoted,
    /// A string of any kind, whole or cut.
    Literal,
    /// A number: a literal to which a sign may belong.
    Number,
    /// `$1`, and SQLite's `?1`.
    Param(u32),
    /// A parameter without a number, which stays as it is: `?`, `:name`.
    Mark,
    /// An operator.
    Op,
    /// One of `()[],;.`.
    Punct(u8),
    /// The text goes on here, unseen.
    More,
}

/// A token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: u32,
    pub(super) end: u32,
    /// White space or a comment came before it.
    pub(super) space: bool,
}

impl Token {
    pub(super) fn text<'t>(&self, sql: &'t str) -> &'t str {
        sql.get(self.start as usize..self.end as usize).unwrap_or("")
    }

    pub(super) fn is(&self, byte: u8) -> bool {
        self.kind == Kind::Punct(byte)
    }

    /// It is this keyword (in upper case).
    pub(super) fn is_word(&self, sql: &str, word: &str) -> bool {
        self.kind == Kind::Word && self.text(sql).eq_ignore_ascii_case(word)
    }

    /// It is one of these keywords (in upper case).
    pub(super) fn is_any(&self, sql: &str, words: &[&str]) -> bool {
        words.iter().any(|word| self.is_word(sql, word))
    }
}

/// Splits `sql` into `tokens`. `truncated`: the text was cut at its end, so that the last token may be a part of one.
/// Returns where readings parted first, or where the text ends.
pub(super) fn tokenize(sql: &str, dialect: Dialect, truncated: bool, tokens: &mut Vec<Token>) -> usize {
    tokens.clear();
    let (readings, count) = dialect.readings();
    let mut readers = Readers { bytes: sql.as_bytes(), readings, open: [false; READERS], count };
    let (mut at, mut space, mut stopped, mut escape_tried) = (0, false, false, truncated);
    let mut parted = sql.len();
    while at < sql.len() && !stopped {
        let start = at;
        let kind = if let Some((end, kind)) = plain(readers.bytes, at) {
            at = end;
            kind
        } else {
            let step = readers.step(at);
            if step.apart && !escape_tried && is_escape_character(sql, at, tokens) {
                escape_tried = true;
                readers.drop_those_that_never_close(at);
                continue;
            }
            at = step.end;
            stopped = step.stop;
            if step.apart {
                parted = parted.min(start);
                stopped |= at == sql.len() || hides_beginning(&sql.as_bytes()[start..at]);
            }
            step.kind
        };
        match kind {
            Some(kind) => tokens.push(Token { kind, start: start as u32, end: at as u32, space }),
            None => {
                space = true;
                continue;
            }
        }
        space = false;
    }
    if readers.open[..readers.count].iter().all(|open| *open) && !truncated {
        // Quotes that do not match: what looks like it is outside of them may be inside.
        let first = tokens.iter().position(|token| matches!(token.kind, Kind::Quoted | Kind::Literal));
        tokens.truncate(first.map_or(0, |first| first + 1));
        if let Some(first) = tokens.last_mut() {
            first.kind = Kind::Literal;
        }
        stopped = true;
    }
    if truncated {
        // A part of a word or an operator tells something wrong.
        if let Some(last) = tokens.last()
            && last.end as usize == sql.len()
            && !matches!(last.kind, Kind::Literal | Kind::Number | Kind::Punct(b'(' | b')' | b',' | b';'))
        {
            tokens.pop();
        }
    }
    if truncated || stopped {
        let end = sql.len() as u32;
        tokens.push(Token { kind: Kind::More, start: end, end, space: true });
    }
    parted
}

/// A statement may begin in what two readings take for different things, and its value come behind that.
fn hides_beginning(part: &[u8]) -> bool {
    let holds = |word: &[u8]| part.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word));
    part.contains(&b';') || holds(b"SET") || holds(b"PRAGMA")
}

/// `'\'` behind ESCAPE, which takes one character. A reading by which the string goes on here, and which never closes the
/// text's last quote, is impossible then: see [`Readers::drop_those_that_never_close`].
fn is_escape_character(sql: &str, at: usize, tokens: &[Token]) -> bool {
    sql[at..].starts_with(r"'\'") && tokens.last().is_some_and(|last| last.is_word(sql, "ESCAPE"))
}

const READERS: usize = 7;

/// Those who read a text.
struct Readers<'t> {
    bytes: &'t [u8],
    readings: [Reading; READERS],
    /// Who met a quote that is never closed.
    open: [bool; READERS],
    count: usize,
}

/// What stands at a place, by all.
struct Step {
    end: usize,
    kind: Option<Kind>,
    stop: bool,
    /// They came to different ends.
    apart: bool,
}

impl Readers<'_> {
    fn step(&mut self, at: usize) -> Step {
        let mut ends = [at; READERS];
        let mut step = Step { end: at, kind: None, stop: false, apart: false };
        for (index, reading) in self.readings[..self.count].iter().enumerate() {
            let Lexeme { end, kind, open, stop } = lex(self.bytes, at, *reading);
            ends[index] = end;
            self.open[index] = open;
            step.kind = if index == 0 { kind } else { join(step.kind, kind) };
            step.stop |= stop;
            step.apart |= end != ends[0];
            step.end = step.end.max(end);
        }
        if step.apart {
            step.kind = Some(Kind::Literal);
            self.meet(&mut ends, &mut step);
        }
        step
    }

    /// Reads on until all stand at the same place, which may be the end.
    fn meet(&mut self, ends: &mut [usize; READERS], step: &mut Step) {
        loop {
            let far = step.end;
            for (index, reading) in self.readings[..self.count].iter().enumerate() {
                while ends[index] < far {
                    let lexeme = lex(self.bytes, ends[index], *reading);
                    ends[index] = lexeme.end;
                    self.open[index] = lexeme.open;
                    step.stop |= lexeme.stop;
                }
                step.end = step.end.max(ends[index]);
            }
            if ends[..self.count].iter().all(|end| *end == step.end) {
                return;
            }
        }
    }

    /// Forgets readings that have a token of other than three bytes at `at`, and then an open quote at the end.
    fn drop_those_that_never_close(&mut self, at: usize) {
        let mut kept = 0;
        for index in 0..self.count {
            let reading = self.readings[index];
            let mut lexeme = lex(self.bytes, at, reading);
            let mut possible = lexeme.end == at + 3;
            while !possible && lexeme.end < self.bytes.len() {
                lexeme = lex(self.bytes, lexeme.end, reading);
            }
            possible |= !lexeme.open;
            if possible {
                self.readings[kept] = reading;
                kept += 1;
            }
        }
        // Where none is left nobody knows better than all of them together.
        if kept > 0 {
            self.count = kept;
        }
    }
}

/// What a token is that readings take for different things.
fn join(a: Option<Kind>, b: Option<Kind>) -> Option<Kind> {
    match (a, b) {
        (a, b) if a == b => a,
        // Neither of them is a literal or a comment.
        (Some(param @ Kind::Param(_)), Some(Kind::Mark | Kind::Word))
        | (Some(Kind::Mark | Kind::Word), Some(param @ Kind::Param(_))) => Some(param),
        (Some(Kind::Mark), Some(Kind::Word | Kind::Op)) | (Some(Kind::Word | Kind::Op), Some(Kind::Mark)) => {
            Some(Kind::Mark)
        }
        _ => Some(Kind::Literal),
    }
}
