use super::{Dialect, Knowledge, Statement, StatementCache};
use proptest::prelude::*;
use std::sync::Arc;

const PG: Dialect = Dialect::POSTGRES;

fn of(sql: &str) -> Statement {
    Statement::analyse(sql.as_bytes(), false, PG)
}

#[test]
fn literals_go_and_parameters_stay() {
    let cases = [
        ("SELECT 1", "SELECT ?"),
        ("select  id,name\n\tfrom shop.products where id=$1 ;", "select id, name from shop.products where id=$1"),
        ("SELECT 'it''s', E'a\\'b', U&'d\\0061t', B'01', x'1F', N'x' -- 'c'\n", "SELECT ?, ?, ?, ?, ?, ?"),
        ("SELECT $$a'b$$, $t$ $$ $t$, $1", "SELECT ?, ?, $1"),
        ("SELECT 1_000, 0x1F, 1e5, 1.5e-3, .5, 3., -4, 5-6", "SELECT ?, ?, ?, ?, ?, ?, ?, ?-?"),
        ("SELECT a /* x /* 'y' */ z */ FROM b", "SELECT a FROM b"),
        ("SELECT a/**/FROM/**/b", "SELECT a FROM b"),
        ("SELECT 'a'\n  'b'", "SELECT ?"),
        ("SELECT E'a' -- c\n 'b\\'c'", "SELECT ?"),
        ("SELECT x::int, '5'::int[], y->>'k', \"a\"\"b\"", "SELECT x::int, ?::int[], y->>?, \"a\"\"b\""),
        ("SELECT a[1], ARRAY[1,2,3], ARRAY[[1,2],[3,4]]", "SELECT a[?], ARRAY[?], ARRAY[[?]]"),
        ("SELECT * FROM t WHERE a=-1 AND b = +2", "SELECT * FROM t WHERE a=? AND b = ?"),
        (
            "SELECT * FROM t WHERE a LIKE $1 ESCAPE '\\' AND b = 'c'",
            "SELECT * FROM t WHERE a LIKE $1 ESCAPE ? AND b = ?",
        ),
        ("SELECT 'a\\' OR x = 'secret' --'", "SELECT ? ..."),
        (
            "SELECT * FROM t WHERE id IN ($1, $2,$3) AND x = $4 LIMIT 5",
            "SELECT * FROM t WHERE id IN (?) AND x = $1 LIMIT ?",
        ),
        ("SELECT * FROM t WHERE id IN ($1) AND x = $2 LIMIT 7", "SELECT * FROM t WHERE id IN (?) AND x = $1 LIMIT ?"),
        ("SELECT * FROM t WHERE id IN (1, -2, NULL)", "SELECT * FROM t WHERE id IN (?)"),
        ("SELECT * FROM t WHERE id NOT IN ($1::uuid,$2::uuid)", "SELECT * FROM t WHERE id NOT IN (?::uuid)"),
        ("SELECT * FROM t WHERE (a,b) IN (($1,$2),($3,$4))", "SELECT * FROM t WHERE (a, b) IN ((?, ?))"),
        (
            "SELECT * FROM t WHERE k IN (CAST($1 AS kind), CAST($2 AS kind))",
            "SELECT * FROM t WHERE k IN (CAST(? AS kind))",
        ),
        ("SELECT * FROM t WHERE id IN (SELECT 1, 1 FROM u)", "SELECT * FROM t WHERE id IN (SELECT ?, ? FROM u)"),
        (
            "INSERT INTO t (a,b) VALUES ($1, $2), ($3, $4) ON CONFLICT DO UPDATE SET a = $5",
            "INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT DO UPDATE SET a = $3",
        ),
        (
            "INSERT INTO t (a,b) VALUES ($1, $2) ON CONFLICT DO UPDATE SET a = $3",
            "INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT DO UPDATE SET a = $3",
        ),
        (
            "INSERT INTO t VALUES (1,'a',now()),(2,'b',now()) RETURNING id",
            "INSERT INTO t VALUES (?, ?, now()) RETURNING id",
        ),
        (
            "SELECT * FROM (VALUES (1,'a'),(2,'b')) v(x,y) WHERE x = 3",
            "SELECT * FROM (VALUES (?, ?)) v(x, y) WHERE x = ?",
        ),
        ("SET search_path TO tenant_42, public", "SET search_path TO ?"),
        ("SET LOCAL app.tenant = acme; SELECT 1", "SET LOCAL app.tenant = ?; SELECT ?"),
        ("SET SESSION AUTHORIZATION bob", "SET SESSION AUTHORIZATION ?"),
        ("ALTER ROLE bob PASSWORD 'hunter2'", "ALTER ROLE bob PASSWORD ?"),
        ("SELECT data ? 'k', a @> '{}', b #- '{a}'", "SELECT data ? ?, a @> ?, b #- ?"),
        ("SELECT 'unterminated", "SELECT ? ..."),
        ("SELECT \"unterminated", "SELECT ? ..."),
        ("SELECT $x$unterminated", "SELECT ? ..."),
        ("SELECT 'O'Brien' AND b", "SELECT ? ..."),
        ("SELECT 'a' secret', x", "SELECT ? ..."),
        ("SELECT 1 /* unterminated", "SELECT ?"),
        ("", ""),
        (" ;; ", ""),
        ("é", "é"),
    ];
    for (sql, want) in cases {
        assert_eq!(&*of(sql).text, want, "{sql}");
    }
}

