//! PostgreSQL's own scanner (libpg_query): what it calls a constant or a comment is hidden.

use pg_query::protobuf::Token;
use rustok_obsd::statement::Dialect;
use rustok_obsd_differential::{Flavour, Generator, leaks};

const POSTGRES: Flavour = Flavour {
    strings: &[
        "'%'",
        "E'%'",
        "e'%'",
        "$$%$$",
        "$a$%$a$",
        "U&'%'",
        "N'%'",
        "B'%'",
        "x'%'",
        "'a'\n'%'",
        "E'a' -- b\n '%'",
        "date '%'",
    ],
    comments: &["-- %\n", "/* % */", "/* /* % */ */", "/*%*/"],
    others: &[
        "a",
        "\"b\"",
        "\"it's\"",
        "U&\"it's\"",
        "a`b",
        "a->>$1",
        "$1",
        "s.\"t\"",
        "f(a)",
        "a::text",
        "a[1]",
        "NULL",
        "`",
        "a ? b",
        "a @> b",
    ],
};

/// The text without constants and comments; `None` where the scanner refuses it. Also where the first plain string is.
fn shown(sql: &str) -> Option<(String, Option<usize>)> {
    let tokens = pg_query::scan(sql).ok()?.tokens;
    let (mut shown, mut plain) = (String::new(), None);
    for token in tokens {
        let text = sql.get(token.start as usize..token.end as usize)?;
        match token.token() {
            Token::Sconst if text.starts_with('\'') => plain = plain.or(Some(token.start as usize)),
            Token::Sconst | Token::Usconst | Token::Bconst | Token::Xconst | Token::Fconst | Token::Iconst => {}
            Token::SqlComment | Token::CComment => {}
            _ => {
                shown.push_str(text);
                shown.push(' ');
            }
        }
    }
    Some((shown, plain))
}

#[test]
fn what_postgres_takes_for_a_literal_is_hidden() {
    let mut generator = Generator::new(&POSTGRES);
    let (mut read, mut read_off, mut hidden_marks) = (0, 0, 0);
    while let Some(marked) = generator.next() {
        let sql = &marked.sql;
        if let Some((shown, _)) = shown(sql) {
            let hidden: Vec<_> = marked.marks.iter().filter(|mark| !shown.contains(mark.as_str())).cloned().collect();
            for dialect in [Dialect::POSTGRES_STANDARD, Dialect::POSTGRES, Dialect::ANY] {
                let leaks = leaks(sql, dialect, &hidden);
                assert!(leaks.is_empty(), "{leaks:?} of {sql:?} by {dialect:?}");
            }
            read += 1;
            hidden_marks += hidden.len();
        }
        // With standard_conforming_strings off each plain string is one with escapes.
        let mut off = sql.clone();
        let end = loop {
            match shown(&off) {
                Some((_, Some(plain))) => off.insert_str(plain, " E"),
                Some((shown, None)) => break Some(shown),
                None => break None,
            }
        };
        // It refuses U&'…'.
        if let Some(shown) = end.filter(|_| !sql.contains("U&'")) {
            let hidden: Vec<_> = marked.marks.iter().filter(|mark| !shown.contains(mark.as_str())).cloned().collect();
            for dialect in [Dialect::POSTGRES_ESCAPES, Dialect::POSTGRES, Dialect::ANY] {
                let leaks = leaks(sql, dialect, &hidden);
                assert!(leaks.is_empty(), "{leaks:?} of {sql:?} by {dialect:?} with standard_conforming_strings off");
            }
            read_off += 1;
        }
    }
    println!("postgres: {read} texts, {read_off} with standard_conforming_strings off, {hidden_marks} marks hidden");
    assert!(read > 1000 && read_off > 1000);
}
