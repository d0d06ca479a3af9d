//! Makes one text of all texts that differ in literals and lengths of lists.
//!
//! Reads: tokens. Yields: the tokens that are kept, their text and its fingerprint. Costs: one pass.
//!
//! Parameters (`$1`, `?1`, `?`, `:name`) are kept as the semantic conventions want, and literals become `?`, among them
//! TRUE and FALSE; NULL and DEFAULT, which the conventions do not count among literals, stay. A list behind IN and the elements of
//! ARRAY\[…\] become `(?)`; of the rows of VALUES one of each shape is kept. The numbers of parameters behind such a
//! list depend on its length, so that in these statements they are counted anew.

use super::settings;
use super::token::{Kind, Token};
use rustc_hash::FxHashMap;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Elements of equal shape are folded, parameters inside are literals.
    List,
    /// Rows behind VALUES; no bracket of its own.
    Rows,
    Other,
}

struct Frame {
    of: Of,
    /// Where the current element begins in what is kept.
    element: usize,
    /// The first element and the one kept last.
    first: Option<(usize, usize)>,
    last: Option<(usize, usize)>,
}

/// Memory that is used again.
#[derive(Default)]
pub(super) struct Folder {
    pub(super) kept: Vec<Token>,
    frames: Vec<Frame>,
    /// Of these, lists.
    lists: usize,
    numbers: FxHashMap<u32, u32>,
    renumber: bool,
}

impl Folder {
    /// Fills `kept`.
    pub(super) fn fold(&mut self, sql: &str, tokens: &[Token]) {
        self.kept.clear();
        self.frames.clear();
        self.lists = 0;
        self.numbers.clear();
        self.renumber = false;
        for (index, token) in tokens.iter().enumerate() {
            self.take(sql, *token, tokens.get(index + 1));
        }
        while !self.frames.is_empty() {
            self.pop(sql);
        }
        while self.kept.last().is_some_and(|token| token.is(b';')) {
            self.kept.pop();
        }
        settings::hide(sql, &mut self.kept);
    }

    fn take(&mut self, sql: &str, mut token: Token, next: Option<&Token>) {
        let listed = self.lists > 0;
        // Behind the last row.
        if self.frames.last().is_some_and(|frame| frame.of == Of::Rows) && !token.is(b',') && !token.is(b'(') {
            self.pop(sql);
        }
        match token.kind {
            Kind::Param(_) | Kind::Mark if listed => {
                self.renumber |= token.kind != Kind::Mark;
                token.kind = Kind::Literal;
            }
            Kind::Word if listed && is_constant(token.text(sql)) => token.kind = Kind::Literal,
            // Behind a dot stands a column, whatever its name.
            Kind::Word if is_boolean(token.text(sql)) && !self.kept.last().is_some_and(|last| last.is(b'.')) => {
                token.kind = Kind::Literal;
            }
            Kind::Literal | Kind::Number => {
                if self.kept.last().is_some_and(|last| last.kind == Kind::Literal) {
                    return;
                }
                if token.kind == Kind::Number {
                    self.take_sign(sql, &mut token);
                    token.kind = Kind::Literal;
                }
            }
            Kind::Punct(b'(' | b'[') => {
                let of = self.opens(sql, token, next);
                self.kept.push(token);
                self.lists += usize::from(of == Of::List);
                self.frames.push(Frame { of, element: self.kept.len(), first: None, last: None });
                return;
            }
            Kind::Punct(b')' | b']') => self.pop(sql),
            Kind::Punct(b',') => self.end_element(sql),
            Kind::Punct(b';') if self.kept.is_empty() || self.kept.last().is_some_and(|last| last.is(b';')) => return,
            _ => {}
        }
        self.kept.push(token);
        if token.is(b',') {
            let start = self.kept.len();
            if let Some(frame) = self.frames.last_mut() {
                frame.element = start;
            }
        } else if token.is_word(sql, "VALUES") && next.is_some_and(|next| next.is(b'(')) {
            self.renumber = true;
            self.frames.push(Frame { of: Of::Rows, element: self.kept.len(), first: None, last: None });
        }
    }

