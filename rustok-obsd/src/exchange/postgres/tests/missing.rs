//! Bytes and records that were not captured, and connections that are older than the daemon.

use super::bytes::*;
use super::{Bench, IDLE, Seen, begin, complete};
use crate::database::Ending;
use crate::exchange::postgres::{OtherKind, Stats};
use crate::protocol::postgres::TransactionStatus;

fn ends(bench: &mut Bench) -> Vec<Seen> {
    bench.take().into_iter().filter(|seen| matches!(seen, Seen::End(..))).collect()
}

fn incomplete(op: u64, time_ns: u64) -> Seen {
    Seen::End(op, time_ns, None, String::new(), Ending::Incomplete)
}

#[test]
fn attached_late_it_is_right_within_one_statement() {
    // While idle: at once, but the name is unknown until it is prepared again.
    let mut bench = Bench::new(true);
    bench.send(&execute("sqlx_s_9", b"value"));
    bench.receive(&executed("SELECT 2", 2));
    bench.send(&prepare("sqlx_s_10", "SELECT 1"));
    bench.receive(&prepared());
    bench.send(&execute("sqlx_s_10", b"value"));
    bench.receive(&executed("SELECT 1", 1));
    assert_eq!(
        bench.take(),
        [
            begin(1, 1, "(named)"),
            Seen::First(1, 2),
            complete(1, 2, 2),
            Seen::Ready(2, IDLE),
            Seen::Ready(4, IDLE),
            begin(2, 3, "SELECT 1"),
            Seen::First(2, 6),
            complete(2, 6, 1),
            Seen::Ready(6, IDLE),
        ]
    );
    assert_eq!((bench.shared.stats.resyncs, bench.shared.stats.unknown_statements), (2, 1));

    // In the middle of an answer.
    let mut bench = Bench::new(true);
    let answer = executed("SELECT 100", 100);
    bench.receive(&answer[77..500]);
    bench.receive(&answer[500..]);
    bench.send(&query("SELECT 1"));
    bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
    assert_eq!(
        bench.take()[1..],
        [begin(1, 3, "SELECT 1"), Seen::First(1, 4), complete(1, 4, 1), Seen::Ready(4, IDLE)]
    );

    // With a query in flight that was dropped, so that its answer comes after the next question.
    let mut bench = Bench::new(true);
    bench.send(SYNC);
    bench.receive(&[executed("SELECT 1", 1), ready(b'I')].concat());
    bench.send(&query("SELECT 1"));
    bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
    assert_eq!(ends(&mut bench), [complete(1, 4, 1)]);
    assert_eq!(bench.shared.stats.mismatches, 1);
}

#[test]
fn text_that_is_none_of_the_protocol_is_not_taken_for_it() {
    let mut bench = Bench::new(true);
    for noise in
        [&b"\x17\x03\x03\x00\x20abcdefghijklmnopqrstuvwxyz"[..], b"Q\0\0\0\x05", b"SELECT 1", b"", b"P\0\0\0\xffxx"]
    {
        bench.send(noise);
        bench.receive(noise);
    }
    assert_eq!(bench.take(), []);
    assert_eq!(bench.connection.in_flight(), 0);
}

#[test]
fn a_large_bind_hides_nothing() {
    let mut bench = Bench::started();
    bench.send(&prepare("s", "INSERT INTO t VALUES ($1)"));
    bench.receive(&prepared());
    // libpq, sqlx, tokio-postgres.
    let bound = bind("", "s", &[b'E'; 5000]);
    for rest in [[run(""), message(b'C', b"P\0"), SYNC.to_vec()].concat(), [run(""), SYNC.to_vec()].concat()] {
        let closes = rest.len() == 22;
        bench.cut(false, &[bound.clone(), rest].concat(), 100);
        let close = if closes { done(b'3') } else { Vec::new() };
        bench.receive(&[done(b'2'), complete_tag("INSERT 0 1"), close, ready(b'I')].concat());
    }
    assert_eq!(ends(&mut bench), [complete(1, 4, 1), complete(2, 6, 1)]);
    // Text longer than the record's captured part, prepared as sqlx does.
    let sql = format!("SELECT '{}'", "x".repeat(3000));
    bench.cut(false, &prepare("t", &sql), 50);
    bench.receive(&prepared());
    bench.send(&execute("t", b""));
    bench.receive(&executed("SELECT 1", 1));
    bench.cut(false, &prepare("", &sql), 50);
    bench.receive(&prepared());
    bench.send(&execute("", b""));
    bench.receive(&executed("SELECT 1", 1));
    assert_eq!(ends(&mut bench), [complete(3, 10, 1), complete(4, 14, 1)]);
    assert_eq!(bench.shared.stats.truncated_statements, 2);
    assert_eq!((bench.shared.stats.inferred_executes, bench.shared.stats.lost_sync), (4, 0));
    // Anything else behind it is unknown: nothing is told, and the next record is right again.
    let other = [bound, run(""), bind("", "s", b""), run(""), SYNC.to_vec()].concat();
    bench.cut(false, &other, 100);
    bench.receive(
        &[done(b'2'), complete_tag("INSERT 0 1"), done(b'2'), complete_tag("INSERT 0 1"), ready(b'I')].concat(),
    );
    bench.send(&execute("s", b""));
    bench.receive(&executed("INSERT 0 1", 0));
    assert_eq!(ends(&mut bench), [complete(6, 18, 1)]);
}

