//! Calls of the driver, over TLS.

use rustok_obsd_ebpf::Point;

use super::world::*;
use crate::database::tracker::Drivers;
use crate::database::{Ending, Origin, Parent, Sight};

const SQL: &str = "SELECT a FROM b WHERE c = $1";

fn tls(drivers: Drivers) -> World {
    let mut world = World::new(drivers);
    world.open_tls(1);
    world.open_tls(2);
    world.changes();
    world
}

#[test]
fn a_call_its_bytes_and_its_end_are_one_operation() {
    let mut world = tls(ALL);
    let start = world.call(TASK, SQL);
    let [send, _] = world.trip(1, TASK, TLS, TLS);
    // It was prepared; now it is executed.
    let [_, first] = world.trip(1, TASK, TLS, TLS);
    let last = world.receive(1, TASK, TLS);
    assert!(world.told.is_empty());
    world.done(TASK, SQL, start);
    let told = world.one();
    assert_eq!((told.text.as_str(), told.sight, told.ending), (SQL, Sight::Sqlx, Ending::Complete));
    assert_eq!((told.parent, told.port), (Parent::Request(REQUEST), Some(5001)));
    assert_eq!(told.times, [0, start, send, first, last]);
    assert_eq!((world.tracker.under_way(), world.tracker.stats), (0, Default::default()));
}

#[test]
fn two_identical_statements_of_a_task_are_told_apart_by_their_start() {
    let mut world = tls(ALL);
    let first = world.call(TASK, SQL);
    world.send(1, TASK, TLS);
    let second = world.call(TASK, SQL);
    world.send(2, TASK, TLS);
    world.receive(2, TASK, TLS);
    world.receive(1, TASK, TLS);
    world.done(TASK, SQL, first);
    let told = world.one();
    assert_eq!((told.times[1], told.port), (first, Some(5001)));
    world.done(TASK, SQL, second);
    let told = world.one();
    assert_eq!((told.times[1], told.port), (second, Some(5002)));
}

#[test]
fn the_wait_for_the_pool_begins_with_the_mappers_call_of_the_same_text() {
    let mut world = tls(ALL);
    let other = "UPDATE b SET a = 1";
    let marks = [world.mark(TASK, SQL), world.mark(TASK, other)];
    world.call(71, SQL);
    for (sql, mark) in [(SQL, marks[0]), (other, marks[1]), (SQL, 0)] {
        let start = world.call(TASK, sql);
        world.trip(1, TASK, TLS, TLS);
        world.done(TASK, sql, start);
        assert_eq!(world.one().times[0], mark, "{sql}");
    }
    // A call whose future was dropped before it had a connection is nobody's, and counted once it is old.
    world.mark(TASK, SQL);
    world.reap(1);
    assert_eq!(world.tracker.stats.unmatched_calls, 0);
    world.reap(3_600_000_000_000);
    assert_eq!(world.tracker.stats.unmatched_calls, 1);
}

#[test]
fn a_transaction_begins_and_commits() {
    let mut world = tls(ALL);
    let mark = world.point(Point::OrmBegin, TASK);
    let start = world.point(Point::Begin, TASK);
    let [send, end] = world.trip(1, TASK, TLS, TLS);
    let told = world.one();
    assert_eq!((told.text.as_str(), told.times), ("BEGIN", [mark, start, send, end, end]));
    let start = world.call(TASK, "COMMIT");
    world.trip(1, TASK, TLS, TLS);
    world.done(TASK, "COMMIT", start);
    assert_eq!((world.one().text.as_str(), world.tracker.under_way()), ("COMMIT", 0));
}

