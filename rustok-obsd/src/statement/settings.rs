//! What settings are set to: a value even where it is a bare word.
//!
//! Reads: the tokens that are kept. Yields: the same, with one literal for each value, or list of values. Costs: a look
//! at each statement's beginning.

use super::token::{Kind, Token};
use std::ops::Range;

/// Hides the values of SET, PRAGMA, and of the SET that ALTER and CREATE FUNCTION may have.
pub(super) fn hide(sql: &str, kept: &mut Vec<Token>) {
    let mut start = 0;
    while start < kept.len() {
        let mut end = kept[start..].iter().position(|token| token.is(b';')).map_or(kept.len(), |at| start + at);
        if let Some(value) = value(sql, &kept[start..end]).filter(|value| !value.is_empty()) {
            let value = start + value.start..start + value.end;
            let literal = Token { kind: Kind::Literal, ..kept[value.start] };
            end -= value.len() - 1;
            kept.splice(value, [literal]);
        }
        start = end + 1;
    }
}

fn value(sql: &str, statement: &[Token]) -> Option<Range<usize>> {
    let first = statement.first()?;
    let second = statement.get(1);
    if first.is_word(sql, "SET") {
        return behind_set(sql, statement, 1);
    }
    if first.is_word(sql, "PRAGMA") {
        let at = statement.iter().position(|token| is_assignment(sql, token) || token.is(b'('))?;
        let bracket = usize::from(statement.last().is_some_and(|last| statement[at].is(b'(') && last.is(b')')));
        return Some(at + 1..statement.len() - bracket);
    }
    const ALTERED: [&str; 8] = ["ROLE", "USER", "GROUP", "DATABASE", "SYSTEM", "FUNCTION", "PROCEDURE", "ROUTINE"];
    let altered = first.is_word(sql, "ALTER") && second.is_some_and(|second| second.is_any(sql, &ALTERED));
    let created = first.is_word(sql, "CREATE")
        && statement.iter().take(4).any(|token| token.is_any(sql, &["FUNCTION", "PROCEDURE"]));
    if !altered && !created {
        return None;
    }
    let set = statement.iter().position(|token| token.is_word(sql, "SET"))?;
    let end = path(sql, statement, set + 1);
    let set_to = statement.get(end).is_some_and(|token| is_assignment(sql, token));
    let zone = statement.get(set + 1..end).is_some_and(|path| path.iter().any(|word| word.is_word(sql, "ZONE")));
    (set_to || zone).then_some(end + usize::from(set_to)..statement.len())
}

/// The value of SET, whose name begins at `at`.
fn behind_set(sql: &str, statement: &[Token], mut at: usize) -> Option<Range<usize>> {
    const SCOPES: [&str; 5] = ["SESSION", "LOCAL", "GLOBAL", "PERSIST", "PERSIST_ONLY"];
    while statement.get(at).is_some_and(|token| token.is_any(sql, &SCOPES)) {
        at += 1;
    }
    // These have no value: ISOLATION LEVEL SERIALIZABLE, ALL DEFERRED.
    let valueless = statement.get(at)?.is_any(sql, &["TRANSACTION", "CHARACTERISTICS", "CONSTRAINTS"]);
    let named = statement
        .get(at + 1)
        .is_some_and(|next| matches!(next.kind, Kind::Word | Kind::Quoted) && !is_assignment(sql, next));
    if valueless && named {
        return None;
    }
    let assigned = statement[at..].iter().position(|token| is_assignment(sql, token));
    let value = assigned.map_or_else(|| path(sql, statement, at), |assigned| at + assigned + 1);
    Some(value..statement.len())
}

fn is_assignment(sql: &str, token: &Token) -> bool {
    token.is_word(sql, "TO")
        || token.kind == Kind::Op && (token.text(sql).starts_with('=') || token.text(sql).starts_with(":="))
}

/// Where a name that begins at `at` ends: `a`, `a.b.c`, `@@a.b`, TIME ZONE.
fn path(sql: &str, statement: &[Token], mut at: usize) -> usize {
    while statement.get(at).is_some_and(|token| token.kind == Kind::Op) {
        at += 1;
    }
    if statement.get(at).is_some_and(|token| token.is_word(sql, "TIME"))
        && statement.get(at + 1).is_some_and(|next| next.is_word(sql, "ZONE"))
    {
        return at + 2;
    }
    at += 1;
    while statement.get(at).is_some_and(|token| token.is(b'.')) {
        at += 2;
    }
    at.min(statement.len())
}
