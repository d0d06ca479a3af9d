//! One token by one reading.
//!
//! Reads: SQL text, which may end anywhere. Yields: [`Lexeme`]s. Costs: one pass; nothing is remembered between two
//! tokens, so that readings which meet at the same place go on alike.
//!
//! The rules are those of PostgreSQL's `scan.l` (manual, chapter 4.1), of MySQL's and MariaDB's lexer (manual, chapters
//! "Literal Values", "Comments") and of SQLite's `tokenize.c`. Where a database refuses a text, more of it is taken for
//! a literal.

use super::dialect::{Double, Family, Reading};
use super::token::Kind;

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lexeme {
    /// Where it ends.
    pub(super) end: usize,
    /// `None`: white space or a comment.
    pub(super) kind: Option<Kind>,
    /// It is a quote that is never closed.
    pub(super) open: bool,
    /// What follows cannot be read with certainty.
    pub(super) stop: bool,
}

/// Reads what stands at `at`, which is inside of `bytes`.
pub(super) fn lex(bytes: &[u8], at: usize, reading: Reading) -> Lexeme {
    let mut lexer = Lexer { bytes, at, reading, open: false, stop: false };
    let kind = lexer.read();
    // Never stands still, whatever the input.
    let end = lexer.at.max(at + 1).min(bytes.len());
    Lexeme { end, kind, open: lexer.open, stop: lexer.stop }
}

/// What every reading takes for the same: where the token or white space ends.
pub(super) fn plain(bytes: &[u8], at: usize) -> Option<(usize, Option<Kind>)> {
    let next = bytes.get(at + 1).copied().unwrap_or(0);
    let run = |keep: fn(u8) -> bool| at + bytes[at..].iter().position(|byte| !keep(*byte)).unwrap_or(bytes.len() - at);
    Some(match bytes[at] {
        byte if is_blank(byte) => (run(is_blank), None),
        byte if is_word_start(byte) && !(matches!(next, b'\'' | b'&') && is_prefix(byte)) => {
            (run(is_word), Some(Kind::Word))
        }
        b'0'..=b'9' => (number(bytes, at), Some(Kind::Number)),
        b'.' if next.is_ascii_digit() => (number(bytes, at), Some(Kind::Number)),
        byte @ (b'(' | b')' | b']' | b',' | b';' | b'.') => (at + 1, Some(Kind::Punct(byte))),
        _ => return None,
    })
}

pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

const fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

pub(super) const fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// Letters that change what a quote behind them means.
const fn is_prefix(byte: u8) -> bool {
    matches!(byte.to_ascii_lowercase(), b'b' | b'e' | b'n' | b'u' | b'x')
}

/// Where a number ends: what is glued to it is taken for a part of it.
fn number(bytes: &[u8], start: usize) -> usize {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let radix = byte(start) == b'0' && matches!(byte(start + 1).to_ascii_lowercase(), b'x' | b'o' | b'b');
    let mut at = start;
    while at < bytes.len() {
        let before = if at > start { bytes[at - 1] } else { 0 };
        let goes_on = match bytes[at] {
            b'.' => byte(at + 1) != b'.' && before != b'.',
            b'+' | b'-' => !radix && matches!(before, b'e' | b'E') && byte(at + 1).is_ascii_digit(),
            byte => byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80,
        };
        if !goes_on {
            break;
        }
        at += 1;
    }
    at
}

