//! PostgreSQL's lexical rules (manual, chapter 4.1; `scan.l`).
//!
//! Reads: SQL text, which may end anywhere. Yields: [`Token`]s. Costs: one pass.
//!
//! Where two readings are possible, the one that takes more for a literal is taken: a literal must not survive.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An unquoted identifier or keyword.
    Word,
    /// A quoted identifier.
    Quoted,
    /// A string of any kind or a number, whole or cut.
    Literal,
    /// `$1`.
    Param(u32),
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
    /// A number: a sign may belong to it.
    pub(super) number: bool,
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
}

/// Splits `sql` into `tokens`. `truncated`: the text was cut at its end, so that the last token may be a part of one.
pub(super) fn tokenize(sql: &str, truncated: bool, tokens: &mut Vec<Token>) {
    tokens.clear();
    let mut lexer = Lexer { bytes: sql.as_bytes(), at: 0, stopped: false, open: false };
    let mut space = false;
    while lexer.at < lexer.bytes.len() && !lexer.stopped {
        if lexer.skip_blank() {
            space = true;
            continue;
        }
        let start = lexer.at;
        let (kind, number) = lexer.token();
        // Never stands still, whatever the input.
        lexer.at = lexer.at.max(start + 1).min(lexer.bytes.len());
        tokens.push(Token { kind, start: start as u32, end: lexer.at as u32, space, number });
        space = false;
    }
    if lexer.open && !truncated {
        // Quotes that do not match: what looks like it is outside of them may be inside.
        let first = tokens.iter().position(|token| is_quote(*token, sql));
        tokens.truncate(first.map_or(0, |first| first + 1));
        lexer.stopped = true;
    }
    if truncated {
        // A part of a word or an operator tells something wrong.
        if let Some(last) = tokens.last()
            && last.end as usize == sql.len()
            && !matches!(last.kind, Kind::Literal | Kind::Punct(b'(' | b')' | b',' | b';'))
        {
            tokens.pop();
        }
    }
    if truncated || lexer.stopped {
        let end = sql.len() as u32;
        tokens.push(Token { kind: Kind::More, start: end, end, space: true, number: false });
    }
}

fn is_quote(token: Token, sql: &str) -> bool {
    token.kind == Kind::Quoted || token.kind == Kind::Literal && !token.number && !token.text(sql).is_empty()
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0)
}

const fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

const fn is_op(byte: u8) -> bool {
    matches!(
        byte,
        b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=' | b'~' | b'!' | b'@' | b'#' | b'%' | b'^' | b'&' | b'|' | b'?'
    )
}

