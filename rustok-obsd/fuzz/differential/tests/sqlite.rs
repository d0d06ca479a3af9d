//! SQLite itself: a text that it prepares although none of the marks names anything has them in literals, in comments
//! and in aliases.

use rusqlite::Connection;
use rustok_obsd::statement::Dialect;
use rustok_obsd_differential::{Flavour, Generator, leaks};

const SQLITE: Flavour = Flavour {
    strings: &["'%'", "\"%\"", "x'%'", "upper('%')", "\"%\" || 'b'", "CAST('%' AS text)", "\"t\".\"a\" || \"%\""],
    comments: &["-- %\n", "/* % */", "/*%*/"],
    others: &[
        "a",
        "[it's]",
        "`it's`",
        "t.\"it's\"",
        "\"a\"",
        "`a`",
        "[a]",
        "?",
        "?1",
        ":n",
        "@n",
        "$n",
        "t.a",
        "\"t\".\"a\"",
        "NULL",
        "a ->> '$.a'",
    ],
};

/// What its program holds: the values of constants.
fn constants(connection: &Connection, sql: &str) -> rusqlite::Result<String> {
    let mut explained = connection.prepare(&format!("EXPLAIN {sql}"))?;
    let mut rows = explained.raw_query();
    let mut held = String::new();
    while let Some(row) = rows.next()? {
        let opcode: String = row.get("opcode")?;
        if matches!(&*opcode, "String8" | "Real" | "Int64" | "Integer") {
            held.push_str(&format!("{:?} {:?}\n", row.get_ref("p4")?, row.get_ref("p1")?));
            if let rusqlite::types::ValueRef::Text(text) = row.get_ref("p4")? {
                held.push_str(&String::from_utf8_lossy(text));
                held.push('\n');
            }
        }
    }
    Ok(held)
}

#[test]
fn what_sqlite_takes_for_a_literal_is_hidden() {
    let connection = Connection::open_in_memory().expect("SQLite");
    connection.execute_batch("CREATE TABLE t (a, b, [it's]); CREATE TABLE cake (id, name)").expect("a table");
    let mut generator = Generator::new(&SQLITE);
    let (mut read, mut values, mut aliases) = (0, 0, 0);
    while let Some(marked) = generator.next() {
        let sql = &marked.sql;
        let Ok(prepared) = connection.prepare(sql) else { continue };
        // What the writer named: results and parameters.
        let parameters = (1..=prepared.parameter_count()).filter_map(|index| prepared.parameter_name(index));
        let names: Vec<String> = prepared.column_names().into_iter().chain(parameters).map(str::to_owned).collect();
        drop(prepared);
        read += 1;
        let Ok(held) = constants(&connection, sql) else { continue };
        let (held, others): (Vec<_>, Vec<_>) =
            marked.marks.iter().cloned().partition(|mark| held.contains(mark.as_str()));
        values += held.len();
        for dialect in [Dialect::SQLITE, Dialect::SQLITE.or(Dialect::POSTGRES), Dialect::ANY] {
            let leaks_of_values = leaks(sql, dialect, &held);
            assert!(leaks_of_values.is_empty(), "{leaks_of_values:?} of {sql:?} by {dialect:?}");
            // What is no value is in a comment, or a name that the writer gave.
            let mut others = leaks(sql, dialect, &others);
            let before = others.len();
            others.retain(|mark| !names.iter().any(|name| name.contains(mark.as_str())));
            aliases += before - others.len();
            assert!(others.is_empty(), "{others:?} of {sql:?} by {dialect:?}: no value, and no name");
        }
    }
    println!("sqlite: {read} texts, {values} values hidden, {aliases} aliases shown");
    assert!(read > 1000 && values > 1000);
}