#[test]
fn a_dropped_transactions_rollback_goes_out_with_the_pools_bytes() {
    let mut world = tls(ALL);
    world.point(Point::Begin, TASK);
    world.trip(1, TASK, TLS, TLS);
    world.told.clear();
    let start = world.point(Point::Rollback, TASK);
    world.origin = Origin::Background;
    let [send, end] = world.trip(1, 900, TLS, TLS);
    let told = world.one();
    assert_eq!((told.text.as_str(), told.parent), ("ROLLBACK", Parent::Request(REQUEST)));
    assert_eq!((told.times, told.ending), ([0, start, send, end, end], Ending::Complete));
    // It is over: another one finds no transaction.
    world.origin = Origin::Request(REQUEST);
    world.point(Point::Rollback, TASK);
    assert_eq!(world.one().ending, Ending::Incomplete);
}

#[test]
fn a_rollback_leaves_the_next_statement_of_its_connection_its_bytes() {
    let mut world = tls(ALL);
    world.point(Point::Begin, TASK);
    world.trip(1, TASK, TLS, TLS);
    world.point(Point::Rollback, TASK);
    world.told.clear();
    let start = world.call(TASK, SQL);
    let [send, answer] = world.trip(1, TASK, TLS, TLS);
    assert_eq!(world.one().text, "ROLLBACK");
    world.done(TASK, SQL, start);
    let told = world.one();
    assert_eq!((told.text.as_str(), told.ending), (SQL, Ending::Complete));
    assert_eq!(told.times, [0, start, send, answer, answer]);
}

#[test]
fn transactions_within_a_transaction_are_savepoints() {
    let mut world = tls(ALL);
    for _ in 0..2 {
        world.point(Point::Begin, TASK);
        world.trip(1, TASK, TLS, TLS);
    }
    for _ in 0..2 {
        world.point(Point::Rollback, TASK);
        world.trip(1, TASK, TLS, TLS);
    }
    let texts: Vec<_> = world.told.iter().map(|told| told.text.as_str()).collect();
    assert_eq!(texts, ["BEGIN", "SAVEPOINT _sqlx_savepoint", "ROLLBACK TO SAVEPOINT _sqlx_savepoint_1", "ROLLBACK"]);
}

#[test]
fn a_begin_of_which_no_bytes_were_seen_is_not_taken_for_the_asker_of_later_ones() {
    let mut world = tls(ALL);
    let start = world.call(TASK, SQL);
    world.trip(1, TASK, TLS, TLS);
    world.done(TASK, SQL, start);
    world.told.clear();
    // Its connection is one that nobody knows as a database's.
    world.point(Point::Begin, TASK);
    let start = world.call(TASK, SQL);
    let told = world.one();
    assert_eq!((told.text.as_str(), told.ending, told.port), ("BEGIN", Ending::Incomplete, None));
    assert_eq!(world.tracker.stats.lost_ends, 1);
    world.done(TASK, SQL, start);
    world.told.clear();
    // The pool's ping of another connection, and a transaction there.
    world.trip(1, TASK, TLS, TLS);
    assert!(world.told.is_empty());
    world.point(Point::Begin, TASK);
    world.trip(1, TASK, TLS, TLS);
    assert_eq!((world.one().text.as_str(), world.tracker.under_way()), ("BEGIN", 0));
    // At the end of its request, too.
    world.point(Point::Begin, TASK);
    world.settle(TASK);
    assert_eq!((world.one().ending, world.tracker.stats.lost_ends), (Ending::Incomplete, 2));
}

#[test]
fn where_no_bytes_are_ever_seen_a_begin_ends_with_the_next_call() {
    let mut world = World::new(ALL);
    world.point(Point::Begin, TASK);
    let start = world.call(TASK, SQL);
    let told = world.one();
    assert_eq!((told.text.as_str(), told.ending, told.times[4]), ("BEGIN", Ending::Complete, start));
    assert_eq!(world.tracker.stats.lost_ends, 0);
}

