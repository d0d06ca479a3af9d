//! What each database takes for a literal, and what is hidden where several readings are possible.

use super::{Dialect, Statement, StatementCache};

const ON: Dialect = Dialect::POSTGRES_STANDARD;
const OFF: Dialect = Dialect::POSTGRES_ESCAPES;
const PG: Dialect = Dialect::POSTGRES;
const MYSQL: Dialect = Dialect::MYSQL;
const ANSI: Dialect = Dialect::MYSQL_ANSI;
const STRINGS: Dialect = Dialect::MYSQL_STRINGS;
const SQLITE: Dialect = Dialect::SQLITE;
const ANY: Dialect = Dialect::ANY;

fn of(sql: &str, dialect: Dialect) -> Statement {
    Statement::analyse(sql.as_bytes(), false, dialect)
}

#[track_caller]
fn holds(cases: &[(&[Dialect], &str, &str)]) {
    for (dialects, sql, want) in cases {
        for dialect in *dialects {
            assert_eq!(&*of(sql, *dialect).text, *want, "{sql} by {dialect:?}");
        }
    }
}

#[test]
fn double_quotes_hold_a_string_or_a_name() {
    holds(&[
        (&[PG, ANSI], "SELECT a FROM t WHERE b = \"c\"", "SELECT a FROM t WHERE b = \"c\""),
        (&[STRINGS, MYSQL, SQLITE, ANY], "SELECT a FROM t WHERE b = \"c\"", "SELECT a FROM t WHERE b = ?"),
        (&[STRINGS, MYSQL], "SELECT \"it's\", \"a\"\"b\", 'c\"'", "SELECT ?, ?, ?"),
        // A backslash escapes, or with NO_BACKSLASH_ESCAPES it does not.
        (&[STRINGS], "SELECT \"it\\\" , secret, \"", "SELECT ? ..."),
        (&[STRINGS, MYSQL], "SELECT _utf8mb4\"a\", N'b', X'1F', b'01', 0x1F, 0b1", "SELECT _utf8mb4 ?, ?, ?, ?, ?, ?"),
        // With ANSI_QUOTES the backslash is a character, else it escapes the quote.
        (&[MYSQL], "SELECT \"a\\\" FROM t -- \"", "SELECT ? ..."),
        (&[ANSI], "SELECT \"a\\\" FROM t", "SELECT \"a\\\" FROM t"),
        (&[MYSQL, SQLITE, ANY], "CREATE USER bob IDENTIFIED BY \"hunter2\"", "CREATE USER bob IDENTIFIED BY ?"),
        (&[MYSQL, ANY], "SET PASSWORD FOR 'bob'@\"%\" = 'hunter2'", "SET PASSWORD FOR ?@? = ?"),
        (&[MYSQL, SQLITE], "SELECT `a``b` FROM `c`", "SELECT `a``b` FROM `c`"),
        (&[ANY], "SELECT `a` FROM b", "SELECT ? FROM b"),
    ]);
}