    /// What a bracket that comes next opens.
    fn opens(&self, sql: &str, token: Token, next: Option<&Token>) -> Of {
        let query =
            next.is_some_and(|next| ["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|word| next.is_word(sql, word)));
        let before = self.kept.last();
        let list = if token.is(b'(') {
            before.is_some_and(|before| before.is_word(sql, "IN")) && !query
        } else {
            before.is_some_and(|before| before.is_word(sql, "ARRAY"))
                || self.frames.last().is_some_and(|frame| frame.of == Of::List)
                    && before.is_some_and(|before| before.is(b'[') || before.is(b','))
        };
        if list { Of::List } else { Of::Other }
    }

    /// A sign before a number is the number's where no operand stands before it.
    fn take_sign(&mut self, sql: &str, token: &mut Token) {
        let [before @ .., sign] = &self.kept[..] else {
            return;
        };
        if sign.kind != Kind::Op || !matches!(sign.text(sql), "-" | "+") {
            return;
        }
        let operand = before.last().is_some_and(|before| match before.kind {
            Kind::Word => !is_operator_word(before.text(sql)),
            Kind::Quoted | Kind::Literal | Kind::Number | Kind::Param(_) | Kind::Mark | Kind::Punct(b')' | b']') => {
                true
            }
            Kind::Op | Kind::Punct(_) | Kind::More => false,
        });
        if !operand {
            token.space = sign.space;
            self.kept.pop();
        }
    }

    /// Drops the current element of a list if one of its shape is there.
    fn end_element(&mut self, sql: &str) {
        let end = self.kept.len();
        let Some(frame) = self.frames.last_mut().filter(|frame| frame.of != Of::Other && frame.element < end) else {
            return;
        };
        let new = (frame.element, end);
        let (Some(first), Some(last)) = (frame.first, frame.last) else {
            frame.first = Some(new);
            frame.last = Some(new);
            return;
        };
        let same = |known: (usize, usize)| equal(sql, &self.kept[known.0..known.1], &self.kept[new.0..new.1]);
        if same(last) || same(first) {
            self.kept.truncate(last.1);
        } else {
            frame.last = Some(new);
        }
    }

    /// Closes the innermost bracket, and the rows that end with it.
    fn pop(&mut self, sql: &str) {
        self.end_element(sql);
        if self.frames.pop().is_some_and(|frame| frame.of == Of::List) {
            self.lists -= 1;
        }
    }

    /// Writes the text of what is kept; returns its fingerprint, which does not depend on white space and the case of
    /// keywords and unquoted identifiers: FNV-1a, 64 bits.
    pub(super) fn render(&mut self, sql: &str, text: &mut String) -> u64 {
        text.clear();
        let mut hash = Fnv::default();
        let mut before: Option<Kind> = None;
        for token in &self.kept {
            let glued = matches!(token.kind, Kind::Punct(b')' | b']' | b',' | b';'))
                || matches!(before, None | Some(Kind::Punct(b'(' | b'[')));
            let wordy =
                |kind: Kind| matches!(kind, Kind::Word | Kind::Quoted | Kind::Literal | Kind::Param(_) | Kind::Mark);
            let apart = token.space
                || matches!(before, Some(Kind::Punct(b',' | b';')))
                || before.is_some_and(wordy) && wordy(token.kind);
            if apart && !glued {
                text.push(' ');
            }
            if before.is_some() {
                hash.add(b' ');
            }
            let start = text.len();
            match token.kind {
                Kind::Literal | Kind::Number => text.push('?'),
                Kind::More => text.push_str("..."),
                Kind::Param(number) => {
                    let next = self.numbers.len() as u32 + 1;
                    let number = if self.renumber { *self.numbers.entry(number).or_insert(next) } else { number };
                    text.push_str(token.text(sql).get(..1).unwrap_or("$"));
                    text.push_str(itoa::Buffer::new().format(number));
                }
                _ => text.push_str(token.text(sql)),
            }
            let folds = token.kind == Kind::Word;
            for byte in &text.as_bytes()[start..] {
                hash.add(if folds { byte.to_ascii_lowercase() } else { *byte });
            }
            before = Some(token.kind);
        }
        hash.0
    }
}

/// Fowler, Noll and Vo's hash, 1a, 64 bits.
pub(super) struct Fnv(pub(super) u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(super) const fn add(&mut self, byte: u8) {
        self.0 = (self.0 ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
    }
}

fn is_boolean(word: &str) -> bool {
    ["TRUE", "FALSE"].iter().any(|constant| word.eq_ignore_ascii_case(constant))
}

fn is_constant(word: &str) -> bool {
    is_boolean(word) || ["NULL", "DEFAULT"].iter().any(|constant| word.eq_ignore_ascii_case(constant))
}

/// An expression begins behind this keyword.
fn is_operator_word(word: &str) -> bool {
    const WORDS: [&str; 26] = [
        "ALL",
        "AND",
        "AS",
        "BETWEEN",
        "BY",
        "CASE",
        "DEFAULT",
        "DISTINCT",
        "ELSE",
        "FROM",
        "ILIKE",
        "IN",
        "IS",
        "LIKE",
        "LIMIT",
        "NOT",
        "OFFSET",
        "ON",
        "OR",
        "RETURNING",
        "SELECT",
        "SET",
        "THEN",
        "TO",
        "WHEN",
        "WHERE",
    ];
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// The same shape: equal but for literals, parameters and constants.
fn equal(sql: &str, a: &[Token], b: &[Token]) -> bool {
    let value = |token: &Token| {
        matches!(token.kind, Kind::Literal | Kind::Param(_) | Kind::Mark)
            || token.kind == Kind::Word && is_constant(token.text(sql))
    };
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            value(a) && value(b)
                || a.kind == b.kind
                    && match a.kind {
                        Kind::Word => a.text(sql).eq_ignore_ascii_case(b.text(sql)),
                        _ => a.text(sql) == b.text(sql),
                    }
        })
}
