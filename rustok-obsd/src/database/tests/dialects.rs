//! Which readings a text is read by: those of the target's drivers, and on clear text those of its session.

use super::world::*;
use crate::database::System;
use crate::database::tracker::Drivers;
use crate::statement::Dialect;

/// By PostgreSQL's own rule the word is a column; with `standard_conforming_strings` off it is part of a string.
const WORD: &str = r"SELECT '\', secret, 'x', ' y'";

fn reported(value: &str) -> Vec<u8> {
    message(b'S', format!("standard_conforming_strings\0{value}\0").as_bytes())
}

fn clear(drivers: Drivers, parameters: &[u8]) -> World {
    let mut world = World::new(drivers);
    world.open_clear(1, false);
    world.trip(1, TASK, &startup(), &[&message(b'R', &[0; 4])[..], parameters, &ready(b'I')].concat());
    world
}

fn told(world: &mut World, sql: &str) -> String {
    let [question, answer] = simple(sql, "SELECT 1", b'I');
    world.trip(1, TASK, &question, &answer);
    world.one().text
}

#[test]
fn clear_text_is_read_as_the_session_reads_it() {
    let bare = Drivers { calls: false, ends: false, dialect: Dialect::ANY, ..ALL };
    assert_eq!(told(&mut clear(bare, &reported("on")), WORD), "SELECT ?, secret, ?, ?");
    assert_eq!(told(&mut clear(bare, &reported("off")), WORD), "SELECT ? ...");
    assert_eq!(told(&mut clear(bare, b""), WORD), "SELECT ? ...");
    // It is PostgreSQL, whatever the target has a driver for.
    let names = "SELECT \"a\" FROM \"b\"";
    let other = Drivers { dialect: Dialect::MYSQL, ..bare };
    assert_eq!(told(&mut clear(other, b""), names), names);
    // From the change on both readings are possible.
    let mut world = clear(bare, &reported("on"));
    world.trip(1, TASK, &simple("SELECT f()", "SELECT 1", b'I')[0], b"");
    world.receive(1, TASK, &[reported("off"), simple("", "SELECT 1", b'I')[1].clone()].concat());
    world.one();
    assert_eq!(told(&mut world, WORD), "SELECT ? ...");
}

#[test]
fn a_call_is_read_as_the_targets_drivers_may() {
    let sql = "SELECT a FROM b WHERE c = \"secret\"";
    for (dialect, system, want) in [
        (Dialect::POSTGRES, System::Postgresql, sql),
        (Dialect::MYSQL, System::Mysql, "SELECT a FROM b WHERE c = ?"),
        (Dialect::SQLITE, System::Sqlite, "SELECT a FROM b WHERE c = ?"),
        (Dialect::default(), System::Other, "SELECT a FROM b WHERE c = ?"),
    ] {
        let mut world = World::new(Drivers { dialect, system, ..ALL });
        world.open_tls(1);
        let start = world.call(TASK, sql);
        world.trip(1, TASK, TLS, TLS);
        world.done(TASK, sql, start);
        assert_eq!(world.one().text, want, "{dialect:?}");
    }
}

#[test]
fn a_call_finds_its_text_on_the_wire_whatever_it_was_read_by() {
    for dialect in [Dialect::POSTGRES, Dialect::MYSQL, Dialect::ANY] {
        let mut world = clear(Drivers { dialect, ..ALL }, &reported("on"));
        let (a, b) = (format!("VALUES (a); {WORD}"), format!("VALUES (b); {WORD}"));
        let starts = [world.call(TASK, &a), world.call(TASK, &b)];
        for (sql, start) in [(&a, starts[0]), (&b, starts[1])] {
            let [question, answer] = simple(sql, "SELECT 1", b'I');
            world.trip(1, TASK, &question, &answer);
            world.done(TASK, sql, start);
            let told = world.one();
            assert!(!told.text.contains("secret"), "{}", told.text);
            assert_eq!((told.times[1], told.rows), (start, Some(1)), "{dialect:?}");
        }
    }
}