#[test]
fn sqlite_shows_the_double_quotes_that_can_be_names_alone() {
    let both = &[SQLITE, SQLITE.or(PG)][..];
    holds(&[
        (
            both,
            r#"SELECT "cake"."id" AS "A_id", "m"."cake" . "x" FROM "cake" LEFT JOIN "fruit" ON "cake"."id" = "fruit"."cake""#,
            r#"SELECT "cake"."id" AS "A_id", "m"."cake" . "x" FROM "cake" LEFT JOIN "fruit" ON "cake"."id" = "fruit"."cake""#,
        ),
        (
            both,
            r#"INSERT INTO "cake" ("name", "price") VALUES ("a", $1) RETURNING "id""#,
            r#"INSERT INTO "cake" ("name", "price") VALUES (?, $1) RETURNING ?"#,
        ),
        (
            both,
            r#"UPDATE "cake" SET "name" = "a", "price" = f("b", "c"), "x" = "d" = 1 WHERE "e" = 1, "f" = 2"#,
            r#"UPDATE "cake" SET "name" = ?, "price" = f(?, ?), "x" = ? = ? WHERE ? = ?, ? = ?"#,
        ),
        (
            both,
            r#"DELETE FROM "a" WHERE "b" IS NOT DISTINCT FROM "c""#,
            r#"DELETE FROM "a" WHERE ? IS NOT DISTINCT FROM ?"#,
        ),
        (
            both,
            r#"DROP TABLE IF EXISTS "a"; CREATE TABLE "b" ("c" text)"#,
            r#"DROP TABLE IF EXISTS "a"; CREATE TABLE "b" (? text)"#,
        ),
        (both, r#"VACUUM INTO "a""#, "VACUUM INTO ?"),
        (both, r#"ATTACH "a" AS "b""#, "ATTACH ? AS ?"),
        (both, r#"SELECT "a", "b" FROM c ORDER BY "d""#, "SELECT ?, ? FROM c ORDER BY ?"),
        (both, r#"SELECT "a".5"#, "SELECT ?"),
        (&[SQLITE], "SELECT [a b], [c'd] FROM [e]", "SELECT [a b], [c'd] FROM [e]"),
        (&[SQLITE], "SELECT [a", "SELECT ? ..."),
        (both, "PRAGMA key = \"secret\"", "PRAGMA key = ?"),
        (both, "PRAGMA main.key(secret)", "PRAGMA main.key(?)"),
    ]);
}

#[test]
fn comments_are_those_of_the_database() {
    holds(&[
        (&[MYSQL], "SELECT a # it's\n FROM b", "SELECT a FROM b"),
        (&[PG], "SELECT a # b", "SELECT a # b"),
        (&[ANY], "SELECT a # it's\n FROM b", "SELECT a ? ..."),
        (&[ANY], "SELECT a # it\n, 'b' FROM c", "SELECT a ?, ? FROM c"),
        (&[MYSQL], "SELECT a -- it's\n FROM b --", "SELECT a FROM b"),
        (&[MYSQL], "SELECT 5--3, a--\t'x'\n, b", "SELECT ?-?, a, b"),
        (&[PG, SQLITE], "SELECT 5--3, 'x'\n, b", "SELECT ?, b"),
        // A carriage return ends a line in PostgreSQL alone.
        (&[PG], "SELECT a -- b\r, c", "SELECT a, c"),
        (&[MYSQL, SQLITE], "SELECT a -- b\r, c\n, d", "SELECT a, d"),
        // Comments nest in PostgreSQL alone.
        (&[PG], "SELECT a /* /* 'b' */ 'c' */, d", "SELECT a, d"),
        (&[MYSQL, SQLITE], "SELECT a /* /* 'b' */, c", "SELECT a, c"),
        (&[ANY], "SELECT a /* /* b */ secret */, d", "SELECT a ?, d"),
        // What one server runs is a comment to the next one.
        (&[MYSQL, ANY], "SELECT /*!50000 STRAIGHT_JOIN */ a /*M!100100 , b */ FROM c", "SELECT a FROM c"),
        (&[MYSQL], "SELECT /*+ MAX_EXECUTION_TIME(1000) */ a FROM b", "SELECT a FROM b"),
        (&[MYSQL], "SELECT /*!50000 '*/' */ a FROM b", "SELECT ? ..."),
        (&[MYSQL], "SELECT /*! /* */ secret */ a FROM b", "SELECT ? ..."),
        (&[MYSQL], "SELECT /*! # */ secret \n */ a FROM b", "SELECT ? ..."),
    ]);
}

#[test]
fn a_backslash_before_a_quote_is_read_both_ways_unless_the_setting_is_known() {
    holds(&[
        (&[ON], r"SELECT '\', secret, 'x'", "SELECT ?, secret, ?"),
        (&[OFF], r"SELECT '\', secret, ', x, 'y\'z'", "SELECT ?, x, ?"),
        (&[PG, MYSQL, ANY], r"SELECT '\', secret, 'x'", "SELECT ? ..."),
        // It begins with a backslash and a quote, and ESCAPE is not there.
        (&[PG], r"SELECT * FROM t WHERE a = '\' AND b = 'secret word'", "SELECT * FROM t WHERE a = ? ..."),
        (&[PG, ANY], r"SELECT '\'' secret ' FROM t", "SELECT ? ..."),
        (&[OFF], r"SELECT '\'' , secret", "SELECT ?, secret"),
        (
            &[ON, PG],
            r"SELECT a FROM t WHERE a LIKE $1 ESCAPE '\' AND b = 'c'",
            "SELECT a FROM t WHERE a LIKE $1 ESCAPE ? AND b = ?",
        ),
        (
            &[PG],
            r"SELECT a LIKE b ESCAPE '\', c LIKE d ESCAPE '\' FROM t WHERE e = 'f'",
            "SELECT a LIKE b ESCAPE ?, c LIKE d ESCAPE ? FROM t WHERE e = ?",
        ),
        // The other reading is possible, too: it closes each quote.
        (&[PG], r"SELECT a LIKE b ESCAPE '\' secret', 'c'", "SELECT a LIKE b ESCAPE ? ..."),
        (&[PG], r"SELECT 'a\\', E'b\'c', 'd'", "SELECT ?, ?, ?"),
        (&[MYSQL, ANY], r"SELECT 'a\\', b", "SELECT ?, b"),
        (&[OFF], "SELECT 'a'\n'b\\'' , c", "SELECT ?, c"),
        (&[PG], "SELECT 'a'\n'b\\'' , c", "SELECT ? ..."),
    ]);
    let cut = |sql: &str| Statement::analyse(sql.as_bytes(), true, PG);
    // Of a text that was cut nobody knows whether the other reading closes its quotes.
    assert_eq!(&*cut(r"SELECT a LIKE b ESCAPE '\' AND c = 'd' AND ").text, "SELECT a LIKE b ESCAPE ? ...");
}

#[test]
fn other_quotes_of_postgres_mean_nothing_elsewhere() {
    holds(&[
        (
            &[PG],
            "SELECT $$a'b$$, $t$c$t$, U&'\\0061' UESCAPE '!', U&\"d\", b'01''10'",
            "SELECT ?, ?, ? UESCAPE ?, U&\"d\", ?",
        ),
        // Only with & is the letter a part of it.
        (&[PG, ANY], "SELECT U'\"a', u'', b.c, U'd\"'", "SELECT U ?, u ?, b.c, U ?"),
        (&[PG], "SELECT a ` 'secret' ` b", "SELECT a ` ? ` b"),
        (&[SQLITE], "SELECT e'a\\', b", "SELECT e ?, b"),
        (&[ANY], "SELECT e'a\\', b, 'c'", "SELECT ? ..."),
        (&[ANY], "SELECT $$a$$, b", "SELECT ? ..."),
        (&[MYSQL], "SELECT $a, $b$ FROM c", "SELECT $a, ? ..."),
        (&[ANY], "SELECT a[1] FROM b", "SELECT a ? FROM b"),
        // Behind a place where readings part nothing is concluded from what was before it.
        (&[SQLITE.or(PG)], "INSERT INTO ['] (a) VALUES (['], \"b\"), (\"c\")", "INSERT INTO ?, ?), (?)"),
        (
            &[SQLITE.or(PG)],
            "SELECT a[1], \"b\".\"c\", d IS DISTINCT FROM \"e\" FROM \"f\"",
            "SELECT a ?, \"b\".\"c\", d IS DISTINCT FROM ? FROM ?",
        ),
        (&[MYSQL.or(PG)], "SELECT a /* /* */ ; -- */\n SET b = secret", "SELECT a ? ..."),
        (&[SQLITE.or(PG)], "[SET '] SET a = secret -- '", "? ..."),
    ]);
}

#[test]
fn parameters_stay_as_they_are() {
    holds(&[
        (&[SQLITE], "SELECT ?1, ?, :a, @b, $c, $2, ?2", "SELECT ?1, ?, :a, @b, $c, $2, ?2"),
        (&[SQLITE], "SELECT * FROM t WHERE id IN (?1, ?2) AND x = ?3", "SELECT * FROM t WHERE id IN (?) AND x = ?1"),
        (&[SQLITE], "SELECT * FROM t WHERE id IN (:a, :b)", "SELECT * FROM t WHERE id IN (?)"),
        (&[SQLITE], "SELECT $a::b(secret), c", "SELECT ?, c"),
        (&[SQLITE, MYSQL], "INSERT INTO t VALUES (?, ?), (?, ?)", "INSERT INTO t VALUES (?, ?)"),
        (
            &[MYSQL],
            "SELECT a FROM t WHERE b = ? AND c IN (?, ?) AND @d = @@e LIMIT ?,?",
            "SELECT a FROM t WHERE b = ? AND c IN (?) AND @d = @@e LIMIT ?, ?",
        ),
        (
            &[ANY],
            "SELECT a FROM t WHERE b = $1 AND c = ? AND ?1 = d",
            "SELECT a FROM t WHERE b = $1 AND c = ? AND ? = d",
        ),
        (&[PG], "SELECT a ? 'b', c ?| $1", "SELECT a ? ?, c ?| $1"),
    ]);
}

#[test]
fn booleans_are_literals_and_null_stays() {
    let all = &[PG, MYSQL, SQLITE, ANY][..];
    holds(&[
        (
            all,
            "SELECT * FROM t WHERE active = TRUE AND a IS NOT false",
            "SELECT * FROM t WHERE active = ? AND a IS NOT ?",
        ),
        (
            all,
            "INSERT INTO t VALUES (true, NULL, DEFAULT), (False, NULL, DEFAULT)",
            "INSERT INTO t VALUES (?, NULL, DEFAULT)",
        ),
        (all, "UPDATE t SET a = true, b = NULL", "UPDATE t SET a = ?, b = NULL"),
        (all, "SELECT t.true, truely FROM t", "SELECT t.true, truely FROM t"),
    ]);
}

#[test]
fn what_is_set_is_hidden_though_it_is_a_word() {
    let all = &[PG, MYSQL, SQLITE, ANY][..];
    holds(&[
        (all, "SET a.b.c.d = secret", "SET a.b.c.d = ?"),
        (all, "SET a.b.c.d.e.f TO 'x', secret", "SET a.b.c.d.e.f TO ?"),
        (all, "SET a TO 'x', secret; SELECT b", "SET a TO ?; SELECT b"),
        (all, "SET LOCAL app.tenant = secret", "SET LOCAL app.tenant = ?"),
        (all, "SET SESSION a = -secret", "SET SESSION a = ?"),
        (all, "SET ROLE secret", "SET ROLE ?"),
        (all, "SET SESSION AUTHORIZATION secret", "SET SESSION AUTHORIZATION ?"),
        (all, "SET TIME ZONE secret", "SET TIME ZONE ?"),
        (all, "SET NAMES secret COLLATE secret", "SET NAMES ?"),
        (
            all,
            "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        ),
        (all, "SET CONSTRAINTS ALL DEFERRED", "SET CONSTRAINTS ALL DEFERRED"),
        (all, "SET transaction.a = secret", "SET transaction.a = ?"),
        (&[MYSQL], "SET @a := secret, @@global.b = 1", "SET @a := ?"),
        (all, "ALTER ROLE bob SET a.b = secret", "ALTER ROLE bob SET a.b = ?"),
        (all, "ALTER ROLE bob IN DATABASE d SET TIME ZONE secret", "ALTER ROLE bob IN DATABASE d SET TIME ZONE ?"),
        (all, "ALTER SYSTEM SET a TO secret, 'b'", "ALTER SYSTEM SET a TO ?"),
        (all, "ALTER TABLE t ALTER a SET NOT NULL", "ALTER TABLE t ALTER a SET NOT NULL"),
        (all, "UPDATE t SET a = b", "UPDATE t SET a = b"),
        (
            &[PG],
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET a TO secret AS $$ SELECT 1 $$",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET a TO ?",
        ),
    ]);
}

#[test]
fn commands_show_none_of_their_strings() {
    let all = &[PG, MYSQL, SQLITE][..];
    holds(&[
        (all, "ALTER ROLE bob PASSWORD 'hunter2' VALID UNTIL '2030-01-01'", "ALTER ROLE bob PASSWORD ? VALID UNTIL ?"),
        (all, "CREATE USER bob IDENTIFIED BY 'hunter2'", "CREATE USER bob IDENTIFIED BY ?"),
        (all, "COPY t FROM PROGRAM 'curl secret'", "COPY t FROM PROGRAM ?"),
        (all, "EXECUTE p('secret', 5, true)", "EXECUTE p(?, ?, ?)"),
        (all, "NOTIFY chan, 'secret'", "NOTIFY chan, ?"),
        (all, "COMMENT ON TABLE t IS 'secret'", "COMMENT ON TABLE t IS ?"),
        (&[PG], "DO LANGUAGE plpgsql $$ BEGIN PERFORM 'secret'; END $$", "DO LANGUAGE plpgsql ?"),
        (
            &[PG],
            "CREATE SUBSCRIPTION s CONNECTION 'password=secret' PUBLICATION p",
            "CREATE SUBSCRIPTION s CONNECTION ? PUBLICATION p",
        ),
    ]);
}

#[test]
fn the_summary_names_no_table_that_may_be_a_string() {
    // Text, dialect, summary, collection.
    let cases = [
        ("SELECT a FROM \"b\"", PG, "SELECT b", "b"),
        ("SELECT a FROM \"b\"", MYSQL, "SELECT", ""),
        ("SELECT a FROM \"b\"", ANY, "SELECT", ""),
        ("SELECT a FROM \"b\", \"c\" \"d\"", SQLITE, "SELECT b", "b"),
        ("INSERT INTO \"b\" VALUES (\"c\")", SQLITE, "INSERT b", "b"),
        ("INSERT INTO \"b\" VALUES (\"c\")", STRINGS, "INSERT", ""),
        ("CALL \"b\"('c')", MYSQL, "CALL", ""),
        ("UPDATE `b` SET c = 1", MYSQL, "UPDATE b", "b"),
        ("SELECT a FROM [b]", SQLITE, "SELECT b", "b"),
        ("SELECT a FROM 'b'", SQLITE, "SELECT", ""),
    ];
    for (sql, dialect, summary, collection) in cases {
        let statement = of(sql, dialect);
        let told = (&*statement.summary, statement.collection.as_deref().unwrap_or(""));
        assert_eq!(told, (summary, collection), "{sql} by {dialect:?}");
    }
}

#[test]
fn bytes_that_end_a_text_somewhere_end_it_here() {
    for dialect in [PG, MYSQL, SQLITE, ANY] {
        for raw in [&b"SELECT a FROM t\0 secret"[..], b"SELECT a FROM t\xff secret", b"SELECT a FROM t \xc3"] {
            let statement = Statement::analyse(raw, false, dialect);
            assert!(!statement.text.contains("secret") && statement.text.ends_with("..."), "{}", statement.text);
        }
    }
}

#[test]
fn the_cache_keeps_dialects_apart() {
    let mut cache = StatementCache::default();
    let sql = b"SELECT \"a\"";
    for _ in 0..2 {
        assert_eq!(&*cache.get(sql, false, PG).text, "SELECT \"a\"");
        assert_eq!(&*cache.get(sql, false, STRINGS).text, "SELECT ?");
    }
    assert_eq!((cache.stats().hits, cache.stats().misses), (2, 2));
}