#[test]
fn a_cut_text_tells_no_part_of_a_word_or_literal() {
    let cases = [
        ("SELECT * FROM t WHERE name = 'bo", "SELECT * FROM t WHERE name = ? ..."),
        ("SELECT * FROM produ", "SELECT * FROM ..."),
        ("SELECT * FROM t WHERE a = $1", "SELECT * FROM t WHERE a = ..."),
        ("SELECT * FROM t WHERE a IN ($1, $2, $", "SELECT * FROM t WHERE a IN (?, ..."),
        ("SELECT * FROM t WHERE a = $ta", "SELECT * FROM t WHERE a = ..."),
        ("SELECT * FROM t WHERE a = $tag$bo", "SELECT * FROM t WHERE a = ? ..."),
        ("SELECT * FROM t WHERE a = 12", "SELECT * FROM t WHERE a = ? ..."),
        ("INSERT INTO t VALUES ($1,$2),($3,", "INSERT INTO t VALUES ($1, $2), ($3, ..."),
        ("SELECT * FROM \"pro", "SELECT * FROM ? ..."),
    ];
    for (sql, want) in cases {
        let statement = Statement::analyse(sql.as_bytes(), true, PG);
        assert_eq!(&*statement.text, want, "{sql}");
        assert_eq!(statement.knowledge, Knowledge::Truncated);
    }
    let cut = Statement::analyse("SELECT é".as_bytes().split_last().expect("bytes").1, true, PG);
    assert_eq!(&*cut.text, "SELECT ...");
}

