//! The forms in which the versions and drivers of sqlx report the same.

use rustok_obsd_ebpf::Point;

use super::world::*;
use crate::database::tracker::Drivers;
use crate::database::{Ending, System};

const SQL: &str = "SELECT a FROM b WHERE c = $1";
/// The same length.
const OTHER: &str = "SELECT c FROM d WHERE e = $1";

fn tls() -> World {
    let mut world = World::new(ALL);
    world.open_tls(1);
    world.changes();
    world
}

impl World {
    /// sqlx 0.9 takes a statement: the words of its `SqlStr` are `pair`, and the text is elsewhere.
    fn call_by_pointer(&mut self, task: u64, sql: &str, pair: [u64; 2]) -> u64 {
        let mut hit = self.hit(Point::Query, task);
        (hit.text, hit.text_len) = (0xa_0000, sql.len() as u64);
        hit.words[..2].copy_from_slice(&pair);
        self.on(&hit, sql.as_bytes());
        hit.time_ns
    }

    /// The text of a BEGIN is made, with so many transactions around it.
    fn begin_text(&mut self, task: u64, depth: u64) -> u64 {
        let mut hit = self.hit(Point::Begin, task);
        hit.words[0] = depth + 1;
        self.on(&hit, b"");
        hit.time_ns
    }
}

#[test]
fn a_statement_by_pointer_ends_with_the_account_that_has_its_words() {
    let mut world = tls();
    let pair = [0x8000_0000_0000_0004, 0xb_0000];
    let start = world.call_by_pointer(TASK, SQL, pair);
    world.trip(1, TASK, TLS, TLS);
    let mut hit = world.hit(Point::QueryEnd, TASK);
    let begun = start + 300;
    hit.words[..4].copy_from_slice(&[begun / 1_000_000_000, begun % 1_000_000_000, pair[0], pair[1] + 8]);
    world.on(&hit, b"");
    assert_eq!((world.told.len(), world.tracker.stats.unmatched_ends), (0, 1), "another statement's account");
    hit.words[3] = pair[1];
    world.on(&hit, b"");
    let told = world.one();
    assert_eq!((told.text.as_str(), told.ending), (SQL, Ending::Complete));
}

#[test]
fn a_copied_text_is_the_mappers_call_where_just_one_has_its_length() {
    let mut world = tls();
    let marks = [world.mark(TASK, SQL), world.mark(TASK, "SELECT 1")];
    let pair = [0xb_0000, SQL.len() as u64];
    let start = world.call_by_pointer(TASK, SQL, pair);
    world.trip(1, TASK, TLS, TLS);
    world.done_by(TASK, pair, start);
    assert_eq!(world.one().times[0], marks[0]);
    // Two calls side by side with texts of one length: which of them waited is not known.
    for sql in [SQL, OTHER] {
        world.mark(TASK, sql);
    }
    let start = world.call_by_pointer(TASK, OTHER, pair);
    world.trip(1, TASK, TLS, TLS);
    world.done_by(TASK, pair, start);
    assert_eq!(world.one().times[0], 0);
}

#[test]
fn a_copied_text_that_came_with_the_mappers_call_is_known_among_others_of_its_length() {
    let mut world = tls();
    let marks = [SQL, OTHER].map(|sql| {
        let mut hit = world.hit(Point::Orm, TASK);
        (hit.captured, hit.words[2]) = (sql.len() as u32, sql.len() as u64);
        world.on(&hit, sql.as_bytes());
        hit.time_ns
    });
    for (sql, mark) in [(SQL, marks[0]), (OTHER, marks[1])] {
        let pair = [0xb_0000, sql.len() as u64];
        let start = world.call_by_pointer(TASK, sql, pair);
        world.trip(1, TASK, TLS, TLS);
        world.done_by(TASK, pair, start);
        assert_eq!(world.one().times[0], mark, "{sql}");
    }
}

#[test]
fn the_text_of_a_begin_begins_a_transaction_and_says_how_deep() {
    let mut world = tls();
    for depth in 0..3 {
        world.begin_text(TASK, depth);
        world.trip(1, TASK, TLS, TLS);
    }
    let texts: Vec<_> = world.told.drain(..).map(|told| told.text).collect();
    assert_eq!(texts, ["BEGIN", "SAVEPOINT _sqlx_savepoint_1", "SAVEPOINT _sqlx_savepoint_2"]);
    assert_eq!(world.tracker.under_way(), 0);
}

#[test]
fn a_begin_and_its_text_are_one_operation() {
    let mut world = tls();
    let start = world.point(Point::Begin, TASK);
    world.begin_text(TASK, 2);
    let [send, end] = world.trip(1, TASK, TLS, TLS);
    let told = world.one();
    assert_eq!((told.text.as_str(), told.times), ("SAVEPOINT _sqlx_savepoint_2", [0, start, send, end, end]));
    assert_eq!(world.tracker.under_way(), 0);
}

#[test]
fn a_begin_that_the_driver_then_runs_as_a_statement_is_one_operation() {
    let mut world = World::new(Drivers { system: System::Other, ..ALL });
    world.open_tls(1);
    world.changes();
    let mark = world.point(Point::OrmBegin, TASK);
    let start = world.begin_text(TASK, 0);
    let call = world.call(TASK, "BEGIN");
    world.trip(1, TASK, TLS, TLS);
    world.done(TASK, "BEGIN", call);
    let told = world.one();
    assert_eq!((told.text.as_str(), told.times[0], told.times[1]), ("BEGIN", mark, start));
    assert_eq!(world.tracker.under_way(), 0);
}

#[test]
fn a_begin_whose_bytes_were_not_seen_is_neither_the_next_begin_nor_a_statement() {
    let mut world = tls();
    world.begin_text(TASK, 0);
    world.begin_text(TASK, 0);
    let lost = world.one();
    assert_eq!((lost.text.as_str(), world.tracker.under_way()), ("BEGIN", 1), "two of them");
    let call = world.call(TASK, "BEGIN");
    assert_eq!(world.one().text, "BEGIN", "the second one, and the statement begins");
    world.trip(1, TASK, TLS, TLS);
    world.done(TASK, "BEGIN", call);
    assert_eq!((world.one().times[1], world.tracker.under_way()), (call, 0));
}

#[test]
fn what_is_no_statement_is_not_the_text_of_the_mappers_call() {
    let mut world = tls();
    let mut hit = world.hit(Point::Orm, TASK);
    (hit.captured, hit.words[2]) = (4, SQL.len() as u64);
    world.on(&hit, b"\x03\0\0\0");
    let start = world.call_by_pointer(TASK, SQL, [0xb_0000, SQL.len() as u64]);
    world.trip(1, TASK, TLS, TLS);
    world.done_by(TASK, [0xb_0000, SQL.len() as u64], start);
    assert_eq!(world.one().times[0], hit.time_ns, "by its length");
}