#[test]
fn rows_that_were_not_captured_leave_the_end_known() {
    let mut bench = Bench::started();
    bench.send(&query("SELECT 1"));
    let answer = [row_description(), row().repeat(500), complete_tag("SELECT 500"), ready(b'I')].concat();
    bench.cut(true, &answer, 200);
    assert_eq!(
        bench.take(),
        [
            begin(1, 1, "SELECT 1"),
            Seen::First(1, 2),
            Seen::End(1, 2, None, String::new(), Ending::Complete),
            Seen::Ready(2, IDLE),
        ]
    );
    // In a later record, with whole ones between that show nothing.
    bench.send(&query("SELECT 2"));
    bench.cut(true, &answer[..4000], 200);
    bench.io(true, b"", 1000, b"xxxxxxxx", 0);
    bench.cut(true, &answer[5000..], 0);
    bench.send(&query("SELECT 3"));
    bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
    assert_eq!(ends(&mut bench), [Seen::End(2, 6, None, String::new(), Ending::Complete), complete(3, 8, 1)]);
    assert_eq!(bench.shared.stats.unread_ends, 2);
    // The transaction failed in the gap.
    bench.send(&query("BEGIN"));
    bench.receive(&[complete_tag("BEGIN"), ready(b'T')].concat());
    bench.send(&query("SELECT 4"));
    let answer = [row().repeat(500), error("22012"), ready(b'E')].concat();
    bench.cut(true, &answer, 200);
    assert_eq!(ends(&mut bench)[1], Seen::End(5, 12, None, String::new(), Ending::Failed));
    // Several groups were outstanding: nobody knows whose end it is.
    bench.send(&query("SELECT 5"));
    bench.send(&query("SELECT 6"));
    bench.cut(true, &answer, 200);
    assert_eq!(ends(&mut bench), [incomplete(6, 15), incomplete(7, 15)]);
    assert_eq!(bench.connection.status(), Some(TransactionStatus::Failed));
}

#[test]
fn lost_records_end_what_is_in_flight() {
    for received in [true, false] {
        let mut bench = Bench::started();
        bench.send(&query("SELECT 1"));
        let next = query("SELECT 2");
        if received {
            bench.io(true, &ready(b'I'), 6, b"", 40);
        } else {
            bench.io(false, &next, next.len(), b"", 40);
        }
        assert_eq!(ends(&mut bench), [incomplete(1, 2)]);
        if received {
            bench.send(&next);
        }
        bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
        assert_eq!(ends(&mut bench).len(), 1);
        assert_eq!((bench.shared.stats.lost_bytes, bench.shared.stats.broken_operations), (40, 1));
    }
    // Inside a message of known length nothing is lost.
    let mut bench = Bench::started();
    bench.send(&query("SELECT 1"));
    let row = message(b'D', &[0; 1000]);
    bench.receive(&row[..400]);
    bench.io(true, &row[900..], 105, b"", 500);
    bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
    assert_eq!(ends(&mut bench), [complete(1, 4, 1)]);
}

#[test]
fn a_close_ends_what_is_in_flight() {
    let mut bench = Bench::started();
    bench.send(&query("SELECT 1"));
    bench.receive(&row_description());
    bench.close();
    assert_eq!(ends(&mut bench), [incomplete(1, 3)]);
    // The server ended it with an error.
    let mut bench = Bench::started();
    bench.send(&query("SELECT 1"));
    bench.receive(&fatal("57P01"));
    bench.close();
    assert_eq!(ends(&mut bench), [Seen::End(1, 2, None, "57P01".into(), Ending::Failed)]);
    // Prepared, never executed.
    let mut bench = Bench::started();
    bench.send(&prepare("s", "SELECT 1"));
    bench.receive(&prepared());
    bench.close();
    assert_eq!(bench.take(), [Seen::Ready(2, IDLE), Seen::Other(OtherKind::PreparedOnly)]);
    assert_eq!(bench.shared.stats, Stats::default());
}

/// What is told of a statement that follows an answer whose second record goes on inside a row, with these bytes.
fn after_rows_that_look_like(head: &[u8]) -> (Vec<Seen>, Stats) {
    let mut bench = Bench::started();
    bench.send(&query("SELECT title FROM posts"));
    let first = [row_description(), message(b'D', &[7; 6000])].concat();
    bench.io(true, &first[..1000], 8000, &[7; 8], 0);
    bench.receive(&[head, &[b' '; 300]].concat());
    bench.receive(&[complete_tag("SELECT 9"), ready(b'I')].concat());
    bench.take();
    for _ in 0..3 {
        bench.send(SYNC);
        bench.receive(&ready(b'I'));
        bench.send(&query("SELECT 1"));
        bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
    }
    (ends(&mut bench), bench.shared.stats)
}

#[test]
fn bytes_inside_a_row_that_look_like_a_head_do_not_silence_the_connection() {
    // The last byte of a text and the length of the next value; then one that only a record of its own disproves.
    for head in [&b"W\0\0\0\x0aProduct 72D  0"[..], b"1\0\0\0\x04D  0 Product"] {
        let (ends, stats) = after_rows_that_look_like(head);
        let complete = |end: &&Seen| matches!(end, Seen::End(.., Ending::Complete));
        assert_eq!(ends.iter().filter(complete).count(), 3, "{ends:?} {stats:?}");
        assert_eq!(ends.len(), 3, "{ends:?}");
        assert!(stats.lost_sync > 0, "{stats:?}");
    }
}

#[test]
fn a_false_head_among_requests_does_not_silence_the_connection() {
    let mut bench = Bench::started();
    // A Parse that never ends: what follows are whole messages.
    bench.send(b"P\x20\0\0\0ab");
    bench.send(&query("SELECT 1"));
    bench.receive(&[complete_tag("SELECT 1"), ready(b'I')].concat());
    bench.send(&execute("sqlx_s_1", b"value"));
    bench.receive(&executed("SELECT 2", 2));
    let told = ends(&mut bench);
    assert!(matches!(told[..], [.., Seen::End(.., Ending::Complete)]), "{told:?}");
}