#[test]
fn operations_and_tables() {
    // Text, summary, operation, collection, query type.
    let cases = [
        (
            "SELECT \"products\".\"id\" FROM \"shop\".\"products\" WHERE id = $1",
            "SELECT shop.products",
            "SELECT",
            "shop.products",
            "select",
        ),
        ("SELECT * FROM orders o JOIN customers c ON o.id = c.id", "SELECT orders customers", "SELECT", "", "select"),
        ("SELECT * FROM orders, customers c", "SELECT orders customers", "SELECT", "", "select"),
        (
            "SELECT * FROM a LEFT JOIN b USING (id) , c WHERE x IN (SELECT y FROM d)",
            "SELECT a b c SELECT d",
            "SELECT",
            "",
            "select",
        ),
        (
            "SELECT x FROM (SELECT * FROM orders o JOIN customers c ON 1=1) t",
            "SELECT SELECT orders customers",
            "SELECT",
            "",
            "select",
        ),
        ("SELECT * FROM \"song list\"", "SELECT \"song list\"", "SELECT", "\"song list\"", "select"),
        ("SELECT 1", "SELECT", "SELECT", "", "select"),
        ("(SELECT a FROM t) UNION ALL (SELECT a FROM t)", "SELECT t SELECT t", "", "t", "other"),
        ("SELECT a FROM t UNION SELECT a FROM u ORDER BY 1, 2", "SELECT t SELECT u", "SELECT", "", "select"),
        ("SELECT extract(year FROM created) AS from, x FROM t", "SELECT t", "SELECT", "t", "select"),
        ("SELECT a IS DISTINCT FROM b FROM t FOR UPDATE OF t SKIP LOCKED", "SELECT t", "SELECT", "t", "select"),
        (
            "SELECT * FROM generate_series(1, 2) g, LATERAL (SELECT * FROM t) x",
            "SELECT SELECT t",
            "SELECT",
            "t",
            "select",
        ),
        ("SELECT t.update, t.from FROM ONLY t ORDER BY t.delete, u", "SELECT t", "SELECT", "t", "select"),
        ("SELECT * FROM (a JOIN b ON a.i = b.i)", "SELECT a b", "SELECT", "", "select"),
        ("WITH x AS (SELECT * FROM a) SELECT * FROM x JOIN b ON 1=1", "SELECT a SELECT b", "SELECT", "", "select"),
        (
            "WITH RECURSIVE x(n) AS MATERIALIZED (SELECT 1), y AS (SELECT * FROM x) SELECT * FROM y",
            "SELECT SELECT SELECT",
            "SELECT",
            "",
            "select",
        ),
        (
            "WITH d AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM d",
            "DELETE a INSERT b SELECT",
            "INSERT",
            "b",
            "insert",
        ),
        (
            "INSERT INTO shop.orders (id, update) VALUES ($1, $2) RETURNING id",
            "INSERT shop.orders",
            "INSERT",
            "shop.orders",
            "insert",
        ),
        (
            "INSERT INTO a SELECT * FROM b ON CONFLICT (id) DO UPDATE SET x = 1",
            "INSERT a SELECT b",
            "INSERT",
            "a",
            "insert",
        ),
        (
            "INSERT INTO a WITH c AS (SELECT 1 FROM d) SELECT * FROM c",
            "INSERT a SELECT d SELECT",
            "INSERT",
            "a",
            "insert",
        ),
        ("UPDATE ONLY a SET x = b.y FROM b WHERE a.i = b.i", "UPDATE a b", "UPDATE", "a", "update"),
        ("UPDATE a SET x = (SELECT max(y) FROM b), z = 1", "UPDATE a SELECT b", "UPDATE", "a", "update"),
        ("DELETE FROM a USING b WHERE a.i = b.i", "DELETE a b", "DELETE", "a", "delete"),
        ("DELETE FROM a WHERE i IN (1,2)", "DELETE a", "DELETE", "a", "delete"),
        (
            "MERGE INTO a USING b ON a.i = b.i WHEN MATCHED THEN UPDATE SET x = 1 WHEN NOT MATCHED THEN INSERT VALUES (1)",
            "MERGE a b",
            "MERGE",
            "a",
            "merge",
        ),
        ("COPY shop.t (a, b) FROM STDIN", "COPY shop.t", "COPY", "shop.t", "copy"),
        ("COPY (SELECT * FROM t) TO STDOUT", "COPY SELECT t", "COPY", "t", "copy"),
        ("TRUNCATE TABLE a, ONLY b", "TRUNCATE a b", "TRUNCATE", "", "truncate"),
        ("TRUNCATE a", "TRUNCATE a", "TRUNCATE", "a", "truncate"),
        (
            "CREATE TABLE IF NOT EXISTS shop.t (id int REFERENCES u, \"from\" text)",
            "CREATE TABLE shop.t",
            "CREATE TABLE",
            "shop.t",
            "create",
        ),
        ("CREATE TEMP TABLE t AS SELECT * FROM u", "CREATE TABLE t SELECT u", "CREATE TABLE", "t", "create"),
        ("CREATE UNIQUE INDEX CONCURRENTLY i ON shop.t (a)", "CREATE INDEX shop.t", "CREATE INDEX", "shop.t", "create"),
        ("CREATE OR REPLACE VIEW v AS SELECT * FROM t", "CREATE VIEW v SELECT t", "CREATE VIEW", "v", "create"),
        (
            "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
            "REFRESH MATERIALIZED VIEW v",
            "REFRESH MATERIALIZED VIEW",
            "v",
            "other",
        ),
        ("CREATE USER bob PASSWORD 'x'", "CREATE USER", "CREATE USER", "", "create"),
        ("ALTER TABLE a ADD COLUMN b int", "ALTER TABLE a", "ALTER TABLE", "a", "alter"),
        ("DROP TABLE IF EXISTS a", "DROP TABLE a", "DROP TABLE", "a", "drop"),
        ("BEGIN", "BEGIN", "BEGIN", "", "begin"),
        ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "START TRANSACTION", "START TRANSACTION", "", "begin"),
        ("COMMIT", "COMMIT", "COMMIT", "", "commit"),
        ("rollback", "ROLLBACK", "ROLLBACK", "", "rollback"),
        ("ROLLBACK TO SAVEPOINT s1", "ROLLBACK TO", "ROLLBACK TO", "", "rollback_to"),
        ("SAVEPOINT s1", "SAVEPOINT", "SAVEPOINT", "", "savepoint"),
        ("RELEASE SAVEPOINT s1", "RELEASE", "RELEASE", "", "release"),
        ("SET search_path TO x", "SET", "SET", "", "set"),
        ("CALL shop.refresh(1)", "CALL shop.refresh", "CALL", "", "call"),
        ("EXPLAIN (ANALYZE, BUFFERS) UPDATE t SET x = 1", "EXPLAIN UPDATE t", "EXPLAIN", "t", "explain"),
        ("EXPLAIN ANALYZE SELECT * FROM t", "EXPLAIN SELECT t", "EXPLAIN", "t", "explain"),
        ("DECLARE c CURSOR FOR SELECT * FROM t", "DECLARE SELECT t", "DECLARE", "t", "other"),
        ("DO $$ BEGIN DELETE FROM t; END $$", "DO", "DO", "", "other"),
        ("LISTEN events", "LISTEN", "LISTEN", "", "listen"),
        ("BEGIN; UPDATE a SET x = 1; COMMIT", "BATCH BEGIN UPDATE a COMMIT", "BATCH", "", "batch"),
        ("DELETE FROM a; DELETE FROM a;", "BATCH DELETE a", "BATCH DELETE", "a", "batch"),
        ("TABLE t", "TABLE t", "TABLE", "t", "select"),
        ("VALUES (1), (2)", "VALUES", "VALUES", "", "select"),
        ("nonsense 'x' FROM t", "", "", "", "other"),
        ("", "", "", "", "other"),
    ];
    for (sql, summary, operation, collection, query_type) in cases {
        let statement = of(sql);
        let told = statement.collection.as_deref().unwrap_or("");
        let got = (&*statement.summary, &*statement.operation, told, statement.query_type());
        assert_eq!(got, (summary, operation, collection, query_type), "{sql}");
    }
}

