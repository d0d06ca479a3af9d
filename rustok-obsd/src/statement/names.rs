//! Which `"…"` of SQLite are names for sure.
//!
//! Reads: tokens. Yields: the same, with a literal for each `"…"` that may be a string: SQLite takes one for a string
//! where an expression is allowed and no column has this name. Costs: one pass.
//!
//! For sure is a name what a dot stands beside, what is read from or written to, what comes behind AS, and a column in
//! the list of INSERT or left of an assignment of UPDATE.

use super::token::{Kind, Token};

/// Takes what may be a string for one. `parted`: from here on some tokens may be missing.
pub(super) fn hide_strings(sql: &str, parted: usize, tokens: &mut [Token]) {
    let mut scan = Scan { sql, parted, ..Scan::default() };
    for at in 0..tokens.len() {
        let (before, rest) = tokens.split_at(at);
        let sure = scan.step(before, rest[0], rest.get(1));
        let token = &mut tokens[at];
        if token.kind == Kind::Quoted && token.text(sql).starts_with('"') && !sure {
            token.kind = Kind::Literal;
        }
    }
}

#[derive(Default)]
struct Scan<'t> {
    sql: &'t str,
    parted: usize,
    /// The statement is ATTACH, which has expressions on both sides of AS.
    attach: bool,
    depth: usize,
    /// The table's name behind INSERT INTO is being read.
    into: bool,
    /// In the list of columns of INSERT.
    columns: bool,
    /// In the assignments of UPDATE that lie at this depth.
    assignments: Option<usize>,
}

impl Scan<'_> {
    /// Looks at a token; returns whether it is a name for sure if it is a quoted one.
    fn step(&mut self, before: &[Token], token: Token, next: Option<&Token>) -> bool {
        let sql = self.sql;
        let previous = before.last();
        match token.kind {
            Kind::Quoted => return self.is_name(before, token, next),
            Kind::Punct(b'(') => {
                self.columns = std::mem::take(&mut self.into);
                self.depth += 1;
            }
            Kind::Punct(b')') => {
                self.columns = false;
                self.depth = self.depth.saturating_sub(1);
                self.assignments = self.assignments.filter(|depth| *depth <= self.depth);
            }
            Kind::Punct(b';') => *self = Self { sql, parted: self.parted, ..Self::default() },
            Kind::Word => {
                self.attach |= token.is_word(sql, "ATTACH");
                if token.is_word(sql, "INTO") {
                    const INSERTS: [&str; 7] = ["INSERT", "REPLACE", "ROLLBACK", "ABORT", "FAIL", "IGNORE", "OR"];
                    self.into = previous.is_some_and(|previous| previous.is_any(sql, &INSERTS));
                } else if token.is_any(sql, &["VALUES", "SELECT", "DEFAULT", "WITH"]) {
                    self.into = false;
                } else if token.is_word(sql, "SET") {
                    self.assignments = Some(self.depth);
                } else if token.is_any(sql, &["FROM", "WHERE", "RETURNING", "ORDER", "LIMIT"])
                    && self.assignments == Some(self.depth)
                {
                    self.assignments = None;
                }
            }
            _ => {}
        }
        false
    }

    fn is_name(&self, before: &[Token], token: Token, next: Option<&Token>) -> bool {
        let sql = self.sql;
        let [.., previous] = before else { return false };
        if previous.is(b'.') || next.is_some_and(|next| next.is(b'.')) {
            return true;
        }
        if token.start as usize >= self.parted {
            return false;
        }
        if self.columns {
            return true;
        }
        let assigned = next.is_some_and(|next| next.kind == Kind::Op && next.text(sql) == "=");
        if self.assignments == Some(self.depth) && assigned && (previous.is(b',') || previous.is_word(sql, "SET")) {
            return true;
        }
        let behind = |word| before.len() > 1 && before[before.len() - 2].is_word(sql, word);
        match previous.text(sql) {
            _ if previous.kind != Kind::Word => false,
            word if word.eq_ignore_ascii_case("FROM") => !behind("DISTINCT"),
            word if word.eq_ignore_ascii_case("INTO") => self.into,
            word if word.eq_ignore_ascii_case("AS") => !self.attach,
            _ => previous.is_any(sql, &["JOIN", "UPDATE", "TABLE", "EXISTS"]),
        }
    }
}
