//! The protocol in clear text, with calls and without.

use rustok_obsd_ebpf::Point;

use super::world::*;
use crate::database::sockets::Change;
use crate::database::tracker::Drivers;
use crate::database::{Ending, Origin, Parent, Sight, System};
use crate::statement::Dialect;

const SQL: &str = "SELECT a FROM b WHERE c = $1";
const INNER: &str = "SELECT oid FROM pg_type WHERE typname = $1";

/// Without any symbol of a driver.
const WIRE: Drivers = Drivers {
    calls: false,
    sought: false,
    ends: false,
    tasks: true,
    runtime: true,
    shared_connections: false,
    system: System::Postgresql,
    dialect: Dialect::POSTGRES,
};

fn clear(drivers: Drivers) -> World {
    let mut world = World::new(drivers);
    for conn in [1, 2] {
        world.open_clear(conn, false);
        assert!(world.changes().is_empty(), "its database is not known yet");
        world.trip(conn, TASK, &startup(), &started());
        assert_eq!(world.changes(), [(conn, Change::Opened)]);
        assert_eq!(world.tracker.namespace(conn).map(|name| &**name), Some("shop"));
    }
    assert!(world.told.is_empty());
    world
}

#[test]
fn operations_that_no_call_explains_are_the_wires() {
    let mut world = clear(WIRE);
    let [question, answer] = prepare("s", SQL, b'I');
    let [start, _] = world.trip(1, TASK, &question, &answer);
    let [question, answer] = execute("s", "SELECT 3", b'I');
    let [_, end] = world.trip(1, TASK, &question, &answer);
    let told = world.one();
    assert_eq!((told.text.as_str(), told.sight, told.rows), (SQL, Sight::Wire, Some(3)));
    assert_eq!((told.times, told.parent), ([0, start, start, end, end], Parent::Request(REQUEST)));
    assert_eq!((told.port, told.namespace.as_deref()), (Some(5001), Some("shop")));
    world.trip(1, 900, SYNC, &ready(b'I'));
    assert_eq!((world.told.len(), world.tracker.stats.others.ping), (0, 1));
}

#[test]
fn a_call_its_preparation_and_its_execution_are_one_operation_with_rows_of_the_wire() {
    let mut world = clear(ALL);
    let start = world.call(TASK, SQL);
    let [question, answer] = prepare("s", SQL, b'I');
    let [send, _] = world.trip(1, TASK, &question, &answer);
    let [question, answer] = execute("s", "SELECT 3", b'I');
    let [_, end] = world.trip(1, TASK, &question, &answer);
    assert!(world.told.is_empty());
    world.done(TASK, SQL, start);
    let told = world.one();
    assert_eq!((told.sight, told.rows, told.ending), (Sight::Sqlx, Some(3), Ending::Complete));
    assert_eq!(told.times, [0, start, send, end, end]);
    assert_eq!(world.tracker.under_way(), 0);
    assert_eq!(world.changes(), [(1, Change::Used), (1, Change::Idle)]);
}

#[test]
fn look_ups_within_a_preparation_are_operations_of_their_own_and_leave_one_of_the_statement() {
    for drivers in [ALL, Drivers { ends: false, ..ALL }] {
        let mut world = clear(drivers);
        let outer = world.call(TASK, SQL);
        let [question, answer] = prepare("s", SQL, b'I');
        world.trip(1, TASK, &question, &answer);
        let inner = world.call(TASK, INNER);
        for [question, answer] in [prepare("t", INNER, b'I'), execute("t", "SELECT 1", b'I')] {
            world.trip(1, TASK, &question, &answer);
        }
        if drivers.ends {
            world.done(TASK, INNER, inner);
        }
        assert_eq!(world.one().text, INNER);
        let [question, answer] = execute("s", "SELECT 3", b'I');
        world.trip(1, TASK, &question, &answer);
        if drivers.ends {
            world.done(TASK, SQL, outer);
        }
        let told = world.one();
        assert_eq!((told.text.as_str(), told.rows, told.times[1]), (SQL, Some(3), outer));
        assert_eq!(world.tracker.under_way(), 0);
    }
}

#[test]
fn a_pools_ping_is_not_taken_for_a_call_that_waits() {
    let mut world = clear(ALL);
    // A statement waits for what is left of another one's answer while a future beside it takes a connection.
    let start = world.call(TASK, SQL);
    world.trip(2, TASK, SYNC, &ready(b'I'));
    let [question, answer] = simple(SQL, "SELECT 1", b'I');
    world.trip(1, TASK, &question, &answer);
    world.done(TASK, SQL, start);
    let told = world.one();
    assert_eq!((told.port, told.rows), (Some(5001), Some(1)));
    assert_eq!(world.tracker.under_way(), 0);
}