#[test]
fn a_summary_is_cut_between_names() {
    let tables: Vec<_> = (0..60).map(|number| format!("table_{number}")).collect();
    let statement = of(&format!("SELECT * FROM {}", tables.join(", ")));
    assert!(statement.summary.len() <= 255 && statement.summary.len() > 240, "{}", statement.summary);
    assert!(statement.summary.split(' ').skip(1).all(|name| tables.iter().any(|table| table == name)));
    let long = "x".repeat(300);
    assert_eq!(&*of(&format!("SELECT * FROM {long}, b")).summary, "SELECT");
}

#[test]
fn the_fingerprint_is_of_what_is_asked() {
    let same = [
        "SELECT a, b FROM t WHERE id IN ($1, $2) AND c = $3",
        "select a,b from T where id in ($1) and C=$2",
        "SELECT a , b /* c */ FROM t -- d\n WHERE id IN ( 1,2,3 )\tAND c = $1;",
    ];
    let first = of(same[0]).fingerprint;
    for sql in same {
        assert_eq!(of(sql).fingerprint, first, "{sql}");
    }
    for other in
        ["SELECT a, b FROM t WHERE id IN ($1) AND d = $2", "SELECT a, b FROM \"T\" WHERE id IN ($1) AND c = $2"]
    {
        assert_ne!(of(other).fingerprint, first, "{other}");
    }
    // The same in every build, on every machine.
    assert_eq!(of("SELECT 1").fingerprint, fnv("select ?"));
    assert_ne!(Statement::unknown().fingerprint, Statement::opaque().fingerprint);
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn the_cache_is_bounded_and_interns() {
    let mut cache = StatementCache::new(4, 8000);
    let a = cache.get(b"SELECT * FROM t WHERE id = 1", false, PG);
    let b = cache.get(b"SELECT * FROM t WHERE id = 2", false, PG);
    assert!(Arc::ptr_eq(&a, &b));
    assert!(Arc::ptr_eq(&a, &cache.get(b"SELECT * FROM t WHERE id = 1", false, PG)));
    assert_eq!(cache.get(b"SELECT * FROM t WHERE id = 1", true, PG).knowledge, Knowledge::Truncated);
    assert_eq!((cache.stats().hits, cache.stats().misses, cache.stats().evictions), (1, 3, 0));
    for number in 0..100 {
        let sql = format!("SELECT {number} FROM t{number}");
        assert_eq!(*cache.get(sql.as_bytes(), false, PG).summary, *format!("SELECT t{number}"));
        // What is asked for all the time stays.
        cache.get(b"SELECT * FROM t WHERE id = 1", false, PG);
        assert!(cache.len() <= 4);
    }
    assert_eq!(cache.stats().hits, 101);
    assert!(cache.stats().evictions >= 95);
    assert_eq!(cache.get(&[b'x'; 5000], false, PG).knowledge, Knowledge::Whole);
    assert!(cache.len() <= 4 && !cache.is_empty());
}

#[test]
fn bytes_are_bounded_while_texts_are_in_use_and_come_back_afterwards() {
    let mut cache = StatementCache::new(StatementCache::ENTRIES, 100_000);
    let text = |number: usize| format!("SELECT a{number} FROM t WHERE b = '{}' AND {}", number, "c AND ".repeat(500));
    let held: Vec<_> = (0..200).map(|number| cache.get(text(number).as_bytes(), false, PG)).collect();
    assert!(cache.bytes() <= 100_000, "{}", cache.bytes());
    assert!(cache.stats().shortened > 100 && held[199].text.len() < 200, "{:?}", cache.stats());
    let whole = Statement::analyse(text(199).as_bytes(), false, PG);
    assert_eq!((held[199].fingerprint, &held[199].summary), (whole.fingerprint, &whole.summary));
    drop(held);
    cache.sweep();
    assert_eq!(cache.get(text(1000).as_bytes(), false, PG).text.len(), whole.text.len() + 1);
    // What is only cached gives way by itself.
    let before = cache.stats().shortened;
    (0..200).for_each(|number| drop(cache.get(text(number).as_bytes(), false, PG)));
    assert!(cache.bytes() <= 100_000 && cache.stats().shortened == before, "{:?}", cache.stats());
}

#[test]
fn names_are_short_enough_for_labels_and_the_fingerprint_is_that_of_the_whole() {
    let sql = format!("SELECT * FROM {}", "é".repeat(5000));
    let (short, whole) =
        (StatementCache::default().get(sql.as_bytes(), false, PG), Statement::analyse(sql.as_bytes(), false, PG));
    assert_eq!(short.fingerprint, whole.fingerprint);
    assert!(short.summary.len() <= 260 && short.collection.as_ref().is_none_or(|name| name.len() <= 132), "{short:?}");
}

/// A literal that can be told from everything else, in each way of writing one.
fn literal() -> impl Strategy<Value = String> {
    let marked = "[0-9a-z '\\\\\n$\"-]{0,8}";
    prop_oneof![
        (100_000..999_999u32).prop_map(|number| number.to_string()),
        (100_000..999_999u32).prop_map(|number| format!("-{number}.5e-{number}")),
        (100_000..999_999u32).prop_map(|number| format!("0x{number}")),
        marked.prop_map(|text| format!("'zqz{}zqz'", text.replace('\'', "''").replace('\\', ""))),
        marked.prop_map(|text| format!("E'zqz{}zqz'", text.replace('\\', "\\\\").replace('\'', "\\'"))),
        marked.prop_map(|text| format!("'zqz{}'", text.replace('\'', ""))),
        marked.prop_map(|text| format!("$q$zqz{}zqz$q$", text.replace('$', ""))),
        "[0-9a-f]{0,6}".prop_map(|text| format!("x'zqz{text}'")),
        "[a-z]{0,6}".prop_map(|text| format!("U&'zqz\\0061{text}zqz'")),
    ]
}

fn dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(&[Dialect::POSTGRES, Dialect::MYSQL, Dialect::SQLITE, Dialect::ANY][..])
}