#[test]
fn a_transaction_is_over_with_its_commit_whether_or_not_the_end_of_that_was_seen() {
    let mut world = tls(ALL);
    world.point(Point::Begin, TASK);
    world.trip(1, TASK, TLS, TLS);
    world.call(TASK, "COMMIT");
    world.trip(1, TASK, TLS, TLS);
    world.told.clear();
    // The pool's task sends before anybody said that the COMMIT had ended.
    world.trip(1, 900, TLS, TLS);
    assert_eq!(world.one().ending, Ending::Incomplete);
    world.point(Point::Begin, TASK);
    world.trip(1, TASK, TLS, TLS);
    assert_eq!(world.one().text, "BEGIN");
}

#[test]
fn an_error_is_its_statements_and_a_notice_is_nobodys() {
    let mut world = tls(ALL);
    // Errors that no statement is there for: refused at the start, or another one's that was dropped.
    world.notice(TASK, b"SFATAL\0VFATAL\0C28P01\0");
    world.notice(71, b"SERROR\0VERROR\0C23505\0");
    let start = world.call(TASK, SQL);
    world.trip(1, TASK, TLS, TLS);
    world.notice(TASK, b"SNOTICE\0VNOTICE\0C00000\0");
    world.done(TASK, SQL, start);
    assert_eq!(world.one().ending, Ending::Complete);
    let start = world.call(TASK, SQL);
    world.trip(1, TASK, TLS, TLS);
    world.notice(TASK, b"SERROR\0VERROR\0C40001\0");
    world.done(TASK, SQL, start);
    let told = world.one();
    assert_eq!((told.ending, told.sqlstate.as_deref()), (Ending::Failed, Some("40001")));
}

#[test]
fn errors_of_tasks_that_are_gone_are_forgotten() {
    let mut world = tls(ALL);
    for task in 1..100_000 {
        world.notice(task, b"SERROR\0VERROR\0C23505\0");
    }
    // The newest are known, and they are few.
    let start = world.call(5, SQL);
    world.done(5, SQL, start);
    assert_eq!(world.one().sqlstate, None);
}

#[test]
fn a_statement_dropped_while_it_ran_or_before_it_was_sent_is_cancelled() {
    let mut world = tls(ALL);
    let start = world.call(TASK, SQL);
    world.trip(1, TASK, TLS, TLS);
    world.send(1, TASK, TLS);
    let end = world.done(TASK, SQL, start);
    let told = world.one();
    assert_eq!((told.ending, told.times[4]), (Ending::Cancelled, end));
    // The pool's task reads what is left.
    world.trip(1, 900, TLS, TLS);
    let start = world.call(TASK, SQL);
    world.done(TASK, SQL, start);
    let told = world.one();
    assert_eq!((told.ending, told.port), (Ending::Cancelled, None));
    assert_eq!(world.tracker.under_way(), 0);
}

#[test]
fn what_was_not_seen_while_records_are_lost_is_not_called_cancelled() {
    let mut world = tls(ALL);
    let start = world.call(TASK, SQL);
    world.send(1, TASK, TLS);
    world.tracker.lossy = true;
    world.done(TASK, SQL, start);
    assert_eq!(world.one().ending, Ending::Incomplete);
}

#[test]
fn a_process_whose_connections_are_not_seen_has_complete_statements() {
    let mut world = World::new(ALL);
    let start = world.call(TASK, SQL);
    let end = world.done(TASK, SQL, start);
    let told = world.one();
    assert_eq!((told.ending, told.times), (Ending::Complete, [0, start, 0, 0, end]));
    assert_eq!(world.tracker.stats.unbound, 1);
}

#[test]
fn a_statement_whose_connection_closes_in_the_middle_is_incomplete_and_keeps_its_address() {
    for closes_first in [true, false] {
        let mut world = tls(ALL);
        let start = world.call(TASK, SQL);
        world.send(1, TASK, TLS);
        if closes_first {
            assert_eq!(world.close(1), Some(true));
        } else {
            world.broken(1);
        }
        // It is not taken for one that has sent nothing.
        let other = world.call(TASK, "SELECT 2");
        world.trip(2, TASK, TLS, TLS);
        world.send(2, TASK, TLS);
        world.receive(2, TASK, TLS);
        world.done(TASK, "SELECT 2", other);
        assert_eq!(world.one().ending, Ending::Complete);
        world.done(TASK, SQL, start);
        let told = world.one();
        assert_eq!((told.ending, told.port), (Ending::Incomplete, Some(5001)), "closes first: {closes_first}");
        assert_eq!(world.tracker.stats.unbound, 0);
    }
}