#[test]
fn a_call_dropped_while_it_is_prepared_is_told_once() {
    let mut world = clear(ALL);
    let start = world.call(TASK, SQL);
    let [question, answer] = prepare("s", SQL, b'I');
    world.send(1, TASK, &question);
    world.done(TASK, SQL, start);
    assert_eq!(world.one().ending, Ending::Cancelled);
    world.origin = Origin::Background;
    world.send(1, 900, SYNC);
    world.receive(1, 900, &answer);
    world.receive(1, 900, &ready(b'I'));
    assert_eq!((world.told.as_slice(), world.tracker.under_way()), (&[][..], 0));
}

#[test]
fn transactions_begin_and_roll_back_once_each() {
    let mut world = clear(ALL);
    world.point(Point::Begin, TASK);
    let [question, answer] = simple("BEGIN", "BEGIN", b'T');
    world.trip(1, TASK, &question, &answer);
    assert_eq!(world.one().text, "BEGIN");
    world.point(Point::Begin, TASK);
    let [question, answer] = simple("SAVEPOINT _sqlx_savepoint_1", "SAVEPOINT", b'T');
    world.trip(1, TASK, &question, &answer);
    assert_eq!(world.one().text, "SAVEPOINT _sqlx_savepoint_1");
    assert_eq!(world.changes(), [(1, Change::Used)]);
    for (question, status, text) in [
        ("ROLLBACK TO SAVEPOINT _sqlx_savepoint_1", b'T', "ROLLBACK TO SAVEPOINT _sqlx_savepoint_1"),
        ("ROLLBACK", b'I', "ROLLBACK"),
    ] {
        world.origin = Origin::Request(REQUEST);
        world.point(Point::Rollback, TASK);
        world.origin = Origin::Background;
        let [question, answer] = simple(question, "ROLLBACK", status);
        world.trip(1, 900, &[&question[..], SYNC].concat(), &[&answer[..], &ready(status)].concat());
        let told = world.one();
        assert_eq!((told.text.as_str(), told.parent), (text, Parent::Request(REQUEST)));
    }
    assert_eq!(world.changes(), [(1, Change::Idle)]);
    // One of which the transaction is not known is the wire's.
    world.point(Point::Rollback, TASK);
    let [question, answer] = simple("ROLLBACK", "ROLLBACK", b'I');
    world.trip(1, 900, &question, &answer);
    assert_eq!((world.one().sight, world.tracker.under_way()), (Sight::Wire, 0));
}

#[test]
fn statements_of_a_connection_older_than_the_daemon_are_unknown_until_prepared_anew() {
    let mut world = World::new(WIRE);
    world.open_clear(1, true);
    assert_eq!(world.changes(), [(1, Change::Opened)]);
    let [question, answer] = execute("s", "SELECT 3", b'I');
    world.trip(1, TASK, &question, &answer);
    assert_eq!((world.one().text.as_str(), world.tracker.stats.unknown_statements), ("", 1));
    // Where the call is seen it is known.
    let mut world = World::new(ALL);
    world.open_clear(1, true);
    let start = world.call(TASK, SQL);
    world.trip(1, TASK, &question, &answer);
    world.done(TASK, SQL, start);
    assert_eq!((world.one().text.as_str(), world.tracker.under_way()), (SQL, 0));
}

#[test]
fn pipelines_deeper_than_sqlx_ever_makes_them_lose_nothing() {
    let mut world = clear(WIRE);
    let count = 1000;
    let [question, answer] = simple(SQL, "SELECT 1", b'I');
    for _ in 0..count {
        world.send(1, TASK, &question);
    }
    assert_eq!(world.tracker.under_way(), count);
    for _ in 0..count {
        world.receive(1, TASK, &answer);
    }
    assert_eq!((world.told.len(), world.tracker.under_way()), (count, 0));
    assert!(world.told.iter().all(|told| told.ending == Ending::Complete));
}

#[test]
fn what_is_in_flight_when_the_server_goes_is_incomplete() {
    for closes in [true, false] {
        let mut world = clear(WIRE);
        let [question, _] = simple(SQL, "", b'I');
        world.send(1, TASK, &question);
        if closes {
            assert_eq!(world.close(1), Some(true));
        } else {
            world.broken(1);
        }
        let told = world.one();
        assert_eq!((told.ending, told.port, told.namespace.as_deref()), (Ending::Incomplete, Some(5001), Some("shop")));
        assert_eq!(world.tracker.under_way(), 0);
    }
}

#[test]
fn a_connection_that_turns_encrypted_goes_on_by_calls() {
    let mut world = World::new(ALL);
    world.open_clear(1, false);
    world.trip(1, TASK, &[0, 0, 0, 8, 4, 210, 22, 47], b"S");
    assert_eq!(world.changes(), [(1, Change::Opened)]);
    assert!(world.tracker.is_encrypted(1));
    world.trip(1, TASK, TLS, TLS);
    let start = world.call(TASK, SQL);
    world.trip(1, TASK, TLS, TLS);
    world.done(TASK, SQL, start);
    assert_eq!((world.one().port, world.tracker.stats.others.startup), (Some(5001), 1));
}