proptest! {
    #[test]
    fn no_literal_survives(
        literals in prop::collection::vec(literal(), 1..8),
        shape in 0..6usize,
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let list = literals.join(", ");
        let one = &literals[0];
        let sql = match shape {
            0 => format!("SELECT * FROM t WHERE a IN ({list}) AND b = {one} -- zqz\n"),
            1 => format!("INSERT INTO t (a) VALUES ({list}), ({list}) RETURNING a"),
            2 => format!("UPDATE t SET a = {one} /* zqz */ WHERE b BETWEEN {one} AND {one}"),
            3 => format!("SET LOCAL a TO {one}"),
            4 => format!("SELECT f({list}), ARRAY[{list}], {one}::text LIKE {one}"),
            _ => format!("DELETE FROM t WHERE a={one}or b>{one};SELECT {one}"),
        };
        let end = (0..=cut.index(sql.len() + 1)).rev().find(|end| sql.is_char_boundary(*end)).unwrap_or(0);
        let statement = Statement::analyse(if truncate { &sql.as_bytes()[..end] } else { sql.as_bytes() }, truncate, PG);
        for told in [&statement.text, &statement.summary] {
            prop_assert!(!told.contains("zq"), "{told} of {sql}");
            prop_assert!(!told.bytes().any(|byte| byte.is_ascii_digit()), "{told} of {sql}");
        }
    }

    #[test]
    fn any_bytes_are_analysed(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        truncated in any::<bool>(),
        dialect in dialect(),
    ) {
        let statement = Statement::analyse(&bytes, truncated, dialect);
        prop_assert!(statement.summary.len() <= 255);
    }

    #[test]
    fn any_sequence_of_parts_is_analysed(
        parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..40),
        truncated in any::<bool>(),
        dialect in dialect(),
    ) {
        let sql = parts.concat();
        let statement = Statement::analyse(sql.as_bytes(), truncated, dialect);
        prop_assert!(statement.summary.len() <= 255);
        // What was normalised once stays as it is. (By other rules `--` may be two operators, and a comment where it ends.)
        if dialect == PG && !truncated && !statement.text.ends_with("...") && !statement.text.contains(['?', '$']) {
            prop_assert_eq!(&Statement::analyse(statement.text.as_bytes(), false, dialect).text, &statement.text);
        }
    }
}

const PARTS: [&str; 40] = [
    "SELECT ",
    "WITH ",
    "INSERT INTO ",
    "UPDATE ",
    "DELETE FROM ",
    "FROM ",
    "a",
    "\"b\"",
    ".",
    ",",
    "(",
    ")",
    "[",
    "]",
    "'",
    "''",
    "E'",
    "$$",
    "$t$",
    "$1",
    "\"",
    "--",
    "\n",
    "/*",
    "*/",
    "IN (",
    "VALUES (",
    "ARRAY[",
    ";",
    " ",
    "1",
    "-",
    "+",
    "=",
    "::",
    "AS ",
    "SET ",
    "TO ",
    "USING ",
    "\\",
];