struct Lexer<'t> {
    bytes: &'t [u8],
    at: usize,
    /// The rest has two readings: it is not told.
    stopped: bool,
    /// A quote was not closed.
    open: bool,
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

    fn skip_line(&mut self) {
        self.skip_while(|byte| byte != b'\n' && byte != b'\r');
    }

    /// Skips white space or one comment.
    fn skip_blank(&mut self) -> bool {
        let start = self.at;
        self.skip_while(is_blank);
        if self.starts(b"--") {
            self.skip_line();
        } else if self.starts(b"/*") {
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
        self.at > start
    }

    fn token(&mut self) -> (Kind, bool) {
        let byte = self.bytes[self.at];
        match byte {
            b'\'' => self.string(false),
            b'"' => return (self.quoted(b'"'), false),
            b'`' => return (self.quoted(b'`'), false),
            b'$' => return (self.dollar(), false),
            b'0'..=b'9' => {
                self.number();
                return (Kind::Literal, true);
            }
            b'.' if self.peek(1).is_ascii_digit() => {
                self.number();
                return (Kind::Literal, true);
            }
            b'e' | b'E' if self.peek(1) == b'\'' => {
                self.at += 1;
                self.string(true);
            }
            b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if self.peek(1) == b'\'' => {
                self.at += 1;
                self.string(false);
            }
            b'u' | b'U' if self.peek(1) == b'&' && self.peek(2) == b'\'' => {
                self.at += 2;
                // A backslash escapes no quote in it.
                self.simple_string();
            }
            b'u' | b'U' if self.peek(1) == b'&' && self.peek(2) == b'"' => {
                self.at += 2;
                return (self.quoted(b'"'), false);
            }
            b'(' | b')' | b'[' | b']' | b',' | b';' | b'.' => {
                self.at += 1;
                return (Kind::Punct(byte), false);
            }
            b':' => {
                self.at += if matches!(self.peek(1), b':' | b'=') { 2 } else { 1 };
                return (Kind::Op, false);
            }
            _ if is_word_start(byte) => {
                self.skip_while(is_word);
                return (Kind::Word, false);
            }
            _ if is_op(byte) => return (self.operator(), false),
            _ => {
                self.at += 1;
                return (Kind::Op, false);
            }
        }
        (Kind::Literal, false)
    }

    /// A string and those that continue it on further lines, which keep its kind.
    fn string(&mut self, escapes: bool) {
        loop {
            if escapes {
                self.escape_string();
            } else {
                self.plain_string();
            }
            let end = self.at;
            if self.stopped || !self.continues() {
                self.at = end;
                // `'O'Brien'` is no SQL, and the rest of it is no keyword.
                self.stopped |= is_word(self.peek(0));
                return;
            }
        }
    }

    /// White space with a line end in it, and then a quote.
    fn continues(&mut self) -> bool {
        let mut line = false;
        loop {
            match self.peek(0) {
                b'\n' | b'\r' => line = true,
                b'-' if self.peek(1) == b'-' => {
                    self.skip_line();
                    continue;
                }
                b'\'' => return line,
                byte if is_blank(byte) && self.at < self.bytes.len() => {}
                _ => return false,
            }
            self.at += 1;
        }
    }

    /// Moves behind the closing quote; quotes are doubled inside.
    fn simple_string(&mut self) {
        self.at += 1;
        while self.at < self.bytes.len() {
            if self.bytes[self.at] != b'\'' {
                self.at += 1;
            } else if self.peek(1) == b'\'' {
                self.at += 2;
            } else {
                self.at += 1;
                self.stopped |= is_word(self.peek(0));
                return;
            }
        }
        self.open = true;
    }

    /// The same, but a backslash before a quote has another meaning where `standard_conforming_strings` is off.
    fn plain_string(&mut self) {
        let start = self.at + 1;
        let mut backslashes = 0_usize;
        let mut doubtful = false;
        self.at = start;
        while self.at < self.bytes.len() {
            match self.bytes[self.at] {
                b'\\' => {
                    backslashes += 1;
                    self.at += 1;
                    continue;
                }
                b'\'' => {
                    // `ESCAPE '\'` has one meaning in practice.
                    doubtful |= backslashes % 2 == 1 && !(self.at == start + 1 && self.peek(1) != b'\'');
                    if self.peek(1) != b'\'' {
                        self.at += 1;
                        self.stopped |= doubtful;
                        return;
                    }
                    self.at += 2;
                }
                _ => self.at += 1,
            }
            backslashes = 0;
        }
        self.open = true;
    }

    fn escape_string(&mut self) {
        self.at += 1;
        while self.at < self.bytes.len() {
            match (self.bytes[self.at], self.peek(1)) {
                (b'\\', _) | (b'\'', b'\'') => self.at += 2,
                (b'\'', _) => {
                    self.at += 1;
                    return;
                }
                _ => self.at += 1,
            }
        }
        self.at = self.bytes.len();
        self.open = true;
    }

    fn quoted(&mut self, quote: u8) -> Kind {
        self.at += 1;
        while self.at < self.bytes.len() {
            if self.bytes[self.at] != quote {
                self.at += 1;
            } else if self.peek(1) == quote {
                self.at += 2;
            } else {
                self.at += 1;
                return Kind::Quoted;
            }
        }
        // It never ends: nobody knows what this is.
        self.open = true;
        Kind::Literal
    }

    fn dollar(&mut self) -> Kind {
        self.at += 1;
        let start = self.at;
        self.skip_while(|byte| byte.is_ascii_digit());
        if self.at > start {
            let digits = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or("");
            return digits.parse().map_or(Kind::Literal, Kind::Param);
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
        let tag = start - 1..self.at;
        match memchr::memmem::find(&self.bytes[self.at..], &self.bytes[tag.clone()]) {
            Some(end) => self.at += end + tag.len(),
            None => {
                self.at = self.bytes.len();
                self.open = true;
            }
        }
        Kind::Literal
    }

    fn number(&mut self) {
        let start = self.at;
        let radix = self.peek(0) == b'0' && matches!(self.peek(1), b'x' | b'X' | b'o' | b'O' | b'b' | b'B');
        while self.at < self.bytes.len() {
            let byte = self.bytes[self.at];
            let before = if self.at > start { self.bytes[self.at - 1] } else { 0 };
            let signed =
                matches!(byte, b'+' | b'-') && !radix && matches!(before, b'e' | b'E') && self.peek(1).is_ascii_digit();
            let goes_on = byte.is_ascii_alphanumeric()
                || byte == b'_'
                || byte >= 0x80
                || byte == b'.' && self.peek(1) != b'.' && before != b'.'
                || signed;
            if !goes_on {
                break;
            }
            self.at += 1;
        }
    }

    /// Operators are as long as they can be, but end before a comment, and in `+` or `-` only if they hold a character
    /// that no operator of standard SQL has.
    fn operator(&mut self) -> Kind {
        let start = self.at;
        while self.at < self.bytes.len() && is_op(self.bytes[self.at]) {
            if self.at > start && (self.starts(b"--") || self.starts(b"/*")) {
                break;
            }
            self.at += 1;
        }
        let special = self.bytes[start..self.at].iter().any(|byte| b"~!@#%^&|?".contains(byte));
        while !special && self.at > start + 1 && matches!(self.bytes[self.at - 1], b'+' | b'-') {
            self.at -= 1;
        }
        Kind::Op
    }
}