#[test]
fn a_stream_that_is_dropped_early_is_complete() {
    let mut world = tls(ALL);
    let start = world.call(TASK, SQL);
    let [_, row] = world.trip(1, TASK, TLS, TLS);
    world.done(TASK, SQL, start);
    assert_eq!(world.one().times[4], row);
    // The rest of the rows.
    world.receive(1, TASK, TLS);
    assert!(world.told.is_empty() && world.tracker.under_way() == 0);
}

#[test]
fn look_ups_within_a_preparation_leave_the_statement_its_second_half() {
    let mut world = tls(ALL);
    let outer = world.call(TASK, SQL);
    let [send, _] = world.trip(1, TASK, TLS, TLS);
    for _ in 0..2 {
        let inner = world.call(TASK, "SELECT oid FROM pg_type");
        world.trip(1, TASK, TLS, TLS);
        world.trip(1, TASK, TLS, TLS);
        world.done(TASK, "SELECT oid FROM pg_type", inner);
        assert_eq!(world.one().text, "SELECT oid FROM pg_type");
    }
    let [_, answer] = world.trip(1, TASK, TLS, TLS);
    world.done(TASK, SQL, outer);
    let told = world.one();
    assert_eq!((told.times, told.port), ([0, outer, send, answer, answer], Some(5001)));
    assert_eq!(world.tracker.under_way(), 0);
}

#[test]
fn an_older_call_that_waits_does_not_take_a_newer_ones_connection() {
    let mut world = tls(ALL);
    let waits = world.call(TASK, SQL);
    let runs = world.call(TASK, "SELECT 2");
    world.trip(2, TASK, TLS, TLS);
    world.trip(2, TASK, TLS, TLS);
    world.trip(1, TASK, TLS, TLS);
    world.done(TASK, "SELECT 2", runs);
    assert_eq!(world.one().port, Some(5002));
    world.done(TASK, SQL, waits);
    assert_eq!(world.one().port, Some(5001));
}

#[test]
fn a_lost_end_is_told_when_another_task_has_the_connection_or_after_a_while() {
    let mut world = tls(ALL);
    world.call(TASK, SQL);
    let [_, answer] = world.trip(1, TASK, TLS, TLS);
    let start = world.call(71, "SELECT 2");
    world.trip(1, 71, TLS, TLS);
    let told = world.one();
    assert_eq!((told.ending, told.times[4], told.port), (Ending::Incomplete, answer, Some(5001)));
    world.done(71, "SELECT 2", start);
    world.one();
    world.call(TASK, SQL);
    world.reap(1_000_000_000);
    assert!(world.told.is_empty());
    world.reap(3_600_000_000_000);
    assert_eq!((world.one().ending, world.tracker.stats.lost_ends), (Ending::Incomplete, 2));
    // What holds a connection is not touched: a statement may run for hours.
    world.call(TASK, SQL);
    world.send(1, TASK, TLS);
    world.reap(36_000_000_000_000);
    assert_eq!((world.told.len(), world.tracker.under_way()), (0, 1));
}

#[test]
fn lost_ends_within_one_task_are_bounded() {
    let mut world = tls(ALL);
    for _ in 0..1000 {
        world.call(TASK, SQL);
        world.trip(1, TASK, TLS, TLS);
    }
    assert!(world.tracker.under_way() <= 10);
    assert_eq!(world.told.len() + world.tracker.under_way(), 1000);
}