struct Lexer<'t> {
    bytes: &'t [u8],
    at: usize,
    reading: Reading,
    open: bool,
    stop: bool,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn starts(&self, with: &[u8]) -> bool {
        self.bytes[self.at..].starts_with(with)
    }

    fn skip_while(&mut self, keep: impl Fn(u8) -> bool) {
        while self.at < self.bytes.len() && keep(self.bytes[self.at]) {
            self.at += 1;
        }
    }

    /// Moves behind the first `end`, or to the end of the text.
    fn skip_behind(&mut self, end: &[u8]) -> bool {
        let found = memchr::memmem::find(&self.bytes[self.at..], end);
        self.at = found.map_or(self.bytes.len(), |found| self.at + found + end.len());
        found.is_some()
    }

    fn read(&mut self) -> Option<Kind> {
        if let Some((end, kind)) = plain(self.bytes, self.at) {
            self.at = end;
            return kind;
        }
        if self.comment() {
            return None;
        }
        let byte = self.bytes[self.at];
        let family = self.reading.family;
        Some(match (byte, family) {
            (b'\'', Family::Postgres) => self.continued(|this| this.text(b'\'', this.reading.escapes)),
            (b'\'', _) => self.string(b'\'', self.reading.escapes),
            (b'"', _) if self.reading.double == Double::Text => self.string(b'"', self.reading.escapes),
            (b'"', _) | (b'`', Family::Mysql | Family::Sqlite) => self.name(byte),
            (b'[', Family::Sqlite) => {
                if self.skip_behind(b"]") {
                    Kind::Quoted
                } else {
                    self.open = true;
                    Kind::Literal
                }
            }
            (b'[', _) => {
                self.at += 1;
                Kind::Punct(byte)
            }
            (b'$', Family::Postgres) => self.dollar(),
            (b'$', Family::Mysql) => self.dollar_word(),
            (b'?', Family::Mysql) => {
                self.at += 1;
                Kind::Mark
            }
            (b'?' | b'$' | b'@' | b':' | b'#', Family::Sqlite) => self.variable(byte),
            (b':', _) => {
                let double = self.peek(1) == b'=' || self.peek(1) == b':' && family == Family::Postgres;
                self.at += if double { 2 } else { 1 };
                Kind::Op
            }
            _ if is_prefix(byte) => self.prefixed(byte),
            _ => self.operator(),
        })
    }

    /// Skips one comment, if one begins here.
    fn comment(&mut self) -> bool {
        let family = self.reading.family;
        if self.is_line_comment() {
            // Only PostgreSQL ends a line at a carriage return.
            self.skip_while(|byte| byte != b'\n' && (byte != b'\r' || family != Family::Postgres));
        } else if !self.starts(b"/*") {
            return false;
        } else if family == Family::Postgres {
            self.nested_comment();
        } else if family == Family::Mysql && (matches!(self.peek(2), b'!' | b'+') || self.starts(b"/*M!")) {
            return self.executed_comment();
        } else {
            self.at += 2;
            self.skip_behind(b"*/");
        }
        true
    }

    /// MySQL's `--` needs white space or a control character behind it, or the end.
    fn is_line_comment(&self) -> bool {
        match self.reading.family {
            Family::Mysql => {
                self.peek(0) == b'#' || self.starts(b"--") && (self.peek(2) <= b' ' || self.peek(2) == 0x7f)
            }
            Family::Postgres | Family::Sqlite => self.starts(b"--"),
        }
    }

    fn nested_comment(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.bytes.len() {
            if self.starts(b"/*") {
                depth += 1;
                self.at += 2;
            } else if self.starts(b"*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    break;
                }
            } else {
                self.at += 1;
            }
        }
    }

    /// `/*!50000 … */` is a comment to one server and SQL to the next one. It goes as a comment where both see its end
    /// at the same place; else nobody knows what follows.
    fn executed_comment(&mut self) -> bool {
        let start = self.at + 2;
        self.at = start;
        self.skip_behind(b"*/");
        let inner = &self.bytes[start..self.at];
        if inner.iter().any(|byte| b"'\"`#".contains(byte))
            || [&b"--"[..], b"/*"].iter().any(|part| memchr::memmem::find(inner, part).is_some())
        {
            self.at = start - 2;
            return false;
        }
        true
    }

    /// A string of PostgreSQL and those that continue it on further lines, which keep its kind.
    fn continued(&mut self, part: impl Fn(&mut Self)) -> Kind {
        loop {
            part(self);
            let end = self.at;
            if self.open || !self.continues() {
                self.at = end;
                return self.end_of_string();
            }
        }
    }

    fn string(&mut self, quote: u8, escapes: bool) -> Kind {
        self.text(quote, escapes);
        self.end_of_string()
    }

    /// `'O'Brien'` is no SQL, and the rest of it is no keyword.
    fn end_of_string(&mut self) -> Kind {
        self.stop |= is_word(self.peek(0));
        Kind::Literal
    }

    /// White space with a line end in it, and then a quote.
    fn continues(&mut self) -> bool {
        let mut line = false;
        loop {
            match self.peek(0) {
                b'\n' | b'\r' => line = true,
                b'-' if self.peek(1) == b'-' => {
                    self.skip_while(|byte| byte != b'\n' && byte != b'\r');
                    continue;
                }
                b'\'' => return line,
                byte if is_blank(byte) => {}
                _ => return false,
            }
            self.at += 1;
        }
    }

    /// Moves behind the closing quote; quotes are doubled inside.
    fn text(&mut self, quote: u8, escapes: bool) {
        self.at += 1;
        while self.at < self.bytes.len() {
            let byte = self.bytes[self.at];
            if byte == b'\\' && escapes || byte == quote && self.peek(1) == quote {
                self.at += 2;
            } else {
                self.at += 1;
                if byte == quote {
                    return;
                }
            }
        }
        self.at = self.bytes.len();
        self.open = true;
    }

    /// The same for `b'…'` and `x'…'`, where a doubled quote is two.
    fn digits(&mut self) {
        self.at += 1;
        self.open |= !self.skip_behind(b"'");
    }

    fn name(&mut self, quote: u8) -> Kind {
        self.text(quote, false);
        // If it never ends, nobody knows what it is.
        if self.open { Kind::Literal } else { Kind::Quoted }
    }

    /// A letter that a quote or `&` follows.
    fn prefixed(&mut self, letter: u8) -> Kind {
        let (letter, family, escapes) = (letter.to_ascii_lowercase(), self.reading.family, self.reading.escapes);
        let (quote, unicode) = (self.peek(1) == b'\'', self.peek(1) == b'&');
        match (letter, family) {
            (b'e', Family::Postgres) if quote => {
                self.at += 1;
                self.continued(|this| this.text(b'\'', true))
            }
            (b'b' | b'x', Family::Postgres) if quote => {
                self.at += 1;
                self.continued(Self::digits)
            }
            (b'b' | b'x', Family::Mysql) | (b'x', Family::Sqlite) if quote => {
                self.at += 1;
                self.digits();
                self.end_of_string()
            }
            (b'n', Family::Postgres) if quote => {
                self.at += 1;
                self.continued(|this| this.text(b'\'', escapes))
            }
            (b'n', Family::Mysql) if quote => {
                self.at += 1;
                self.string(b'\'', escapes)
            }
            // A backslash escapes no quote in it.
            (b'u', Family::Postgres) if unicode && self.peek(2) == b'\'' => {
                self.at += 2;
                self.continued(|this| this.text(b'\'', false))
            }
            (b'u', Family::Postgres) if unicode && self.peek(2) == b'"' => {
                self.at += 2;
                self.name(b'"')
            }
            _ => {
                self.at += 1;
                Kind::Word
            }
        }
    }

    fn dollar(&mut self) -> Kind {
        self.at += 1;
        let start = self.at;
        self.skip_while(|byte| byte.is_ascii_digit());
        if self.at > start {
            return param(&self.bytes[start..self.at]);
        }
        self.skip_while(|byte| is_word(byte) && byte != b'$');
        if self.peek(0) != b'$' {
            // At the end of a cut text it may be the tag of a string.
            if self.at < self.bytes.len() {
                self.at = start;
            }
            return Kind::Op;
        }
        self.at += 1;
        let tag = &self.bytes[start - 1..self.at];
        self.open |= !self.skip_behind(tag);
        Kind::Literal
    }

    /// MySQL 9 has `$tag$…$tag$`; other versions and MariaDB have names that begin like it.
    fn dollar_word(&mut self) -> Kind {
        let start = self.at + 1;
        self.skip_while(is_word);
        if self.bytes[start..self.at].contains(&b'$') {
            self.at = self.bytes.len();
            self.stop = true;
            return Kind::Literal;
        }
        Kind::Word
    }

    /// A parameter of SQLite: `?`, `?1`, `:name`, `@name`, `$name`.
    fn variable(&mut self, sign: u8) -> Kind {
        self.at += 1;
        let start = self.at;
        if sign == b'?' {
            self.skip_while(|byte| byte.is_ascii_digit());
        } else {
            self.skip_while(is_word);
            while self.at > start && self.starts(b"::") {
                self.at += 2;
                self.skip_while(is_word);
            }
            if self.at > start && self.peek(0) == b'(' {
                // Tcl's arrays: a name with any text in parentheses.
                self.skip_while(|byte| byte != b')' && !is_blank(byte));
                self.at += usize::from(self.peek(0) == b')');
                return Kind::Literal;
            }
        }
        let name = &self.bytes[start..self.at];
        match sign {
            _ if name.is_empty() && sign != b'?' => Kind::Op,
            b'?' | b'$' if !name.is_empty() && name.iter().all(u8::is_ascii_digit) => param(name),
            _ => Kind::Mark,
        }
    }

    /// Operators are as long as they can be, but end before a comment, and in `+` or `-` only if they hold a character
    /// that no operator of standard SQL has.
    fn operator(&mut self) -> Kind {
        let start = self.at;
        if self.starts(b"/*") {
            // A comment that cannot be read: see `executed_comment`.
            self.at = self.bytes.len();
            self.stop = true;
            return Kind::Literal;
        }
        let postgres = self.reading.family == Family::Postgres;
        let is_op = |byte: &u8| b"+-*/<>=~!%^&|".contains(byte) || postgres && b"@#?`".contains(byte);
        while self.at < self.bytes.len() && is_op(&self.bytes[self.at]) {
            if self.at > start && (self.is_line_comment() || self.starts(b"/*")) {
                break;
            }
            self.at += 1;
        }
        let special = postgres && self.bytes[start..self.at].iter().any(|byte| b"~!@#%^&|?`".contains(byte));
        while !special && self.at > start + 1 && matches!(self.bytes[self.at - 1], b'+' | b'-') {
            self.at -= 1;
        }
        Kind::Op
    }
}

/// A numbered parameter; a number that is too large for one is a literal.
fn param(digits: &[u8]) -> Kind {
    let digits = std::str::from_utf8(digits).unwrap_or("");
    digits.parse().map_or(Kind::Literal, Kind::Param)
}