#[test]
fn without_the_probe_of_ends_the_next_use_or_the_requests_end_shows_it() {
    let mut world = tls(Drivers { ends: false, ..ALL });
    let first = world.call(TASK, SQL);
    let [send, answer] = world.trip(1, TASK, TLS, TLS);
    world.call(TASK, "SELECT 2");
    assert_eq!(world.one().times, [0, first, send, answer, answer]);
    let [_, answer] = world.trip(1, TASK, TLS, TLS);
    // The pool takes it back.
    world.trip(1, 900, TLS, TLS);
    assert_eq!(world.one().times[4], answer);
    world.call(TASK, "SELECT 3");
    let [_, answer] = world.trip(1, TASK, TLS, TLS);
    world.settle(TASK);
    assert_eq!(world.one().times[4], answer);
    // Not answered when somebody else sends: dropped.
    world.call(TASK, "SELECT 4");
    world.send(1, TASK, TLS);
    world.trip(1, 900, TLS, TLS);
    assert_eq!(world.one().ending, Ending::Cancelled);
}

#[test]
fn a_commit_that_the_configuration_names_can_fail_behind_its_bytes() {
    let mut world = tls(ALL);
    world.point(Point::Commit, TASK);
    let [_, answer] = world.trip(1, TASK, TLS, TLS);
    assert!(world.told.is_empty());
    world.settle(TASK);
    let told = world.one();
    assert_eq!((told.text.as_str(), told.times[4]), ("COMMIT", answer));
}

#[test]
fn round_trips_that_nothing_explains_are_opaque_where_nothing_is_observed() {
    let mut world = tls(Drivers { tasks: true, runtime: true, ..Drivers::default() });
    let [send, answer] = world.trip(1, TASK, TLS, TLS);
    world.send(1, 71, TLS);
    let told = world.one();
    assert_eq!((told.sight, told.times), (Sight::Opaque, [0, send, send, answer, answer]));
    world.close(1);
    assert_eq!((world.one().ending, world.tracker.stats.opaque_round_trips), (Ending::Incomplete, 2));
    let mut world = tls(ALL);
    world.trip(1, TASK, TLS, TLS);
    assert_eq!((world.tracker.under_way(), world.tracker.stats.opaque_round_trips), (0, 0));
}

#[test]
fn where_tasks_are_not_known_a_statement_may_go_on_and_end_on_another_thread() {
    let mut world = tls(Drivers { tasks: false, ..ALL });
    world.origin = Origin::Unknown(crate::database::Ignorance::NoTask);
    let start = world.call(0, SQL);
    world.trip(1, 0, TLS, TLS);
    world.tid = 4;
    let [_, answer] = world.trip(1, 0, TLS, TLS);
    world.tid = 5;
    world.done(0, SQL, start);
    let told = world.one();
    assert_eq!((told.ending, told.times[4], told.parent), (Ending::Complete, answer, Parent::Unknown));
    assert_eq!(world.tracker.stats.unmatched_ends, 0);
}

#[test]
fn a_statement_may_end_after_the_place_of_the_tasks_id_was_found() {
    let mut world = tls(ALL);
    let start = world.call(0, SQL);
    world.send(1, 0, TLS);
    let answer = world.receive(1, TASK, TLS);
    world.done(TASK, SQL, start);
    let told = world.one();
    assert_eq!((told.ending, told.times[4]), (Ending::Complete, answer));
}

#[test]
fn arguments_that_hold_no_statement_are_counted_and_still_one_operation() {
    let mut world = tls(ALL);
    let start = world.call(TASK, "\u{1}\u{2}");
    world.trip(1, TASK, TLS, TLS);
    world.done(TASK, "\u{1}\u{2}", start);
    assert_eq!((world.one().text.as_str(), world.tracker.stats.layout_doubts), ("", 1));
    world.done(TASK, SQL, start);
    assert_eq!(world.tracker.stats.unmatched_ends, 1);
}
